//! Simonyan and Zisserman, *Very deep convolutional networks for large-scale image recognition* (2015): 3x3 convolutions and
//! pooling, then three dense layers that hold nine tenths of the weights.
//!
//! Layers bear the names that torchvision gives them, so that its weights fit without a table.

use super::{IMAGENET, normalized_pixels};
use crate::initializers::Initializer;
use crate::layers::{
    Activation, AdaptiveAveragePooling2d, Conv2d, Dense, Dropout, Flatten, Layer, MaxPooling2d, Padding,
};
use crate::model::{Architecture, Input, LayerError};

/// The paper's configuration A: filters of the convolutions between poolings.
pub(super) const VGG11: [&[usize]; 5] = [&[64], &[128], &[256, 256], &[512, 512], &[512, 512]];
/// Configuration D.
pub(super) const VGG16: [&[usize]; 5] = [&[64, 64], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]];

pub(super) fn build(
    stages: [&[usize]; 5],
    input_shape: [usize; 3],
    classes: usize,
) -> Result<Architecture, LayerError> {
    let input = Input::new(input_shape);
    let mut x = normalized_pixels(&input, input_shape[2], IMAGENET);
    let mut place = 0;
    for stage in stages {
        for &filters in stage {
            let convolution = Conv2d::new(filters, 3).padding(Padding::Same).activation(Activation::Relu);
            let convolution = convolution.kernel_initializer(Initializer::HeNormal);
            x = convolution.named(format!("features.{place}")).call(x);
            place += 2;
        }
        x = MaxPooling2d::new(2).named(format!("features.{place}")).call(x);
        place += 1;
    }
    x = Flatten::new().call(AdaptiveAveragePooling2d::new(7).named("avgpool").call(x));
    for place in [0, 3] {
        let dense = dense(4096).activation(Activation::Relu).named(format!("classifier.{place}"));
        x = Dropout::new(0.5).call(dense.call(x));
    }
    Architecture::between(&input, &dense(classes).activation(Activation::Softmax).named("classifier.6").call(x))
}

fn dense(units: usize) -> Dense {
    Dense::new(units).kernel_initializer(Initializer::RandomNormal { stddev: 0.01 })
}
