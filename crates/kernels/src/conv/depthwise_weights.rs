//! The weight gradient of a depthwise convolution with a 3x3 or 5x5 kernel: a tile's output gradients stay in registers, and every
//! input pixel is read once for all taps that saw it.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::depthwise_tile::{
    BLOCK, NARROW, Place, Places, WIDE, Windows, for_columns, many_registers, next_block, wide_tile,
};
use crate::Level;
use crate::isa::{Isa, Kernel};

/// `dw[tap][channel] = sum over pixels of x[pixel + tap][channel] * dy[pixel][channel]`, over what it holds if `accumulate`.
pub(super) struct TileWeights<'a> {
    pub(super) windows: &'a Windows,
    pub(super) samples: usize,
    pub(super) x: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) accumulate: bool,
    pub(super) dw: &'a mut [f32],
}

impl TileWeights<'_> {
    /// Computes it; each kind of window is compiled apart, here and nowhere else.
    #[inline(never)]
    pub(super) fn run_on(self, level: Level) {
        match (self.windows.kernel, self.windows.stride) {
            (3, 1) => level.dispatch(Sweep::<3, 1>(self)),
            (3, 2) => level.dispatch(Sweep::<3, 2>(self)),
            (5, 1) => level.dispatch(Sweep::<5, 1>(self)),
            (5, 2) => level.dispatch(Sweep::<5, 2>(self)),
            (kernel, stride) => unreachable!("no tiles for kernels of {kernel} with strides of {stride}"),
        }
    }
}

/// With a kernel of `K` times `K` and strides of `S`.
struct Sweep<'a, const K: usize, const S: usize>(TileWeights<'a>);

impl<const K: usize, const S: usize> Kernel for Sweep<'_, K, S> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.sweep::<I, K, S>(isa);
    }
}

impl TileWeights<'_> {
    #[inline(always)]
    fn sweep<I: Isa, const K: usize, const S: usize>(mut self, isa: I) {
        let windows = self.windows;
        let per_sample = windows.output[0] * windows.row_len();
        assert_eq!(self.x.len(), self.samples * windows.input_len(), "inputs of every pixel");
        assert_eq!(self.dy.len(), self.samples * per_sample, "gradients of every pixel");
        assert_eq!(self.dw.len(), K * K * windows.channels, "a gradient for each weight");
        if !self.accumulate {
            self.dw.fill(0.0);
        }
        for sample in 0..self.samples {
            let (input, output) = (sample * windows.input_len(), sample * per_sample);
            let mut places = Places::new::<I>(windows, 0..windows.output[0], input, output);
            if many_registers::<I>() {
                let mut block = [Place::default(); BLOCK];
                while let Some(places) = next_block(&mut places, &mut block, windows.channels) {
                    for channel in (0..windows.channels).step_by(I::LANES) {
                        // SAFETY: the assertions above bound every pixel and channel; the places name those that exist.
                        unsafe {
                            match windows.channels - channel >= I::LANES {
                                true => self.block::<I, K, S, false>(isa, places, channel),
                                false => self.block::<I, K, S, true>(isa, places, channel),
                            }
                        }
                    }
                }
                continue;
            }
            // No room for the sums from one tile to the next.
            for place in places {
                for channel in (0..windows.channels).step_by(I::LANES) {
                    // SAFETY: as above.
                    unsafe {
                        match (windows.channels - channel >= I::LANES, place.inside) {
                            (true, true) => self.alone::<I, K, S, false, true>(isa, &place, channel),
                            (true, false) => self.alone::<I, K, S, false, false>(isa, &place, channel),
                            (false, _) => self.alone::<I, K, S, true, false>(isa, &place, channel),
                        }
                    }
                }
            }
        }
    }

    /// Adds what some tiles give, of one vector of channels; of that only those that exist if `PART`.
    ///
    /// # Safety
    /// The pixels that the places name, and the channels, lie inside the slices.
    #[inline(always)]
    unsafe fn block<I: Isa, const K: usize, const S: usize, const PART: bool>(
        &mut self,
        isa: I,
        places: &[Place],
        channel: usize,
    ) {
        let windows = self.windows;
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = self.load::<I, K, PART>(isa, channel);
            for place in places {
                sums = match place.wide && wide_tile::<I>(K) {
                    true if !PART => self.tile::<I, K, S, WIDE, false, false>(isa, place, channel, Some(sums)),
                    true => {
                        // Rare enough to do without a wide tile of its own.
                        let [left, right] = place.halves(windows);
                        let sums = self.tile::<I, K, S, NARROW, PART, false>(isa, &left, channel, Some(sums));
                        self.tile::<I, K, S, NARROW, PART, false>(isa, &right, channel, Some(sums))
                    }
                    false => self.tile::<I, K, S, NARROW, PART, false>(isa, place, channel, Some(sums)),
                };
            }
            self.store::<I, K, PART>(isa, channel, sums);
        }
    }

    /// Adds what one narrow tile gives.
    ///
    /// # Safety
    /// As for [`block`](Self::block); `INSIDE` promises that all of its pixels exist.
    #[inline(always)]
    unsafe fn alone<I: Isa, const K: usize, const S: usize, const PART: bool, const INSIDE: bool>(
        &mut self,
        isa: I,
        place: &Place,
        channel: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let sums = self.tile::<I, K, S, NARROW, PART, INSIDE>(isa, place, channel, None);
            self.store::<I, K, PART>(isa, channel, sums);
        }
    }

    /// # Safety
    /// The channels are some of the image's.
    #[inline(always)]
    unsafe fn load<I: Isa, const K: usize, const PART: bool>(&self, isa: I, channel: usize) -> [[I::F32; K]; K] {
        let (channels, mut sums) = (self.windows.channels, [[isa.zero(); K]; K]);
        let mask = isa.first(channels - channel);
        for row in 0..K {
            for column in 0..K {
                // SAFETY: the caller's promise, and the mask ends at the channels.
                unsafe {
                    let from = self.dw.as_ptr().add((row * K + column) * channels + channel);
                    sums[row][column] = if PART { isa.load_masked(mask, from) } else { isa.load(from) };
                }
            }
        }
        sums
    }

    /// # Safety
    /// As for [`load`](Self::load).
    #[inline(always)]
    unsafe fn store<I: Isa, const K: usize, const PART: bool>(
        &mut self,
        isa: I,
        channel: usize,
        sums: [[I::F32; K]; K],
    ) {
        let channels = self.windows.channels;
        let mask = isa.first(channels - channel);
        for row in 0..K {
            for column in 0..K {
                // SAFETY: the caller's promise, and the mask ends at the channels.
                unsafe {
                    let to = self.dw.as_mut_ptr().add((row * K + column) * channels + channel);
                    if PART { isa.store_masked(mask, to, sums[row][column]) } else { isa.store(to, sums[row][column]) }
                }
            }
        }
    }

    /// `sums`, or those of the output, and what one tile gives, of one vector of channels; of that only those that exist if `PART`; `INSIDE` promises that all of its
    /// pixels do.
    ///
    /// # Safety
    /// The pixels that the place names, and the channels, lie inside the slices.
    #[inline(always)]
    unsafe fn tile<I: Isa, const K: usize, const S: usize, const C: usize, const PART: bool, const INSIDE: bool>(
        &mut self,
        isa: I,
        place: &Place,
        channel: usize,
        sums: Option<[[I::F32; K]; K]>,
    ) -> [[I::F32; K]; K] {
        let place = if INSIDE { place.all(C) } else { *place };
        let channels = self.windows.channels;
        let mask = isa.first(channels - channel);
        // SAFETY: the caller's promise, and the mask ends at the channels.
        unsafe {
            let load = |from: *const f32| if PART { isa.load_masked(mask, from) } else { isa.load(from) };
            // Pixels that do not exist have no gradient.
            let (mut first, mut second) = ([isa.zero(); C], [isa.zero(); C]);
            let dy = self.dy.as_ptr().add(place.output + channel);
            for column in 0..C {
                if column < place.count {
                    first[column] = load(dy.add(column * channels));
                    if place.two {
                        second[column] = load(dy.add(self.windows.row_len() + column * channels));
                    }
                }
            }
            let mut sums = match sums {
                Some(sums) => sums,
                None => self.load::<I, K, PART>(isa, channel),
            };
            let x = self.x.as_ptr().wrapping_offset(place.input + channel as isize);
            let pitch = self.windows.input[1] * channels;
            macro_rules! rows {
                ($($row:literal)*) => {$(
                    // Its place in the windows of the first row of outputs is `$row`, and of the second `$row - S`.
                    if const { $row < K + S } && place.rows & (1 << $row) != 0 {
                        let x = x.wrapping_add($row * pitch);
                        for_columns!(I, K, S, C, PART, isa, x, channels, mask, place.columns, |x, tap, column| {
                            if const { $row < K } {
                                sums[$row % K][tap] = isa.mul_add(x, first[column], sums[$row % K][tap]);
                            }
                            if const { $row >= S } {
                                let row = ($row + K - S) % K;
                                sums[row][tap] = isa.mul_add(x, second[column], sums[row][tap]);
                            }
                        });
                    }
                )*};
            }
            rows!(0 1 2 3 4 5 6);
            sums
        }
    }
}
