//! Elementwise activation functions.

use super::sample;
use crate::{At, Backward, GraphError, Inputs, LINE, Op, Output, Piece, Run, Spec, Target};
use ocellus_kernels::Level;
use ocellus_kernels::activation::{self, Activation};

/// `y = f(x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Activate(pub Activation);

impl Op for Activate {
    fn name(&self) -> &'static str {
        "Activate"
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        sample(inputs[0])?;
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunForward { level, activation: self.0 })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let (x, y, dy) = (at.inputs[0], at.outputs[0], at.gradient());
        let gradient = at.add(ActivateBackward(self.0), &[x, y, dy])?;
        at.set(0, gradient);
        Ok(())
    }
}

#[derive(Debug)]
struct RunForward {
    level: Level,
    activation: Activation,
}

impl Run for RunForward {
    fn unit(&self) -> usize {
        LINE
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, _scratch: &mut [f32], _at: &At<'_>) {
        activation::forward(self.level, self.activation, &inputs.f32(0)[piece.values()], piece.f32());
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        activation::forward(self.level, self.activation, inputs.f32(0), outputs[0].f32());
    }
}

/// Inputs: x, y, gradient of y. Output: gradient of x. A rectifier reads y alone, and takes it in the place of x, too.
#[derive(Clone, Debug)]
pub(super) struct ActivateBackward(pub(super) Activation);

impl Op for ActivateBackward {
    fn name(&self) -> &'static str {
        "ActivateBackward"
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunBackward { level, activation: self.0 })
    }
}

#[derive(Debug)]
struct RunBackward {
    level: Level,
    activation: Activation,
}

impl Run for RunBackward {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let (x, y, dy) = (inputs.f32(0), inputs.f32(1), inputs.f32(2));
        activation::backward(self.level, self.activation, x, y, dy, outputs[0].f32());
    }
}
