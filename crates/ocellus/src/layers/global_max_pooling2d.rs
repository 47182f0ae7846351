//! The largest value of each channel.

use super::window::shape_text;
use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Takes the largest value of each channel: (height, width, channels) becomes (channels).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalMaxPooling2d {}

impl GlobalMaxPooling2d {
    /// The layer; it has no arguments.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Layer for GlobalMaxPooling2d {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [_, _, channels] => Ok(vec![channels]),
            ref other => Err(format!("expected an image (height, width, channels), received {}", shape_text(other))),
        }
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        at.graph.add(ops::GlobalMaxPool2d, &[at.input()])
    }

    fn work(&self, inputs: &[&[usize]], _output: &[usize]) -> u64 {
        super::product(inputs[0])
    }
}
