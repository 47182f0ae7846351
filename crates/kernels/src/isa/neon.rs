//! 128-bit vectors of 64-bit ARM.

use super::{Isa, Kernel};
use std::arch::aarch64::*;

/// Proof that the processor has NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neon(());

impl Neon {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

/// # Safety
/// The processor must have NEON, which a token proves.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<K: Kernel>(isa: Neon, kernel: K) -> K::Output {
    kernel.run(isa)
}

const INDEX: [u32; 4] = [0, 1, 2, 3];

// SAFETY of every block in this implementation: the token proves the instructions; the pointer promises are the caller's.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one comment above covers forty one-line wrappers")]
impl Isa for Neon {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 4;
    const FUSED: bool = true;
    type F32 = float32x4_t;
    type Mask = uint32x4_t;
    type Index = [usize; 4];
    type Position = float32x4_t;

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: float32x4_t) {
        unsafe { vst1q_f32(to, value) }
    }
    #[inline(always)]
    fn first(self, count: usize) -> uint32x4_t {
        unsafe { vcltq_u32(vld1q_u32(INDEX.as_ptr()), vdupq_n_u32(count.min(4) as u32)) }
    }
    #[inline(always)]
    unsafe fn load_masked(self, mask: uint32x4_t, from: *const f32) -> float32x4_t {
        let mut lanes = [0.0f32; 4];
        let bits = self.bits(mask);
        for (i, lane) in lanes.iter_mut().enumerate() {
            if bits >> i & 1 == 1 {
                *lane = unsafe { *from.add(i) };
            }
        }
        unsafe { vld1q_f32(lanes.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, mask: uint32x4_t, to: *mut f32, value: float32x4_t) {
        let mut lanes = [0.0f32; 4];
        unsafe { vst1q_f32(lanes.as_mut_ptr(), value) };
        let bits = self.bits(mask);
        for (i, lane) in lanes.iter().enumerate() {
            if bits >> i & 1 == 1 {
                unsafe { *to.add(i) = *lane };
            }
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8, count: usize) -> float32x4_t {
        let mut lanes = [0.0f32; 4];
        for i in 0..count.min(4) {
            lanes[i] = f32::from(unsafe { *from.add(i) });
        }
        unsafe { vld1q_f32(lanes.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, count: usize, value: float32x4_t) {
        let mut lanes = [0.0f32; 4];
        unsafe { vst1q_f32(lanes.as_mut_ptr(), value) };
        for i in 0..count.min(4) {
            unsafe { *to.add(i) = lanes[i].round_ties_even() as u8 };
        }
    }
    #[inline(always)]
    fn position(self, number: u8) -> float32x4_t {
        self.splat(f32::from(number))
    }
    #[inline(always)]
    fn select_position(self, mask: Self::Mask, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
        self.select(mask, yes, no)
    }
    #[inline(always)]
    unsafe fn store_positions(self, to: *mut u8, count: usize, value: float32x4_t) {
        // SAFETY: the caller's promise.
        unsafe { self.store_bytes(to, count, value) }
    }
    #[inline(always)]
    fn to_index(self, value: float32x4_t) -> [usize; 4] {
        let mut lanes = [0.0f32; 4];
        unsafe { vst1q_f32(lanes.as_mut_ptr(), value) };
        lanes.map(|v| v as usize)
    }
    #[inline(always)]
    unsafe fn pick(self, index: [usize; 4], table: *const f32) -> float32x4_t {
        let lanes = index.map(|i| unsafe { *table.add(i % 16) });
        unsafe { vld1q_f32(lanes.as_ptr()) }
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    fn sqrt(self, a: float32x4_t) -> float32x4_t {
        unsafe { vsqrtq_f32(a) }
    }
    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.select(self.greater(a, b), a, b)
    }
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        self.select(self.greater(b, a), a, b)
    }
    #[inline(always)]
    fn round(self, a: float32x4_t) -> float32x4_t {
        unsafe { vrndnq_f32(a) }
    }
    #[inline(always)]
    fn exp2_integer(self, n: float32x4_t) -> float32x4_t {
        unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)))) }
    }
    #[inline(always)]
    fn greater(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        unsafe { vcgtq_f32(a, b) }
    }
    #[inline(always)]
    fn equal(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        unsafe { vceqq_f32(a, b) }
    }
    #[inline(always)]
    fn select(self, mask: uint32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(mask, yes, no) }
    }
    #[inline(always)]
    fn bits(self, mask: uint32x4_t) -> u32 {
        unsafe {
            let weights = vshlq_u32(vdupq_n_u32(1), vreinterpretq_s32_u32(vld1q_u32(INDEX.as_ptr())));
            vaddvq_u32(vandq_u32(mask, weights))
        }
    }
    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        unsafe { vaddvq_f32(a) }
    }
    #[inline(always)]
    fn largest(self, a: float32x4_t) -> f32 {
        unsafe { vmaxvq_f32(a) }
    }
}
