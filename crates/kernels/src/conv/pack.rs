//! Weights in the order that the tiles read: panels of a few vectors' columns, all of the reduction's rows in each.

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

    /// Packs every group: `[group][panel][tap][channel][panel columns]`, the last panel's missing columns zero.
    pub(super) fn pack(&self, pool: &mut Pool, taps: &[Tap], size: TileSize, weights: &[f32], packed: &mut [f32]) {
        let depth = taps.len() * self.channels;
        let panels = self.columns.div_ceil(size.columns);
        let group_len = self.group_len(taps.len(), size);
        assert_eq!(packed.len(), self.groups * group_len, "packed length");
        let packed = Disjoint(packed.as_mut_ptr());
        pool.run(self.groups * panels, &|_, task| {
            let (group, column) = (task / panels, task % panels * size.columns);
            let width = size.panel(column, self.columns);
            let start = group * group_len + column * depth;
            // SAFETY: panels are disjoint ranges of `packed`, whose length was checked, and each is one task's.
            let panel = unsafe { packed.range(start, start + depth * width) };
            let used = width.min(self.columns - column);
            let base = group * self.group_stride + column * self.column_stride;
            for (tap, rows) in taps.iter().zip(panel.chunks_exact_mut(self.channels * width)) {
                let base = base + tap.position * self.tap_stride;
                for (channel, row) in rows.chunks_exact_mut(width).enumerate() {
                    let base = base + channel * self.row_stride;
                    if self.column_stride == 1 {
                        row[..used].copy_from_slice(&weights[base..base + used]);
                    } else {
                        for (column, value) in row[..used].iter_mut().enumerate() {
                            *value = weights[base + column * self.column_stride];
                        }
                    }
                    row[used..].fill(0.0);
                }
            }
        });
    }
}
