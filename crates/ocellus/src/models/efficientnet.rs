//! Tan and Le, *EfficientNet: rethinking model scaling for convolutional neural networks* (2019), and its Lite variants
//! (Liu, *Higher accuracy on vision models with EfficientNet-Lite*, 2020): for devices without cheap sigmoids they have ReLU6 in
//! place of SiLU and no squeeze-and-excitation; stem and head are not scaled.
//!
//! Layers bear the names that timm gives them, so that its weights fit without a table.

use crate::initializers::Initializer;
use crate::layers::{
    Activation, Add, BatchNormalization, Conv2d, Dense, DepthwiseConv2d, Dropout, GlobalAveragePooling2d, Layer,
    Padding, Rescaling,
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

/// How much wider and deeper than scale 0, and the share that dropout leaves out.
pub(super) struct Scale {
    width: f64,
    depth: f64,
    dropout: f32,
}

pub(super) const LITE0: Scale = Scale { width: 1.0, depth: 1.0, dropout: 0.2 };
pub(super) const LITE1: Scale = Scale { width: 1.0, depth: 1.1, dropout: 0.2 };
pub(super) const LITE2: Scale = Scale { width: 1.1, depth: 1.2, dropout: 0.3 };

impl Scale {
    /// The nearest multiple of 8, unless that is less by more than a tenth.
    fn channels(&self, channels: usize) -> usize {
        let scaled = channels as f64 * self.width;
        let near = ((scaled + 4.0) as usize / 8 * 8).max(8);
        if (near as f64) < 0.9 * scaled { near + 8 } else { near }
    }

    /// Blocks in a stage; first and last stage are not scaled.
    fn repetitions(&self, stage: usize) -> usize {
        let repetitions = STAGES[stage].repetitions;
        if stage == 0 || stage == STAGES.len() - 1 {
            return repetitions;
        }
        (repetitions as f64 * self.depth).ceil() as usize
    }
}

/// EfficientNet-Lite: 224, 240, 260 pixels for scales 0, 1, 2, brought to -1..1.
pub(super) fn lite(scale: &Scale, input_shape: [usize; 3], classes: usize) -> Result<Architecture, LayerError> {
    let input = Input::new(input_shape);
    let pixels = Rescaling::new(1.0 / 128.0).offset(-127.0 / 128.0).call(&input);
    let stem = convolution(STEM, 3).strides(2).named("conv_stem").call(pixels);
    let mut x = Activation::Relu6.call(normalized(stem, "bn1"));
    let mut channels = STEM;
    for (stage, layout) in STAGES.iter().enumerate() {
        for number in 0..scale.repetitions(stage) {
            let block = Block {
                name: format!("blocks.{stage}.{number}"),
                expansion: layout.expansion,
                kernel_size: layout.kernel_size,
                strides: if number == 0 { layout.strides } else { 1 },
                inputs: channels,
                outputs: scale.channels(layout.channels),
            };
            channels = block.outputs;
            x = block.call(x);
        }
    }
    let x = convolution(HEAD, 1).named("conv_head").call(x);
    let x = GlobalAveragePooling2d::new().call(Activation::Relu6.call(normalized(x, "bn2")));
    let x = Dropout::new(scale.dropout).call(x);
    Architecture::between(&input, &Dense::new(classes).activation(Activation::Softmax).named("classifier").call(x))
}

/// A mobile inverted bottleneck: few channels, many, few again; the shortcut joins the few.
struct Block {
    name: String,
    expansion: usize,
    kernel_size: usize,
    strides: usize,
    inputs: usize,
    outputs: usize,
}

impl Block {
    fn call(&self, input: Tensor) -> Tensor {
        let part = |part: &str| format!("{}.{part}", self.name);
        // What is called what depends on whether there is an expansion.
        let expands = self.expansion > 1;
        let [depthwise, project, last] = if expands { ["bn2", "conv_pwl", "bn3"] } else { ["bn1", "conv_pw", "bn2"] };
        let mut x = input.clone();
        if expands {
            x = convolution(self.expansion * self.inputs, 1).named(part("conv_pw")).call(x);
            x = Activation::Relu6.call(normalized(x, &part("bn1")));
        }
        let convolve = DepthwiseConv2d::new(self.kernel_size).strides(self.strides).padding(Padding::Same);
        let convolve = convolve.use_bias(false).depthwise_initializer(Initializer::HeNormal);
        x = Activation::Relu6.call(normalized(convolve.named(part("conv_dw")).call(x), &part(depthwise)));
        x = normalized(convolution(self.outputs, 1).named(part(project)).call(x), &part(last));
        if self.strides == 1 && self.inputs == self.outputs { Add::new().call([&x, &input]) } else { x }
    }
}

fn convolution(filters: usize, kernel_size: usize) -> Conv2d {
    let same = Conv2d::new(filters, kernel_size).padding(Padding::Same).use_bias(false);
    same.kernel_initializer(Initializer::HeNormal)
}

fn normalized(x: Tensor, name: &str) -> Tensor {
    BatchNormalization::new().momentum(0.9).epsilon(1e-3).named(name).call(x)
}
