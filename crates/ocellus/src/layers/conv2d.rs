//! Convolution of an image with learned kernels.

use super::window::{Window, pair, shape_text};
use super::{Activation, Build, Layer, Padding, Pair, ParameterSpec};
use crate::initializers::Initializer;
use crate::regularizers::Regularizer;
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// 2-D convolution: each output channel is the sum over a window, of all input channels of its group, of input times
/// kernel, plus a bias. (As in every framework it is a cross-correlation: the kernel is not flipped.)
///
/// Input (height, width, channels), kernel (height, width, channels / groups, filters), output (height, width, filters).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Number of output channels.
    pub filters: usize,
    /// Rows and columns of the window.
    #[serde(deserialize_with = "pair")]
    pub kernel_size: [usize; 2],
    /// Rows and columns between windows.
    #[serde(default = "one", deserialize_with = "pair")]
    pub strides: [usize; 2],
    /// What surrounds the image.
    #[serde(default)]
    pub padding: Padding,
    /// Rows and columns from one kernel element to the next.
    #[serde(default = "one", deserialize_with = "pair")]
    pub dilation_rate: [usize; 2],
    /// Into how many parts the channels are divided, each with its own filters.
    #[serde(default = "one_group")]
    pub groups: usize,
    /// Whether there is a bias.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// What is done to each output.
    #[serde(default)]
    pub activation: Activation,
    /// How the kernel begins.
    #[serde(default = "glorot_uniform")]
    pub kernel_initializer: Initializer,
    /// What large kernels cost.
    #[serde(default)]
    pub kernel_regularizer: Regularizer,
}

pub(super) fn one() -> [usize; 2] {
    [1, 1]
}

fn one_group() -> usize {
    1
}

pub(super) fn yes() -> bool {
    true
}

pub(super) fn glorot_uniform() -> Initializer {
    Initializer::GlorotUniform
}

impl Conv2d {
    /// So many filters over windows of this size.
    pub fn new(filters: usize, kernel_size: impl Into<Pair>) -> Self {
        Conv2d {
            filters,
            kernel_size: kernel_size.into().0,
            strides: one(),
            padding: Padding::Valid,
            dilation_rate: one(),
            groups: 1,
            use_bias: true,
            activation: Activation::Linear,
            kernel_initializer: glorot_uniform(),
            kernel_regularizer: Regularizer::NONE,
        }
    }

    /// Rows and columns between windows; 1 by default.
    pub fn strides(self, strides: impl Into<Pair>) -> Self {
        Conv2d { strides: strides.into().0, ..self }
    }

    /// What surrounds the image; nothing by default.
    pub fn padding(self, padding: Padding) -> Self {
        Conv2d { padding, ..self }
    }

    /// Rows and columns from one kernel element to the next; 1 by default.
    pub fn dilation_rate(self, dilation_rate: impl Into<Pair>) -> Self {
        Conv2d { dilation_rate: dilation_rate.into().0, ..self }
    }

    /// Into how many parts the channels are divided; 1 by default.
    pub fn groups(self, groups: usize) -> Self {
        Conv2d { groups, ..self }
    }

    /// Whether there is a bias; there is by default.
    pub fn use_bias(self, use_bias: bool) -> Self {
        Conv2d { use_bias, ..self }
    }

    /// What is done to each output; nothing by default.
    pub fn activation(self, activation: Activation) -> Self {
        Conv2d { activation, ..self }
    }

    /// How the kernel begins; Glorot uniform by default.
    pub fn kernel_initializer(self, kernel_initializer: Initializer) -> Self {
        Conv2d { kernel_initializer, ..self }
    }

    /// What large kernels cost; nothing by default.
    pub fn kernel_regularizer(self, kernel_regularizer: Regularizer) -> Self {
        Conv2d { kernel_regularizer, ..self }
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

impl Layer for Conv2d {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let placed = self.window().place(inputs[0])?;
        let channels = inputs[0][2];
        let groups = self.groups;
        if self.filters == 0 {
            return Err("expected at least one filter, received 0".into());
        }
        if groups == 0 || !channels.is_multiple_of(groups) || !self.filters.is_multiple_of(groups) {
            return Err(format!(
                "expected groups to divide the input's channels and the filters, received {groups} groups for {} with \
                 {channels} channels and {} filters",
                shape_text(inputs[0]),
                self.filters
            ));
        }
        let [rows, columns] = placed.output;
        Ok(vec![rows, columns, self.filters])
    }

    fn parameters(&self, inputs: &[&[usize]]) -> Vec<ParameterSpec> {
        let [height, width] = self.kernel_size;
        let shape = [height, width, inputs[0][2] / self.groups, self.filters];
        let kernel = ParameterSpec::weight("kernel", &shape, self.kernel_initializer, self.kernel_regularizer);
        [kernel].into_iter().chain(self.use_bias.then(|| ParameterSpec::bias(self.filters))).collect()
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let inputs = at.input_and_parameters();
        let op = convolution(&self.window(), at, self.groups)?;
        let y = at.graph.add(op, &inputs)?;
        self.activation.add_to(at.graph, y)
    }
}

/// The convolution of a window over the layer's input.
pub(super) fn convolution(window: &Window, at: &Build<'_>, groups: usize) -> Result<ops::Conv2d, GraphError> {
    Ok(ops::Conv2d {
        strides: window.strides,
        padding: at.place(window)?.padding,
        dilation: window.dilation,
        groups,
        epilogue: ops::Epilogue::Linear,
    })
}
