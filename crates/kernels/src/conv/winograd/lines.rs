//! A 3x3 convolution with unit strides of bf16 pairs by minimal filtering along rows alone: 12 multiplications for two outputs of a
//! row instead of 18.
//!
//! With few channels the transforms along both axes, which save more multiplications, and the products that wait in the cache for the
//! one back take longer than that. Along rows, all products of two outputs are summed in registers, where they are transformed back.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::run::TilePlace;
use super::{Filtering, Output};
use crate::conv::Sums;
use crate::conv::factors::{Factors, Pairs, pair_rows};
use crate::conv::geometry::Tap;
use crate::conv::pack::{Matrix, TileSize};
use crate::isa::{Isa, Kernel, MOST_LANES};
use crate::values::{store, store_first};
use crate::{Level, Pool, Precision};
use std::ops::Range;

/// Products for two outputs of a row, and taps of a kernel row.
const PARTS: usize = 4;
const TAPS: usize = 3;

/// Tiles whose sums are in registers at once.
const MOST_TILES: usize = 6;

/// The most channels and filters for which this is faster than the transforms along both axes.
const MOST_CHANNELS: usize = 32;
const MOST_FILTERS: usize = 16;

/// Pairs of transformed values that the first-level cache holds beside weights.
const VALUES: usize = 6 << 10;

/// The plan: sizes.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    level: Level,
    size: TileSize,
    image: [usize; 3],
    before: [isize; 2],
    output: [usize; 2],
    filters: usize,
    /// Tiles of two outputs in a row.
    tiles: usize,
    /// Rows of outputs whose patches are transformed together.
    rows: usize,
}

impl Lines {
    /// The plan, if the convolution is one of pairs for which this is the better way.
    pub(super) fn suiting(filtering: Filtering) -> Option<Self> {
        let Filtering { image, filters, precision, .. } = filtering;
        let suits = precision == Precision::Bf16 && image[2] <= MOST_CHANNELS && filters <= MOST_FILTERS;
        suits.then(|| Lines::new(filtering))
    }

    fn new(filtering: Filtering) -> Self {
        let Filtering { image, before, output, filters, level, precision: _ } = filtering;
        let size = TileSize::of(level);
        let tiles = output[1].div_ceil(2);
        let row = tiles * PARTS * size.padded(image[2]) / Pairs::VALUES;
        let most = (VALUES / row.max(1)).saturating_sub(TAPS - 1).clamp(4, output[0].max(4));
        let rows = output[0].div_ceil(output[0].div_ceil(most).max(1));
        Lines { level, size, image, before, output, filters, tiles, rows }
    }

    pub(super) fn packed_len(&self) -> usize {
        PARTS * TAPS * self.image[2] * self.size.padded(self.filters)
    }

    /// Packs the nine taps of the matrix, given in the order of the window, as `[panel][kernel row][part][pair of channels][panel columns]`.
    pub(super) fn pack(&self, pool: &mut Pool, matrix: &Matrix, taps: &[Tap], weights: &[f32], packed: &mut [f32]) {
        let channels = self.image[2];
        let rows = [PARTS * TAPS * channels, (PARTS * TAPS - taps.len()) * channels];
        matrix.pack_transformed(self.level, pool, taps, weights, packed, rows, |panel, width| {
            self.level.dispatch(TransformWeights { channels, width, panel: &mut *panel });
            pair_rows(self.level, panel, PARTS * TAPS, channels, width);
        });
    }

    pub(super) fn scratch_len(&self) -> usize {
        (self.rows + TAPS - 1) * self.tiles * PARTS * self.size.padded(self.image[2]) / Pairs::VALUES
    }

    /// Values that a row of outputs has.
    fn row_len(&self) -> usize {
        self.output[1] * self.filters
    }

    /// Computes some rows of outputs of each sample.
    pub(super) fn run(
        &self,
        rows: Range<usize>,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        output: Output<'_>,
        scratch: &mut [f32],
    ) {
        let Output::Plain { epilogue, mut sums } = output else { unreachable!("pools have tiles of 2x2") };
        let len: usize = self.image.iter().product();
        let patches = &mut scratch[..self.scratch_len()];
        for sample in 0..sums.len() / (rows.len() * self.row_len()).max(1) {
            let x = &x[sample * len..(sample + 1) * len];
            for first in rows.clone().step_by(self.rows) {
                let rows = first..rows.end.min(first + self.rows);
                let (mut part, rest) = sums.split_at_mut(rows.len() * self.row_len());
                sums = rest;
                let (bounds, sums) = (epilogue.bounds(), part.reborrow());
                Block { plan: self, rows, x, packed, bias, bounds, sums, patches: &mut *patches }.run_on(self.level);
                if let Some(moments) = part.moments() {
                    moments.add_rows(part.single());
                }
            }
        }
    }
}

/// Some rows of one sample's output.
struct Block<'a> {
    plan: &'a Lines,
    rows: Range<usize>,
    x: &'a [f32],
    packed: &'a [f32],
    bias: Option<&'a [f32]>,
    bounds: (f32, f32),
    sums: Sums<'a>,
    /// `[vector of channels][row of the input][tile][part][pair of channels]`
    patches: &'a mut [f32],
}

impl Block<'_> {
    #[inline(never)]
    fn run_on(self, level: Level) {
        level.dispatch_bf16(self);
    }
}

impl Kernel for Block<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let plan = self.plan;
        let rows = self.rows.len();
        assert_eq!(self.x.len(), plan.image.iter().product::<usize>(), "one sample");
        assert_eq!(self.packed.len(), plan.packed_len(), "packed weights");
        assert_eq!(self.patches.len(), plan.scratch_len(), "room for the patches");
        assert!(self.rows.end <= plan.output[0] && rows <= plan.rows, "rows that exist");
        assert_eq!(self.sums.len(), rows * plan.row_len(), "outputs of every pixel");
        assert!(self.bias.is_none_or(|bias| bias.len() == plan.filters), "a bias for each filter");
        // SAFETY: the assertions above give all rows, weights and outputs their room.
        unsafe {
            self.transform(isa);
            let native = <Pairs as Factors>::native::<I>() && I::TILE_ROWS * I::TILE_VECTORS >= 24;
            for column in (0..plan.filters).step_by(I::LANES) {
                let mut place = TilePlace::new(0, [rows, plan.tiles]);
                let (mut tile, total) = (0, rows * plan.tiles);
                while tile < total {
                    // As few as possible at the end, where a flat tile waits for its own sums.
                    let left = total - tile;
                    let count = if !native {
                        1
                    } else if left >= 10 || left == 6 {
                        6
                    } else if left >= 4 {
                        4
                    } else {
                        left.min(2)
                    };
                    match count {
                        6 if native => self.tiles::<I, 6>(isa, tile, &mut place, column),
                        4 if native => self.tiles::<I, 4>(isa, tile, &mut place, column),
                        2 if native => self.tiles::<I, 2>(isa, tile, &mut place, column),
                        _ => self.tiles::<I, 1>(isa, tile, &mut place, column),
                    }
                    tile += count;
                }
            }
        }
    }
}

impl Block<'_> {
    /// Slots of all patches of one vector of channels.
    fn vector_len<I: Isa>(&self) -> usize {
        (self.plan.rows + TAPS - 1) * self.plan.tiles * PARTS * I::LANES / Pairs::VALUES
    }

    /// `B^T d` of each tile.
    ///
    /// # Safety
    /// Everything is as `run` asserts.
    #[inline(always)]
    unsafe fn transform<I: Isa>(&mut self, isa: I) {
        let plan = self.plan;
        let [height, width, channels] = plan.image;
        let (slots, len) = (I::LANES / Pairs::VALUES, self.vector_len::<I>());
        for row in 0..self.rows.len() + TAPS - 1 {
            let from = (self.rows.start + row).wrapping_add_signed(-plan.before[0]);
            let pixels = if from < height { width } else { 0 };
            let line = self.x.as_ptr().wrapping_add(if from < height { from * width * channels } else { 0 });
            for channel in (0..channels).step_by(I::LANES) {
                let mask = isa.first(channels - channel);
                let to = channel / I::LANES * len + row * plan.tiles * PARTS * slots;
                for tile in 0..plan.tiles {
                    let mut d = [isa.zero(); 4];
                    for i in 0..4 {
                        let pixel = (2 * tile + i).wrapping_add_signed(-plan.before[1]);
                        if pixel < pixels {
                            // SAFETY: the pixel exists, and the mask ends at its channels.
                            d[i] = unsafe { isa.load_masked(mask, line.add(pixel * channels + channel)) };
                        }
                    }
                    // SAFETY: there is room for every tile of every row.
                    unsafe {
                        let to = self.patches.as_mut_ptr().add(to + tile * PARTS * slots);
                        Pairs::store(isa, to, isa.sub(d[0], d[2]));
                        Pairs::store(isa, to.add(slots), isa.add(d[1], d[2]));
                        Pairs::store(isa, to.add(2 * slots), isa.sub(d[2], d[1]));
                        Pairs::store(isa, to.add(3 * slots), isa.sub(d[1], d[3]));
                    }
                }
            }
        }
    }

    /// Some tiles of outputs, those of one vector of filters.
    ///
    /// # Safety
    /// They exist, and everything is as `run` asserts.
    #[inline(always)]
    unsafe fn tiles<I: Isa, const N: usize>(&mut self, isa: I, first: usize, place: &mut TilePlace, column: usize) {
        let plan = self.plan;
        let (channels, filters) = (plan.image[2], plan.filters);
        let (slots, len) = (I::LANES / Pairs::VALUES, self.vector_len::<I>());
        let pairs = channels.div_ceil(Pairs::VALUES);
        // The vector's panel, and where it is in there.
        let panel = column - column % plan.size.columns;
        let width = plan.size.panel(panel, filters);
        let mut sums = [[isa.zero(); PARTS]; N];
        // SAFETY: the caller's promise.
        unsafe {
            let weights = self.packed.as_ptr().add(panel * PARTS * TAPS * channels + column - panel);
            let part = pairs * width;
            for row in 0..TAPS {
                let mut w = weights.add(row * PARTS * part);
                for vector in 0..channels.div_ceil(I::LANES) {
                    let at = vector * len + (row * plan.tiles + first) * PARTS * slots;
                    let x = self.patches.as_ptr().add(at);
                    for pair in 0..slots.min(pairs - vector * slots) {
                        let mut factors = [isa.zero(); PARTS];
                        for p in 0..PARTS {
                            factors[p] = isa.load(w.add(p * part));
                        }
                        for t in 0..N {
                            for p in 0..PARTS {
                                let value = isa.splat(*x.add((t * PARTS + p) * slots + pair));
                                sums[t][p] = Pairs::multiply_add(isa, value, factors[p], sums[t][p]);
                            }
                        }
                        w = w.wrapping_add(width);
                    }
                }
            }
            let used = I::LANES.min(filters - column);
            let mask = isa.first(used);
            let bias = match self.bias {
                Some(bias) => isa.load_masked(mask, bias.as_ptr().add(column)),
                None => isa.zero(),
            };
            let (low, high) = (isa.splat(self.bounds.0), isa.splat(self.bounds.1));
            let (half, onto) = (self.sums.is_bf16(), self.sums.is_onto());
            let y = self.sums.as_mut_ptr();
            let mut places = [[0; 3]; N];
            for t in 0..N {
                places[t] = place.next_tile();
            }
            let mut outputs = [[isa.zero(); 2]; N];
            for t in 0..N {
                let [a, b, c, d] = sums[t];
                outputs[t] = [isa.add(isa.add(a, isa.add(b, c)), bias), isa.add(isa.sub(isa.sub(b, c), d), bias)];
            }
            if used == I::LANES && !onto && plan.output[1].is_multiple_of(2) {
                let mut at = [0; N];
                for t in 0..N {
                    let [_, row, tile] = places[t];
                    at[t] = (row * plan.output[1] + 2 * tile) * filters + column;
                }
                for t in 0..N {
                    for i in 0..2 {
                        let value = isa.min(high, isa.max(low, outputs[t][i]));
                        store::<I, true>(isa, y, half, at[t] + i * filters, value);
                    }
                }
                return;
            }
            // Through memory, so that the sums' indices are constants.
            let mut values = [0.0f32; MOST_TILES * 2 * MOST_LANES];
            for t in 0..N {
                for i in 0..2 {
                    isa.store(values.as_mut_ptr().add((2 * t + i) * I::LANES), outputs[t][i]);
                }
            }
            for t in 0..N {
                let [_, row, tile] = places[t];
                for pixel in 2 * tile..plan.output[1].min(2 * tile + 2) {
                    let to = (row * plan.output[1] + pixel) * filters + column;
                    let mut value = isa.load(values.as_ptr().add((2 * t + pixel % 2) * I::LANES));
                    if onto {
                        value = isa.add(value, isa.load_masked(mask, y.add(to)));
                    }
                    let value = isa.min(high, isa.max(low, value));
                    store_first::<I, true>(isa, y, half, to, used, value);
                }
            }
        }
    }
}

/// Turns nine taps, which lie in the panel's last nine parts, into twelve, row by row in place: `G g`.
struct TransformWeights<'a> {
    channels: usize,
    width: usize,
    panel: &'a mut [f32],
}

impl Kernel for TransformWeights<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let part = self.channels * self.width;
        assert_eq!(self.panel.len(), PARTS * TAPS * part, "twelve parts");
        let half = isa.splat(0.5);
        for at in (0..part).step_by(I::LANES) {
            // SAFETY: panels are whole vectors wide, so each part has a vector at `at`. No tap is overwritten before it was read.
            unsafe {
                let panel = self.panel.as_mut_ptr().add(at);
                for row in 0..TAPS {
                    let tap = |column: usize| panel.add((TAPS + TAPS * row + column) * part).cast_const();
                    let (a, b, c) = (isa.load(tap(0)), isa.load(tap(1)), isa.load(tap(2)));
                    let ends = isa.add(a, c);
                    isa.store(panel.add(PARTS * row * part), a);
                    isa.store(panel.add((PARTS * row + 1) * part), isa.mul(half, isa.add(ends, b)));
                    isa.store(panel.add((PARTS * row + 2) * part), isa.mul(half, isa.sub(ends, b)));
                    isa.store(panel.add((PARTS * row + 3) * part), c);
                }
            }
        }
    }
}
