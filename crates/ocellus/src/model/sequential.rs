//! Layers in a row.

use super::Model;
use super::network::{Architecture, LayerError};
use super::tensor::{Input, Tensor};
use crate::layers::NamedLayer;

/// A model whose layers each take what the one before gives.
///
/// ```
/// use ocellus::layers::{Activation, Conv2d, Dense, Flatten, MaxPooling2d};
/// use ocellus::model::Sequential;
/// let model = Sequential::new([28, 28, 1])
///     .add(Conv2d::new(32, 3).activation(Activation::Relu))
///     .add(MaxPooling2d::new(2))
///     .add(Flatten::new())
///     .add(Dense::new(10).activation(Activation::Softmax))
///     .build()?;
/// assert_eq!(model.output_shape(), [10]);
/// # Ok::<(), ocellus::model::LayerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sequential {
    input: Tensor,
    output: Tensor,
}

impl Sequential {
    /// No layers yet, on samples of this shape: images are (height, width, channels).
    pub fn new(input_shape: impl Into<Vec<usize>>) -> Self {
        let input = Input::new(input_shape);
        Sequential { output: input.clone(), input }
    }

    /// Adds a layer at the end.
    #[allow(clippy::should_implement_trait, reason = "Keras' name for it")]
    pub fn add(self, layer: impl Into<NamedLayer>) -> Self {
        Sequential { output: layer.into().call(&self.output), input: self.input }
    }

    /// The model, its weights drawn with seed 0; [`Model::initialize`] draws others.
    ///
    /// # Errors
    /// The first layer that does not fit, and why.
    pub fn build(self) -> Result<Model, LayerError> {
        Model::new(&self.input, &self.output)
    }

    /// The layers without weights.
    ///
    /// # Errors
    /// Where there are none.
    pub fn architecture(self) -> Result<Architecture, LayerError> {
        Architecture::between(&self.input, &self.output)
    }
}
