//! Each last axis brought to mean 0 and variance 1, then scaled and shifted.

use super::{Build, Layer, ParameterSpec};
use crate::initializers::Initializer;
use crate::regularizers::Regularizer;
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// `gamma * (x - mean) / sqrt(variance + epsilon) + beta`, with mean and variance of the last axis (the channels) at each place:
/// no sample sees another, and training is the same as inference.
///
/// Ba, Kiros and Hinton, *Layer normalization*, 2016.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNormalization {
    /// Added to the variance.
    #[serde(default = "epsilon")]
    pub epsilon: f32,
}

fn epsilon() -> f32 {
    1e-3
}

impl Default for LayerNormalization {
    fn default() -> Self {
        LayerNormalization { epsilon: epsilon() }
    }
}

impl LayerNormalization {
    /// The layer with Keras' defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Added to the variance; 0.001 by default.
    pub fn epsilon(self, epsilon: f32) -> Self {
        LayerNormalization { epsilon }
    }
}

impl Layer for LayerNormalization {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        if inputs[0].is_empty() {
            return Err("expected channels as the last axis, received a scalar".into());
        }
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(format!("expected an epsilon above 0, received {}", self.epsilon));
        }
        Ok(inputs[0].to_vec())
    }

    fn parameters(&self, inputs: &[&[usize]]) -> Vec<ParameterSpec> {
        let channels = inputs[0][inputs[0].len() - 1];
        let weight = |name, initializer| ParameterSpec::weight(name, &[channels], initializer, Regularizer::NONE);
        vec![weight("gamma", Initializer::Ones), weight("beta", Initializer::Zeros)]
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let inputs = at.input_and_parameters();
        at.graph.add(ops::LayerNorm { epsilon: self.epsilon }, &inputs)
    }
}
