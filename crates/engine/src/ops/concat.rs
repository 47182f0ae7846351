//! Joining values along the last axis, and cutting them apart again.

use super::sample;
use crate::{At, Backward, GraphError, Inputs, Op, Output, Piece, Run, Spec, Target};
use ocellus_kernels::elementwise;

/// Joins two or more inputs along their last axis; the other axes agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat;

impl Op for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        if inputs.len() < 2 {
            return Err(format!("expected at least 2 inputs, received {}", inputs.len()));
        }
        let head = |spec: &Spec| spec.shape[..spec.shape.len().saturating_sub(1)].to_vec();
        for spec in inputs {
            sample(spec)?;
            if head(spec) != head(inputs[0]) || spec.shape.is_empty() {
                return Err(format!("expected inputs alike but for the last axis, received {} and {spec}", inputs[0]));
            }
        }
        let mut shape = head(inputs[0]);
        shape.push(inputs.iter().map(|spec| spec.channels()).sum());
        Ok(vec![Spec::sample(shape)])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        let widths = inputs.iter().map(|spec| spec.channels()).collect();
        Box::new(RunConcat { rows: inputs[0].len() / inputs[0].channels().max(1), widths })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let dy = at.gradient();
        let mut start = 0;
        for n in 0..at.inputs.len() {
            let width = at.graph.spec(at.inputs[n]).channels();
            if at.wants(n) {
                let gradient = at.add(Cut { start, width }, &[dy])?;
                at.set(n, gradient);
            }
            start += width;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct RunConcat {
    rows: usize,
    widths: Vec<usize>,
}

impl Run for RunConcat {
    fn unit(&self) -> usize {
        self.widths.iter().sum()
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, _scratch: &mut [f32], _at: &At<'_>) {
        let total = self.unit().max(1);
        let rows = piece.values().start / total..piece.values().end / total;
        let mut start = 0;
        for (n, &width) in self.widths.iter().enumerate() {
            let x = &inputs.f32(n)[rows.start * width..rows.end * width];
            elementwise::copy_columns(rows.len(), x, width, 0, piece.f32(), total, start, width);
            start += width;
        }
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let total: usize = self.widths.iter().sum();
        let mut start = 0;
        for (n, &width) in self.widths.iter().enumerate() {
            let rows = self.rows * at.samples;
            elementwise::copy_columns(rows, inputs.f32(n), width, 0, outputs[0].f32(), total, start, width);
            start += width;
        }
    }
}

/// Some columns of the last axis.
#[derive(Clone, Debug)]
struct Cut {
    start: usize,
    width: usize,
}

impl Op for Cut {
    fn name(&self) -> &'static str {
        "Cut"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        let mut shape = inputs[0].shape.clone();
        *shape.last_mut().ok_or("expected at least one axis")? = self.width;
        Ok(vec![Spec::sample(shape)])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        let channels = inputs[0].channels();
        Box::new(RunCut { rows: inputs[0].len() / channels.max(1), channels, op: self.clone() })
    }
}

#[derive(Debug)]
struct RunCut {
    rows: usize,
    channels: usize,
    op: Cut,
}

impl Run for RunCut {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let (rows, &Cut { start, width }) = (self.rows * at.samples, &self.op);
        elementwise::copy_columns(rows, inputs.f32(0), self.channels, start, outputs[0].f32(), width, 0, width);
    }
}
