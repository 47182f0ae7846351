//! Exponential and its relatives on vectors.
//!
//! Errors are stated in units in the last place (ulp) of the exact value, for levels with fused multiply-add; the
//! portable level, which rounds twice, may err by one more. Results below the smallest normal number are zero.

use crate::isa::Isa;

/// `log2(e)`.
const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// `ln 2` in two parts; the first has few enough bits that its product with an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
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
    let y = isa.div(one, isa.add(one, exp(isa, isa.sub(isa.zero(), x))));
    // The exponential ends at a finite number, and so a product with a large x would not vanish.
    isa.select(isa.greater(isa.splat(EXP_LOWEST), x), isa.zero(), y)
}

/// `tanh x`, within 4 ulp.
#[inline(always)]
pub(crate) fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // (e^2x - 1) / (e^2x - 1 + 2), which does not cancel near zero; beyond 10 it is ±1.
    let x = isa.min(isa.splat(10.0), isa.max(isa.splat(-10.0), x));
    let e = exp_m1(isa, isa.add(x, x));
    isa.div(e, isa.add(e, isa.splat(2.0)))
}

/// The normal distribution `Φ(x) = (1 + erf(x / sqrt 2)) / 2`, within `6 + x²/2` ulp also in the lower tail, and its
/// density `e^(-x²/2) / sqrt(2π)`, alike.
#[inline(always)]
pub(crate) fn normal<I: Isa>(isa: I, x: I::F32) -> (I::F32, I::F32) {
    let one = isa.splat(1.0);
    let size = isa.max(x, isa.sub(isa.zero(), x));
    let e = exp(isa, isa.mul(isa.mul(size, size), isa.splat(-0.5)));
    // The tail over e, as a minimax polynomial in t = 1 / (1 + 0.33 |x|) without constant term; relative error 4.7e-8.
    let t = isa.div(one, isa.mul_add(size, isa.splat(0.33), one));
    let mut p = isa.splat(-2.141_392_6e-2);
    for c in [1.259_709_3e-1, -2.730_279e-1, 2.311_444_6e-1, -6.089_652_3e-2] {
        p = isa.mul_add(p, t, isa.splat(c));
    }
    for c in [1.236_192_3e-1, 1.106_226_4e-1, 1.323_622_6e-1, 1.316_188_3e-1] {
        p = isa.mul_add(p, t, isa.splat(c));
    }
    let tail = isa.mul(e, isa.mul(p, t));
    let distribution = isa.select(isa.greater(x, isa.zero()), isa.sub(one, tail), tail);
    (distribution, isa.mul(e, isa.splat(0.398_942_3)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Level;
    use crate::map::{Map, map};
    use crate::testing::{erf, output};

    macro_rules! as_map {
        ($($name:ident $function:ident),*) => {$(
            #[derive(Clone, Copy)]
            struct $name;
            impl Map<1> for $name {
                #[inline(always)]
                fn apply<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
                    $function(isa, x)
                }
            }
        )*};
    }
    #[inline(always)]
    fn distribution<I: Isa>(isa: I, x: I::F32) -> I::F32 {
        normal(isa, x).0
    }
    #[inline(always)]
    fn density<I: Isa>(isa: I, x: I::F32) -> I::F32 {
        normal(isa, x).1
    }
    as_map!(Exp exp, ExpM1 exp_m1, Sig sigmoid, Tanh tanh, Normal distribution, Density density);

    /// Checks a function on a fine grid, to `ulp` units in the last place or `absolute`, whichever is more.
    fn check(f: impl Map<1>, exact: impl Fn(f64) -> f64, from: f32, to: f32, ulp: f64, absolute: f64) {
        const POINTS: usize = 20_011;
        let mut x: Vec<f32> = (0..POINTS).map(|i| from + (to - from) * i as f32 / (POINTS - 1) as f32).collect();
        // Small magnitudes, which an even grid misses.
        x.extend((0..1000).map(|i| 0.97f32.powi(i) * if i % 2 == 0 { to.min(1.0) } else { from.max(-1.0) }));
        for level in Level::available() {
            let extra = if level.name() == "portable" { 1.0 } else { 0.0 };
            let y = output(x.len(), 7.0, |y| map(level, f, [&x], y));
            for (&x, &y) in x.iter().zip(&y) {
                let want = exact(f64::from(x));
                // The distance from the rounded exact value to the next number.
                let rounded = (want as f32).abs().max(f32::MIN_POSITIVE);
                let unit = f64::from(rounded.next_up() - rounded);
                let error = (f64::from(y) - want).abs();
                assert!(error <= ((ulp + extra) * unit).max(absolute), "{level:?} f({x}) = {y} instead of {want}");
            }
        }
    }

    /// The upper tail of the normal distribution over its density, by Laplace's continued fraction.
    fn mills(x: f64) -> f64 {
        1.0 / (1..=200).rev().fold(x, |f, n| x + f64::from(n) / f)
    }

    #[test]
    fn errors_are_as_stated() {
        check(Exp, f64::exp, -87.3, 88.7, 2.0, 0.0);
        check(ExpM1, f64::exp_m1, -87.0, 88.0, 3.0, 0.0);
        check(Sig, |x| 1.0 / (1.0 + (-x).exp()), -87.0, 87.0, 4.0, 0.0);
        check(Tanh, f64::tanh, -12.0, 12.0, 4.0, 0.0);
        let root = (2.0 * std::f64::consts::PI).sqrt();
        let bell = |x: f64| (-x * x / 2.0).exp() / root;
        let lower = |x: f64| if x > -3.0 { (1.0 + erf(x / 2f64.sqrt())) / 2.0 } else { bell(x) * mills(-x) };
        for (from, to) in [(-13.0, -8.0), (-8.0, -4.0), (-4.0, -2.0), (-2.0, 0.0), (0.0, 9.0)] {
            check(Normal, lower, from, to, 6.0 + f64::from(from * from) / 2.0, 0.0);
            check(Density, bell, from, to, 6.0 + f64::from(from * from + to * to) / 2.0, 0.0);
        }
    }

    #[test]
    fn extremes_are_right() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let x = [-inf, -1e30, -100.0, -0.0, 89.0, 1e30, inf];
        for level in Level::available() {
            assert_eq!(output(7, 7.0, |y| map(level, Exp, [&x], y)), [0.0, 0.0, 0.0, 1.0, inf, inf, inf]);
            assert_eq!(output(7, 7.0, |y| map(level, Sig, [&x], y))[..4], [0.0, 0.0, 0.0, 0.5]);
            assert_eq!(output(7, 7.0, |y| map(level, Tanh, [&x], y)), [-1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 1.0]);
            assert_eq!(output(7, 7.0, |y| map(level, Normal, [&x], y)), [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0]);
            for y in [
                output(1, 7.0, |y| map(level, Exp, [&[nan]], y)),
                output(1, 7.0, |y| map(level, Sig, [&[nan]], y)),
                output(1, 7.0, |y| map(level, Tanh, [&[nan]], y)),
                output(1, 7.0, |y| map(level, Normal, [&[nan]], y)),
            ] {
                assert!(y[0].is_nan(), "{level:?}");
            }
        }
    }
}
