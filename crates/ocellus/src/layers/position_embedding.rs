//! Learned numbers that tell places apart.

use super::{Build, Layer, ParameterSpec};
use crate::initializers::Initializer;
use crate::regularizers::Regularizer;
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Adds a learned number to each value of a sample, the same for all samples: what tells attention where a token is.
///
/// Dosovitskiy et al., *An image is worth 16x16 words*, 2021.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionEmbedding {}

impl PositionEmbedding {
    /// The layer; it has no arguments.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Layer for PositionEmbedding {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        if inputs[0].is_empty() {
            return Err("expected at least one axis, received a scalar".into());
        }
        Ok(inputs[0].to_vec())
    }

    fn parameters(&self, inputs: &[&[usize]]) -> Vec<ParameterSpec> {
        let initializer = Initializer::RandomNormal { stddev: 0.02 };
        vec![ParameterSpec::weight("embedding", inputs[0], initializer, Regularizer::NONE)]
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let inputs = at.input_and_parameters();
        at.graph.add(ops::AddParameter, &inputs)
    }

    fn multiply_adds(&self, _inputs: &[&[usize]], _output: &[usize]) -> u64 {
        0
    }
}
