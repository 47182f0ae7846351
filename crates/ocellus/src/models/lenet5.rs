//! LeCun et al., *Gradient-based learning applied to document recognition* (1998), as it is commonly built today: mean pooling
//! without weights, every filter on all channels, softmax in place of radial basis functions.
//!
//! The paper lays digits of 28x28 into images of 32x32; the first convolution's border does that here.

use crate::layers::{Activation, AveragePooling2d, Conv2d, Dense, Flatten, Layer, Padding};
use crate::model::{Architecture, LayerError, Sequential};

pub(super) fn build(input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
    Sequential::new(input_shape)
        .add(Conv2d::new(6, 5).padding(Padding::Same).activation(Activation::Tanh).named("c1"))
        .add(AveragePooling2d::new(2).named("s2"))
        .add(Conv2d::new(16, 5).activation(Activation::Tanh).named("c3"))
        .add(AveragePooling2d::new(2).named("s4"))
        .add(Flatten::new())
        .add(Dense::new(120).activation(Activation::Tanh).named("c5"))
        .add(Dense::new(84).activation(Activation::Tanh).named("f6"))
        .add(Dense::new(classes).activation(Activation::Softmax).named("output"))
        .architecture()
}
