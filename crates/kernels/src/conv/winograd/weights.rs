//! The weight gradient of a 3x3 convolution with unit strides by minimal filtering, the transpose of [`winograd`](super).
//!
//! Where the forward pass is `A^T [(G g G^T) * (B^T d B)] A`, the gradient of `g` is `G^T [sum over tiles of (A dy A^T) * (B^T d B)] G`:
//! sixteen products of transformed patches with transformed gradients, each summed over all tiles of 2x2 outputs.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::row_weights::{ROW, RowWeights};
use super::run::TilePlace;
use super::two::{PARTS, transform_patch, transform_row};
use crate::conv::blocked_weights::small;
use crate::conv::factors::Singles;
use crate::conv::geometry::{LINE, Segment, Source};
use crate::conv::pack::TileSize;
use crate::conv::tile::{Columns, Product, Reduction, Rows};
use crate::conv::weight_tile::{Run, SHORT, WeightProduct};
use crate::conv::{ConvShape, Epilogue};
use crate::isa::{Isa, Kernel};
use crate::{Level, Precision};
use std::ops::Range;

/// The plan: offsets and sizes.
#[derive(Clone, Debug)]
pub(in crate::conv) struct WinogradWeights {
    pub(super) shape: ConvShape,
    level: Level,
    precision: Precision,
    pub(super) source: Source,
    /// Tiles of 2x2 outputs, down and across.
    tiles: [usize; 2],
    /// Channels and filters in whole vectors.
    pub(super) padded_channels: usize,
    pub(super) padded_filters: usize,
    /// Tiles that are transformed together.
    block: usize,
    /// Channels and filters whose sums are kept at a time.
    area: [usize; 2],
    /// Whether the level's tiles are small.
    small: bool,
    /// Where each channel starts in a tile's patch, and its sums among the others.
    channels: Vec<u32>,
    rows: Vec<u32>,
}

/// Sums that the second-level cache holds beside what they are made of.
const SUMS: usize = 512 * 1024;

impl WinogradWeights {
    pub(in crate::conv) fn new(shape: ConvShape, level: Level, precision: Precision) -> Self {
        let size = TileSize::of(level);
        let [height, width, filters] = shape.output();
        let tiles = [height.div_ceil(2), width.div_ceil(2)];
        let (padded_channels, padded_filters) = (size.padded(shape.input[2]), size.padded(filters));
        let before = [shape.padding[0] as isize, shape.padding[2] as isize];
        // Enough tiles to be worth loading the sums for, as many as the second-level cache holds.
        let room = 128 * 1024 / (PARTS * (padded_channels + padded_filters));
        // Where the cache cannot hold the sums, they are made and transformed an area of channels and filters at a time. Each block of
        // tiles then ends in the gradient itself, so blocks are large.
        let all = [shape.input[2], padded_filters];
        let fits = PARTS * all[0] * all[1] <= SUMS;
        let area = if fits { all } else { [all[0].min(64), all[1].min(128)] };
        let block = match (precision, fits) {
            (Precision::F32, true) => room.clamp(32, 128),
            // Of few channels and filters the first-level cache holds a row of parts.
            (Precision::Bf16, true) if padded_channels + padded_filters <= 64 => 64,
            (Precision::Bf16, true) => 128,
            (_, false) => 128.min(8 * tiles[0] * tiles[1]),
        };
        WinogradWeights {
            shape,
            level,
            precision,
            source: Source::new(shape.input, before, tiles.map(|n| 2 * n + 2)),
            tiles,
            padded_channels,
            padded_filters,
            // Pairs of tiles are whole.
            block: block.next_multiple_of(2),
            area,
            small: small(size.rows),
            channels: (0..area[0] as u32).collect(),
            rows: (0..area[0]).map(|channel| (channel * area[1]) as u32).collect(),
        }
    }

    /// Slots of a channel, or a filter, in a block: its tiles, or pairs of them.
    pub(in crate::conv) fn slots(&self) -> usize {
        match self.precision {
            Precision::F32 => self.block,
            Precision::Bf16 => self.block / 2,
        }
    }

    /// Whether pairs of tiles are transformed and multiplied a row of parts at a time.
    fn by_rows(&self) -> bool {
        self.precision == Precision::Bf16 && self.whole()
    }

    /// Whether the sums of all blocks come together before they are transformed.
    fn whole(&self) -> bool {
        self.area == [self.shape.input[2], self.padded_filters]
    }

    /// From one part of the transformed patches, and of the transformed gradients, to the next: a line more than there are values, since
    /// all parts of a tile are written together and a power of two apart would share one set of the first-level cache.
    pub(super) fn pitches(&self) -> [usize; 2] {
        [self.padded_channels, self.padded_filters].map(|values| self.slots() * values + LINE)
    }

    /// Lengths of the transformed patches, the transformed gradients and the sums of their products.
    fn parts(&self) -> [usize; 3] {
        let parts = if self.by_rows() { ROW } else { PARTS };
        let [patches, gradients] = self.pitches().map(|pitch| parts * pitch);
        [patches, gradients, PARTS * self.area[0] * self.area[1]]
    }

    pub(in crate::conv) fn scratch_len(&self, samples: usize) -> usize {
        self.source.scratch_len(samples) + self.parts().iter().sum::<usize>()
    }

    pub(in crate::conv) fn run(
        &self,
        samples: usize,
        x: &[f32],
        dy: &[f32],
        dw: &mut [f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) {
        let [patches, gradients, sums] = self.parts();
        let (patches, scratch) = scratch.split_at_mut(patches);
        let (gradients, scratch) = scratch.split_at_mut(gradients);
        let (sums, scratch) = scratch.split_at_mut(sums);
        let x = self.source.prepare(samples, x, scratch);
        let total = samples * self.tiles[0] * self.tiles[1];
        if self.by_rows() {
            for first in (0..total).step_by(self.block) {
                let count = self.block.min(total - first);
                let (patches, gradients) = (&mut *patches, &mut *gradients);
                let tiles = Transform { plan: self, samples, x, dy, first, count, patches, gradients };
                self.level.dispatch_bf16(RowWeights { tiles, sums: &mut *sums, accumulate: first > 0 });
            }
            let (channels, filters) = (0..self.shape.input[2], 0..self.shape.filters);
            return self.level.dispatch(Finish { plan: self, channels, filters, sums, dw, accumulate });
        }
        let whole = self.whole();
        for first in (0..total).step_by(self.block) {
            let count = self.block.min(total - first);
            let (patches, gradients) = (&mut *patches, &mut *gradients);
            let transform = Transform { plan: self, samples, x, dy, first, count, patches, gradients };
            let len = match self.precision {
                Precision::F32 => self.level.dispatch(transform),
                Precision::Bf16 => self.level.dispatch_bf16(TransformPairs(transform)),
            };
            let segments = [Segment { a: 0, k: 0, len }];
            let (step, pitch) = (self.padded_channels, self.padded_filters);
            for channel in (0..self.shape.input[2]).step_by(self.area[0]) {
                let channels = self.area[0].min(self.shape.input[2] - channel);
                for filter in (0..pitch).step_by(self.area[1]) {
                    let columns = self.area[1].min(pitch - filter);
                    for part in 0..PARTS {
                        let reduction = Reduction { segments: &segments, step, repeat: 1, a_stride: 0, k_stride: 0 };
                        let a = &patches[part * self.pitches()[0] + channel..];
                        let b = &gradients[part * self.pitches()[1] + filter..];
                        let (out, out_pitch) = (&mut sums[part * self.area[0] * self.area[1]..], self.area[1]);
                        let accumulate = whole && first > 0;
                        if self.precision == Precision::F32 && (self.small || len <= SHORT && !whole) {
                            let runs = &[Run { input: 0, row: 0, len: channels }];
                            WeightProduct { runs, reduction, a, b, pitch, columns, accumulate, out_pitch, out }
                                .run_on(self.level);
                            continue;
                        }
                        let (input, output) = (&self.channels[..channels], &self.rows[..channels]);
                        let product = Product {
                            rows: Rows { input, output, samples: 1, input_stride: 0, output_stride: 0 },
                            reduction,
                            a,
                            b,
                            layout: Columns::Plain { pitch },
                            columns,
                            bias: None,
                            epilogue: Epilogue::Linear,
                            accumulate,
                            cold: false,
                            moments: None,
                            out,
                        };
                        match self.precision {
                            Precision::F32 => product.run_on(self.level),
                            Precision::Bf16 => product.run_pairs_on(self.level),
                        }
                    }
                    if !whole || first + count == total {
                        let accumulate = accumulate || !whole && first > 0;
                        let (channels, filters) =
                            (channel..channel + channels, filter..self.shape.filters.min(filter + columns));
                        self.level.dispatch(Finish { plan: self, channels, filters, sums, dw, accumulate });
                    }
                }
            }
        }
    }
}

/// Transforms the patches and the gradients of some tiles.
pub(super) struct Transform<'a> {
    pub(super) plan: &'a WinogradWeights,
    pub(super) samples: usize,
    pub(super) x: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) first: usize,
    pub(super) count: usize,
    /// `[part][tile][channel]`, or `[part][pair of tiles][channel]`.
    pub(super) patches: &'a mut [f32],
    /// `[part][tile][filter]`, or `[part][pair of tiles][filter]`.
    pub(super) gradients: &'a mut [f32],
}

impl Transform<'_> {
    /// Asserts that every read and write below is inside its slice.
    pub(super) fn check(&self) {
        let plan = self.plan;
        let [down, across] = plan.tiles;
        let [height, width, filters] = plan.shape.output();
        let (channels, pitch) = (plan.source.channels, plan.source.pitch());
        assert_eq!(self.patches.len(), plan.parts()[0], "room for the patches");
        assert_eq!(self.gradients.len(), plan.parts()[1], "room for the gradients");
        assert_eq!(self.dy.len(), self.samples * height * width * filters, "gradients of every pixel");
        let last = plan.source.origin() + (2 * down + 1) * pitch + (2 * across + 2) * channels;
        assert!(last + (self.samples - 1) * plan.source.sample() <= self.x.len(), "patches inside x");
        assert!(
            self.first + self.count <= self.samples * down * across && self.count <= plan.block,
            "tiles that exist"
        );
    }

    /// The walk over the tiles.
    #[inline(always)]
    pub(super) fn places(&self) -> TilePlace {
        TilePlace::new(self.first, self.plan.tiles)
    }

    /// Where the patch of the tile at a place starts.
    #[inline(always)]
    pub(super) fn corner(&self, [sample, row, column]: [usize; 3]) -> usize {
        let source = &self.plan.source;
        sample * source.sample() + source.origin() + 2 * (row * source.pitch() + column * source.channels)
    }

    /// A vector of filters of the gradients of the tile at a place, zero where there is no pixel.
    ///
    /// # Safety
    /// The tile exists, and everything is as `check` asserts.
    #[inline(always)]
    pub(super) unsafe fn load_gradients<I: Isa>(
        &self,
        isa: I,
        [sample, row, column]: [usize; 3],
        filter: usize,
    ) -> [[I::F32; 2]; 2] {
        let [height, width, filters] = self.plan.shape.output();
        let (row, column) = (2 * row, 2 * column);
        let mask = isa.first(filters - filter);
        let mut pixels = [[isa.zero(); 2]; 2];
        for i in 0..2 {
            for j in 0..2 {
                if row + i < height && column + j < width {
                    let at = ((sample * height + row + i) * width + column + j) * filters + filter;
                    // SAFETY: the pixel exists, and the mask ends at the filters.
                    pixels[i][j] = unsafe { isa.load_masked(mask, self.dy.as_ptr().add(at)) };
                }
            }
        }
        pixels
    }
}

/// A tile's gradients transformed along their columns: `A dy`.
#[inline(always)]
fn transform_columns<I: Isa>(isa: I, [[a, b], [c, d]]: [[I::F32; 2]; 2]) -> [[I::F32; 2]; 4] {
    [
        [a, b],
        [isa.add(a, c), isa.add(b, d)],
        [isa.sub(a, c), isa.sub(b, d)],
        [isa.sub(isa.zero(), c), isa.sub(isa.zero(), d)],
    ]
}

/// Then along a row: `(A dy) A^T`.
#[inline(always)]
pub(super) fn transform_gradients<I: Isa>(isa: I, [a, b]: [I::F32; 2]) -> [I::F32; 4] {
    [a, isa.add(a, b), isa.sub(a, b), isa.sub(isa.zero(), b)]
}

impl Kernel for Transform<'_> {
    type Output = usize;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> usize {
        self.check();
        let plan = self.plan;
        let (channels, filters, pitch) = (plan.source.channels, plan.shape.filters, plan.source.pitch());
        let mut places = self.places();
        for tile in 0..self.count {
            let place = places.next_tile();
            let (corner, part) = (self.corner(place), plan.pitches()[0]);
            for channel in (0..channels).step_by(I::LANES) {
                // SAFETY: `check` bounds every patch; parts have whole vectors for every tile of a block.
                unsafe {
                    let from = self.x.as_ptr().add(corner + channel);
                    let to = self.patches.as_mut_ptr().add(tile * plan.padded_channels + channel);
                    transform_patch::<I, Singles>(isa, from, pitch, channels, channels - channel, to, part);
                }
            }
            let part = plan.pitches()[1];
            for filter in (0..filters).step_by(I::LANES) {
                // SAFETY: as above.
                unsafe {
                    let rows = transform_columns(isa, self.load_gradients(isa, place, filter));
                    let to = self.gradients.as_mut_ptr().add(tile * plan.padded_filters + filter);
                    for row in 0..4 {
                        let row_of_parts = transform_gradients(isa, rows[row]);
                        for column in 0..4 {
                            isa.store(to.add((4 * row + column) * part), row_of_parts[column]);
                        }
                    }
                }
            }
        }
        self.count
    }
}

/// The same for pairs of tiles; the last tile's partner may be zero.
struct TransformPairs<'a>(Transform<'a>);

impl Kernel for TransformPairs<'_> {
    type Output = usize;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> usize {
        let this = self.0;
        this.check();
        let plan = this.plan;
        let (channels, filters, pitch) = (plan.source.channels, plan.shape.filters, plan.source.pitch());
        let pairs = this.count.div_ceil(2);
        let mut walk = this.places();
        for pair in 0..pairs {
            let (even, odd) = (2 * pair, (2 * pair + 1).min(this.count - 1));
            let alone = even == odd;
            let part = plan.pitches()[0];
            let place = walk.next_tile();
            let places = [place, if alone { place } else { walk.next_tile() }];
            let corners = places.map(|place| this.corner(place));
            for channel in (0..channels).step_by(I::LANES) {
                // SAFETY: `check` bounds every patch; parts have whole vectors for every pair of tiles of a block.
                unsafe {
                    let to = this.patches.as_mut_ptr().add(pair * plan.padded_channels + channel);
                    let (x, left) = (this.x.as_ptr().add(channel), channels - channel);
                    // Row by row, so that what is needed of both patches stays in registers.
                    for row in 0..4 {
                        let a = transform_row(isa, x.add(corners[0]), pitch, channels, left, row);
                        let b = transform_row(isa, x.add(corners[1]), pitch, channels, left, row);
                        for column in 0..4 {
                            isa.store(to.add((4 * row + column) * part), isa.pair(a[column], b[column]));
                        }
                    }
                }
            }
            let part = plan.pitches()[1];
            for filter in (0..filters).step_by(I::LANES) {
                // SAFETY: as above.
                unsafe {
                    let a = this.load_gradients(isa, places[0], filter);
                    // The patch of a tile without a partner is paired with itself, so its gradient must be zero.
                    let b = if alone { [[isa.zero(); 2]; 2] } else { this.load_gradients(isa, places[1], filter) };
                    let (a, b) = (transform_columns(isa, a), transform_columns(isa, b));
                    let to = this.gradients.as_mut_ptr().add(pair * plan.padded_filters + filter);
                    for row in 0..4 {
                        let (a, b) = (transform_gradients(isa, a[row]), transform_gradients(isa, b[row]));
                        for column in 0..4 {
                            isa.store(to.add((4 * row + column) * part), isa.pair(a[column], b[column]));
                        }
                    }
                }
            }
        }
        pairs
    }
}

/// Transforms the sums back, `G^T s G`, into the gradient.
struct Finish<'a> {
    plan: &'a WinogradWeights,
    /// Those of the gradient that the sums are of.
    channels: Range<usize>,
    filters: Range<usize>,
    sums: &'a [f32],
    dw: &'a mut [f32],
    accumulate: bool,
}

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let plan = self.plan;
        let (channels, filters) = (plan.shape.input[2], plan.shape.filters);
        let [rows, pitch] = plan.area;
        let part = rows * pitch;
        assert_eq!(self.sums.len(), PARTS * part, "sixteen parts");
        assert!(self.channels.end <= channels && self.filters.end <= filters, "channels and filters that exist");
        assert!(self.channels.len() <= rows && self.filters.len() <= pitch, "sums of all of them");
        assert_eq!(self.dw.len(), 9 * channels * filters, "nine taps");
        let half = isa.splat(0.5);
        for channel in self.channels.clone() {
            for filter in self.filters.clone().step_by(I::LANES) {
                let mask = isa.first(filters - filter);
                let row = channel - self.channels.start;
                // SAFETY: parts have whole vectors of filters for every channel; the mask ends at the filters.
                unsafe {
                    let sums = self.sums.as_ptr().add(row * pitch + filter - self.filters.start);
                    let mut rows = [[isa.zero(); 4]; 3];
                    for j in 0..4 {
                        let sum = |i: usize| sums.add((4 * i + j) * part);
                        let (a, b, c, d) = (isa.load(sum(0)), isa.load(sum(1)), isa.load(sum(2)), isa.load(sum(3)));
                        let (plus, minus) = (isa.mul(half, isa.add(b, c)), isa.mul(half, isa.sub(b, c)));
                        rows[0][j] = isa.add(a, plus);
                        rows[1][j] = minus;
                        rows[2][j] = isa.add(plus, d);
                    }
                    for i in 0..3 {
                        let [a, b, c, d] = rows[i];
                        let (plus, minus) = (isa.mul(half, isa.add(b, c)), isa.mul(half, isa.sub(b, c)));
                        let taps = [isa.add(a, plus), minus, isa.add(plus, d)];
                        for j in 0..3 {
                            let to = self.dw.as_mut_ptr().add(((3 * i + j) * channels + channel) * filters + filter);
                            let mut tap = taps[j];
                            if self.accumulate {
                                tap = isa.add(tap, isa.load_masked(mask, to));
                            }
                            isa.store_masked(mask, to, tap);
                        }
                    }
                }
            }
        }
    }
}
