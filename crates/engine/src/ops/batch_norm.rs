//! Batch normalisation (Ioffe and Szegedy, 2015): `y = gamma * (x - mean) / sqrt(variance + epsilon) + beta` for each channel.
//!
//! In training, mean and variance are the batch's: [`Moments`] sums over samples, [`FinishMoments`] divides once all
//! samples are in. At inference they are the moving averages.

use super::{count, sample, shared};
use crate::{At, Backward, Graph, GraphError, Inputs, Op, Output, Role, Run, Spec, Target, Value};
use ocellus_kernels::{Level, batch_norm};

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
    let norm = BatchNorm { epsilon, relu: false, batch_statistics: true };
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
    let norm = BatchNorm { epsilon, relu: false, batch_statistics: false };
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
        let (x, shift) = (inputs.f32(0), inputs.f32(1));
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

/// Inputs: x, mean, variance, gamma, beta. Output: y.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether ReLU is applied to the result.
    pub relu: bool,
    /// Whether mean and variance come from this batch, so that the gradient leads through them.
    pub batch_statistics: bool,
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "BatchNorm"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 5..=5)?;
        sample(inputs[0])?;
        for (what, spec) in ["mean", "variance", "gamma", "beta"].iter().zip(&inputs[1..]) {
            shared(what, spec, &[inputs[0].channels()])?;
        }
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        let channels = inputs[0].channels();
        Box::new(RunForward { level, channels, epsilon: self.epsilon, relu: self.relu })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let (x, mean, variance, gamma) = (at.inputs[0], at.inputs[1], at.inputs[2], at.inputs[3]);
        let mut dy = at.gradient();
        if self.relu {
            let y = at.outputs[0];
            dy = at.add(super::activate::ActivateBackward(super::Activation::Relu), &[y, y, dy])?;
        }
        let sums = at.add(BackwardSums { epsilon: self.epsilon }, &[x, dy, mean, variance])?;
        let channels = at.graph.spec(x).channels();
        if at.wants(4) {
            let gradient = at.add(Half { second: false, channels }, &[sums])?;
            at.set(4, gradient);
        }
        if at.wants(3) {
            let gradient = at.add(Half { second: true, channels }, &[sums])?;
            at.set(3, gradient);
        }
        if at.wants(0) {
            let op = BackwardData {
                epsilon: self.epsilon,
                pixels: at.graph.spec(x).len() / channels.max(1),
                batch_statistics: self.batch_statistics,
            };
            let gradient = at.add(op, &[x, dy, mean, variance, gamma, sums])?;
            at.set(0, gradient);
        }
        Ok(())
    }
    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        2 * inputs[0].len() as u64
    }
}

#[derive(Debug)]
struct RunForward {
    level: Level,
    channels: usize,
    epsilon: f32,
    relu: bool,
}

impl Run for RunForward {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let (x, mean, variance) = (inputs.f32(0), inputs.f32(1), inputs.f32(2));
        let (gamma, beta, y) = (inputs.f32(3), inputs.f32(4), outputs[0].f32());
        batch_norm::normalize(self.level, self.channels, x, mean, variance, gamma, beta, self.epsilon, self.relu, y);
    }
}

/// Inputs: x, dy, mean, variance. Output `[2c]`: the gradients of beta and of gamma.
#[derive(Clone, Debug)]
struct BackwardSums {
    epsilon: f32,
}

impl Op for BackwardSums {
    fn name(&self) -> &'static str {
        "BatchNormSums"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![Spec::sum([2 * inputs[0].channels()])])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunBackwardSums { level, channels: inputs[0].channels(), epsilon: self.epsilon })
    }
}

#[derive(Debug)]
struct RunBackwardSums {
    level: Level,
    channels: usize,
    epsilon: f32,
}

impl Run for RunBackwardSums {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let (x, dy, mean, variance) = (inputs.f32(0), inputs.f32(1), inputs.f32(2), inputs.f32(3));
        let sums = outputs[0].f32();
        batch_norm::backward_sums(self.level, self.channels, x, dy, mean, variance, self.epsilon, sums, at.accumulate);
    }
}

/// Input: sums `[2c]`. Output: one half of them, complete, as a parameter's gradient.
#[derive(Clone, Debug)]
struct Half {
    second: bool,
    channels: usize,
}

impl Op for Half {
    fn name(&self) -> &'static str {
        "Half"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        if inputs[0].role != Role::Sum {
            return Err("expected a sum".to_owned());
        }
        Ok(vec![Spec::shared([self.channels])])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunHalf(if self.second { self.channels } else { 0 }))
    }
}

#[derive(Debug)]
struct RunHalf(usize);

impl Run for RunHalf {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let half = outputs[0].f32();
        half.copy_from_slice(&inputs.f32(0)[self.0..][..half.len()]);
    }
}

/// Inputs: x, dy, mean, variance, gamma, sums. Output: gradient of x.
#[derive(Clone, Debug)]
struct BackwardData {
    epsilon: f32,
    pixels: usize,
    batch_statistics: bool,
}

impl Op for BackwardData {
    fn name(&self) -> &'static str {
        "BatchNormBackwardData"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunBackwardData { level, channels: inputs[0].channels(), op: self.clone() })
    }
}

#[derive(Debug)]
struct RunBackwardData {
    level: Level,
    channels: usize,
    op: BackwardData,
}

impl Run for RunBackwardData {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let (x, dy, mean, variance) = (inputs.f32(0), inputs.f32(1), inputs.f32(2), inputs.f32(3));
        let (gamma, sums, dx) = (inputs.f32(4), inputs.f32(5), outputs[0].f32());
        // Where the statistics are constants the terms that come through them vanish: as for an endless batch.
        let count = if self.op.batch_statistics { (at.batch * self.op.pixels) as f32 } else { f32::INFINITY };
        let epsilon = self.op.epsilon;
        batch_norm::backward(self.level, self.channels, count, x, dy, mean, variance, gamma, epsilon, sums, dx);
    }
}
