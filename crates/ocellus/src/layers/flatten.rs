//! All axes become one.

use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Gives the values of each sample as one row, in the order in which they lie (row by row, channels innermost).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flatten {}

impl Flatten {
    /// The layer; it has no arguments.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Layer for Flatten {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(vec![inputs[0].iter().product()])
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let shape = vec![at.graph.shape(at.input()).iter().product()];
        at.graph.add(ops::Reshape { shape }, &[at.input()])
    }
}
