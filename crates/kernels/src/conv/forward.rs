//! The convolution itself, with bias and activation applied before the sums leave the registers.

use super::depthwise::{self, Depthwise, is_depthwise};
use super::depthwise_tile::{Layout, Tiles, Windows};
use super::factors::rounds_to_pairs;
use super::geometry::{Segment, Source, Tap, forward_taps, segments, unaliased, window_offset};
use super::pack::{Matrix, TileSize};
use super::tile::{Columns, Product, Reduction, Rows};
use super::winograd::{self, Output, Winograd};
use super::{ConvShape, Epilogue};
use crate::{Level, Pool, Precision, ValuesMut};
use std::ops::Range;

/// Bytes of input that go through all of the weights together: half of a common second-level cache.
const BLOCK_BYTES: usize = 512 << 10;

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
    /// Where each pixel's copy starts.
    copies: Vec<u32>,
    /// Whether the direct way multiplies pairs of bf16 values.
    pairs: bool,
    winograd: Option<Winograd>,
    depthwise: Option<Windows>,
    /// From one pixel to the next in a copy of the windows, where they are copied: 1x1 kernels whose pixels would drive each
    /// other out of the cache.
    gathered: Option<usize>,
    /// Samples that are computed together; where it is 0, so many pixels of one sample.
    block_samples: usize,
    block_pixels: usize,
}

/// The weights of one call, and what is done with the sums.
#[derive(Clone, Copy)]
struct Weights<'a> {
    packed: &'a [f32],
    bias: Option<&'a [f32]>,
    epilogue: Epilogue,
    /// Whether the sums are added to what the output holds.
    accumulate: bool,
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
        let size = TileSize::of(level);
        // What is read for one pixel of the output, each value counted once.
        let bytes = 4 * if taps.len() == 1 { shape.input[2] } else { source.sample() / pixels.len().max(1) };
        let most = BLOCK_BYTES / bytes.max(1);
        let distance = shape.input[2] * shape.strides[1];
        let gather = taps.len() == 1 && pixels.len() > 1 && shape.padding == [0; 4] && shape.filters >= 128 && !pairs;
        let gathered = (gather && unaliased(distance, 4096) > distance).then(|| unaliased(shape.input[2], 2048));
        // Whole images are rounded to pairs.
        let blocks = if pairs { 1 } else { pixels.len().div_ceil(most.max(2 * size.rows)).max(1) };
        Forward {
            shape,
            level,
            size,
            gathered,
            copies: gathered.map_or_else(Vec::new, |pitch| pixels.clone().map(|p| (p * pitch) as u32).collect()),
            block_samples: if blocks == 1 { (most / pixels.len().max(1)).max(1) } else { 0 },
            block_pixels: pixels.len().div_ceil(blocks).next_multiple_of(size.rows),
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
        match (&self.winograd, self.gathered) {
            (Some(winograd), _) => winograd.scratch_len(samples),
            _ if self.depthwise.is_some() => 0,
            (None, Some(pitch)) if self.block_samples == 0 => pitch * self.block_pixels,
            (None, Some(pitch)) => pitch * self.windows.len() * samples.min(self.block_samples),
            (None, None) if self.block_samples > 0 => self.source.scratch_len(samples.min(self.block_samples)),
            (None, None) => self.source.rows_len(self.input_rows(self.block_pixels)),
        }
    }

    /// The most input rows that so many neighbouring pixels read.
    fn input_rows(&self, pixels: usize) -> usize {
        let [height, width, _] = self.shape.output();
        let rows = (pixels.saturating_sub(1) + width).div_ceil(width.max(1)).min(height);
        rows.saturating_sub(1) * self.shape.strides[0] + self.shape.extent()[0]
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
        self.compute(samples, x, Weights { packed, bias, epilogue, accumulate: false }, y, scratch);
    }

    /// As [`run`](Self::run), with what `y` holds added before the epilogue: a residual block's shortcut. Not depthwise.
    #[allow(clippy::too_many_arguments, reason = "each is one buffer of the operation")]
    pub fn run_onto(
        &self,
        samples: usize,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        self.compute(samples, x, Weights { packed, bias, epilogue, accumulate: true }, y, scratch);
    }

    fn compute(&self, samples: usize, x: &[f32], weights: Weights<'_>, y: &mut [f32], scratch: &mut [f32]) {
        let shape = &self.shape;
        assert_eq!(x.len(), samples * shape.input_len(), "x of {shape:?}");
        assert_eq!(y.len(), samples * shape.output_len(), "y of {shape:?}");
        self.check(weights);
        let Weights { packed, bias, epilogue, accumulate } = weights;
        if y.is_empty() {
            return;
        }
        if let Some(winograd) = &self.winograd {
            let output = Output::Plain { epilogue, accumulate, y: y.into() };
            return winograd.run(samples, x, packed, bias, output, scratch);
        }
        if let Some(windows) = &self.depthwise {
            let rows = 0..windows.output[0];
            return Tiles { windows, rows, samples, x, weights: packed, layout: Layout::Packed, bias, epilogue, y }
                .run_on(self.level);
        }
        let (x_len, y_len) = (shape.input_len(), shape.output_len());
        for first in (0..samples).step_by(self.block_samples.max(1)) {
            let count = self.block_samples.clamp(1, samples - first);
            let x = &x[first * x_len..(first + count) * x_len];
            let y = &mut y[first * y_len..(first + count) * y_len];
            if self.block_samples == 0 {
                self.run_pixels(0..self.windows.len(), x, weights, y, scratch);
                continue;
            }
            let rows = Rows {
                input: &self.windows,
                output: &self.pixels,
                samples: count,
                input_stride: self.source.sample(),
                output_stride: y_len,
            };
            if let Some(pitch) = self.gathered {
                self.product_of_gathered(rows, pitch, x, weights, y, scratch);
            } else {
                self.product(rows, self.source.prepare(count, x, scratch), weights, y);
            }
        }
    }

    /// As [`run`](Self::run), with `y` rounded to bf16, for shapes that [allow it](ConvShape::writes_bf16) and that precision.
    ///
    /// # Panics
    /// Where they do not.
    #[allow(clippy::too_many_arguments, reason = "each is one buffer of the operation")]
    pub fn run_to_bf16(
        &self,
        samples: usize,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        y: &mut [u16],
        scratch: &mut [f32],
    ) {
        let shape = &self.shape;
        assert_eq!(x.len(), samples * shape.input_len(), "x of {shape:?}");
        assert_eq!(y.len(), samples * shape.output_len(), "y of {shape:?}");
        self.check(Weights { packed, bias, epilogue, accumulate: false });
        let Some(winograd) = &self.winograd else { panic!("{shape:?} has no bf16 outputs") };
        let output = Output::Plain { epilogue, accumulate: false, y: ValuesMut::Bf16(y) };
        winograd.run(samples, x, packed, bias, output, scratch);
    }

    /// Values in the smallest piece of a sample's output that [`run_piece`](Self::run_piece) computes; 0 where there are none.
    pub fn unit(&self) -> usize {
        if let Some(winograd) = &self.winograd {
            return winograd.row_len();
        }
        if let Some(windows) = &self.depthwise {
            return windows.row_len();
        }
        match self.windows.len() == 1 && self.shape.groups == 1 {
            true => self.size.columns,
            false if self.pairs => 0,
            false => self.shape.filters.min(self.shape.output_len()),
        }
    }

    /// The part `y` of one sample's output, which begins and ends at a multiple of [`unit`](Self::unit) or at the output's end.
    /// It is the same to the bit as that of [`run`](Self::run); `scratch` is as for one sample.
    #[allow(clippy::too_many_arguments, reason = "each is one buffer of the operation")]
    pub fn run_piece(
        &self,
        part: Range<usize>,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        self.compute_piece(part, x, Weights { packed, bias, epilogue, accumulate: false }, y, scratch);
    }

    /// As [`run_piece`](Self::run_piece), with what `y` holds added before the epilogue.
    #[allow(clippy::too_many_arguments, reason = "each is one buffer of the operation")]
    pub fn run_piece_onto(
        &self,
        part: Range<usize>,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        self.compute_piece(part, x, Weights { packed, bias, epilogue, accumulate: true }, y, scratch);
    }

    fn compute_piece(&self, part: Range<usize>, x: &[f32], weights: Weights<'_>, y: &mut [f32], scratch: &mut [f32]) {
        let shape = &self.shape;
        assert_eq!(x.len(), shape.input_len(), "x of {shape:?}");
        assert!(part.end <= shape.output_len() && part.len() == y.len(), "y of {shape:?}");
        self.check(weights);
        let Weights { packed, bias, epilogue, accumulate } = weights;
        if y.is_empty() {
            return;
        }
        let unit = self.unit();
        assert!(part.start.is_multiple_of(unit), "pieces of {unit} values of {shape:?}");
        if let Some(winograd) = &self.winograd {
            let rows = part.start / unit..part.end.div_ceil(unit);
            let output = Output::Plain { epilogue, accumulate, y: y.into() };
            return winograd.run_rows(rows, x, packed, bias, output, scratch);
        }
        if let Some(windows) = &self.depthwise {
            let rows = part.start / unit..part.end.div_ceil(unit);
            return Tiles { windows, rows, samples: 1, x, weights: packed, layout: Layout::Packed, bias, epilogue, y }
                .run_on(self.level);
        }
        if self.windows.len() > 1 || shape.groups > 1 {
            assert!(part.end.is_multiple_of(unit), "whole pixels of {shape:?}");
            return self.run_pixels(part.start / unit..part.end / unit, x, weights, y, scratch);
        }
        let depth = self.taps.len() * shape.input[2];
        let rows = Rows { input: &self.windows, output: &[0], samples: 1, input_stride: 0, output_stride: 0 };
        let product = Product {
            rows,
            reduction: Reduction::once(&self.segments),
            a: self.source.prepare(1, x, scratch),
            b: &packed[part.start * depth..],
            layout: Columns::Packed { depth },
            columns: part.len(),
            bias: bias.map(|bias| &bias[part]),
            epilogue,
            accumulate,
            out: y,
        };
        if self.pairs { product.run_pairs_on(self.level) } else { product.run_on(self.level) }
    }

    fn check(&self, weights: Weights<'_>) {
        assert_eq!(weights.packed.len(), self.packed_len(), "packed weights of {:?}", self.shape);
        assert!(weights.bias.is_none_or(|bias| bias.len() == self.shape.filters), "bias of {:?}", self.shape);
        assert!(!(weights.accumulate && is_depthwise(&self.shape)), "no shortcut in {:?}", self.shape);
    }

    /// Some pixels of one sample, a block at a time.
    fn run_pixels(&self, part: Range<usize>, x: &[f32], weights: Weights<'_>, y: &mut [f32], scratch: &mut [f32]) {
        let (width, filters) = (self.shape.output()[1], self.shape.filters);
        // Blocks of equal size rather than full ones and a small rest.
        let blocks = part.len().div_ceil(self.block_pixels);
        let block = part.len().div_ceil(blocks.max(1)).next_multiple_of(self.size.rows).min(self.block_pixels).max(1);
        for (first, y) in part.clone().step_by(block).zip(y.chunks_mut(block * filters)) {
            let pixels = first..first + y.len() / filters;
            // Windows lie alike from whichever row on, so that those of the first rows do for all.
            let (row, column) = (first / width, first % width);
            let top = row * self.shape.strides[0];
            let input_rows = top..top + self.input_rows_of(&pixels);
            let rows = Rows {
                input: &self.windows[column..column + pixels.len()],
                output: &self.pixels[..pixels.len()],
                samples: 1,
                input_stride: 0,
                output_stride: 0,
            };
            if let Some(pitch) = self.gathered {
                let x = &x[top * self.source.pitch()..];
                self.product_of_gathered(rows, pitch, x, weights, y, scratch);
            } else {
                self.product(rows, self.source.prepare_rows(input_rows, x, scratch), weights, y);
            }
        }
    }

    /// Copies each window, which is a pixel, and multiplies the copies.
    fn product_of_gathered(
        &self,
        rows: Rows<'_>,
        pitch: usize,
        x: &[f32],
        weights: Weights<'_>,
        y: &mut [f32],
        scratch: &mut [f32],
    ) {
        let (channels, count) = (self.shape.input[2], rows.input.len());
        let copies = &mut scratch[..pitch * count * rows.samples];
        for (n, to) in copies.chunks_exact_mut(pitch).enumerate() {
            let from = n / count * rows.input_stride + rows.input[n % count] as usize;
            to[..channels].copy_from_slice(&x[from..from + channels]);
        }
        let rows = Rows { input: &self.copies[..count], input_stride: pitch * count, ..rows };
        self.product(rows, copies, weights, y);
    }

    /// Input rows that these pixels read.
    fn input_rows_of(&self, pixels: &Range<usize>) -> usize {
        let width = self.shape.output()[1];
        let rows = (pixels.end - 1) / width - pixels.start / width;
        rows * self.shape.strides[0] + self.shape.extent()[0]
    }

    fn product(&self, rows: Rows<'_>, x: &[f32], weights: Weights<'_>, y: &mut [f32]) {
        let shape = &self.shape;
        let Weights { packed, bias, epilogue, accumulate } = weights;
        let (channels, filters) = (shape.group_channels(), shape.group_filters());
        let slots = self.source.channels / shape.groups;
        if x.is_empty() {
            return;
        }
        if is_depthwise(shape) {
            let (taps, channels) = (&self.taps, shape.groups);
            return Depthwise { rows, taps, a: x, packed, channels, bias, epilogue, out: y }.run_on(self.level);
        }
        let group_len = self.matrix.group_len(self.taps.len(), self.size);
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
                accumulate,
                out: &mut y[group * filters..],
            };
            if self.pairs { product.run_pairs_on(self.level) } else { product.run_on(self.level) }
        }
    }
}
