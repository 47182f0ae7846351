//! Convolution to whose sums an earlier value is added before the activation: the end of a residual block, for inference.
//!
//! `y = f(convolution(x) + b + shortcut)`. Where nothing reads the shortcut afterwards, `y` is written over it.

use super::conv2d::RunForward;
use super::{Conv2d, count, same, shared};
use crate::{Op, Run, Spec, Target};
use ocellus_kernels::conv::Forward;

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
        Box::new(RunForward {
            kernel: Forward::new(shape, level, precision),
            bias: true,
            epilogue: self.conv.epilogue,
            shortcut: Some(SHORTCUT),
        })
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
