//! The network that Keras' and PyTorch's first examples use, and that our measurements are made with.

use crate::layers::{Activation, Conv2d, Dense, Flatten, MaxPooling2d};
use crate::model::{Architecture, LayerError, Sequential};

pub(super) fn build(input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
    Sequential::new(input_shape)
        .add(Conv2d::new(32, 3).activation(Activation::Relu))
        .add(MaxPooling2d::new(2))
        .add(Conv2d::new(64, 3).activation(Activation::Relu))
        .add(MaxPooling2d::new(2))
        .add(Flatten::new())
        .add(Dense::new(64).activation(Activation::Relu))
        .add(Dense::new(classes).activation(Activation::Softmax))
        .architecture()
}
