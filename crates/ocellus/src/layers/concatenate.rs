//! Several inputs side by side.

use super::window::shape_text;
use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Puts two or more inputs one after the other along the last axis (the channels); the other axes must agree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concatenate {}

impl Concatenate {
    /// The layer; it has no arguments.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Layer for Concatenate {
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
        let Some((_, leading)) = inputs[0].split_last() else {
            return Err("expected at least one axis, received a scalar".into());
        };
        let mut channels = 0usize;
        for shape in inputs {
            match shape.split_last() {
                Some((last, others)) if others == leading => channels = channels.saturating_add(*last),
                _ => {
                    return Err(format!(
                        "expected inputs that differ in the last axis only, received {} and {}",
                        shape_text(inputs[0]),
                        shape_text(shape)
                    ));
                }
            }
        }
        Ok([leading, &[channels]].concat())
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        at.graph.add(ops::Concat, at.inputs)
    }
}
