//! 3x3 convolution with unit strides by Winograd's minimal filtering: 16 multiplications for 2x2 outputs instead of 36, or 36 for
//! 4x4 instead of 144.
//!
//! F(2x2, 3x3) and F(4x4, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015). Patches of 4x4 or 6x6
//! pixels and the kernels are transformed by additions, multiplied as sixteen or 36 matrices, and transformed back, for the tiles of
//! one matrix tile at a time, so that the products never leave the cache.

mod four;
mod line_weights;
mod lines;
mod row_weights;
mod run;
mod two;
mod weights;

pub(super) use line_weights::LineWeights;
pub(super) use weights::WinogradWeights;

use super::factors::pair_rows;
use super::geometry::{Source, Tap, is_cold, unaliased};
use super::pack::{Matrix, Place, TileSize};
use super::{ConvShape, Epilogue, Sums};
use crate::packing::WeightRows;
use crate::pool::Disjoint;
use crate::{Level, Pool, Precision};
use lines::Lines;
use run::Run;
use std::ops::Range;

/// Bytes of padded image that are copied together, and of transformed patches: a part of a common second-level cache.
const COPY_BYTES: usize = 256 << 10;
const PATCH_BYTES: usize = 512 << 10;

/// The same of tiles of 4x4, whose products take as much again.
const PATCH_BYTES_OF_FOUR: usize = 600 << 10;

/// The most bytes of weights transformed for tiles of 4x4, since the weights of a large net pass once for each image. One image on one
/// thread takes 0.57 of its time in tiles of 2x2 with 56x56 pixels of 64 channels (0.6 MB) and 0.56 with 28x28 of 128 (2.4 MB). With
/// 14x14 of 256 (9.4 MB) it gains in groups of images only; one image of ResNet-50 took 1.3 to 2.1 times as long.
const MOST_WEIGHTS: usize = 4 << 20;

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
    /// The way along rows alone, where it is the better one.
    lines: Option<Lines>,
}

/// What is computed: the convolution of images of a shape, padded by `before` at the top and at the left, to `output` pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filtering {
    pub(super) image: [usize; 3],
    pub(super) before: [isize; 2],
    pub(super) output: [usize; 2],
    pub(super) filters: usize,
    pub(super) level: Level,
    pub(super) precision: Precision,
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
pub(super) fn suits_four(output: [usize; 2], channels: usize, filters: usize, precision: Precision) -> bool {
    let products = |tile: usize, parts: usize| output.map(|n| n.div_ceil(tile)).iter().product::<usize>() * parts;
    precision == Precision::F32
        && 5 * products(4, four::PARTS) <= 4 * products(2, two::PARTS)
        && 4 * four::PARTS * channels * filters <= MOST_WEIGHTS
}

/// What becomes of the outputs.
pub(super) enum Output<'a> {
    /// Each is stored.
    Plain { epilogue: Epilogue, sums: Sums<'a> },
    /// The maximum of each tile is stored, and where it was.
    Pooled { relu: bool, maxima: &'a mut [f32], positions: &'a mut [u8] },
}

impl<'a> Output<'a> {
    /// Cuts off what belongs to the first tiles: `values` of every output, or `maxima` of their maxima.
    fn split(self, values: usize, maxima_len: usize) -> (Self, Self) {
        match self {
            Output::Plain { epilogue, sums } => {
                let (first, rest) = sums.split_at_mut(values);
                (Output::Plain { epilogue, sums: first }, Output::Plain { epilogue, sums: rest })
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
    /// In the tiles, or along the lines, that are the better way.
    pub(super) fn new(filtering: Filtering) -> Self {
        let Filtering { image, output, filters, precision, .. } = filtering;
        let tile = if suits_four(output, image[2], filters, precision) { 4 } else { 2 };
        Winograd { lines: Lines::suiting(filtering), ..Winograd::of_tiles(tile, filtering) }
    }

    /// Not in large tiles: for gradients, whose few large values among zeros round less so.
    pub(super) fn of_gradient(filtering: Filtering) -> Self {
        Winograd { lines: Lines::suiting(filtering), ..Winograd::in_small_tiles(filtering) }
    }

    /// In tiles of 2x2, which can be [`Output::Pooled`].
    pub(super) fn in_small_tiles(filtering: Filtering) -> Self {
        Winograd::of_tiles(2, filtering)
    }

    fn of_tiles(tile: usize, filtering: Filtering) -> Self {
        let Filtering { image, before, output, filters, level, precision } = filtering;
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
            lines: None,
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
        if let Some(lines) = &self.lines {
            return lines.packed_len();
        }
        self.parts() * self.channels() * self.size.padded(self.filters)
    }

    /// Packs the nine taps of the matrix, given in the order of the window, as `[panel][part][channel][panel columns]`.
    pub(super) fn pack(&self, pool: &mut Pool, matrix: &Matrix, taps: &[Tap], weights: &[f32], packed: &mut [f32]) {
        assert_eq!(taps.len(), 9, "taps of a 3x3 kernel");
        if let Some(lines) = &self.lines {
            return lines.pack(pool, matrix, taps, weights, packed);
        }
        let channels = self.channels();
        matrix.pack_transformed(self.level, pool, taps, weights, packed, self.panel_rows(), |panel, width| {
            assert_eq!(panel.len(), self.parts() * channels * width, "a panel");
            let (place, part) = (Disjoint(panel.as_mut_ptr()), channels * width);
            self.transform(Place { panel: place, width, part, rows: 0..channels, columns: 0..width });
            if self.precision == Precision::Bf16 {
                pair_rows(self.level, panel, two::PARTS, self.channels(), width);
            }
        });
    }

    /// Rows of a panel, and the first of those that the taps take before they are transformed: the last ones.
    fn panel_rows(&self) -> [usize; 2] {
        [self.parts(), self.parts() - 9].map(|parts| parts * self.channels())
    }

    /// Whether rows of the weights can be packed apart.
    pub(super) fn can_be_cut(&self) -> bool {
        self.lines.is_none() && self.precision == Precision::F32
    }

    /// Packs the rows and columns of the matrix that some rows of the weights are.
    ///
    /// # Safety
    /// As for [`Packing::pack_rows`](crate::Packing::pack_rows).
    pub(super) unsafe fn pack_rows(
        &self,
        matrix: &Matrix,
        taps: &[Tap],
        weights: &WeightRows,
        place: [Range<usize>; 2],
    ) {
        assert_eq!(taps.len(), 9, "taps of a 3x3 kernel");
        let [depth, at] = self.panel_rows();
        // SAFETY: the caller's promise; the form is this plan's.
        unsafe { matrix.pack_rows(self.level, taps, weights, place, [0, depth, at], |place| self.transform(place)) };
    }

    /// Transforms the taps of these rows and columns in their panel.
    fn transform(&self, place: Place) {
        match self.tile {
            4 => self.level.dispatch(four::TransformWeights(place)),
            _ => self.level.dispatch(two::TransformWeights(place)),
        }
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
        if let Some(lines) = &self.lines {
            return lines.scratch_len();
        }
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
        if let Some(lines) = &self.lines {
            return lines.run(0..self.output[0], x, packed, bias, output, scratch);
        }
        let [values, maxima] = self.len(0..self.tiles[0]);
        let cold = self.is_cold(samples * values);
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
                cold,
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
        if let Some(lines) = &self.lines {
            let rows = self.tile * rows.start..self.output[0].min(self.tile * rows.end);
            return lines.run(rows, x, packed, bias, output, scratch);
        }
        let cold = self.is_cold(self.len(rows.clone())[0]);
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
            let samples = 1;
            self.compute(Run {
                plan: self,
                samples,
                tiles,
                size,
                x,
                packed,
                bias,
                output: part,
                patches,
                products,
                cold,
            });
        }
    }

    /// Whether so many outputs are asked for before they are written; in bf16 they are half as large, and that costs more than it saves.
    fn is_cold(&self, values: usize) -> bool {
        self.precision == Precision::F32 && is_cold(values)
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
