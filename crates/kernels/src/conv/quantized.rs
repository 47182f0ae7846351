//! The convolution of bytes: 8-bit activations and weights, whole-number sums, and the scales applied before they leave the
//! registers.
//!
//! A byte of channel `c` stands for `scale[c] * byte + offset[c]`. The scales go into the weights, of which each filter has a
//! scale of its own; what the offsets add is known when the weights are, and joins the bias. The sums are exact, so every
//! level gives the same bits.

use super::geometry::{LINE, Segment, Source, Tap, forward_taps, segments, window_offset};
use super::pack::TileSize;
use super::quantized_pack::{MOST_COLUMNS, Panel};
use super::quantized_tile::{Out, QuantizedProduct, Shortcut};
use super::sparse_weights::pooled_windows;
use super::{ConvShape, Epilogue, PooledShape};
use crate::isa::DotLevel;
use crate::pool::Disjoint;
use crate::quantize::Encoding;
use crate::{Level, Packing, Pool};

/// `y = max over each pooling window of epilogue(convolution(x, weights) + bias)`, with `x` in bytes; the window may be one
/// pixel.
#[derive(Clone, Debug)]
pub struct QuantizedForward {
    shape: PooledShape,
    level: Level,
    size: TileSize,
    dots: DotLevel,
    source: Source,
    /// What the bytes of each channel stand for, and the byte nearest to zero.
    scale: Vec<f32>,
    offset: Vec<f32>,
    zero: Vec<u8>,
    /// Runs of four bytes that the windows read.
    quads: Vec<Segment>,
    /// For each byte of the reduction the row of the weights, where it has one.
    weight_rows: Vec<Option<u32>>,
    /// Where the convolution's windows start: all of one pooling window's, then the next one's.
    windows: Vec<u32>,
}

/// Where results go.
#[derive(Debug)]
pub enum Destination<'a> {
    /// Numbers.
    Numbers(&'a mut [f32]),
    /// Bytes of this encoding.
    Bytes(Encoding, &'a mut [u8]),
}

/// What is added to the results before the activation.
#[derive(Clone, Copy, Debug)]
pub enum Addend<'a> {
    /// Numbers.
    Numbers(&'a [f32]),
    /// Bytes of this encoding.
    Bytes(Encoding, &'a [u8]),
}

impl QuantizedForward {
    /// Whether the sums of such a reduction fit their 32 bits whatever the bytes are.
    pub fn suits(shape: &ConvShape) -> bool {
        shape.weights_len() / shape.filters <= i32::MAX as usize / (255 * 127)
    }

    /// Lays out the convolution of that shape; `scale` and `offset` say what a byte of each input channel stands for.
    pub fn new(shape: PooledShape, scale: &[f32], offset: &[f32], level: Level) -> Self {
        shape.check();
        let conv = &shape.conv;
        assert!(Self::suits(conv), "sums of {conv:?} fit 32 bits");
        assert!(
            scale.len() == conv.input[2] && offset.len() == conv.input[2],
            "a scale and an offset for each channel"
        );
        let channels = conv.group_channels();
        let mut source = Source::of_input(conv);
        // Windows are read in fours; what is read beyond a run meets weights of zero, but must lie in memory.
        if segments(&forward_taps(conv, &source), channels).iter().any(|run| !run.len.is_multiple_of(4)) {
            source = source.always_copied();
        }
        let taps = forward_taps(conv, &source);
        let (quads, weight_rows) = quads(&taps, channels);
        let size = TileSize::of(level);
        assert!(size.columns <= MOST_COLUMNS, "a panel's columns");
        let nearest = |(&scale, &offset): (&f32, &f32)| (-offset / scale).round() as u8;
        QuantizedForward {
            shape,
            level,
            size,
            dots: level.dots(),
            scale: scale.to_vec(),
            offset: offset.to_vec(),
            zero: scale.iter().zip(offset).map(nearest).collect(),
            quads,
            weight_rows,
            windows: windows(&shape, &source),
            source,
        }
    }

    /// Without the instructions that only some processors of the level have.
    #[cfg(test)]
    pub(super) fn common(mut self) -> Self {
        self.dots = self.dots.common();
        self
    }

    fn depth(&self) -> usize {
        self.weight_rows.len() / 4
    }

    fn group_len(&self) -> usize {
        self.depth() * self.size.padded(self.shape.conv.group_filters())
    }
}

impl Packing for QuantizedForward {
    fn packed_len(&self) -> usize {
        self.shape.conv.groups * self.group_len() + 2 * self.shape.conv.filters
    }

    /// Rounds `weights` (HWIO) to bytes in the order that [`run`](Self::run) reads, followed by each filter's scale and by
    /// what the input's offsets add to its sum.
    fn pack(&self, pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        let (conv, level) = (&self.shape.conv, self.level);
        assert_eq!(weights.len(), conv.weights_len(), "weights of {conv:?}");
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {conv:?}");
        let filters = conv.group_filters();
        let panels = filters.div_ceil(self.size.columns);
        let (group_len, depth) = (self.group_len(), self.depth());
        let tables = conv.groups * group_len;
        let packed = Disjoint(packed.as_mut_ptr());
        pool.run(conv.groups * panels, &|_, task| {
            let (group, column) = (task / panels, task % panels * self.size.columns);
            let width = self.size.panel(column, filters);
            let (start, filter) = (group * group_len + column * depth, group * filters + column);
            let used = width.min(filters - column);
            // SAFETY: panels and their filters' tables are disjoint ranges of `packed`, whose length was checked, and each is
            // one task's.
            let (panel, scales, offsets) = unsafe {
                (
                    packed.range(start, start + depth * width),
                    packed.range(tables + filter, tables + filter + used),
                    packed.range(tables + conv.filters + filter, tables + conv.filters + filter + used),
                )
            };
            let rows = &self.weight_rows[..];
            let (pitch, first) = (conv.filters, group * conv.group_channels());
            let channels = conv.group_channels();
            let (scale, offset) = (&self.scale[first..][..channels], &self.offset[first..][..channels]);
            let weights = &weights[filter..];
            level.dispatch(Panel { rows, pitch, weights, scale, offset, panel, width, scales, offsets });
        });
    }
}

impl QuantizedForward {
    /// Values that [`run`](Self::run) needs besides; what they hold does not matter.
    pub fn scratch_len(&self, samples: usize) -> usize {
        2 * self.table_len() + self.unpooled_len(samples) + self.copy_len(samples)
    }

    /// Values of a table with a number for each filter; every group's can be read in whole vectors.
    fn table_len(&self) -> usize {
        (self.shape.conv.filters + self.size.columns).next_multiple_of(LINE)
    }

    fn copy_len(&self, samples: usize) -> usize {
        match self.source.scratch_len(samples) {
            0 => 0,
            bytes => (bytes + 3).div_ceil(4),
        }
    }

    /// Values of the whole convolution, where the maxima are found afterwards.
    fn unpooled_len(&self, samples: usize) -> usize {
        if QuantizedProduct::has_tile(self.shape.window()) {
            0
        } else {
            (samples * self.windows.len() * self.shape.conv.filters).next_multiple_of(LINE)
        }
    }

    /// Convolves `samples` images `x` into `y`. Only where there is no pool, `shortcut` may be added.
    #[allow(clippy::too_many_arguments, reason = "each is one buffer of the operation")]
    pub fn run(
        &self,
        samples: usize,
        x: &[u8],
        packed: &[f32],
        bias: Option<&[f32]>,
        shortcut: Option<Addend<'_>>,
        epilogue: Epilogue,
        y: Destination<'_>,
        scratch: &mut [f32],
    ) {
        let (shape, conv) = (&self.shape, &self.shape.conv);
        assert_eq!(x.len(), samples * conv.input_len(), "x of {shape:?}");
        assert_eq!(y.len(), samples * shape.output_len(), "y of {shape:?}");
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {shape:?}");
        assert!(bias.is_none_or(|bias| bias.len() == conv.filters), "bias of {shape:?}");
        assert!(scratch.len() >= self.scratch_len(samples), "scratch of {shape:?}");
        let added = shortcut.map_or(y.len(), |addend| addend.len());
        assert!(added == y.len() && (shortcut.is_none() || shape.window() == 1), "a shortcut of {shape:?}");
        if y.is_empty() {
            return;
        }
        let (factor, scratch) = scratch.split_at_mut(self.table_len());
        let (term, scratch) = scratch.split_at_mut(self.table_len());
        let (unpooled, scratch) = scratch.split_at_mut(self.unpooled_len(samples));
        let shortcut = Shortcut::of(shortcut, &y);
        self.fill_tables(packed, bias, shortcut.as_ref(), &y, factor, term);
        let copy = bytemuck::cast_slice_mut(scratch);
        let bounds = y.bounds(epilogue);
        let product = QuantizedProduct {
            rows: &self.windows,
            window: shape.window(),
            samples,
            input_stride: self.source.sample(),
            quads: &self.quads,
            depth: self.depth(),
            a: self.source.prepare_bytes(samples, &self.zero, x, copy),
            b: bytemuck::cast_slice(&packed[..conv.groups * self.group_len()]),
            factor,
            term,
            shortcut,
            bounds,
            groups: conv.groups,
            group_channels: conv.group_channels(),
            columns: conv.group_filters(),
            out: Out::Bytes(&mut []),
        };
        if QuantizedProduct::has_tile(shape.window()) {
            return self.dots.dispatch(QuantizedProduct { out: Out::of(y), ..product });
        }
        let product = QuantizedProduct { window: 1, ..product };
        let full = samples * self.windows.len() * conv.filters;
        match y {
            Destination::Numbers(y) => {
                self.dots.dispatch(QuantizedProduct { out: Out::Numbers(&mut unpooled[..full]), ..product });
                pool(shape, &unpooled[..full], y);
            }
            Destination::Bytes(_, y) => {
                let unpooled = &mut bytemuck::cast_slice_mut(unpooled)[..full];
                self.dots.dispatch(QuantizedProduct { out: Out::Bytes(unpooled), ..product });
                pool(shape, unpooled, y);
            }
        }
    }

    /// Each filter's factor from sums to results, and what is added then.
    fn fill_tables(
        &self,
        packed: &[f32],
        bias: Option<&[f32]>,
        shortcut: Option<&Shortcut<'_>>,
        y: &Destination<'_>,
        factor: &mut [f32],
        term: &mut [f32],
    ) {
        let filters = self.shape.conv.filters;
        let (scales, offsets) = packed[self.shape.conv.groups * self.group_len()..].split_at(filters);
        let (inverse, zero) = y.unit();
        let zero = zero + shortcut.map_or(0.0, |shortcut| shortcut.constant);
        for filter in 0..filters {
            factor[filter] = scales[filter] * inverse;
            term[filter] = (offsets[filter] + bias.map_or(0.0, |bias| bias[filter])) * inverse + zero;
        }
        factor[filters..].fill(0.0);
        term[filters..].fill(0.0);
    }
}

impl Destination<'_> {
    fn len(&self) -> usize {
        match self {
            Destination::Numbers(y) => y.len(),
            Destination::Bytes(_, y) => y.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What one is there, and where zero is.
    pub(super) fn unit(&self) -> (f32, f32) {
        match self {
            Destination::Numbers(_) => (1.0, 0.0),
            Destination::Bytes(encoding, _) => (encoding.inverse(), f32::from(encoding.zero_point)),
        }
    }

    /// The least and greatest result.
    fn bounds(&self, epilogue: Epilogue) -> (f32, f32) {
        let (low, high) = epilogue.bounds();
        match self {
            Destination::Numbers(_) => (low, high),
            Destination::Bytes(..) => {
                let (one, zero) = self.unit();
                ((low * one + zero).clamp(0.0, 255.0), (high * one + zero).clamp(0.0, 255.0))
            }
        }
    }
}

impl Addend<'_> {
    fn len(&self) -> usize {
        match self {
            Addend::Numbers(x) => x.len(),
            Addend::Bytes(_, x) => x.len(),
        }
    }
}

/// The taps as runs of four bytes, and the row of the weights behind each byte.
fn quads(taps: &[Tap], channels: usize) -> (Vec<Segment>, Vec<Option<u32>>) {
    let mut rows: Vec<Option<u32>> = Vec::new();
    let mut quads = Vec::new();
    for run in segments(taps, channels) {
        let len = run.len.div_ceil(4);
        quads.push(Segment { a: run.a, k: rows.len() / 4, len });
        let weights = (run.k..run.k + run.len).map(|k| (taps[k / channels].position * channels + k % channels) as u32);
        rows.extend(weights.map(Some));
        rows.resize(rows.len().next_multiple_of(4), None);
    }
    (quads, rows)
}

fn windows(shape: &PooledShape, source: &Source) -> Vec<u32> {
    if shape.window() > 1 {
        return pooled_windows(shape, source);
    }
    let [height, width, _] = shape.conv.output();
    (0..height * width).map(|p| window_offset(&shape.conv, source, p / width, p % width)).collect()
}

/// Finds the maxima of a convolution whose pixels lie window by window.
fn pool<T: Copy + PartialOrd>(shape: &PooledShape, full: &[T], y: &mut [T]) {
    let filters = shape.conv.filters;
    for (y, window) in y.chunks_exact_mut(filters).zip(full.chunks_exact(filters * shape.window())) {
        y.copy_from_slice(&window[..filters]);
        for values in window.chunks_exact(filters).skip(1) {
            for (y, &value) in y.iter_mut().zip(values) {
                if value > *y {
                    *y = value;
                }
            }
        }
    }
}
