//! Windows that slide over an image: how large, how far apart, and how the border is padded.

use serde::{Deserialize, Deserializer, Serialize};

/// Height and width, from one number for both or from two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub [usize; 2]);

impl From<usize> for Pair {
    fn from(both: usize) -> Self {
        Pair([both, both])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(pair: [usize; 2]) -> Self {
        Pair(pair)
    }
}

impl From<(usize, usize)> for Pair {
    fn from((height, width): (usize, usize)) -> Self {
        Pair([height, width])
    }
}

/// In files, too, one number stands for both.
pub(crate) fn pair<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[usize; 2], D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected one or two whole numbers of at least 0")]
    enum OneOrTwo {
        One(usize),
        Two([usize; 2]),
    }
    Ok(match OneOrTwo::deserialize(deserializer)? {
        OneOrTwo::One(both) => [both; 2],
        OneOrTwo::Two(pair) => pair,
    })
}

/// As [`pair`], where there may be none.
pub(crate) fn optional_pair<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[usize; 2]>, D::Error> {
    pair(deserializer).map(Some)
}

/// What surrounds an image while a window slides over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Nothing: the window stays inside.
    #[default]
    Valid,
    /// So much that the output has `ceil(size / stride)` rows and columns; an odd row or column is added at the bottom
    /// or the right, as in TensorFlow.
    Same,
}

/// A window over height and width.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// What the errors call it: kernel or pool.
    pub(crate) what: &'static str,
    pub(crate) size: [usize; 2],
    pub(crate) strides: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) padding: Padding,
}

/// Where a window's results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Rows and columns of the output.
    pub(crate) output: [usize; 2],
    /// Rows and columns added: top, bottom, left, right.
    pub(crate) padding: [usize; 4],
}

/// Sizes beyond this are taken for damage: products of two of them still fit in 64 bits.
const LARGEST: usize = 1 << 31;

impl Window {
    /// Lays the window over an image of shape (height, width, channels).
    pub(crate) fn place(&self, image: &[usize]) -> Result<Placed, String> {
        let &[height, width, _] = image else {
            return Err(format!("expected an image (height, width, channels), received {}", shape_text(image)));
        };
        for (name, pair) in [(self.what, self.size), ("strides", self.strides), ("dilation_rate", self.dilation)] {
            if pair.iter().any(|&n| n == 0 || n >= LARGEST) {
                return Err(format!("expected {name} of at least 1, received {}x{}", pair[0], pair[1]));
            }
        }
        let mut placed = Placed { output: [0; 2], padding: [0; 4] };
        for (axis, size) in [height, width].into_iter().enumerate() {
            let (output, before, after) = self.place_axis(axis, size).ok_or_else(|| self.too_large(height, width))?;
            placed.output[axis] = output;
            placed.padding[2 * axis] = before;
            placed.padding[2 * axis + 1] = after;
        }
        Ok(placed)
    }

    /// Rows the window reaches over along one axis.
    fn extent(&self, axis: usize) -> usize {
        self.dilation[axis].saturating_mul(self.size[axis] - 1).saturating_add(1)
    }

    fn place_axis(&self, axis: usize, size: usize) -> Option<(usize, usize, usize)> {
        let (extent, stride) = (self.extent(axis), self.strides[axis]);
        match self.padding {
            Padding::Valid => Some((size.checked_sub(extent)? / stride + 1, 0, 0)),
            Padding::Same => {
                let output = size.div_ceil(stride);
                let total = ((output.max(1) - 1) * stride).saturating_add(extent).saturating_sub(size);
                // A window many times the image's size is a mistake, and its border would fill the memory.
                (extent <= 8 * size + 64 && output > 0).then_some((output, total / 2, total - total / 2))
            }
        }
    }

    fn too_large(&self, height: usize, width: usize) -> String {
        let (rows, columns) = (self.extent(0), self.extent(1));
        let dilated = if self.dilation == [1, 1] { "" } else { " with its dilation" };
        format!(
            "the {} covers {rows}x{columns}{dilated}, more than its input of {height}x{width}; \
             use padding \"same\", a smaller one, or fewer poolings before it",
            self.what
        )
    }
}

/// A shape as errors show it: `28x28x1`.
pub(crate) fn shape_text(shape: &[usize]) -> String {
    if shape.is_empty() {
        return "a scalar".into();
    }
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        size: usize,
        window: usize,
        stride: usize,
        dilation: usize,
        padding: Padding,
        expected: Option<[usize; 3]>,
    ) {
        let window =
            Window { what: "kernel", size: [window; 2], strides: [stride; 2], dilation: [dilation; 2], padding };
        let placed = window.place(&[size, size, 3]).ok().map(|p| [p.output[0], p.padding[0], p.padding[1]]);
        assert_eq!(placed, expected, "{size} {window:?}");
    }

    #[test]
    fn places_as_tensorflow() {
        use Padding::*;
        check(28, 3, 1, 1, Valid, Some([26, 0, 0]));
        check(28, 2, 2, 1, Valid, Some([14, 0, 0]));
        check(11, 2, 2, 1, Valid, Some([5, 0, 0]));
        check(3, 3, 1, 1, Valid, Some([1, 0, 0]));
        check(2, 3, 1, 1, Valid, None);
        check(4, 3, 1, 2, Valid, None);
        check(17, 3, 2, 1, Same, Some([9, 1, 1]));
        check(14, 3, 2, 1, Same, Some([7, 0, 1]));
        check(14, 3, 1, 2, Same, Some([14, 2, 2]));
        check(5, 1, 3, 1, Same, Some([2, 0, 0]));
        check(0, 1, 1, 1, Same, None);
        check(8, 0, 1, 1, Valid, None);
        check(8, 1, 0, 1, Valid, None);
        check(8, usize::MAX, 1, 1, Same, None);
        check(8, 1 << 30, 1, 1 << 30, Valid, None);
    }

    #[test]
    fn errors_say_what_was_received() {
        let window =
            Window { what: "kernel", size: [5, 3], strides: [1; 2], dilation: [1; 2], padding: Padding::Valid };
        let error = window.place(&[3, 3, 64]).unwrap_err();
        assert!(error.starts_with("the kernel covers 5x3, more than its input of 3x3"), "{error}");
        let error = window.place(&[64]).unwrap_err();
        assert_eq!(error, "expected an image (height, width, channels), received 64");
    }
}
