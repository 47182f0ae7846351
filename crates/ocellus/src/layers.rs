//! Layers: serialisable descriptions that add parameters and operations to a graph. Names, arguments and defaults are
//! Keras'.
//!
//! A layer is a plain struct, built with methods that bear the names of Keras' arguments. [`Layer::call`] applies it to a
//! [`Tensor`]; [`Sequential`](crate::model::Sequential) does so in a row.
//!
//! ```
//! use ocellus::layers::{Activation, Conv2d, Layer, Padding};
//! let layer = Conv2d::new(64, 3).strides(2).padding(Padding::Same).activation(Activation::Relu).named("conv2");
//! ```

use crate::initializers::Initializer;
use crate::model::{IntoInputs, Tensor};
use crate::regularizers::Regularizer;
use ocellus_engine::{Graph, GraphError, ParameterId, ParameterKind, Value};
use serde::{Deserialize, Serialize};

mod window;

pub use activation::Activation;
pub(crate) use window::shape_text;
pub use window::{Padding, Pair};

/// What every layer is.
pub trait Layer {
    /// The layer's type, as it is spelled in programs: `Conv2d`.
    fn class(&self) -> &'static str;

    /// What the layer is called where no name is given, as in Keras: `conv2d`, then `conv2d_1` and so on.
    fn default_name(&self) -> &'static str;

    /// How many inputs the layer takes.
    fn inputs(&self) -> std::ops::RangeInclusive<usize> {
        1..=1
    }

    /// Whether the layer takes pixels as they are, 0 to 255; a model whose first layer does not divides them by 255.
    fn takes_pixels(&self) -> bool {
        false
    }

    /// Whether the layer does something else in training than otherwise.
    fn differs_in_training(&self) -> bool {
        false
    }

    /// The output's shape (without the batch) for inputs of these shapes, or what is wrong with them.
    ///
    /// # Errors
    /// What was expected and what was received, without the layer's name.
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String>;

    /// The arrays the layer needs for inputs of these shapes, which [`output_shape`](Self::output_shape) has accepted.
    fn parameters(&self, _inputs: &[&[usize]]) -> Vec<ParameterSpec> {
        Vec::new()
    }

    /// Adds the layer's operations to a graph and gives its output.
    ///
    /// # Errors
    /// Where the graph refuses an operation.
    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError>;

    /// How often one sample makes the layer multiply or compare, roughly; files that ask for too much are refused.
    fn work(&self, inputs: &[&[usize]], output: &[usize]) -> u64 {
        let kernels = self.parameters(inputs).iter().filter(|p| p.shape.len() > 1).map(|p| product(&p.shape)).sum();
        let positions = product(&output[..output.len().saturating_sub(1)]);
        u64::max(kernels, 1).saturating_mul(positions).max(product(output))
    }

    /// Multiplications with an addition each that one sample costs, forward: those of kernels and of products between inputs,
    /// which is what publications count. Normalisation, activation and pooling count nothing.
    fn multiply_adds(&self, inputs: &[&[usize]], output: &[usize]) -> u64 {
        let kernels: u64 =
            self.parameters(inputs).iter().filter(|p| p.shape.len() > 1).map(|p| product(&p.shape)).sum();
        kernels.saturating_mul(product(&output[..output.len().saturating_sub(1)]))
    }

    /// The layer under a name of its own.
    fn named(self, name: impl Into<String>) -> NamedLayer
    where
        Self: Sized + Into<AnyLayer>,
    {
        NamedLayer { name: Some(name.into()), layer: self.into() }
    }

    /// Applies the layer to one tensor, or to several: `Add::new().call([&x, &y])`.
    ///
    /// Shapes are checked when the [`Model`](crate::model::Model) is made.
    fn call(self, inputs: impl IntoInputs) -> Tensor
    where
        Self: Sized + Into<AnyLayer>,
    {
        NamedLayer { name: None, layer: self.into() }.call(inputs)
    }
}

/// An array that a layer needs.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// Keras' name for it: `kernel`, `bias`, `gamma`.
    pub name: &'static str,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// How it begins.
    pub initializer: Initializer,
    /// What its size costs.
    pub regularizer: Regularizer,
    /// Learned by gradient, or following the data.
    pub kind: ParameterKind,
}

impl ParameterSpec {
    /// A parameter learned by gradient.
    pub(crate) fn weight(
        name: &'static str,
        shape: &[usize],
        initializer: Initializer,
        regularizer: Regularizer,
    ) -> Self {
        ParameterSpec { name, shape: shape.to_vec(), initializer, regularizer, kind: ParameterKind::Weight }
    }

    /// A bias: zero at first, without penalty.
    pub(crate) fn bias(units: usize) -> Self {
        Self::weight("bias", &[units], Initializer::Zeros, Regularizer::NONE)
    }

    /// A parameter that follows the data.
    pub(crate) fn statistic(name: &'static str, units: usize, initializer: Initializer) -> Self {
        let kind = ParameterKind::Statistic;
        ParameterSpec { name, shape: vec![units], initializer, regularizer: Regularizer::NONE, kind }
    }
}

/// Where a layer is built: the graph, and what the layer has there.
#[derive(Debug)]
pub struct Build<'a> {
    /// The graph to add operations to.
    pub graph: &'a mut Graph,
    /// The layer's inputs.
    pub inputs: &'a [Value],
    /// The layer's parameters, in the order of [`Layer::parameters`].
    pub parameters: &'a [(ParameterId, Value)],
    /// Whether the graph is for training.
    pub training: bool,
    /// A number of the layer's own, to key randomness by.
    pub key: u64,
    /// Parameters that follow a value from step to step: `parameter = momentum * parameter + (1 - momentum) * value`.
    pub moving_averages: Vec<(ParameterId, Value, f32)>,
}

impl Build<'_> {
    /// The first input.
    pub(crate) fn input(&self) -> Value {
        self.inputs[0]
    }

    /// Where a window lies on the first input.
    pub(crate) fn place(&self, window: &window::Window) -> Result<window::Placed, GraphError> {
        window.place(self.graph.shape(self.input())).map_err(GraphError::Plan)
    }

    /// The first input, followed by the parameters.
    pub(crate) fn input_and_parameters(&self) -> Vec<Value> {
        [self.input()].into_iter().chain(self.parameters.iter().map(|&(_, value)| value)).collect()
    }
}

/// The number of elements of a shape, or of windows; at most `u64::MAX`.
pub(crate) fn product(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product: u64, &n| product.saturating_mul(n as u64))
}

/// A layer with the name it was given, or none yet.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedLayer {
    /// The name, where one was given.
    pub name: Option<String>,
    /// The layer.
    pub layer: AnyLayer,
}

impl NamedLayer {
    /// Applies the layer: see [`Layer::call`].
    pub fn call(self, inputs: impl IntoInputs) -> Tensor {
        Tensor::of_layer(self, inputs.into_inputs())
    }
}

impl<L: Into<AnyLayer>> From<L> for NamedLayer {
    fn from(layer: L) -> Self {
        NamedLayer { name: None, layer: layer.into() }
    }
}

/// One line for each layer: its file, its type, its name in files (Keras' class name), and the name it has by default.
macro_rules! layers {
    ($($file:ident::$layer:ident, $class:literal, $name:literal;)*) => {
        $(mod $file; pub use $file::$layer;)*

        /// Any of the layers. In files, the field `class` names which.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "class")]
        pub enum AnyLayer {
            $(
                #[doc = concat!("See [`", stringify!($layer), "`].")]
                #[serde(rename = $class)]
                $layer($layer),
            )*
        }

        $(impl From<$layer> for AnyLayer {
            fn from(layer: $layer) -> Self {
                AnyLayer::$layer(layer)
            }
        }

        impl $layer {
            #[allow(dead_code, reason = "the activation layer goes by its function's names")]
            const CLASS: &'static str = stringify!($layer);
            #[allow(dead_code, reason = "the activation layer goes by its function's names")]
            const NAME: &'static str = $name;
        })*

        impl std::ops::Deref for AnyLayer {
            type Target = dyn Layer;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(AnyLayer::$layer(layer) => layer,)*
                }
            }
        }
    };
}

layers! {
    activation::ActivationLayer, "Activation", "activation";
    adaptive_average_pooling2d::AdaptiveAveragePooling2d, "AdaptiveAveragePooling2D", "adaptive_average_pooling2d";
    add::Add, "Add", "add";
    average_pooling2d::AveragePooling2d, "AveragePooling2D", "average_pooling2d";
    batch_normalization::BatchNormalization, "BatchNormalization", "batch_normalization";
    class_token::ClassToken, "ClassToken", "class_token";
    concatenate::Concatenate, "Concatenate", "concatenate";
    conv2d::Conv2d, "Conv2D", "conv2d";
    dense::Dense, "Dense", "dense";
    depthwise_conv2d::DepthwiseConv2d, "DepthwiseConv2D", "depthwise_conv2d";
    dropout::Dropout, "Dropout", "dropout";
    first_token::FirstToken, "FirstToken", "first_token";
    flatten::Flatten, "Flatten", "flatten";
    global_average_pooling2d::GlobalAveragePooling2d, "GlobalAveragePooling2D", "global_average_pooling2d";
    global_max_pooling2d::GlobalMaxPooling2d, "GlobalMaxPooling2D", "global_max_pooling2d";
    layer_normalization::LayerNormalization, "LayerNormalization", "layer_normalization";
    layer_scale::LayerScale, "LayerScale", "layer_scale";
    max_pooling2d::MaxPooling2d, "MaxPooling2D", "max_pooling2d";
    multiply::Multiply, "Multiply", "multiply";
    normalization::Normalization, "Normalization", "normalization";
    position_embedding::PositionEmbedding, "PositionEmbedding", "position_embedding";
    rescaling::Rescaling, "Rescaling", "rescaling";
    reshape::Reshape, "Reshape", "reshape";
    self_attention::SelfAttention, "SelfAttention", "self_attention";
    stochastic_depth::StochasticDepth, "StochasticDepth", "stochastic_depth";
    zero_padding2d::ZeroPadding2d, "ZeroPadding2D", "zero_padding2d";
}

#[cfg(test)]
mod tests;
