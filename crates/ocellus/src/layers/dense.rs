//! Every output from every input.

use super::conv2d::{glorot_uniform, yes};
use super::{Activation, Build, Layer, ParameterSpec};
use crate::initializers::Initializer;
use crate::regularizers::Regularizer;
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// A fully connected layer: `activation(input · kernel + bias)` over the last axis.
///
/// Kernel (inputs, units).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Number of outputs.
    pub units: usize,
    /// What is done to each output.
    #[serde(default)]
    pub activation: Activation,
    /// Whether there is a bias.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// How the kernel begins.
    #[serde(default = "glorot_uniform")]
    pub kernel_initializer: Initializer,
    /// What large kernels cost.
    #[serde(default)]
    pub kernel_regularizer: Regularizer,
}

impl Dense {
    /// So many outputs.
    pub fn new(units: usize) -> Self {
        Dense {
            units,
            activation: Activation::Linear,
            use_bias: true,
            kernel_initializer: glorot_uniform(),
            kernel_regularizer: Regularizer::NONE,
        }
    }

    /// What is done to each output; nothing by default.
    pub fn activation(self, activation: Activation) -> Self {
        Dense { activation, ..self }
    }

    /// Whether there is a bias; there is by default.
    pub fn use_bias(self, use_bias: bool) -> Self {
        Dense { use_bias, ..self }
    }

    /// How the kernel begins; Glorot uniform by default.
    pub fn kernel_initializer(self, kernel_initializer: Initializer) -> Self {
        Dense { kernel_initializer, ..self }
    }

    /// What large kernels cost; nothing by default.
    pub fn kernel_regularizer(self, kernel_regularizer: Regularizer) -> Self {
        Dense { kernel_regularizer, ..self }
    }
}

impl Layer for Dense {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [leading @ .., _] = inputs[0] else {
            return Err("expected at least one axis, received a scalar".into());
        };
        if self.units == 0 {
            return Err("expected at least one unit, received 0".into());
        }
        Ok([leading, &[self.units]].concat())
    }

    fn parameters(&self, inputs: &[&[usize]]) -> Vec<ParameterSpec> {
        let shape = [inputs[0][inputs[0].len() - 1], self.units];
        let kernel = ParameterSpec::weight("kernel", &shape, self.kernel_initializer, self.kernel_regularizer);
        [kernel].into_iter().chain(self.use_bias.then(|| ParameterSpec::bias(self.units))).collect()
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let inputs = at.input_and_parameters();
        let y = at.graph.add(ops::Dense { epilogue: ops::Epilogue::Linear }, &inputs)?;
        self.activation.add_to(at.graph, y)
    }
}
