//! The same values under another shape.

use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Spec, Target};

/// Row-major values seen under another shape; nothing is copied.
#[derive(Clone, Debug, PartialEq)]
pub struct Reshape {
    /// Sizes of the axes, without the batch.
    pub shape: Vec<usize>,
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        let spec = Spec { shape: self.shape.clone(), ..inputs[0].clone() };
        if spec.len() != inputs[0].len() {
            return Err(format!("expected a shape of {} values, received {spec}", inputs[0].len()));
        }
        Ok(vec![spec])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(Nothing)
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let shape = at.graph.shape(at.inputs[0]).to_vec();
        let dy = at.gradient();
        let gradient = at.add(Reshape { shape }, &[dy])?;
        at.set(0, gradient);
        Ok(())
    }
    fn is_view(&self) -> bool {
        true
    }
}

/// A view runs nothing.
#[derive(Debug)]
struct Nothing;

impl Run for Nothing {
    fn run(&self, _inputs: &Inputs<'_>, _outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {}
}
