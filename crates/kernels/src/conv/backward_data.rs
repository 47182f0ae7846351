//! The gradient with respect to the input: a convolution of the output's gradient with the kernel turned around.
//!
//! With strides, an input pixel is touched only by the taps that agree with its place between the windows' corners, so
//! the pixels are done by phase, `(row + padding) % strides`; each phase is a dense convolution with its share of the taps.

use super::amx_product::{self, AmxOutput, AmxProduct};
use super::depthwise::{self, Depthwise, is_depthwise};
use super::depthwise_data::DataTiles;
use super::factors::rounds_to_pairs;
use super::geometry::{Segment, Source, Tap, is_cold, segments};
use super::pack::{Matrix, TileSize};
use super::tile::{Columns, Product, Reduction, Rows};
use super::winograd::{self, Filtering, Output, Winograd};
use super::{ConvShape, Epilogue, Sums};
use crate::isa::Amx;
use crate::packing::{Cut, Packing, WeightRows};
use crate::{Level, Pool, Precision, ValuesMut};
use std::ops::Range;

/// `dx` from `dy` and the weights.
#[derive(Clone, Debug)]
pub struct BackwardData {
    shape: ConvShape,
    level: Level,
    size: TileSize,
    source: Source,
    matrix: Matrix,
    phases: Vec<Phase>,
    /// Values of pixels that no window sees.
    unseen: Vec<Range<usize>>,
    /// Whether the direct way multiplies pairs of bf16 values.
    pairs: bool,
    /// Where tiles multiply the pairs.
    amx: Option<Amx>,
    winograd: Option<Winograd>,
    depthwise: Option<Box<DataTiles>>,
}

/// The input pixels that see the same taps.
#[derive(Clone, Debug)]
struct Phase {
    taps: Vec<Tap>,
    segments: Vec<Segment>,
    /// Where each pixel's window into `dy` starts, and where the pixel lies in `dx`.
    windows: Vec<u32>,
    pixels: Vec<u32>,
    /// Where its packed weights start.
    packed: usize,
}

/// One phase along one axis.
struct AxisPhase {
    /// The pixels of the phase, each with its `q = (pixel + padding) / stride`.
    pixels: Vec<(usize, isize)>,
    /// The kernel positions that touch them, last first, each with its shift: it reads output `q - shift`.
    taps: Vec<(usize, isize)>,
}

fn axis_phases(shape: &ConvShape, axis: usize) -> Vec<AxisPhase> {
    let (stride, dilation, before) = (shape.strides[axis], shape.dilation[axis], shape.padding[2 * axis]);
    (0..stride)
        .map(|phase| AxisPhase {
            pixels: (0..shape.input[axis])
                .filter(|pixel| (pixel + before) % stride == phase)
                .map(|pixel| (pixel, ((pixel + before) / stride) as isize))
                .collect(),
            taps: (0..shape.kernel[axis])
                .rev()
                .filter(|tap| tap * dilation % stride == phase)
                .map(|tap| (tap, (tap * dilation / stride) as isize))
                .collect(),
        })
        .filter(|phase| !phase.pixels.is_empty())
        .collect()
}

/// The least and the greatest output that any phase reads along an axis.
fn reads(phases: &[AxisPhase]) -> Option<(isize, isize)> {
    let ends = phases.iter().filter_map(|phase| {
        let (first, last) = (phase.pixels.first()?.1, phase.pixels.last()?.1);
        let (most, least) = (phase.taps.first()?.1, phase.taps.last()?.1);
        Some((first - most, last - least))
    });
    ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// The faster way for 3x3 kernels.
fn winograd(shape: &ConvShape, level: Level, precision: Precision) -> Option<Winograd> {
    let [height, width, channels] = shape.input;
    let before = [2 - shape.padding[0] as isize, 2 - shape.padding[2] as isize];
    let suits = winograd::suits(shape, [height, width]);
    suits.then(|| {
        let output = [height, width];
        Winograd::of_gradient(Filtering { image: shape.output(), before, output, filters: channels, level, precision })
    })
}

/// The values of the pixels that begin there, neighbours together.
fn joined(mut pixels: Vec<u32>, channels: usize) -> Vec<Range<usize>> {
    pixels.sort_unstable();
    let mut runs: Vec<Range<usize>> = Vec::new();
    for pixel in pixels.into_iter().map(|pixel| pixel as usize) {
        match runs.last_mut() {
            Some(last) if last.end == pixel => last.end += channels,
            _ => runs.push(pixel..pixel + channels),
        }
    }
    runs
}

/// Values of a phase's packed weights.
fn phase_len(shape: &ConvShape, matrix: &Matrix, taps: usize, size: TileSize) -> usize {
    if is_depthwise(shape) {
        return depthwise::packed_len(taps, shape.groups, size.lanes);
    }
    shape.groups * matrix.group_len(taps, size)
}

impl BackwardData {
    /// Lays out the gradient of a convolution of that shape.
    pub fn new(shape: ConvShape, level: Level, precision: Precision) -> Self {
        shape.check();
        let size = TileSize::of(level);
        let (channels, filters) = (shape.group_channels(), shape.group_filters());
        let matrix = Matrix {
            channels: filters,
            columns: channels,
            row_stride: 1,
            column_stride: shape.filters,
            tap_stride: channels * shape.filters,
            group_stride: filters,
            groups: shape.groups,
        };
        let (down, across) = (axis_phases(&shape, 0), axis_phases(&shape, 1));
        let ((top, bottom), (left, right)) = (reads(&down).unwrap_or((0, -1)), reads(&across).unwrap_or((0, -1)));
        let extent = [(bottom - top + 1) as usize, (right - left + 1) as usize];
        let pairs = rounds_to_pairs(&shape, filters, precision);
        let source = Source::new(shape.output(), [-top, -left], extent);
        let source = if pairs { source.in_pairs(level) } else { source };
        let mut packed = 0;
        let mut phases = Vec::new();
        for rows in &down {
            for columns in &across {
                let corner = |axis: &AxisPhase| axis.taps.first().map_or(0, |tap| tap.1);
                let (row_corner, column_corner) = (corner(rows), corner(columns));
                let place =
                    |row: isize, column: isize| row as usize * source.pitch() + column as usize * source.channels;
                let taps: Vec<Tap> = rows
                    .taps
                    .iter()
                    .flat_map(|&(row, row_shift)| {
                        columns.taps.iter().map(move |&(column, column_shift)| Tap {
                            offset: place(row_corner - row_shift, column_corner - column_shift),
                            position: row * shape.kernel[1] + column,
                        })
                    })
                    .collect();
                let (mut windows, mut pixels) = (Vec::new(), Vec::new());
                for &(row, row_q) in &rows.pixels {
                    for &(column, column_q) in &columns.pixels {
                        // Where no tap touches the phase, nothing is read and the pixel gets zero.
                        let window = match taps.is_empty() {
                            true => 0,
                            false => source.origin() + place(row_q - row_corner - top, column_q - column_corner - left),
                        };
                        windows.push(window as u32);
                        pixels.push(((row * shape.input[1] + column) * shape.input[2]) as u32);
                    }
                }
                let len = phase_len(&shape, &matrix, taps.len(), size);
                phases.push(Phase {
                    segments: segments(&taps, source.channels / shape.groups),
                    taps,
                    windows,
                    pixels,
                    packed,
                });
                packed += len;
            }
        }
        let tiled =
            pairs && shape.groups == 1 && phases.iter().all(|phase| amx_product::slots(&phase.segments).is_some());
        let amx = level.tiles().filter(|_| tiled);
        let unseen = phases.iter().filter(|phase| phase.taps.is_empty()).flat_map(|phase| &phase.pixels);
        let unseen = joined(unseen.copied().collect(), shape.input[2]);
        let winograd = winograd(&shape, level, precision).filter(|_| amx.is_none());
        let depthwise = DataTiles::new(&shape).map(Box::new);
        BackwardData { shape, level, size, source, matrix, phases, unseen, pairs, amx, winograd, depthwise }
    }

    fn phase_len(&self, phase: &Phase) -> usize {
        phase_len(&self.shape, &self.matrix, phase.taps.len(), self.size)
    }
}

impl Packing for BackwardData {
    fn packed_len(&self) -> usize {
        if let Some(winograd) = &self.winograd {
            return winograd.packed_len();
        }
        if let Some(depthwise) = self.depthwise.as_deref() {
            return depthwise.packed_len(self.size.lanes);
        }
        self.phases.iter().map(|phase| self.phase_len(phase)).sum()
    }

    fn pack(&self, pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        assert_eq!(weights.len(), self.shape.weights_len(), "weights of {:?}", self.shape);
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {:?}", self.shape);
        if let Some(depthwise) = self.depthwise.as_deref() {
            return depthwise.pack(self.size.lanes, weights, packed);
        }
        for phase in &self.phases {
            if let Some(winograd) = &self.winograd {
                return winograd.pack(pool, &self.matrix, &phase.taps, weights, packed);
            }
            let packed = &mut packed[phase.packed..phase.packed + self.phase_len(phase)];
            if is_depthwise(&self.shape) {
                depthwise::pack(&phase.taps, self.shape.groups, self.size.lanes, weights, packed);
            } else {
                self.matrix.pack(self.level, pool, &phase.taps, weights, packed, self.pairs);
            }
        }
    }

    fn cut(&self) -> Option<Cut> {
        let direct = self.winograd.is_none() && !self.pairs && self.depthwise.is_none();
        let apart = self.shape.groups == 1 && (direct || self.winograd.as_ref().is_some_and(Winograd::can_be_cut));
        apart.then(|| self.shape.cut(self.size.lanes))
    }

    unsafe fn pack_rows(&self, weights: &WeightRows) {
        for Phase { taps, packed, .. } in &self.phases {
            let (place, depth) = ([0..self.shape.filters, weights.range()], taps.len() * self.shape.filters);
            // SAFETY: the caller's promise; kernels of minimal filtering have one phase.
            unsafe {
                match &self.winograd {
                    Some(winograd) => winograd.pack_rows(&self.matrix, taps, weights, place),
                    None => self.matrix.pack_rows(self.level, taps, weights, place, [*packed, depth, 0], |_| {}),
                }
            }
        }
    }
}

impl BackwardData {
    /// Values that [`run`](Self::run) needs besides; what they hold does not matter.
    pub fn scratch_len(&self, samples: usize) -> usize {
        match &self.winograd {
            Some(winograd) => winograd.scratch_len(samples),
            None if self.depthwise.is_some() => 0,
            None => self.source.scratch_len(samples),
        }
    }

    /// Computes `dx` of `samples` images from `dy`; rounded to bf16 only with shapes that
    /// [allow it](ConvShape::writes_bf16_data), and in that precision.
    ///
    /// # Panics
    /// Where they do not, or a slice does not have the shape's length.
    pub fn run(&self, samples: usize, dy: &[f32], packed: &[f32], dx: ValuesMut<'_>, scratch: &mut [f32]) {
        let shape = &self.shape;
        assert_eq!(dy.len(), samples * shape.output_len(), "dy of {shape:?}");
        assert_eq!(dx.len(), samples * shape.input_len(), "dx of {shape:?}");
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {shape:?}");
        if dx.is_empty() {
            return;
        }
        if let Some(winograd) = &self.winograd {
            let output = Output::Plain { epilogue: Epilogue::Linear, sums: Sums::New(dx) };
            return winograd.run(samples, dy, packed, None, output, scratch);
        }
        if let Some(tiles) = self.amx.filter(|_| !dx.is_bf16() || shape.writes_bf16_data()) {
            return self.run_tiles(tiles, samples, dy, packed, dx, scratch);
        }
        let ValuesMut::F32(dx) = dx else { panic!("{shape:?} has no bf16 gradient") };
        if let Some(depthwise) = self.depthwise.as_deref() {
            return depthwise.run_on(self.level, 0..shape.input[0], samples, dy, packed, dx);
        }
        let dy = self.source.prepare(samples, dy, scratch);
        if dy.is_empty() {
            dx.fill(0.0);
            return;
        }
        let (channels, filters) = (shape.group_channels(), shape.group_filters());
        self.clear_unseen(dx);
        for phase in self.seen() {
            let rows = Rows {
                input: &phase.windows,
                output: &phase.pixels,
                samples,
                input_stride: self.source.sample(),
                output_stride: shape.input_len(),
            };
            let rows = if shape.is_pointwise() { rows.as_samples() } else { rows };
            if is_depthwise(shape) {
                Depthwise {
                    rows,
                    taps: &phase.taps,
                    a: dy,
                    packed: &packed[phase.packed..phase.packed + self.phase_len(phase)],
                    channels: shape.groups,
                    bias: None,
                    epilogue: Epilogue::Linear,
                    out: &mut *dx,
                }
                .run_on(self.level);
                continue;
            }
            let group_len = self.matrix.group_len(phase.taps.len(), self.size);
            for group in 0..shape.groups {
                let start = phase.packed + group * group_len;
                let product = Product {
                    rows,
                    reduction: Reduction::once(&phase.segments),
                    a: &dy[group * (self.source.channels / shape.groups)..],
                    b: &packed[start..start + group_len],
                    layout: Columns::Packed { depth: phase.taps.len() * filters },
                    columns: channels,
                    bias: None,
                    epilogue: Epilogue::Linear,
                    accumulate: false,
                    cold: is_cold(shape.input_len()),
                    moments: None,
                    out: &mut dx[group * channels..],
                };
                if self.pairs { product.run_pairs_on(self.level) } else { product.run_on(self.level) }
            }
        }
    }

    /// The phases that are products.
    fn seen(&self) -> impl Iterator<Item = &Phase> {
        self.phases.iter().filter(|phase| !phase.taps.is_empty())
    }

    /// Zeros for the pixels of the others.
    fn clear_unseen(&self, dx: &mut [f32]) {
        for sample in dx.chunks_exact_mut(self.shape.input_len()) {
            self.unseen.iter().for_each(|values| sample[values.clone()].fill(0.0));
        }
    }

    /// By tile instructions.
    fn run_tiles(
        &self,
        tiles: Amx,
        samples: usize,
        dy: &[f32],
        packed: &[f32],
        mut dx: ValuesMut<'_>,
        scratch: &mut [f32],
    ) {
        let dy = self.source.prepare(samples, dy, scratch);
        if let (ValuesMut::F32(dx), true) = (dx.reborrow(), dy.is_empty()) {
            dx.fill(0.0);
            return;
        }
        // Shapes whose gradient is rounded to bf16 have unit strides, and see every pixel.
        if let ValuesMut::F32(dx) = dx.reborrow() {
            self.clear_unseen(dx);
        }
        for phase in self.seen() {
            AmxProduct {
                rows: &phase.windows,
                samples,
                stride: self.source.sample(),
                segments: &phase.segments,
                slots: amx_product::slots(&phase.segments).expect("all phases have tiles"),
                a: dy,
                b: &packed[phase.packed..phase.packed + self.phase_len(phase)],
                depth: phase.taps.len() * self.shape.filters,
                columns: self.shape.input[2],
                bias: None,
                output: AmxOutput::Plain {
                    places: &phase.pixels,
                    stride: self.shape.input_len(),
                    epilogue: Epilogue::Linear,
                    sums: Sums::New(dx.reborrow()),
                },
            }
            .run_on(tiles);
        }
    }
}
