//! Residual networks: He et al., *Deep residual learning for image recognition* (2016), with the stride of a bottleneck in its
//! 3x3 convolution as everyone trains them since.
//!
//! | name | images | widths of the stages | blocks | of |
//! |---|---|---|---|---|
//! | `resnet20`, `resnet32`, `resnet56` | 32x32 | 16, 32, 64 | n each, `6n + 2` layers | two 3x3 |
//! | `resnet18_cifar` | 32x32 | 64, 128, 256, 512 | 2 each | two 3x3 |
//! | `resnet18`, `resnet34` | 224x224 | 64, 128, 256, 512 | 2 each; 3, 4, 6, 3 | two 3x3 |
//! | `resnet50` | 224x224 | 64, 128, 256, 512 (times 4) | 3, 4, 6, 3 | 1x1, 3x3, 1x1 |
//!
//! Where a block changes the image's size or its channels the shortcut is a 1x1 convolution (the paper's option B). Layers bear
//! the names that torchvision gives them, so that its weights fit without a table.

use super::{IMAGENET, normalized_pixels};
use crate::initializers::Initializer;
use crate::layers::{
    Activation, Add, BatchNormalization, Conv2d, Dense, GlobalAveragePooling2d, Layer, MaxPooling2d, ZeroPadding2d,
};
use crate::model::{Architecture, Input, LayerError, Tensor};

/// Two or three convolutions, whose result is added to what went in: image, name, filters, strides of the block.
type Block = fn(&Tensor, &str, usize, usize) -> Tensor;

/// `6n + 2` layers for images of 32x32.
pub(super) fn small(blocks: usize, input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
    let input = Input::new(input_shape);
    let x = Activation::Relu.call(convolution(&input, ["conv1", "bn1"], 16, 3, 1));
    with_stages(&input, x, basic, 1, &[(16, blocks), (32, blocks), (64, blocks)], classes)
}

/// ResNet-18 with the first layers that images of 32x32 need: one 3x3 convolution, no pooling.
pub(super) fn resnet18_cifar(input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
    let input = Input::new(input_shape);
    let x = Activation::Relu.call(convolution(&input, ["conv1", "bn1"], 64, 3, 1));
    with_stages(&input, x, basic, 1, &[(64, 2), (128, 2), (256, 2), (512, 2)], classes)
}

/// Two convolutions in each block, so many blocks in each stage.
pub(super) fn with_basic(
    blocks: [usize; 4],
    input_shape: [usize; 3],
    classes: usize,
) -> Result<Architecture, LayerError> {
    large(basic, 1, blocks, input_shape, classes)
}

/// Three convolutions in each block, so many blocks in each stage.
pub(super) fn with_bottlenecks(
    blocks: [usize; 4],
    shape: [usize; 3],
    classes: usize,
) -> Result<Architecture, LayerError> {
    large(bottleneck, EXPANSION, blocks, shape, classes)
}

fn large(
    block: Block,
    expansion: usize,
    blocks: [usize; 4],
    input_shape: [usize; 3],
    classes: usize,
) -> Result<Architecture, LayerError> {
    let input = Input::new(input_shape);
    let pixels = normalized_pixels(&input, input_shape[2], IMAGENET);
    let x = Activation::Relu.call(convolution(&pixels, ["conv1", "bn1"], 64, 7, 2));
    let x = MaxPooling2d::new(3).strides(2).named("maxpool").call(ZeroPadding2d::new(1).call(x));
    let stages: Vec<(usize, usize)> = [64, 128, 256, 512].into_iter().zip(blocks).collect();
    with_stages(&input, x, block, expansion, &stages, classes)
}

/// The stages (filters, blocks), each but the first halving the image, and the classifier.
fn with_stages(
    input: &Tensor,
    mut x: Tensor,
    block: Block,
    expansion: usize,
    stages: &[(usize, usize)],
    classes: usize,
) -> Result<Architecture, LayerError> {
    let mut channels = stages[0].0;
    for (stage, &(filters, blocks)) in stages.iter().enumerate() {
        for number in 0..blocks {
            let name = format!("layer{}.{number}", stage + 1);
            let strides = if stage > 0 && number == 0 { 2 } else { 1 };
            let shortcut = if strides == 1 && channels == expansion * filters {
                x.clone()
            } else {
                let parts = [&*format!("{name}.downsample.0"), &*format!("{name}.downsample.1")];
                convolution(&x, parts, expansion * filters, 1, strides)
            };
            x = Activation::Relu.call(Add::new().call([&block(&x, &name, filters, strides), &shortcut]));
            channels = expansion * filters;
        }
    }
    let x = GlobalAveragePooling2d::new().named("avgpool").call(&x);
    Architecture::between(input, &Dense::new(classes).activation(Activation::Softmax).named("fc").call(&x))
}

fn basic(input: &Tensor, name: &str, filters: usize, strides: usize) -> Tensor {
    let x = Activation::Relu.call(numbered(input, name, 1, filters, 3, strides));
    numbered(&x, name, 2, filters, 3, 1)
}

/// A bottleneck's last convolution has so many times the filters of its first.
const EXPANSION: usize = 4;

fn bottleneck(input: &Tensor, name: &str, filters: usize, strides: usize) -> Tensor {
    let x = Activation::Relu.call(numbered(input, name, 1, filters, 1, 1));
    let x = Activation::Relu.call(numbered(&x, name, 2, filters, 3, strides));
    numbered(&x, name, 3, EXPANSION * filters, 1, 1)
}

/// A block's n-th convolution with its normalisation.
fn numbered(input: &Tensor, block: &str, n: usize, filters: usize, kernel_size: usize, strides: usize) -> Tensor {
    convolution(input, [&format!("{block}.conv{n}"), &format!("{block}.bn{n}")], filters, kernel_size, strides)
}

/// A convolution whose border is the same on all sides, normalised; with the names of both.
fn convolution(
    input: &Tensor,
    [convolution, normalization]: [&str; 2],
    filters: usize,
    kernel_size: usize,
    strides: usize,
) -> Tensor {
    let border = kernel_size / 2;
    let layer =
        Conv2d::new(filters, kernel_size).strides(strides).use_bias(false).kernel_initializer(Initializer::HeNormal);
    let layer = layer.named(convolution);
    let x = if border == 0 { layer.call(input) } else { layer.call(ZeroPadding2d::new(border).call(input)) };
    BatchNormalization::new().momentum(0.9).epsilon(1e-5).named(normalization).call(x)
}
