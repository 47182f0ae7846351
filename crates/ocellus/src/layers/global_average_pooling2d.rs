//! The mean of each channel.

use super::window::shape_text;
use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Takes the mean of each channel: (height, width, channels) becomes (channels), or (1, 1, channels) with `keepdims`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalAveragePooling2d {
    /// Whether an image of one pixel comes out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keepdims: bool,
}

impl GlobalAveragePooling2d {
    /// The layer with Keras' defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an image of one pixel comes out; by default the channels alone do.
    pub fn keepdims(self, keepdims: bool) -> Self {
        GlobalAveragePooling2d { keepdims }
    }
}

impl Layer for GlobalAveragePooling2d {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [_, _, channels] if self.keepdims => Ok(vec![1, 1, channels]),
            [_, _, channels] => Ok(vec![channels]),
            ref other => Err(format!("expected an image (height, width, channels), received {}", shape_text(other))),
        }
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let y = at.graph.add(ops::GlobalAveragePool2d, &[at.input()])?;
        if !self.keepdims {
            return Ok(y);
        }
        let shape = vec![1, 1, at.graph.shape(y)[0]];
        at.graph.add(ops::Reshape { shape }, &[y])
    }

    fn work(&self, inputs: &[&[usize]], _output: &[usize]) -> u64 {
        super::product(inputs[0])
    }
}
