//! The weight gradient by products of bf16 pairs: pairs of output pixels, which the reduction runs over.
//!
//! For some pixels at a time, gradients are joined by pairs once, and for each tap the input pixels that it multiplied; the rest is one
//! matrix product for each tap. Joining costs little beside it, since each joined value is used for every filter.

use super::geometry::{LINE, Segment, Source, forward_taps, window_offset};
use super::pack::TileSize;
use super::tile::{Columns, Product, Reduction, Rows};
use super::{ConvShape, Epilogue};
use crate::Level;
use crate::isa::{Isa, Kernel};

/// Pairs of pixels that are joined together: enough to be worth loading the sums for, while one panel of gradients stays in the
/// first-level cache.
const BLOCK: usize = 128;

/// The plan: offsets and sizes.
#[derive(Clone, Debug)]
pub(super) struct PairedWeights {
    shape: ConvShape,
    level: Level,
    source: Source,
    /// Where each tap lies in a window.
    taps: Vec<usize>,
    /// Where each output pixel's window starts, and where its gradients are.
    windows: Vec<u32>,
    pixels: Vec<u32>,
    /// Channels and filters in whole vectors.
    padded_channels: usize,
    padded_filters: usize,
    /// Where each channel starts in a joined pixel, and each row of the gradient in `dw`.
    channels: Vec<u32>,
    rows: Vec<u32>,
}

impl PairedWeights {
    /// The plan, for a convolution of one group.
    pub(super) fn new(shape: ConvShape, level: Level) -> Self {
        let size = TileSize::of(level);
        let ([height, width, filters], channels) = (shape.output(), shape.input[2]);
        let source = Source::of_input(&shape);
        let pixels = 0..height * width;
        PairedWeights {
            shape,
            level,
            taps: forward_taps(&shape, &source).iter().map(|tap| tap.offset).collect(),
            windows: pixels.clone().map(|p| window_offset(&shape, &source, p / width, p % width)).collect(),
            pixels: pixels.map(|p| (p * filters) as u32).collect(),
            padded_channels: size.padded(channels),
            padded_filters: size.padded(filters),
            channels: (0..channels as u32).collect(),
            rows: (0..shape.taps() * channels).map(|row| (row * filters) as u32).collect(),
            source,
        }
    }

    fn parts(&self) -> [usize; 2] {
        [self.padded_channels, self.padded_filters].map(|n| (BLOCK * n).next_multiple_of(LINE))
    }

    pub(super) fn scratch_len(&self, samples: usize) -> usize {
        self.source.scratch_len(samples) + self.parts().iter().sum::<usize>()
    }

    /// Sums the gradient of at least one sample with at least one output pixel.
    pub(super) fn run(
        &self,
        samples: usize,
        x: &[f32],
        dy: &[f32],
        dw: &mut [f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) {
        let [inputs, gradients] = self.parts();
        let (inputs, scratch) = scratch.split_at_mut(inputs);
        let (gradients, scratch) = scratch.split_at_mut(gradients);
        let x = self.source.prepare(samples, x, scratch);
        let (channels, filters) = (self.channels.len(), self.shape.filters);
        let total = samples * self.pixels.len();
        for first in (0..total).step_by(2 * BLOCK) {
            let count = (2 * BLOCK).min(total - first);
            let segments = [Segment { a: 0, k: 0, len: count.div_ceil(2) }];
            self.level.dispatch_bf16(Join {
                offsets: &self.pixels,
                stride: self.shape.output_len(),
                first,
                count,
                from: dy,
                width: filters,
                pitch: self.padded_filters,
                to: &mut *gradients,
            });
            for (tap, &offset) in self.taps.iter().enumerate() {
                self.level.dispatch_bf16(Join {
                    offsets: &self.windows,
                    stride: self.source.sample(),
                    first,
                    count,
                    from: &x[offset..],
                    width: channels,
                    pitch: self.padded_channels,
                    to: &mut *inputs,
                });
                let rows = &self.rows[tap * channels..][..channels];
                Product {
                    rows: Rows { input: &self.channels, output: rows, samples: 1, input_stride: 0, output_stride: 0 },
                    reduction: Reduction {
                        segments: &segments,
                        step: self.padded_channels,
                        repeat: 1,
                        a_stride: 0,
                        k_stride: 0,
                    },
                    a: &*inputs,
                    b: &*gradients,
                    layout: Columns::Plain { pitch: self.padded_filters },
                    columns: filters,
                    bias: None,
                    epilogue: Epilogue::Linear,
                    accumulate: accumulate || first > 0,
                    cold: false,
                    moments: None,
                    out: &mut *dw,
                }
                .run_pairs_on(self.level);
            }
        }
    }
}

/// Joins rows of values by pairs of rows; the last row's partner may be zero.
struct Join<'a> {
    /// Where the rows of one sample start, and from one sample to the next.
    offsets: &'a [u32],
    stride: usize,
    /// Which rows, counted over all samples.
    first: usize,
    count: usize,
    from: &'a [f32],
    /// Values of a row, and slots from one pair of rows to the next.
    width: usize,
    pitch: usize,
    to: &'a mut [f32],
}

impl Kernel for Join<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Join { offsets, stride, first, count, from, width, pitch, to } = self;
        let greatest = offsets.iter().copied().max().unwrap_or(0) as usize;
        let last = (first + count - 1) / offsets.len();
        assert!(greatest + last * stride + width <= from.len(), "rows inside the source");
        assert!(count.div_ceil(2) * pitch <= to.len() && width.next_multiple_of(I::LANES) <= pitch, "room for rows");
        let (mut sample, mut row) = (first / offsets.len(), first % offsets.len());
        for pair in 0..count.div_ceil(2) {
            let alone = 2 * pair + 1 == count;
            let mut at = [0; 2];
            for at in &mut at[..2 - usize::from(alone)] {
                *at = offsets[row] as usize + sample * stride;
                row += 1;
                if row == offsets.len() {
                    (sample, row) = (sample + 1, 0);
                }
            }
            for column in (0..width).step_by(I::LANES) {
                let mask = isa.first(width - column);
                // SAFETY: the rows are inside the source, the mask ends at their width, and a row of pairs has whole vectors.
                unsafe {
                    let (even, odd) = (from.as_ptr().add(at[0] + column), from.as_ptr().add(at[1] + column));
                    let (even, odd) = if width - column >= I::LANES {
                        (isa.load(even), isa.load(odd))
                    } else {
                        (isa.load_masked(mask, even), isa.load_masked(mask, odd))
                    };
                    let odd = if alone { isa.zero() } else { odd };
                    isa.store(to.as_mut_ptr().add(pair * pitch + column), isa.pair(even, odd));
                }
            }
        }
    }
}
