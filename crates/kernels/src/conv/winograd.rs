//! 3x3 convolution with unit strides by Winograd's minimal filtering: 16 multiplications for 2x2 outputs instead of 36, or 36 for
//! 4x4 instead of 144.
//!
//! F(2x2, 3x3) and F(4x4, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015). Patches of 4x4 or 6x6
//! pixels and the kernels are transformed by additions, multiplied as sixteen or 36 matrices, and transformed back, for the tiles of
//! one matrix tile at a time, so that the products never leave the cache. Where a patch of 4x4 is constant along an axis,
//! so are its outputs, to the bit: ties between the pixels of a pooling window stay ties.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::factors::{Factors, Pairs, Singles, pair_rows};
use super::geometry::{Segment, Source, Tap, unaliased};
use super::pack::{Matrix, TileSize};
use super::pooled_tile::maximum;
use super::tile::{Ahead, MOST_ROWS, Reduction, multiply_add, tile_rows};
use super::winograd_four as four;
use super::{ConvShape, Epilogue};
use crate::isa::{Isa, Kernel};
use crate::values::{store, store_first};
use crate::{Level, Pool, Precision, ValuesMut};
use std::ops::Range;

/// Matrices of tiles of 2x2: one for each pixel of a transformed patch.
pub(super) const PARTS: usize = 16;

/// Bytes of padded image that are copied together, and of transformed patches: a part of a common second-level cache.
const COPY_BYTES: usize = 256 << 10;
const PATCH_BYTES: usize = 512 << 10;

/// The same of tiles of 4x4, whose products take as much again.
const PATCH_BYTES_OF_FOUR: usize = 600 << 10;

/// The most bytes of weights transformed for tiles of 4x4. Measured with ResNet-50, whose weights pass once for each image: 3x3 convolutions
/// of 64 channels (0.6 MB) take 0.6 of their time in tiles of 2x2 and of 128 channels (2.3 MB) 0.65; of 256 (9.4 MB) they take 1.0
/// to 1.4 times as long on a memory that others use, too.
const MOST_WEIGHTS: usize = 4 << 20;

/// Bytes of a part of the weights beyond which the next part is not asked for ahead.
const MOST_AHEAD: usize = 32 << 10;

/// The most tiles whose products wait for each other, so that these stay near, too.
const MOST_TILES: usize = 48;

/// The plan: offsets and sizes.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    level: Level,
    precision: Precision,
    size: TileSize,
    source: Source,
    /// Height and width of a tile of outputs, 2 or 4.
    tile: usize,
    /// Height and width of the output, and its tiles down and across.
    output: [usize; 2],
    tiles: [usize; 2],
    filters: usize,
    /// From one tile's products with a panel to the next one's.
    product_pitch: usize,
    /// Slots of a patch's channels, those of one part: whole vectors of channels, or pairs of them.
    patch: usize,
    /// Most tiles whose patches are transformed together and pass each part of the weights together.
    block: usize,
    /// Samples that are computed together; where it is 0, so many rows of tiles of one sample.
    block_samples: usize,
    block_rows: usize,
}

/// Whether the convolution, or its data gradient, is of the kind that this computes, and large enough to gain from it where
/// it has that many pixels.
pub(super) fn suits(shape: &ConvShape, [height, width]: [usize; 2]) -> bool {
    let covered = height.next_multiple_of(2) * width.next_multiple_of(2);
    shape.kernel == [3, 3]
        && shape.strides == [1, 1]
        && shape.dilation == [1, 1]
        && shape.groups == 1
        && shape.input[2] >= 8
        && shape.filters >= 8
        && shape.output_len() > 0
        && 3 * height * width >= 2 * covered.max(1)
}

/// Whether tiles of 4x4 outputs need clearly fewer multiplications than such of 2x2 for that many pixels, and the weights, which become
/// four times as many, are not too many. Rounded factors would be magnified too much.
fn suits_four(output: [usize; 2], channels: usize, filters: usize, precision: Precision) -> bool {
    let products = |tile: usize, parts: usize| output.map(|n| n.div_ceil(tile)).iter().product::<usize>() * parts;
    precision == Precision::F32
        && 5 * products(4, four::PARTS) <= 4 * products(2, PARTS)
        && 4 * four::PARTS * channels * filters <= MOST_WEIGHTS
}

/// What becomes of the outputs.
pub(super) enum Output<'a> {
    /// Each is stored, where `accumulate` says so added to what is there before the epilogue.
    Plain { epilogue: Epilogue, accumulate: bool, y: ValuesMut<'a> },
    /// The maximum of each tile is stored, and where it was.
    Pooled { relu: bool, maxima: &'a mut [f32], positions: &'a mut [u8] },
}

impl<'a> Output<'a> {
    /// Cuts off what belongs to the first tiles: `values` of every output, or `maxima` of their maxima.
    fn split(self, values: usize, maxima_len: usize) -> (Self, Self) {
        match self {
            Output::Plain { epilogue, accumulate, y } => {
                let (first, rest) = y.split_at_mut(values);
                let part = |y| Output::Plain { epilogue, accumulate, y };
                (part(first), part(rest))
            }
            Output::Pooled { relu, maxima, positions } => {
                let (first, rest) = maxima.split_at_mut(maxima_len);
                let (first_positions, rest_positions) = positions.split_at_mut(maxima_len);
                (
                    Output::Pooled { relu, maxima: first, positions: first_positions },
                    Output::Pooled { relu, maxima: rest, positions: rest_positions },
                )
            }
        }
    }
}

impl Winograd {
    /// The convolution of images of that shape, padded by `before` at the top and at the left, to `output` pixels.
    pub(super) fn new(
        image: [usize; 3],
        before: [isize; 2],
        output: [usize; 2],
        filters: usize,
        level: Level,
        precision: Precision,
    ) -> Self {
        let tile = if suits_four(output, image[2], filters, precision) { 4 } else { 2 };
        Winograd::of_tiles(tile, image, before, output, filters, level, precision)
    }

    /// The same in tiles of 2x2, which can be [`Output::Pooled`]; also for gradients, whose few large values among zeros round less in them.
    pub(super) fn in_small_tiles(
        image: [usize; 3],
        before: [isize; 2],
        output: [usize; 2],
        filters: usize,
        level: Level,
        precision: Precision,
    ) -> Self {
        Winograd::of_tiles(2, image, before, output, filters, level, precision)
    }

    #[allow(clippy::too_many_arguments, reason = "all of them are of one convolution")]
    fn of_tiles(
        tile: usize,
        image: [usize; 3],
        before: [isize; 2],
        output: [usize; 2],
        filters: usize,
        level: Level,
        precision: Precision,
    ) -> Self {
        let size = TileSize::of(level);
        let tiles = output.map(|n| n.div_ceil(tile));
        // The rows of a tile must not drive each other out of the first-level cache.
        let values = if precision == Precision::Bf16 { 2 } else { 1 };
        let patch = unaliased(size.padded(image[2]) / values, 2048);
        let source = Source::new(image, before, tiles.map(|n| tile * n + 2));
        let product_pitch = size.padded(filters).min(size.columns);
        let patches = if tile == 4 { PATCH_BYTES_OF_FOUR } else { PATCH_BYTES };
        let most = (patches / (4 * (tile + 2) * (tile + 2) * patch)).clamp(size.rows, MOST_TILES);
        let copies = COPY_BYTES / (4 * source.sample()).max(1);
        // Two rows more than the tiles cover are copied.
        let rows = (COPY_BYTES / (4 * source.pitch()).max(1)).saturating_sub(2) / tile;
        Winograd {
            level,
            precision,
            size,
            tile,
            output,
            tiles,
            filters,
            product_pitch,
            patch,
            block: most,
            block_samples: copies,
            block_rows: equal(tiles[0], rows.max(1)),
            source,
        }
    }

    fn channels(&self) -> usize {
        self.source.channels
    }

    /// Matrices: one for each pixel of a transformed patch.
    fn parts(&self) -> usize {
        (self.tile + 2) * (self.tile + 2)
    }

    pub(super) fn packed_len(&self) -> usize {
        self.parts() * self.channels() * self.size.padded(self.filters)
    }

    /// Packs the nine taps of the matrix, given in the order of the window, as `[panel][part][channel][panel columns]`.
    pub(super) fn pack(&self, pool: &mut Pool, matrix: &Matrix, taps: &[Tap], weights: &[f32], packed: &mut [f32]) {
        assert_eq!(taps.len(), 9, "taps of a 3x3 kernel");
        matrix.pack_transformed(self.level, pool, taps, weights, packed, self.parts(), |panel, width| {
            if self.tile == 4 {
                return self.level.dispatch(four::TransformWeights { channels: self.channels(), width, panel });
            }
            self.level.dispatch(TransformWeights { channels: self.channels(), width, panel: &mut *panel });
            if self.precision == Precision::Bf16 {
                pair_rows(self.level, panel, PARTS, self.channels(), width);
            }
        });
    }

    /// Values from one part of the patches, and of the products, to the next: the parts of one vector must not drive each other out
    /// of the first-level cache.
    fn strides(&self) -> [usize; 2] {
        [self.block * self.patch, self.block * self.product_pitch].map(|len| unaliased(len, 1024))
    }

    fn parts_len(&self) -> [usize; 2] {
        self.strides().map(|stride| self.parts() * stride)
    }

    pub(super) fn scratch_len(&self, samples: usize) -> usize {
        let copies = match self.block_samples {
            0 => self.source.rows_len(self.tile * self.block_rows + 2),
            most => self.source.scratch_len(samples.min(most)),
        };
        copies + self.parts_len().iter().sum::<usize>()
    }

    /// Values of the output that a row of tiles gives, but for the last row where the height is odd.
    pub(super) fn row_len(&self) -> usize {
        self.tile * self.output[1] * self.filters
    }

    /// Values and maxima that these rows of tiles of one sample give.
    fn len(&self, rows: Range<usize>) -> [usize; 2] {
        let pixel_rows = (self.tile * rows.end).min(self.output[0]) - self.tile * rows.start;
        [pixel_rows * self.output[1] * self.filters, rows.len() * self.tiles[1] * self.filters]
    }

    pub(super) fn run(
        &self,
        samples: usize,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        mut output: Output<'_>,
        scratch: &mut [f32],
    ) {
        let [values, maxima] = self.len(0..self.tiles[0]);
        let x_len = self.source.source_sample();
        for first in (0..samples).step_by(self.block_samples.max(1)) {
            let count = self.block_samples.clamp(1, samples - first);
            let (part, rest) = output.split(count * values, count * maxima);
            output = rest;
            let x = &x[first * x_len..(first + count) * x_len];
            if self.block_samples == 0 {
                self.run_rows(0..self.tiles[0], x, packed, bias, part, scratch);
                continue;
            }
            let [patches, products] = self.parts_len();
            let (patches, scratch) = scratch.split_at_mut(patches);
            let (products, scratch) = scratch.split_at_mut(products);
            let x = self.source.prepare(count, x, scratch);
            let (tiles, size) = (self.tiles, self.output);
            self.compute(Run {
                plan: self,
                samples: count,
                tiles,
                size,
                x,
                packed,
                bias,
                output: part,
                patches,
                products,
            });
        }
    }

    /// Computes what some rows of tiles of one sample give.
    pub(super) fn run_rows(
        &self,
        rows: Range<usize>,
        x: &[f32],
        packed: &[f32],
        bias: Option<&[f32]>,
        mut output: Output<'_>,
        scratch: &mut [f32],
    ) {
        let most = if self.block_samples == 0 { self.block_rows } else { self.tiles[0] };
        for first in rows.clone().step_by(equal(rows.len(), most).max(1)) {
            let rows = first..(first + equal(rows.len(), most)).min(rows.end);
            let [values, maxima] = self.len(rows.clone());
            let (part, rest) = output.split(values, maxima);
            output = rest;
            let [patches, products] = self.parts_len();
            let (patches, scratch) = scratch.split_at_mut(patches);
            let (products, scratch) = scratch.split_at_mut(products);
            let x = self.source.prepare_rows(self.tile * rows.start..self.tile * rows.end + 2, x, scratch);
            let tiles = [rows.len(), self.tiles[1]];
            let size = [(self.tile * rows.end).min(self.output[0]) - self.tile * rows.start, self.output[1]];
            self.compute(Run { plan: self, samples: 1, tiles, size, x, packed, bias, output: part, patches, products });
        }
    }

    fn compute(&self, run: Run<'_>) {
        match self.precision {
            Precision::F32 => run.run_on(self.level),
            Precision::Bf16 => run.run_pairs_on(self.level),
        }
    }
}

/// The size of a part, where `len` is cut into as few parts of at most `most` as possible, all about alike.
fn equal(len: usize, most: usize) -> usize {
    len.div_ceil(len.div_ceil(most).max(1))
}

/// Turns nine taps, which lie in the panel's last nine parts, into the sixteen parts, row by row in place.
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
        assert_eq!(self.panel.len(), PARTS * part, "sixteen parts");
        let half = isa.splat(0.5);
        for at in (0..part).step_by(I::LANES) {
            // SAFETY: panels are whole vectors wide, so each part has a vector at `at`.
            unsafe {
                let panel = self.panel.as_mut_ptr().add(at);
                // `G g`, then `(G g) G^T`.
                let mut rows = [[isa.zero(); 3]; 4];
                for column in 0..3 {
                    let tap = |row: usize| panel.add((PARTS - 9 + 3 * row + column) * part).cast_const();
                    let (a, b, c) = (isa.load(tap(0)), isa.load(tap(1)), isa.load(tap(2)));
                    let ends = isa.add(a, c);
                    rows[0][column] = a;
                    rows[1][column] = isa.mul(half, isa.add(ends, b));
                    rows[2][column] = isa.mul(half, isa.sub(ends, b));
                    rows[3][column] = c;
                }
                for row in 0..4 {
                    let [a, b, c] = rows[row];
                    let ends = isa.add(a, c);
                    isa.store(panel.add(4 * row * part), a);
                    isa.store(panel.add((4 * row + 1) * part), isa.mul(half, isa.add(ends, b)));
                    isa.store(panel.add((4 * row + 2) * part), isa.mul(half, isa.sub(ends, b)));
                    isa.store(panel.add((4 * row + 3) * part), c);
                }
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

struct Run<'a> {
    plan: &'a Winograd,
    samples: usize,
    /// Tiles down and across, and height and width of the output, of each sample: all of the plan's, or some rows.
    tiles: [usize; 2],
    size: [usize; 2],
    x: &'a [f32],
    packed: &'a [f32],
    bias: Option<&'a [f32]>,
    output: Output<'a>,
    /// Transformed patches: `[part][tile][channel]`.
    patches: &'a mut [f32],
    /// Their products with one panel: `[part][tile][column]`.
    products: &'a mut [f32],
}

impl Run<'_> {
    /// Computes it; the one place where it is compiled.
    #[inline(never)]
    fn run_on(self, level: Level) {
        level.dispatch(self);
    }

    /// The same with patches and weights in pairs of bf16 values.
    #[inline(never)]
    fn run_pairs_on(self, level: Level) {
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
            Output::Plain { accumulate, y, .. } => {
                assert!(!y.is_bf16() || plan.precision == Precision::Bf16, "bf16 outputs of bf16 factors");
                assert!(!(y.is_bf16() && *accumulate), "single-precision sums to add to");
                let pixels = self.size[0] * self.size[1];
                assert_eq!(y.len(), self.samples * pixels * plan.filters, "outputs of every pixel");
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
                }
            }
        }
    }
}

impl Run<'_> {
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
                        transform_patch::<I, F>(isa, from, pitch, channels, channels - channel, to, part);
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
            let sums = multiply_add::<I, F, ROWS, VECTORS>(isa, &reduction, a, panel, width, ahead, zero);
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
        let half = F::VALUES == 2 && matches!(&self.output, Output::Plain { y, .. } if y.is_bf16());
        for vector in (0..columns).step_by(I::LANES) {
            let used = I::LANES.min(columns - vector);
            let filter = column + vector;
            let mask = isa.first(used);
            let bias = self.bias.map_or(isa.zero(), |bias| {
                // SAFETY: the mask ends at the filters.
                unsafe { isa.load_masked(mask, bias.as_ptr().add(filter)) }
            });
            let mut place = TilePlace::new(first, self.tiles);
            for tile in 0..count {
                let [sample, row, column] = place.next_tile();
                let mut rows = [[isa.zero(); 4]; 2];
                for i in 0..4 {
                    let load = |j: usize| {
                        let at = (4 * j + i) * part + tile * plan.product_pitch + vector;
                        // SAFETY: the products hold whole vectors for every row of a tile.
                        unsafe { isa.load(self.products.as_ptr().add(at)) }
                    };
                    let (a, b, c, d) = (load(0), load(1), load(2), load(3));
                    rows[0][i] = isa.add(a, isa.add(b, c));
                    rows[1][i] = isa.sub(isa.sub(b, c), d);
                }
                let mut outputs = [isa.zero(); 4];
                for i in 0..2 {
                    let [a, b, c, d] = rows[i];
                    outputs[2 * i] = isa.add(a, isa.add(b, c));
                    outputs[2 * i + 1] = isa.sub(isa.sub(b, c), d);
                }
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
                            isa.store_bytes(positions.as_mut_ptr().add(to), used, position);
                        }
                    }
                    Output::Plain { epilogue, accumulate, y } => {
                        let (low, high) = epilogue.bounds();
                        let (low, high) = (isa.splat(low), isa.splat(high));
                        for i in 0..4 {
                            let (row, column) = (2 * row + i / 2, 2 * column + i % 2);
                            if row < height && column < width {
                                let mut value = isa.add(outputs[i], bias);
                                let to = ((sample * height + row) * width + column) * plan.filters + filter;
                                // SAFETY: the caller's promise, and the mask ends at the filters.
                                unsafe {
                                    if *accumulate {
                                        value = isa.add(value, isa.load_masked(mask, y.as_mut_ptr().add(to)));
                                    }
                                    let value = isa.min(high, isa.max(low, value));
                                    match used == I::LANES {
                                        true => store::<I, true>(isa, y.as_mut_ptr(), half, to, value),
                                        false => store_first::<I, true>(isa, y.as_mut_ptr(), half, to, used, value),
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Run<'_> {
    /// As [`finish`](Self::finish), of tiles of 4x4 outputs.
    ///
    /// # Safety
    /// As for [`transform`](Self::transform).
    #[inline(always)]
    unsafe fn finish_four<I: Isa>(&mut self, isa: I, first: usize, count: usize, column: usize) {
        let plan = self.plan;
        let Output::Plain { epilogue, accumulate, y } = &mut self.output else { return };
        let [height, width] = self.size;
        let [_, part] = plan.strides();
        let columns = plan.size.columns.min(plan.filters - column);
        let (low, high) = epilogue.bounds();
        let (low, high) = (isa.splat(low), isa.splat(high));
        let mut place = TilePlace::new(first, self.tiles);
        for tile in 0..count {
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
                            let to = y.as_mut_ptr().add(corner + (i * width + j) * plan.filters + vector);
                            let mut value = isa.add(outputs[i][j], bias);
                            if *accumulate {
                                value = isa.add(value, isa.load_masked(mask, to));
                            }
                            let value = isa.min(high, isa.max(low, value));
                            if used == I::LANES {
                                isa.store(to, value);
                            } else {
                                isa.store_masked(mask, to, value);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Transforms one vector of channels of a patch, `B^T d B`: from 4x4 pixels at `from` to sixteen vectors `part` slots apart.
///
/// # Safety
/// Of every pixel, `left` channels, at most a vector, are readable; the sixteen vectors are writable.
#[inline(always)]
pub(super) unsafe fn transform_patch<I: Isa, F: Factors>(
    isa: I,
    from: *const f32,
    pitch: usize,
    channels: usize,
    left: usize,
    to: *mut f32,
    part: usize,
) {
    let mut rows = [[isa.zero(); 4]; 4];
    // SAFETY: the caller's promise.
    unsafe {
        let mut pixels = [[isa.zero(); 4]; 4];
        for row in 0..4 {
            pixels[row] = load_pixels(isa, from.add(row * pitch), channels, left);
        }
        for column in 0..4 {
            let [a, b, c, d] = [pixels[0][column], pixels[1][column], pixels[2][column], pixels[3][column]];
            rows[0][column] = isa.sub(a, c);
            rows[1][column] = isa.add(b, c);
            rows[2][column] = isa.sub(c, b);
            rows[3][column] = isa.sub(b, d);
        }
        for row in 0..4 {
            let [a, b, c, d] = rows[row];
            F::store(isa, to.add(4 * row * part), isa.sub(a, c));
            F::store(isa, to.add((4 * row + 1) * part), isa.add(b, c));
            F::store(isa, to.add((4 * row + 2) * part), isa.sub(c, b));
            F::store(isa, to.add((4 * row + 3) * part), isa.sub(b, d));
        }
    }
}

/// One vector of channels of four pixels of a row.
///
/// # Safety
/// Of every pixel, `left` channels, at most a vector, are readable.
#[inline(always)]
unsafe fn load_pixels<I: Isa>(isa: I, from: *const f32, channels: usize, left: usize) -> [I::F32; 4] {
    let mask = isa.first(left);
    let mut pixels = [isa.zero(); 4];
    for column in 0..4 {
        // SAFETY: the caller's promise.
        unsafe {
            let from = from.add(column * channels);
            pixels[column] = if left >= I::LANES { isa.load(from) } else { isa.load_masked(mask, from) };
        }
    }
    pixels
}

/// A row of the transformed patch whose first pixel is at `from`: `(B^T d)[row] B`, from the two rows of pixels that it needs.
///
/// # Safety
/// As for [`transform_patch`].
#[inline(always)]
pub(super) unsafe fn transform_row<I: Isa>(
    isa: I,
    from: *const f32,
    pitch: usize,
    channels: usize,
    left: usize,
    row: usize,
) -> [I::F32; 4] {
    let (first, second) = [(0, 2), (1, 2), (2, 1), (1, 3)][row];
    // SAFETY: the caller's promise.
    let (first, second) = unsafe {
        (
            load_pixels(isa, from.add(first * pitch), channels, left),
            load_pixels(isa, from.add(second * pitch), channels, left),
        )
    };
    let mut sums = [isa.zero(); 4];
    for column in 0..4 {
        let (a, b) = (first[column], second[column]);
        sums[column] = if row == 1 { isa.add(a, b) } else { isa.sub(a, b) };
    }
    let [a, b, c, d] = sums;
    [isa.sub(a, c), isa.add(b, c), isa.sub(c, b), isa.sub(b, d)]
}

const _: () = assert!(MOST_ROWS == 12, "tiles of this many rows are dispatched above");
