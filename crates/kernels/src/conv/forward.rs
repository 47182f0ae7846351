//! The convolution itself, with bias and activation applied before the sums leave the registers.

use super::amx_product::{self, AmxOutput, AmxProduct};
use super::crossed_tile::{BESIDES, PERIOD};
use super::depthwise::{self, Depthwise, is_depthwise};
use super::depthwise_tile::{Layout, Tiles, Windows};
use super::factors::rounds_to_pairs;
use super::geometry::{Segment, Source, Tap, forward_taps, is_cold, segments, unaliased, window_offset};
use super::pack::{Matrix, TileSize};
use super::row_tile::{self, RowOutput, RowProduct};
use super::tile::{Columns, Product, Reduction, Rows};
use super::winograd::{self, Filtering, Output, Winograd};
use super::{ConvShape, Epilogue};
use crate::batch_norm::MomentSums;
use crate::isa::Amx;
use crate::packing::{Cut, Packing, WeightRows};
use crate::{Level, Pool, Precision, ValuesMut};
use std::ops::Range;

/// Bytes of input that go through all of the weights together: half of a common second-level cache.
const BLOCK_BYTES: usize = 512 << 10;

/// Bytes of outputs that are computed before what batch normalisation needs of them is summed.
const MEASURED_BYTES: usize = if cfg!(test) { 2 << 10 } else { 128 << 10 };

/// Channels and filters from which crossed factors gain: with 32 channels 7% at 28x28, with 24 and 16 nothing; 24 filters leave vectors half empty.
const CROSSED_CHANNELS: usize = 32;
const CROSSED_FILTERS: usize = 32;

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
    /// Whether it multiplies half of the factors crosswise.
    pub(super) crossed: bool,
    /// The slots of tiles, where they multiply the pairs.
    amx: Option<(Amx, usize)>,
    winograd: Option<Winograd>,
    depthwise: Option<Windows>,
    /// From one pixel to the next in a copy of the windows, where they are copied: 1x1 kernels whose pixels would drive each
    /// other out of the cache.
    pub(super) gathered: Option<usize>,
    /// Whether a sample's outputs are too many for a second-level cache.
    cold: bool,
    /// Samples that are computed together; where it is 0, so many pixels of one sample.
    block_samples: usize,
    block_pixels: usize,
}

/// What of the outputs is computed.
#[derive(Clone, Debug)]
pub enum Extent {
    /// Those of so many samples.
    Samples(usize),
    /// Some values of one sample's, from a multiple of [`Forward::unit`] to another one or the end: the same to the bit as in the whole.
    Piece(Range<usize>),
}

/// The weights of a convolution, and what is done with its sums.
#[derive(Clone, Copy, Debug)]
pub struct ConvWeights<'a> {
    /// As [`Forward::pack`] makes them.
    pub packed: &'a [f32],
    /// One for each filter, or zeros.
    pub bias: Option<&'a [f32]>,
    /// What is applied to the sums.
    pub epilogue: Epilogue,
}

/// Where the sums go.
#[derive(Debug)]
pub enum Sums<'a> {
    /// They are written; rounded to bf16 only with shapes that [allow it](ConvShape::writes_bf16), and in that precision.
    New(ValuesMut<'a>),
    /// They are added to what is there before the epilogue: a residual block's shortcut. Not depthwise.
    Onto(&'a mut [f32]),
    /// They are written, and what batch normalisation needs to know of them is summed while they are in the first-level cache.
    Measured(&'a mut [f32], MomentSums<'a>),
}

impl<'a> Sums<'a> {
    /// Number of values.
    pub(super) fn len(&self) -> usize {
        match self {
            Sums::New(y) => y.len(),
            Sums::Onto(y) | Sums::Measured(y, _) => y.len(),
        }
    }

    pub(super) fn is_bf16(&self) -> bool {
        matches!(self, Sums::New(ValuesMut::Bf16(_)))
    }

    /// The same for a shorter time.
    pub(super) fn reborrow(&mut self) -> Sums<'_> {
        match self {
            Sums::New(y) => Sums::New(y.reborrow()),
            Sums::Onto(y) => Sums::Onto(y),
            Sums::Measured(y, moments) => Sums::Measured(y, *moments),
        }
    }

    /// The first values, and the rest.
    pub(super) fn split_at_mut(self, at: usize) -> (Self, Self) {
        match self {
            Sums::New(y) => {
                let (first, rest) = y.split_at_mut(at);
                (Sums::New(first), Sums::New(rest))
            }
            Sums::Onto(y) => {
                let (first, rest) = y.split_at_mut(at);
                (Sums::Onto(first), Sums::Onto(rest))
            }
            Sums::Measured(y, moments) => {
                let (first, rest) = y.split_at_mut(at);
                (Sums::Measured(first, moments), Sums::Measured(rest, moments))
            }
        }
    }

    /// Whether sums are added to what is there.
    pub(super) fn is_onto(&self) -> bool {
        matches!(self, Sums::Onto(_))
    }

    /// What else is summed.
    pub(super) fn moments(&self) -> Option<MomentSums<'a>> {
        match self {
            Sums::Measured(_, moments) => Some(*moments),
            _ => None,
        }
    }

    /// Where they start, whatever they are.
    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        match self {
            Sums::New(y) => y.as_mut_ptr(),
            Sums::Onto(y) | Sums::Measured(y, _) => y.as_mut_ptr(),
        }
    }

    /// Single-precision values to write or add to.
    pub(super) fn single(self) -> &'a mut [f32] {
        match self {
            Sums::New(ValuesMut::F32(y)) | Sums::Onto(y) | Sums::Measured(y, _) => y,
            Sums::New(ValuesMut::Bf16(_)) => unreachable!("only minimal filtering writes bf16"),
        }
    }
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
    suits.then(|| {
        Winograd::new(Filtering { image: shape.input, before, output: [height, width], filters, level, precision })
    })
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
        let segments = segments(&taps, source.channels / shape.groups);
        let amx = level.tiles().filter(|_| pairs && shape.groups == 1);
        let amx = amx.and_then(|tiles| Some((tiles, amx_product::slots(&segments)?)));
        let blocks = if pairs { 1 } else { pixels.len().div_ceil(most.max(2 * size.rows)).max(1) };
        Forward {
            shape,
            level,
            size,
            gathered,
            copies: gathered.map_or_else(Vec::new, |pitch| pixels.clone().map(|p| (p * pitch) as u32).collect()),
            cold: is_cold(shape.output_len()),
            block_samples: if blocks == 1 { (most / pixels.len().max(1)).max(1) } else { 0 },
            block_pixels: pixels.len().div_ceil(blocks).next_multiple_of(size.rows),
            segments,
            taps,
            matrix: forward_matrix(&shape),
            pairs,
            crossed: false,
            amx,
            winograd: winograd(&shape, level, precision).filter(|_| amx.is_none()),
            depthwise: Windows::of_input(&shape),
            windows: pixels.clone().map(|p| window_offset(&shape, &source, p / width, p % width)).collect(),
            pixels: pixels.map(|p| (p * filters) as u32).collect(),
            source,
        }
    }

    /// The same with a fourth fewer multiplications and some additions instead, where the shape gains from it and single precision is
    /// multiplied: for processors that [add beside multiplying](Level::adds_beside). Errors are two to three times as large where the
    /// root mean square of the images is about 1, as behind batch normalisation, and grow where it is much more or less. Values beyond the root
    /// of what single precision holds (1e19) and infinities give NaN at their pixel.
    pub fn crossed(self) -> Self {
        let shape = &self.shape;
        let direct = !self.pairs && self.winograd.is_none() && self.depthwise.is_none() && shape.groups == 1;
        // Shorter sums, fewer columns and single pixels take longer.
        let long = shape.input[2] >= CROSSED_CHANNELS && shape.input[2].is_multiple_of(PERIOD);
        // Bands of an image's rows are as wide as the image, so that they are computed alike.
        let gains = long && shape.filters >= CROSSED_FILTERS && shape.output()[1] > 1;
        Forward { crossed: direct && gains && shape.is_pointwise(), ..self }
    }
}

impl Packing for Forward {
    fn packed_len(&self) -> usize {
        if let Some(winograd) = &self.winograd {
            return winograd.packed_len();
        }
        if is_depthwise(&self.shape) {
            return depthwise::packed_len(self.taps.len(), self.shape.groups, self.size.lanes);
        }
        if self.crossed {
            return self.matrix.crossed_len(self.size);
        }
        self.shape.groups * self.matrix.group_len(self.taps.len(), self.size)
    }

    fn pack(&self, pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        assert_eq!(weights.len(), self.shape.weights_len(), "weights of {:?}", self.shape);
        if let Some(winograd) = &self.winograd {
            return winograd.pack(pool, &self.matrix, &self.taps, weights, packed);
        }
        if is_depthwise(&self.shape) {
            return depthwise::pack(&self.taps, self.shape.groups, self.size.lanes, weights, packed);
        }
        if self.crossed {
            return self.matrix.pack_crossed(self.level, pool, weights, packed);
        }
        self.matrix.pack(self.level, pool, &self.taps, weights, packed, self.pairs);
    }

    fn cut(&self) -> Option<Cut> {
        let direct = self.winograd.is_none() && !self.pairs && !self.crossed;
        let apart = self.shape.groups == 1 && (direct || self.winograd.as_ref().is_some_and(Winograd::can_be_cut));
        apart.then(|| self.shape.cut(1))
    }

    unsafe fn pack_rows(&self, weights: &WeightRows) {
        let place = [weights.range(), 0..self.shape.filters];
        let depth = self.taps.len() * self.shape.input[2];
        // SAFETY: the caller's promise.
        unsafe {
            match &self.winograd {
                Some(winograd) => winograd.pack_rows(&self.matrix, &self.taps, weights, place),
                None => self.matrix.pack_rows(self.level, &self.taps, weights, place, [0, depth, 0], |_| {}),
            }
        }
    }
}

impl Forward {
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

    /// Values in the smallest piece of a sample's output; 0 where there are none.
    pub fn unit(&self) -> usize {
        if let Some(winograd) = &self.winograd {
            return winograd.row_len();
        }
        if let Some(windows) = &self.depthwise {
            return windows.row_len();
        }
        match self.windows.len() == 1 && self.shape.groups == 1 {
            true => self.size.columns,
            false => self.shape.filters.min(self.shape.output_len()),
        }
    }

    /// Convolves the images `x`; `scratch` is for as many samples.
    ///
    /// # Panics
    /// Where a slice does not have the shape's length, and where the shape does not allow these sums or this piece.
    pub fn run(&self, extent: Extent, x: &[f32], weights: ConvWeights<'_>, sums: Sums<'_>, scratch: &mut [f32]) {
        let sums = match sums {
            Sums::Measured(y, moments) if !self.measures() => {
                self.run(extent, x, weights, Sums::New((&mut *y).into()), scratch);
                return moments.add_rows(y);
            }
            sums => sums,
        };
        let (shape, unit) = (&self.shape, self.unit());
        let ConvWeights { packed, bias, epilogue } = weights;
        let (samples, values) = match &extent {
            Extent::Samples(samples) => (*samples, 0..shape.output_len()),
            Extent::Piece(values) => (1, values.clone()),
        };
        assert_eq!(x.len(), samples * shape.input_len(), "x of {shape:?}");
        assert!(values.end <= shape.output_len() && sums.len() == samples * values.len(), "y of {shape:?}");
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {shape:?}");
        assert!(bias.is_none_or(|bias| bias.len() == shape.filters), "bias of {shape:?}");
        assert!(!(sums.is_onto() && is_depthwise(shape)), "no shortcut in {shape:?}");
        let halves = self.winograd.is_some() || self.amx.is_some() && shape.writes_bf16();
        assert!(!sums.is_bf16() || halves, "{shape:?} has no bf16 outputs");
        if sums.len() == 0 {
            return;
        }
        let piece = matches!(extent, Extent::Piece(_));
        assert!(!piece || unit > 0 && values.start.is_multiple_of(unit), "pieces of {unit} values of {shape:?}");
        // What is cut into rows has a unit.
        let rows = values.start / unit.max(1)..values.end.div_ceil(unit.max(1));
        if let Some(winograd) = &self.winograd {
            let output = Output::Plain { epilogue, sums };
            return match piece {
                true => winograd.run_rows(rows, x, packed, bias, output, scratch),
                false => winograd.run(samples, x, packed, bias, output, scratch),
            };
        }
        if let Some(windows) = &self.depthwise {
            return self.run_windows(windows, rows, samples, x, weights, sums);
        }
        match piece {
            false => self.run_samples(samples, x, weights, sums, scratch),
            true if self.windows.len() == 1 && shape.groups == 1 => {
                self.run_columns(values, x, weights, sums, scratch);
            }
            true => {
                assert!(values.end.is_multiple_of(unit), "whole pixels of {shape:?}");
                self.run_pixels(rows, x, weights, sums, scratch);
            }
        }
    }

    /// Whether the kernel itself sums what [`Sums::Measured`] asks for.
    fn measures(&self) -> bool {
        self.amx.is_none() && (self.shape.groups == 1 || self.depthwise.is_some())
    }

    /// These rows of the output of a depthwise convolution that has tiles.
    fn run_windows(
        &self,
        windows: &Windows,
        rows: Range<usize>,
        samples: usize,
        x: &[f32],
        weights: ConvWeights<'_>,
        sums: Sums<'_>,
    ) {
        let ConvWeights { packed: weights, bias, epilogue } = weights;
        let (layout, cold, moments, y) = (Layout::Packed, self.cold, sums.moments(), sums.single());
        let tiles = |rows, samples, x: &[f32], y: &mut [f32]| {
            Tiles { windows, rows, samples, x, weights, layout, bias, epilogue, cold, y }.run_on(self.level);
        };
        let Some(moments) = moments else { return tiles(rows, samples, x, y) };
        // Tiles are two rows high.
        let each = (MEASURED_BYTES / (4 * windows.row_len())).next_multiple_of(2).max(2);
        let samples = x.chunks_exact(windows.input_len()).zip(y.chunks_exact_mut(rows.len() * windows.row_len()));
        for (x, y) in samples {
            for (n, y) in y.chunks_mut(each * windows.row_len()).enumerate() {
                let first = rows.start + n * each;
                tiles(first..(first + each).min(rows.end), 1, x, y);
                moments.add_rows(y);
            }
        }
    }

    /// Whole samples, a block at a time.
    fn run_samples(
        &self,
        samples: usize,
        x: &[f32],
        weights: ConvWeights<'_>,
        mut sums: Sums<'_>,
        scratch: &mut [f32],
    ) {
        let (x_len, y_len) = (self.shape.input_len(), self.shape.output_len());
        for first in (0..samples).step_by(self.block_samples.max(1)) {
            let count = self.block_samples.clamp(1, samples - first);
            let x = &x[first * x_len..(first + count) * x_len];
            let (block, rest) = sums.split_at_mut(count * y_len);
            sums = rest;
            if self.block_samples == 0 {
                self.run_pixels(0..self.windows.len(), x, weights, block, scratch);
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
                self.product_of_gathered(rows, pitch, x, weights, block, scratch);
            } else {
                self.product(rows, 0, self.source.prepare(count, x, scratch), weights, block);
            }
        }
    }

    /// Some filters of the only pixel of one sample.
    fn run_columns(
        &self,
        part: Range<usize>,
        x: &[f32],
        weights: ConvWeights<'_>,
        sums: Sums<'_>,
        scratch: &mut [f32],
    ) {
        let depth = self.taps.len() * self.shape.input[2];
        let rows = Rows { input: &self.windows, output: &[0], samples: 1, input_stride: 0, output_stride: 0 };
        let (a, b) = (self.source.prepare(1, x, scratch), &weights.packed[part.start * depth..]);
        let (bias, epilogue) = (weights.bias.map(|bias| &bias[part.clone()]), weights.epilogue);
        if let Some((tiles, slots)) = self.amx {
            let (segments, columns) = (&self.segments[..], part.len());
            let (rows, samples, stride, places) = (rows.input, 1, 0, rows.output);
            let output = AmxOutput::Plain { places, stride, epilogue, sums };
            return AmxProduct { rows, samples, stride, segments, slots, a, b, depth, columns, bias, output }
                .run_on(tiles);
        }
        let product = Product {
            rows,
            reduction: Reduction::once(&self.segments),
            a,
            b,
            layout: Columns::Packed { depth },
            columns: part.len(),
            bias,
            epilogue,
            accumulate: sums.is_onto(),
            cold: false,
            moments: sums.moments(),
            out: sums.single(),
        };
        if self.pairs { product.run_pairs_on(self.level) } else { product.run_on(self.level) }
    }

    /// Some pixels of one sample, a block at a time.
    fn run_pixels(
        &self,
        part: Range<usize>,
        x: &[f32],
        weights: ConvWeights<'_>,
        mut sums: Sums<'_>,
        scratch: &mut [f32],
    ) {
        let (width, filters) = (self.shape.output()[1], self.shape.filters);
        // Blocks of equal size rather than full ones and a small rest.
        let blocks = part.len().div_ceil(self.block_pixels);
        let block = part.len().div_ceil(blocks.max(1)).next_multiple_of(self.size.rows).min(self.block_pixels).max(1);
        for first in part.clone().step_by(block) {
            let pixels = first..(first + block).min(part.end);
            let (here, rest) = sums.split_at_mut(pixels.len() * filters);
            sums = rest;
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
                self.product_of_gathered(rows, pitch, x, weights, here, scratch);
            } else {
                self.product(rows, column, self.source.prepare_rows(input_rows, x, scratch), weights, here);
            }
        }
    }

    /// Copies each window, which is a pixel, and multiplies the copies.
    fn product_of_gathered(
        &self,
        rows: Rows<'_>,
        pitch: usize,
        x: &[f32],
        weights: ConvWeights<'_>,
        sums: Sums<'_>,
        scratch: &mut [f32],
    ) {
        let (channels, count) = (self.shape.input[2], rows.input.len());
        let copies = &mut scratch[..pitch * count * rows.samples];
        for (n, to) in copies.chunks_exact_mut(pitch).enumerate() {
            let from = n / count * rows.input_stride + rows.input[n % count] as usize;
            to[..channels].copy_from_slice(&x[from..from + channels]);
        }
        let rows = Rows { input: &self.copies[..count], input_stride: pitch * count, ..rows };
        self.product(rows, 0, copies, weights, sums);
    }

    /// Input rows that these pixels read.
    fn input_rows_of(&self, pixels: &Range<usize>) -> usize {
        let width = self.shape.output()[1];
        let rows = (pixels.end - 1) / width - pixels.start / width;
        rows * self.shape.strides[0] + self.shape.extent()[0]
    }

    /// The pixels of `rows`, which begin with the `first` one of a row.
    fn product(&self, rows: Rows<'_>, first: usize, x: &[f32], weights: ConvWeights<'_>, sums: Sums<'_>) {
        let shape = &self.shape;
        let ConvWeights { packed, bias, epilogue } = weights;
        let (channels, filters) = (shape.group_channels(), shape.group_filters());
        if x.is_empty() {
            return;
        }
        if let Some((tiles, slots)) = self.amx {
            let (segments, depth) = (&self.segments[..], self.taps.len() * channels);
            let (a, b, columns) = (x, packed, filters);
            let output = AmxOutput::Plain { places: rows.output, stride: rows.output_stride, epilogue, sums };
            let (rows, samples, stride) = (rows.input, rows.samples, rows.input_stride);
            return AmxProduct { rows, samples, stride, segments, slots, a, b, depth, columns, bias, output }
                .run_on(tiles);
        }
        let (accumulate, moments, y) = (sums.is_onto(), sums.moments(), sums.single());
        let slots = self.source.channels / shape.groups;
        if is_depthwise(shape) {
            let (taps, channels) = (&self.taps, shape.groups);
            return Depthwise { rows, taps, a: x, packed, channels, bias, epilogue, out: y }.run_on(self.level);
        }
        if row_tile::suits(shape) {
            let product = RowProduct {
                width: shape.output()[1],
                pixels: first..first + rows.input.len(),
                samples: rows.samples,
                sample: rows.input_stride,
                a: &x[self.source.origin()..],
                pitch: self.source.pitch(),
                b: packed,
                bias,
                output: RowOutput::Plain { epilogue, accumulate, cold: self.cold, out: &mut *y },
            };
            product.run_on(shape, self.level);
            if let Some(moments) = moments {
                moments.add_rows(y);
            }
            return;
        }
        let rows = if shape.is_pointwise() { rows.as_samples() } else { rows };
        let (depth, group_len) = match self.crossed {
            true => (channels + BESIDES, packed.len()),
            false => (self.taps.len() * channels, self.matrix.group_len(self.taps.len(), self.size)),
        };
        for group in 0..shape.groups {
            let product = Product {
                rows,
                reduction: Reduction::once(&self.segments),
                a: &x[group * slots..],
                b: &packed[group * group_len..(group + 1) * group_len],
                layout: Columns::Packed { depth },
                columns: filters,
                bias: bias.map(|bias| &bias[group * filters..]),
                epilogue,
                accumulate,
                cold: self.cold,
                moments,
                out: &mut y[group * filters..],
            };
            match (self.pairs, self.crossed) {
                (true, _) => product.run_pairs_on(self.level),
                (_, true) => product.run_crossed_on(self.level),
                _ => product.run_on(self.level),
            }
        }
    }
}
