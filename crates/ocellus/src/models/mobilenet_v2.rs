//! Sandler et al., *MobileNetV2: inverted residuals and linear bottlenecks* (2018).
//!
//! Layers bear the names that torchvision gives them, so that its weights fit without a table.

use super::{IMAGENET, normalized_pixels};
use crate::initializers::Initializer;
use crate::layers::{
    Activation, Add, BatchNormalization, Conv2d, Dense, DepthwiseConv2d, Dropout, GlobalAveragePooling2d, Layer,
    ZeroPadding2d,
};
use crate::model::{Architecture, Input, LayerError, Tensor};

/// The paper's table 2: expansion, channels, repetitions, strides of the first.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

pub(super) fn build(input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
    let input = Input::new(input_shape);
    let pixels = normalized_pixels(&input, input_shape[2], IMAGENET);
    let stem = Conv2d::new(32, 3).strides(2).use_bias(false).kernel_initializer(Initializer::HeNormal);
    let x = stem.named("features.0.0").call(ZeroPadding2d::new(1).call(pixels));
    let mut x = Activation::Relu6.call(normalized(x, "features.0.1"));
    let (mut channels, mut place) = (32, 1);
    for (expansion, filters, repetitions, strides) in STAGES {
        for number in 0..repetitions {
            let name = format!("features.{place}.conv");
            x = block(&x, &name, channels, expansion, filters, if number == 0 { strides } else { 1 });
            (channels, place) = (filters, place + 1);
        }
    }
    let x = pointwise(&x, 1280, ["features.18.0", "features.18.1"]);
    let x = Dropout::new(0.2).call(GlobalAveragePooling2d::new().call(Activation::Relu6.call(x)));
    Architecture::between(&input, &Dense::new(classes).activation(Activation::Softmax).named("classifier.1").call(&x))
}

/// An inverted residual: few channels, many, few again; the shortcut joins the few.
fn block(input: &Tensor, name: &str, channels: usize, expansion: usize, filters: usize, strides: usize) -> Tensor {
    let part = |part: &str| format!("{name}.{part}");
    let expands = usize::from(expansion > 1);
    let mut x = input.clone();
    if expansion > 1 {
        x = Activation::Relu6.call(pointwise(&x, expansion * channels, [&part("0.0"), &part("0.1")]));
    }
    let depthwise =
        DepthwiseConv2d::new(3).strides(strides).use_bias(false).depthwise_initializer(Initializer::HeNormal);
    x = depthwise.named(part(&format!("{expands}.0"))).call(ZeroPadding2d::new(1).call(&x));
    x = Activation::Relu6.call(normalized(x, &part(&format!("{expands}.1"))));
    x = pointwise(&x, filters, [&part(&format!("{}", expands + 1)), &part(&format!("{}", expands + 2))]);
    if strides == 1 && channels == filters { Add::new().call([&x, input]) } else { x }
}

/// A convolution of single pixels and its normalisation, under their names.
fn pointwise(input: &Tensor, filters: usize, [convolution, normalization]: [&str; 2]) -> Tensor {
    let pointwise = Conv2d::new(filters, 1).use_bias(false).kernel_initializer(Initializer::HeNormal);
    normalized(pointwise.named(convolution).call(input), normalization)
}

fn normalized(x: Tensor, name: &str) -> Tensor {
    BatchNormalization::new().momentum(0.9).epsilon(1e-5).named(name).call(x)
}
