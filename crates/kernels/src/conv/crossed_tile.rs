//! Tiles of crossed factors: sums of four products with three multiplications and two additions, for processors that add beside multiplying.
//!
//! `a0·b0 + a1·b1 = (a0 + b1)·(a1 + b0) - a0·a1 - b0·b1` (Winograd, "A New Algorithm for Inner Product", 1968). What is subtracted depends
//! on a row or on a column alone, and is computed once for each. Multiplications and additions have units of their own in AMD's Zen, so that
//! a sum of which half is computed like this takes three quarters of the time that its multiplications alone would.
//!
//! Sums of squares come and go in these sums, so that rounding errors grow where the factors are of different size. Columns of `b` are
//! therefore scaled by a power of two to a mean square of about 1, which rows of `a` are expected to have. With a root mean square of `s`
//! instead, errors are about `(s + 1 / s) / 2` times as large: see the tests for a bound. These tiles are compiled for every level,
//! so that they can be tested anywhere.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::tile::{Ahead, Columns, MOST_ROWS, Panel, Product, Walk, unfollowed};
use crate::isa::{Isa, MOST_LANES};
use std::ops::Range;

/// Of so many neighbours in the reduction the first two are crossed.
pub(super) const PERIOD: usize = 4;

/// The most rows of a tile: more have no registers left for what is added.
pub(super) const CROSSED_ROWS: usize = 9;

/// Rows of a panel behind those of the reduction: what a column's sums begin with, and what they are multiplied by in the end.
pub(super) const BESIDES: usize = 2;

/// Rows whose own products are kept at a time, a multiple of 8 and 9, and room for a tile more.
pub(super) const OWN_ROWS: usize = if cfg!(test) { 72 } else { 504 };
pub(super) const OWN_LEN: usize = OWN_ROWS + MOST_ROWS;

/// Brings a panel of `width` columns, whose last [`BESIDES`] rows are to be written, into the form that crossed tiles read.
pub(super) fn cross(panel: &mut [f32], width: usize) {
    let (rows, besides) = panel.split_at_mut(panel.len() - BESIDES * width);
    for column in 0..width {
        let values = rows.iter().skip(column).step_by(width);
        let count = values.len().max(1);
        let squares: f64 = values.map(|&value| f64::from(value).powi(2)).sum();
        let scale = scale(squares / count as f64);
        rows.iter_mut().skip(column).step_by(width).for_each(|value| *value *= scale);
        let row = |k: usize| f64::from(rows[k * width + column]);
        let own: f64 = (0..count).step_by(PERIOD).map(|k| row(k) * row(k + 1)).sum();
        (besides[column], besides[width + column]) = (-own as f32, 1.0 / scale);
    }
}

/// The power of two that brings a mean square nearest to 1.
fn scale(mean_square: f64) -> f32 {
    if !(mean_square > 0.0 && mean_square.is_finite()) {
        return 1.0;
    }
    // Rounded: half of the logarithm of twice the mean square.
    let exponent = ((2.0 * mean_square).to_bits() >> 52) as i32 - 1023;
    f32::from_bits(((127 - exponent.div_euclid(2).clamp(-60, 60)) as u32) << 23)
}

impl Product<'_> {
    /// Asserts what crossed tiles need besides.
    pub(super) fn check_crossed(&self) {
        let [segment] = self.reduction.segments else { panic!("one segment") };
        assert!(self.rows.input.len() == 1 && self.rows.output.len() == 1, "even rows");
        assert!(segment.k == 0 && segment.len > 0 && segment.len.is_multiple_of(PERIOD), "whole periods");
        let Columns::Packed { depth } = self.layout else { panic!("packed columns") };
        assert_eq!(depth, segment.len + BESIDES, "rows of a panel");
    }

    /// What rows' crossed neighbours make with each other.
    ///
    /// # Safety
    /// The rows and the reduction lie inside `a`, as `check` asserts; there are at most [`OWN_LEN`] rows.
    #[inline(always)]
    pub(super) unsafe fn own_products<I: Isa>(&self, isa: I, rows: Range<usize>, own: &mut [f32; OWN_LEN]) {
        let segment = self.reduction.segments[0];
        // The first lane of every period; what the others hold is of no use.
        // SAFETY: so many values are there.
        let crossed = isa.equal(unsafe { isa.load(PERIODS.as_ptr()) }, isa.zero());
        // All but the last values, whose neighbours may be outside.
        let whole = (segment.len - 1) / I::LANES * I::LANES;
        let [rest, neighbours] = [isa.first(segment.len - whole), isa.first(segment.len - whole - 1)];
        for (row, own) in rows.zip(own) {
            let a =
                self.a.as_ptr().wrapping_add(row * self.rows.input_stride + self.rows.input[0] as usize + segment.a);
            // SAFETY: the caller's promise; the masks end with the row.
            unsafe {
                let last = [isa.load_masked(rest, a.add(whole)), isa.load_masked(neighbours, a.add(whole + 1))];
                let mut sums = isa.mul(last[0], last[1]);
                for k in (0..whole).step_by(I::LANES) {
                    sums = isa.mul_add(isa.load(a.add(k)), isa.load(a.add(k + 1)), sums);
                }
                *own = isa.sum(isa.select(crossed, sums, isa.zero()));
            }
        }
    }

    /// # Safety
    /// See [`tiles_of_crossed`](Self::tiles_of_crossed); so many rows and vectors are those of a tile of this level.
    #[inline(always)]
    pub(super) unsafe fn any_crossed_tiles<I: Isa>(
        &self,
        isa: I,
        panel: &Panel,
        [rows, vectors]: [usize; 2],
        count: usize,
        walk: &mut Walk,
        out: *mut f32,
    ) {
        macro_rules! dispatch {
            ($($vectors:literal: $($rows:literal)*;)*) => {
                match (vectors, rows) {
                    $($(($vectors, $rows) if $rows <= I::TILE_ROWS && $vectors <= I::TILE_VECTORS =>
                        // SAFETY: the caller's promise.
                        unsafe { self.tiles_of_crossed::<I, $rows, $vectors>(isa, panel, count, walk, out) },)*)*
                    _ => unreachable!("{rows} rows of {vectors} vectors are no tile"),
                }
            };
        }
        dispatch! {
            1: 1 2 3 4 5 6 7 8 9;
            2: 1 2 3 4 5 6 7 8 9;
            3: 1 2 3 4 5 6;
            4: 1 2 3 4 5 6;
        }
    }

    /// So many tiles one after the other. Rows lie evenly, and the reduction is one segment of whole periods.
    ///
    /// # Safety
    /// The offsets of the rows that the walk gives, and of the panel, lie inside the slices, as `check` asserts.
    #[inline(always)]
    unsafe fn tiles_of_crossed<I: Isa, const ROWS: usize, const VECTORS: usize>(
        &self,
        isa: I,
        panel: &Panel,
        count: usize,
        walk: &mut Walk,
        out: *mut f32,
    ) {
        let [from, to] = [self.rows.input_stride, self.rows.output_stride];
        let last = isa.first(panel.columns - (VECTORS - 1) * I::LANES);
        let whole = panel.columns == VECTORS * I::LANES;
        let segment = self.reduction.segments[0];
        for tile in panel.tile..panel.tile + count {
            let own = panel.own.wrapping_add(walk.done);
            let place = walk.next_even(&self.rows, ROWS);
            let out = out.wrapping_add(place.to + panel.column);
            if self.cold && ROWS > 1 {
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        isa.prefetch(out.wrapping_add((ROWS + r) * to + v * I::LANES));
                    }
                }
            }
            // SAFETY: the caller's promise: rows, panel and output are in bounds, and the last vector's mask ends at the columns.
            unsafe {
                let besides = panel.b.add(segment.len * panel.pitch);
                let mut sums = [[isa.zero(); VECTORS]; ROWS];
                for v in 0..VECTORS {
                    let begin = isa.load(besides.add(v * I::LANES));
                    for r in 0..ROWS {
                        sums[r][v] = isa.sub(begin, isa.splat(*own.add(r)));
                    }
                }
                let a: [*const f32; ROWS] =
                    std::array::from_fn(|r| self.a.as_ptr().add(place.from + r * from + segment.a));
                let mut b = panel.b;
                let Ahead { mut at, step } = panel.ahead(tile);
                let mut k = 0;
                while k < segment.len {
                    for _ in 0..PERIOD {
                        isa.prefetch(at);
                        at = at.wrapping_add(step);
                    }
                    let column = |k: usize, v: usize| isa.load(b.add(k * panel.pitch + v * I::LANES));
                    let crossed: [[I::F32; VECTORS]; 2] =
                        std::array::from_fn(|k| std::array::from_fn(|v| column(k, v)));
                    for r in 0..ROWS {
                        let [first, second] = [isa.splat(*a[r].add(k)), isa.splat(*a[r].add(k + 1))];
                        for v in 0..VECTORS {
                            let factors = [isa.add(first, crossed[1][v]), isa.add(second, crossed[0][v])];
                            sums[r][v] = isa.mul_add_onto(factors[0], factors[1], sums[r][v]);
                        }
                    }
                    for other in 2..PERIOD {
                        let columns: [I::F32; VECTORS] = std::array::from_fn(|v| column(other, v));
                        for r in 0..ROWS {
                            let value = isa.splat(*a[r].add(k + other));
                            for v in 0..VECTORS {
                                sums[r][v] = isa.mul_add(value, columns[v], sums[r][v]);
                            }
                        }
                    }
                    k = unfollowed(k + PERIOD);
                    b = b.wrapping_add(PERIOD * panel.pitch);
                }
                let part = |from: *const f32, v: usize| match v + 1 < VECTORS {
                    true => isa.load(from.add(v * I::LANES)),
                    false => isa.load_masked(last, from.add(v * I::LANES)),
                };
                for v in 0..VECTORS {
                    let scale = isa.load(besides.add(panel.pitch + v * I::LANES));
                    let bias = self.bias.map_or(isa.zero(), |bias| part(bias.as_ptr().add(panel.column), v));
                    for r in 0..ROWS {
                        sums[r][v] = isa.mul_add(sums[r][v], scale, bias);
                    }
                }
                if self.accumulate {
                    for r in 0..ROWS {
                        for v in 0..VECTORS {
                            sums[r][v] = isa.add(part(out.add(r * to), v), sums[r][v]);
                        }
                    }
                }
                sums = self.epilogue.apply(isa, sums);
                for r in 0..ROWS {
                    let to = out.add(r * to);
                    for v in 0..VECTORS - 1 {
                        isa.store(to.add(v * I::LANES), sums[r][v]);
                    }
                    let (to, value) = (to.add((VECTORS - 1) * I::LANES), sums[r][VECTORS - 1]);
                    if whole { isa.store(to, value) } else { isa.store_masked(last, to, value) }
                }
            }
        }
    }
}

/// Zero in the first lane of every period.
static PERIODS: [f32; MOST_LANES] = {
    let mut lanes = [1.0; MOST_LANES];
    let mut k = 0;
    while k < MOST_LANES {
        lanes[k] = 0.0;
        k += PERIOD;
    }
    lanes
};
