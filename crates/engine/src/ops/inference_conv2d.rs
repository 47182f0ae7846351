//! Convolution with bias of an inference graph: with what is known of its neighbours there.
//!
//! `y = f(convolution(x) + b + shortcut)`, where there is a shortcut: an earlier value that is added before the activation, the end of a
//! residual block. Where nothing reads it afterwards, `y` is written over it.

use super::conv2d::RunForward;
use super::{Conv2d, count, same, shared};
use crate::{Op, Run, Spec, Target};
use ocellus_kernels::conv::Forward;

/// Inputs: image, kernel, bias, optionally shortcut of the output's shape. With a shortcut the convolution has one group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InferenceConv2d {
    /// The convolution; its epilogue comes after the addition.
    pub(crate) conv: Conv2d,
    /// Whether something is added.
    pub(crate) shortcut: bool,
    /// Whether the image is of about unit size, since it comes from batch normalisation: then fewer multiplications do.
    pub(crate) normalized: bool,
}

/// Which input the shortcut is.
const SHORTCUT: usize = 3;

impl Op for InferenceConv2d {
    fn name(&self) -> &'static str {
        if self.shortcut { "ResidualConv2d" } else { "Conv2d" }
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        let expected = SHORTCUT + usize::from(self.shortcut);
        count(inputs, expected..=expected)?;
        let shape = self.conv.shape(inputs[0], inputs[1])?;
        shared("bias", inputs[2], &[shape.filters])?;
        let output = Spec::sample(shape.output());
        if self.shortcut {
            if shape.groups != 1 {
                return Err(format!("expected a convolution of one group, received {}", shape.groups));
            }
            super::sample(inputs[SHORTCUT])?;
            same(inputs[SHORTCUT], &output)?;
        }
        Ok(vec![output])
    }

    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, precision }: Target) -> Box<dyn Run> {
        let shape = self.conv.shape(inputs[0], inputs[1]).expect("checked when the node was added");
        let kernel = Forward::new(shape, level, precision);
        Box::new(RunForward {
            kernel: if self.normalized && level.adds_beside() { kernel.crossed() } else { kernel },
            bias: true,
            epilogue: self.conv.epilogue,
            shortcut: self.shortcut.then_some(SHORTCUT),
        })
    }

    fn is_pixelwise(&self, inputs: &[&Spec]) -> bool {
        self.conv.is_pixelwise(inputs)
    }

    fn overwrites(&self) -> Option<usize> {
        self.shortcut.then_some(SHORTCUT)
    }

    fn flops(&self, inputs: &[&Spec], outputs: &[&Spec]) -> u64 {
        self.conv.flops(inputs, outputs) + if self.shortcut { outputs[0].len() as u64 } else { 0 }
    }
}
