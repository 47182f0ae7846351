//! Convolution of each channel on its own.

use super::conv2d::{convolution, glorot_uniform, one, yes};
use super::window::{Window, pair};
use super::{Activation, Build, Layer, Padding, Pair, ParameterSpec};
use crate::initializers::Initializer;
use crate::regularizers::Regularizer;
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// 2-D convolution in which each input channel has kernels of its own and channels are not mixed.
///
/// Input (height, width, channels), kernel (height, width, channels, depth_multiplier), output (height, width,
/// channels * depth_multiplier).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepthwiseConv2d {
    /// Rows and columns of the window.
    #[serde(deserialize_with = "pair")]
    pub kernel_size: [usize; 2],
    /// Rows and columns between windows.
    #[serde(default = "one", deserialize_with = "pair")]
    pub strides: [usize; 2],
    /// What surrounds the image.
    #[serde(default)]
    pub padding: Padding,
    /// Output channels for each input channel.
    #[serde(default = "once")]
    pub depth_multiplier: usize,
    /// Rows and columns from one kernel element to the next.
    #[serde(default = "one", deserialize_with = "pair")]
    pub dilation_rate: [usize; 2],
    /// Whether there is a bias.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// What is done to each output.
    #[serde(default)]
    pub activation: Activation,
    /// How the kernels begin.
    #[serde(default = "glorot_uniform")]
    pub depthwise_initializer: Initializer,
    /// What large kernels cost.
    #[serde(default)]
    pub depthwise_regularizer: Regularizer,
}

fn once() -> usize {
    1
}

impl DepthwiseConv2d {
    /// One kernel of this size for each channel.
    pub fn new(kernel_size: impl Into<Pair>) -> Self {
        DepthwiseConv2d {
            kernel_size: kernel_size.into().0,
            strides: one(),
            padding: Padding::Valid,
            depth_multiplier: 1,
            dilation_rate: one(),
            use_bias: true,
            activation: Activation::Linear,
            depthwise_initializer: glorot_uniform(),
            depthwise_regularizer: Regularizer::NONE,
        }
    }

    /// Rows and columns between windows; 1 by default.
    pub fn strides(self, strides: impl Into<Pair>) -> Self {
        DepthwiseConv2d { strides: strides.into().0, ..self }
    }

    /// What surrounds the image; nothing by default.
    pub fn padding(self, padding: Padding) -> Self {
        DepthwiseConv2d { padding, ..self }
    }

    /// Output channels for each input channel; 1 by default.
    pub fn depth_multiplier(self, depth_multiplier: usize) -> Self {
        DepthwiseConv2d { depth_multiplier, ..self }
    }

    /// Rows and columns from one kernel element to the next; 1 by default.
    pub fn dilation_rate(self, dilation_rate: impl Into<Pair>) -> Self {
        DepthwiseConv2d { dilation_rate: dilation_rate.into().0, ..self }
    }

    /// Whether there is a bias; there is by default.
    pub fn use_bias(self, use_bias: bool) -> Self {
        DepthwiseConv2d { use_bias, ..self }
    }

    /// What is done to each output; nothing by default.
    pub fn activation(self, activation: Activation) -> Self {
        DepthwiseConv2d { activation, ..self }
    }

    /// How the kernels begin; Glorot uniform by default.
    pub fn depthwise_initializer(self, depthwise_initializer: Initializer) -> Self {
        DepthwiseConv2d { depthwise_initializer, ..self }
    }

    /// What large kernels cost; nothing by default.
    pub fn depthwise_regularizer(self, depthwise_regularizer: Regularizer) -> Self {
        DepthwiseConv2d { depthwise_regularizer, ..self }
    }

    fn window(&self) -> Window {
        Window {
            what: "kernel",
            size: self.kernel_size,
            strides: self.strides,
            dilation: self.dilation_rate,
            padding: self.padding,
        }
    }
}

impl Layer for DepthwiseConv2d {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [rows, columns] = self.window().place(inputs[0])?.output;
        match self.depth_multiplier.checked_mul(inputs[0][2]) {
            None | Some(0) => {
                Err(format!("expected a depth_multiplier of at least 1, received {}", self.depth_multiplier))
            }
            Some(channels) => Ok(vec![rows, columns, channels]),
        }
    }

    fn parameters(&self, inputs: &[&[usize]]) -> Vec<ParameterSpec> {
        let ([height, width], channels) = (self.kernel_size, inputs[0][2]);
        let shape = [height, width, channels, self.depth_multiplier];
        let kernel = ParameterSpec::weight("kernel", &shape, self.depthwise_initializer, self.depthwise_regularizer);
        let bias = self.use_bias.then(|| ParameterSpec::bias(channels * self.depth_multiplier));
        [kernel].into_iter().chain(bias).collect()
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let channels = at.graph.shape(at.input())[2];
        let [height, width] = self.kernel_size;
        let mut inputs = at.input_and_parameters();
        // One group for each channel: (height, width, 1, channels * multiplier) lies in memory as Keras' kernel does.
        let shape = vec![height, width, 1, channels * self.depth_multiplier];
        inputs[1] = at.graph.add(ops::Reshape { shape }, &[inputs[1]])?;
        let op = convolution(&self.window(), at, channels)?;
        let y = at.graph.add(op, &inputs)?;
        self.activation.add_to(at.graph, y)
    }
}
