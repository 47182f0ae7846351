//! Channels multiplied by learned numbers that begin small.

use super::{Build, Layer, ParameterSpec};
use crate::initializers::Initializer;
use crate::regularizers::Regularizer;
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Multiplies each channel (last axis) by a learned number, so that a deep network's branches can begin with next to nothing.
///
/// Touvron et al., *Going deeper with image transformers*, 2021.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerScale {
    /// What every number is at first.
    #[serde(default = "initial")]
    pub initial: f32,
}

fn initial() -> f32 {
    1e-6
}

impl Default for LayerScale {
    fn default() -> Self {
        LayerScale { initial: initial() }
    }
}

impl LayerScale {
    /// The layer with ConvNeXt's first numbers, 1e-6.
    pub fn new() -> Self {
        Self::default()
    }

    /// What every number is at first; 1e-6 by default.
    pub fn initial(self, initial: f32) -> Self {
        LayerScale { initial }
    }
}

impl Layer for LayerScale {
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
        if !self.initial.is_finite() {
            return Err(format!("expected a finite number, received {}", self.initial));
        }
        Ok(inputs[0].to_vec())
    }

    fn parameters(&self, inputs: &[&[usize]]) -> Vec<ParameterSpec> {
        let channels = inputs[0][inputs[0].len() - 1];
        vec![ParameterSpec::weight("scale", &[channels], Initializer::Constant(self.initial), Regularizer::NONE)]
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let inputs = at.input_and_parameters();
        at.graph.add(ops::MultiplyChannels, &inputs)
    }
}
