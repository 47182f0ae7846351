//! One token out of many.

use super::window::shape_text;
use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Takes the first token: (tokens, channels) becomes (channels). That is the [`ClassToken`](super::ClassToken) where there is
/// one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstToken {}

impl FirstToken {
    /// The layer; it has no arguments.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Layer for FirstToken {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [_, channels] => Ok(vec![channels]),
            ref other => Err(format!("expected (tokens, channels), received {}", shape_text(other))),
        }
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        at.graph.add(ops::FirstRow, &[at.input()])
    }
}
