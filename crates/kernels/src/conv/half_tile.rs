//! Tiles of one vector and a half: neighbouring rows share a vector for their halves, so that no lane is idle with 24 columns.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::factors::Factors;
use super::tile::{Ahead, Panel, Product, Walk, unfollowed};
use crate::isa::Isa;

impl Product<'_> {
    /// So many tiles of `2 * PAIRS` rows, one after the other. Rows lie evenly, and the reduction is one of neighbouring values, once.
    ///
    /// # Safety
    /// The offsets of the rows that the walk gives, and of the panel, lie inside the slices, as `check` asserts; the panel has a vector
    /// and a half of columns.
    #[inline(always)]
    pub(super) unsafe fn tiles_of_halves<I: Isa, F: Factors, const PAIRS: usize, const AHEAD: bool>(
        &self,
        isa: I,
        panel: &Panel,
        count: usize,
        walk: &mut Walk,
        out: *mut f32,
    ) {
        let [from, to] = [self.rows.input_stride, self.rows.output_stride];
        // Of a known mask the compiler would make a permutation, which takes a multiplication's place.
        let low = isa.first(unfollowed(I::LANES / 2));
        for tile in panel.tile..panel.tile + count {
            let place = walk.next_even(&self.rows, 2 * PAIRS);
            let out = out.wrapping_add(place.to + panel.column);
            // A line of each row's one and a half.
            if self.cold {
                for row in 0..2 * PAIRS {
                    isa.prefetch(out.wrapping_add((2 * PAIRS + row) * to));
                }
            }
            // SAFETY: the caller's promise.
            unsafe {
                // Of each pair the whole vectors of the first and the second row, and both halves.
                let mut sums = [[isa.zero(); 3]; PAIRS];
                if self.accumulate {
                    for p in 0..PAIRS {
                        let (first, second) = (out.add(2 * p * to), out.add((2 * p + 1) * to));
                        sums[p][0] = isa.load(first);
                        sums[p][1] = isa.load(second);
                        sums[p][2] = isa.load_halves(first.add(I::LANES), second.add(I::LANES));
                    }
                }
                if let Some(bias) = self.bias {
                    let bias = bias.as_ptr().add(panel.column);
                    let (whole, halves) = (isa.load(bias), isa.load_halves(bias.add(I::LANES), bias.add(I::LANES)));
                    for p in 0..PAIRS {
                        for (sum, bias) in sums[p].iter_mut().zip([whole, whole, halves]) {
                            *sum = if self.accumulate { isa.add(*sum, bias) } else { bias };
                        }
                    }
                }
                let mut ahead = AHEAD.then(|| panel.ahead(tile));
                for segment in self.reduction.segments {
                    let a: [*const f32; PAIRS] =
                        std::array::from_fn(|p| self.a.as_ptr().add(place.from + 2 * p * from + segment.a));
                    let mut b = panel.b.add(segment.k * panel.pitch);
                    for k in 0..segment.len {
                        if let Some(Ahead { at, step }) = &mut ahead {
                            isa.prefetch(*at);
                            *at = at.wrapping_add(*step);
                        }
                        let (whole, halves) = (isa.load(b), isa.load_halves(b.add(I::LANES), b.add(I::LANES)));
                        for p in 0..PAIRS {
                            let (first, second) = (isa.splat(*a[p].add(k)), isa.splat(*a[p].add(from + k)));
                            sums[p][0] = F::multiply_add(isa, first, whole, sums[p][0]);
                            sums[p][1] = F::multiply_add(isa, second, whole, sums[p][1]);
                            sums[p][2] = F::multiply_add(isa, isa.select(low, first, second), halves, sums[p][2]);
                        }
                        b = b.wrapping_add(panel.pitch);
                    }
                }
                sums = self.epilogue.apply(isa, sums);
                for p in 0..PAIRS {
                    let (first, second) = (out.add(2 * p * to), out.add((2 * p + 1) * to));
                    isa.store(first, sums[p][0]);
                    isa.store(second, sums[p][1]);
                    isa.store_halves(first.add(I::LANES), second.add(I::LANES), sums[p][2]);
                }
            }
        }
    }
}
