//! The microkernel of few channels: neighbouring output pixels of one vector of filters stay in registers, and each input
//! pixel is read once for all taps of a kernel row that see it.
//!
//! A product's tile reads a pixel anew for each tap, and with one to three channels it is done before its loops are worth their while.
//! Here they run over kernel rows and channels, and what is in them is unrolled.

#![allow(clippy::needless_range_loop, reason = "the indices of a strip are registers, the same in several arrays")]

use super::pack::TileSize;
use super::pooled_tile::maximum;
use super::tile::unfollowed;
use super::{ConvShape, Epilogue};
use crate::Level;
use crate::isa::{Isa, Kernel};
use std::ops::Range;

/// Columns of the kernels that this is for.
const TAPS: usize = 3;

/// Sums of the longest strip: for as many the inputs are written out below.
const MOST_SUMS: usize = 16;

/// Windows of a max-pool that this finds the maxima of: so many pixels down and across.
const POOL: usize = 2;

/// Whether this suits a convolution of single-precision values.
pub(super) fn suits(shape: &ConvShape) -> bool {
    let narrow = shape.kernel[1] == TAPS && shape.dilation[1] == 1 && matches!(shape.strides[1], 1 | 2);
    narrow && shape.kernel[0] > 0 && matches!(shape.input[2], 1 | 3) && shape.groups == 1
}

/// Whether it does before a max-pool.
pub(super) fn suits_pooled(shape: &ConvShape, pool: [usize; 2]) -> bool {
    suits(shape) && pool == [POOL; 2]
}

/// The convolution at the same pixels of some samples, in order.
pub(super) struct RowProduct<'a> {
    /// How many the output has in a row.
    pub(super) width: usize,
    /// Which ones: those of the first row are numbered from 0.
    pub(super) pixels: Range<usize>,
    pub(super) samples: usize,
    /// From one sample's input to the next.
    pub(super) sample: usize,
    /// The input, from where the first row's windows begin.
    pub(super) a: &'a [f32],
    /// From one row of it to the next.
    pub(super) pitch: usize,
    /// Panels as [`Matrix::pack`](super::pack::Matrix::pack) makes them.
    pub(super) b: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) output: RowOutput<'a>,
}

/// Where the pixels go, sample by sample, the first of them first.
pub(super) enum RowOutput<'a> {
    Plain {
        epilogue: Epilogue,
        /// Whether the sums are added to what the output holds.
        accumulate: bool,
        /// Whether the output is hardly in the second-level cache, so that it is asked for before it is written.
        cold: bool,
        out: &'a mut [f32],
    },
    /// A pixel is the maximum of a pooling window.
    Pooled { relu: bool, maxima: &'a mut [f32], positions: &'a mut [u8] },
}

impl RowProduct<'_> {
    /// Computes it for such a convolution; the one place where the strips are compiled.
    #[inline(never)]
    pub(super) fn run_on(self, shape: &ConvShape, level: Level) {
        level.dispatch(Strips { product: self, shape });
    }
}

struct Strips<'a> {
    product: RowProduct<'a>,
    shape: &'a ConvShape,
}

impl Kernel for Strips<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let pooled = matches!(self.product.output, RowOutput::Pooled { .. });
        match (self.shape.input[2], self.shape.strides[1], pooled) {
            (1, 1, false) => self.sweep::<I, 1, 1, false>(isa),
            (1, 2, false) => self.sweep::<I, 1, 2, false>(isa),
            (3, 1, false) => self.sweep::<I, 3, 1, false>(isa),
            (3, 2, false) => self.sweep::<I, 3, 2, false>(isa),
            (1, 1, true) => self.sweep::<I, 1, 1, true>(isa),
            (1, 2, true) => self.sweep::<I, 1, 2, true>(isa),
            (3, 1, true) => self.sweep::<I, 3, 1, true>(isa),
            (3, 2, true) => self.sweep::<I, 3, 2, true>(isa),
            (channels, stride, _) => unreachable!("{channels} channels with strides of {stride}"),
        }
    }
}

/// Pixels of the longest strip, of windows of so many down and across: as many sums as a matrix tile has leave registers for a kernel row's
/// weights and an input pixel.
const fn most<I: Isa>(pool: usize) -> usize {
    let sums = I::TILE_ROWS * I::TILE_VECTORS;
    (if sums < MOST_SUMS { sums } else { MOST_SUMS }) / (pool * pool)
}

/// Neighbouring pixels: where their windows begin, and where the values of the first pixel go.
#[derive(Clone, Copy)]
struct Strip {
    a: *const f32,
    to: usize,
}

/// One vector of filters.
struct Filters {
    first: usize,
    /// How many are stored.
    used: usize,
    weights: *const f32,
    /// From one row of them to the next.
    pitch: usize,
}

impl Strips<'_> {
    /// Asserts that every read and write below is inside its slice.
    fn check(&self, size: TileSize) {
        let (product, shape) = (&self.product, self.shape);
        let (filters, [height, width], depth) = (shape.filters, shape.kernel, shape.taps() * shape.input[2]);
        assert!(suits(shape), "{shape:?} has strips");
        let (pool, lens) = match &product.output {
            RowOutput::Plain { out, .. } => (1, [out.len(); 2]),
            RowOutput::Pooled { maxima, positions, .. } => (POOL, [maxima.len(), positions.len()]),
        };
        if let (Some(last), Some(again)) = (product.pixels.clone().last(), product.samples.checked_sub(1)) {
            let row = (pool * (last / product.width) + pool - 1) * shape.strides[0] + (height - 1) * shape.dilation[0];
            let column = (pool * last.min(product.width - 1) + pool - 1) * shape.strides[1] + width;
            let end = again * product.sample + row * product.pitch + column * shape.input[2];
            assert!(end <= product.a.len(), "windows inside a");
        }
        assert!(depth * size.padded(filters) <= product.b.len(), "the weights' panels");
        assert_eq!(lens, [product.samples * product.pixels.len() * filters; 2], "an output for each pixel");
        assert!(product.bias.is_none_or(|bias| bias.len() >= filters), "a bias for each filter");
    }

    #[inline(always)]
    fn sweep<I: Isa, const CHANNELS: usize, const STRIDE: usize, const POOLED: bool>(mut self, isa: I) {
        let size = TileSize { lanes: I::LANES, rows: I::TILE_ROWS, columns: I::LANES * I::TILE_VECTORS };
        self.check(size);
        let (filters, width) = (self.shape.filters, self.product.width);
        let pool = if POOLED { POOL } else { 1 };
        let pixels = self.product.pixels.clone();
        for sample in 0..self.product.samples {
            let mut first = pixels.start;
            while first < pixels.end {
                let (row, column) = (first / width, first % width);
                let here = (width - column).min(pixels.end - first);
                // Strips of equal length rather than full ones and a short rest, which would wait for its own sums.
                let count = here.div_ceil(here.div_ceil(most::<I>(pool)));
                let from = pool * (row * self.shape.strides[0] * self.product.pitch + column * STRIDE * CHANNELS);
                // SAFETY: `check` has bounded what is read and written from here on.
                unsafe {
                    let strip = Strip {
                        a: self.product.a.as_ptr().add(sample * self.product.sample + from),
                        to: (sample * pixels.len() + first - pixels.start) * filters,
                    };
                    self.any_strip::<I, CHANNELS, STRIDE, POOLED>(isa, strip, count);
                }
                first += count;
            }
        }
    }

    /// # Safety
    /// See [`sums`](Self::sums), and the output has the strip's pixels.
    #[inline(always)]
    unsafe fn any_strip<I: Isa, const CHANNELS: usize, const STRIDE: usize, const POOLED: bool>(
        &mut self,
        isa: I,
        strip: Strip,
        count: usize,
    ) {
        macro_rules! dispatch {
            ($(plain $plain:literal)* $(pooled $pooled:literal: $pixels:literal)*) => {
                match (POOLED, count) {
                    // SAFETY: the caller's promise.
                    $((false, $plain) if !POOLED && $plain <= most::<I>(1) => unsafe { self.plain::<I, CHANNELS, STRIDE, $plain>(isa, strip) },)*
                    // SAFETY: the caller's promise.
                    $((true, $pooled) if POOLED && $pooled <= most::<I>(POOL) => unsafe { self.pooled::<I, CHANNELS, STRIDE, $pixels>(isa, strip) },)*
                    _ => unreachable!("{count} pixels are no strip"),
                }
            };
        }
        dispatch! {
            plain 1 plain 2 plain 3 plain 4 plain 5 plain 6 plain 7 plain 8
            plain 9 plain 10 plain 11 plain 12 plain 13 plain 14 plain 15 plain 16
            pooled 1: 2 pooled 2: 4 pooled 3: 6 pooled 4: 8
        }
    }

    /// The vector of filters that begins with that one.
    #[inline(always)]
    fn filters<I: Isa>(&self, first: usize) -> Filters {
        let (filters, depth) = (self.shape.filters, self.shape.taps() * self.shape.input[2]);
        let size = TileSize { lanes: I::LANES, rows: I::TILE_ROWS, columns: I::LANES * I::TILE_VECTORS };
        let first = unfollowed(first);
        let panel = first / size.columns * size.columns;
        Filters {
            first,
            used: (filters - first).min(I::LANES),
            weights: self.product.b.as_ptr().wrapping_add(panel * depth + first - panel),
            pitch: size.panel(panel, filters),
        }
    }

    /// The sums of `ROWS` rows of neighbouring pixels, added to `sums`.
    ///
    /// # Safety
    /// The windows of the pixels and the kernel's rows in `b` can be read.
    #[inline(always)]
    unsafe fn sums<I: Isa, const CHANNELS: usize, const STRIDE: usize, const ROWS: usize, const PIXELS: usize>(
        &self,
        isa: I,
        strip: Strip,
        filters: &Filters,
        mut sums: [[I::F32; PIXELS]; ROWS],
    ) -> [[I::F32; PIXELS]; ROWS] {
        let (kernel_rows, pitch) = (self.shape.kernel[0], self.product.pitch);
        let (below, down) = (self.shape.strides[0] * pitch, self.shape.dilation[0] * pitch);
        let (mut top, mut weights) = (strip.a, filters.weights);
        for _ in 0..kernel_rows {
            for channel in 0..CHANNELS {
                // SAFETY: the caller's promise.
                unsafe {
                    let a = top.add(channel);
                    let taps: [I::F32; TAPS] =
                        std::array::from_fn(|tap| isa.load(weights.add((tap * CHANNELS + channel) * filters.pitch)));
                    macro_rules! inputs {
                        ($($input:literal)*) => { $(
                            if $input < (PIXELS - 1) * STRIDE + TAPS {
                                for row in 0..ROWS {
                                    let value = isa.splat(*a.add(row * below + $input * CHANNELS));
                                    for tap in 0..TAPS {
                                        if $input >= tap && ($input - tap) % STRIDE == 0 && ($input - tap) / STRIDE < PIXELS {
                                            let sum = &mut sums[row][($input - tap) / STRIDE];
                                            *sum = isa.mul_add(value, taps[tap], *sum);
                                        }
                                    }
                                }
                            }
                        )* };
                    }
                    // One by one, since the compiler unrolls no loop of so much, and only with constant indices do the sums stay in registers.
                    inputs!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);
                }
            }
            top = top.wrapping_add(down);
            weights = weights.wrapping_add(TAPS * CHANNELS * filters.pitch);
        }
        sums
    }

    /// # Safety
    /// As for [`any_strip`](Self::any_strip).
    #[inline(always)]
    unsafe fn plain<I: Isa, const CHANNELS: usize, const STRIDE: usize, const PIXELS: usize>(
        &mut self,
        isa: I,
        strip: Strip,
    ) {
        let pitch = self.shape.filters;
        for first in (0..pitch).step_by(I::LANES) {
            let filters = self.filters::<I>(first);
            let mask = isa.first(filters.used);
            let RowOutput::Plain { epilogue, accumulate, cold, out } = &mut self.product.output else { return };
            let (epilogue, out) = (*epilogue, out.as_mut_ptr().wrapping_add(strip.to + filters.first));
            let mut sums = [[isa.zero(); PIXELS]];
            // SAFETY: the caller's promise, and the mask ends at the filters.
            unsafe {
                // Loops of their own for each choice: no branch for each pixel.
                if *cold {
                    let mut next = out.wrapping_add(PIXELS * pitch);
                    for _ in 0..PIXELS {
                        isa.prefetch(next);
                        next = next.wrapping_add(pitch);
                    }
                }
                if *accumulate {
                    let mut from = out;
                    for p in 0..PIXELS {
                        sums[0][p] = isa.load_masked(mask, from);
                        from = from.wrapping_add(pitch);
                    }
                }
                let [mut sums] = self.sums::<I, CHANNELS, STRIDE, 1, PIXELS>(isa, strip, &filters, sums);
                if let Some(bias) = self.product.bias {
                    let bias = isa.load_masked(mask, bias.as_ptr().add(filters.first));
                    for p in 0..PIXELS {
                        sums[p] = isa.add(sums[p], bias);
                    }
                }
                let [sums] = epilogue.apply(isa, [sums]);
                let mut to = out;
                if filters.used == I::LANES {
                    for p in 0..PIXELS {
                        isa.store(to, sums[p]);
                        to = to.wrapping_add(pitch);
                    }
                } else {
                    for p in 0..PIXELS {
                        isa.store_masked(mask, to, sums[p]);
                        to = to.wrapping_add(pitch);
                    }
                }
            }
        }
    }

    /// `PIXELS` are those of the convolution, in each of the windows' rows.
    ///
    /// # Safety
    /// As for [`any_strip`](Self::any_strip).
    #[inline(always)]
    unsafe fn pooled<I: Isa, const CHANNELS: usize, const STRIDE: usize, const PIXELS: usize>(
        &mut self,
        isa: I,
        strip: Strip,
    ) {
        let pitch = self.shape.filters;
        for first in (0..pitch).step_by(I::LANES) {
            let filters = self.filters::<I>(first);
            let mask = isa.first(filters.used);
            let zeros = [[isa.zero(); PIXELS]; POOL];
            // SAFETY: the caller's promise, and the mask ends at the filters.
            unsafe {
                let sums = self.sums::<I, CHANNELS, STRIDE, POOL, PIXELS>(isa, strip, &filters, zeros);
                let RowOutput::Pooled { relu, maxima, positions } = &mut self.product.output else { return };
                let bias = match self.product.bias {
                    Some(bias) => isa.load_masked(mask, bias.as_ptr().add(filters.first)),
                    None => isa.zero(),
                };
                for window in 0..PIXELS / POOL {
                    let pixels: [I::F32; POOL * POOL] =
                        std::array::from_fn(|p| sums[p / POOL][window * POOL + p % POOL]);
                    let (best, position) = maximum(isa, pixels, bias, *relu);
                    let to = strip.to + filters.first + window * pitch;
                    if filters.used == I::LANES {
                        isa.store(maxima.as_mut_ptr().add(to), best);
                    } else {
                        isa.store_masked(mask, maxima.as_mut_ptr().add(to), best);
                    }
                    isa.store_positions(positions.as_mut_ptr().add(to), filters.used, position);
                }
            }
        }
    }
}
