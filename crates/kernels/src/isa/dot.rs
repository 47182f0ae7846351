//! Sums of products of bytes, four at a time: what 8-bit networks are computed with.
//!
//! The sums are whole numbers, so they are the same on every level, whatever instructions make them.

use super::Isa;
#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::portable::Portable;
#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Products of unsigned with signed bytes beside the vectors of an [`Isa`]. Every method is `#[inline(always)]`.
pub(crate) trait Dot: Copy + Send + Sync + 'static {
    /// The vectors of single precision.
    type Isa: Isa;
    /// `LANES` 32-bit sums.
    type Sums: Copy;
    /// Four unsigned bytes, the same for every lane.
    type Quad: Copy;
    /// Four signed bytes for each lane.
    type Weights: Copy;

    fn isa(self) -> Self::Isa;
    fn zero(self) -> Self::Sums;
    /// # Safety
    /// `from` must be readable for four bytes.
    unsafe fn quad(self, from: *const u8) -> Self::Quad;
    /// # Safety
    /// `from` must be readable for `4 * LANES` bytes.
    unsafe fn weights(self, from: *const i8) -> Self::Weights;
    /// `sums + quad[0] * weights[0] + … + quad[3] * weights[3]` in each lane, modulo 2^32.
    fn add_products(self, sums: Self::Sums, quad: Self::Quad, weights: Self::Weights) -> Self::Sums;
    /// The larger of each lane.
    fn max(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;
    /// The nearest single-precision values, ties to even.
    fn to_f32(self, sums: Self::Sums) -> <Self::Isa as Isa>::F32;
}

/// A computation on bytes whose body is compiled for each way to multiply them.
pub(crate) trait DotKernel {
    type Output;
    /// The body; must be `#[inline(always)]`, as must everything it calls with `dot`.
    fn run<D: Dot>(self, dot: D) -> Self::Output;
}

/// A way to multiply bytes that this machine was found to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DotLevel {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Vnni(Vnni),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl DotLevel {
    /// The best way on the level: VNNI where an AVX-512 processor has it.
    pub(super) fn improved(self) -> Self {
        match self {
            #[cfg(target_arch = "x86_64")]
            DotLevel::Avx512(isa) => Vnni::detect(isa).map_or(self, DotLevel::Vnni),
            other => other,
        }
    }

    /// The same without instructions that only some processors of the level have.
    #[cfg(test)]
    pub(crate) fn common(self) -> Self {
        match self {
            #[cfg(target_arch = "x86_64")]
            DotLevel::Vnni(Vnni(isa)) => DotLevel::Avx512(isa),
            other => other,
        }
    }

    /// Runs the kernel, compiled for this way.
    pub(crate) fn dispatch<K: DotKernel>(self, kernel: K) -> K::Output {
        match self {
            DotLevel::Portable(dot) => kernel.run(dot),
            // SAFETY: the token was made by detecting the features that the wrapper enables.
            #[cfg(target_arch = "x86_64")]
            DotLevel::Avx2(dot) => unsafe { run_avx2(dot, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            DotLevel::Avx512(dot) => unsafe { run_avx512(dot, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            DotLevel::Vnni(dot) => unsafe { run_vnni(dot, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            DotLevel::Neon(dot) => unsafe { run_neon(dot, kernel) },
        }
    }
}

/// # Safety
/// The processor must have the features named, which a token proves.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2<K: DotKernel>(dot: Avx2, kernel: K) -> K::Output {
    kernel.run(dot)
}

/// # Safety
/// The processor must have the features named, which a token proves.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt")]
unsafe fn run_avx512<K: DotKernel>(dot: Avx512, kernel: K) -> K::Output {
    kernel.run(dot)
}

/// # Safety
/// The processor must have the features named, which a token proves.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,bmi1,bmi2,popcnt")]
unsafe fn run_vnni<K: DotKernel>(dot: Vnni, kernel: K) -> K::Output {
    kernel.run(dot)
}

/// # Safety
/// The processor must have NEON, which a token proves.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn run_neon<K: DotKernel>(dot: Neon, kernel: K) -> K::Output {
    kernel.run(dot)
}

/// Proof that the processor has AVX-512 with VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vnni(Avx512);

#[cfg(target_arch = "x86_64")]
impl Vnni {
    fn detect(isa: Avx512) -> Option<Self> {
        is_x86_feature_detected!("avx512vnni").then_some(Vnni(isa))
    }
}

// SAFETY of every block in this implementation: the token proves the instructions; the pointer promises are the caller's.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks, reason = "one comment above covers one-line wrappers")]
impl Dot for Vnni {
    type Isa = Avx512;
    type Sums = __m512i;
    type Quad = __m512i;
    type Weights = __m512i;

    #[inline(always)]
    fn isa(self) -> Avx512 {
        self.0
    }
    #[inline(always)]
    fn zero(self) -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn quad(self, from: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn weights(self, from: *const i8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    fn add_products(self, sums: __m512i, quad: __m512i, weights: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, quad, weights) }
    }
    #[inline(always)]
    fn max(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_max_epi32(a, b) }
    }
    #[inline(always)]
    fn to_f32(self, sums: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(sums) }
    }
}

// Without VNNI, bytes become 16-bit numbers, those at even and at odd places apart: the instruction that multiplies bytes
// as they are (vpmaddubsw) saturates sums beyond 16 bits.

// SAFETY of every block in this implementation: the token proves the instructions; the pointer promises are the caller's.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks, reason = "one comment above covers one-line wrappers")]
impl Dot for Avx512 {
    type Isa = Avx512;
    type Sums = __m512i;
    type Quad = [__m512i; 2];
    type Weights = [__m512i; 2];

    #[inline(always)]
    fn isa(self) -> Avx512 {
        self
    }
    #[inline(always)]
    fn zero(self) -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn quad(self, from: *const u8) -> [__m512i; 2] {
        unsafe {
            let [even, odd] = halves(from);
            [_mm512_set1_epi32(even), _mm512_set1_epi32(odd)]
        }
    }
    #[inline(always)]
    unsafe fn weights(self, from: *const i8) -> [__m512i; 2] {
        unsafe {
            let bytes = _mm512_loadu_si512(from.cast());
            [_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(bytes)), _mm512_srai_epi16::<8>(bytes)]
        }
    }
    #[inline(always)]
    fn add_products(self, sums: __m512i, quad: [__m512i; 2], weights: [__m512i; 2]) -> __m512i {
        unsafe {
            let sums = _mm512_add_epi32(sums, _mm512_madd_epi16(quad[0], weights[0]));
            _mm512_add_epi32(sums, _mm512_madd_epi16(quad[1], weights[1]))
        }
    }
    #[inline(always)]
    fn max(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_max_epi32(a, b) }
    }
    #[inline(always)]
    fn to_f32(self, sums: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(sums) }
    }
}

// SAFETY of every block in this implementation: the token proves the instructions; the pointer promises are the caller's.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks, reason = "one comment above covers one-line wrappers")]
impl Dot for Avx2 {
    type Isa = Avx2;
    type Sums = __m256i;
    type Quad = [__m256i; 2];
    type Weights = [__m256i; 2];

    #[inline(always)]
    fn isa(self) -> Avx2 {
        self
    }
    #[inline(always)]
    fn zero(self) -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn quad(self, from: *const u8) -> [__m256i; 2] {
        unsafe {
            let [even, odd] = halves(from);
            [_mm256_set1_epi32(even), _mm256_set1_epi32(odd)]
        }
    }
    #[inline(always)]
    unsafe fn weights(self, from: *const i8) -> [__m256i; 2] {
        unsafe {
            let bytes = _mm256_loadu_si256(from.cast());
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
        }
    }
    #[inline(always)]
    fn add_products(self, sums: __m256i, quad: [__m256i; 2], weights: [__m256i; 2]) -> __m256i {
        unsafe {
            let sums = _mm256_add_epi32(sums, _mm256_madd_epi16(quad[0], weights[0]));
            _mm256_add_epi32(sums, _mm256_madd_epi16(quad[1], weights[1]))
        }
    }
    #[inline(always)]
    fn max(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_max_epi32(a, b) }
    }
    #[inline(always)]
    fn to_f32(self, sums: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(sums) }
    }
}

/// The bytes at even and at odd places, each in the low half of 16 bits.
///
/// # Safety
/// `from` must be readable for four bytes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn halves(from: *const u8) -> [i32; 2] {
    // SAFETY: the caller's promise.
    let bytes = unsafe { from.cast::<u32>().read_unaligned() };
    [(bytes & 0x00ff_00ff) as i32, (bytes >> 8 & 0x00ff_00ff) as i32]
}

// SAFETY of every block in this implementation: the token proves the instructions; the pointer promises are the caller's.
#[cfg(target_arch = "aarch64")]
#[allow(clippy::undocumented_unsafe_blocks, reason = "one comment above covers one-line wrappers")]
impl Dot for Neon {
    type Isa = Neon;
    type Sums = int32x4_t;
    type Quad = int16x8_t;
    type Weights = [int16x8_t; 2];

    #[inline(always)]
    fn isa(self) -> Neon {
        self
    }
    #[inline(always)]
    fn zero(self) -> int32x4_t {
        unsafe { vdupq_n_s32(0) }
    }
    #[inline(always)]
    unsafe fn quad(self, from: *const u8) -> int16x8_t {
        unsafe {
            let bytes = vdup_n_u32(from.cast::<u32>().read_unaligned());
            vreinterpretq_s16_u16(vmovl_u8(vreinterpret_u8_u32(bytes)))
        }
    }
    #[inline(always)]
    unsafe fn weights(self, from: *const i8) -> [int16x8_t; 2] {
        unsafe {
            let bytes = vld1q_s8(from);
            [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)]
        }
    }
    #[inline(always)]
    fn add_products(self, sums: int32x4_t, quad: int16x8_t, weights: [int16x8_t; 2]) -> int32x4_t {
        unsafe {
            // Two lanes in each vector of weights, four products in each lane.
            let lanes = |w: int16x8_t| {
                let first = vmull_s16(vget_low_s16(quad), vget_low_s16(w));
                vpaddq_s32(first, vmull_high_s16(quad, w))
            };
            vaddq_s32(sums, vpaddq_s32(lanes(weights[0]), lanes(weights[1])))
        }
    }
    #[inline(always)]
    fn max(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vmaxq_s32(a, b) }
    }
    #[inline(always)]
    fn to_f32(self, sums: int32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(sums) }
    }
}

impl Dot for Portable {
    type Isa = Portable;
    type Sums = [i32; Portable::LANES];
    type Quad = [i32; 4];
    type Weights = [[i8; 4]; Portable::LANES];

    #[inline(always)]
    fn isa(self) -> Portable {
        self
    }
    #[inline(always)]
    fn zero(self) -> Self::Sums {
        [0; Portable::LANES]
    }
    #[inline(always)]
    unsafe fn quad(self, from: *const u8) -> [i32; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u8; 4]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn weights(self, from: *const i8) -> Self::Weights {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Self::Weights>().read_unaligned() }
    }
    #[inline(always)]
    fn add_products(self, mut sums: Self::Sums, quad: [i32; 4], weights: Self::Weights) -> Self::Sums {
        for (sum, weights) in sums.iter_mut().zip(weights) {
            for i in 0..4 {
                *sum = sum.wrapping_add(quad[i] * i32::from(weights[i]));
            }
        }
        sums
    }
    #[inline(always)]
    fn max(self, a: Self::Sums, b: Self::Sums) -> Self::Sums {
        std::array::from_fn(|i| a[i].max(b[i]))
    }
    #[inline(always)]
    fn to_f32(self, sums: Self::Sums) -> [f32; Portable::LANES] {
        sums.map(|sum| sum as f32)
    }
}
