//! Softmax over the last axis.

use super::sample;
use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Spec, Target};
use ocellus_kernels::{Level, softmax};

/// `y_i = exp(x_i) / Σ exp(x_j)` over the last axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Softmax;

impl Softmax {
    /// The operation's name.
    pub const NAME: &'static str = "Softmax";
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        sample(inputs[0])?;
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunForward { level, classes: inputs[0].channels() })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let (y, dy) = (at.outputs[0], at.gradient());
        let gradient = at.add(SoftmaxBackward, &[y, dy])?;
        at.set(0, gradient);
        Ok(())
    }
}

#[derive(Debug)]
struct RunForward {
    level: Level,
    classes: usize,
}

impl Run for RunForward {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        softmax::forward(self.level, self.classes, inputs.f32(0), outputs[0].f32());
    }
}

/// Inputs: y, gradient of y. Output: gradient of x.
#[derive(Clone, Debug)]
struct SoftmaxBackward;

impl Op for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "SoftmaxBackward"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunBackward { level, classes: inputs[0].channels() })
    }
}

#[derive(Debug)]
struct RunBackward {
    level: Level,
    classes: usize,
}

impl Run for RunBackward {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        softmax::backward(self.level, self.classes, inputs.f32(0), inputs.f32(1), outputs[0].f32());
    }
}
