//! A depthwise convolution some rows of its output at a time, where the image is made on the way: rows that it reads are made in the
//! second-level cache, and those that the next rows need again are kept.

use super::depthwise_tile::Windows;
use std::ops::Range;

/// How a depthwise convolution is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bands {
    windows: Windows,
    /// Rows of the output that are computed together.
    rows: usize,
    /// Rows of the image that are held.
    held: usize,
}

/// Some rows of the output, and what they are computed of.
pub(super) struct Band<'a> {
    /// The rows of the output.
    pub(super) rows: Range<usize>,
    /// The values of the image's rows that they read.
    pub(super) image: &'a [f32],
    /// The windows, as if these rows were an image.
    pub(super) windows: Windows,
}

impl Bands {
    /// Bands whose rows of the image take no more than so many bytes, or the fewest rows that are possible; so many of them are held one
    /// behind the other before the rows that the next one reads again are copied to the front.
    pub(super) fn new(windows: Windows, bytes: usize, held: usize) -> Self {
        let row = 4 * windows.input[1] * windows.pitch[0];
        let rows = (bytes / row.max(1)).saturating_sub(windows.kernel) / windows.stride + 1;
        // Two rows share what they read.
        let rows = rows.next_multiple_of(2).min(windows.output[0].next_multiple_of(2));
        let held = (held * rows - 1) * windows.stride + windows.kernel;
        Bands { windows, rows, held: held.min(windows.input[0]) }
    }

    pub(super) fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Values of the image that are held at once.
    pub(super) fn held_len(&self) -> usize {
        self.held * self.row_len()
    }

    /// Values in a row of the image.
    pub(super) fn row_len(&self) -> usize {
        self.windows.input[1] * self.windows.pitch[0]
    }

    /// Goes through these rows of the output: `make` writes rows of the image, each once, and `each` does what is to be done with a band.
    pub(super) fn sweep(
        &self,
        rows: Range<usize>,
        held: &mut [f32],
        mut make: impl FnMut(Range<usize>, &mut [f32]),
        mut each: impl FnMut(Band<'_>),
    ) {
        let row_len = self.row_len();
        // The rows that `held` holds, from its start on.
        let mut there = 0..0;
        for first in rows.clone().step_by(self.rows) {
            let rows = first..(first + self.rows).min(rows.end);
            let needed = self.input_rows(&rows);
            let kept = if there.contains(&needed.start) { there.end.min(needed.end) - needed.start } else { 0 };
            if kept == 0 || needed.end - there.start > self.held {
                if kept > 0 {
                    let from = (needed.start - there.start) * row_len;
                    held.copy_within(from..from + kept * row_len, 0);
                }
                there = needed.start..needed.start + kept;
            }
            let at = |row: usize| (row - there.start) * row_len;
            let made = needed.start + kept..needed.end;
            make(made.clone(), &mut held[at(made.start)..at(made.end)]);
            let image = at(needed.start)..at(needed.end);
            let top = (rows.start * self.windows.stride) as isize - self.windows.before[0];
            let windows = Windows {
                input: [needed.len(), self.windows.input[1]],
                output: [rows.len(), self.windows.output[1]],
                before: [needed.start as isize - top, self.windows.before[1]],
                ..self.windows
            };
            each(Band { rows, image: &held[image], windows });
            there.end = needed.end;
        }
    }

    /// The rows of the image that these rows of the output read.
    fn input_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let Windows { stride, kernel, before, input, .. } = self.windows;
        let inside = |row: isize| row.clamp(0, input[0] as isize) as usize;
        let start = inside((rows.start * stride) as isize - before[0]);
        let end = inside(((rows.end.max(1) - 1) * stride + kernel) as isize - before[0]);
        start..end.max(start)
    }
}
