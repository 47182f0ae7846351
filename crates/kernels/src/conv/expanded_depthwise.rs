//! A 1x1 convolution and the depthwise convolution behind it, some rows at a time: the rows between them stay in the second-level cache.
//!
//! An inverted residual block (Sandler et al., "MobileNetV2", 2018) widens the image several times for its depthwise convolution, to
//! more than a cache holds in the first layers.

use super::depthwise::is_depthwise;
use super::depthwise_tile::{Layout, Tiles, Windows};
use super::{ConvShape, ConvWeights, Extent, Forward, Sums};
use crate::{Level, Pool, Precision};
use std::ops::Range;

/// Bytes of the rows between both: less than half of a common second-level cache.
const BAND_BYTES: usize = 384 << 10;

/// Bytes between both from which they are computed together.
const LEAST_BYTES: usize = 512 << 10;

/// Both convolutions.
#[derive(Clone, Debug)]
pub struct ExpandedDepthwise {
    expand: Forward,
    windows: Windows,
    level: Level,
    /// Rows of the output that are computed together.
    band: usize,
}

impl ExpandedDepthwise {
    /// Whether there is something to gain.
    pub fn suits(expand: &ConvShape, depthwise: &ConvShape) -> bool {
        expand.kernel == [1, 1]
            && expand.strides == [1, 1]
            && expand.padding == [0; 4]
            && expand.groups == 1
            && expand.output() == depthwise.input
            && is_depthwise(depthwise)
            && Windows::of_input(depthwise).is_some()
            && depthwise.output_len() > 0
            && 4 * expand.output_len() > LEAST_BYTES
    }

    /// Lays out the convolutions of those shapes, which [`suits`](Self::suits) has found good.
    ///
    /// # Panics
    /// Where it has not.
    pub fn new(expand: ConvShape, depthwise: ConvShape, level: Level) -> Self {
        assert!(ExpandedDepthwise::suits(&expand, &depthwise), "{expand:?} and {depthwise:?}");
        let windows = Windows::of_input(&depthwise).expect("it suits");
        let row = 4 * windows.input[1] * windows.channels;
        let rows = (BAND_BYTES / row).saturating_sub(windows.kernel) / windows.stride + 1;
        // Two rows share what they read.
        let band = rows.next_multiple_of(2).min(windows.output[0].next_multiple_of(2));
        ExpandedDepthwise { expand: Forward::new(expand, level, Precision::F32), windows, level, band }
    }

    /// Values that [`pack`](Self::pack) writes.
    pub fn packed_len(&self) -> usize {
        self.expand.packed_len()
    }

    /// Brings the weights of the 1x1 convolution into the order that [`run`](Self::run) reads.
    pub fn pack(&self, pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        self.expand.pack(pool, weights, packed);
    }

    /// Values that [`run`](Self::run) needs besides; what they hold does not matter.
    pub fn scratch_len(&self) -> usize {
        let rows = (self.band - 1) * self.windows.stride + self.windows.kernel;
        rows.min(self.windows.input[0]) * self.row_len() + self.expand.scratch_len(1)
    }

    /// Values in a row of the output, the smallest piece of it.
    pub fn unit(&self) -> usize {
        self.windows.row_len()
    }

    /// Values in a row between both.
    fn row_len(&self) -> usize {
        self.windows.input[1] * self.windows.channels
    }

    /// Convolves `samples` images `x` into `y`. The depthwise weights are as they are, `[tap][channel]`.
    pub fn run(
        &self,
        samples: usize,
        x: &[f32],
        expand: ConvWeights<'_>,
        depthwise: ConvWeights<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        let rows = self.windows.output[0];
        let (x_len, y_len) = (x.len() / samples.max(1), rows * self.unit());
        assert_eq!(y.len(), samples * y_len, "outputs of every pixel");
        for sample in 0..samples {
            let x = &x[sample * x_len..(sample + 1) * x_len];
            self.run_rows(0..rows, x, expand, depthwise, &mut y[sample * y_len..(sample + 1) * y_len], scratch);
        }
    }

    /// Some rows of one sample's output, the same to the bit as [`run`](Self::run) computes them.
    pub fn run_rows(
        &self,
        rows: Range<usize>,
        x: &[f32],
        expand: ConvWeights<'_>,
        depthwise: ConvWeights<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        assert_eq!(y.len(), rows.len() * self.unit(), "outputs of these rows");
        let row_len = self.row_len();
        let (between, scratch) =
            scratch[..self.scratch_len()].split_at_mut(self.scratch_len() - self.expand.scratch_len(1));
        // The rows that `between` holds.
        let mut held = 0..0;
        for first in rows.clone().step_by(self.band) {
            let band = first..(first + self.band).min(rows.end);
            let needed = self.input_rows(&band);
            let kept = if held.contains(&needed.start) { held.end.min(needed.end) - needed.start } else { 0 };
            if kept > 0 {
                let from = (needed.start - held.start) * row_len;
                between.copy_within(from..from + kept * row_len, 0);
            }
            let new = (needed.start + kept) * row_len..needed.end * row_len;
            let to = &mut between[kept * row_len..needed.len() * row_len];
            self.expand.run(Extent::Piece(new), x, expand, Sums::New(to.into()), scratch);
            let top = (band.start * self.windows.stride) as isize - self.windows.before[0];
            let windows = Windows {
                input: [needed.len(), self.windows.input[1]],
                output: [band.len(), self.windows.output[1]],
                before: [needed.start as isize - top, self.windows.before[1]],
                ..self.windows
            };
            let unit = self.unit();
            Tiles {
                windows: &windows,
                rows: 0..band.len(),
                samples: 1,
                x: &between[..needed.len() * row_len],
                weights: depthwise.packed,
                layout: Layout::Plain,
                bias: depthwise.bias,
                epilogue: depthwise.epilogue,
                y: &mut y[(band.start - rows.start) * unit..(band.end - rows.start) * unit],
            }
            .run_on(self.level);
            held = needed;
        }
    }

    /// The rows between both that these rows of the output read.
    fn input_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let Windows { stride, kernel, before, input, .. } = self.windows;
        let inside = |row: isize| row.clamp(0, input[0] as isize) as usize;
        let start = inside((rows.start * stride) as isize - before[0]);
        let end = inside(((rows.end.max(1) - 1) * stride + kernel) as isize - before[0]);
        start..end.max(start)
    }
}
