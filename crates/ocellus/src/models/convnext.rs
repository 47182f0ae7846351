//! Liu et al., *A ConvNet for the 2020s* (2022); the smallest size is Wightman's.
//!
//! Layers bear the names that timm gives them, so that its weights fit without a table.

use super::{IMAGENET, normalized_pixels};
use crate::initializers::Initializer;
use crate::layers::{
    Activation, Add, Conv2d, Dense, DepthwiseConv2d, GlobalAveragePooling2d, Layer, LayerNormalization, LayerScale,
    NamedLayer, Padding, StochasticDepth,
};
use crate::model::{Architecture, Input, LayerError, Tensor};

pub(super) struct Size {
    /// Blocks of the four stages, and their channels.
    blocks: [usize; 4],
    channels: [usize; 4],
    /// The share of samples that skip the last block; it grows from none in the first.
    stochastic_depth: f32,
    /// Whether a block's dense layers are held as 1x1 convolutions, which is the same arithmetic.
    convolutions: bool,
}

pub(super) const ATTO: Size =
    Size { blocks: [2, 2, 6, 2], channels: [40, 80, 160, 320], stochastic_depth: 0.0, convolutions: true };
pub(super) const TINY: Size =
    Size { blocks: [3, 3, 9, 3], channels: [96, 192, 384, 768], stochastic_depth: 0.1, convolutions: false };

/// How every kernel begins.
const INITIALIZER: Initializer = Initializer::RandomNormal { stddev: 0.02 };

impl Size {
    pub(super) fn build(&self, input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
        let input = Input::new(input_shape);
        let pixels = normalized_pixels(&input, input_shape[2], IMAGENET);
        let mut x = normalized(&patches(self.channels[0], 4).named("stem.0").call(pixels), "stem.1");
        let (mut number, all) = (0, self.blocks.iter().sum::<usize>());
        for (stage, (&blocks, &channels)) in self.blocks.iter().zip(&self.channels).enumerate() {
            if stage > 0 {
                let name = |place: usize| format!("stages.{stage}.downsample.{place}");
                x = patches(channels, 2).named(name(1)).call(normalized(&x, &name(0)));
            }
            for block in 0..blocks {
                let rate = self.stochastic_depth * number as f32 / (all - 1) as f32;
                x = self.block(&x, &format!("stages.{stage}.blocks.{block}"), channels, rate);
                number += 1;
            }
        }
        let x = normalized(&GlobalAveragePooling2d::new().call(x), "head.norm");
        let head = Dense::new(classes).activation(Activation::Softmax).kernel_initializer(INITIALIZER);
        Architecture::between(&input, &head.named("head.fc").call(x))
    }

    /// A wide depthwise convolution, then two dense layers at each pixel; all of it may be skipped.
    fn block(&self, input: &Tensor, name: &str, channels: usize, rate: f32) -> Tensor {
        let part = |part: &str| format!("{name}.{part}");
        let depthwise = DepthwiseConv2d::new(7).padding(Padding::Same).depthwise_initializer(INITIALIZER);
        let x = normalized(&depthwise.named(part("conv_dw")).call(input), &part("norm"));
        let x = Activation::Gelu.call(self.pixelwise(4 * channels, part("mlp.fc1")).call(x));
        let x = self.pixelwise(channels, part("mlp.fc2")).call(x);
        let mut x = LayerScale::new().named(part("gamma")).call(x);
        if rate > 0.0 {
            x = StochasticDepth::new(rate).call(x);
        }
        Add::new().call([&x, input])
    }

    fn pixelwise(&self, channels: usize, name: String) -> NamedLayer {
        if self.convolutions {
            return Conv2d::new(channels, 1).kernel_initializer(INITIALIZER).named(name);
        }
        Dense::new(channels).kernel_initializer(INITIALIZER).named(name)
    }
}

/// A convolution whose windows lie side by side.
fn patches(filters: usize, size: usize) -> Conv2d {
    Conv2d::new(filters, size).strides(size).kernel_initializer(INITIALIZER)
}

fn normalized(x: &Tensor, name: &str) -> Tensor {
    LayerNormalization::new().epsilon(1e-6).named(name).call(x)
}
