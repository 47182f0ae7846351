//! Branches left out at random while training.

use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// In training, sets a share of the samples to zero as a whole and scales the others up so that the mean is kept; does nothing
/// otherwise. At the end of a residual branch it makes some samples skip the branch ("drop path").
///
/// Huang et al., *Deep networks with stochastic depth*, 2016.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StochasticDepth {
    /// The share of samples that is left out, at least 0 and below 1.
    pub rate: f32,
}

impl StochasticDepth {
    /// Leaves out this share of the samples.
    pub fn new(rate: f32) -> Self {
        StochasticDepth { rate }
    }
}

impl Layer for StochasticDepth {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        if !(0.0..1.0).contains(&self.rate) {
            return Err(format!("expected a rate of at least 0 and below 1, received {}", self.rate));
        }
        Ok(inputs[0].to_vec())
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        if !at.training || self.rate == 0.0 {
            return Ok(at.input());
        }
        let (rate, key, unit) = (self.rate, at.key, ops::DropoutUnit::Sample);
        at.graph.add(ops::Dropout { rate, key, unit }, &[at.input()])
    }
}
