//! The same values under another shape.

use super::window::shape_text;
use super::{Build, Layer, product};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Gives the values another shape, in the order in which they lie (row by row, channels innermost). One axis may be -1: as long as
/// the values make it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reshape {
    /// The shape, without the batch.
    pub target_shape: Vec<isize>,
}

impl Reshape {
    /// This shape.
    pub fn new(target_shape: impl Into<Vec<isize>>) -> Self {
        Reshape { target_shape: target_shape.into() }
    }

    fn shape(&self, input: &[usize]) -> Option<Vec<usize>> {
        let known = self.target_shape.iter().filter(|&&n| n != -1);
        let known: Vec<usize> = known.map(|&n| usize::try_from(n).ok()).collect::<Option<_>>()?;
        let (values, rest) = (product(input), product(&known));
        let free = self.target_shape.len() - known.len();
        if rest == 0 || free > 1 || (free == 0 && rest != values) || !values.is_multiple_of(rest) {
            return None;
        }
        let free = usize::try_from(values / rest).ok()?;
        Some(self.target_shape.iter().map(|&n| usize::try_from(n).unwrap_or(free)).collect())
    }
}

impl Layer for Reshape {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        self.shape(inputs[0]).ok_or_else(|| {
            let (from, to) = (shape_text(inputs[0]), &self.target_shape);
            format!("expected a target_shape of as many values as its input, received {to:?} for {from}")
        })
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let shape = self.output_shape(&[at.graph.shape(at.input())]).map_err(GraphError::Plan)?;
        at.graph.add(ops::Reshape { shape }, &[at.input()])
    }
}
