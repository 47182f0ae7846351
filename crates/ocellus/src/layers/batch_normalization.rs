//! Channels brought to mean 0 and variance 1, then scaled and shifted.

use super::conv2d::yes;
use super::{Build, Layer, ParameterSpec};
use crate::initializers::Initializer;
use crate::regularizers::Regularizer;
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// `gamma * (x - mean) / sqrt(variance + epsilon) + beta` for each channel (last axis): in training with the batch's mean
/// and variance, otherwise with moving averages of those.
///
/// Ioffe and Szegedy, *Batch normalization*, 2015.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNormalization {
    /// What a moving average keeps of itself at each step.
    #[serde(default = "momentum")]
    pub momentum: f32,
    /// Added to the variance.
    #[serde(default = "epsilon")]
    pub epsilon: f32,
    /// Whether there is a learned shift, beta.
    #[serde(default = "yes")]
    pub center: bool,
    /// Whether there is a learned scale, gamma.
    #[serde(default = "yes")]
    pub scale: bool,
}

fn momentum() -> f32 {
    0.99
}

fn epsilon() -> f32 {
    1e-3
}

impl Default for BatchNormalization {
    fn default() -> Self {
        BatchNormalization { momentum: momentum(), epsilon: epsilon(), center: true, scale: true }
    }
}

impl BatchNormalization {
    /// The layer with Keras' defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a moving average keeps of itself at each step; 0.99 by default.
    pub fn momentum(self, momentum: f32) -> Self {
        BatchNormalization { momentum, ..self }
    }

    /// Added to the variance; 0.001 by default.
    pub fn epsilon(self, epsilon: f32) -> Self {
        BatchNormalization { epsilon, ..self }
    }

    /// Whether there is a learned shift; there is by default.
    pub fn center(self, center: bool) -> Self {
        BatchNormalization { center, ..self }
    }

    /// Whether there is a learned scale; there is by default.
    pub fn scale(self, scale: bool) -> Self {
        BatchNormalization { scale, ..self }
    }
}

impl Layer for BatchNormalization {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn differs_in_training(&self) -> bool {
        true
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        if inputs[0].is_empty() {
            return Err("expected channels as the last axis, received a scalar".into());
        }
        if !(0.0..=1.0).contains(&self.momentum) {
            return Err(format!("expected a momentum of 0 to 1, received {}", self.momentum));
        }
        if !(self.epsilon >= 0.0 && self.epsilon.is_finite()) {
            return Err(format!("expected an epsilon of at least 0, received {}", self.epsilon));
        }
        Ok(inputs[0].to_vec())
    }

    fn parameters(&self, inputs: &[&[usize]]) -> Vec<ParameterSpec> {
        let channels = inputs[0][inputs[0].len() - 1];
        let weight = |name, initializer| ParameterSpec::weight(name, &[channels], initializer, Regularizer::NONE);
        let mut parameters = Vec::new();
        if self.scale {
            parameters.push(weight("gamma", Initializer::Ones));
        }
        if self.center {
            parameters.push(weight("beta", Initializer::Zeros));
        }
        parameters.push(ParameterSpec::statistic("moving_mean", channels, Initializer::Zeros));
        parameters.push(ParameterSpec::statistic("moving_variance", channels, Initializer::Ones));
        parameters
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let x = at.input();
        let shape = vec![at.graph.shape(x).last().copied().unwrap_or(1)];
        let [weights @ .., mean, variance] = at.parameters else { unreachable!("four at most, two at least") };
        let mut weights = weights.iter().map(|&(_, value)| value);
        let gamma = self.scale.then(|| weights.next()).flatten();
        let beta = self.center.then(|| weights.next()).flatten();
        let mut or_constant = |given: Option<Value>, value: f32| match given {
            Some(given) => Ok(given),
            None => at.graph.add(ops::Constant { value, shape: shape.clone() }, &[]),
        };
        let (gamma, beta) = (or_constant(gamma, 1.0)?, or_constant(beta, 0.0)?);
        if !at.training {
            return ops::batch_norm_inference(at.graph, x, gamma, beta, mean.1, variance.1, self.epsilon);
        }
        let (y, batch_mean, batch_variance) =
            ops::batch_norm_training(at.graph, x, gamma, beta, mean.1, self.epsilon)?;
        at.moving_averages.push((mean.0, batch_mean, self.momentum));
        at.moving_averages.push((variance.0, batch_variance, self.momentum));
        Ok(y)
    }
}
