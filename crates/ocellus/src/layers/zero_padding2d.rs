//! Rows and columns of zeros around an image.

use super::window::{Pair, shape_text};
use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Deserializer, Serialize};

/// Surrounds an image (height, width, channels) with zeros. Before a convolution with `valid` padding it costs nothing: the
/// convolution takes the zeros over.
///
/// With [`Padding::Same`](super::Padding::Same) a convolution with strides of 2 looks at other pixels than PyTorch's with
/// `padding=1`, which has the same border on all sides; this layer gives that one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZeroPadding2d {
    /// Rows above and below, columns to the left and to the right.
    #[serde(deserialize_with = "sides")]
    pub padding: [[usize; 2]; 2],
}

/// More than this on one side is taken for damage.
const MOST: usize = 1 << 16;

impl ZeroPadding2d {
    /// So many rows above and below and columns on both sides: one number for all, or one for rows and one for columns.
    pub fn new(padding: impl Into<Pair>) -> Self {
        let [rows, columns] = padding.into().0;
        ZeroPadding2d { padding: [[rows; 2], [columns; 2]] }
    }

    /// `[[top, bottom], [left, right]]`
    pub fn sides(padding: [[usize; 2]; 2]) -> Self {
        ZeroPadding2d { padding }
    }
}

/// As in Keras, one number, one for rows and one for columns, or one for each side.
fn sides<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[[usize; 2]; 2], D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a whole number, two, or [[top, bottom], [left, right]]")]
    enum Sides {
        All(usize),
        Axes([usize; 2]),
        Each([[usize; 2]; 2]),
    }
    Ok(match Sides::deserialize(deserializer)? {
        Sides::All(n) => [[n; 2]; 2],
        Sides::Axes([rows, columns]) => [[rows; 2], [columns; 2]],
        Sides::Each(padding) => padding,
    })
}

impl Layer for ZeroPadding2d {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let &[height, width, channels] = inputs[0] else {
            return Err(format!("expected an image (height, width, channels), received {}", shape_text(inputs[0])));
        };
        let [rows, columns] = self.padding;
        if let Some(&most) = rows.iter().chain(&columns).find(|&&n| n > MOST) {
            return Err(format!("expected a padding of at most {MOST}, received {most}"));
        }
        Ok(vec![height + rows[0] + rows[1], width + columns[0] + columns[1], channels])
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let [[top, bottom], [left, right]] = self.padding;
        at.graph.add(ops::ZeroPad2d { padding: [top, bottom, left, right] }, &[at.input()])
    }
}
