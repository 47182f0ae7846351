//! What the factors of products are: single-precision values, or pairs of them rounded to bf16.
//!
//! Pairs run along the reduction, so that one instruction multiplies and sums both. A pair takes the memory of one value: offsets, strides and
//! tiles are the same for both kinds, counted in such *slots*.

use super::ConvShape;
use super::depthwise::is_depthwise;
use super::geometry::Source;
use crate::isa::{Isa, Kernel};
use crate::{Level, Precision};

/// A kind of factors.
pub(super) trait Factors {
    /// Values of the reduction in one slot.
    const VALUES: usize;
    /// Whether half of them are multiplied crosswise (see [`crossed_tile`](super::crossed_tile)).
    const CROSSED: bool = false;
    /// Whether the level has instructions for them, so that large tiles are worth their code.
    fn native<I: Isa>() -> bool;
    /// `a * b + sum` of what the slots hold.
    fn multiply_add<I: Isa>(isa: I, a: I::F32, b: I::F32, sum: I::F32) -> I::F32;
    /// Stores one vector of values as factors, neighbours paired.
    /// # Safety
    /// `to` must be writable for `LANES / VALUES` slots.
    unsafe fn store<I: Isa>(isa: I, to: *mut f32, values: I::F32);
}

/// Single-precision values.
pub(super) struct Singles;

impl Factors for Singles {
    const VALUES: usize = 1;
    #[inline(always)]
    fn native<I: Isa>() -> bool {
        true
    }
    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, a: I::F32, b: I::F32, sum: I::F32) -> I::F32 {
        isa.mul_add(a, b, sum)
    }
    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, to: *mut f32, values: I::F32) {
        // SAFETY: the caller's promise.
        unsafe { isa.store(to, values) }
    }
}

/// Single-precision values, half of which are multiplied crosswise.
pub(super) struct Crossed;

impl Factors for Crossed {
    const VALUES: usize = 1;
    const CROSSED: bool = true;
    #[inline(always)]
    fn native<I: Isa>() -> bool {
        Singles::native::<I>()
    }
    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, a: I::F32, b: I::F32, sum: I::F32) -> I::F32 {
        Singles::multiply_add(isa, a, b, sum)
    }
    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, to: *mut f32, values: I::F32) {
        // SAFETY: the caller's promise.
        unsafe { Singles::store(isa, to, values) }
    }
}

/// Pairs of bf16 values, held as the bits of single-precision ones.
pub(super) struct Pairs;

impl Factors for Pairs {
    const VALUES: usize = 2;
    #[inline(always)]
    fn native<I: Isa>() -> bool {
        I::PRODUCTS
    }
    #[inline(always)]
    fn multiply_add<I: Isa>(isa: I, a: I::F32, b: I::F32, sum: I::F32) -> I::F32 {
        // A broadcast factor can only be an operand in memory if it is the second one.
        isa.add_products(b, a, sum)
    }
    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, to: *mut f32, values: I::F32) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_bf16(to, values) }
    }
}

/// Whether a product of that many channels for each tap is one of pairs: not where pairs would be half empty or straddle
/// groups, and not where vectors run over channels.
pub(super) fn rounds_to_pairs(shape: &ConvShape, channels: usize, precision: Precision) -> bool {
    let whole = shape.groups == 1 || channels.is_multiple_of(2);
    precision == Precision::Bf16 && channels >= 4 && whole && !is_depthwise(shape)
}

/// Slots that an image's copy may be written beyond, since whole vectors are stored.
pub(super) const SLACK: usize = 16;

/// Copies images into pairs of channels, zero where they are padded.
pub(super) struct PairImages<'a> {
    pub(super) plan: &'a Source,
    /// Which rows, counted over all samples.
    pub(super) rows: std::ops::Range<usize>,
    pub(super) source: &'a [f32],
    /// `[row][column][slot]`, and [`SLACK`].
    pub(super) copy: &'a mut [f32],
}

impl Kernel for PairImages<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (plan, channels) = (self.plan, self.plan.source_channels);
        let (before, skip, taken) = plan.columns_taken();
        assert!(self.rows.len() * plan.pitch() + SLACK <= self.copy.len(), "room for the rows");
        let samples = self.rows.end.div_ceil(plan.rows.max(1));
        assert!(samples * plan.source_sample() <= self.source.len(), "images as many as samples");
        // Pixels with a whole number of pairs follow each other without gaps.
        let (runs, len) = if channels.is_multiple_of(2) { (1, taken * channels) } else { (taken, channels) };
        for (n, row) in self.rows.enumerate() {
            let to = &mut self.copy[n * plan.columns * plan.channels..];
            let (sample, row) = (row / plan.rows, row % plan.rows);
            let Some(from) = plan.row_taken(row).filter(|_| taken > 0) else {
                to[..plan.columns * plan.channels].fill(0.0);
                continue;
            };
            let from = &self.source[sample * plan.source_sample() + (from * plan.width + skip) * channels..];
            let from = &from[..taken * channels];
            to[..before * plan.channels].fill(0.0);
            let pixels = &mut to[before * plan.channels..];
            assert!(taken * plan.channels + SLACK <= pixels.len(), "room for a row");
            for run in 0..runs {
                for at in (0..len).step_by(I::LANES) {
                    // SAFETY: the source has `len` values in each run and the mask ends there. What is stored beyond the run
                    // is of later pixels, which are written later, or within the slack.
                    unsafe {
                        let from = from.as_ptr().add(run * len + at);
                        let whole = len - at >= I::LANES;
                        let values = if whole { isa.load(from) } else { isa.load_masked(isa.first(len - at), from) };
                        isa.store_bf16(pixels.as_mut_ptr().add(run * plan.channels + at / 2), values);
                    }
                }
            }
            to[(before + taken) * plan.channels..plan.columns * plan.channels].fill(0.0);
        }
    }
}

/// Joins neighbouring rows of packed weights into rows of pairs, in place: `parts` matrices of `rows` rows become as many of
/// half the rows, one directly after the other.
pub(super) fn pair_rows(level: Level, panel: &mut [f32], parts: usize, rows: usize, width: usize) {
    level.dispatch_bf16(PairRows { panel, parts, rows, width });
}

struct PairRows<'a> {
    panel: &'a mut [f32],
    parts: usize,
    rows: usize,
    width: usize,
}

impl Kernel for PairRows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let PairRows { panel, parts, rows, width } = self;
        assert!(parts * rows * width <= panel.len() && width.is_multiple_of(I::LANES), "whole vectors in every row");
        let pairs = rows.div_ceil(2);
        for part in 0..parts {
            for pair in 0..pairs {
                for column in (0..width).step_by(I::LANES) {
                    // SAFETY: the rows are inside the panel. No row is written before it and its neighbour were read.
                    unsafe {
                        let from = panel.as_mut_ptr().add((part * rows + 2 * pair) * width + column);
                        let even = isa.load(from);
                        let odd = if 2 * pair + 1 < rows { isa.load(from.add(width)) } else { isa.zero() };
                        let to = panel.as_mut_ptr().add((part * pairs + pair) * width + column);
                        isa.store(to, isa.pair(even, odd));
                    }
                }
            }
        }
    }
}
