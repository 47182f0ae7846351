//! Depthwise convolution, one filter for each channel: vectors run over the channels, and nothing is summed across them.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::geometry::Tap;
use super::tile::{Reduction, Rows};
use super::{ConvShape, Epilogue};
use crate::Level;
use crate::isa::{Isa, Kernel};

/// Whether each channel has one filter of its own, and there are enough channels for vectors.
pub(super) fn is_depthwise(shape: &ConvShape) -> bool {
    shape.groups == shape.input[2] && shape.filters == shape.groups && shape.groups > 1
}

/// Values that [`pack`] writes.
pub(super) fn packed_len(taps: usize, channels: usize, lanes: usize) -> usize {
    taps * channels.next_multiple_of(lanes)
}

/// Packs `[position][channel]` weights as `[vector of channels][tap][lane]`, missing channels zero.
pub(super) fn pack(taps: &[Tap], channels: usize, lanes: usize, weights: &[f32], packed: &mut [f32]) {
    assert_eq!(packed.len(), packed_len(taps.len(), channels, lanes), "packed length");
    if taps.is_empty() {
        return;
    }
    for (i, vector) in packed.chunks_exact_mut(taps.len() * lanes).enumerate() {
        let used = lanes.min(channels - i * lanes);
        for (tap, to) in taps.iter().zip(vector.chunks_exact_mut(lanes)) {
            to[..used].copy_from_slice(&weights[tap.position * channels + i * lanes..][..used]);
            to[used..].fill(0.0);
        }
    }
}

/// `out[row][channel] = epilogue(sum over taps of a[row + tap][channel] * weights[tap][channel] + bias[channel])`.
pub(super) struct Depthwise<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) taps: &'a [Tap],
    pub(super) a: &'a [f32],
    pub(super) packed: &'a [f32],
    pub(super) channels: usize,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) epilogue: Epilogue,
    pub(super) out: &'a mut [f32],
}

/// Pixels computed at once, to share what is read of the weights.
const PIXELS: usize = 6;

impl Depthwise<'_> {
    /// Computes it; the one place where it is compiled.
    #[inline(never)]
    pub(super) fn run_on(self, level: Level) {
        level.dispatch(self);
    }

    /// Asserts that every read and write below is inside its slice.
    fn check(&self, lanes: usize) {
        let rows = &self.rows;
        assert_eq!(rows.input.len(), rows.output.len(), "as many inputs as outputs");
        let greatest = |offsets: &[u32]| offsets.iter().copied().max().unwrap_or(0) as usize;
        let again = rows.samples - 1;
        if let Some(tap) = self.taps.iter().map(|tap| tap.offset).max() {
            let last = greatest(rows.input) + again * rows.input_stride + tap + self.channels;
            assert!(last <= self.a.len(), "rows inside a");
        }
        let last = greatest(rows.output) + again * rows.output_stride + self.channels;
        assert!(last <= self.out.len(), "rows inside the output");
        assert!(packed_len(self.taps.len(), self.channels, lanes) <= self.packed.len(), "weights of every tap");
        assert!(self.bias.is_none_or(|bias| bias.len() >= self.channels), "a bias for each channel");
    }
}

impl Kernel for Depthwise<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let per_sample = self.rows.input.len();
        if per_sample == 0 || self.rows.samples == 0 {
            return;
        }
        self.check(I::LANES);
        for sample in 0..self.rows.samples {
            for channel in (0..self.channels).step_by(2 * I::LANES) {
                let left = self.channels - channel;
                for first in (0..per_sample).step_by(PIXELS) {
                    // SAFETY: `check` has bounded every row, tap and channel; each call stays within the channels left.
                    unsafe {
                        if left >= 2 * I::LANES {
                            self.tile::<I, 2, false>(isa, sample, first, channel);
                        } else if left > I::LANES {
                            self.tile::<I, 2, true>(isa, sample, first, channel);
                        } else {
                            self.tile::<I, 1, true>(isa, sample, first, channel);
                        }
                    }
                }
            }
        }
    }
}

impl Depthwise<'_> {
    /// Some pixels from `first` on, some vectors of channels; of the last vector only the channels that exist if `PART`.
    ///
    /// # Safety
    /// Rows, taps and channels lie inside the slices, as `check` asserts.
    #[inline(always)]
    unsafe fn tile<I: Isa, const VECTORS: usize, const PART: bool>(
        &mut self,
        isa: I,
        sample: usize,
        first: usize,
        channel: usize,
    ) {
        let rows = &self.rows;
        let count = PIXELS.min(rows.input.len() - first);
        let mask = isa.first(self.channels - channel - (VECTORS - 1) * I::LANES);
        let start = sample * rows.input_stride + channel;
        // SAFETY: the caller's promise; pixels beyond the last repeat the first, and are not stored.
        unsafe {
            let input: [*const f32; PIXELS] = std::array::from_fn(|p| {
                let row = first + if p < count { p } else { 0 };
                self.a.as_ptr().wrapping_add(start + rows.input[row] as usize)
            });
            let mut sums = [[isa.zero(); VECTORS]; PIXELS];
            if let Some(bias) = self.bias {
                for v in 0..VECTORS {
                    let from = bias.as_ptr().add(channel + v * I::LANES);
                    let bias = if PART && v + 1 == VECTORS { isa.load_masked(mask, from) } else { isa.load(from) };
                    for p in 0..PIXELS {
                        sums[p][v] = bias;
                    }
                }
            }
            let vector_len = self.taps.len() * I::LANES;
            let weights = self.packed.as_ptr().add(channel / I::LANES * vector_len);
            for (tap, position) in self.taps.iter().enumerate() {
                let mut factors = [isa.zero(); VECTORS];
                for v in 0..VECTORS {
                    factors[v] = isa.load(weights.add(v * vector_len + tap * I::LANES));
                }
                for p in 0..PIXELS {
                    for v in 0..VECTORS {
                        let from = input[p].add(position.offset + v * I::LANES);
                        let x = if PART && v + 1 == VECTORS { isa.load_masked(mask, from) } else { isa.load(from) };
                        sums[p][v] = isa.mul_add(x, factors[v], sums[p][v]);
                    }
                }
            }
            let (low, high) = self.epilogue.bounds();
            for p in 0..PIXELS {
                if p < count {
                    let row = rows.output[first + p] as usize + sample * rows.output_stride + channel;
                    for v in 0..VECTORS {
                        let sum = isa.min(isa.splat(high), isa.max(isa.splat(low), sums[p][v]));
                        let to = self.out.as_mut_ptr().add(row + v * I::LANES);
                        if PART && v + 1 == VECTORS {
                            isa.store_masked(mask, to, sum);
                        } else {
                            isa.store(to, sum);
                        }
                    }
                }
            }
        }
    }
}

/// `dw[tap][channel] = sum over pixels of a[pixel + tap][channel] * dy[pixel][channel]`, over what it holds if `accumulate`.
pub(super) struct DepthwiseWeights<'a> {
    /// Where each tap starts in `a`, in the kernel's order.
    pub(super) taps: &'a [usize],
    pub(super) reduction: Reduction<'a>,
    pub(super) a: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) channels: usize,
    pub(super) accumulate: bool,
    pub(super) dw: &'a mut [f32],
}

/// Taps whose sums are held at once.
const TAPS: usize = 9;

impl DepthwiseWeights<'_> {
    /// Computes it; the one place where it is compiled.
    #[inline(never)]
    pub(super) fn run_on(self, level: Level) {
        level.dispatch(self);
    }
}

impl Kernel for DepthwiseWeights<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        assert_eq!(self.dw.len(), self.taps.len() * self.channels, "a gradient for each weight");
        if let Some((a, k)) = self.reduction.last() {
            let tap = self.taps.iter().copied().max().unwrap_or(0);
            assert!(tap + a + self.channels <= self.a.len(), "windows inside a");
            assert!((k + 1) * self.channels <= self.dy.len(), "pixels inside dy");
        }
        for channel in (0..self.channels).step_by(I::LANES) {
            for tap in (0..self.taps.len()).step_by(TAPS) {
                // SAFETY: the assertions above bound every pixel, tap and channel.
                unsafe {
                    if self.channels - channel >= I::LANES {
                        self.sum::<I, false>(isa, channel, tap);
                    } else {
                        self.sum::<I, true>(isa, channel, tap);
                    }
                }
            }
        }
    }
}

impl DepthwiseWeights<'_> {
    /// Some taps from `tap` on, for one vector of channels; of that only the channels that exist if `PART`.
    ///
    /// # Safety
    /// Pixels, taps and channels lie inside the slices, as `run` asserts.
    #[inline(always)]
    unsafe fn sum<I: Isa, const PART: bool>(&mut self, isa: I, channel: usize, tap: usize) {
        let mask = isa.first(self.channels - channel);
        let count = TAPS.min(self.taps.len() - tap);
        // SAFETY: the caller's promise; taps beyond the last repeat the first and are stored nowhere.
        unsafe {
            let mut nowhere = [0.0f32; 16];
            let dw = self.dw.as_mut_ptr().add(tap * self.channels + channel);
            let rows: [*mut f32; TAPS] =
                std::array::from_fn(|i| if i < count { dw.add(i * self.channels) } else { nowhere.as_mut_ptr() });
            let x: [*const f32; TAPS] = std::array::from_fn(|i| {
                self.a.as_ptr().wrapping_add(channel + self.taps[tap + if i < count { i } else { 0 }])
            });
            let dy = self.dy.as_ptr().add(channel);
            let mut sums = [isa.zero(); TAPS];
            if self.accumulate {
                for i in 0..TAPS {
                    sums[i] = if PART { isa.load_masked(mask, rows[i]) } else { isa.load(rows[i]) };
                }
            }
            for again in 0..self.reduction.repeat {
                for segment in self.reduction.segments {
                    let mut at = segment.a + again * self.reduction.a_stride;
                    let mut pixel = dy.add((segment.k + again * self.reduction.k_stride) * self.channels);
                    for _ in 0..segment.len {
                        let gradient = if PART { isa.load_masked(mask, pixel) } else { isa.load(pixel) };
                        for i in 0..TAPS {
                            let from = x[i].add(at);
                            let values = if PART { isa.load_masked(mask, from) } else { isa.load(from) };
                            sums[i] = isa.mul_add(values, gradient, sums[i]);
                        }
                        at += self.reduction.step;
                        pixel = pixel.wrapping_add(self.channels);
                    }
                }
            }
            for i in 0..TAPS {
                if PART {
                    isa.store_masked(mask, rows[i], sums[i]);
                } else {
                    isa.store(rows[i], sums[i]);
                }
            }
        }
    }
}
