//! Weight gradients over many pixels where tiles are small: `out[row][column] += sum over pixels of a[pixel + row] * b[pixel][column]`.
//!
//! A tile of 6 x 16 sums needs a line of both factors for every few cycles, and these lie a power of two apart, in few sets of the
//! first-level cache. So some pixels of some rows and columns are copied together, as tiles read them, where there are enough of
//! both to be worth it. Large tiles need fewer lines and read them where they are.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::tile::Reduction;
use crate::Level;
use crate::isa::{Isa, Kernel};

/// Pixels, rows and columns that are copied together: their copies fit the second-level cache beside what they are copied from.
const PIXELS: usize = 256;
const ROWS: usize = 96;
const COLUMNS: usize = 128;

/// Rows of a tile are copied in whole vectors, the last of which may write so many values beyond all tiles.
const SPARE: usize = 8;

/// Values that the copies take.
pub(super) const SCRATCH: usize = PIXELS * (ROWS + COLUMNS) + SPARE;

/// Whether tiles of that many rows are small.
pub(super) const fn small(tile_rows: usize) -> bool {
    tile_rows < 12
}

/// Whether there are rows and columns enough for the copies.
pub(super) const fn suits(rows: usize, columns: usize) -> bool {
    rows >= 96 && columns >= 96
}

/// One sum of products.
pub(super) struct BlockedWeights<'a> {
    /// Where each row starts in `a`.
    pub(super) rows: &'a [u32],
    pub(super) reduction: Reduction<'a>,
    pub(super) a: &'a [f32],
    /// Rows of `pitch` values.
    pub(super) b: &'a [f32],
    pub(super) pitch: usize,
    pub(super) columns: usize,
    /// Whether the sums are added to what the output holds.
    pub(super) accumulate: bool,
    /// From one row of the output to the next.
    pub(super) out_pitch: usize,
    pub(super) out: &'a mut [f32],
    /// [`SCRATCH`] values.
    pub(super) scratch: &'a mut [f32],
}

impl BlockedWeights<'_> {
    /// Computes it; the one place where it is compiled.
    #[inline(never)]
    pub(super) fn run_on(self, level: Level) {
        level.dispatch(self);
    }
}

impl Kernel for BlockedWeights<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        assert!(small(I::TILE_ROWS), "a level with small tiles");
        let Some(row) = self.rows.iter().copied().max() else { return };
        if self.columns == 0 {
            return;
        }
        let Some((a, k)) = self.reduction.last() else { return };
        assert!(row as usize + a < self.a.len(), "rows inside a");
        assert!(k * self.pitch + self.columns <= self.b.len(), "rows inside b");
        assert!((self.rows.len() - 1) * self.out_pitch + self.columns <= self.out.len(), "rows inside the output");
        assert!(self.scratch.len() >= SCRATCH, "room for the copies");
        let mut pixels = Pixels { a: [0; PIXELS], b: [0; PIXELS], count: 0 };
        for again in 0..self.reduction.repeat {
            for segment in self.reduction.segments {
                for i in 0..segment.len {
                    pixels.a[pixels.count] = segment.a + again * self.reduction.a_stride + i * self.reduction.step;
                    pixels.b[pixels.count] = (segment.k + again * self.reduction.k_stride + i) * self.pitch;
                    pixels.count += 1;
                    if pixels.count == PIXELS {
                        self.add(isa, &pixels);
                        pixels.count = 0;
                    }
                }
            }
        }
        if pixels.count > 0 {
            self.add(isa, &pixels);
        }
    }
}

/// Where some pixels lie in `a` and in `b`.
struct Pixels {
    a: [usize; PIXELS],
    b: [usize; PIXELS],
    count: usize,
}

impl BlockedWeights<'_> {
    /// Adds what these pixels give; the first ones overwrite, unless all are to be added.
    #[inline(always)]
    fn add<I: Isa>(&mut self, isa: I, pixels: &Pixels) {
        let panel = I::LANES * I::TILE_VECTORS;
        let most = ROWS / I::TILE_ROWS * I::TILE_ROWS;
        for column in (0..self.columns).step_by(COLUMNS) {
            let columns = column..self.columns.min(column + COLUMNS);
            let vectors = |panel_column: usize| (columns.end - panel_column).min(panel).div_ceil(I::LANES);
            for panel_column in columns.clone().step_by(panel) {
                let to = (panel_column - column) * pixels.count;
                self.copy_columns(isa, pixels, panel_column, vectors(panel_column), to);
            }
            for row in (0..self.rows.len()).step_by(most) {
                let rows = row..self.rows.len().min(row + most);
                let copy = |tile: usize| PIXELS * COLUMNS + (tile - row) * pixels.count;
                for tile in rows.clone().step_by(I::TILE_ROWS) {
                    self.copy_rows(isa, pixels, tile, copy(tile));
                }
                for panel_column in columns.clone().step_by(panel) {
                    for tile in rows.clone().step_by(I::TILE_ROWS) {
                        let b = (panel_column - column) * pixels.count;
                        let place = Place { a: copy(tile), b, pixels: pixels.count, row: tile, column: panel_column };
                        // SAFETY: `run` has bounded every row, column and copy.
                        unsafe { self.any_tile(isa, vectors(panel_column), &place) };
                    }
                }
            }
        }
        self.accumulate = true;
    }

    /// Copies the pixels' columns of one panel together, missing ones zero.
    #[inline(always)]
    fn copy_columns<I: Isa>(&mut self, isa: I, pixels: &Pixels, column: usize, vectors: usize, to: usize) {
        let mask = isa.first(self.columns - column - (vectors - 1) * I::LANES);
        // SAFETY: `run` has checked that `b` has every pixel's columns, beyond which the mask lets nothing be read, and that there is room.
        unsafe {
            let mut to = self.scratch.as_mut_ptr().add(to);
            for &pixel in &pixels.b[..pixels.count] {
                let from = self.b.as_ptr().add(pixel + column);
                for v in 0..vectors - 1 {
                    isa.store(to.add(v * I::LANES), isa.load(from.add(v * I::LANES)));
                }
                let last = (vectors - 1) * I::LANES;
                isa.store(to.add(last), isa.load_masked(mask, from.add(last)));
                to = to.add(vectors * I::LANES);
            }
        }
    }

    /// Copies the pixels' rows of one tile together; what rows are missing does not matter.
    #[inline(always)]
    fn copy_rows<I: Isa>(&mut self, isa: I, pixels: &Pixels, row: usize, to: usize) {
        let rows = &self.rows[row..self.rows.len().min(row + I::TILE_ROWS)];
        let (first, values) = (rows[0] as usize, I::TILE_ROWS.next_multiple_of(I::LANES));
        let neighbours = rows.len() == I::TILE_ROWS && rows[rows.len() - 1] as usize == first + I::TILE_ROWS - 1;
        for (p, &pixel) in pixels.a[..pixels.count].iter().enumerate() {
            let (from, to) = (pixel + first, to + p * I::TILE_ROWS);
            if neighbours && from + values <= self.a.len() {
                // SAFETY: what is read was just checked; the next pixel's copy, or the spare room, follows.
                unsafe {
                    for v in (0..values).step_by(I::LANES) {
                        isa.store(self.scratch.as_mut_ptr().add(to + v), isa.load(self.a.as_ptr().add(from + v)));
                    }
                }
            } else {
                for (to, &row) in self.scratch[to..].iter_mut().zip(rows) {
                    *to = self.a[pixel + row as usize];
                }
            }
        }
    }

    /// # Safety
    /// The copies and sums that the place names lie inside the slices; so many vectors are of a tile of this level.
    #[inline(always)]
    unsafe fn any_tile<I: Isa>(&mut self, isa: I, vectors: usize, place: &Place) {
        macro_rules! dispatch {
            ($($rows:literal: $($vectors:literal)*;)*) => {
                match (I::TILE_ROWS, vectors) {
                    $($(($rows, $vectors) if $rows == I::TILE_ROWS && $vectors <= I::TILE_VECTORS =>
                        // SAFETY: the caller's promise.
                        unsafe { self.tile::<I, $rows, $vectors>(isa, place) },)*)*
                    (rows, vectors) => unreachable!("{rows} rows of {vectors} vectors are no tile"),
                }
            };
        }
        dispatch! {
            4: 1 2;
            6: 1 2 3 4;
        }
    }

    /// # Safety
    /// The copies and sums that the place names lie inside the slices.
    #[inline(always)]
    unsafe fn tile<I: Isa, const ROWS: usize, const VECTORS: usize>(&mut self, isa: I, place: &Place) {
        let count = ROWS.min(self.rows.len() - place.row);
        let mask = isa.first(self.columns - place.column - (VECTORS - 1) * I::LANES);
        let mut sums = [[isa.zero(); VECTORS]; ROWS];
        // SAFETY: the caller's promise; rows beyond the last are neither read from the output nor stored, and the mask ends at the columns.
        unsafe {
            let out = self.out.as_mut_ptr().add(place.row * self.out_pitch + place.column);
            if self.accumulate {
                for r in 0..ROWS {
                    if r < count {
                        let from = out.add(r * self.out_pitch);
                        for v in 0..VECTORS - 1 {
                            sums[r][v] = isa.load(from.add(v * I::LANES));
                        }
                        sums[r][VECTORS - 1] = isa.load_masked(mask, from.add((VECTORS - 1) * I::LANES));
                    }
                }
            }
            let (mut a, mut b) = (self.scratch.as_ptr().add(place.a), self.scratch.as_ptr().add(place.b));
            for _ in 0..place.pixels {
                let mut columns = [isa.zero(); VECTORS];
                for v in 0..VECTORS {
                    columns[v] = isa.load(b.add(v * I::LANES));
                }
                for r in 0..ROWS {
                    let value = isa.splat(*a.add(r));
                    for v in 0..VECTORS {
                        sums[r][v] = isa.mul_add(value, columns[v], sums[r][v]);
                    }
                }
                a = a.add(ROWS);
                b = b.add(VECTORS * I::LANES);
            }
            for r in 0..ROWS {
                if r < count {
                    let to = out.add(r * self.out_pitch);
                    for v in 0..VECTORS - 1 {
                        isa.store(to.add(v * I::LANES), sums[r][v]);
                    }
                    isa.store_masked(mask, to.add((VECTORS - 1) * I::LANES), sums[r][VECTORS - 1]);
                }
            }
        }
    }
}

/// A tile: where its copies lie, how many pixels they have, and its first row and column of the output.
struct Place {
    a: usize,
    b: usize,
    pixels: usize,
    row: usize,
    column: usize,
}
