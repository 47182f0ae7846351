//! The gradient with respect to the weights: each of its rows is one value of the window, summed over all pixels with `dy`.

use super::amx_weights::AmxWeights;
use super::blocked_weights::{self, BlockedWeights};
use super::depthwise::{DepthwiseWeights, is_depthwise};
use super::depthwise_tile::Windows;
use super::depthwise_weights::TileWeights;
use super::geometry::{Segment, Source, forward_taps};
use super::pack::TileSize;
use super::paired_weights::PairedWeights;
use super::tile::{Columns, Product, Reduction, Rows};
use super::weight_tile::{Run, SHORT, WeightProduct, runs};
use super::winograd;
use super::winograd::{LineWeights, WinogradWeights};
use super::{ConvShape, Epilogue};
use crate::{Level, Precision};

/// Bytes of both factors that every tile reads before the next ones, from a common second-level cache; few in tests. Half as many were no faster.
const BLOCK_BYTES: usize = if cfg!(test) { 4 << 10 } else { 1 << 20 };

/// Pixels at least that sums stay in registers for: they may be more than the cache holds.
const BLOCK_PIXELS: usize = if cfg!(test) { 16 } else { 256 };

/// `dw` from `x` and `dy`.
#[derive(Clone, Debug)]
pub struct BackwardWeights {
    shape: ConvShape,
    level: Level,
    size: TileSize,
    source: Source,
    /// Where each tap, and each row of the gradient, starts in the windows; and each row in `dw`.
    taps: Vec<usize>,
    values: Vec<u32>,
    rows: Vec<u32>,
    /// Those rows as runs of neighbours.
    runs: Vec<Run>,
    /// The pixels of one sample, and the input's offset from one to the next within a segment.
    segments: Vec<Segment>,
    step: usize,
    /// Pixels that are summed over before the next ones, for all rows and columns.
    block_pixels: usize,
    amx: Option<AmxWeights>,
    line: Option<LineWeights>,
    winograd: Option<WinogradWeights>,
    paired: Option<PairedWeights>,
    depthwise: Option<Windows>,
}

impl BackwardWeights {
    /// Lays out the gradient of a convolution of that shape.
    pub fn new(shape: ConvShape, level: Level, precision: Precision) -> Self {
        shape.check();
        let [height, width, _] = shape.output();
        let filtered = winograd::suits(&shape, [height, width]);
        // A dense layer has a slot's few samples to sum over, for which single precision is faster.
        let pairs = precision == Precision::Bf16 && shape.groups == 1 && shape.input[2] >= 8 && height * width > 1;
        let amx = level.tiles().filter(|_| pairs).map(|tiles| AmxWeights::new(shape, tiles));
        let (filtered, pairs) = (filtered && amx.is_none(), pairs && !filtered && amx.is_none());
        let source = Source::of_input(&shape);
        let channels = shape.group_channels();
        let taps: Vec<_> = forward_taps(&shape, &source).iter().map(|tap| source.origin() + tap.offset).collect();
        let values: Vec<_> = taps.iter().flat_map(|&tap| (0..channels).map(move |c| (tap + c) as u32)).collect();
        let (down, across) = (shape.strides[0] * source.pitch(), shape.strides[1] * source.channels);
        let segments = |count: usize, len: usize| {
            (0..count).map(|row| Segment { a: row * down, k: row * len, len }).collect::<Vec<_>>()
        };
        // Rows of pixels that follow each other at the same distance are one segment.
        let (segments, step) = if width == 1 {
            (segments(1, height), down)
        } else if height == 1 || down == width * across {
            (segments(1, height * width), across)
        } else {
            (segments(height, width), across)
        };
        // What is read for one pixel, each value counted once.
        let values_read = source.sample() / (height * width).max(1) + shape.filters;
        let line = filtered.then(|| LineWeights::suiting(shape, level, precision)).flatten();
        BackwardWeights {
            shape,
            level,
            size: TileSize::of(level),
            runs: runs(&values),
            values,
            taps,
            rows: (0..shape.taps() * channels).map(|row| (row * shape.filters) as u32).collect(),
            segments,
            step,
            block_pixels: (BLOCK_BYTES / (4 * values_read.max(1))).max(BLOCK_PIXELS),
            winograd: (filtered && line.is_none()).then(|| WinogradWeights::new(shape, level, precision)),
            line,
            amx,
            paired: pairs.then(|| PairedWeights::new(shape, level)),
            depthwise: Windows::of_input(&shape),
            source,
        }
    }

    /// The filters of one group in whole vectors, if `dy` must be copied to have them so.
    fn padded_filters(&self) -> Option<usize> {
        if is_depthwise(&self.shape) {
            return None;
        }
        let filters = self.shape.group_filters();
        let padded = self.size.padded(filters);
        (padded != filters).then_some(padded)
    }

    /// Values of the copies of both factors, where there are any.
    fn blocks_len(&self, samples: usize) -> usize {
        let [height, width, _] = self.shape.output();
        let copied = blocked_weights::small(self.size.rows)
            && blocked_weights::suits(self.values.len(), self.shape.group_filters())
            && samples * height * width > SHORT / 2;
        if copied { blocked_weights::SCRATCH } else { 0 }
    }

    fn copied_dy_len(&self, samples: usize) -> usize {
        let [height, width, _] = self.shape.output();
        self.padded_filters().map_or(0, |padded| samples * height * width * self.shape.groups * padded)
    }

    /// Values that [`run`](Self::run) needs besides; what they hold does not matter.
    pub fn scratch_len(&self, samples: usize) -> usize {
        match (&self.winograd, &self.paired) {
            _ if self.amx.is_some() => self.amx.as_ref().map_or(0, |amx| amx.scratch_len(samples)),
            _ if self.line.is_some() => self.line.as_ref().map_or(0, LineWeights::scratch_len),
            (Some(winograd), _) => winograd.scratch_len(samples),
            (_, Some(paired)) => paired.scratch_len(samples),
            _ if self.depthwise.is_some() => 0,
            (None, None) => self.blocks_len(samples) + self.source.scratch_len(samples) + self.copied_dy_len(samples),
        }
    }

    /// Sums the gradient of `samples` images into `dw` (HWIO): over what it holds if `accumulate`, else over zero.
    pub fn run(&self, samples: usize, x: &[f32], dy: &[f32], dw: &mut [f32], accumulate: bool, scratch: &mut [f32]) {
        let shape = &self.shape;
        assert_eq!(x.len(), samples * shape.input_len(), "x of {shape:?}");
        assert_eq!(dy.len(), samples * shape.output_len(), "dy of {shape:?}");
        assert_eq!(dw.len(), shape.weights_len(), "dw of {shape:?}");
        assert!(scratch.len() >= self.scratch_len(samples), "scratch of {shape:?}");
        if let Some(amx) = self.amx.as_ref().filter(|_| samples > 0) {
            return amx.run(samples, x, dy, dw, accumulate, scratch);
        }
        if let Some(line) = self.line.as_ref().filter(|_| samples > 0) {
            return line.run(samples, x, dy, dw, accumulate, scratch);
        }
        if let Some(winograd) = self.winograd.as_ref().filter(|_| samples > 0) {
            return winograd.run(samples, x, dy, dw, accumulate, scratch);
        }
        if let Some(paired) = self.paired.as_ref().filter(|_| samples > 0) {
            return paired.run(samples, x, dy, dw, accumulate, scratch);
        }
        if let Some(windows) = &self.depthwise {
            return TileWeights { windows, samples, x, dy, accumulate, dw }.run_on(self.level);
        }
        let [height, width, _] = shape.output();
        let (channels, filters, pixels) = (shape.group_channels(), shape.group_filters(), height * width);
        let (blocks, scratch) = scratch.split_at_mut(self.blocks_len(samples));
        let (dy_scratch, scratch) = scratch.split_at_mut(self.copied_dy_len(samples));
        let x = self.source.prepare(samples, x, scratch);
        if dw.is_empty() {
            return;
        }
        if x.is_empty() || dy.is_empty() {
            if !accumulate {
                dw.fill(0.0);
            }
            return;
        }
        let (dy, group_filters) = match self.padded_filters() {
            None => (dy, filters),
            Some(padded) => {
                for (to, from) in dy_scratch.chunks_exact_mut(padded).zip(dy.chunks_exact(filters)) {
                    to[..filters].copy_from_slice(from);
                    to[filters..].fill(0.0);
                }
                (&*dy_scratch, padded)
            }
        };
        let stride = self.source.sample();
        // Samples that follow each other as their pixels do are one segment, too; those of a dense layer always.
        let merged = match (pixels, &self.segments[..]) {
            (1, _) => Some(stride),
            (_, [_]) if stride == pixels * self.step => Some(self.step),
            _ => None,
        };
        let whole = [Segment { a: 0, k: 0, len: samples * pixels }];
        let reduction = match merged {
            Some(step) => Reduction { segments: &whole, step, repeat: 1, a_stride: 0, k_stride: 0 },
            None => Reduction {
                segments: &self.segments,
                step: self.step,
                repeat: samples,
                a_stride: stride,
                k_stride: pixels,
            },
        };
        if is_depthwise(shape) {
            let (taps, channels) = (&self.taps, shape.groups);
            return DepthwiseWeights { taps, reduction, a: x, dy, channels, accumulate, dw }.run_on(self.level);
        }
        for group in 0..shape.groups {
            let (a, b, pitch) = (&x[group * channels..], &dy[group * group_filters..], shape.groups * group_filters);
            let out = &mut dw[group * filters..];
            let (columns, out_pitch) = (filters, shape.filters);
            let rows = &self.values[..];
            if !blocks.is_empty() {
                let scratch = &mut *blocks;
                let product =
                    BlockedWeights { rows, reduction, a, b, pitch, columns, accumulate, out_pitch, out, scratch };
                product.run_on(self.level);
                continue;
            }
            if samples * pixels <= SHORT || blocked_weights::small(self.size.rows) {
                let runs = &self.runs;
                WeightProduct { runs, reduction, a, b, pitch, columns, accumulate, out_pitch, out }.run_on(self.level);
                continue;
            }
            let rows = Rows { input: rows, output: &self.rows, samples: 1, input_stride: 0, output_stride: 0 };
            let mut accumulate = accumulate;
            reduction.for_each_block(self.block_pixels, |reduction, from, k| {
                Product {
                    rows,
                    reduction,
                    a: &a[from..],
                    b: &b[k * pitch..],
                    layout: Columns::Plain { pitch },
                    columns,
                    bias: None,
                    epilogue: Epilogue::Linear,
                    accumulate,
                    cold: false,
                    moments: None,
                    out,
                }
                .run_on(self.level);
                accumulate = true;
            });
        }
    }
}
