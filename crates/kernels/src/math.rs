//! Exponential and its relatives on vectors.
//!
//! Errors are stated in units in the last place (ulp) of the exact value, for levels with fused multiply-add; the
//! portable level, which rounds twice, may err by one more. Results below the smallest normal number are zero.

use crate::isa::Isa;

/// `log2(e)`.
const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// `ln 2` in two parts; the first has few enough bits that its product with an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_375;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// The logarithm of the smallest normal number.
const EXP_LOWEST: f32 = -87.336_54;

/// Splits `x = n ln 2 + r` and returns `(n, r, (e^r - 1 - r) / r^2)`.
#[inline(always)]
fn exp_parts<I: Isa>(isa: I, x: I::F32) -> (I::F32, I::F32, I::F32) {
    // The operand that may be NaN stands second, so that NaN stays.
    let x = isa.min(isa.splat(88.8), isa.max(isa.splat(EXP_LOWEST), x));
    let n = isa.round(isa.mul(x, isa.splat(LOG2_E)));
    let r = isa.mul_add(n, isa.splat(-LN_2_HIGH), x);
    let r = isa.mul_add(n, isa.splat(-LN_2_LOW), r);
    // The minimax polynomial of Cephes' `expf`.
    let mut q = isa.splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 5e-1] {
        q = isa.mul_add(q, r, isa.splat(c));
    }
    (n, r, q)
}

/// `2^n p` for `n` in `-126..=128`.
#[inline(always)]
fn scale<I: Isa>(isa: I, n: I::F32, p: I::F32) -> I::F32 {
    // 2^128 is out of range although the product may not be: the last doubling goes to `p`.
    let m = isa.min(isa.splat(127.0), n);
    isa.mul(isa.mul_add(p, isa.sub(n, m), p), isa.exp2_integer(m))
}

/// `e^x`, within 2 ulp.
#[inline(always)]
pub(crate) fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (n, r, q) = exp_parts(isa, x);
    let p = isa.add(isa.mul_add(isa.mul(r, r), q, r), isa.splat(1.0));
    isa.select(isa.greater(isa.splat(EXP_LOWEST), x), isa.zero(), scale(isa, n, p))
}

/// `e^x - 1`, within 3 ulp also near zero; for `x` up to 88.
#[inline(always)]
pub(crate) fn exp_m1<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (n, r, q) = exp_parts(isa, x);
    let m = isa.min(isa.splat(127.0), n);
    let power = isa.exp2_integer(m);
    // 2^n (1 + s) - 1 = 2^n s + (2^n - 1)
    let s = isa.mul_add(isa.mul(r, r), q, r);
    isa.mul_add(power, s, isa.sub(power, isa.splat(1.0)))
}

/// `1 / (1 + e^-x)`, within 4 ulp.
#[inline(always)]
pub(crate) fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let one = isa.splat(1.0);
    isa.div(one, isa.add(one, exp(isa, isa.sub(isa.zero(), x))))
}

/// `tanh x`, within 4 ulp.
#[inline(always)]
pub(crate) fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // (e^2x - 1) / (e^2x - 1 + 2), which does not cancel near zero; beyond 10 it is ±1.
    let x = isa.min(isa.splat(10.0), isa.max(isa.splat(-10.0), x));
    let e = exp_m1(isa, isa.add(x, x));
    isa.div(e, isa.add(e, isa.splat(2.0)))
}

/// The error function, within 1e-7 of it absolutely and 8 ulp.
#[inline(always)]
pub(crate) fn erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // The rational approximation of Eigen's `erf`, on [-4, 4]; beyond it is ±1 in single precision.
    let x = isa.min(isa.splat(4.0), isa.max(isa.splat(-4.0), x));
    let x2 = isa.mul(x, x);
    let mut p = isa.splat(-2.726_142_4e-10);
    for c in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906e-4, -2.954_599_8e-3, -1.609_603_3e-2] {
        p = isa.mul_add(p, x2, isa.splat(c));
    }
    let mut q = isa.splat(-1.456_607_2e-5);
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2] {
        q = isa.mul_add(q, x2, isa.splat(c));
    }
    isa.div(isa.mul(x, p), q)
}

/// `e^(-x²/2) / sqrt(2π)`, the density of the normal distribution.
#[inline(always)]
pub(crate) fn normal_density<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    isa.mul(isa.splat(0.398_942_3), exp(isa, isa.mul(isa.mul(x, x), isa.splat(-0.5))))
}

/// `(1 + erf(x / sqrt 2)) / 2`, the normal distribution.
#[inline(always)]
pub(crate) fn normal_distribution<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let half = isa.splat(0.5);
    isa.mul_add(half, erf(isa, isa.mul(x, isa.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
}
