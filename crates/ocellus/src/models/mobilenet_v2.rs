//! Sandler et al., *MobileNetV2: inverted residuals and linear bottlenecks* (2018).

use crate::initializers::Initializer;
use crate::layers::{
    Activation, Add, BatchNormalization, Conv2d, Dense, DepthwiseConv2d, Dropout, GlobalAveragePooling2d, Layer,
    ZeroPadding2d,
};
use crate::model::{Input, LayerError, Model, Tensor};

/// The paper's table 2: expansion, channels, repetitions, strides of the first.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

pub(super) fn build(input_shape: [usize; 3], classes: usize) -> Result<Model, LayerError> {
    let input = Input::new(input_shape);
    let stem = Conv2d::new(32, 3).strides(2).use_bias(false).kernel_initializer(Initializer::HeNormal);
    let mut x = Activation::Relu6.call(normalized(stem.call(ZeroPadding2d::new(1).call(&input))));
    let mut channels = 32;
    for (expansion, filters, repetitions, strides) in STAGES {
        for number in 0..repetitions {
            x = block(&x, channels, expansion, filters, if number == 0 { strides } else { 1 });
            channels = filters;
        }
    }
    let x = Activation::Relu6.call(pointwise(&x, 1280));
    let x = Dropout::new(0.2).call(GlobalAveragePooling2d::new().call(&x));
    Model::new(&input, &Dense::new(classes).activation(Activation::Softmax).call(&x))
}

/// An inverted residual: few channels, many, few again; the shortcut joins the few.
fn block(input: &Tensor, channels: usize, expansion: usize, filters: usize, strides: usize) -> Tensor {
    let mut x = input.clone();
    if expansion > 1 {
        x = Activation::Relu6.call(pointwise(&x, expansion * channels));
    }
    let depthwise =
        DepthwiseConv2d::new(3).strides(strides).use_bias(false).depthwise_initializer(Initializer::HeNormal);
    x = Activation::Relu6.call(normalized(depthwise.call(ZeroPadding2d::new(1).call(&x))));
    x = pointwise(&x, filters);
    if strides == 1 && channels == filters { Add::new().call([&x, input]) } else { x }
}

fn pointwise(input: &Tensor, filters: usize) -> Tensor {
    normalized(Conv2d::new(filters, 1).use_bias(false).kernel_initializer(Initializer::HeNormal).call(input))
}

fn normalized(x: Tensor) -> Tensor {
    BatchNormalization::new().momentum(0.9).epsilon(1e-5).call(x)
}
