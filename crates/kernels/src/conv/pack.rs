//! Weights in the order that the tiles read: panels of a few vectors' columns, all of the reduction's rows in each.

use super::crossed_tile::{BESIDES, cross};
use super::factors::pair_rows;
use super::geometry::Tap;
use crate::isa::{Isa, Kernel};
use crate::packing::WeightRows;
use crate::pool::Disjoint;
use crate::{Level, Pool};
use std::ops::Range;

/// The sizes of a level's largest tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TileSize {
    pub(super) lanes: usize,
    pub(super) rows: usize,
    /// Columns of a full panel.
    pub(super) columns: usize,
}

struct MeasureTile;

impl Kernel for MeasureTile {
    type Output = TileSize;
    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> TileSize {
        TileSize { lanes: I::LANES, rows: I::TILE_ROWS, columns: I::LANES * I::TILE_VECTORS }
    }
}

impl TileSize {
    pub(super) fn of(level: Level) -> Self {
        level.dispatch(MeasureTile)
    }

    /// Columns that the panel at `column` stores, of `columns` in all: a full panel, or the rest in whole vectors.
    pub(super) fn panel(&self, column: usize, columns: usize) -> usize {
        self.columns.min((columns - column).next_multiple_of(self.lanes))
    }

    /// Columns in whole vectors.
    pub(super) fn padded(&self, columns: usize) -> usize {
        columns.next_multiple_of(self.lanes)
    }
}

/// How the weights of one group become a matrix of reduction rows and output columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix {
    /// Reduction rows that each tap contributes.
    pub(super) channels: usize,
    pub(super) columns: usize,
    /// Values from one row, column and tap of the weights to the next.
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
    pub(super) tap_stride: usize,
    /// From one group to the next.
    pub(super) group_stride: usize,
    pub(super) groups: usize,
}

impl Matrix {
    /// Values of one group's panels.
    pub(super) fn group_len(&self, taps: usize, size: TileSize) -> usize {
        taps * self.channels * size.padded(self.columns)
    }

    /// Packs every group: `[group][panel][tap][channel][panel columns]`, the last panel's missing columns zero; `pairs` of
    /// channels take the first half of a panel.
    pub(super) fn pack(
        &self,
        level: Level,
        pool: &mut Pool,
        taps: &[Tap],
        weights: &[f32],
        packed: &mut [f32],
        pairs: bool,
    ) {
        let depth = taps.len() * self.channels;
        self.pack_transformed(level, pool, taps, weights, packed, [depth, 0], |panel, width| {
            if pairs {
                pair_rows(level, panel, taps.len(), self.channels, width);
            }
        });
    }

    /// Values of the panels of [`pack_crossed`](Self::pack_crossed).
    pub(super) fn crossed_len(&self, size: TileSize) -> usize {
        (self.channels + BESIDES) * size.padded(self.columns)
    }

    /// Packs a 1x1 kernel of one group for crossed tiles.
    pub(super) fn pack_crossed(&self, level: Level, pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        let (taps, rows) = ([Tap { offset: 0, position: 0 }], [self.channels + BESIDES, 0]);
        self.pack_transformed(level, pool, &taps, weights, packed, rows, cross);
    }

    /// As [`pack`](Self::pack), but panels have `depth` rows, the taps' from row `at` on, and are given to `transform` together with
    /// their width.
    #[allow(clippy::too_many_arguments, reason = "all of them are of one packing")]
    pub(super) fn pack_transformed(
        &self,
        level: Level,
        pool: &mut Pool,
        taps: &[Tap],
        weights: &[f32],
        packed: &mut [f32],
        [depth, at]: [usize; 2],
        transform: impl Fn(&mut [f32], usize) + Sync,
    ) {
        let size = TileSize::of(level);
        let panels = self.columns.div_ceil(size.columns);
        let group_len = depth * size.padded(self.columns);
        assert_eq!(packed.len(), self.groups * group_len, "packed length");
        let packed = Disjoint(packed.as_mut_ptr());
        pool.run(self.groups * panels, &|_, task| {
            let (group, column) = (task / panels, task % panels * size.columns);
            let width = size.panel(column, self.columns);
            let start = group * group_len + column * depth;
            // SAFETY: panels are disjoint ranges of `packed`, whose length was checked, and each is one task's.
            let panel = unsafe { packed.range(start, start + depth * width) };
            let from = &weights[group * self.group_stride + column * self.column_stride..];
            let (to, used) = (Disjoint(panel[at * width..].as_mut_ptr()), width.min(self.columns - column));
            for (n, tap) in taps.iter().enumerate() {
                let (from, rows) = (&from[tap.position * self.tap_stride..], self.channels);
                // SAFETY: the panel has the taps' rows from `at` on.
                let to = unsafe { to.after(n * rows * width) };
                level.dispatch(Block { matrix: self, from, rows, used, stored: width, to, width });
            }
            transform(panel, width);
        });
    }

    /// Packs what some rows of the weights are of the only group's matrix, these rows and columns, as
    /// [`pack_transformed`](Self::pack_transformed) does into the values from `start` on. Columns begin with a vector. What lies where in
    /// the panels is given to `transform`.
    ///
    /// # Safety
    /// As for [`Packing::pack_rows`](crate::Packing::pack_rows), and the form has the panels from `start` on.
    pub(super) unsafe fn pack_rows(
        &self,
        level: Level,
        taps: &[Tap],
        weights: &WeightRows,
        [rows, columns]: [Range<usize>; 2],
        [start, depth, at]: [usize; 3],
        transform: impl Fn(Place),
    ) {
        let size = TileSize::of(level);
        let mut column = columns.start;
        while column < columns.end {
            let first = column - column % size.columns;
            let width = size.panel(first, self.columns);
            let used = columns.end.min(first + size.columns) - column;
            let stored = used.next_multiple_of(size.lanes);
            // SAFETY: where the panel starts, in the form.
            let panel = unsafe { weights.packed().after(start + first * depth) };
            for (n, tap) in taps.iter().enumerate() {
                let from = &weights.tap(tap.position)[(column - columns.start) * self.column_stride..];
                // SAFETY: where the block starts, which has the place of these rows and columns in a tap's rows of the panel.
                let to = unsafe { panel.after((at + n * self.channels + rows.start) * width + column - first) };
                level.dispatch(Block { matrix: self, from, rows: rows.len(), used, stored, to, width });
            }
            let columns = column - first..column - first + stored;
            transform(Place { panel, width, part: self.channels * width, rows: rows.clone(), columns });
            column += used;
        }
    }
}

/// Some rows and columns, whole vectors of them, of each part of a panel, which belong to one thread.
pub(super) struct Place {
    pub(super) panel: Disjoint<f32>,
    /// Values from one row to the next, and from one part to the next.
    pub(super) width: usize,
    pub(super) part: usize,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
}

impl Place {
    /// Where its vectors lie in each part.
    #[inline(always)]
    pub(super) fn vectors(&self, lanes: usize) -> impl Iterator<Item = usize> {
        let (width, columns) = (self.width, self.columns.clone());
        self.rows.clone().flat_map(move |row| columns.clone().step_by(lanes).map(move |column| row * width + column))
    }
}

/// Some rows and columns of one tap on their way into a panel. Whoever makes one has it alone write `stored` columns of every row from `to`
/// on, rows being `width` values apart.
struct Block<'a> {
    matrix: &'a Matrix,
    /// The weights from the first row and column on.
    from: &'a [f32],
    rows: usize,
    /// Columns that exist, and that are stored.
    used: usize,
    stored: usize,
    to: Disjoint<f32>,
    width: usize,
}

impl Kernel for Block<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Block { matrix, from, rows, used, stored, to, width } = self;
        let (row_stride, column_stride) = (matrix.row_stride, matrix.column_stride);
        if column_stride == 1 {
            for row in 0..rows {
                // SAFETY: the promise of whoever made the block.
                let to = unsafe { to.range(row * width, row * width + stored) };
                to[..used].copy_from_slice(&from[row * row_stride..][..used]);
                to[used..].fill(0.0);
            }
            return;
        }
        // Whole blocks of a transposed matrix go through registers.
        let (mut whole_rows, mut whole_columns) = (0, 0);
        if row_stride == 1 {
            whole_rows = rows - rows % I::LANES;
            whole_columns = used - used % I::LANES;
        }
        for column in (0..whole_columns).step_by(I::LANES) {
            for row in (0..whole_rows).step_by(I::LANES) {
                let from = &from[column * column_stride + row..][..(I::LANES - 1) * column_stride + I::LANES];
                // SAFETY: `from` holds `LANES` rows of `LANES` values at its pitch, and so do the block's rows from `row` on.
                unsafe { isa.transpose(from.as_ptr(), column_stride, to.after(row * width + column).0, width) };
            }
        }
        for row in 0..rows {
            let done = if row < whole_rows { whole_columns } else { 0 };
            // SAFETY: as above.
            let to = unsafe { to.range(row * width, row * width + stored) };
            for (column, to) in to[..used].iter_mut().enumerate().skip(done) {
                *to = from[row * row_stride + column * column_stride];
            }
            to[used..].fill(0.0);
        }
    }
}
