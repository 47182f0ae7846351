//! Tan and Le, *EfficientNet: rethinking model scaling for convolutional neural networks* (2019), and its Lite variants
//! (Liu, *Higher accuracy on vision models with EfficientNet-Lite*, 2020): for devices without cheap sigmoids they have ReLU6 in
//! place of SiLU and no squeeze-and-excitation; stem and head are not scaled.
//!
//! Layers bear the names that timm gives them, so that its weights fit without a table.

use super::{IMAGENET, normalized_pixels};
use crate::initializers::Initializer;
use crate::layers::{
    Activation, Add, BatchNormalization, Conv2d, Dense, DepthwiseConv2d, Dropout, GlobalAveragePooling2d, Layer,
    Multiply, Padding, Rescaling, StochasticDepth, ZeroPadding2d,
};
use crate::model::{Architecture, Input, LayerError, Tensor};

/// The paper's table 1, scale 0.
struct Stage {
    expansion: usize,
    kernel_size: usize,
    strides: usize,
    channels: usize,
    repetitions: usize,
}

const STAGES: [Stage; 7] = [
    Stage { expansion: 1, kernel_size: 3, strides: 1, channels: 16, repetitions: 1 },
    Stage { expansion: 6, kernel_size: 3, strides: 2, channels: 24, repetitions: 2 },
    Stage { expansion: 6, kernel_size: 5, strides: 2, channels: 40, repetitions: 2 },
    Stage { expansion: 6, kernel_size: 3, strides: 2, channels: 80, repetitions: 3 },
    Stage { expansion: 6, kernel_size: 5, strides: 1, channels: 112, repetitions: 3 },
    Stage { expansion: 6, kernel_size: 5, strides: 2, channels: 192, repetitions: 4 },
    Stage { expansion: 6, kernel_size: 3, strides: 1, channels: 320, repetitions: 1 },
];
const STEM: usize = 32;
const HEAD: usize = 1280;

/// The share of samples that skip the last block; it grows from none in the first.
const STOCHASTIC_DEPTH: f32 = 0.2;

/// How much wider and deeper than scale 0, the share that dropout leaves out, and whether it is a Lite variant.
pub(super) struct Variant {
    width: f64,
    depth: f64,
    dropout: f32,
    lite: bool,
}

pub(super) const B0: Variant = Variant { width: 1.0, depth: 1.0, dropout: 0.2, lite: false };
pub(super) const LITE0: Variant = Variant { width: 1.0, depth: 1.0, dropout: 0.2, lite: true };
pub(super) const LITE1: Variant = Variant { width: 1.0, depth: 1.1, dropout: 0.2, lite: true };
pub(super) const LITE2: Variant = Variant { width: 1.1, depth: 1.2, dropout: 0.3, lite: true };

impl Variant {
    pub(super) fn build(&self, input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
        let input = Input::new(input_shape);
        let pixels = if self.lite {
            Rescaling::new(1.0 / 128.0).offset(-127.0 / 128.0).call(&input)
        } else {
            normalized_pixels(&input, input_shape[2], IMAGENET)
        };
        let stem = self.convolution(&pixels, STEM, 3, 2, "conv_stem");
        let mut x = self.activation().call(self.normalized(stem, "bn1"));
        let (mut channels, mut number) = (STEM, 0);
        let all: usize = (0..STAGES.len()).map(|stage| self.repetitions(stage)).sum();
        for (stage, layout) in STAGES.iter().enumerate() {
            for repetition in 0..self.repetitions(stage) {
                let block = Block {
                    name: format!("blocks.{stage}.{repetition}"),
                    expansion: layout.expansion,
                    kernel_size: layout.kernel_size,
                    strides: if repetition == 0 { layout.strides } else { 1 },
                    inputs: channels,
                    outputs: self.channels(layout.channels),
                    skipped: STOCHASTIC_DEPTH * number as f32 / all as f32,
                };
                x = self.block(&block, x);
                (channels, number) = (block.outputs, number + 1);
            }
        }
        let x = self.convolution(&x, HEAD, 1, 1, "conv_head");
        let x = GlobalAveragePooling2d::new().call(self.activation().call(self.normalized(x, "bn2")));
        let x = Dropout::new(self.dropout).call(x);
        let classifier = Dense::new(classes).activation(Activation::Softmax).named("classifier");
        Architecture::between(&input, &classifier.call(x))
    }

    /// The nearest multiple of 8, unless that is less by more than a tenth.
    fn channels(&self, channels: usize) -> usize {
        let scaled = channels as f64 * self.width;
        let near = ((scaled + 4.0) as usize / 8 * 8).max(8);
        if (near as f64) < 0.9 * scaled { near + 8 } else { near }
    }

    /// Blocks in a stage; the Lite variants' first and last stages are not scaled.
    fn repetitions(&self, stage: usize) -> usize {
        let repetitions = STAGES[stage].repetitions;
        if self.lite && (stage == 0 || stage == STAGES.len() - 1) {
            return repetitions;
        }
        (repetitions as f64 * self.depth).ceil() as usize
    }

    /// A mobile inverted bottleneck: few channels, many, few again; the shortcut joins the few.
    fn block(&self, block: &Block, input: Tensor) -> Tensor {
        let part = |part: &str| format!("{}.{part}", block.name);
        let many = block.expansion * block.inputs;
        // What is called what depends on whether there is an expansion.
        let expands = block.expansion > 1;
        let [depthwise, project, last] = if expands { ["bn2", "conv_pwl", "bn3"] } else { ["bn1", "conv_pw", "bn2"] };
        let mut x = input.clone();
        if expands {
            x = self.convolution(&x, many, 1, 1, &part("conv_pw"));
            x = self.activation().call(self.normalized(x, &part("bn1")));
        }
        x = self.depthwise(&x, block.kernel_size, block.strides, &part("conv_dw"));
        x = self.activation().call(self.normalized(x, &part(depthwise)));
        if !self.lite {
            x = self.excited(&x, many, block.inputs / 4, &part("se"));
        }
        x = self.normalized(self.convolution(&x, block.outputs, 1, 1, &part(project)), &part(last));
        if block.strides > 1 || block.inputs != block.outputs {
            return x;
        }
        let x = if block.skipped > 0.0 { StochasticDepth::new(block.skipped).call(x) } else { x };
        Add::new().call([&x, &input])
    }

    /// Squeeze-and-excitation: each channel times what all channels' means say of it.
    fn excited(&self, x: &Tensor, channels: usize, squeezed: usize, name: &str) -> Tensor {
        let reduce = Conv2d::new(squeezed, 1).activation(self.activation()).named(format!("{name}.conv_reduce"));
        let expand = Conv2d::new(channels, 1).activation(Activation::Sigmoid).named(format!("{name}.conv_expand"));
        let means = GlobalAveragePooling2d::new().keepdims(true).call(x);
        Multiply::new().call([x, &expand.call(reduce.call(means))])
    }

    fn activation(&self) -> Activation {
        if self.lite { Activation::Relu6 } else { Activation::Silu }
    }

    fn convolution(&self, x: &Tensor, filters: usize, kernel_size: usize, strides: usize, name: &str) -> Tensor {
        let (x, padding) = self.padded(x, kernel_size, strides);
        let convolution = Conv2d::new(filters, kernel_size).strides(strides).padding(padding).use_bias(false);
        convolution.kernel_initializer(Initializer::HeNormal).named(name).call(x)
    }

    fn depthwise(&self, x: &Tensor, kernel_size: usize, strides: usize, name: &str) -> Tensor {
        let (x, padding) = self.padded(x, kernel_size, strides);
        let convolution = DepthwiseConv2d::new(kernel_size).strides(strides).padding(padding).use_bias(false);
        convolution.depthwise_initializer(Initializer::HeNormal).named(name).call(x)
    }

    /// With strides, the Lite variants' weights are TensorFlow's, whose border is wider below and right; those of the others
    /// are PyTorch's, whose border is the same on all sides.
    fn padded(&self, x: &Tensor, kernel_size: usize, strides: usize) -> (Tensor, Padding) {
        if self.lite || strides == 1 {
            return (x.clone(), Padding::Same);
        }
        (ZeroPadding2d::new(kernel_size / 2).call(x), Padding::Valid)
    }

    fn normalized(&self, x: Tensor, name: &str) -> Tensor {
        let epsilon = if self.lite { 1e-3 } else { 1e-5 };
        BatchNormalization::new().momentum(0.9).epsilon(epsilon).named(name).call(x)
    }
}

struct Block {
    name: String,
    expansion: usize,
    kernel_size: usize,
    strides: usize,
    inputs: usize,
    outputs: usize,
    /// The share of samples that skip it.
    skipped: f32,
}
