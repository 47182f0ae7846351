//! Pixels brought to another range.

use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// `x * scale + offset`, for example from 0..255 to 0..1. Takes pixels as bytes or numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rescaling {
    /// The factor.
    pub scale: f32,
    /// What is added after multiplying.
    #[serde(default)]
    pub offset: f32,
}

impl Rescaling {
    /// Multiplies by this.
    pub fn new(scale: f32) -> Self {
        Rescaling { scale, offset: 0.0 }
    }

    /// What is added after multiplying; 0 by default.
    pub fn offset(self, offset: f32) -> Self {
        Rescaling { offset, ..self }
    }
}

impl Layer for Rescaling {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn takes_pixels(&self) -> bool {
        true
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        if !(self.scale.is_finite() && self.offset.is_finite()) {
            return Err(format!("expected finite numbers, received scale {} and offset {}", self.scale, self.offset));
        }
        Ok(inputs[0].to_vec())
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        at.graph.add(ops::Affine { scale: vec![self.scale], offset: vec![self.offset] }, &[at.input()])
    }
}
