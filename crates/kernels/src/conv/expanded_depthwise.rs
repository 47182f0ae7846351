//! A 1x1 convolution and the depthwise convolution behind it, some rows at a time: the rows between them stay in the second-level cache.
//!
//! An inverted residual block (Sandler et al., "MobileNetV2", 2018) widens the image several times for its depthwise convolution, to
//! more than a cache holds in the first layers.

use super::depthwise::is_depthwise;
use super::depthwise_bands::Bands;
use super::depthwise_tile::{Layout, Tiles, Windows};
use super::geometry::is_cold;
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
    bands: Bands,
    level: Level,
    /// Whether a sample's outputs are too many for a second-level cache.
    cold: bool,
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
        let bands = Bands::new(windows, BAND_BYTES);
        let expand = Forward::new(expand, level, Precision::F32).into_cache();
        ExpandedDepthwise { expand, bands, level, cold: is_cold(depthwise.output_len()) }
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
        self.bands.held_len() + self.expand.scratch_len(1)
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
        let (between, scratch) = scratch[..self.scratch_len()].split_at_mut(self.bands.held_len());
        let (unit, row_len) = (self.unit(), self.bands.row_len());
        let make = |rows: Range<usize>, to: &mut [f32]| {
            let piece = Extent::Piece(rows.start * row_len..rows.end * row_len);
            self.expand.run(piece, x, expand, Sums::New(to.into()), scratch);
        };
        self.bands.sweep(rows.clone(), between, make, |band| {
            Tiles {
                windows: &band.windows,
                rows: 0..band.rows.len(),
                samples: 1,
                x: band.image,
                weights: depthwise.packed,
                layout: Layout::Plain,
                bias: depthwise.bias,
                epilogue: depthwise.epilogue,
                cold: self.cold,
                y: &mut y[(band.rows.start - rows.start) * unit..(band.rows.end - rows.start) * unit],
            }
            .run_on(self.level);
        });
    }
}
