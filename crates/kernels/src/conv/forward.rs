//! The convolution itself, with bias and activation applied before the sums leave the registers.

use super::depthwise::{self, Depthwise, is_depthwise};
use super::depthwise_tile::{Tiles, Windows};
use super::factors::rounds_to_pairs;
use super::geometry::{Segment, Source, Tap, forward_taps, segments, window_offset};
use super::pack::{Matrix, TileSize};
use super::tile::{Columns, Product, Reduction, Rows};
use super::winograd::{self, Output, Winograd};
use super::{ConvShape, Epilogue};
use crate::{Level, Pool, Precision};

/// `y = epilogue(convolution(x, weights) + bias)`.
#[derive(Clone, Debug)]
pub struct Forward {
    shape: ConvShape,
    level: Level,
    size: TileSize,
    source: Source,
    taps: Vec<Tap>,
    segments: Vec<Segment>,
    matrix: Matrix,
    /// Where each output pixel's window starts, and where its values go.
    windows: Vec<u32>,
    pixels: Vec<u32>,
    /// Whether the direct way multiplies pairs of bf16 values.
    pairs: bool,
    winograd: Option<Winograd>,
    depthwise: Option<Windows>,
}

/// How the weights of a forward pass become a matrix.
pub(super) fn forward_matrix(shape: &ConvShape) -> Matrix {
    let (channels, filters) = (shape.group_channels(), shape.group_filters());
    Matrix {
        channels,
        columns: filters,
        row_stride: shape.filters,
        column_stride: 1,
        tap_stride: channels * shape.filters,
        group_stride: filters,
        groups: shape.groups,
    }
}

/// The faster way for 3x3 kernels.
fn winograd(shape: &ConvShape, level: Level, precision: Precision) -> Option<Winograd> {
    let [height, width, filters] = shape.output();
    let before = [shape.padding[0] as isize, shape.padding[2] as isize];
    let suits = winograd::suits(shape, [height, width]);
    suits.then(|| Winograd::new(shape.input, before, [height, width], filters, level, precision))
}

impl Forward {
    /// Lays out the convolution of that shape.
    pub fn new(shape: ConvShape, level: Level, precision: Precision) -> Self {
        shape.check();
        let [height, width, filters] = shape.output();
        let pairs = rounds_to_pairs(&shape, shape.group_channels(), precision);
        let source = Source::of_input(&shape);
        let source = if pairs { source.in_pairs(level) } else { source };
        let taps = forward_taps(&shape, &source);
        let pixels = 0..height * width;
        Forward {
            shape,
            level,
            size: TileSize::of(level),
            segments: segments(&taps, source.channels / shape.groups),
            taps,
            matrix: forward_matrix(&shape),
            pairs,
            winograd: winograd(&shape, level, precision),
            depthwise: Windows::of_input(&shape),
            windows: pixels.clone().map(|p| window_offset(&shape, &source, p / width, p % width)).collect(),
            pixels: pixels.map(|p| (p * filters) as u32).collect(),
            source,
        }
    }

    /// Values that [`pack`](Self::pack) writes.
    pub fn packed_len(&self) -> usize {
        if let Some(winograd) = &self.winograd {
            return winograd.packed_len();
        }
        if is_depthwise(&self.shape) {
            return depthwise::packed_len(self.taps.len(), self.shape.groups, self.size.lanes);
        }
        self.shape.groups * self.matrix.group_len(self.taps.len(), self.size)
    }

    /// Brings `weights` (HWIO) into the order that [`run`](Self::run) reads.
    pub fn pack(&self, pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        assert_eq!(weights.len(), self.shape.weights_len(), "weights of {:?}", self.shape);
        if let Some(winograd) = &self.winograd {
            return winograd.pack(pool, &self.matrix, &self.taps, weights, packed);
        }
        if is_depthwise(&self.shape) {
            return depthwise::pack(&self.taps, self.shape.groups, self.size.lanes, weights, packed);
        }
        self.matrix.pack(self.level, pool, &self.taps, weights, packed, self.pairs);
    }

    /// Values that [`run`](Self::run) needs besides; what they hold does not matter.
    pub fn scratch_len(&self, samples: usize) -> usize {
        match &self.winograd {
            Some(winograd) => winograd.scratch_len(samples),
            None if self.depthwise.is_some() => 0,
            None => self.source.scratch_len(samples),
        }
    }

    /// Convolves `samples` images `x` into `y`.
    #[allow(clippy::too_many_arguments, reason = "each is one buffer of the operation")]
    pub fn run(
        &self,
        samples: usize,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        let shape = &self.shape;
        assert_eq!(x.len(), samples * shape.input_len(), "x of {shape:?}");
        assert_eq!(y.len(), samples * shape.output_len(), "y of {shape:?}");
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {shape:?}");
        assert!(bias.is_none_or(|bias| bias.len() == shape.filters), "bias of {shape:?}");
        if let Some(winograd) = &self.winograd {
            return winograd.run(samples, x, packed, bias, Output::Plain { epilogue, y }, scratch);
        }
        if let Some(windows) = &self.depthwise {
            let rows = 0..windows.output[0];
            return Tiles { windows, rows, samples, x, packed, bias, epilogue, y }.run_on(self.level);
        }
        let x = self.source.prepare(samples, x, scratch);
        let group_len = self.matrix.group_len(self.taps.len(), self.size);
        let (channels, filters) = (shape.group_channels(), shape.group_filters());
        let slots = self.source.channels / shape.groups;
        if x.is_empty() || y.is_empty() {
            return;
        }
        let rows = Rows {
            input: &self.windows,
            output: &self.pixels,
            samples,
            input_stride: self.source.sample(),
            output_stride: shape.output_len(),
        };
        if is_depthwise(shape) {
            let (taps, channels) = (&self.taps, shape.groups);
            return Depthwise { rows, taps, a: x, packed, channels, bias, epilogue, out: y }.run_on(self.level);
        }
        for group in 0..shape.groups {
            let product = Product {
                rows,
                reduction: Reduction::once(&self.segments),
                a: &x[group * slots..],
                b: &packed[group * group_len..(group + 1) * group_len],
                layout: Columns::Packed { depth: self.taps.len() * channels },
                columns: filters,
                bias: bias.map(|bias| &bias[group * filters..]),
                epilogue,
                accumulate: false,
                out: &mut y[group * filters..],
            };
            if self.pairs { product.run_pairs_on(self.level) } else { product.run_on(self.level) }
        }
    }
}
