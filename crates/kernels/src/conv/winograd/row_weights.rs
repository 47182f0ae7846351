//! The weight gradient by minimal filtering of bf16 pairs, a row of four parts at a time, so that what is transformed stays in the
//! first-level cache until it is multiplied.
//!
//! With few channels a transformed value is used few times, and writing all sixteen parts of many tiles to the second-level
//! cache and reading them back takes as long as their products.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::two::transform_row;
use super::weights::{Transform, transform_gradients};
use crate::conv::factors::{Factors, Pairs};
use crate::conv::geometry::Segment;
use crate::conv::tile::{Reduction, multiply_add};
use crate::isa::{Isa, Kernel};

/// Parts in a row.
pub(super) const ROW: usize = 4;

/// Transforms some tiles and adds their products to the sums of all sixteen parts, or writes them anew.
pub(super) struct RowWeights<'a> {
    /// With room for four parts.
    pub(super) tiles: Transform<'a>,
    /// `[part][channel][filter]`
    pub(super) sums: &'a mut [f32],
    pub(super) accumulate: bool,
}

impl Kernel for RowWeights<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        self.tiles.check();
        let plan = self.tiles.plan;
        assert_eq!(self.sums.len(), 4 * ROW * plan.source.channels * plan.padded_filters, "sums of sixteen parts");
        // SAFETY: `check` has bounded the tiles and the room for what they become; the sums are as many as asserted.
        unsafe {
            self.row::<I, 0>(isa);
            self.row::<I, 1>(isa);
            self.row::<I, 2>(isa);
            self.row::<I, 3>(isa);
        }
    }
}

impl RowWeights<'_> {
    /// # Safety
    /// Everything is as `run` asserts.
    #[inline(always)]
    unsafe fn row<I: Isa, const R: usize>(&mut self, isa: I) {
        let pairs = self.tiles.count.div_ceil(2);
        // SAFETY: the caller's promise.
        unsafe {
            let mut walk = self.tiles.places();
            for pair in 0..pairs {
                let alone = 2 * pair + 1 == self.tiles.count;
                let place = walk.next_tile();
                let places = [place, if alone { place } else { walk.next_tile() }];
                self.transform::<I, R>(isa, pair, places, alone);
            }
            for column in 0..ROW {
                self.multiply(isa, R * ROW + column, column, pairs);
            }
        }
    }

    /// Transforms row `R` of a pair of tiles; the last tile's partner may be zero.
    ///
    /// # Safety
    /// As for [`row`](Self::row).
    #[inline(always)]
    unsafe fn transform<I: Isa, const R: usize>(&mut self, isa: I, pair: usize, places: [[usize; 3]; 2], alone: bool) {
        let this = &mut self.tiles;
        let plan = this.plan;
        let (channels, filters, pitch) = (plan.source.channels, plan.shape.filters, plan.source.pitch());
        let corners = places.map(|place| this.corner(place));
        let part = plan.pitches()[0];
        for channel in (0..channels).step_by(I::LANES) {
            // SAFETY: `check` bounds every patch; parts have whole vectors for every pair of tiles of a block.
            unsafe {
                let to = this.patches.as_mut_ptr().add(pair * plan.padded_channels + channel);
                let (x, left) = (this.x.as_ptr().add(channel), channels - channel);
                let a = transform_row(isa, x.add(corners[0]), pitch, channels, left, R);
                let b = transform_row(isa, x.add(corners[1]), pitch, channels, left, R);
                for column in 0..ROW {
                    isa.store(to.add(column * part), isa.pair(a[column], b[column]));
                }
            }
        }
        let part = plan.pitches()[1];
        for filter in (0..filters).step_by(I::LANES) {
            // SAFETY: as above.
            unsafe {
                let a = transform_gradient_row::<I, R>(isa, this.load_gradients(isa, places[0], filter));
                // The patch of a tile without a partner is paired with itself, so its gradient must be zero.
                let b = match alone {
                    true => [isa.zero(); ROW],
                    false => transform_gradient_row::<I, R>(isa, this.load_gradients(isa, places[1], filter)),
                };
                let to = this.gradients.as_mut_ptr().add(pair * plan.padded_filters + filter);
                for column in 0..ROW {
                    isa.store(to.add(column * part), isa.pair(a[column], b[column]));
                }
            }
        }
    }

    /// Multiplies one part, which lies in `column` of the row.
    ///
    /// # Safety
    /// As for [`row`](Self::row).
    #[inline(always)]
    unsafe fn multiply<I: Isa>(&mut self, isa: I, part: usize, column: usize, pairs: usize) {
        let plan = self.tiles.plan;
        let (channels, vectors) = (plan.source.channels, plan.padded_filters / I::LANES);
        // Where pairs are emulated, a row at a time is enough code.
        let native = <Pairs as Factors>::native::<I>();
        let mut vector = 0;
        while vector < vectors {
            let wide = native && vector + 2 <= vectors;
            let most = if !native {
                1
            } else if wide {
                8
            } else {
                16
            };
            let mut row = 0;
            while row < channels {
                let rows = if channels - row >= most { most } else { 1 };
                // SAFETY: the caller's promise: these channels and vectors of filters exist.
                unsafe {
                    match (rows, wide) {
                        (16, false) if native => self.tile::<I, 16, 1>(isa, [part, column, row, vector, pairs]),
                        (8, true) if native => self.tile::<I, 8, 2>(isa, [part, column, row, vector, pairs]),
                        (_, true) if native => self.tile::<I, 1, 2>(isa, [part, column, row, vector, pairs]),
                        _ => self.tile::<I, 1, 1>(isa, [part, column, row, vector, pairs]),
                    }
                }
                row += rows;
            }
            vector += if wide { 2 } else { 1 };
        }
    }

    /// # Safety
    /// As for [`row`](Self::row), and the channels and vectors of filters of the tile exist.
    #[inline(always)]
    unsafe fn tile<I: Isa, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        isa: I,
        [part, column, row, vector, pairs]: [usize; 5],
    ) {
        let plan = self.tiles.plan;
        let (channels, filters) = (plan.padded_channels, plan.padded_filters);
        let segments = [Segment { a: 0, k: 0, len: pairs }];
        let reduction = Reduction { segments: &segments, step: channels, repeat: 1, a_stride: 0, k_stride: 0 };
        // SAFETY: the caller's promise.
        unsafe {
            let patches = self.tiles.patches.as_ptr().add(column * plan.pitches()[0] + row);
            let gradients = self.tiles.gradients.as_ptr().add(column * plan.pitches()[1] + vector * I::LANES);
            let to = (part * plan.source.channels + row) * filters + vector * I::LANES;
            let to = self.sums.as_mut_ptr().add(to);
            let mut sums = [[isa.zero(); VECTORS]; ROWS];
            if self.accumulate {
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        sums[r][v] = isa.load(to.add(r * filters + v * I::LANES));
                    }
                }
            }
            let a: [*const f32; ROWS] = std::array::from_fn(|r| patches.add(r));
            let sums =
                multiply_add::<I, Pairs, ROWS, VECTORS, false>(isa, &reduction, a, gradients, filters, None, sums);
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    isa.store(to.add(r * filters + v * I::LANES), sums[r][v]);
                }
            }
        }
    }
}

/// Row `R` of a tile's transformed gradients: `(A dy)[R] A^T`.
#[inline(always)]
fn transform_gradient_row<I: Isa, const R: usize>(isa: I, [[a, b], [c, d]]: [[I::F32; 2]; 2]) -> [I::F32; ROW] {
    let zero = isa.zero();
    transform_gradients(
        isa,
        match R {
            0 => [a, b],
            1 => [isa.add(a, c), isa.add(b, d)],
            2 => [isa.sub(a, c), isa.sub(b, d)],
            _ => [isa.sub(zero, c), isa.sub(zero, d)],
        },
    )
}
