//! Values left out at random while training.

use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// In training, sets a share of the values to zero and scales the others up so that the sum is kept on average; does
/// nothing otherwise.
///
/// Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting*, 2014.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// The share that is left out, at least 0 and below 1.
    pub rate: f32,
}

impl Dropout {
    /// Leaves out this share.
    pub fn new(rate: f32) -> Self {
        Dropout { rate }
    }
}

impl Layer for Dropout {
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
        if !(0.0..1.0).contains(&self.rate) {
            return Err(format!("expected a rate of at least 0 and below 1, received {}", self.rate));
        }
        Ok(inputs[0].to_vec())
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        if !at.training || self.rate == 0.0 {
            return Ok(at.input());
        }
        let (rate, key, unit) = (self.rate, at.key, ops::DropoutUnit::Value);
        at.graph.add(ops::Dropout { rate, key, unit }, &[at.input()])
    }
}
