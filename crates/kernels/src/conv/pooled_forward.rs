//! Convolution, bias, ReLU and max-pooling in one pass: only the maxima and where they were found are stored.

use super::amx_product::{self, AmxOutput, AmxProduct, MOST_WINDOW};
use super::factors::rounds_to_pairs;
use super::forward::forward_matrix;
use super::geometry::{LINE, Segment, Source, Tap, forward_taps, segments};
use super::pack::{Matrix, TileSize};
use super::pooled_tile::PooledProduct;
use super::row_tile::{RowOutput, RowProduct, suits_pooled};
use super::sparse_weights::pooled_windows;
use super::tile::{Columns, Product, Reduction, Rows};
use super::winograd::{self, Filtering, Output, Winograd};
use super::{CLOSED, Epilogue, PooledShape};
use crate::isa::Amx;
use crate::packing::{Cut, Packing, WeightRows};
use crate::{Level, Pool, Precision};
use std::ops::Range;

/// `y = max over each pooling window of relu(convolution(x, weights) + bias)`, and the position of each maximum.
#[derive(Clone, Debug)]
pub struct PooledForward {
    shape: PooledShape,
    level: Level,
    size: TileSize,
    source: Source,
    taps: Vec<Tap>,
    segments: Vec<Segment>,
    matrix: Matrix,
    /// Where the convolution's windows start: all of one pooling window's, row by row, then the next one's.
    windows: Vec<u32>,
    pixels: Vec<u32>,
    /// Tiles and their slots, where they multiply bf16 pairs.
    amx: Option<(Amx, usize)>,
    winograd: Option<Winograd>,
}

impl PooledForward {
    /// Lays out the pooled convolution of that shape.
    pub fn new(shape: PooledShape, level: Level, precision: Precision) -> Self {
        shape.check();
        let conv = shape.conv;
        let (source, filters) = (Source::of_input(&conv), conv.filters);
        let tiled =
            rounds_to_pairs(&conv, conv.input[2], precision) && conv.groups == 1 && shape.window() <= MOST_WINDOW;
        let tiles = level.tiles().filter(|_| tiled).and_then(|tiles| {
            let source = source.clone().in_pairs(level);
            let slots = amx_product::slots(&segments(&forward_taps(&conv, &source), source.channels))?;
            Some(((tiles, slots), source))
        });
        let (amx, source) = tiles.map_or((None, source), |(amx, source)| (Some(amx), source));
        let taps = forward_taps(&conv, &source);
        let windows = pooled_windows(&shape, &source);
        PooledForward {
            shape,
            level,
            size: TileSize::of(level),
            segments: segments(&taps, source.channels / conv.groups),
            taps,
            matrix: forward_matrix(&conv),
            winograd: winograd(&shape, level, precision).filter(|_| amx.is_none()),
            amx,
            pixels: (0..windows.len()).map(|p| (p * filters) as u32).collect(),
            windows,
            source,
        }
    }

    /// Values that [`run`](Self::run) needs besides; what they hold does not matter.
    pub fn scratch_len(&self, samples: usize) -> usize {
        if let Some(winograd) = &self.winograd {
            return winograd.scratch_len(samples);
        }
        self.source.scratch_len(samples) + self.unpooled_len(samples)
    }

    /// Whether the maxima are found in the tiles.
    fn in_tiles(&self) -> bool {
        self.amx.is_some() || PooledProduct::has_tile(self.shape.window(), self.size)
    }

    /// Values of the whole convolution, where the maxima are found afterwards.
    fn unpooled_len(&self, samples: usize) -> usize {
        if self.in_tiles() {
            0
        } else {
            (samples * self.windows.len() * self.shape.conv.filters).next_multiple_of(LINE)
        }
    }

    /// Computes the maxima `y` of `samples` images and, in `argmax`, which pixel of its window each is: the first of equal
    /// ones in row-major order, or [`CLOSED`] where `relu` is set and the maximum is not positive.
    #[allow(clippy::too_many_arguments, reason = "each is one buffer of the operation")]
    pub fn run(
        &self,
        samples: usize,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        relu: bool,
        y: &mut [f32],
        argmax: &mut [u8],
        scratch: &mut [f32],
    ) {
        let shape = &self.shape;
        let conv = &shape.conv;
        assert_eq!(x.len(), samples * conv.input_len(), "x of {shape:?}");
        assert_eq!(y.len(), samples * shape.output_len(), "y of {shape:?}");
        assert_eq!(argmax.len(), y.len(), "argmax of {shape:?}");
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {shape:?}");
        assert!(bias.is_none_or(|bias| bias.len() == conv.filters), "bias of {shape:?}");
        assert!(scratch.len() >= self.scratch_len(samples), "scratch of {shape:?}");
        if y.is_empty() {
            return;
        }
        if let Some(winograd) = &self.winograd {
            let output = Output::Pooled { relu, maxima: y, positions: argmax };
            return winograd.run(samples, x, packed, bias, output, scratch);
        }
        let per_sample = self.windows.len() * conv.filters;
        let (full, scratch) = scratch.split_at_mut(self.unpooled_len(samples));
        let x = self.source.prepare(samples, x, scratch);
        let group_len = self.matrix.group_len(self.taps.len(), self.size);
        let (channels, filters) = (conv.group_channels(), conv.group_filters());
        if self.in_tiles() {
            self.find_maxima(samples, 0, &self.windows, x, packed, bias, relu, y, argmax);
            return;
        }
        for group in 0..conv.groups {
            Product {
                rows: Rows {
                    input: &self.windows,
                    output: &self.pixels,
                    samples,
                    input_stride: self.source.sample(),
                    output_stride: per_sample,
                },
                reduction: Reduction::once(&self.segments),
                a: &x[group * channels..],
                b: &packed[group * group_len..(group + 1) * group_len],
                layout: Columns::Packed { depth: self.taps.len() * channels },
                columns: filters,
                bias: bias.map(|bias| &bias[group * filters..]),
                epilogue: Epilogue::Linear,
                accumulate: false,
                cold: false,
                moments: None,
                out: &mut full[group * filters..],
            }
            .run_on(self.level);
        }
        pool(shape, full, relu, y, argmax);
    }
}

impl PooledForward {
    /// Values in the smallest piece of a sample's maxima that [`run_piece`](Self::run_piece) computes; 0 where there are none.
    pub fn unit(&self) -> usize {
        let [_, width, filters] = self.shape.output();
        match &self.winograd {
            Some(_) => width * filters,
            None if self.in_tiles() => filters,
            None => 0,
        }
    }

    /// A part of one sample's maxima and positions, from a multiple of [`unit`](Self::unit) to another one; the same to the bit
    /// as that of [`run`](Self::run). `scratch` is as for one sample.
    #[allow(clippy::too_many_arguments, reason = "each is one buffer of the operation")]
    pub fn run_piece(
        &self,
        part: Range<usize>,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        relu: bool,
        y: &mut [f32],
        argmax: &mut [u8],
        scratch: &mut [f32],
    ) {
        let (shape, conv, unit) = (&self.shape, &self.shape.conv, self.unit().max(1));
        assert_eq!(x.len(), conv.input_len(), "x of {shape:?}");
        assert!(part.end <= shape.output_len() && part.len() == y.len(), "y of {shape:?}");
        assert_eq!(argmax.len(), y.len(), "argmax of {shape:?}");
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {shape:?}");
        assert!(bias.is_none_or(|bias| bias.len() == conv.filters), "bias of {shape:?}");
        assert!(
            part.start.is_multiple_of(unit) && part.end.is_multiple_of(unit),
            "pieces of {unit} values of {shape:?}"
        );
        if y.is_empty() {
            return;
        }
        let units = part.start / unit..part.end / unit;
        if let Some(winograd) = &self.winograd {
            let output = Output::Pooled { relu, maxima: y, positions: argmax };
            return winograd.run_rows(units, x, packed, bias, output, scratch);
        }
        // Windows lie alike from whichever row on, so that those of the first rows do for all.
        let (width, pool) = (shape.output()[1], shape.pool[0]);
        let (row, column) = (units.start / width, units.start % width);
        let down = ((units.end - 1) / width - row + 1) * pool;
        let top = row * pool * conv.strides[0];
        let input_rows = top..top + (down - 1) * conv.strides[0] + conv.extent()[0];
        let windows = column * shape.window()..(column + units.len()) * shape.window();
        let x = self.source.prepare_rows(input_rows, x, scratch);
        self.find_maxima(1, column, &self.windows[windows], x, packed, bias, relu, y, argmax);
    }

    /// Convolves and finds the maxima in the tiles, of windows that begin with the `first` one of a row.
    #[allow(clippy::too_many_arguments, reason = "each is one buffer of the operation")]
    fn find_maxima(
        &self,
        samples: usize,
        first: usize,
        windows: &[u32],
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        relu: bool,
        y: &mut [f32],
        argmax: &mut [u8],
    ) {
        let (shape, conv) = (&self.shape, &self.shape.conv);
        let group_len = self.matrix.group_len(self.taps.len(), self.size);
        let (channels, filters) = (conv.group_channels(), conv.group_filters());
        if let Some((tiles, slots)) = self.amx {
            return AmxProduct {
                rows: windows,
                samples,
                stride: self.source.sample(),
                segments: &self.segments,
                slots,
                a: x,
                b: packed,
                depth: self.taps.len() * channels,
                columns: filters,
                bias,
                output: AmxOutput::Pooled { window: shape.window(), relu, maxima: y, positions: argmax },
            }
            .run_on(tiles);
        }
        if suits_pooled(conv, shape.pool) {
            let product = RowProduct {
                width: shape.output()[1],
                pixels: first..first + windows.len() / shape.window(),
                samples,
                sample: self.source.sample(),
                a: &x[self.source.origin()..],
                pitch: self.source.pitch(),
                b: packed,
                bias,
                output: RowOutput::Pooled { relu, maxima: y, positions: argmax },
            };
            return product.run_on(conv, self.level);
        }
        for group in 0..conv.groups {
            PooledProduct {
                rows: windows,
                window: shape.window(),
                samples,
                input_stride: self.source.sample(),
                segments: &self.segments,
                a: &x[group * channels..],
                b: &packed[group * group_len..(group + 1) * group_len],
                depth: self.taps.len() * channels,
                columns: filters,
                bias: bias.map(|bias| &bias[group * filters..]),
                relu,
                pitch: conv.filters,
                maxima: &mut y[group * filters..],
                positions: &mut argmax[group * filters..],
            }
            .run_on(self.level);
        }
    }
}

impl Packing for PooledForward {
    fn packed_len(&self) -> usize {
        if let Some(winograd) = &self.winograd {
            return winograd.packed_len();
        }
        self.shape.conv.groups * self.matrix.group_len(self.taps.len(), self.size)
    }

    fn pack(&self, pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        assert_eq!(weights.len(), self.shape.conv.weights_len(), "weights of {:?}", self.shape);
        if let Some(winograd) = &self.winograd {
            return winograd.pack(pool, &self.matrix, &self.taps, weights, packed);
        }
        self.matrix.pack(self.level, pool, &self.taps, weights, packed, self.amx.is_some());
    }

    fn cut(&self) -> Option<Cut> {
        let direct = self.winograd.is_none() && self.amx.is_none();
        let apart = self.shape.conv.groups == 1 && (direct || self.winograd.as_ref().is_some_and(Winograd::can_be_cut));
        apart.then(|| self.shape.conv.cut(1))
    }

    unsafe fn pack_rows(&self, weights: &WeightRows) {
        let place = [weights.range(), 0..self.shape.conv.filters];
        let depth = self.taps.len() * self.shape.conv.input[2];
        // SAFETY: the caller's promise.
        unsafe {
            match &self.winograd {
                Some(winograd) => winograd.pack_rows(&self.matrix, &self.taps, weights, place),
                None => self.matrix.pack_rows(self.level, &self.taps, weights, place, [0, depth, 0], |_| {}),
            }
        }
    }
}

/// The faster way for 2x2 pools behind 3x3 kernels: a pooling window is one of its tiles.
fn winograd(shape: &PooledShape, level: Level, precision: Precision) -> Option<Winograd> {
    let conv = &shape.conv;
    let [height, width, filters] = shape.output();
    let before = [conv.padding[0] as isize, conv.padding[2] as isize];
    let suits = shape.pool == [2, 2] && winograd::suits(conv, [2 * height, 2 * width]);
    let output = [2 * height, 2 * width];
    suits.then(|| Winograd::in_small_tiles(Filtering { image: conv.input, before, output, filters, level, precision }))
}

/// Finds the maxima of a convolution whose pixels lie window by window.
fn pool(shape: &PooledShape, full: &[f32], relu: bool, y: &mut [f32], argmax: &mut [u8]) {
    let filters = shape.conv.filters;
    let pooled = y.chunks_exact_mut(filters).zip(argmax.chunks_exact_mut(filters));
    for ((y, argmax), window) in pooled.zip(full.chunks_exact(filters * shape.window())) {
        y.copy_from_slice(&window[..filters]);
        argmax.fill(0);
        for (position, values) in window.chunks_exact(filters).enumerate().skip(1) {
            for ((y, argmax), &value) in y.iter_mut().zip(argmax.iter_mut()).zip(values) {
                if value > *y {
                    (*y, *argmax) = (value, position as u8);
                }
            }
        }
        if relu {
            for (y, argmax) in y.iter_mut().zip(argmax.iter_mut()) {
                if *y <= 0.0 {
                    (*y, *argmax) = (0.0, CLOSED);
                }
            }
        }
    }
}
