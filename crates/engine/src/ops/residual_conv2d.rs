//! Convolution to whose sums an earlier value is added before the activation: the end of a residual block, for inference.
//!
//! `y = f(convolution(x) + b + shortcut)`. Where nothing reads the shortcut afterwards, `y` is written over it.

use super::{Conv2d, count, same, shared};
use crate::{At, Inputs, Op, Output, Piece, Run, Spec, Target};
use ocellus_kernels::Pool;
use ocellus_kernels::conv::{Epilogue, Forward};

/// Inputs: image, kernel, bias, shortcut of the output's shape. The convolution has one group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ResidualConv2d {
    /// The convolution; its epilogue comes after the addition.
    pub(crate) conv: Conv2d,
}

/// Which input the shortcut is.
const SHORTCUT: usize = 3;

impl Op for ResidualConv2d {
    fn name(&self) -> &'static str {
        "ResidualConv2d"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 4..=4)?;
        let shape = self.conv.shape(inputs[0], inputs[1])?;
        if shape.groups != 1 {
            return Err(format!("expected a convolution of one group, received {}", shape.groups));
        }
        shared("bias", inputs[2], &[shape.filters])?;
        let output = Spec::sample(shape.output());
        super::sample(inputs[SHORTCUT])?;
        same(inputs[SHORTCUT], &output)?;
        Ok(vec![output])
    }

    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, precision }: Target) -> Box<dyn Run> {
        let shape = self.conv.shape(inputs[0], inputs[1]).expect("checked when the node was added");
        Box::new(RunResidual { kernel: Forward::new(shape, level, precision), epilogue: self.conv.epilogue })
    }

    fn is_pixelwise(&self, inputs: &[&Spec]) -> bool {
        self.conv.is_pixelwise(inputs)
    }

    fn overwrites(&self) -> Option<usize> {
        Some(SHORTCUT)
    }

    fn flops(&self, inputs: &[&Spec], outputs: &[&Spec]) -> u64 {
        self.conv.flops(inputs, outputs) + outputs[0].len() as u64
    }
}

#[derive(Debug)]
struct RunResidual {
    kernel: Forward,
    epilogue: Epilogue,
}

impl Run for RunResidual {
    fn scratch_len(&self, samples: usize) -> usize {
        self.kernel.scratch_len(samples)
    }
    fn packed(&self) -> Option<(usize, usize)> {
        Some((1, self.kernel.packed_len()))
    }
    fn pack(&self, pool: &mut Pool, from: &[f32], packed: &mut [f32]) {
        self.kernel.pack(pool, from, packed);
    }
    fn unit(&self) -> usize {
        self.kernel.unit()
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, scratch: &mut [f32], _at: &At<'_>) {
        let (x, packed, bias, values) = (inputs.f32(0), inputs.f32(1), Some(inputs.f32(2)), piece.values());
        let y = piece.f32();
        if !inputs.is_overwritten(SHORTCUT) {
            y.copy_from_slice(&inputs.f32(SHORTCUT)[values.clone()]);
        }
        self.kernel.run_piece_onto(values, x, packed, bias, self.epilogue, y, scratch);
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        let (x, packed, bias, y) = (inputs.f32(0), inputs.f32(1), Some(inputs.f32(2)), outputs[0].f32());
        if !inputs.is_overwritten(SHORTCUT) {
            y.copy_from_slice(inputs.f32(SHORTCUT));
        }
        self.kernel.run_onto(at.samples, x, packed, bias, self.epilogue, y, scratch);
    }
}
