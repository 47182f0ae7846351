//! Two-dimensional convolution (cross-correlation, as in every framework), with optional bias and activation.
//!
//! `y[i, j, o] = f(b[o] + Σ x[i·s + u·d - p, j·s + v·d - p, c] · w[u, v, c, o])`, zero outside the image.

use super::{activate::ActivateBackward, count, image};
use crate::{At, Backward, GraphError, Inputs, Op, Output, Piece, Run, Spec, Target, Value};
use ocellus_kernels::activation::Activation;
use ocellus_kernels::conv::{BackwardData, BackwardWeights, ConvShape, ConvWeights, Epilogue, Extent, Forward, Sums};
use ocellus_kernels::{Level, Packing, reduce};
use std::ops::Range;

/// Inputs: image `[h, w, c]`, kernel `[kh, kw, c / groups, filters]`, optionally bias `[filters]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv2d {
    /// Step between windows, in rows and columns.
    pub strides: [usize; 2],
    /// Zeros around the image: top, bottom, left, right.
    pub padding: [usize; 4],
    /// Distance between the pixels of a window, in rows and columns.
    pub dilation: [usize; 2],
    /// Channels are cut into so many groups, each with its own filters.
    pub groups: usize,
    /// What is applied to the sums.
    pub epilogue: Epilogue,
}

impl Conv2d {
    pub(crate) fn shape(&self, x: &Spec, kernel: &Spec) -> Result<ConvShape, String> {
        let input = image(x)?;
        let [kh, kw, in_channels, filters] = kernel.shape[..] else {
            return Err(format!("expected a kernel of height x width x channels x filters, received {kernel}"));
        };
        let ones = [self.strides, self.dilation].concat();
        if ones.contains(&0) || self.groups == 0 || kernel.is_empty() {
            return Err(format!("strides, dilation, groups and kernel sizes must be at least 1, received {self:?}"));
        }
        if in_channels * self.groups != input[2] {
            let expected = in_channels * self.groups;
            return Err(format!("expected {expected} input channels, received {}", input[2]));
        }
        if filters % self.groups != 0 {
            return Err(format!("expected filters in {} equal groups, received {filters} filters", self.groups));
        }
        for (axis, k, before, after) in
            [(0, kh, self.padding[0], self.padding[1]), (1, kw, self.padding[2], self.padding[3])]
        {
            let reach = (k - 1) * self.dilation[axis] + 1;
            let room = input[axis] + before + after;
            if reach > room {
                let name = ["height", "width"][axis];
                return Err(format!(
                    "the kernel's {name} of {reach} is larger than its input's {room}; use padding `same`, a smaller \
                     kernel or fewer pooling layers before it"
                ));
            }
        }
        Ok(ConvShape {
            input,
            filters,
            kernel: [kh, kw],
            strides: self.strides,
            padding: self.padding,
            dilation: self.dilation,
            groups: self.groups,
        })
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "Conv2d"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 2..=3)?;
        let shape = self.shape(inputs[0], inputs[1])?;
        if let Some(bias) = inputs.get(2) {
            super::shared("bias", bias, &[shape.filters])?;
        }
        Ok(vec![Spec::sample(shape.output())])
    }

    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, precision }: Target) -> Box<dyn Run> {
        let shape = self.shape(inputs[0], inputs[1]).expect("checked when the node was added");
        Box::new(RunForward {
            kernel: Forward::new(shape, level, precision),
            bias: inputs.len() == 3,
            epilogue: self.epilogue,
            shortcut: None,
        })
    }

    fn is_pixelwise(&self, inputs: &[&Spec]) -> bool {
        self.shape(inputs[0], inputs[1]).is_ok_and(is_pixelwise)
    }

    fn writes_bf16(&self, inputs: &[&Spec], _output: usize) -> bool {
        self.shape(inputs[0], inputs[1]).is_ok_and(|shape| shape.writes_bf16())
    }

    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let shape = self.shape(at.graph.spec(at.inputs[0]), at.graph.spec(at.inputs[1]));
        convolution_gradient(at, shape.expect("checked when the node was added"), self.epilogue)
    }

    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        self.shape(inputs[0], inputs[1]).map_or(0, |shape| shape.flops())
    }
}

/// The gradients of a convolution, a dense layer included: that is the convolution of an image of one pixel.
pub(super) fn convolution_gradient(
    at: &mut Backward<'_>,
    shape: ConvShape,
    epilogue: Epilogue,
) -> Result<(), GraphError> {
    let mut dy = at.gradient();
    if let Some(activation) = activation_of(epilogue) {
        // A rectifier's gradient follows from its output alone.
        let y = at.outputs[0];
        dy = at.add(ActivateBackward(activation), &[y, y, dy])?;
    }
    add_gradients(at, shape, dy)
}

/// Whether the windows are single pixels, and all pixels are windows.
fn is_pixelwise(shape: ConvShape) -> bool {
    shape.kernel == [1, 1] && shape.strides == [1, 1] && shape.padding == [0; 4]
}

/// The shape for an image, or a band of its rows; that of a dense layer is not the image's.
fn shape_for(shape: ConvShape, image: &Spec) -> ConvShape {
    match image.shape[..] {
        [h, w, c] if is_pixelwise(shape) && [w, c] == shape.input[1..] => ConvShape { input: [h, w, c], ..shape },
        _ => shape,
    }
}

fn add_gradients(at: &mut Backward<'_>, shape: ConvShape, dy: Value) -> Result<(), GraphError> {
    let (x, kernel) = (at.inputs[0], at.inputs[1]);
    if at.wants(1) {
        let kernel_shape = at.graph.shape(kernel).to_vec();
        let gradient = at.add(ConvBackwardWeights { shape, kernel_shape }, &[x, dy])?;
        at.set(1, gradient);
    }
    if at.wants(2) {
        let gradient = at.add(ChannelSums, &[dy])?;
        at.set(2, gradient);
    }
    if at.wants(0) {
        let x_shape = at.graph.shape(x).to_vec();
        let gradient = at.add(ConvBackwardData { shape, x_shape }, &[dy, kernel])?;
        at.set(0, gradient);
    }
    Ok(())
}

pub(super) fn activation_of(epilogue: Epilogue) -> Option<Activation> {
    match epilogue {
        Epilogue::Linear => None,
        Epilogue::Relu => Some(Activation::Relu),
        Epilogue::Relu6 => Some(Activation::Relu6),
    }
}

#[derive(Debug)]
pub(super) struct RunForward {
    pub(super) kernel: Forward,
    pub(super) bias: bool,
    pub(super) epilogue: Epilogue,
    /// The input that is added to the sums.
    pub(super) shortcut: Option<usize>,
}

impl RunForward {
    pub(super) fn weights<'a>(&self, inputs: &Inputs<'a>) -> ConvWeights<'a> {
        ConvWeights { packed: inputs.f32(1), bias: self.bias.then(|| inputs.f32(2)), epilogue: self.epilogue }
    }
}

impl Run for RunForward {
    fn scratch_len(&self, samples: usize) -> usize {
        self.kernel.scratch_len(samples)
    }
    fn packing(&self) -> Option<(usize, &dyn Packing)> {
        Some((1, &self.kernel))
    }
    fn unit(&self) -> usize {
        self.kernel.unit()
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, scratch: &mut [f32], _at: &At<'_>) {
        let (values, y) = (piece.values(), piece.f32());
        let sums = match self.shortcut {
            Some(n) => onto(inputs, n, values.clone(), y),
            None => Sums::New(y.into()),
        };
        self.kernel.run(Extent::Piece(values), inputs.f32(0), self.weights(inputs), sums, scratch);
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        let sums = match self.shortcut {
            Some(n) => onto(inputs, n, 0..outputs[0].len, outputs[0].f32()),
            None => Sums::New(outputs[0].values()),
        };
        self.kernel.run(Extent::Samples(at.samples), inputs.f32(0), self.weights(inputs), sums, scratch);
    }
}

/// These values of an input, which are in `y` already or are copied there, to add sums to.
fn onto<'a>(inputs: &Inputs<'_>, input: usize, values: Range<usize>, y: &'a mut [f32]) -> Sums<'a> {
    if !inputs.is_overwritten(input) {
        y.copy_from_slice(&inputs.f32(input)[values]);
    }
    Sums::Onto(y)
}

/// Inputs: gradient of the output, kernel. Output: gradient of the image.
#[derive(Clone, Debug)]
struct ConvBackwardData {
    shape: ConvShape,
    x_shape: Vec<usize>,
}

impl Op for ConvBackwardData {
    fn name(&self) -> &'static str {
        "ConvBackwardData"
    }
    fn outputs(&self, _inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sample(self.x_shape.clone())])
    }
    fn prepare(&self, _inputs: &[&Spec], outputs: &[&Spec], Target { level, precision }: Target) -> Box<dyn Run> {
        Box::new(RunBackwardData(BackwardData::new(shape_for(self.shape, outputs[0]), level, precision)))
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        is_pixelwise(self.shape)
    }
    fn writes_bf16(&self, _inputs: &[&Spec], _output: usize) -> bool {
        self.shape.writes_bf16_data()
    }
    fn flops(&self, _inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        self.shape.flops()
    }
}

#[derive(Debug)]
struct RunBackwardData(BackwardData);

impl Run for RunBackwardData {
    fn scratch_len(&self, samples: usize) -> usize {
        self.0.scratch_len(samples)
    }
    fn packing(&self) -> Option<(usize, &dyn Packing)> {
        Some((1, &self.0))
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        self.0.run(at.samples, inputs.f32(0), inputs.f32(1), outputs[0].values(), scratch);
    }
}

/// Inputs: image, gradient of the output. Output: gradient of the kernel.
#[derive(Clone, Debug)]
struct ConvBackwardWeights {
    shape: ConvShape,
    kernel_shape: Vec<usize>,
}

impl Op for ConvBackwardWeights {
    fn name(&self) -> &'static str {
        "ConvBackwardWeights"
    }
    fn outputs(&self, _inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sum(self.kernel_shape.clone())])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, precision }: Target) -> Box<dyn Run> {
        Box::new(RunBackwardWeights(BackwardWeights::new(shape_for(self.shape, inputs[0]), level, precision)))
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        is_pixelwise(self.shape)
    }
    fn flops(&self, _inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        self.shape.flops()
    }
}

#[derive(Debug)]
struct RunBackwardWeights(BackwardWeights);

impl Run for RunBackwardWeights {
    fn scratch_len(&self, samples: usize) -> usize {
        self.0.scratch_len(samples)
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        self.0.run(at.samples, inputs.f32(0), inputs.f32(1), outputs[0].f32(), at.accumulate, scratch);
    }
}

/// Input: gradient of the output. Output: its sum over samples and pixels, the gradient of the bias.
#[derive(Clone, Debug)]
struct ChannelSums;

impl Op for ChannelSums {
    fn name(&self) -> &'static str {
        "ChannelSums"
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sum([inputs[0].channels()])])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunChannelSums { level, channels: inputs[0].channels() })
    }
}

#[derive(Debug)]
struct RunChannelSums {
    level: Level,
    channels: usize,
}

impl Run for RunChannelSums {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        reduce::column_sums(self.level, self.channels, inputs.f32(0), outputs[0].f32(), at.accumulate);
    }
}
