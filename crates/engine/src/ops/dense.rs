//! Fully connected layer on the last axis: `y = f(x · w + b)`.
//!
//! It is the 1x1 convolution of an image with one pixel for each row of `x`, and runs as that.

use super::conv2d::{RunForward, convolution_gradient};
use super::{count, sample, shared};
use crate::{Backward, GraphError, Op, Run, Spec, Target};
use ocellus_kernels::conv::{ConvShape, Epilogue, Forward};

/// Inputs: `[.., in]`, kernel `[in, out]`, optionally bias `[out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// What is applied to the sums.
    pub epilogue: Epilogue,
}

pub(super) fn shape(x: &Spec, kernel: &Spec) -> ConvShape {
    ConvShape {
        input: [x.len() / x.channels().max(1), 1, x.channels()],
        filters: kernel.channels(),
        kernel: [1, 1],
        strides: [1, 1],
        padding: [0; 4],
        dilation: [1, 1],
        groups: 1,
    }
}

impl Op for Dense {
    fn name(&self) -> &'static str {
        "Dense"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 2..=3)?;
        sample(inputs[0])?;
        let (&[features, units], Some(&last)) = (&inputs[1].shape[..], inputs[0].shape.last()) else {
            return Err(format!("expected a kernel of inputs x units, received {}", inputs[1]));
        };
        if last != features || units == 0 || features == 0 {
            return Err(format!("expected {features} features in the last axis, received {}", inputs[0]));
        }
        if let Some(bias) = inputs.get(2) {
            shared("bias", bias, &[units])?;
        }
        let mut out = inputs[0].shape.clone();
        *out.last_mut().expect("it has a last axis") = units;
        Ok(vec![Spec::sample(out)])
    }

    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, precision }: Target) -> Box<dyn Run> {
        let kernel = Forward::new(shape(inputs[0], inputs[1]), level, precision);
        Box::new(RunForward { kernel, bias: inputs.len() == 3, epilogue: self.epilogue, shortcut: None })
    }

    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let shape = shape(at.graph.spec(at.inputs[0]), at.graph.spec(at.inputs[1]));
        convolution_gradient(at, shape, self.epilogue)
    }

    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        shape(inputs[0], inputs[1]).flops()
    }
}
