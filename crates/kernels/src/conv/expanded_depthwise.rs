//! A 1x1 convolution and the depthwise convolution behind it, some channels of some rows at a time: what is between them stays in the
//! first-level cache, or near it.
//!
//! An inverted residual block (Sandler et al., "MobileNetV2", 2018) widens the image several times for its depthwise convolution, to
//! more than a cache holds in the first layers. No channel of the wide image needs another one, so that a panel of the 1x1 convolution's
//! weights makes all that a depthwise convolution of as many channels reads.

use super::depthwise::is_depthwise;
use super::depthwise_bands::Bands;
use super::depthwise_tile::{Layout, Tiles, Windows};
use super::forward::forward_matrix;
use super::geometry::{Segment, Tap, is_cold};
use super::pack::{Matrix, TileSize};
use super::tile::{Columns, Product, Reduction, Rows};
use super::{ConvShape, ConvWeights};
use crate::{Level, Packing, Pool};
use std::ops::Range;

/// Bytes of a panel's rows between both, a small part of a second-level cache: with fewer rows more of them are kept from one band for the next.
const BAND_BYTES: usize = 96 << 10;

/// Bands one behind the other, still a part of that cache.
const HELD_BANDS: usize = if cfg!(test) { 2 } else { 3 };

/// Bytes between both from which they are computed together.
const LEAST_BYTES: usize = 512 << 10;

/// Both convolutions.
#[derive(Clone, Debug)]
pub struct ExpandedDepthwise {
    shape: ConvShape,
    matrix: Matrix,
    size: TileSize,
    /// Of the channels of one panel.
    bands: Bands,
    level: Level,
    /// Whether a sample's outputs are too many for a second-level cache.
    cold: bool,
}

/// Of the weights of the 1x1 convolution.
impl Packing for ExpandedDepthwise {
    fn packed_len(&self) -> usize {
        self.matrix.group_len(1, self.size)
    }

    fn pack(&self, pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        self.matrix.pack(self.level, pool, &[Tap { offset: 0, position: 0 }], weights, packed, false);
    }
}

impl ExpandedDepthwise {
    /// Whether there is something to gain.
    pub fn suits(expand: &ConvShape, depthwise: &ConvShape) -> bool {
        expand.is_pointwise()
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
        let size = TileSize::of(level);
        let windows = Windows { channels: size.columns, pitch: [size.columns, depthwise.filters], ..windows };
        ExpandedDepthwise {
            shape: expand,
            matrix: forward_matrix(&expand),
            size,
            bands: Bands::new(windows, BAND_BYTES, HELD_BANDS),
            level,
            cold: is_cold(depthwise.output_len()),
        }
    }

    /// Values that [`run`](Self::run) needs besides; what they hold does not matter.
    pub fn scratch_len(&self) -> usize {
        self.bands.held_len()
    }

    /// Values in a row of the output, the smallest piece of it.
    pub fn unit(&self) -> usize {
        self.bands.windows().row_len()
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
        let rows = self.bands.windows().output[0];
        let (x_len, y_len) = (x.len() / samples.max(1), rows * self.unit());
        assert_eq!(y.len(), samples * y_len, "outputs of every pixel");
        for sample in 0..samples {
            let x = &x[sample * x_len..(sample + 1) * x_len];
            self.run_rows(0..rows, x, expand, depthwise, &mut y[sample * y_len..(sample + 1) * y_len], scratch);
        }
    }

    /// Some rows of one sample's output, the same to the bit as [`run`](Self::run) computes them.
    pub fn run_rows<'a>(
        &self,
        rows: Range<usize>,
        x: &[f32],
        expand: ConvWeights<'a>,
        depthwise: ConvWeights<'a>,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        assert_eq!(y.len(), rows.len() * self.unit(), "outputs of these rows");
        let ([_, width, depth], channels, unit) = (self.shape.input, self.shape.filters, self.unit());
        let segments = [Segment { a: 0, k: 0, len: depth }];
        for first in (0..channels).step_by(self.size.columns) {
            let columns = self.size.columns.min(channels - first);
            let bias = |weights: ConvWeights<'a>| weights.bias.map(|bias| &bias[first..]);
            let make = |rows: Range<usize>, to: &mut [f32]| {
                let pixels = rows.len() * width;
                Product {
                    rows: Rows {
                        input: &[0],
                        output: &[0],
                        samples: pixels,
                        input_stride: depth,
                        output_stride: self.size.columns,
                    },
                    reduction: Reduction::once(&segments),
                    a: &x[rows.start * width * depth..rows.end * width * depth],
                    b: &expand.packed[first * depth..],
                    layout: Columns::Packed { depth },
                    columns,
                    bias: bias(expand),
                    epilogue: expand.epilogue,
                    accumulate: false,
                    cold: false,
                    moments: None,
                    out: to,
                }
                .run_on(self.level);
            };
            self.bands.sweep(rows.clone(), &mut scratch[..self.scratch_len()], make, |band| {
                Tiles {
                    windows: &Windows { channels: columns, ..band.windows },
                    rows: 0..band.rows.len(),
                    samples: 1,
                    x: band.image,
                    weights: &depthwise.packed[first..],
                    layout: Layout::Plain { channels },
                    bias: bias(depthwise),
                    epilogue: depthwise.epilogue,
                    cold: self.cold,
                    y: &mut y[(band.rows.start - rows.start) * unit + first..(band.rows.end - rows.start) * unit],
                }
                .run_on(self.level);
            });
        }
    }
}
