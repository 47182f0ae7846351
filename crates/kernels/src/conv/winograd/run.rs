//! Computing a convolution by minimal filtering: transform the patches of some tiles, multiply, transform back, store.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::{Output, Winograd, equal, four, two};
use crate::conv::factors::{Factors, Pairs, Singles};
use crate::conv::geometry::Segment;
use crate::conv::pooled_tile::maximum;
use crate::conv::tile::{Ahead, MOST_ROWS, Reduction, multiply_add, tile_rows};
use crate::conv::{Epilogue, Sums};
use crate::isa::{Isa, Kernel};
use crate::values::{store, store_first};
use crate::{Level, Precision};

/// Bytes of a part of the weights beyond which the next part is not asked for ahead.
const MOST_AHEAD: usize = 32 << 10;

/// How many tiles before it is written a tile's memory is asked for.
const LATER: usize = 4;

/// Some tiles of some samples.
pub(super) struct Run<'a> {
    pub(super) plan: &'a Winograd,
    pub(super) samples: usize,
    /// Tiles down and across, and height and width of the output, of each sample: all of the plan's, or some rows.
    pub(super) tiles: [usize; 2],
    pub(super) size: [usize; 2],
    pub(super) x: &'a [f32],
    pub(super) packed: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) output: Output<'a>,
    /// Transformed patches: `[part][tile][channel]`.
    pub(super) patches: &'a mut [f32],
    /// Their products with one panel: `[part][tile][column]`.
    pub(super) products: &'a mut [f32],
    /// Whether the output is hardly in the second-level cache, so that it is asked for before it is written.
    pub(super) cold: bool,
}

impl Run<'_> {
    /// Computes it; the one place where it is compiled.
    #[inline(never)]
    pub(super) fn run_on(self, level: Level) {
        level.dispatch(self);
    }

    /// The same with patches and weights in pairs of bf16 values.
    #[inline(never)]
    pub(super) fn run_pairs_on(self, level: Level) {
        level.dispatch_bf16(RunPairs(self));
    }

    /// Asserts that every read and write below is inside its slice.
    fn check(&self) {
        let plan = self.plan;
        let tiles = self.samples * self.tiles[0] * self.tiles[1];
        assert_eq!(self.packed.len(), plan.packed_len(), "packed weights");
        assert_eq!([self.patches.len(), self.products.len()], plan.parts_len(), "room for the parts");
        assert!(self.bias.is_none_or(|bias| bias.len() == plan.filters), "a bias for each filter");
        let [rows, columns] = self.tiles.map(|n| plan.tile * n + 2);
        let last = plan.source.origin() + (rows - 1) * plan.source.pitch() + columns * plan.channels();
        assert!(last + (self.samples - 1) * plan.source.sample() <= self.x.len(), "patches inside x");
        match &self.output {
            Output::Plain { sums, .. } => {
                assert!(!sums.is_bf16() || plan.precision == Precision::Bf16, "bf16 outputs of bf16 factors");
                let pixels = self.size[0] * self.size[1];
                assert_eq!(sums.len(), self.samples * pixels * plan.filters, "outputs of every pixel");
                assert!(sums.moments().is_none_or(|sums| sums.channels() == plan.filters), "sums for each filter");
            }
            Output::Pooled { maxima, positions, .. } => {
                assert!(plan.tile == 2, "tiles that are pooling windows");
                assert!(
                    maxima.len() == tiles * plan.filters && positions.len() == maxima.len(),
                    "maxima of every tile"
                );
            }
        }
    }
}

impl Kernel for Run<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.blocks::<I, Singles>(isa);
    }
}

struct RunPairs<'a>(Run<'a>);

impl Kernel for RunPairs<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.blocks::<I, Pairs>(isa);
    }
}

impl Run<'_> {
    #[inline(always)]
    fn blocks<I: Isa, F: Factors>(mut self, isa: I) {
        let plan = self.plan;
        let total = self.samples * self.tiles[0] * self.tiles[1];
        if total == 0 {
            return;
        }
        self.check();
        let block = equal(total, plan.block);
        for first in (0..total).step_by(block) {
            let count = block.min(total - first);
            // SAFETY: `check` has bounded the patches, the weights and the outputs of all tiles.
            unsafe {
                self.transform::<I, F>(isa, first, count);
                for column in (0..plan.filters).step_by(plan.size.columns) {
                    self.multiply::<I, F>(isa, count, column);
                    if plan.tile == 4 {
                        self.finish_four(isa, first, count, column);
                    } else {
                        self.finish::<I, F>(isa, first, count, column);
                    }
                    self.measure(first, count, column);
                }
            }
        }
    }

    /// Transforms the patches of some tiles: `B^T d B`.
    ///
    /// # Safety
    /// The tiles exist, and everything is as `check` asserts.
    #[inline(always)]
    unsafe fn transform<I: Isa, F: Factors>(&mut self, isa: I, first: usize, count: usize) {
        let plan = self.plan;
        let (channels, pitch) = (plan.channels(), plan.source.pitch());
        let [part, _] = plan.strides();
        let mut place = TilePlace::new(first, self.tiles);
        for tile in 0..count {
            let [sample, row, column] = place.next_tile();
            let inside = plan.tile * (row * pitch + column * channels);
            let corner = sample * plan.source.sample() + plan.source.origin() + inside;
            for channel in (0..channels).step_by(I::LANES) {
                // SAFETY: the caller's promise; a part has whole vectors for every tile.
                unsafe {
                    let from = self.x.as_ptr().add(corner + channel);
                    let to = self.patches.as_mut_ptr().add(tile * plan.patch + channel / F::VALUES);
                    if plan.tile == 4 {
                        four::transform_patch(isa, from, pitch, channels, channels - channel, to, part);
                    } else {
                        two::transform_patch::<I, F>(isa, from, pitch, channels, channels - channel, to, part);
                    }
                }
            }
        }
    }

    /// Multiplies the patches of some tiles with the panel at `column`, one part after the other, so that each part of the
    /// weights is fetched once.
    ///
    /// # Safety
    /// As for [`transform`](Self::transform).
    #[inline(always)]
    unsafe fn multiply<I: Isa, F: Factors>(&mut self, isa: I, count: usize, column: usize) {
        let vectors = self.plan.size.panel(column, self.plan.filters) / I::LANES;
        // Where the factors are emulated, a row at a time is enough code.
        let most = if F::native::<I>() { I::TILE_ROWS } else { 1 };
        macro_rules! dispatch {
            ($part:ident, $row:ident, $rows:ident, $tile:ident, $($vectors:literal: $($count:literal)*;)*) => {
                match ($rows, vectors) {
                    $($(($count, $vectors)
                        if $count <= I::TILE_ROWS && $vectors <= I::TILE_VECTORS && ($count == 1 || F::native::<I>()) =>
                        // SAFETY: the caller's promise.
                        unsafe { self.multiply_tile::<I, F, $count, $vectors>(isa, $part, $row, column, $tile) },)*)*
                    (rows, vectors) => unreachable!("{rows} rows of {vectors} vectors are no tile"),
                }
            };
        }
        for part in 0..self.plan.parts() {
            let (mut row, mut tile) = (0, [0, count.div_ceil(most)]);
            while row < count {
                let rows = tile_rows(count - row, most);
                dispatch! { part, row, rows, tile,
                    1: 1 2 3 4 5 6 7 8 9 10 11 12;
                    2: 1 2 3 4 5 6 7 8 9 10 11 12;
                    3: 1 2 3 4 5 6;
                    4: 1 2 3 4 5 6;
                }
                row += rows;
                tile[0] += 1;
            }
        }
    }

    /// Multiplies tiles from `row` on; their products are those of the matrix tile's rows from `first` on.
    ///
    /// # Safety
    /// As for [`transform`](Self::transform).
    #[inline(always)]
    unsafe fn multiply_tile<I: Isa, F: Factors, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        isa: I,
        part: usize,
        row: usize,
        column: usize,
        [tile, tiles]: [usize; 2],
    ) {
        let plan = self.plan;
        let (channels, width) = (plan.channels(), VECTORS * I::LANES);
        let depth = channels.div_ceil(F::VALUES);
        let segments = [Segment { a: 0, k: 0, len: depth }];
        let reduction = Reduction::once(&segments);
        // SAFETY: the caller's promise.
        unsafe {
            let [patch_stride, product_stride] = plan.strides();
            let patches = self.patches.as_ptr().add(part * patch_stride + row * plan.patch);
            let a: [*const f32; ROWS] = std::array::from_fn(|r| patches.add(r * plan.patch));
            let panel = self.packed.as_ptr().add(plan.parts() * channels * column + part * depth * width);
            // Weights that pass as fast as memory gives them gain nothing by being asked for twice.
            let ahead = match 4 * depth * width <= MOST_AHEAD {
                true => Ahead::next(panel, depth, width, tile, tiles),
                false => Ahead::nothing(panel),
            };
            let zero = [[isa.zero(); VECTORS]; ROWS];
            let sums = multiply_add::<I, F, ROWS, VECTORS, true>(isa, &reduction, a, panel, width, Some(ahead), zero);
            let to = self.products.as_mut_ptr().add(part * product_stride + row * plan.product_pitch);
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    isa.store(to.add(r * plan.product_pitch + v * I::LANES), sums[r][v]);
                }
            }
        }
    }

    /// Transforms the products of some tiles back, `A^T m A`, and stores what becomes of them.
    ///
    /// # Safety
    /// As for [`transform`](Self::transform).
    #[inline(always)]
    unsafe fn finish<I: Isa, F: Factors>(&mut self, isa: I, first: usize, count: usize, column: usize) {
        let plan = self.plan;
        let [height, width] = self.size;
        let [_, part] = plan.strides();
        let columns = plan.size.columns.min(plan.filters - column);
        // Only with pairs are outputs bf16.
        let half = F::VALUES == 2 && matches!(&self.output, Output::Plain { sums, .. } if sums.is_bf16());
        for vector in (0..columns).step_by(I::LANES) {
            let used = I::LANES.min(columns - vector);
            let filter = column + vector;
            let mask = isa.first(used);
            let bias = self.bias.map_or(isa.zero(), |bias| {
                // SAFETY: the mask ends at the filters.
                unsafe { isa.load_masked(mask, bias.as_ptr().add(filter)) }
            });
            let mut place = TilePlace::new(first, self.tiles);
            let mut later = TilePlace::new(first + LATER, self.tiles);
            for tile in 0..count {
                let [sample, row, column] = place.next_tile();
                // SAFETY: the products hold whole vectors for every row of a tile.
                let outputs =
                    unsafe { two::restore(isa, self.products.as_ptr().add(tile * plan.product_pitch + vector), part) };
                let number = first + tile;
                match &mut self.output {
                    Output::Pooled { relu, maxima, positions } => {
                        let (best, position) = maximum(isa, outputs, bias, *relu);
                        let to = number * plan.filters + filter;
                        // SAFETY: the caller's promise, and the mask ends at the filters.
                        unsafe {
                            if used == I::LANES {
                                isa.store(maxima.as_mut_ptr().add(to), best);
                            } else {
                                isa.store_masked(mask, maxima.as_mut_ptr().add(to), best);
                            }
                            isa.store_positions(positions.as_mut_ptr().add(to), used, position);
                        }
                    }
                    Output::Plain { epilogue, sums } => {
                        let pixels = Pixels::new(isa, *epilogue, sums, half);
                        if self.cold {
                            let [sample, row, column] = later.next_tile();
                            let corner = ((sample * height + 2 * row) * width + 2 * column) * plan.filters + filter;
                            for i in 0..4 {
                                pixels.ask(isa, corner + (i / 2 * width + i % 2) * plan.filters);
                            }
                        }
                        for i in 0..4 {
                            let (row, column) = (2 * row + i / 2, 2 * column + i % 2);
                            if row < height && column < width {
                                let to = ((sample * height + row) * width + column) * plan.filters + filter;
                                // SAFETY: the caller's promise, and `used` ends at the filters.
                                unsafe { pixels.put(isa, to, used, isa.add(outputs[i], bias)) };
                            }
                        }
                    }
                }
            }
        }
    }

    /// As [`finish`](Self::finish), of tiles of 4x4 outputs.
    ///
    /// # Safety
    /// As for [`transform`](Self::transform).
    #[inline(always)]
    unsafe fn finish_four<I: Isa>(&mut self, isa: I, first: usize, count: usize, column: usize) {
        let plan = self.plan;
        let Output::Plain { epilogue, sums } = &mut self.output else { return };
        let [height, width] = self.size;
        let [_, part] = plan.strides();
        let columns = plan.size.columns.min(plan.filters - column);
        let stored = Pixels::new(isa, *epilogue, sums, false);
        let mut place = TilePlace::new(first, self.tiles);
        let mut later = TilePlace::new(first + LATER, self.tiles);
        for tile in 0..count {
            if self.cold {
                let [sample, row, across] = later.next_tile();
                let corner = ((sample * height + 4 * row) * width + 4 * across) * plan.filters + column;
                for i in 0..16 {
                    for vector in (0..columns).step_by(I::LANES) {
                        stored.ask(isa, corner + (i / 4 * width + i % 4) * plan.filters + vector);
                    }
                }
            }
            let [sample, row, place_across] = place.next_tile();
            let corner = [4 * row, 4 * place_across];
            let [rows, pixels] = [(height - corner[0]).min(4), (width - corner[1]).min(4)];
            let corner = ((sample * height + corner[0]) * width + corner[1]) * plan.filters + column;
            for vector in (0..columns).step_by(I::LANES) {
                let used = I::LANES.min(columns - vector);
                let mask = isa.first(used);
                // SAFETY: the products hold whole vectors for every row of a tile; the mask ends at the filters; rows and
                // pixels end at the output's.
                unsafe {
                    let bias = match self.bias {
                        Some(bias) => isa.load_masked(mask, bias.as_ptr().add(column + vector)),
                        None => isa.zero(),
                    };
                    let products = self.products.as_ptr().add(tile * plan.product_pitch + vector);
                    let outputs = four::restore(isa, products, part);
                    for i in 0..4 {
                        for j in 0..4 {
                            if i >= rows || j >= pixels {
                                continue;
                            }
                            let to = corner + (i * width + j) * plan.filters + vector;
                            stored.put(isa, to, used, isa.add(outputs[i][j], bias));
                        }
                    }
                }
            }
        }
    }
}

impl Run<'_> {
    /// Sums what batch normalisation needs to know of the outputs of some tiles, which were just stored.
    ///
    /// # Safety
    /// As for [`transform`](Self::transform).
    unsafe fn measure(&mut self, first: usize, count: usize, column: usize) {
        let plan = self.plan;
        let Output::Plain { sums, .. } = &mut self.output else { return };
        let Some(moments) = sums.moments() else { return };
        let ([height, width], [down, across]) = (self.size, self.tiles);
        let columns = column..plan.filters.min(column + plan.size.columns);
        let mut done = 0;
        while done < count {
            let [sample, row, tile] = TilePlace::new(first + done, self.tiles).next_tile();
            // Whole rows of tiles, whose pixels lie one behind the other; or what there is of one.
            let whole = if tile == 0 { ((count - done) / across).min(down - row) } else { 0 };
            let tiles = if whole > 0 { whole * across } else { (count - done).min(across - tile) };
            let rows = (plan.tile * (row + whole.max(1))).min(height) - plan.tile * row;
            let pixels = (plan.tile * (tile + tiles)).min(width) - (plan.tile * tile).min(width);
            let (rows, pixels) = if whole > 0 { (1, rows * width) } else { (rows, pixels) };
            for i in 0..rows {
                let pixel = (sample * height + plan.tile * row + i) * width + plan.tile * tile;
                let from = sums.as_mut_ptr().wrapping_add(pixel * plan.filters + column);
                // SAFETY: the caller's promise: the tiles' pixels are outputs.
                unsafe { moments.add(from, pixels, columns.clone()) };
            }
            done += tiles;
        }
    }
}

/// The outputs of a convolution, on their way to memory.
struct Pixels<I: Isa> {
    to: *mut f32,
    half: bool,
    onto: bool,
    low: I::F32,
    high: I::F32,
}

impl<I: Isa> Pixels<I> {
    #[inline(always)]
    fn new(isa: I, epilogue: Epilogue, sums: &mut Sums<'_>, half: bool) -> Self {
        let (low, high) = epilogue.bounds();
        Pixels { to: sums.as_mut_ptr(), half, onto: sums.is_onto(), low: isa.splat(low), high: isa.splat(high) }
    }

    /// Asks for the memory of the value at `at`, which need not exist.
    #[inline(always)]
    fn ask(&self, isa: I, at: usize) {
        isa.prefetch(self.to.wrapping_add(if self.half { at / 2 } else { at }));
    }

    /// Stores the first `used` lanes as the values from `at` on.
    ///
    /// # Safety
    /// So many values are readable and writable there.
    #[inline(always)]
    unsafe fn put(&self, isa: I, at: usize, used: usize, mut value: I::F32) {
        // SAFETY: the caller's promise.
        unsafe {
            if self.onto {
                value = isa.add(value, isa.load_masked(isa.first(used), self.to.add(at)));
            }
            let value = isa.min(self.high, isa.max(self.low, value));
            match used == I::LANES {
                true => store::<I, true>(isa, self.to, self.half, at, value),
                false => store_first::<I, true>(isa, self.to, self.half, at, used, value),
            }
        }
    }
}

/// Walks over the tiles of several samples without a division for each.
#[derive(Clone, Copy)]
pub(super) struct TilePlace {
    next: [usize; 3],
    tiles: [usize; 2],
}

impl TilePlace {
    /// Before the tile of that number, of so many down and across in each sample.
    #[inline(always)]
    pub(super) fn new(number: usize, tiles: [usize; 2]) -> Self {
        let [down, across] = tiles;
        TilePlace { next: [number / (down * across), number / across % down, number % across], tiles }
    }

    /// Sample, row and column of the next tile.
    #[inline(always)]
    pub(super) fn next_tile(&mut self) -> [usize; 3] {
        let place = self.next;
        let [sample, row, column] = &mut self.next;
        *column += 1;
        if *column == self.tiles[1] {
            (*column, *row) = (0, *row + 1);
            if *row == self.tiles[0] {
                (*row, *sample) = (0, *sample + 1);
            }
        }
        place
    }
}

const _: () = assert!(MOST_ROWS == 12, "tiles of this many rows are dispatched above");
