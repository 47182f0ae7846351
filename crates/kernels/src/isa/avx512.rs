//! 512-bit vectors (AVX-512 F, BW, DQ, VL).

use super::{Isa, Kernel, emulate_add_products};
use std::arch::x86_64::*;

/// Proof that the processor has AVX-512 F, BW, DQ and VL, with AVX2 and FMA; if `BF16`, AVX512_BF16 as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512<const BF16: bool = false> {
    has_bf16: bool,
}

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma");
        found.then(|| Avx512 { has_bf16: is_x86_feature_detected!("avx512bf16") })
    }

    /// Whether the processor adds in units of their own while others multiply: AMD's do, of which those with AVX-512 begin with Zen 4.
    pub(super) fn adds_beside(self) -> bool {
        let vendor = __cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
    }

    /// The proof that the processor has AVX512_BF16, too.
    pub(super) fn with_bf16(self) -> Option<Avx512<true>> {
        self.has_bf16.then_some(Avx512 { has_bf16: true })
    }

    /// As on a processor without AVX512_BF16.
    #[cfg(test)]
    pub(super) fn without_bf16(self) -> Self {
        Avx512 { has_bf16: false }
    }
}

/// # Safety
/// The processor must have the features named, which a token proves.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt")]
pub(super) unsafe fn run<K: Kernel>(isa: Avx512, kernel: K) -> K::Output {
    kernel.run(isa)
}

/// # Safety
/// As for [`run`].
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt")]
pub(super) unsafe fn run_bf16<K: Kernel>(isa: Avx512<true>, kernel: K) -> K::Output {
    kernel.run(isa)
}

/// The values rounded to bf16 in the upper halves of their lanes; the lower halves are of no use.
///
/// # Safety
/// The processor must have AVX-512 F.
#[inline(always)]
unsafe fn round_to_bf16(value: __m512) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = _mm512_castps_si512(value);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
        let rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000));
        let denormal = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(0x7f80_0000));
        _mm512_mask_and_epi32(rounded, denormal, bits, _mm512_set1_epi32(i32::MIN))
    }
}

/// `a * b + sum` in the register of `sum`. The compiler's own choice may be that of `a`, and in a loop a copy back for every sum.
#[inline]
#[target_feature(enable = "avx512f")]
fn mul_add_onto(a: __m512, b: __m512, mut sum: __m512) -> __m512 {
    // SAFETY: the instruction exists and has no other effect.
    unsafe {
        std::arch::asm!(
            "vfmadd231ps {sum}, {a}, {b}",
            sum = inout(zmm_reg) sum,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Word `i` of each half becomes word `2 i` and `2 i + 1`.
static INTERLEAVED: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 32 {
        order[i] = (i / 2 + i % 2 * 16) as u16;
        i += 1;
    }
    order
};

// SAFETY of every block in this implementation: the token proves the instructions; the pointer promises are the caller's.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one comment above covers forty one-line wrappers")]
impl<const BF16: bool> Isa for Avx512<BF16> {
    const LANES: usize = 16;
    const TILE_ROWS: usize = 12;
    const TILE_VECTORS: usize = 2;
    const FUSED: bool = true;
    const PRODUCTS: bool = BF16;
    const HALVES: bool = true;
    type F32 = __m512;
    type Mask = __mmask16;
    type Index = __m512i;
    type Position = __m128i;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m512) {
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    fn first(self, count: usize) -> __mmask16 {
        if count >= 16 { 0xffff } else { (1u16 << count) - 1 }
    }
    #[inline(always)]
    unsafe fn load_masked(self, mask: __mmask16, from: *const f32) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, mask: __mmask16, to: *mut f32, value: __m512) {
        unsafe { _mm512_mask_storeu_ps(to, mask, value) }
    }
    #[inline(always)]
    unsafe fn load_halves(self, low: *const f32, high: *const f32) -> __m512 {
        unsafe {
            let low = _mm512_castps256_ps512(_mm256_loadu_ps(low));
            _mm512_insertf32x8::<1>(low, _mm256_loadu_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn store_halves(self, low: *mut f32, high: *mut f32, value: __m512) {
        unsafe {
            _mm256_storeu_ps(low, _mm512_castps512_ps256(value));
            _mm256_storeu_ps(high, _mm512_extractf32x8_ps::<1>(value));
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8, count: usize) -> __m512 {
        unsafe {
            let bytes = if count >= 16 {
                _mm_loadu_si128(from.cast())
            } else {
                _mm_maskz_loadu_epi8(self.first(count), from.cast())
            };
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, count: usize, value: __m512) {
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(value));
            if count >= 16 {
                _mm_storeu_si128(to.cast(), bytes);
            } else {
                _mm_mask_storeu_epi8(to.cast(), self.first(count), bytes);
            }
        }
    }
    #[inline(always)]
    fn position(self, number: u8) -> __m128i {
        unsafe { _mm_set1_epi8(number.cast_signed()) }
    }
    #[inline(always)]
    fn select_position(self, mask: __mmask16, yes: __m128i, no: __m128i) -> __m128i {
        unsafe { _mm_mask_blend_epi8(mask, no, yes) }
    }
    #[inline(always)]
    unsafe fn store_positions(self, to: *mut u8, count: usize, value: __m128i) {
        unsafe {
            if count >= 16 {
                _mm_storeu_si128(to.cast(), value);
            } else {
                _mm_mask_storeu_epi8(to.cast(), self.first(count), value);
            }
        }
    }
    #[inline(always)]
    fn to_index(self, value: __m512) -> __m512i {
        unsafe { _mm512_cvtps_epi32(value) }
    }
    #[inline(always)]
    unsafe fn pick(self, index: __m512i, table: *const f32) -> __m512 {
        unsafe { _mm512_permutexvar_ps(index, _mm512_loadu_ps(table)) }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
        unsafe {
            let mut rows = [_mm512_setzero_ps(); 16];
            for i in 0..16 {
                rows[i] = _mm512_loadu_ps(from.add(i * from_pitch));
            }
            // Quarter `q` of `fours[4 * g + c]` is column `4 * q + c` of the rows `4 * g..4 * g + 4`.
            let mut fours = [_mm512_setzero_pd(); 16];
            for g in 0..4 {
                let low = |a, b| _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                let high = |a, b| _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                let (a, b, c, d) = (rows[4 * g], rows[4 * g + 1], rows[4 * g + 2], rows[4 * g + 3]);
                fours[4 * g] = _mm512_unpacklo_pd(low(a, b), low(c, d));
                fours[4 * g + 1] = _mm512_unpackhi_pd(low(a, b), low(c, d));
                fours[4 * g + 2] = _mm512_unpacklo_pd(high(a, b), high(c, d));
                fours[4 * g + 3] = _mm512_unpackhi_pd(high(a, b), high(c, d));
            }
            for c in 0..4 {
                let (a, b, d, e) = (fours[c], fours[4 + c], fours[8 + c], fours[12 + c]);
                let even = (_mm512_shuffle_f64x2::<0x88>(a, b), _mm512_shuffle_f64x2::<0x88>(d, e));
                let odd = (_mm512_shuffle_f64x2::<0xdd>(a, b), _mm512_shuffle_f64x2::<0xdd>(d, e));
                let columns = [
                    _mm512_shuffle_f64x2::<0x88>(even.0, even.1),
                    _mm512_shuffle_f64x2::<0x88>(odd.0, odd.1),
                    _mm512_shuffle_f64x2::<0xdd>(even.0, even.1),
                    _mm512_shuffle_f64x2::<0xdd>(odd.0, odd.1),
                ];
                for (q, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_ps(to.add((4 * q + c) * to_pitch), _mm512_castpd_ps(column));
                }
            }
        }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn mul_add_onto(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        unsafe { mul_add_onto(a, b, sum) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn exp2_integer(self, n: __m512) -> __m512 {
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
    }
    #[inline(always)]
    fn greater(self, a: __m512, b: __m512) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) }
    }
    #[inline(always)]
    fn equal(self, a: __m512, b: __m512) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
    }
    #[inline(always)]
    fn select(self, mask: __mmask16, yes: __m512, no: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(mask, no, yes) }
    }
    #[inline(always)]
    fn bits(self, mask: __mmask16) -> u32 {
        u32::from(mask)
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    fn pair(self, even: __m512, odd: __m512) -> __m512 {
        unsafe {
            if BF16 {
                let halves: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(odd, even));
                let order = _mm512_loadu_si512(INTERLEAVED.as_ptr().cast());
                return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, halves));
            }
            let even = _mm512_srli_epi32::<16>(round_to_bf16(even));
            // Upper halves from the odd values.
            _mm512_castsi512_ps(_mm512_mask_blend_epi16(0xaaaa_aaaa, even, round_to_bf16(odd)))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut f32, value: __m512) {
        unsafe {
            let halves = if BF16 {
                std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value))
            } else {
                _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(round_to_bf16(value)))
            };
            _mm256_storeu_si256(to.cast(), halves);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> __m512 {
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }
    #[inline(always)]
    fn split(self, pairs: __m512) -> (__m512, __m512) {
        unsafe {
            let pairs = _mm512_castps_si512(pairs);
            let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(odd))
        }
    }
    #[inline(always)]
    fn add_products(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        if BF16 {
            let pairs = std::mem::transmute::<__m512, __m512bh>;
            return unsafe { _mm512_dpbf16_ps(sum, pairs(a), pairs(b)) };
        }
        emulate_add_products(self, a, b, sum)
    }
}
