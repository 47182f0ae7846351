//! Average pooling to a given size.

use super::image;
use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Spec, Target};
use ocellus_kernels::Level;
use ocellus_kernels::pool2d::{self, AdaptiveShape};

/// Means of windows that cover the image, as many as asked for, of nearly equal size.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptiveAveragePool2d {
    /// Rows and columns of the output.
    pub output: [usize; 2],
}

impl AdaptiveAveragePool2d {
    fn shape(&self, input: &Spec) -> Result<AdaptiveShape, String> {
        let input = image(input)?;
        if self.output.contains(&0) || input.contains(&0) {
            return Err(format!("expected at least one row and column, received {:?} of {input:?}", self.output));
        }
        Ok(AdaptiveShape { input, output: self.output })
    }
}

impl Op for AdaptiveAveragePool2d {
    fn name(&self) -> &'static str {
        "AdaptiveAveragePool2d"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        let AdaptiveShape { input, output: [rows, columns] } = self.shape(inputs[0])?;
        Ok(vec![Spec::sample([rows, columns, input[2]])])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunForward { level, shape: self.shape(inputs[0]).expect("checked when the node was added") })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let shape = self.shape(at.graph.spec(at.inputs[0])).expect("checked when the node was added");
        let dy = at.gradient();
        let gradient = at.add(AdaptiveBackward { shape }, &[dy])?;
        at.set(0, gradient);
        Ok(())
    }
}

#[derive(Debug)]
struct RunForward {
    level: Level,
    shape: AdaptiveShape,
}

impl Run for RunForward {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        pool2d::adaptive_average_forward(self.level, &self.shape, at.samples, inputs.f32(0), outputs[0].f32());
    }
}

/// Input: gradient of the output. Output: gradient of the image.
#[derive(Clone, Debug)]
struct AdaptiveBackward {
    shape: AdaptiveShape,
}

impl Op for AdaptiveBackward {
    fn name(&self) -> &'static str {
        "AdaptiveAveragePool2dBackward"
    }
    fn outputs(&self, _inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sample(self.shape.input)])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunBackward { level, shape: self.shape })
    }
}

#[derive(Debug)]
struct RunBackward {
    level: Level,
    shape: AdaptiveShape,
}

impl Run for RunBackward {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        pool2d::adaptive_average_backward(self.level, &self.shape, at.samples, inputs.f32(0), outputs[0].f32());
    }
}
