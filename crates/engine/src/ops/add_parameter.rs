//! Learned numbers that every sample gets: one for each place (a position embedding), and a row before all others (a class
//! token), as Dosovitskiy et al. have them (*An image is worth 16x16 words*, 2021).

use super::{count, sample, shared};
use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Spec, Target};
use ocellus_kernels::{Level, elementwise, reduce};

/// `y = x + p`. Inputs: x, and p of the same shape, which all samples share.
#[derive(Clone, Debug, PartialEq)]
pub struct AddParameter;

impl Op for AddParameter {
    fn name(&self) -> &'static str {
        "AddParameter"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 2..=2)?;
        sample(inputs[0])?;
        shared("parameter", inputs[1], &inputs[0].shape)?;
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunAdd(level))
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let dy = at.gradient();
        at.set(0, dy);
        if at.wants(1) {
            let sums = at.add(SampleSums { shape: at.graph.shape(at.inputs[1]).to_vec() }, &[dy])?;
            at.set(1, sums);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct RunAdd(Level);

impl Run for RunAdd {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let (x, parameter, y) = (inputs.f32(0), inputs.f32(1), outputs[0].f32());
        for (x, y) in x.chunks_exact(parameter.len().max(1)).zip(y.chunks_exact_mut(parameter.len().max(1))) {
            elementwise::add(self.0, x, parameter, y);
        }
    }
}

/// Inputs: x `[rows, c]`, row `[c]`, which all samples share. Output `[rows + 1, c]`: the row, then x.
#[derive(Clone, Debug, PartialEq)]
pub struct PrependRow;

impl Op for PrependRow {
    fn name(&self) -> &'static str {
        "PrependRow"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 2..=2)?;
        sample(inputs[0])?;
        let [rows, channels] = inputs[0].shape[..] else {
            return Err(format!("expected rows x channels for each sample, received {}", inputs[0]));
        };
        shared("row", inputs[1], &[channels])?;
        Ok(vec![Spec::sample([rows + 1, channels])])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunPrepend { len: inputs[0].len(), channels: inputs[1].len() })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let (dy, shape) = (at.gradient(), at.graph.shape(at.inputs[0]).to_vec());
        if at.wants(0) {
            let dx = at.add(DropRow { shape: shape.clone() }, &[dy])?;
            at.set(0, dx);
        }
        if at.wants(1) {
            let sums = at.add(SampleSums { shape: vec![shape[1]] }, &[dy])?;
            at.set(1, sums);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct RunPrepend {
    /// Values of x for one sample.
    len: usize,
    channels: usize,
}

impl Run for RunPrepend {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let (x, row, y) = (inputs.f32(0), inputs.f32(1), outputs[0].f32());
        for (x, y) in x.chunks_exact(self.len).zip(y.chunks_exact_mut(self.len + self.channels)) {
            let (first, rest) = y.split_at_mut(self.channels);
            first.copy_from_slice(row);
            rest.copy_from_slice(x);
        }
    }
}

/// Input: `[rows + 1, c]`. Output: all but the first row.
#[derive(Clone, Debug)]
struct DropRow {
    shape: Vec<usize>,
}

impl Op for DropRow {
    fn name(&self) -> &'static str {
        "DropRow"
    }
    fn outputs(&self, _inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sample(self.shape.clone())])
    }
    fn prepare(&self, _inputs: &[&Spec], outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunDrop { len: outputs[0].len(), channels: outputs[0].channels() })
    }
}

#[derive(Debug)]
struct RunDrop {
    len: usize,
    channels: usize,
}

impl Run for RunDrop {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let (dy, dx) = (inputs.f32(0), outputs[0].f32());
        for (dy, dx) in dy.chunks_exact(self.len + self.channels).zip(dx.chunks_exact_mut(self.len)) {
            dx.copy_from_slice(&dy[self.channels..]);
        }
    }
}

/// One row of those of a sample.
///
/// Input: `[rows, c]`. Output: `[c]`, the first row.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstRow;

impl Op for FirstRow {
    fn name(&self) -> &'static str {
        "FirstRow"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 1..=1)?;
        sample(inputs[0])?;
        match inputs[0].shape[..] {
            [rows, channels] if rows > 0 => Ok(vec![Spec::sample([channels])]),
            _ => Err(format!("expected rows x channels for each sample, received {}", inputs[0])),
        }
    }
    fn prepare(&self, inputs: &[&Spec], outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunFirst { len: inputs[0].len(), channels: outputs[0].len() })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let (dy, shape) = (at.gradient(), at.graph.shape(at.inputs[0]).to_vec());
        let dx = at.add(FillRows { shape }, &[dy])?;
        at.set(0, dx);
        Ok(())
    }
}

#[derive(Debug)]
struct RunFirst {
    len: usize,
    channels: usize,
}

impl Run for RunFirst {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let (x, y) = (inputs.f32(0), outputs[0].f32());
        for (x, y) in x.chunks_exact(self.len).zip(y.chunks_exact_mut(self.channels)) {
            y.copy_from_slice(&x[..self.channels]);
        }
    }
}

/// Input: `[c]`. Output `[rows, c]`: the input, then zeros.
#[derive(Clone, Debug)]
struct FillRows {
    shape: Vec<usize>,
}

impl Op for FillRows {
    fn name(&self) -> &'static str {
        "FillRows"
    }
    fn outputs(&self, _inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sample(self.shape.clone())])
    }
    fn prepare(&self, inputs: &[&Spec], outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunFill { len: outputs[0].len(), channels: inputs[0].len() })
    }
}

#[derive(Debug)]
struct RunFill {
    len: usize,
    channels: usize,
}

impl Run for RunFill {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let (dy, dx) = (inputs.f32(0), outputs[0].f32());
        for (dy, dx) in dy.chunks_exact(self.channels).zip(dx.chunks_exact_mut(self.len)) {
            let (first, rest) = dx.split_at_mut(self.channels);
            first.copy_from_slice(dy);
            rest.fill(0.0);
        }
    }
}

/// Input: x of any shape. Output: the sums over samples of the first values of each.
#[derive(Clone, Debug)]
struct SampleSums {
    shape: Vec<usize>,
}

impl Op for SampleSums {
    fn name(&self) -> &'static str {
        "SampleSums"
    }
    fn outputs(&self, _inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sum(self.shape.clone())])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunSums { level, len: inputs[0].len() })
    }
}

#[derive(Debug)]
struct RunSums {
    level: Level,
    len: usize,
}

impl Run for RunSums {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let sums = outputs[0].f32();
        let mut accumulate = at.accumulate;
        for x in inputs.f32(0).chunks_exact(self.len) {
            reduce::column_sums(self.level, sums.len(), &x[..sums.len()], sums, accumulate);
            accumulate = true;
        }
    }
}
