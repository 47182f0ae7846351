//! Convolution, optional ReLU and max-pooling in one pass, which `fuse` makes of neighbours.
//!
//! The gradient of a max-pool is nonzero at one position of each window, so both gradients of the convolution do only
//! that part of the work.

use super::Conv2d;
use crate::{At, Backward, GraphError, Inputs, Op, Output, Piece, Run, Spec, Target};
use ocellus_kernels::Packing;
use ocellus_kernels::conv::{
    ConvShape, Epilogue, PooledBackwardData, PooledBackwardWeights, PooledForward, PooledShape,
};

/// Inputs: image, kernel, bias. Outputs: pooled image, and in each window the position of the maximum.
#[derive(Clone, Debug, PartialEq)]
pub struct PooledConv2d {
    /// The convolution; its epilogue is linear or ReLU.
    pub conv: Conv2d,
    /// Size of the pooling windows, which do not overlap.
    pub pool: [usize; 2],
}

impl PooledConv2d {
    fn shape(&self, inputs: &[&Spec]) -> Result<PooledShape, String> {
        let conv: ConvShape = self.conv.shape(inputs[0], inputs[1])?;
        let [h, w, _] = conv.output();
        if h < self.pool[0] || w < self.pool[1] {
            return Err(format!("pool size {:?} is larger than its input {h}x{w}", self.pool));
        }
        Ok(PooledShape { conv, pool: self.pool })
    }
}

impl Op for PooledConv2d {
    fn name(&self) -> &'static str {
        "Conv2d+MaxPool2d"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 3..=3)?;
        let shape = self.shape(inputs)?;
        super::shared("bias", inputs[2], &[shape.conv.filters])?;
        Ok(vec![Spec::sample(shape.output()), Spec::sample(shape.output()).bytes()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, precision }: Target) -> Box<dyn Run> {
        let shape = self.shape(inputs).expect("checked when the node was added");
        Box::new(RunForward {
            kernel: PooledForward::new(shape, level, precision),
            relu: self.conv.epilogue == Epilogue::Relu,
        })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let specs: Vec<&Spec> = at.inputs.iter().map(|&v| at.graph.spec(v)).collect();
        let shape = self.shape(&specs).expect("checked when the node was added");
        let (x, kernel, argmax, dy) = (at.inputs[0], at.inputs[1], at.outputs[1], at.gradient());
        if at.wants(1) || at.wants(2) {
            let kernel_shape = at.graph.shape(kernel).to_vec();
            let gradients = at.graph.add_all(BackwardWeights { shape, kernel_shape }, &[x, dy, argmax])?;
            at.set(1, gradients[0]);
            at.set(2, gradients[1]);
        }
        if at.wants(0) {
            let gradient = at.add(BackwardData { shape }, &[dy, kernel, argmax])?;
            at.set(0, gradient);
        }
        Ok(())
    }
    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        self.conv.flops(inputs, &[])
    }
}

#[derive(Debug)]
struct RunForward {
    kernel: PooledForward,
    relu: bool,
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
        let (x, packed, bias) = (inputs.f32(0), inputs.f32(1), Some(inputs.f32(2)));
        let values = piece.values();
        let (y, argmax) = piece.f32_and_u8();
        self.kernel.run_piece(values, x, packed, bias, self.relu, y, argmax, scratch);
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        let [y, argmax] = outputs else { unreachable!("it has two outputs") };
        let bias = Some(inputs.f32(2));
        self.kernel.run(at.samples, inputs.f32(0), inputs.f32(1), bias, self.relu, y.f32(), argmax.u8(), scratch);
    }
}

/// Inputs: gradient of the pooled image, kernel, positions. Output: gradient of the image.
#[derive(Clone, Debug)]
struct BackwardData {
    shape: PooledShape,
}

impl Op for BackwardData {
    fn name(&self) -> &'static str {
        "PooledConvBackwardData"
    }
    fn outputs(&self, _inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sample(self.shape.conv.input)])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, precision }: Target) -> Box<dyn Run> {
        Box::new(RunBackwardData(PooledBackwardData::new(self.shape, level, precision)))
    }
    fn flops(&self, _inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        self.shape.conv.flops()
    }
}

#[derive(Debug)]
struct RunBackwardData(PooledBackwardData);

impl Run for RunBackwardData {
    fn scratch_len(&self, samples: usize) -> usize {
        self.0.scratch_len(samples)
    }
    fn packing(&self) -> Option<(usize, &dyn Packing)> {
        Some((1, &self.0))
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        self.0.run(at.samples, inputs.f32(0), inputs.u8(2), inputs.f32(1), outputs[0].f32(), scratch);
    }
}

/// Inputs: image, gradient of the pooled image, positions. Outputs: gradients of kernel and bias.
#[derive(Clone, Debug)]
struct BackwardWeights {
    shape: PooledShape,
    kernel_shape: Vec<usize>,
}

impl Op for BackwardWeights {
    fn name(&self) -> &'static str {
        "PooledConvBackwardWeights"
    }
    fn outputs(&self, _inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sum(self.kernel_shape.clone()), Spec::sum([self.shape.conv.filters])])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, precision }: Target) -> Box<dyn Run> {
        Box::new(RunBackwardWeights(PooledBackwardWeights::new(self.shape, level, precision)))
    }
    fn flops(&self, _inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        self.shape.conv.flops()
    }
}

#[derive(Debug)]
struct RunBackwardWeights(PooledBackwardWeights);

impl Run for RunBackwardWeights {
    fn scratch_len(&self, samples: usize) -> usize {
        self.0.scratch_len(samples)
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        let [dw, db] = outputs else { unreachable!("it has two outputs") };
        let (x, dy, argmax) = (inputs.f32(0), inputs.f32(1), inputs.u8(2));
        self.0.run(at.samples, x, dy, argmax, dw.f32(), db.f32(), at.accumulate, scratch);
    }
}
