//! The data gradient of a depthwise convolution with a 3x3 or 5x5 kernel. With unit strides it is a convolution, too. With strides of 2
//! each tile is two rows of the input, and every gradient of an output is read once for all pixels that its window saw.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::depthwise_tile::{BLOCK, Layout, Tiles, Windows, many_registers, next_block};
use super::geometry::{Tap, is_cold};
use super::{ConvShape, Epilogue, depthwise};
use crate::Level;
use crate::isa::{Isa, Kernel};
use std::ops::Range;

/// Pairs of columns in a tile.
const PAIRS: usize = 4;

/// The data gradient of kernels that have tiles.
#[derive(Clone, Debug)]
pub(super) struct DataTiles {
    /// With unit strides the windows over `dy`, else those of the forward pass.
    windows: Windows,
    /// The kernel's positions in the order that the tiles read.
    taps: Vec<Tap>,
    /// Whether a sample's `dx` is too large for a second-level cache.
    cold: bool,
}

impl DataTiles {
    pub(super) fn new(shape: &ConvShape) -> Option<Self> {
        let windows = Windows::of_gradient(shape).or_else(|| Windows::of_input(shape))?;
        let mut taps: Vec<_> = (0..shape.taps()).map(|position| Tap { offset: 0, position }).collect();
        if windows.stride == 1 {
            taps.reverse();
        }
        Some(DataTiles { windows, taps, cold: is_cold(shape.input_len()) })
    }

    /// Values that [`pack`](Self::pack) writes.
    pub(super) fn packed_len(&self, lanes: usize) -> usize {
        depthwise::packed_len(self.taps.len(), self.windows.channels, lanes)
    }

    /// Brings the weights into the order that [`run_on`](Self::run_on) reads.
    pub(super) fn pack(&self, lanes: usize, weights: &[f32], packed: &mut [f32]) {
        depthwise::pack(&self.taps, self.windows.channels, lanes, weights, packed);
    }

    /// Computes these rows of each sample's `dx`, which holds nothing else.
    pub(super) fn run_on(
        &self,
        level: Level,
        rows: Range<usize>,
        samples: usize,
        dy: &[f32],
        packed: &[f32],
        dx: &mut [f32],
    ) {
        let (windows, cold) = (&self.windows, self.cold);
        if windows.stride == 1 {
            let (x, bias, epilogue, layout, y) = (dy, None, Epilogue::Linear, Layout::Packed, dx);
            return Tiles { windows, rows, samples, x, weights: packed, layout, bias, epilogue, cold, y }.run_on(level);
        }
        Strided { windows, rows, samples, dy, packed, cold, dx }.run_on(level);
    }
}

/// `dx` of some rows of each sample, with strides of 2.
struct Strided<'a> {
    /// The windows of the forward pass.
    windows: &'a Windows,
    /// The rows of `dx` that are computed.
    rows: Range<usize>,
    samples: usize,
    dy: &'a [f32],
    /// The kernel as it is, packed by [`depthwise::pack`].
    packed: &'a [f32],
    /// Whether `dx` is hardly in the second-level cache, so that it is asked for before it is written.
    cold: bool,
    /// Those rows, sample by sample.
    dx: &'a mut [f32],
}

/// A tile: two rows, and `PAIRS` pairs of columns, of the padded image. Only some of them exist.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Where the gradient's pixel of the tile's first row and column lies, and which of the pixels at and before it exist: bit 0 the
    /// farthest.
    dy: isize,
    dy_rows: u32,
    dy_columns: u32,
    /// Where the first row's and column's pixel lies in `dx`, and which rows and columns are to be stored.
    dx: isize,
    rows: u32,
    columns: u32,
}

impl Place {
    /// Whether all that a tile reads and writes exists, where so many rows of windows see a pixel.
    fn inside(&self, rows: usize) -> bool {
        let (dy_rows, dy_columns) = ((1 << rows) - 1, (1 << (rows - 1 + PAIRS)) - 1);
        let reads = self.dy_rows & dy_rows == dy_rows && self.dy_columns & dy_columns == dy_columns;
        reads && self.rows == 3 && self.columns == (1 << (2 * PAIRS)) - 1
    }
}

impl Strided<'_> {
    /// Computes it; each kernel is compiled apart, here and nowhere else.
    #[inline(never)]
    fn run_on(self, level: Level) {
        match self.windows.kernel {
            3 => level.dispatch(Sweep::<3, 2>(self)),
            5 => level.dispatch(Sweep::<5, 3>(self)),
            kernel => unreachable!("no tiles for kernels of {kernel}"),
        }
    }
}

/// With a kernel of `K` times `K`, `H` rows of whose windows see a pixel at most.
struct Sweep<'a, const K: usize, const H: usize>(Strided<'a>);

impl<const K: usize, const H: usize> Kernel for Sweep<'_, K, H> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.sweep::<I, K, H>(isa);
    }
}

/// The bits of `start..start + count` that lie in `range`.
fn inside(start: isize, count: usize, range: Range<usize>) -> u32 {
    let inside = |i: usize| start + i as isize >= range.start as isize && start + (i as isize) < range.end as isize;
    (0..count).filter(|&i| inside(i)).fold(0, |bits, i| bits | 1 << i)
}

impl Strided<'_> {
    #[inline(always)]
    fn sweep<I: Isa, const K: usize, const H: usize>(mut self, isa: I) {
        let windows = self.windows;
        let [height, width] = windows.input;
        let channels = windows.channels;
        let dy_len = windows.output[0] * windows.row_len();
        let per_sample = self.rows.len() * width * channels;
        assert!(self.rows.end <= height, "rows of the image");
        assert_eq!(self.dy.len(), self.samples * dy_len, "gradients of every output");
        assert_eq!(self.dx.len(), self.samples * per_sample, "room for every pixel");
        assert!(K * K * channels.next_multiple_of(I::LANES) <= self.packed.len(), "weights of every tap");
        // Pixel `p` of the image lies at `p + before` in the padded one, whose pairs begin at even places.
        let [above, left] = windows.before;
        let pairs = |first: isize, last: isize| first.div_euclid(2)..(last + 2).div_euclid(2);
        let down = pairs(self.rows.start as isize + above, self.rows.end as isize - 1 + above);
        let across = pairs(left, width as isize - 1 + left);
        if self.rows.is_empty() || width == 0 {
            return;
        }
        let rows = self.rows.clone();
        for sample in 0..self.samples {
            let across = || across.clone().step_by(PAIRS);
            let mut places =
                down.clone().flat_map(|down| across().map(move |across| (down, across))).map(|(down, across)| {
                    let (row, column) = (2 * down - above, 2 * across - left);
                    let dy = (down * windows.output[1] as isize + across) * channels as isize;
                    let dx = ((row - rows.start as isize) * width as isize + column) * channels as isize;
                    Place {
                        dy: (sample * dy_len) as isize + dy,
                        dy_rows: inside(down + 1 - H as isize, H, 0..windows.output[0]),
                        dy_columns: inside(across + 1 - H as isize, H - 1 + PAIRS, 0..windows.output[1]),
                        dx: (sample * per_sample) as isize + dx,
                        rows: inside(row, 2, rows.clone()),
                        columns: inside(column, 2 * PAIRS, 0..width),
                    }
                });
            let mut block = [Place::default(); BLOCK];
            while let Some(places) = next_block(&mut places, &mut block, channels) {
                for channel in (0..channels).step_by(I::LANES) {
                    for place in places {
                        // SAFETY: the assertions above bound every pixel and channel; the place names those that exist.
                        unsafe {
                            if channels - channel < I::LANES {
                                self.tile::<I, K, H, true, false>(isa, place, channel);
                            } else if !many_registers::<I>() && place.inside(H) {
                                self.tile::<I, K, H, false, true>(isa, place, channel);
                            } else {
                                self.tile::<I, K, H, false, false>(isa, place, channel);
                            }
                        }
                    }
                }
            }
        }
    }

    /// `PART` says that only some of the channels exist, `INSIDE` promises that all pixels do.
    ///
    /// # Safety
    /// The pixels that the place names, and the channels, lie inside the slices.
    #[inline(always)]
    unsafe fn tile<I: Isa, const K: usize, const H: usize, const PART: bool, const INSIDE: bool>(
        &mut self,
        isa: I,
        place: &Place,
        channel: usize,
    ) {
        let all = u32::MAX;
        let place =
            if INSIDE { Place { dy_rows: all, dy_columns: all, rows: all, columns: all, ..*place } } else { *place };
        let channels = self.windows.channels;
        let mask = isa.first(channels - channel);
        // SAFETY: the caller's promise, and the mask ends at the channels.
        unsafe {
            let packed = self.packed.as_ptr().add(channel * K * K);
            let dy = self.dy.as_ptr().wrapping_offset(place.dy + channel as isize);
            let dy_pitch = self.windows.row_len();
            let dx = self.dx.as_mut_ptr().wrapping_offset(place.dx + channel as isize);
            let dx_pitch = self.windows.input[1] * channels;
            if self.cold {
                // The next tile's pixels.
                for row in 0..2 {
                    for column in 0..2 * PAIRS {
                        isa.prefetch(dx.wrapping_add(row * dx_pitch + (2 * PAIRS + column) * channels));
                    }
                }
            }
            // One row of the pair after the other, so that sixteen registers hold its sums and the rows of weights that it meets.
            macro_rules! row {
                ($odd:literal) => {
                    if place.rows & (1 << $odd) != 0 {
                        let mut weights = [[isa.zero(); K]; H];
                        for back in 0..H {
                            for column in 0..K {
                                if 2 * back + $odd < K {
                                    let tap = (2 * back + $odd) * K + column;
                                    weights[back][column] = isa.load(packed.add(tap * I::LANES));
                                }
                            }
                        }
                        // (pair, column of the pair)
                        let mut sums = [[isa.zero(); 2]; PAIRS];
                        rows!($odd weights sums 0 1 2);
                        for column in 0..2 * PAIRS {
                            if place.columns & (1 << column) != 0 {
                                let to = dx.wrapping_add($odd * dx_pitch + column * channels);
                                let sum = sums[column / 2][column % 2];
                                if PART { isa.store_masked(mask, to, sum) } else { isa.store(to, sum) }
                            }
                        }
                    }
                };
            }
            macro_rules! rows {
                ($odd:literal $weights:ident $sums:ident $($back:literal)*) => {$(
                    if const { $back < H && 2 * $back + $odd < K } && place.dy_rows & (1 << (H - 1usize).wrapping_sub($back)) != 0 {
                        // Moved from pixel to pixel, since a product for each address would take longer than what is done with it.
                        let mut from = dy.wrapping_sub($back * dy_pitch + (H - 1) * channels);
                        pixel!(from $weights $sums $back 0 1 2 3 4 5);
                        let _ = from;
                    }
                )*};
            }
            // The gradient `back` rows and `number - (H - 1)` columns from the tile's first; written out, since only
            // constant indices keep the sums in registers.
            macro_rules! pixel {
                ($from:ident $weights:ident $sums:ident $back:literal $($number:literal)*) => {$(
                    if const { $number < H - 1 + PAIRS } && place.dy_columns & (1 << $number) != 0 {
                        let gradient = if PART { isa.load_masked(mask, $from) } else { isa.load($from) };
                        pixel!(@ gradient $weights $sums $back $number 0);
                        pixel!(@ gradient $weights $sums $back $number 1);
                        pixel!(@ gradient $weights $sums $back $number 2);
                        pixel!(@ gradient $weights $sums $back $number 3);
                    }
                    $from = $from.wrapping_add(channels);
                )*};
                (@ $gradient:ident $weights:ident $sums:ident $back:literal $number:literal $pair:literal) => {
                    if const { $pair + H > $number && $pair <= $number } {
                        // How many columns of windows back from the pair this gradient is.
                        let column = $pair + H - 1 - $number;
                        for odd in 0..2 {
                            if 2 * column + odd < K {
                                let sum = &mut $sums[$pair][odd];
                                *sum = isa.mul_add($gradient, $weights[$back % H][2 * column + odd], *sum);
                            }
                        }
                    }
                };
            }
            row!(0);
            row!(1);
        }
    }
}
