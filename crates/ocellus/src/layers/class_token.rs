//! A learned token that gathers what the others tell.

use super::window::shape_text;
use super::{Build, Layer, ParameterSpec};
use crate::initializers::Initializer;
use crate::regularizers::Regularizer;
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Puts one learned token before all others: (tokens, channels) becomes (tokens + 1, channels).
/// [`FirstToken`](super::FirstToken) takes it out again.
///
/// Dosovitskiy et al., *An image is worth 16x16 words*, 2021.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassToken {}

impl ClassToken {
    /// The layer; it has no arguments.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Layer for ClassToken {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [tokens, channels] => Ok(vec![tokens.saturating_add(1), channels]),
            ref other => Err(format!("expected (tokens, channels), received {}", shape_text(other))),
        }
    }

    fn parameters(&self, inputs: &[&[usize]]) -> Vec<ParameterSpec> {
        let initializer = Initializer::RandomNormal { stddev: 0.02 };
        vec![ParameterSpec::weight("token", &inputs[0][1..], initializer, Regularizer::NONE)]
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let inputs = at.input_and_parameters();
        at.graph.add(ops::PrependRow, &inputs)
    }
}
