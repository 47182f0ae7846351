//! Batch normalisation (Ioffe and Szegedy, 2015): `y = gamma * (x - mean) / sqrt(variance + epsilon) + beta` for each channel.
//!
//! In training, mean and variance are the batch's: [`Moments`] sums over samples, [`FinishMoments`] divides once all
//! samples are in. At inference they are the moving averages.

use super::{Epilogue, batch_norm_backward, count, same, sample, shared};
use crate::{At, Backward, Graph, GraphError, Inputs, Op, Output, Piece, Run, Spec, Target, Value};
use ocellus_kernels::Level;
use ocellus_kernels::batch_norm::{self, Norm};

/// Normalises with the batch's statistics. Gives y, and the batch's mean and (biased) variance for the moving averages.
///
/// # Errors
/// Where a parameter does not have one value for each channel.
pub fn batch_norm_training(
    graph: &mut Graph,
    x: Value,
    gamma: Value,
    beta: Value,
    moving_mean: Value,
    epsilon: f32,
) -> Result<(Value, Value, Value), GraphError> {
    let pixels = graph.spec(x).len() / graph.spec(x).channels().max(1);
    let sums = graph.add(Moments, &[x, moving_mean])?;
    let statistics = graph.add_all(FinishMoments { pixels }, &[sums, moving_mean])?;
    let (mean, variance) = (statistics[0], statistics[1]);
    let norm = BatchNorm { epsilon, epilogue: Epilogue::Linear, batch_statistics: true };
    Ok((graph.add(norm, &[x, mean, variance, gamma, beta])?, mean, variance))
}

/// Normalises with the moving averages.
///
/// # Errors
/// Where a parameter does not have one value for each channel.
pub fn batch_norm_inference(
    graph: &mut Graph,
    x: Value,
    gamma: Value,
    beta: Value,
    moving_mean: Value,
    moving_variance: Value,
    epsilon: f32,
) -> Result<Value, GraphError> {
    let norm = BatchNorm { epsilon, epilogue: Epilogue::Linear, batch_statistics: false };
    graph.add(norm, &[x, moving_mean, moving_variance, gamma, beta])
}

/// Inputs: x, shift `[c]`. Output `[2c]`: the sums of `x - shift` and of its square.
///
/// The shift, any number near the mean, keeps the difference of two large numbers out of the variance.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments;

impl Op for Moments {
    fn name(&self) -> &'static str {
        "Moments"
    }
    fn reads_bf16(&self, input: usize) -> bool {
        input == 0
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 2..=2)?;
        sample(inputs[0])?;
        shared("moving mean", inputs[1], &[inputs[0].channels()])?;
        Ok(vec![Spec::sum([2 * inputs[0].channels()])])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunMoments { level, channels: inputs[0].channels() })
    }
    fn gradient(&self, _at: &mut Backward<'_>) -> Result<(), GraphError> {
        // The gradient through the statistics is part of BatchNorm's own.
        Ok(())
    }
}

#[derive(Debug)]
struct RunMoments {
    level: Level,
    channels: usize,
}

impl Run for RunMoments {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let (x, shift) = (inputs.values(0), inputs.f32(1));
        batch_norm::moments(self.level, self.channels, x, shift, outputs[0].f32(), at.accumulate);
    }
}

/// Inputs: sums `[2c]`, shift `[c]`. Outputs: mean and biased variance of the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishMoments {
    /// Values of a channel in one sample.
    pub pixels: usize,
}

impl Op for FinishMoments {
    fn name(&self) -> &'static str {
        "FinishMoments"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 2..=2)?;
        let channels = inputs[0].len() / 2;
        shared("moving mean", inputs[1], &[channels])?;
        Ok(vec![Spec::shared([channels]), Spec::shared([channels])])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunFinish(self.pixels))
    }
    fn gradient(&self, _at: &mut Backward<'_>) -> Result<(), GraphError> {
        Ok(())
    }
}

#[derive(Debug)]
struct RunFinish(usize);

impl Run for RunFinish {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let [mean, variance] = outputs else { unreachable!("it has two outputs") };
        let count = (at.batch * self.0) as f32;
        batch_norm::finish(inputs.f32(0), inputs.f32(1), count, mean.f32(), variance.f32());
    }
}

/// Inputs: x, mean, variance, gamma, beta, optionally a shortcut that is added to the result. Output: y.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    /// Added to the variance.
    pub epsilon: f32,
    /// What is applied last.
    pub epilogue: Epilogue,
    /// Whether mean and variance come from this batch, so that the gradient leads through them.
    pub batch_statistics: bool,
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "BatchNorm"
    }
    fn reads_bf16(&self, input: usize) -> bool {
        input == 0 || input == 5
    }
    fn writes_bf16(&self, _inputs: &[&Spec], _output: usize) -> bool {
        true
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 5..=6)?;
        sample(inputs[0])?;
        for (what, spec) in ["mean", "variance", "gamma", "beta"].iter().zip(&inputs[1..5]) {
            shared(what, spec, &[inputs[0].channels()])?;
        }
        if let Some(shortcut) = inputs.get(5) {
            sample(shortcut)?;
            same(inputs[0], shortcut)?;
        }
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunForward { level, channels: inputs[0].channels(), op: self.clone(), shortcut: inputs.len() == 6 })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        batch_norm_backward::add_gradients(self, at)
    }
    fn is_cheap(&self) -> bool {
        true
    }
    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        (inputs.len() as u64 - 3) * inputs[0].len() as u64
    }
}

impl BatchNorm {
    /// The values per channel among the inputs, of which the first is number `first`.
    pub(super) fn norm<'a>(&self, inputs: &Inputs<'a>, first: usize) -> Norm<'a> {
        Norm {
            mean: inputs.f32(first),
            variance: inputs.f32(first + 1),
            gamma: inputs.f32(first + 2),
            beta: inputs.f32(first + 3),
            epsilon: self.epsilon,
            epilogue: self.epilogue,
        }
    }
}

#[derive(Debug)]
struct RunForward {
    level: Level,
    channels: usize,
    op: BatchNorm,
    shortcut: bool,
}

impl Run for RunForward {
    fn unit(&self) -> usize {
        self.channels
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, _scratch: &mut [f32], _at: &At<'_>) {
        let (x, norm) = (inputs.values(0).slice(piece.values()), self.op.norm(inputs, 1));
        let shortcut = self.shortcut.then(|| inputs.values(5).slice(piece.values()));
        batch_norm::normalize(self.level, &norm, x, shortcut, piece.f32().into());
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let (x, shortcut) = (inputs.values(0), self.shortcut.then(|| inputs.values(5)));
        batch_norm::normalize(self.level, &self.op.norm(inputs, 1), x, shortcut, outputs[0].values());
    }
}
