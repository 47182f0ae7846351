//! Dosovitskiy et al., *An image is worth 16x16 words: transformers for image recognition at scale* (2021), in the size of
//! Touvron et al., *Training data-efficient image transformers* (2021): 192 channels, 12 blocks, 3 heads.
//!
//! Layers bear the names that timm gives them, so that its weights fit without a table.

use crate::initializers::Initializer;
use crate::layers::{
    Activation, Add, ClassToken, Conv2d, Dense, FirstToken, Layer, LayerNormalization, PositionEmbedding, Rescaling,
    Reshape, SelfAttention, StochasticDepth,
};
use crate::model::{Architecture, Input, LayerError, Tensor};

const PATCH: usize = 16;
const CHANNELS: usize = 192;
const BLOCKS: usize = 12;
const HEADS: usize = 3;
/// The share of samples that skip the last block's branches; it grows from none in the first.
const STOCHASTIC_DEPTH: f32 = 0.1;

pub(super) fn tiny(input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
    let input = Input::new(input_shape);
    let pixels = Rescaling::new(1.0 / 127.5).offset(-1.0).call(&input);
    let patches = Conv2d::new(CHANNELS, PATCH).strides(PATCH).kernel_initializer(Initializer::HeNormal);
    let x = Reshape::new([-1, CHANNELS as isize]).call(patches.named("patch_embed.proj").call(pixels));
    let mut x = PositionEmbedding::new().named("pos_embed").call(ClassToken::new().named("cls_token").call(x));
    for number in 0..BLOCKS {
        let rate = STOCHASTIC_DEPTH * number as f32 / (BLOCKS - 1) as f32;
        let part = |part: &str| format!("blocks.{number}.{part}");
        let y = dense(3 * CHANNELS).named(part("attn.qkv")).call(normalized(&x, &part("norm1")));
        let y = dense(CHANNELS).named(part("attn.proj")).call(SelfAttention::new(HEADS).call(y));
        x = joined(&x, y, rate);
        let y = Activation::Gelu.call(dense(4 * CHANNELS).named(part("mlp.fc1")).call(normalized(&x, &part("norm2"))));
        x = joined(&x, dense(CHANNELS).named(part("mlp.fc2")).call(y), rate);
    }
    let x = FirstToken::new().call(normalized(&x, "norm"));
    Architecture::between(&input, &dense(classes).activation(Activation::Softmax).named("head").call(x))
}

/// The branch's result added to what went in, for the samples that do not skip it.
fn joined(x: &Tensor, branch: Tensor, rate: f32) -> Tensor {
    let branch = if rate > 0.0 { StochasticDepth::new(rate).call(branch) } else { branch };
    Add::new().call([x, &branch])
}

fn dense(units: usize) -> Dense {
    Dense::new(units).kernel_initializer(Initializer::RandomNormal { stddev: 0.02 })
}

fn normalized(x: &Tensor, name: &str) -> Tensor {
    LayerNormalization::new().epsilon(1e-6).named(name).call(x)
}
