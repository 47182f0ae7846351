//! Weights in the order that the tiles read: panels of a few vectors' columns, all of the reduction's rows in each.

use super::crossed_tile::{BESIDES, cross};
use super::factors::pair_rows;
use super::geometry::Tap;
use crate::isa::{Isa, Kernel};
use crate::pool::Disjoint;
use crate::{Level, Pool};

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
            let used = width.min(self.columns - column);
            let untransformed = &mut panel[at * width..];
            level.dispatch(Panel { matrix: self, taps, from, used, width, panel: untransformed });
            transform(panel, width);
        });
    }
}

struct Panel<'a> {
    matrix: &'a Matrix,
    taps: &'a [Tap],
    /// The weights from the panel's first column on.
    from: &'a [f32],
    /// Columns that exist, and that are stored.
    used: usize,
    width: usize,
    panel: &'a mut [f32],
}

impl Kernel for Panel<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Panel { matrix, taps, from, used, width, panel } = self;
        let (row_stride, column_stride) = (matrix.row_stride, matrix.column_stride);
        for (tap, to) in taps.iter().zip(panel.chunks_exact_mut(matrix.channels * width)) {
            let from = &from[tap.position * matrix.tap_stride..];
            if column_stride == 1 {
                for (channel, to) in to.chunks_exact_mut(width).enumerate() {
                    to[..used].copy_from_slice(&from[channel * row_stride..][..used]);
                    to[used..].fill(0.0);
                }
                continue;
            }
            // Whole blocks of a transposed matrix go through registers.
            let (mut rows, mut columns) = (0, 0);
            if row_stride == 1 {
                rows = matrix.channels - matrix.channels % I::LANES;
                columns = used - used % I::LANES;
            }
            for column in (0..columns).step_by(I::LANES) {
                for row in (0..rows).step_by(I::LANES) {
                    let from = &from[column * column_stride + row..][..(I::LANES - 1) * column_stride + I::LANES];
                    let to = &mut to[row * width + column..][..(I::LANES - 1) * width + I::LANES];
                    // SAFETY: both slices hold `LANES` rows of `LANES` values at their pitch.
                    unsafe { isa.transpose(from.as_ptr(), column_stride, to.as_mut_ptr(), width) };
                }
            }
            for (row, to) in to.chunks_exact_mut(width).enumerate() {
                let done = if row < rows { columns } else { 0 };
                for (column, to) in to[..used].iter_mut().enumerate().skip(done) {
                    *to = from[row * row_stride + column * column_stride];
                }
                to[used..].fill(0.0);
            }
        }
    }
}
