//! 256-bit vectors (AVX2 with FMA).

use super::{Isa, Kernel};
use std::arch::x86_64::*;

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }
}

/// # Safety
/// The processor must have the features named, which a token proves.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<K: Kernel>(isa: Avx2, kernel: K) -> K::Output {
    kernel.run(isa)
}

/// A mask of the first `n` lanes is the window of this table that starts at `8 - n`.
static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The values rounded to bf16 in the upper halves of their lanes; the lower halves are of no use.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn round_to_bf16(value: __m256) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = _mm256_castps_si256(value);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        let rounded = _mm256_blendv_epi8(rounded, quiet, nan);
        let exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7f80_0000));
        let denormal = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
        _mm256_blendv_epi8(rounded, _mm256_and_si256(bits, _mm256_set1_epi32(i32::MIN)), denormal)
    }
}

// SAFETY of every block in this implementation: the token proves the instructions; the pointer promises are the caller's.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one comment above covers forty one-line wrappers")]
impl Isa for Avx2 {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 2;
    const FUSED: bool = true;
    type F32 = __m256;
    type Mask = __m256;
    type Index = __m256i;
    type Position = __m256;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m256) {
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    fn first(self, count: usize) -> __m256 {
        // The window ends inside the table for every count of at most 8.
        unsafe { _mm256_castsi256_ps(_mm256_loadu_si256(FIRST.as_ptr().add(8 - count.min(8)).cast())) }
    }
    #[inline(always)]
    unsafe fn load_masked(self, mask: __m256, from: *const f32) -> __m256 {
        unsafe { _mm256_maskload_ps(from, _mm256_castps_si256(mask)) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, mask: __m256, to: *mut f32, value: __m256) {
        unsafe { _mm256_maskstore_ps(to, _mm256_castps_si256(mask), value) }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8, count: usize) -> __m256 {
        unsafe {
            let bytes = if count >= 8 {
                _mm_loadl_epi64(from.cast())
            } else {
                let mut bytes = [0u8; 8];
                std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count);
                _mm_loadl_epi64(bytes.as_ptr().cast())
            };
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, count: usize, value: __m256) {
        unsafe {
            let words = _mm256_cvtps_epi32(value);
            let halves = _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            let bytes = _mm_packus_epi16(halves, halves);
            if count >= 8 {
                _mm_storel_epi64(to.cast(), bytes);
            } else {
                let mut lanes = [0u8; 8];
                _mm_storel_epi64(lanes.as_mut_ptr().cast(), bytes);
                std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count);
            }
        }
    }
    #[inline(always)]
    fn position(self, number: u8) -> __m256 {
        self.splat(f32::from(number))
    }
    #[inline(always)]
    fn select_position(self, mask: Self::Mask, yes: __m256, no: __m256) -> __m256 {
        self.select(mask, yes, no)
    }
    #[inline(always)]
    unsafe fn store_positions(self, to: *mut u8, count: usize, value: __m256) {
        // SAFETY: the caller's promise.
        unsafe { self.store_bytes(to, count, value) }
    }
    #[inline(always)]
    fn to_index(self, value: __m256) -> __m256i {
        unsafe { _mm256_cvtps_epi32(value) }
    }
    #[inline(always)]
    unsafe fn pick(self, index: __m256i, table: *const f32) -> __m256 {
        unsafe {
            let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
            let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.add(8)), index);
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)))
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
        unsafe {
            let mut rows = [_mm256_setzero_ps(); 8];
            for i in 0..8 {
                rows[i] = _mm256_loadu_ps(from.add(i * from_pitch));
            }
            // Half `h` of `fours[4 * g + c]` is column `4 * h + c` of the rows `4 * g..4 * g + 4`.
            let mut fours = [_mm256_setzero_ps(); 8];
            for g in 0..2 {
                let (a, b, c, d) = (rows[4 * g], rows[4 * g + 1], rows[4 * g + 2], rows[4 * g + 3]);
                let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (low2, high2) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                fours[4 * g] = _mm256_shuffle_ps::<0x44>(low, low2);
                fours[4 * g + 1] = _mm256_shuffle_ps::<0xee>(low, low2);
                fours[4 * g + 2] = _mm256_shuffle_ps::<0x44>(high, high2);
                fours[4 * g + 3] = _mm256_shuffle_ps::<0xee>(high, high2);
            }
            for c in 0..4 {
                let (a, b) = (fours[c], fours[4 + c]);
                _mm256_storeu_ps(to.add(c * to_pitch), _mm256_permute2f128_ps::<0x20>(a, b));
                _mm256_storeu_ps(to.add((4 + c) * to_pitch), _mm256_permute2f128_ps::<0x31>(a, b));
            }
        }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        unsafe { _mm256_sqrt_ps(a) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn exp2_integer(self, n: __m256) -> __m256 {
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        }
    }
    #[inline(always)]
    fn greater(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_GT_OQ>(a, b) }
    }
    #[inline(always)]
    fn equal(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) }
    }
    #[inline(always)]
    fn select(self, mask: __m256, yes: __m256, no: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(no, yes, mask) }
    }
    #[inline(always)]
    fn bits(self, mask: __m256) -> u32 {
        unsafe { _mm256_movemask_ps(mask) as u32 }
    }
    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
        }
    }
    #[inline(always)]
    fn largest(self, a: __m256) -> f32 {
        unsafe {
            let half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(quarter, _mm_shuffle_ps::<1>(quarter, quarter)))
        }
    }
    #[inline(always)]
    fn pair(self, even: __m256, odd: __m256) -> __m256 {
        unsafe {
            let even = _mm256_srli_epi32::<16>(round_to_bf16(even));
            _mm256_castsi256_ps(_mm256_blend_epi16::<0xaa>(even, round_to_bf16(odd)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut f32, value: __m256) {
        unsafe {
            let words = _mm256_srli_epi32::<16>(round_to_bf16(value));
            let halves = _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.cast(), halves);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> __m256 {
        unsafe {
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
        }
    }
    #[inline(always)]
    fn split(self, pairs: __m256) -> (__m256, __m256) {
        unsafe {
            let pairs = _mm256_castps_si256(pairs);
            let odd = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000u32 as i32));
            (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(odd))
        }
    }
}
