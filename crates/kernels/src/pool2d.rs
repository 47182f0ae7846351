//! Max and average pooling over windows, and over all pixels, of `[samples][height][width][channels]`.
//!
//! Vectors run over channels. Padding is never a maximum and is not counted in an average, as in TensorFlow.

mod adaptive;
mod average;
mod global;
mod max;

pub use adaptive::{AdaptiveShape, adaptive_average_backward, adaptive_average_forward};
pub use average::{average_backward, average_forward};
pub use global::{global_average_backward, global_average_forward, global_max_backward, global_max_forward};
pub use max::{max_backward, max_forward};

use std::ops::Range;

/// The geometry of a pooling operation, of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// Height, width, channels.
    pub input: [usize; 3],
    /// Height and width of the window.
    pub size: [usize; 2],
    /// Rows and columns from one window to the next.
    pub strides: [usize; 2],
    /// Rows and columns added at top, bottom, left and right; each less than the window's size.
    pub padding: [usize; 4],
}

impl PoolShape {
    /// Height, width and channels of the output; windows that would pass the padded edge are left out.
    pub fn output(&self) -> [usize; 3] {
        let [height, width, channels] = self.input;
        let [top, bottom, left, right] = self.padding;
        let windows = |len: usize, size: usize, stride: usize| if len < size { 0 } else { (len - size) / stride + 1 };
        [
            windows(height + top + bottom, self.size[0], self.strides[0]),
            windows(width + left + right, self.size[1], self.strides[1]),
            channels,
        ]
    }

    /// The pooling that gives only some rows of the output, and the rows of the image that it takes.
    pub fn some_rows(&self, output: Range<usize>) -> (PoolShape, Range<usize>) {
        let first = output.start * self.strides[0];
        let end = (output.end.max(1) - 1) * self.strides[0] + self.size[0];
        let (top, height) = (self.padding[0], self.input[0]);
        let rows = first.saturating_sub(top)..end.saturating_sub(top).min(height);
        let (before, after) = (top.saturating_sub(first), end.saturating_sub(top + height));
        let padding = [before, after, self.padding[2], self.padding[3]];
        let input = [rows.len(), self.input[1], self.input[2]];
        (PoolShape { input, padding, ..*self }, rows)
    }

    fn input_len(&self) -> usize {
        self.input.iter().product()
    }

    fn output_len(&self) -> usize {
        self.output().iter().product()
    }

    /// Checks the geometry and the lengths of the slices.
    fn check(&self, samples: usize, input: usize, output: usize) {
        let [top, bottom, left, right] = self.padding;
        assert!(self.size.iter().all(|&n| n > 0) && self.strides.iter().all(|&n| n > 0), "{self:?}");
        assert!(top.max(bottom) < self.size[0] && left.max(right) < self.size[1], "a window in the padding: {self:?}");
        assert_eq!(input, samples * self.input_len());
        assert_eq!(output, samples * self.output_len());
    }

    /// The input rows of output row `y` that lie in the image, and which row of the window the first of them is.
    #[inline(always)]
    fn rows(&self, y: usize) -> (Range<usize>, usize) {
        clip(y * self.strides[0], self.padding[0], self.size[0], self.input[0])
    }

    /// As [`rows`](Self::rows), for columns.
    #[inline(always)]
    fn columns(&self, x: usize) -> (Range<usize>, usize) {
        clip(x * self.strides[1], self.padding[2], self.size[1], self.input[1])
    }

    /// Whether every input value lies in exactly one window, so that a gradient can be written and not added.
    fn is_partition(&self) -> bool {
        let [height, width, _] = self.output();
        self.size == self.strides
            && self.padding == [0; 4]
            && [height * self.size[0], width * self.size[1]] == [self.input[0], self.input[1]]
    }
}

#[inline(always)]
fn clip(start: usize, before: usize, size: usize, len: usize) -> (Range<usize>, usize) {
    let first = start.max(before) - before;
    let end = (start + size - before.min(start + size)).min(len);
    (first..end, first + before - start)
}

#[cfg(test)]
mod tests;
