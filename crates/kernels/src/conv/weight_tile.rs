//! Weight gradients over few pixels: `out[row][column] += sum over k of a[row, k] * b[k][column]`.
//!
//! Most of the work is then to move the sums. Rows that are neighbours in `a` are read through one pointer, and all columns of
//! some rows come one after the other, so that the sums stream through the cache. Where there are as few as a slot's
//! samples, as in dense layers, `b` stays in registers and each sum is touched once for every eight of them. Many pixels are
//! summed over block by block, whose columns then stay in the first-level cache.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::geometry::Segment;
use super::tile::Reduction;
use crate::Level;
use crate::isa::{Isa, Kernel};

/// Rows that are neighbours both in `a` and in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Where the first one starts in `a`.
    pub(super) input: usize,
    /// The number of its row in the output.
    pub(super) row: usize,
    pub(super) len: usize,
}

/// The rows that start at those offsets of `a`, in order, as runs.
pub(super) fn runs(offsets: &[u32]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (row, input) in offsets.iter().map(|&offset| offset as usize).enumerate() {
        match runs.last_mut() {
            Some(last) if last.input + last.len == input => last.len += 1,
            _ => runs.push(Run { input, row, len: 1 }),
        }
    }
    runs
}

/// One sum of products.
pub(super) struct WeightProduct<'a> {
    pub(super) runs: &'a [Run],
    pub(super) reduction: Reduction<'a>,
    pub(super) a: &'a [f32],
    /// Rows of `pitch` values, of which the columns are read in whole vectors.
    pub(super) b: &'a [f32],
    pub(super) pitch: usize,
    pub(super) columns: usize,
    /// Whether the sums are added to what the output holds.
    pub(super) accumulate: bool,
    /// From one row of the output to the next.
    pub(super) out_pitch: usize,
    pub(super) out: &'a mut [f32],
}

/// The longest reduction that this is for where tiles are large: with longer ones these had better keep the columns of `b` in the cache.
pub(super) const SHORT: usize = 64;

/// The longest reduction that is done with `b` in registers.
const FEW: usize = 16;

/// The longest reduction that tiles go through at once.
const BLOCK: usize = 128;

/// Values of the reduction that are in registers at once.
const CHUNK: usize = 8;

/// Rows of parts of a vector that are done at once.
const TOGETHER: usize = 8;

/// Rows that are done before the next vector of columns.
const ROWS: usize = 64;

impl WeightProduct<'_> {
    /// Computes it; the one place where it is compiled.
    #[inline(never)]
    pub(super) fn run_on(self, level: Level) {
        level.dispatch(self);
    }
}

impl Kernel for WeightProduct<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let (Some(input), Some(row)) =
            (self.runs.iter().map(|r| r.input + r.len).max(), self.runs.iter().map(|r| r.row + r.len).max())
        else {
            return;
        };
        if self.columns == 0 {
            return;
        }
        if let Some((a, k)) = self.reduction.last() {
            assert!(input + a <= self.a.len(), "rows inside a");
            assert!(k * self.pitch + self.columns.next_multiple_of(I::LANES) <= self.b.len(), "rows inside b");
        }
        assert!((row - 1) * self.out_pitch + self.columns <= self.out.len(), "rows inside the output");
        let length = self.reduction.repeat * self.reduction.segments.iter().map(|segment| segment.len).sum::<usize>();
        if length <= FEW {
            for index in 0..self.runs.len() {
                // SAFETY: the assertions above bound every row, column and product.
                unsafe { self.stream(isa, self.runs[index]) };
            }
            return;
        }
        let mut block = Block { segments: [Segment { a: 0, k: 0, len: 0 }; BLOCK], used: 0, length: 0 };
        for again in 0..self.reduction.repeat {
            for segment in self.reduction.segments {
                let mut done = 0;
                while done < segment.len {
                    let len = (segment.len - done).min(BLOCK - block.length);
                    let a = segment.a + again * self.reduction.a_stride + done * self.reduction.step;
                    let k = segment.k + again * self.reduction.k_stride + done;
                    block.segments[block.used] = Segment { a, k, len };
                    (block.used, block.length, done) = (block.used + 1, block.length + len, done + len);
                    if block.length == BLOCK {
                        self.block(isa, &block);
                        (block.used, block.length) = (0, 0);
                    }
                }
            }
        }
        if block.length > 0 {
            self.block(isa, &block);
        }
    }
}

/// A part of the reduction, in segments.
struct Block {
    segments: [Segment; BLOCK],
    used: usize,
    length: usize,
}

/// Where a tile's first row starts in `a`, its first sum in the output, and its first column.
#[derive(Clone, Copy)]
struct Place {
    input: usize,
    output: usize,
    column: usize,
}

impl WeightProduct<'_> {
    /// Adds what a block of the reduction gives; the first one overwrites, unless all are to be added.
    #[inline(always)]
    fn block<I: Isa>(&mut self, isa: I, block: &Block) {
        for index in 0..self.runs.len() {
            // SAFETY: `run` has bounded every row, column and product.
            unsafe { self.tiles(isa, self.runs[index], &block.segments[..block.used]) };
        }
        self.accumulate = true;
    }

    /// # Safety
    /// All of the run's rows and the columns lie inside the slices, for all of the segments.
    #[inline(always)]
    unsafe fn tiles<I: Isa>(&mut self, isa: I, run: Run, segments: &[Segment]) {
        let panel = I::LANES * I::TILE_VECTORS;
        // Tiles of like height, since a flat one waits for its own sums.
        let tiles = run.len.div_ceil(I::TILE_ROWS);
        let mut row = 0;
        for tile in 0..tiles {
            let rows = (run.len - row).div_ceil(tiles - tile);
            for column in (0..self.columns).step_by(panel) {
                let vectors = (self.columns - column).min(panel).div_ceil(I::LANES);
                let place = Place { input: run.input + row, output: (run.row + row) * self.out_pitch + column, column };
                // SAFETY: the caller's promise.
                unsafe { self.any_tile(isa, rows, vectors, place, segments) };
            }
            row += rows;
        }
    }

    /// # Safety
    /// As for [`tile`](Self::tile); `rows` and `vectors` are those of a tile of this level.
    #[inline(always)]
    unsafe fn any_tile<I: Isa>(&mut self, isa: I, rows: usize, vectors: usize, place: Place, segments: &[Segment]) {
        macro_rules! dispatch {
            ($($vectors:literal: $($rows:literal)*;)*) => {
                match (vectors, rows) {
                    $($(($vectors, $rows) if $rows <= I::TILE_ROWS && $vectors <= I::TILE_VECTORS =>
                        // SAFETY: the caller's promise.
                        unsafe { self.tile::<I, $rows, $vectors>(isa, place, segments) },)*)*
                    _ => unreachable!("{rows} rows of {vectors} vectors are no tile"),
                }
            };
        }
        dispatch! {
            1: 1 2 3 4 5 6 7 8 9 10 11 12;
            2: 1 2 3 4 5 6 7 8 9 10 11 12;
            3: 1 2 3 4 5 6;
            4: 1 2 3 4 5 6;
        }
    }

    /// # Safety
    /// The tile's rows of `a` and columns of `b` for all of the segments, and its sums, lie inside the slices.
    #[inline(always)]
    unsafe fn tile<I: Isa, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        isa: I,
        place: Place,
        segments: &[Segment],
    ) {
        let used = (self.columns - place.column).min(VECTORS * I::LANES);
        let whole = used == VECTORS * I::LANES;
        let last = isa.first(used - (VECTORS - 1) * I::LANES);
        let mut sums = [[isa.zero(); VECTORS]; ROWS];
        // SAFETY: the caller's promise, and the last vector's mask ends at the columns.
        unsafe {
            let out = self.out.as_mut_ptr().add(place.output);
            let a = self.a.as_ptr().add(place.input);
            let b = self.b.as_ptr().add(place.column);
            for segment in segments {
                let mut a = a.wrapping_add(segment.a);
                let mut b = b.wrapping_add(segment.k * self.pitch);
                for _ in 0..segment.len {
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
                    a = a.wrapping_add(self.reduction.step);
                    b = b.wrapping_add(self.pitch);
                }
            }
            if self.accumulate {
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        let from = out.add(r * self.out_pitch + v * I::LANES);
                        let part = v + 1 == VECTORS && !whole;
                        sums[r][v] =
                            isa.add(sums[r][v], if part { isa.load_masked(last, from) } else { isa.load(from) });
                    }
                }
            }
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    let to = out.add(r * self.out_pitch + v * I::LANES);
                    let part = v + 1 == VECTORS && !whole;
                    if part { isa.store_masked(last, to, sums[r][v]) } else { isa.store(to, sums[r][v]) }
                }
            }
        }
    }

    /// # Safety
    /// All of the run's rows and the columns lie inside the slices, for all of the reduction.
    #[inline(always)]
    unsafe fn stream<I: Isa>(&mut self, isa: I, run: Run) {
        // Where the values of the reduction lie in `a`, and their rows of `b`.
        let (mut a, mut b, mut length) = ([0usize; FEW], [0usize; FEW], 0);
        for again in 0..self.reduction.repeat {
            for segment in self.reduction.segments {
                for i in 0..segment.len {
                    a[length] = run.input + segment.a + again * self.reduction.a_stride + i * self.reduction.step;
                    b[length] = (segment.k + again * self.reduction.k_stride + i) * self.pitch;
                    length += 1;
                }
            }
        }
        for row in (0..run.len).step_by(ROWS) {
            let rows = ROWS.min(run.len - row);
            for column in (0..self.columns).step_by(I::LANES) {
                let output = (run.row + row) * self.out_pitch + column;
                let whole = self.columns - column >= I::LANES;
                let mut done = 0;
                // At least once: without any product the sums are still to be written.
                while done < length || done == 0 {
                    let count = CHUNK.min(length - done);
                    let a: [usize; CHUNK] = std::array::from_fn(|k| a[(done + k) % FEW] + row);
                    let b: [usize; CHUNK] = std::array::from_fn(|k| b[(done + k) % FEW] + column);
                    let place = Streamed { a, b, output, rows, column, accumulate: self.accumulate || done > 0 };
                    macro_rules! dispatch {
                        ($($count:literal)*) => {
                            match (count, whole) {
                                // SAFETY: the caller's promise.
                                $(($count, true) => unsafe { self.stream_rows::<I, $count, false>(isa, &place) },
                                // SAFETY: the caller's promise.
                                ($count, false) => unsafe { self.stream_rows::<I, $count, true>(isa, &place) },)*
                                _ => unreachable!("{count} values are no chunk"),
                            }
                        };
                    }
                    dispatch!(0 1 2 3 4 5 6 7 8);
                    done += count.max(1);
                }
            }
        }
    }

    /// # Safety
    /// The rows of `a`, the vectors of `b` and the sums that the place names lie inside the slices.
    #[inline(always)]
    unsafe fn stream_rows<I: Isa, const K: usize, const PART: bool>(&mut self, isa: I, place: &Streamed) {
        let mask = isa.first(self.columns - place.column);
        // SAFETY: the caller's promise, and the mask ends at the columns.
        unsafe {
            let mut b = [isa.zero(); K];
            for k in 0..K {
                b[k] = isa.load(self.b.as_ptr().add(place.b[k]));
            }
            let a: [*const f32; K] = std::array::from_fn(|k| self.a.as_ptr().add(place.a[k]));
            let out = self.out.as_mut_ptr().add(place.output);
            let mut row = 0;
            if PART {
                // Neighbouring rows may share a vector's memory, and to read it again right after a store waits for that:
                // several at a time wait once.
                while row + TOGETHER <= place.rows {
                    let to: [*mut f32; TOGETHER] =
                        std::array::from_fn(|r| out.wrapping_add((row + r) * self.out_pitch));
                    let mut sums = [isa.zero(); TOGETHER];
                    if place.accumulate {
                        for r in 0..TOGETHER {
                            sums[r] = isa.load_masked(mask, to[r]);
                        }
                    }
                    for k in 0..K {
                        for r in 0..TOGETHER {
                            sums[r] = isa.mul_add(isa.splat(*a[k].add(row + r)), b[k], sums[r]);
                        }
                    }
                    for r in 0..TOGETHER {
                        isa.store_masked(mask, to[r], sums[r]);
                    }
                    row += TOGETHER;
                }
            }
            while row < place.rows {
                let to = out.wrapping_add(row * self.out_pitch);
                let mut sum = isa.zero();
                if place.accumulate {
                    sum = if PART { isa.load_masked(mask, to) } else { isa.load(to) };
                }
                for k in 0..K {
                    sum = isa.mul_add(isa.splat(*a[k].add(row)), b[k], sum);
                }
                if PART {
                    isa.store_masked(mask, to, sum)
                } else {
                    isa.store(to, sum)
                }
                row += 1;
            }
        }
    }
}

/// Some rows of one vector of columns, and where the values of a chunk of the reduction lie.
struct Streamed {
    a: [usize; CHUNK],
    b: [usize; CHUNK],
    output: usize,
    rows: usize,
    column: usize,
    accumulate: bool,
}
