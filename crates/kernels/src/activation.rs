//! Activation functions and their derivatives.

use crate::isa::{Isa, Level};
use crate::map::{Map, map};
use crate::math;

/// A function applied to every value; definitions as Keras'.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x`
    Linear,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x` where positive, else `negative_slope * x`
    LeakyRelu {
        /// The slope left of zero.
        negative_slope: f32,
    },
    /// `x` where positive, else `alpha * (e^x - 1)`
    Elu {
        /// What the function tends to, negated, at minus infinity.
        alpha: f32,
    },
    /// `x Φ(x)` with the exact normal distribution
    Gelu,
    /// `x (1 + tanh(sqrt(2/π) (x + 0.044715 x³))) / 2`
    GeluTanh,
    /// `x / (1 + e^-x)`
    Silu,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `tanh x`
    Tanh,
    /// `min(max(x + 3, 0), 6) / 6`
    HardSigmoid,
    /// `x min(max(x + 3, 0), 6) / 6`
    HardSilu,
}

impl Activation {
    /// Whether [`backward`] reads `x`; where not, `x` may be empty.
    pub fn needs_input(self) -> bool {
        matches!(
            self,
            Self::LeakyRelu { .. }
                | Self::Elu { .. }
                | Self::Gelu
                | Self::GeluTanh
                | Self::Silu
                | Self::HardSigmoid
                | Self::HardSilu
        )
    }

    /// Whether [`backward`] reads `y`; where not, `y` may be empty.
    pub fn needs_output(self) -> bool {
        matches!(self, Self::Relu | Self::Relu6 | Self::Elu { .. } | Self::Sigmoid | Self::Tanh)
    }
}

/// `y = f(x)`
pub fn forward(level: Level, activation: Activation, x: &[f32], y: &mut [f32]) {
    match activation {
        Activation::Linear => y.copy_from_slice(x),
        Activation::Relu => map(level, Relu, [x], y),
        Activation::Relu6 => map(level, Relu6, [x], y),
        Activation::LeakyRelu { negative_slope } => map(level, LeakyRelu(negative_slope), [x], y),
        Activation::Elu { alpha } => map(level, Elu(alpha), [x], y),
        Activation::Gelu => map(level, Gelu, [x], y),
        Activation::Silu => map(level, Silu, [x], y),
        Activation::Sigmoid => map(level, Sigmoid, [x], y),
        Activation::Tanh => map(level, Tanh, [x], y),
        Activation::GeluTanh => map(level, GeluTanh, [x], y),
        Activation::HardSigmoid => map(level, HardSigmoid, [x], y),
        Activation::HardSilu => map(level, HardSilu, [x], y),
    }
}

/// `dx = dy * f'(x)`, where the derivative is made from `x`, from `y = f(x)` or from both: see
/// [`Activation::needs_input`] and [`Activation::needs_output`]. At a kink it is the left one, as in TensorFlow.
pub fn backward(level: Level, activation: Activation, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    match activation {
        Activation::Linear => dx.copy_from_slice(dy),
        Activation::Relu => map(level, ReluGradient, [y, dy], dx),
        Activation::Relu6 => map(level, Relu6Gradient, [y, dy], dx),
        Activation::LeakyRelu { negative_slope } => map(level, LeakyReluGradient(negative_slope), [x, dy], dx),
        Activation::Elu { alpha } => map(level, EluGradient(alpha), [x, y, dy], dx),
        Activation::Gelu => map(level, GeluGradient, [x, dy], dx),
        Activation::Silu => map(level, SiluGradient, [x, dy], dx),
        Activation::Sigmoid => map(level, SigmoidGradient, [y, dy], dx),
        Activation::Tanh => map(level, TanhGradient, [y, dy], dx),
        Activation::GeluTanh => map(level, GeluTanhGradient, [x, dy], dx),
        Activation::HardSigmoid => map(level, HardSigmoidGradient, [x, dy], dx),
        Activation::HardSilu => map(level, HardSiluGradient, [x, dy], dx),
    }
}

/// Declares a unit or one-parameter function of vectors.
macro_rules! function {
    ($name:ident $(($field:ident))?, $n:literal, |$isa:ident, $x:pat_param| $body:expr) => {
        #[derive(Clone, Copy)]
        struct $name $((function!(@f32 $field)))?;
        impl Map<$n> for $name {
            #[inline(always)]
            fn apply<I: Isa>(self, $isa: I, $x: [I::F32; $n]) -> I::F32 {
                $(let $name($field) = self;)?
                $body
            }
        }
    };
    (@f32 $field:ident) => { f32 };
}

function!(Relu, 1, |isa, [x]| isa.max(isa.zero(), x));
function!(ReluGradient, 2, |isa, [y, dy]| isa.select(isa.greater(y, isa.zero()), dy, isa.zero()));

function!(Relu6, 1, |isa, [x]| isa.min(isa.splat(6.0), isa.max(isa.zero(), x)));
function!(Relu6Gradient, 2, |isa, [y, dy]| {
    let rising = isa.select(isa.greater(y, isa.zero()), dy, isa.zero());
    isa.select(isa.greater(isa.splat(6.0), y), rising, isa.zero())
});

function!(LeakyRelu(slope), 1, |isa, [x]| isa.select(isa.greater(x, isa.zero()), x, isa.mul(isa.splat(slope), x)));
function!(LeakyReluGradient(slope), 2, |isa, [x, dy]| {
    isa.select(isa.greater(x, isa.zero()), dy, isa.mul(isa.splat(slope), dy))
});

function!(Elu(alpha), 1, |isa, [x]| {
    isa.select(isa.greater(x, isa.zero()), x, isa.mul(isa.splat(alpha), math::exp_m1(isa, x)))
});
function!(EluGradient(alpha), 3, |isa, [x, y, dy]| {
    isa.select(isa.greater(x, isa.zero()), dy, isa.mul(isa.add(y, isa.splat(alpha)), dy))
});

function!(Gelu, 1, |isa, [x]| isa.mul(x, math::normal(isa, x).0));
function!(GeluGradient, 2, |isa, [x, dy]| {
    let (distribution, density) = math::normal(isa, x);
    isa.mul(dy, isa.mul_add(x, density, distribution))
});

/// Twice `sqrt(2/π)`, and that times 0.044715.
const GELU_LINEAR: f32 = 1.595_769;
const GELU_CUBIC: f32 = 7.135_481_6e-2;
// (1 + tanh u) / 2 is the sigmoid of 2u.
function!(GeluTanh, 1, |isa, [x]| isa.mul(x, math::sigmoid(isa, gelu_argument(isa, x))));
function!(GeluTanhGradient, 2, |isa, [x, dy]| {
    // s + x u' s', with s' made of e^-|u|, since 1 - s has no digits left where s is nearly 1.
    let (one, u) = (isa.splat(1.0), gelu_argument(isa, x));
    let e = math::exp(isa, isa.min(u, isa.sub(isa.zero(), u)));
    let share = isa.div(one, isa.add(one, e));
    let s = isa.mul(isa.select(isa.greater(u, isa.zero()), one, e), share);
    // Beyond, x u' would be infinite, and e is zero long before.
    let x = isa.min(isa.splat(1e3), isa.max(isa.splat(-1e3), x));
    let slope = isa.mul_add(isa.mul(x, x), isa.splat(3.0 * GELU_CUBIC), isa.splat(GELU_LINEAR));
    isa.mul(dy, isa.mul_add(isa.mul(x, slope), isa.mul(isa.mul(e, share), share), s))
});
#[inline(always)]
fn gelu_argument<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    isa.mul(x, isa.mul_add(isa.mul(x, x), isa.splat(GELU_CUBIC), isa.splat(GELU_LINEAR)))
}

function!(HardSigmoid, 1, |isa, [x]| isa.mul(rising(isa, x), isa.splat(1.0 / 6.0)));
function!(HardSigmoidGradient, 2, |isa, [x, dy]| {
    let inside = isa.select(isa.greater(x, isa.splat(-3.0)), dy, isa.zero());
    isa.mul(isa.select(isa.greater(isa.splat(3.0), x), inside, isa.zero()), isa.splat(1.0 / 6.0))
});
function!(HardSilu, 1, |isa, [x]| isa.mul(x, isa.mul(rising(isa, x), isa.splat(1.0 / 6.0))));
function!(HardSiluGradient, 2, |isa, [x, dy]| {
    let inside = isa.mul(dy, isa.mul_add(x, isa.splat(1.0 / 3.0), isa.splat(0.5)));
    let right = isa.select(isa.greater(isa.splat(3.0), x), inside, dy);
    isa.select(isa.greater(x, isa.splat(-3.0)), right, isa.zero())
});
#[inline(always)]
fn rising<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    isa.min(isa.splat(6.0), isa.max(isa.zero(), isa.add(x, isa.splat(3.0))))
}

function!(Silu, 1, |isa, [x]| isa.mul(x, math::sigmoid(isa, x)));
function!(SiluGradient, 2, |isa, [x, dy]| {
    // s (1 + x (1 - s))
    let (one, s) = (isa.splat(1.0), math::sigmoid(isa, x));
    isa.mul(dy, isa.mul(s, isa.mul_add(x, isa.sub(one, s), one)))
});

function!(Sigmoid, 1, |isa, [x]| math::sigmoid(isa, x));
function!(SigmoidGradient, 2, |isa, [y, dy]| isa.mul(dy, isa.mul(y, isa.sub(isa.splat(1.0), y))));

function!(Tanh, 1, |isa, [x]| math::tanh(isa, x));
function!(TanhGradient, 2, |isa, [y, dy]| isa.mul(dy, isa.sub(isa.splat(1.0), isa.mul(y, y))));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LENGTHS, STALE, close, erf, gradient, output, values, wide};

    const ALL: [Activation; 13] = [
        Activation::Linear,
        Activation::Relu,
        Activation::Relu6,
        Activation::LeakyRelu { negative_slope: 0.3 },
        Activation::Elu { alpha: 1.0 },
        Activation::Elu { alpha: 0.4 },
        Activation::Gelu,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::GeluTanh,
        Activation::HardSigmoid,
        Activation::HardSilu,
    ];

    fn exact(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Linear => x,
            Activation::Relu => x.max(0.0),
            Activation::Relu6 => x.clamp(0.0, 6.0),
            Activation::LeakyRelu { negative_slope } if x < 0.0 => f64::from(negative_slope) * x,
            Activation::Elu { alpha } if x < 0.0 => f64::from(alpha) * x.exp_m1(),
            Activation::LeakyRelu { .. } | Activation::Elu { .. } => x,
            Activation::Gelu => x * (1.0 + erf(x / 2f64.sqrt())) / 2.0,
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Tanh => x.tanh(),
            Activation::GeluTanh => {
                x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()) / 2.0
            }
            Activation::HardSigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Activation::HardSilu => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        }
    }

    #[test]
    fn forward_and_backward_match_the_formulas() {
        for level in Level::available() {
            for activation in ALL {
                for len in LENGTHS {
                    // Up to 9, so that Relu6 sees its upper kink.
                    let x: Vec<f32> = values(len, 1).iter().map(|v| v * 3.0).collect();
                    let dy = values(len, 2);
                    let f = |x: &[f64]| x.iter().map(|&x| exact(activation, x)).collect::<Vec<_>>();
                    let what = (level, activation, len);
                    let y = output(len, STALE, |y| forward(level, activation, &x, y));
                    close(what, &y, &f(&wide(&x)), 6.0, 1.0);
                    let want: Vec<f64> = x
                        .iter()
                        .zip(&dy)
                        .map(|(&x, &dy)| gradient(|x| f(x)[0] * f64::from(dy), &[f64::from(x)])[0])
                        .collect();
                    let input: &[f32] = if activation.needs_input() { &x } else { &[] };
                    let result: &[f32] = if activation.needs_output() { &y } else { &[] };
                    let dx = output(len, STALE, |dx| backward(level, activation, input, result, &dy, dx));
                    close(what, &dx, &want, 12.0, 1.0);
                }
            }
        }
    }

    #[test]
    fn far_out_the_functions_are_lines() {
        let x = [1e4f32, 2e9, 1.3e13, 1e15, 3e19, f32::MAX].map(|x| [x, -x]).concat();
        let dy = vec![1.0f32; x.len()];
        for level in Level::available() {
            for activation in ALL {
                let y = output(x.len(), STALE, |y| forward(level, activation, &x, y));
                let input: &[f32] = if activation.needs_input() { &x } else { &[] };
                let result: &[f32] = if activation.needs_output() { &y } else { &[] };
                let dx = output(x.len(), STALE, |dx| backward(level, activation, input, result, &dy, dx));
                for ((&x, y), dx) in x.iter().zip(y).zip(dx) {
                    let (x, y, dx) = (f64::from(x), f64::from(y), f64::from(dx));
                    let want = exact(activation, x);
                    let what = format!("{level:?} {activation:?} of {x}: {y} and {dx}, want {want}");
                    assert!((y - want).abs() <= 1e-6 * want.abs().max(1.0), "{what}");
                    let slope = want / x;
                    assert!((dx - slope).abs() <= 1e-3, "{what}");
                }
            }
        }
    }

    #[test]
    fn not_a_number_stays() {
        for level in Level::available() {
            for activation in ALL {
                let y = output(1, STALE, |y| forward(level, activation, &[f32::NAN], y));
                assert!(y[0].is_nan(), "{level:?} {activation:?}");
            }
        }
    }
}
