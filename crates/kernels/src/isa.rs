//! One vector vocabulary for every instruction set.
//!
//! A kernel body is written once, generic over [`Isa`], and compiled once per level by [`Level::dispatch`]. The token
//! types (`Portable`, `Avx2`, …) can only be made by feature detection, so holding one proves that its instructions exist.

mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dot;
mod level;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use crate::bf16;
pub(crate) use amx::{Amx, TILE, TileKernel, Tiles};
pub(crate) use dot::{Dot, DotKernel, DotLevel};
pub(crate) use level::Kernel;
pub use level::{Level, UnknownLevel};

/// Lanes of the widest vectors.
pub(crate) const MOST_LANES: usize = 16;

/// Applies a scalar function to every lane.
#[inline(always)]
fn by_lane<I: Isa, const N: usize>(isa: I, vectors: [I::F32; N], f: impl Fn([f32; N]) -> f32) -> I::F32 {
    let mut lanes = [[0.0f32; MOST_LANES]; N];
    let mut results = [0.0f32; MOST_LANES];
    // SAFETY: the arrays hold the lanes of any level.
    unsafe {
        for n in 0..N {
            isa.store(lanes[n].as_mut_ptr(), vectors[n]);
        }
        for i in 0..I::LANES {
            results[i] = f(std::array::from_fn(|n| lanes[n][i]));
        }
        isa.load(results.as_ptr())
    }
}

/// [`Isa::add_products`] without an instruction for it, to the same bits.
#[inline(always)]
fn emulate_add_products<I: Isa>(isa: I, a: I::F32, b: I::F32, sum: I::F32) -> I::F32 {
    if !I::FUSED {
        return by_lane(isa, [a, b, sum], |[a, b, sum]| bf16::add_products(a, b, sum));
    }
    let ((a_even, a_odd), (b_even, b_odd)) = (isa.split(a), isa.split(b));
    let least = isa.splat(f32::MIN_POSITIVE);
    let magnitude = |v| isa.max(v, isa.sub(isa.zero(), v));
    // Zero of the same sign in place of a denormal number.
    let flush = |v| isa.select(isa.greater(least, magnitude(v)), isa.mul(v, isa.zero()), v);
    let odd = isa.mul_add(a_odd, b_odd, flush(sum));
    let even = isa.mul_add(a_even, b_even, flush(odd));
    let doubtful = isa.bits(isa.equal(magnitude(odd), least)) | isa.bits(isa.equal(magnitude(even), least));
    if doubtful != 0 {
        // The least normal number may have been rounded from a result that is denormal.
        return by_lane(isa, [a, b, sum], |[a, b, sum]| bf16::add_products(a, b, sum));
    }
    flush(even)
}

/// The vector operations that kernels are written in. `F32` holds `LANES` values.
///
/// Every method is `#[inline(always)]`, so that inside [`Level::dispatch`] it becomes one instruction.
pub(crate) trait Isa: Copy + Send + Sync + 'static {
    /// Values in one vector.
    const LANES: usize;
    /// Rows and vectors of the largest matrix tile whose accumulators stay in registers.
    const TILE_ROWS: usize;
    /// Vectors per tile row; a weight panel is `TILE_VECTORS * LANES` columns wide.
    const TILE_VECTORS: usize;
    /// Whether `mul_add` rounds once.
    const FUSED: bool;
    /// Whether `add_products` is an instruction; otherwise its emulation isn't worth large tiles.
    const PRODUCTS: bool = false;
    /// Whether vectors are so wide that tiles of one and a half gain.
    const HALVES: bool = false;
    /// A vector of `LANES` single-precision values.
    type F32: Copy;
    /// One truth value for each lane.
    type Mask: Copy;
    /// One small integer for each lane.
    type Index: Copy;
    /// One number in `0..=255` for each lane, in the form that takes the fewest instructions to select and to store.
    type Position: Copy;

    fn splat(self, value: f32) -> Self::F32;
    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }
    /// # Safety
    /// `from` must be readable for `LANES` values; no alignment is needed.
    unsafe fn load(self, from: *const f32) -> Self::F32;
    /// Asks for the memory at `from`, wherever that is, to be brought into the second-level cache.
    #[inline(always)]
    fn prefetch(self, _from: *const f32) {}
    /// # Safety
    /// `to` must be writable for `LANES` values; no alignment is needed.
    unsafe fn store(self, to: *mut f32, value: Self::F32);
    /// The mask of the first `count` lanes (all of them where `count >= LANES`).
    fn first(self, count: usize) -> Self::Mask;
    /// Loads the lanes of the mask; the others are zero and their memory is not touched.
    /// # Safety
    /// The lanes of the mask must be readable.
    unsafe fn load_masked(self, mask: Self::Mask, from: *const f32) -> Self::F32;
    /// Stores the lanes of the mask; the memory of the others is not touched.
    /// # Safety
    /// The lanes of the mask must be writable.
    unsafe fn store_masked(self, mask: Self::Mask, to: *mut f32, value: Self::F32);
    /// Loads half a vector from each place.
    /// # Safety
    /// Both must be readable for half of `LANES` values; no alignment is needed.
    #[inline(always)]
    unsafe fn load_halves(self, low: *const f32, high: *const f32) -> Self::F32 {
        let mut values = [0.0; MOST_LANES];
        // SAFETY: the caller's promise, and the array holds any level's lanes.
        unsafe {
            low.copy_to(values.as_mut_ptr(), Self::LANES / 2);
            high.copy_to(values.as_mut_ptr().add(Self::LANES / 2), Self::LANES / 2);
            self.load(values.as_ptr())
        }
    }
    /// Stores half a vector to each place.
    /// # Safety
    /// Both must be writable for half of `LANES` values; no alignment is needed.
    #[inline(always)]
    unsafe fn store_halves(self, low: *mut f32, high: *mut f32, value: Self::F32) {
        let mut values = [0.0; MOST_LANES];
        // SAFETY: the caller's promise, and the array holds any level's lanes.
        unsafe {
            self.store(values.as_mut_ptr(), value);
            low.copy_from(values.as_ptr(), Self::LANES / 2);
            high.copy_from(values.as_ptr().add(Self::LANES / 2), Self::LANES / 2);
        }
    }
    /// Loads `count` bytes (at most `LANES`) as values; the other lanes are zero.
    /// # Safety
    /// `from` must be readable for `count` bytes.
    unsafe fn load_bytes(self, from: *const u8, count: usize) -> Self::F32;
    /// Stores the first `count` lanes (at most `LANES`), which lie in `0..=255`, as bytes: the nearest, ties to even.
    /// # Safety
    /// `to` must be writable for `count` bytes.
    unsafe fn store_bytes(self, to: *mut u8, count: usize, value: Self::F32);

    /// The same number in all lanes.
    fn position(self, number: u8) -> Self::Position;
    /// `yes` in the lanes of the mask, `no` elsewhere.
    fn select_position(self, mask: Self::Mask, yes: Self::Position, no: Self::Position) -> Self::Position;
    /// Stores the first `count` lanes (at most `LANES`) as bytes.
    /// # Safety
    /// `to` must be writable for `count` bytes.
    unsafe fn store_positions(self, to: *mut u8, count: usize, value: Self::Position);

    /// Lanes that hold integers in `0..=255`, as indices.
    fn to_index(self, value: Self::F32) -> Self::Index;
    /// `table[index % 16]` for each lane.
    /// # Safety
    /// `table` must be readable for 16 values.
    unsafe fn pick(self, index: Self::Index, table: *const f32) -> Self::F32;
    /// Writes `LANES` rows of `LANES` values as columns: `to[j][i] = from[i][j]`.
    /// # Safety
    /// `from` and `to` must be readable and writable for `LANES` rows, one every `from_pitch` and `to_pitch` values.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: the caller's promise.
                unsafe { *to.add(j * to_pitch + i) = *from.add(i * from_pitch + j) };
            }
        }
    }

    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once where the level has fused multiply-add.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// [`mul_add`](Self::mul_add) for a loop in which neither `a` nor `b` is read again, so that the sum stays in its register.
    #[inline(always)]
    fn mul_add_onto(self, a: Self::F32, b: Self::F32, sum: Self::F32) -> Self::F32 {
        self.mul_add(a, b, sum)
    }
    /// The larger value; `b` where either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller value; `b` where either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `even` and `odd` rounded to bf16, those of one lane in its lower and upper half (see [`bf16`]).
    #[inline(always)]
    fn pair(self, even: Self::F32, odd: Self::F32) -> Self::F32 {
        by_lane(self, [even, odd], |[even, odd]| bf16::pair(even, odd))
    }
    /// Rounds the lanes to bf16 and stores them side by side.
    /// # Safety
    /// `to` must be writable for `LANES / 2` values.
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut f32, value: Self::F32) {
        let mut lanes = [0.0; MOST_LANES];
        // SAFETY: the array holds the lanes of any level, and the rest is the caller's promise.
        unsafe {
            self.store(lanes.as_mut_ptr(), value);
            for i in 0..Self::LANES {
                to.cast::<u16>().add(i).write_unaligned(bf16::round(lanes[i]));
            }
        }
    }
    /// Loads `LANES` bf16 values that lie side by side.
    /// # Safety
    /// `from` must be readable for `LANES` values.
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F32 {
        let mut lanes = [0.0; MOST_LANES];
        // SAFETY: the array holds the lanes of any level, and the rest is the caller's promise.
        unsafe {
            for i in 0..Self::LANES {
                lanes[i] = f32::from_bits(u32::from(from.add(i).read_unaligned()) << 16);
            }
            self.load(lanes.as_ptr())
        }
    }
    /// The even and the odd values of pairs.
    #[inline(always)]
    fn split(self, pairs: Self::F32) -> (Self::F32, Self::F32) {
        (by_lane(self, [pairs], |[pair]| bf16::split(pair).0), by_lane(self, [pairs], |[pair]| bf16::split(pair).1))
    }
    /// `sum + odd(a) * odd(b) + even(a) * even(b)` for the lanes' pairs of bf16 values, as [`bf16`] says.
    #[inline(always)]
    fn add_products(self, a: Self::F32, b: Self::F32, sum: Self::F32) -> Self::F32 {
        emulate_add_products(self, a, b, sum)
    }
    /// Nearest integer, ties to even.
    fn round(self, a: Self::F32) -> Self::F32;
    /// `2^n` for lanes that hold integers in `-126..=127`.
    fn exp2_integer(self, n: Self::F32) -> Self::F32;
    /// `a > b`; false where either is NaN.
    fn greater(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a == b`; false where either is NaN.
    fn equal(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `yes` in the lanes of the mask, `no` elsewhere.
    fn select(self, mask: Self::Mask, yes: Self::F32, no: Self::F32) -> Self::F32;
    /// The mask as bits, lane 0 lowest.
    fn bits(self, mask: Self::Mask) -> u32;
    /// Sum of the lanes, always in the same order.
    fn sum(self, a: Self::F32) -> f32;
    /// Largest lane.
    fn largest(self, a: Self::F32) -> f32;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs every operation on one pair of vectors and returns the results lane by lane.
    struct Everything<'a> {
        a: &'a [f32],
        b: &'a [f32],
    }

    impl Kernel for Everything<'_> {
        type Output = ();
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            let n = I::LANES;
            assert!(self.a.len() >= n && self.b.len() >= n);
            let lanes = |v: I::F32| {
                let mut out = vec![0.0f32; n];
                // SAFETY: `out` has `LANES` values.
                unsafe { isa.store(out.as_mut_ptr(), v) };
                out
            };
            // SAFETY: both slices have at least `LANES` values.
            let (a, b) = unsafe { (isa.load(self.a.as_ptr()), isa.load(self.b.as_ptr())) };
            let check = |name: &str, got: I::F32, want: &dyn Fn(f32, f32) -> f32| {
                for (i, &g) in lanes(got).iter().enumerate() {
                    let w = want(self.a[i], self.b[i]);
                    assert!((g - w).abs() <= 1e-6 * w.abs().max(1.0), "{name} lane {i}: {g} instead of {w}");
                }
            };
            check("add", isa.add(a, b), &|a, b| a + b);
            check("sub", isa.sub(a, b), &|a, b| a - b);
            check("mul", isa.mul(a, b), &|a, b| a * b);
            check("div", isa.div(a, b), &|a, b| a / b);
            check("mul_add", isa.mul_add(a, b, a), &|a, b| a * b + a);
            check("max", isa.max(a, b), &f32::max);
            check("min", isa.min(a, b), &f32::min);
            check("round", isa.round(a), &|a, _| a.round_ties_even());
            check("sqrt", isa.sqrt(isa.mul(a, a)), &|a, _| a.abs());
            check("exp2_integer", isa.exp2_integer(isa.round(a)), &|a, _| a.round_ties_even().exp2());
            check("select", isa.select(isa.greater(a, b), a, b), &f32::max);
            check("splat", isa.splat(3.5), &|_, _| 3.5);
            let bits = isa.bits(isa.greater(a, b));
            let want = (0..n).filter(|&i| self.a[i] > self.b[i]).fold(0, |m, i| m | 1 << i);
            assert_eq!(bits, want, "greater");
            assert_eq!(isa.bits(isa.equal(a, a)), u32::MAX >> (32 - n), "equal");
            let sum: f32 = self.a[..n].iter().sum();
            assert!((isa.sum(a) - sum).abs() < 1e-5, "sum");
            assert_eq!(isa.largest(a), self.a[..n].iter().copied().fold(f32::MIN, f32::max), "largest");
            let bytes: Vec<u8> = (0..n).map(|i| 255 - 3 * i as u8).collect();
            for count in 0..=n {
                let mut out = vec![7u8; n];
                // SAFETY: both have `LANES` bytes.
                let values = unsafe {
                    let values = isa.load_bytes(bytes.as_ptr(), count);
                    isa.store_bytes(out.as_mut_ptr(), count, isa.add(values, isa.splat(-0.5)));
                    lanes(values)
                };
                for i in 0..n {
                    assert_eq!(values[i], if i < count { f32::from(bytes[i]) } else { 0.0 }, "load_bytes {count}");
                    // A half goes to the even neighbour.
                    let rounded = if bytes[i].is_multiple_of(2) { bytes[i] } else { bytes[i] - 1 };
                    assert_eq!(out[i], if i < count { rounded } else { 7 }, "store_bytes {count}");
                }
            }
            for count in 0..=n {
                let mut out = vec![7u8; n];
                // SAFETY: the output has `LANES` bytes.
                unsafe {
                    let position = isa.select_position(isa.greater(a, b), isa.position(200), isa.position(1));
                    isa.store_positions(out.as_mut_ptr(), count, position);
                }
                for i in 0..n {
                    let want = if self.a[i] > self.b[i] { 200 } else { 1 };
                    assert_eq!(out[i], if i < count { want } else { 7 }, "store_positions {count}");
                }
            }
            let table: Vec<f32> = (0..16).map(|i| i as f32 * 1.5).collect();
            // SAFETY: the table has 16 values and `bytes` has `LANES`.
            let picked = lanes(unsafe { isa.pick(isa.to_index(isa.load_bytes(bytes.as_ptr(), n)), table.as_ptr()) });
            let want: Vec<_> = bytes.iter().map(|&b| table[usize::from(b % 16)]).collect();
            assert_eq!(picked, want, "pick");
            let (from_pitch, to_pitch) = (n + 3, n + 1);
            let from: Vec<f32> = (0..n * from_pitch).map(|i| i as f32).collect();
            let mut to = vec![-1.0f32; n * to_pitch];
            // SAFETY: both have `LANES` rows at their pitch.
            unsafe { isa.transpose(from.as_ptr(), from_pitch, to.as_mut_ptr(), to_pitch) };
            for (i, &value) in to.iter().enumerate() {
                let (row, column) = (i / to_pitch, i % to_pitch);
                let want = if column < n { from[column * from_pitch + row] } else { -1.0 };
                assert_eq!(value, want, "transpose row {row} column {column}");
            }
            for count in 0..=n + 1 {
                let mask = isa.first(count);
                // SAFETY: both slices have at least `LANES` values.
                let part = lanes(unsafe { isa.load_masked(mask, self.a.as_ptr()) });
                let mut out = vec![9.0f32; n];
                // SAFETY: `out` has `LANES` values.
                unsafe { isa.store_masked(mask, out.as_mut_ptr(), a) };
                for i in 0..n {
                    assert_eq!(part[i], if i < count { self.a[i] } else { 0.0 }, "load_masked {count} lane {i}");
                    assert_eq!(out[i], if i < count { self.a[i] } else { 9.0 }, "store_masked {count} lane {i}");
                }
            }
        }
    }

    #[test]
    fn every_level_agrees_with_scalar_arithmetic() {
        let a: Vec<f32> = (0..32).map(|i| (i as f32 * 1.37).sin() * 4.0).collect();
        let b: Vec<f32> = (0..32).map(|i| (i as f32 * 0.73).cos() * 3.0 + 0.01).collect();
        for level in Level::available() {
            level.dispatch(Everything { a: &a, b: &b });
        }
    }
}
