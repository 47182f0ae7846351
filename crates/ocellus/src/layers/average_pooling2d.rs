//! The mean of each window.

use super::window::{Window, optional_pair, pair};
use super::{Build, Layer, Padding, Pair};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Takes the mean of each window, channel by channel. Padding does not count.
///
/// Input (height, width, channels), output the same with fewer rows and columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AveragePooling2d {
    /// Rows and columns of the window.
    #[serde(deserialize_with = "pair")]
    pub pool_size: [usize; 2],
    /// Rows and columns between windows; where not given, the window's size.
    #[serde(default, deserialize_with = "optional_pair", skip_serializing_if = "Option::is_none")]
    pub strides: Option<[usize; 2]>,
    /// What surrounds the image.
    #[serde(default)]
    pub padding: Padding,
}

impl AveragePooling2d {
    /// Windows of this size, side by side.
    pub fn new(pool_size: impl Into<Pair>) -> Self {
        let Pair(pool_size) = pool_size.into();
        AveragePooling2d { pool_size, strides: None, padding: Padding::Valid }
    }

    /// Rows and columns between windows; the window's size by default.
    pub fn strides(self, strides: impl Into<Pair>) -> Self {
        AveragePooling2d { strides: Some(strides.into().0), ..self }
    }

    /// What surrounds the image; nothing by default.
    pub fn padding(self, padding: Padding) -> Self {
        AveragePooling2d { padding, ..self }
    }

    fn window(&self) -> Window {
        Window {
            what: "pool",
            size: self.pool_size,
            strides: self.strides.unwrap_or(self.pool_size),
            dilation: [1, 1],
            padding: self.padding,
        }
    }
}

impl Layer for AveragePooling2d {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [rows, columns] = self.window().place(inputs[0])?.output;
        Ok(vec![rows, columns, inputs[0][2]])
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let window = self.window();
        let padding = at.place(&window)?.padding;
        let op = ops::AveragePool2d { size: self.pool_size, strides: window.strides, padding };
        at.graph.add(op, &[at.input()])
    }

    fn work(&self, _inputs: &[&[usize]], output: &[usize]) -> u64 {
        super::product(output).saturating_mul(super::product(&self.pool_size))
    }
}
