//! Iandola et al., *SqueezeNet: AlexNet-level accuracy with 50x fewer parameters* (2016), in the authors' version 1.1, which needs
//! 2.4 times less arithmetic.
//!
//! Layers bear the names that torchvision gives them, so that its weights fit without a table.

use super::{IMAGENET, normalized_pixels};
use crate::initializers::Initializer;
use crate::layers::{
    Activation, Concatenate, Conv2d, Dropout, GlobalAveragePooling2d, Layer, MaxPooling2d, Padding, ZeroPadding2d,
};
use crate::model::{Architecture, Input, LayerError, Tensor};

/// Fire modules between poolings: filters of the squeezing convolution and of each of the two that expand.
const STAGES: [&[(usize, usize)]; 3] =
    [&[(16, 64), (16, 64)], &[(32, 128), (32, 128)], &[(48, 192), (48, 192), (64, 256), (64, 256)]];

pub(super) fn build(input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
    let input = Input::new(input_shape);
    let pixels = normalized_pixels(&input, input_shape[2], IMAGENET);
    let mut x = convolution(64, 3).strides(2).named("features.0").call(pixels);
    let mut size = [input_shape[0], input_shape[1]].map(|n| n.saturating_sub(1) / 2);
    let mut place = 2;
    for stage in STAGES {
        x = pool(x, &mut size, &format!("features.{place}"));
        for (number, &(squeeze, expand)) in stage.iter().enumerate() {
            x = fire(&x, &format!("features.{}", place + 1 + number), squeeze, expand);
        }
        place += 1 + stage.len();
    }
    let scores = Conv2d::new(classes, 1).activation(Activation::Relu);
    let scores = scores.kernel_initializer(Initializer::RandomNormal { stddev: 0.01 }).named("classifier.1");
    let x = GlobalAveragePooling2d::new().call(scores.call(Dropout::new(0.5).call(x)));
    Architecture::between(&input, &Activation::Softmax.call(x))
}

/// Few channels, then many from 1x1 and from 3x3 windows.
fn fire(input: &Tensor, name: &str, squeeze: usize, expand: usize) -> Tensor {
    let part = |part: &str| format!("{name}.{part}");
    let x = convolution(squeeze, 1).named(part("squeeze")).call(input);
    let narrow = convolution(expand, 1).named(part("expand1x1")).call(&x);
    let wide = convolution(expand, 3).padding(Padding::Same).named(part("expand3x3")).call(&x);
    Concatenate::new().call([&narrow, &wide])
}

/// A 3x3 pooling with strides of 2 whose last window may reach over the border. Nothing is negative here, so zeros there are
/// never the maximum.
fn pool(x: Tensor, size: &mut [usize; 2], name: &str) -> Tensor {
    let over = size.map(|n| usize::from(n >= 3 && n % 2 == 0));
    let x = if over == [0, 0] { x } else { ZeroPadding2d::sides([[0, over[0]], [0, over[1]]]).call(x) };
    for (size, over) in size.iter_mut().zip(over) {
        *size = (*size + over).saturating_sub(1) / 2;
    }
    MaxPooling2d::new(3).strides(2).named(name).call(x)
}

fn convolution(filters: usize, kernel_size: usize) -> Conv2d {
    Conv2d::new(filters, kernel_size).activation(Activation::Relu).kernel_initializer(Initializer::HeUniform)
}
