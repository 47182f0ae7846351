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
    /// `x / (1 + e^-x)`
    Silu,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `tanh x`
    Tanh,
}

impl Activation {
    /// Whether [`backward`] reads `x`; where not, `x` may be empty.
    pub fn needs_input(self) -> bool {
        matches!(self, Self::LeakyRelu { .. } | Self::Elu { .. } | Self::Gelu | Self::Silu)
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

function!(LeakyRelu(slope), 1, |isa, [x]| { isa.select(isa.greater(x, isa.zero()), x, isa.mul(isa.splat(slope), x)) });
function!(LeakyReluGradient(slope), 2, |isa, [x, dy]| {
    isa.select(isa.greater(x, isa.zero()), dy, isa.mul(isa.splat(slope), dy))
});

function!(Elu(alpha), 1, |isa, [x]| {
    isa.select(isa.greater(x, isa.zero()), x, isa.mul(isa.splat(alpha), math::exp_m1(isa, x)))
});
function!(EluGradient(alpha), 3, |isa, [x, y, dy]| {
    isa.select(isa.greater(x, isa.zero()), dy, isa.mul(isa.add(y, isa.splat(alpha)), dy))
});

function!(Gelu, 1, |isa, [x]| isa.mul(x, math::normal_distribution(isa, x)));
function!(GeluGradient, 2, |isa, [x, dy]| {
    let slope = isa.mul_add(x, math::normal_density(isa, x), math::normal_distribution(isa, x));
    isa.mul(dy, slope)
});

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
