//! The weight gradient of a 3x3 convolution with unit strides by minimal filtering along rows alone: 12 multiplications for two
//! outputs of a row instead of 18.
//!
//! With few channels and filters a transformed value is used few times, so that the transforms along both axes, which save more
//! multiplications, take as long as these. Along rows they are a third as much, and one vector of transformed gradients
//! meets the patches of all three kernel rows.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use crate::conv::ConvShape;
use crate::conv::factors::{Factors, Pairs, Singles};
use crate::conv::geometry::LINE;
use crate::conv::matrix::split;
use crate::conv::pack::TileSize;
use crate::isa::{Isa, Kernel};
use crate::{Level, Precision};
use std::ops::Range;

/// Products for two outputs of a row, and taps of a kernel row.
const PARTS: usize = 4;
const TAPS: usize = 3;

/// Channels whose sums are in registers at once, for all kernel rows.
const CHANNELS: usize = 8;

/// Values of transformed patches and gradients that the second-level cache holds beside what they are made of.
const VALUES: usize = 64 << 10;

/// The plan: sizes.
#[derive(Clone, Debug)]
pub(in crate::conv) struct LineWeights {
    shape: ConvShape,
    level: Level,
    precision: Precision,
    /// Slots of a row: tiles of two outputs, or pairs of them.
    slots: usize,
    /// Rows of the output that are transformed together.
    rows: usize,
    /// Channels and filters in whole vectors and tiles.
    padded_channels: usize,
    padded_filters: usize,
}

/// The most channels and filters together for which this is faster than the transforms along both axes, and the fewest slots of a sample, over
/// which the sums of its products are loaded and stored.
const MOST_CHANNELS: usize = 64;
const LEAST_SLOTS: usize = 32;

impl LineWeights {
    /// The plan, for a shape that minimal filtering suits, if this is the better way.
    pub(in crate::conv) fn suiting(shape: ConvShape, level: Level, precision: Precision) -> Option<Self> {
        let [height, width, filters] = shape.output();
        let suits = shape.input[2] + filters <= MOST_CHANNELS && height * width >= 2 * values(precision) * LEAST_SLOTS;
        suits.then(|| LineWeights::new(shape, level, precision))
    }

    fn new(shape: ConvShape, level: Level, precision: Precision) -> Self {
        let size = TileSize::of(level);
        let [height, width, filters] = shape.output();
        let (channels, filters) = (size.padded(shape.input[2]).next_multiple_of(CHANNELS), size.padded(filters));
        let slots = width.div_ceil(2 * values(precision));
        let rows = (VALUES / (PARTS * slots * (channels + filters))).clamp(4, height.max(4));
        LineWeights {
            shape,
            level,
            precision,
            slots,
            // Blocks of equal size.
            rows: height.div_ceil(height.div_ceil(rows)),
            padded_channels: channels,
            padded_filters: filters,
        }
    }

    /// Values from one part of the patches, and of the gradients, to the next.
    fn strides(&self) -> [usize; 2] {
        [(self.rows + TAPS - 1) * self.slots * self.padded_channels, self.rows * self.slots * self.padded_filters]
            .map(|len| len.next_multiple_of(LINE))
    }

    /// Lengths of the transformed patches, the transformed gradients and the sums of their products.
    fn lengths(&self) -> [usize; 3] {
        let [patches, gradients] = self.strides();
        [PARTS * patches, PARTS * gradients, PARTS * TAPS * self.padded_channels * self.padded_filters]
    }

    pub(in crate::conv) fn scratch_len(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// Sums the gradient of at least one sample.
    pub(in crate::conv) fn run(
        &self,
        samples: usize,
        x: &[f32],
        dy: &[f32],
        dw: &mut [f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) {
        let [patches, gradients, sums] = split(scratch, self.lengths());
        let (x_len, dy_len, height) = (self.shape.input_len(), self.shape.output_len(), self.shape.output()[0]);
        for sample in 0..samples {
            for first in (0..height).step_by(self.rows) {
                let rows = first..height.min(first + self.rows);
                let block = Block {
                    plan: self,
                    rows,
                    x: &x[sample * x_len..][..x_len],
                    dy: &dy[sample * dy_len..][..dy_len],
                    patches: &mut *patches,
                    gradients: &mut *gradients,
                    sums: &mut *sums,
                    accumulate: sample + first > 0,
                };
                block.run_on(self.level);
            }
        }
        self.level.dispatch(Finish { plan: self, sums, dw, accumulate });
    }
}

/// Tiles in one slot.
fn values(precision: Precision) -> usize {
    match precision {
        Precision::F32 => Singles::VALUES,
        Precision::Bf16 => Pairs::VALUES,
    }
}

/// Some rows of one sample's output.
struct Block<'a> {
    plan: &'a LineWeights,
    rows: Range<usize>,
    x: &'a [f32],
    dy: &'a [f32],
    /// `[part][row of the input][slot][channel]`
    patches: &'a mut [f32],
    /// `[part][row][slot][filter]`
    gradients: &'a mut [f32],
    /// `[part][kernel row][channel][filter]`
    sums: &'a mut [f32],
    accumulate: bool,
}

impl Block<'_> {
    #[inline(never)]
    fn run_on(self, level: Level) {
        match self.plan.precision {
            Precision::F32 => level.dispatch(self),
            Precision::Bf16 => level.dispatch_bf16(PairBlock(self)),
        }
    }
}

impl Kernel for Block<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.sum::<I, Singles>(isa);
    }
}

struct PairBlock<'a>(Block<'a>);

impl Kernel for PairBlock<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.sum::<I, Pairs>(isa);
    }
}

/// Which pixels of an image are read: a row of so many pixels of so many channels.
#[derive(Clone, Copy)]
struct Line {
    row: *const f32,
    pixels: usize,
    channels: usize,
}

impl Line {
    /// A vector of channels of a pixel, zero where there is none.
    ///
    /// # Safety
    /// The row is readable, and the mask ends at its channels.
    #[inline(always)]
    unsafe fn load<I: Isa>(&self, isa: I, pixel: isize, channel: usize, mask: I::Mask) -> I::F32 {
        if (pixel as usize) < self.pixels {
            // SAFETY: the pixel exists; the rest is the caller's promise.
            unsafe { isa.load_masked(mask, self.row.add(pixel as usize * self.channels + channel)) }
        } else {
            isa.zero()
        }
    }
}

/// What is stored for the tiles of a slot.
#[inline(always)]
fn join<I: Isa, F: Factors>(isa: I, [even, odd]: [I::F32; 2]) -> I::F32 {
    if F::VALUES == 2 { isa.pair(even, odd) } else { even }
}

impl Block<'_> {
    #[inline(always)]
    fn sum<I: Isa, F: Factors>(mut self, isa: I) {
        let plan = self.plan;
        let [patches, gradients, sums] = plan.lengths();
        assert_eq!([self.x.len(), self.dy.len()], [plan.shape.input_len(), plan.shape.output_len()], "one sample");
        assert_eq!([self.patches.len(), self.gradients.len()], [patches, gradients], "room for the parts");
        assert_eq!(self.sums.len(), sums, "sums of all parts");
        assert!(self.rows.end <= plan.shape.output()[0] && self.rows.len() <= plan.rows, "rows that exist");
        assert!(
            plan.padded_channels.is_multiple_of(CHANNELS.max(I::LANES)) && plan.padded_filters.is_multiple_of(I::LANES),
            "whole vectors and tiles"
        );
        // SAFETY: the assertions above give all rows and parts their room.
        unsafe {
            self.transform_patches::<I, F>(isa);
            self.transform_gradients::<I, F>(isa);
            self.multiply::<I, F>(isa);
        }
    }

    /// `B^T d` of each tile, the sign of the last part reversed, so that no gradient's needs to be.
    ///
    /// # Safety
    /// Everything is as `sum` asserts.
    #[inline(always)]
    unsafe fn transform_patches<I: Isa, F: Factors>(&mut self, isa: I) {
        let plan = self.plan;
        let [height, width, channels] = plan.shape.input;
        let [top, _, left, _] = plan.shape.padding;
        let ([part, _], padded) = (plan.strides(), plan.padded_channels);
        for row in 0..self.rows.len() + TAPS - 1 {
            let from = (self.rows.start + row).wrapping_sub(top);
            let pixels = if from < height { width } else { 0 };
            let row_at = if from < height { from * width * channels } else { 0 };
            let line = Line { row: self.x.as_ptr().wrapping_add(row_at), pixels, channels };
            for channel in (0..padded).step_by(I::LANES) {
                let mask = isa.first(channels.saturating_sub(channel));
                for slot in 0..plan.slots {
                    let first = (2 * F::VALUES * slot) as isize - left as isize;
                    // SAFETY: the row exists where it has pixels; each part has whole vectors for every slot.
                    unsafe {
                        let mut d = [isa.zero(); 6];
                        for i in 0..2 + 2 * F::VALUES {
                            d[i] = line.load(isa, first + i as isize, channel, mask);
                        }
                        let to = self.patches.as_mut_ptr().add((row * plan.slots + slot) * padded + channel);
                        isa.store(to, join::<I, F>(isa, [isa.sub(d[0], d[2]), isa.sub(d[2], d[4])]));
                        isa.store(to.add(part), join::<I, F>(isa, [isa.add(d[1], d[2]), isa.add(d[3], d[4])]));
                        isa.store(to.add(2 * part), join::<I, F>(isa, [isa.sub(d[2], d[1]), isa.sub(d[4], d[3])]));
                        isa.store(to.add(3 * part), join::<I, F>(isa, [isa.sub(d[3], d[1]), isa.sub(d[5], d[3])]));
                    }
                }
            }
        }
    }

    /// `A dy` of each tile.
    ///
    /// # Safety
    /// As for [`transform_patches`](Self::transform_patches).
    #[inline(always)]
    unsafe fn transform_gradients<I: Isa, F: Factors>(&mut self, isa: I) {
        let plan = self.plan;
        let [_, width, filters] = plan.shape.output();
        let ([_, part], padded) = (plan.strides(), plan.padded_filters);
        for row in 0..self.rows.len() {
            let at = (self.rows.start + row) * width * filters;
            let line = Line { row: self.dy.as_ptr().wrapping_add(at), pixels: width, channels: filters };
            for filter in (0..padded).step_by(I::LANES) {
                let mask = isa.first(filters.saturating_sub(filter));
                for slot in 0..plan.slots {
                    // SAFETY: the row exists, and each part has whole vectors for every slot.
                    unsafe {
                        let mut g = [isa.zero(); 4];
                        for i in 0..2 * F::VALUES {
                            g[i] = line.load(isa, (2 * F::VALUES * slot + i) as isize, filter, mask);
                        }
                        let to = self.gradients.as_mut_ptr().add((row * plan.slots + slot) * padded + filter);
                        isa.store(to, join::<I, F>(isa, [g[0], g[2]]));
                        isa.store(to.add(part), join::<I, F>(isa, [isa.add(g[0], g[1]), isa.add(g[2], g[3])]));
                        isa.store(to.add(2 * part), join::<I, F>(isa, [isa.sub(g[0], g[1]), isa.sub(g[2], g[3])]));
                        isa.store(to.add(3 * part), join::<I, F>(isa, [g[1], g[3]]));
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for [`transform_patches`](Self::transform_patches).
    #[inline(always)]
    unsafe fn multiply<I: Isa, F: Factors>(&mut self, isa: I) {
        let plan = self.plan;
        // Where factors are emulated, a channel at a time is enough code.
        let most = match F::native::<I>() {
            false => 1,
            true if I::TILE_ROWS * I::TILE_VECTORS >= TAPS * CHANNELS => CHANNELS,
            true => CHANNELS / 2,
        };
        for part in 0..PARTS {
            for filter in (0..plan.padded_filters).step_by(I::LANES) {
                for channel in (0..plan.shape.input[2]).step_by(most) {
                    // SAFETY: the caller's promise: whole tiles of channels and vectors of filters exist in every part.
                    unsafe {
                        match most {
                            CHANNELS if F::native::<I>() => {
                                self.tile::<I, F, CHANNELS>(isa, part, channel, filter);
                            }
                            1 => self.tile::<I, F, 1>(isa, part, channel, filter),
                            _ if F::native::<I>() => self.tile::<I, F, { CHANNELS / 2 }>(isa, part, channel, filter),
                            _ => unreachable!("tiles of {most} channels"),
                        }
                    }
                }
            }
        }
    }

    /// Adds the products of one part, some channels and one vector of filters to their sums.
    ///
    /// # Safety
    /// They exist.
    #[inline(always)]
    unsafe fn tile<I: Isa, F: Factors, const C: usize>(&mut self, isa: I, part: usize, channel: usize, filter: usize) {
        let plan = self.plan;
        let ([patches, gradients], [channels, filters]) = (plan.strides(), [plan.padded_channels, plan.padded_filters]);
        let row = plan.slots * channels;
        let mut sums = [[isa.zero(); C]; TAPS];
        // SAFETY: the caller's promise; the rows of patches exceed those of gradients by those of the kernel.
        unsafe {
            let mut x = self.patches.as_ptr().add(part * patches + channel);
            let mut dy = self.gradients.as_ptr().add(part * gradients + filter);
            let to = self.sums.as_mut_ptr().add((part * TAPS * channels + channel) * filters + filter);
            if self.accumulate {
                for k in 0..TAPS {
                    for c in 0..C {
                        sums[k][c] = isa.load(to.add((k * channels + c) * filters));
                    }
                }
            }
            for _ in 0..self.rows.len() * plan.slots {
                let gradient = isa.load(dy);
                for k in 0..TAPS {
                    for c in 0..C {
                        let value = isa.splat(*x.add(k * row + c));
                        sums[k][c] = F::multiply_add(isa, value, gradient, sums[k][c]);
                    }
                }
                (x, dy) = (x.wrapping_add(channels), dy.wrapping_add(filters));
            }
            for k in 0..TAPS {
                for c in 0..C {
                    isa.store(to.add((k * channels + c) * filters), sums[k][c]);
                }
            }
        }
    }
}

/// Transforms the sums back, `G^T s`, into the gradient.
struct Finish<'a> {
    plan: &'a LineWeights,
    sums: &'a [f32],
    dw: &'a mut [f32],
    accumulate: bool,
}

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let plan = self.plan;
        let (channels, filters) = (plan.shape.input[2], plan.shape.filters);
        let part = TAPS * plan.padded_channels * plan.padded_filters;
        assert_eq!(self.sums.len(), PARTS * part, "sums of all parts");
        assert_eq!(self.dw.len(), TAPS * TAPS * channels * filters, "nine taps");
        let half = isa.splat(0.5);
        for row in 0..TAPS {
            for channel in 0..channels {
                for filter in (0..filters).step_by(I::LANES) {
                    let mask = isa.first(filters - filter);
                    // SAFETY: parts have whole vectors of filters for every channel; the mask ends at the filters.
                    unsafe {
                        let at = (row * plan.padded_channels + channel) * plan.padded_filters + filter;
                        let sums = self.sums.as_ptr().add(at);
                        let (a, b) = (isa.load(sums), isa.load(sums.add(part)));
                        let (c, d) = (isa.load(sums.add(2 * part)), isa.load(sums.add(3 * part)));
                        let (plus, minus) = (isa.mul(half, isa.add(b, c)), isa.mul(half, isa.sub(b, c)));
                        let taps = [isa.add(a, plus), minus, isa.add(plus, d)];
                        for column in 0..TAPS {
                            let to = ((row * TAPS + column) * channels + channel) * filters + filter;
                            let to = self.dw.as_mut_ptr().add(to);
                            let mut tap = taps[column];
                            if self.accumulate {
                                tap = isa.add(tap, isa.load_masked(mask, to));
                            }
                            isa.store_masked(mask, to, tap);
                        }
                    }
                }
            }
        }
    }
}
