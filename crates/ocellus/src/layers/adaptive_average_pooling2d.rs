//! Means of as many windows as are asked for.

use super::window::{Pair, pair, shape_text};
use super::{Build, Layer, product};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Brings an image to so many rows and columns by means of windows that cover it, of nearly equal size; an image of that size
/// stays as it is, and pixels of a smaller one are repeated. As PyTorch's `AdaptiveAvgPool2d`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveAveragePooling2d {
    /// Rows and columns of the output.
    #[serde(deserialize_with = "pair")]
    pub output_size: [usize; 2],
}

impl AdaptiveAveragePooling2d {
    /// So many rows and columns.
    pub fn new(output_size: impl Into<Pair>) -> Self {
        AdaptiveAveragePooling2d { output_size: output_size.into().0 }
    }
}

/// More than this is taken for damage.
const MOST: usize = 1 << 16;

impl Layer for AdaptiveAveragePooling2d {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let &[_, _, channels] = inputs[0] else {
            return Err(format!("expected an image (height, width, channels), received {}", shape_text(inputs[0])));
        };
        let [rows, columns] = self.output_size;
        if self.output_size.iter().any(|&n| n == 0 || n > MOST) {
            return Err(format!("expected an output_size of 1 to {MOST}, received {rows}x{columns}"));
        }
        Ok(vec![rows, columns, channels])
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        if at.graph.shape(at.input())[..2] == self.output_size {
            return Ok(at.input());
        }
        at.graph.add(ops::AdaptiveAveragePool2d { output: self.output_size }, &[at.input()])
    }

    fn work(&self, inputs: &[&[usize]], output: &[usize]) -> u64 {
        product(inputs[0]).saturating_add(product(output))
    }
}
