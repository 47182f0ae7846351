//! A small residual network, as He et al. (*Deep residual learning for image recognition*, 2016) use for CIFAR-10, with one
//! block for each width.

use crate::initializers::Initializer;
use crate::layers::{Activation, Add, BatchNormalization, Conv2d, Dense, GlobalAveragePooling2d, Layer, Padding};
use crate::model::{Architecture, Input, LayerError, Tensor};

pub(super) fn build(input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
    let input = Input::new(input_shape);
    let mut x = Activation::Relu.call(normalized(&input, 16, 3, 1));
    for (filters, strides) in [(16, 1), (32, 2), (64, 2)] {
        x = block(&x, filters, strides);
    }
    let x = GlobalAveragePooling2d::new().call(&x);
    Architecture::between(&input, &Dense::new(classes).activation(Activation::Softmax).call(&x))
}

/// Two convolutions whose result is added to what went in, which is brought to the same shape where that changes.
pub(super) fn block(input: &Tensor, filters: usize, strides: usize) -> Tensor {
    let x = Activation::Relu.call(normalized(input, filters, 3, strides));
    let x = normalized(&x, filters, 3, 1);
    let shortcut = if strides == 1 { input.clone() } else { normalized(input, filters, 1, strides) };
    Activation::Relu.call(Add::new().call([&x, &shortcut]))
}

pub(super) fn normalized(input: &Tensor, filters: usize, kernel_size: usize, strides: usize) -> Tensor {
    let convolution = Conv2d::new(filters, kernel_size)
        .strides(strides)
        .padding(Padding::Same)
        .use_bias(false)
        .kernel_initializer(Initializer::HeNormal);
    BatchNormalization::new().momentum(0.9).call(convolution.call(input))
}
