//! The sums of [`moments`](super::moments), some rows at a time as a kernel makes them, while they are in the first-level cache.

use crate::Level;
use crate::columns::merged;
use crate::isa::{Isa, Kernel};
use std::cell::Cell;
use std::ops::Range;

/// `[Σ(x - shift), Σ(x - shift)²]` of rows that are added one after the other. Each kernel that is given it holds a copy.
///
/// Each sum errs by at most about `(40 + 512 / channels) ε Σ|term|`, whatever the number of rows.
#[derive(Clone, Copy, Debug)]
pub struct MomentSums<'a> {
    level: Level,
    channels: usize,
    /// The shift of each column. Few channels would leave lanes empty, so that several rows may be one wider row of columns.
    shift: &'a [f32],
    /// Both sums of each column, and what they are too large by (Kahan's compensation).
    totals: &'a [Cell<f32>],
    errors: &'a [Cell<f32>],
}

/// The most rows that are added in single precision before they are folded with compensation; half as many where their columns are taken some at
/// a time, so that they stay in the first-level cache.
const FOLD_ROWS: usize = 32;

/// Channels whose sums are written together.
const SOME: usize = 16;

/// Rows that are enough to be taken as one.
const ENOUGH_ROWS: usize = 1 << 10;

impl<'a> MomentSums<'a> {
    /// Values of scratch memory for so many channels.
    pub fn scratch_len(level: Level, channels: usize) -> usize {
        5 * columns(level, channels)
    }

    /// No rows yet, of `x - shift` with a value for each channel.
    ///
    /// # Panics
    /// Where the scratch memory is shorter than [`scratch_len`](Self::scratch_len) says.
    pub fn new(level: Level, shift: &[f32], scratch: &'a mut [f32]) -> Self {
        let columns = columns(level, shift.len());
        let (to, sums) = scratch[..Self::scratch_len(level, shift.len())].split_at_mut(columns);
        to.chunks_exact_mut(shift.len()).for_each(|to| to.copy_from_slice(shift));
        sums.fill(0.0);
        let (totals, errors) = Cell::from_mut(sums).as_slice_of_cells().split_at(2 * columns);
        MomentSums { level, channels: shift.len(), shift: to, totals, errors }
    }

    /// Channels of a row.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// Adds whole rows.
    pub(crate) fn add_rows(&self, x: &[f32]) {
        assert!(x.len().is_multiple_of(self.channels), "whole rows");
        // SAFETY: these are all values of all rows.
        unsafe { self.add(x.as_ptr(), x.len() / self.channels, 0..self.channels) };
    }

    /// Adds some channels of `rows` rows, of which the first begins at `x`, and the next ones whole rows later. It is compiled once, not with
    /// each kernel that calls it.
    ///
    /// # Safety
    /// So many values of every row are readable.
    #[inline(never)]
    pub(crate) unsafe fn add(&self, x: *const f32, rows: usize, channels: Range<usize>) {
        assert!(channels.end <= self.channels, "channels of a row");
        self.level.dispatch(AddRows { sums: *self, x, rows, channels });
    }

    /// Adds these columns of rows that lie `pitch` values apart.
    ///
    /// # Safety
    /// As for [`add`](Self::add).
    #[inline(always)]
    unsafe fn add_columns<I: Isa>(&self, isa: I, x: *const f32, pitch: usize, rows: usize, columns: Range<usize>) {
        let most = if columns.len() > 4 * I::LANES { FOLD_ROWS / 2 } else { FOLD_ROWS };
        for first in (0..rows).step_by(most) {
            let rows = most.min(rows - first);
            let mut column = columns.start;
            while column < columns.end {
                let left = columns.end - column;
                let from = x.wrapping_add(first * pitch + column - columns.start);
                // SAFETY: the caller's promise.
                unsafe {
                    if left >= 4 * I::LANES {
                        self.fold::<I, 4, 1>(isa, from, pitch, rows, column, 4 * I::LANES);
                        column += 4 * I::LANES;
                    } else if left >= 2 * I::LANES {
                        self.fold::<I, 2, 2>(isa, from, pitch, rows, column, 2 * I::LANES);
                        column += 2 * I::LANES;
                    } else {
                        self.fold::<I, 1, 4>(isa, from, pitch, rows, column, left);
                        column += I::LANES;
                    }
                }
            }
        }
    }

    /// Adds `V` vectors of columns of at most [`FOLD_ROWS`] rows, every `R`-th row to the same registers, since each addition waits for the
    /// one before. A single vector may have fewer columns than lanes.
    ///
    /// # Safety
    /// As for [`add`](Self::add), of so many columns from `column` on.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "the indices are registers")]
    unsafe fn fold<I: Isa, const V: usize, const R: usize>(
        &self,
        isa: I,
        x: *const f32,
        pitch: usize,
        rows: usize,
        column: usize,
        columns: usize,
    ) {
        let mask = isa.first(columns - (V - 1) * I::LANES);
        let whole = columns >= V * I::LANES;
        let mut shift = [isa.zero(); V];
        let mut sums = [[[isa.zero(); 2]; V]; R];
        // SAFETY: vectors are whole, or the only one's mask ends at the channels. Cells may be written through pointers to them.
        unsafe {
            for v in 0..V {
                shift[v] = load(isa, whole, mask, self.shift.as_ptr().add(column + v * I::LANES));
            }
            for row in (0..rows).step_by(R) {
                for r in 0..R {
                    if row + r >= rows {
                        break;
                    }
                    for v in 0..V {
                        let value = load(isa, whole, mask, x.add((row + r) * pitch + v * I::LANES));
                        let d = isa.sub(value, shift[v]);
                        sums[r][v] = [isa.add(sums[r][v][0], d), isa.mul_add(d, d, sums[r][v][1])];
                    }
                }
            }
            for v in 0..V {
                for s in 0..2 {
                    let mut part = sums[0][v][s];
                    for r in 1..R {
                        part = isa.add(part, sums[r][v][s]);
                    }
                    let at = s * self.shift.len() + column + v * I::LANES;
                    let total = self.totals.as_ptr().add(at).cast::<f32>().cast_mut();
                    let error = self.errors.as_ptr().add(at).cast::<f32>().cast_mut();
                    let before = load(isa, whole, mask, total);
                    let term = isa.sub(part, load(isa, whole, mask, error));
                    let sum = isa.add(before, term);
                    store(isa, whole, mask, error, isa.sub(isa.sub(sum, before), term));
                    store(isa, whole, mask, total, sum);
                }
            }
        }
    }

    /// Writes the sums of all rows, as [`moments`](super::moments) does.
    ///
    /// # Panics
    /// Where `sums` are not two for each channel.
    pub fn finish(self, sums: &mut [f32], accumulate: bool) {
        assert_eq!(sums.len(), 2 * self.channels, "two sums for each channel");
        for (sums, totals) in sums.chunks_exact_mut(self.channels).zip(self.totals.chunks_exact(self.shift.len())) {
            for (first, sums) in (0..).step_by(SOME).zip(sums.chunks_mut(SOME)) {
                // Several rows that were taken as one are added up first, since their sums are smaller.
                let mut added = [0.0; SOME];
                for totals in totals.chunks_exact(self.channels) {
                    added.iter_mut().zip(&totals[first..]).for_each(|(sum, total)| *sum += total.get());
                }
                for (sum, added) in sums.iter_mut().zip(added) {
                    *sum = if accumulate { *sum + added } else { added };
                }
            }
        }
    }
}

/// Columns of a row, or of some that are taken as one.
fn columns(level: Level, channels: usize) -> usize {
    level.dispatch(Columns(channels))
}

struct Columns(usize);

impl Kernel for Columns {
    type Output = usize;
    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> usize {
        self.0 * merged(self.0, I::LANES, ENOUGH_ROWS)
    }
}

/// # Safety
/// The lanes are readable: all of them, or those of the mask.
#[inline(always)]
unsafe fn load<I: Isa>(isa: I, whole: bool, mask: I::Mask, from: *const f32) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe { if whole { isa.load(from) } else { isa.load_masked(mask, from) } }
}

/// # Safety
/// As for [`load`], writable.
#[inline(always)]
unsafe fn store<I: Isa>(isa: I, whole: bool, mask: I::Mask, to: *mut f32, value: I::F32) {
    // SAFETY: the caller's promise.
    unsafe { if whole { isa.store(to, value) } else { isa.store_masked(mask, to, value) } }
}

/// Some channels of rows that lie whole rows apart, which whoever makes one says are readable.
struct AddRows<'a> {
    sums: MomentSums<'a>,
    x: *const f32,
    rows: usize,
    channels: Range<usize>,
}

impl Kernel for AddRows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let AddRows { sums, x, rows, channels } = self;
        let (pitch, width) = (sums.channels, sums.shift.len());
        // SAFETY: the promise of whoever made this; whole rows lie one behind the other.
        unsafe {
            if channels.len() < pitch {
                return sums.add_columns(isa, x, pitch, rows, channels);
            }
            let (wide, rest) = (rows * pitch / width, rows * pitch % width);
            sums.add_columns(isa, x, width, wide, 0..width);
            sums.add_columns(isa, x.wrapping_add(wide * width), width, 1, 0..rest);
        }
    }
}
