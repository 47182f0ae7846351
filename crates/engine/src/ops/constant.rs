//! One number in every place.

use crate::{At, Inputs, Op, Output, Run, Spec, Target};

/// A shared value that holds the same number everywhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// The number.
    pub value: f32,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
}

impl Op for Constant {
    fn name(&self) -> &'static str {
        "Constant"
    }
    fn outputs(&self, _inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::shared(self.shape.clone())])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunConstant(self.value))
    }
}

#[derive(Debug)]
struct RunConstant(f32);

impl Run for RunConstant {
    fn run(&self, _inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        outputs[0].f32().fill(self.0);
    }
}
