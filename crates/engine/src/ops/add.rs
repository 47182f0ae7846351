//! The sum of two or more values of one shape; rectified, the sum of two.

use super::activate::ActivateBackward;
use super::conv2d::activation_of;
use super::{Epilogue, count, same, sample};
use crate::{At, Backward, DType, GraphError, Inputs, LINE, Op, Output, Piece, Role, Run, Spec, Target};
use ocellus_kernels::{Level, elementwise, reduce};

/// Most values added at once.
const MOST_INPUTS: usize = 16;

/// `y = x0 + x1 + …`, in that order. Sums over the batch are added once they are complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "Add"
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        if !(2..=MOST_INPUTS).contains(&inputs.len()) {
            return Err(format!("expected at least 2 inputs and at most {MOST_INPUTS}, received {}", inputs.len()));
        }
        inputs.iter().try_for_each(|spec| same(inputs[0], spec))?;
        let sample = inputs[0].role == Role::Sample;
        if inputs.iter().any(|spec| spec.dtype != DType::F32 || (spec.role == Role::Sample) != sample) {
            return Err("expected single-precision inputs that all belong to samples, or none".to_owned());
        }
        let shape = inputs[0].shape.clone();
        Ok(vec![if sample { Spec::sample(shape) } else { Spec::shared(shape) }])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunAdd(level))
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let gradient = at.gradient();
        for n in 0..at.inputs.len() {
            at.set(n, gradient);
        }
        Ok(())
    }
    fn flops(&self, inputs: &[&Spec], outputs: &[&Spec]) -> u64 {
        ((inputs.len() - 1) * outputs[0].len()) as u64
    }
}

#[derive(Debug)]
struct RunAdd(Level);

impl Run for RunAdd {
    fn unit(&self) -> usize {
        LINE
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, _scratch: &mut [f32], _at: &At<'_>) {
        let mut terms: [&[f32]; MOST_INPUTS] = [&[]; MOST_INPUTS];
        for (n, term) in terms[..inputs.len()].iter_mut().enumerate() {
            *term = &inputs.f32(n)[piece.values()];
        }
        reduce::sum_parts(self.0, &terms[..inputs.len()], piece.f32());
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let mut terms: [&[f32]; MOST_INPUTS] = [&[]; MOST_INPUTS];
        for (n, term) in terms[..inputs.len()].iter_mut().enumerate() {
            *term = inputs.f32(n);
        }
        reduce::sum_parts(self.0, &terms[..inputs.len()], outputs[0].f32());
    }
}

/// `y = f(x0 + x1)` with `f` a rectifier: the end of a residual block.
#[derive(Clone, Debug, PartialEq)]
pub struct AddRectified(pub Epilogue);

impl Op for AddRectified {
    fn name(&self) -> &'static str {
        "AddRectified"
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 2..=2)?;
        inputs.iter().try_for_each(|spec| sample(spec))?;
        same(inputs[0], inputs[1])?;
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunRectified { level, epilogue: self.0 })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let mut gradient = at.gradient();
        if let Some(activation) = activation_of(self.0) {
            let y = at.outputs[0];
            gradient = at.add(ActivateBackward(activation), &[y, y, gradient])?;
        }
        at.set(0, gradient);
        at.set(1, gradient);
        Ok(())
    }
    fn flops(&self, _inputs: &[&Spec], outputs: &[&Spec]) -> u64 {
        2 * outputs[0].len() as u64
    }
}

#[derive(Debug)]
struct RunRectified {
    level: Level,
    epilogue: Epilogue,
}

impl Run for RunRectified {
    fn unit(&self) -> usize {
        LINE
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, _scratch: &mut [f32], _at: &At<'_>) {
        let [a, b] = [0, 1].map(|n| &inputs.f32(n)[piece.values()]);
        elementwise::add_rectified(self.level, self.epilogue, a, b, piece.f32());
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        elementwise::add_rectified(self.level, self.epilogue, inputs.f32(0), inputs.f32(1), outputs[0].f32());
    }
}
