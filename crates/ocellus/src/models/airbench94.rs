//! Jordan, *94% on CIFAR-10 in 3.29 seconds on a single GPU* (2024): whitened patches, three blocks of two convolutions, batch
//! normalisation that learns no scale.
//!
//! The kernel of `whiten` is meant to be computed from the training images' 2x2 patches and then left as it is; only its bias
//! is learned, and that for the first epochs alone.

use super::{CIFAR_10, normalized_pixels};
use crate::initializers::Initializer;
use crate::layers::{Activation, BatchNormalization, Conv2d, Dense, Flatten, Layer, MaxPooling2d, Padding, Rescaling};
use crate::model::{Architecture, Input, LayerError, Tensor};

/// Filters of the three blocks.
const WIDTHS: [usize; 3] = [64, 256, 256];
/// Rows and columns of the whitened patches.
const PATCH: usize = 2;
/// The logits are this much smaller than the classifier's sums.
const SCALE: f32 = 1.0 / 9.0;

pub(super) fn build(input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
    let input = Input::new(input_shape);
    // Each direction of a patch and its negative.
    let filters = 2 * input_shape[2] * PATCH * PATCH;
    let whiten = Conv2d::new(filters, PATCH).kernel_initializer(Initializer::HeNormal);
    let mut x = whiten.named("whiten").call(normalized_pixels(&input, input_shape[2], CIFAR_10));
    x = Activation::Gelu.call(x);
    for (number, filters) in WIDTHS.into_iter().enumerate() {
        x = block(x, &format!("block{}", number + 1), filters);
    }
    let x = Flatten::new().call(MaxPooling2d::new(3).named("pool").call(x));
    // PyTorch's way to begin a dense layer.
    let limit = (WIDTHS[2] as f32).recip().sqrt();
    let head = Dense::new(classes).use_bias(false).kernel_initializer(Initializer::RandomUniform { limit });
    let logits = Rescaling::new(SCALE).named("scale").call(head.named("head").call(x));
    Architecture::between(&input, &Activation::Softmax.call(logits))
}

fn block(x: Tensor, name: &str, filters: usize) -> Tensor {
    let part = |part: &str| format!("{name}.{part}");
    let x = MaxPooling2d::new(2).named(part("pool")).call(convolution(filters).named(part("conv1")).call(x));
    let x = Activation::Gelu.call(normalization().named(part("norm1")).call(x));
    let x = normalization().named(part("norm2")).call(convolution(filters).named(part("conv2")).call(x));
    Activation::Gelu.call(x)
}

fn convolution(filters: usize) -> Conv2d {
    let same = Conv2d::new(filters, 3).padding(Padding::Same).use_bias(false);
    same.kernel_initializer(Initializer::PartialIdentity)
}

fn normalization() -> BatchNormalization {
    BatchNormalization::new().scale(false).momentum(0.6).epsilon(1e-12)
}
