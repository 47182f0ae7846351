//! The level that every processor has: arrays that the compiler turns into whatever vectors the target guarantees.

use super::Isa;

/// Plain Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portable(());

impl Portable {
    pub(super) fn detect() -> Self {
        Portable(())
    }
}

const LANES: usize = 4;
type V = [f32; LANES];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

#[inline(always)]
fn map(a: V, f: impl Fn(f32) -> f32) -> V {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

impl Isa for Portable {
    const LANES: usize = LANES;
    const TILE_ROWS: usize = 4;
    // So that what the trait does by itself is tested.
    const HALVES: bool = cfg!(test);
    const TILE_VECTORS: usize = 2;
    const FUSED: bool = false;
    type F32 = V;
    type Mask = [bool; LANES];
    type Index = [usize; LANES];
    type Position = V;

    #[inline(always)]
    fn splat(self, value: f32) -> V {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> V {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: V) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<V>().write_unaligned(value) }
    }
    #[inline(always)]
    fn first(self, count: usize) -> Self::Mask {
        [count > 0, count > 1, count > 2, count > 3]
    }
    #[inline(always)]
    unsafe fn load_masked(self, mask: Self::Mask, from: *const f32) -> V {
        let mut v = [0.0; LANES];
        for i in 0..LANES {
            if mask[i] {
                // SAFETY: the caller's promise for the lanes of the mask.
                v[i] = unsafe { *from.add(i) };
            }
        }
        v
    }
    #[inline(always)]
    unsafe fn store_masked(self, mask: Self::Mask, to: *mut f32, value: V) {
        for i in 0..LANES {
            if mask[i] {
                // SAFETY: the caller's promise for the lanes of the mask.
                unsafe { *to.add(i) = value[i] };
            }
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8, count: usize) -> V {
        let mut v = [0.0; LANES];
        for i in 0..count.min(LANES) {
            // SAFETY: the caller's promise.
            v[i] = f32::from(unsafe { *from.add(i) });
        }
        v
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, count: usize, value: V) {
        for i in 0..count.min(LANES) {
            // SAFETY: the caller's promise.
            unsafe { *to.add(i) = value[i].round_ties_even() as u8 };
        }
    }
    #[inline(always)]
    fn position(self, number: u8) -> V {
        self.splat(f32::from(number))
    }
    #[inline(always)]
    fn select_position(self, mask: Self::Mask, yes: V, no: V) -> V {
        self.select(mask, yes, no)
    }
    #[inline(always)]
    unsafe fn store_positions(self, to: *mut u8, count: usize, value: V) {
        // SAFETY: the caller's promise.
        unsafe { self.store_bytes(to, count, value) }
    }
    #[inline(always)]
    fn to_index(self, value: V) -> [usize; LANES] {
        value.map(|v| v as usize)
    }
    #[inline(always)]
    unsafe fn pick(self, index: [usize; LANES], table: *const f32) -> V {
        // SAFETY: the caller's promise.
        index.map(|i| unsafe { *table.add(i % 16) })
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn sqrt(self, a: V) -> V {
        map(a, f32::sqrt)
    }
    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        // `f32::mul_add` would call a slow library routine where the target has no such instruction.
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn round(self, a: V) -> V {
        map(a, f32::round_ties_even)
    }
    #[inline(always)]
    fn exp2_integer(self, n: V) -> V {
        map(n, |n| f32::from_bits(((n as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    fn greater(self, a: V, b: V) -> Self::Mask {
        [a[0] > b[0], a[1] > b[1], a[2] > b[2], a[3] > b[3]]
    }
    #[inline(always)]
    fn equal(self, a: V, b: V) -> Self::Mask {
        [a[0] == b[0], a[1] == b[1], a[2] == b[2], a[3] == b[3]]
    }
    #[inline(always)]
    fn select(self, mask: Self::Mask, yes: V, no: V) -> V {
        let pick = |i: usize| if mask[i] { yes[i] } else { no[i] };
        [pick(0), pick(1), pick(2), pick(3)]
    }
    #[inline(always)]
    fn bits(self, mask: Self::Mask) -> u32 {
        (0..LANES).fold(0, |bits, i| bits | u32::from(mask[i]) << i)
    }
    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn largest(self, a: V) -> f32 {
        a[0].max(a[1]).max(a[2].max(a[3]))
    }
}
