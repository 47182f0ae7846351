//! Activation functions, as an argument of other layers and as a layer.

use super::{Build, Layer};
use ocellus_engine::{Graph, GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// A function applied to every value; softmax, to every last axis. Definitions as Keras'.
///
/// It is the `activation` of other layers, and a layer itself: `model.add(Activation::Relu)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x`
    #[default]
    Linear,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x` where positive, else `0.2 x`
    LeakyRelu,
    /// `x` where positive, else `e^x - 1`
    Elu,
    /// `x Φ(x)`, with the normal distribution itself and not an approximation
    Gelu,
    /// `x (1 + tanh(sqrt(2/π) (x + 0.044715 x³))) / 2`, an approximation of [`Gelu`](Self::Gelu)
    GeluTanh,
    /// `x / (1 + e^-x)`, also called swish
    #[serde(alias = "swish")]
    Silu,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `tanh x`
    Tanh,
    /// `min(max(x + 3, 0), 6) / 6`
    HardSigmoid,
    /// `x min(max(x + 3, 0), 6) / 6`, also called hard swish
    #[serde(alias = "hard_swish")]
    HardSilu,
    /// `e^x / Σ e^x` over the last axis
    Softmax,
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 13] = [
        Self::Linear,
        Self::Relu,
        Self::Relu6,
        Self::LeakyRelu,
        Self::Elu,
        Self::Gelu,
        Self::GeluTanh,
        Self::Silu,
        Self::Sigmoid,
        Self::Tanh,
        Self::HardSigmoid,
        Self::HardSilu,
        Self::Softmax,
    ];

    /// Adds the function to a graph.
    pub(crate) fn add_to(self, graph: &mut Graph, x: Value) -> Result<Value, GraphError> {
        let function = match self {
            Self::Linear => return Ok(x),
            Self::Softmax => return graph.add(ops::Softmax, &[x]),
            Self::Relu => ops::Activation::Relu,
            Self::Relu6 => ops::Activation::Relu6,
            Self::LeakyRelu => ops::Activation::LeakyRelu { negative_slope: 0.2 },
            Self::Elu => ops::Activation::Elu { alpha: 1.0 },
            Self::Gelu => ops::Activation::Gelu,
            Self::Silu => ops::Activation::Silu,
            Self::Sigmoid => ops::Activation::Sigmoid,
            Self::Tanh => ops::Activation::Tanh,
            Self::GeluTanh => ops::Activation::GeluTanh,
            Self::HardSigmoid => ops::Activation::HardSigmoid,
            Self::HardSilu => ops::Activation::HardSilu,
        };
        graph.add(ops::Activate(function), &[x])
    }
}

impl Layer for Activation {
    fn class(&self) -> &'static str {
        "Activation"
    }

    fn default_name(&self) -> &'static str {
        "activation"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match (self, inputs[0]) {
            (Self::Softmax, []) => Err("softmax expected an axis, received a scalar".into()),
            (_, shape) => Ok(shape.to_vec()),
        }
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let x = at.input();
        self.add_to(at.graph, x)
    }
}

/// An [`Activation`] as a layer, the way files hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationLayer {
    /// The function.
    pub activation: Activation,
}

impl From<Activation> for super::AnyLayer {
    fn from(activation: Activation) -> Self {
        ActivationLayer { activation }.into()
    }
}

impl Layer for ActivationLayer {
    fn class(&self) -> &'static str {
        self.activation.class()
    }

    fn default_name(&self) -> &'static str {
        self.activation.default_name()
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        self.activation.output_shape(inputs)
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        self.activation.build(at)
    }
}
