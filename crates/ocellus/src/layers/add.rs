//! The sum of several inputs.

use super::window::shape_text;
use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Adds two or more inputs of the same shape, value by value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {}

impl Add {
    /// The layer; it has no arguments.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Layer for Add {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn inputs(&self) -> std::ops::RangeInclusive<usize> {
        2..=usize::MAX
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match inputs.iter().find(|shape| *shape != &inputs[0]) {
            None => Ok(inputs[0].to_vec()),
            Some(other) => Err(format!(
                "expected inputs of the same shape, received {} and {}",
                shape_text(inputs[0]),
                shape_text(other)
            )),
        }
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        at.graph.add(ops::Add, at.inputs)
    }
}
