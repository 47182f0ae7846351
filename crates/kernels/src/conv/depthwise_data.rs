//! The data gradient of a depthwise convolution with a 3x3 or 5x5 kernel and strides of 2: each tile is two rows of the input, and every
//! gradient of an output is read once for all pixels that its window saw.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::depthwise_tile::Windows;
use crate::Level;
use crate::isa::{Isa, Kernel};
use std::ops::Range;

/// Pairs of columns in a tile.
const PAIRS: usize = 4;

/// `dx` of some rows of each sample.
pub(super) struct TileData<'a> {
    /// The windows of the forward pass.
    pub(super) windows: &'a Windows,
    /// The rows of `dx` that are computed.
    pub(super) rows: Range<usize>,
    pub(super) samples: usize,
    pub(super) dy: &'a [f32],
    /// The kernel as it is, packed by [`depthwise::pack`](super::depthwise::pack).
    pub(super) packed: &'a [f32],
    /// Those rows, sample by sample.
    pub(super) dx: &'a mut [f32],
}

/// A tile: two rows, and `PAIRS` pairs of columns, of the padded image. Only some of them exist.
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

impl TileData<'_> {
    /// Computes it; the one place where it is compiled.
    #[inline(never)]
    pub(super) fn run_on(self, level: Level) {
        level.dispatch(self);
    }
}

impl Kernel for TileData<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.windows.kernel {
            3 => self.sweep::<I, 3, 2>(isa),
            5 => self.sweep::<I, 5, 3>(isa),
            kernel => unreachable!("no tiles for kernels of {kernel}"),
        }
    }
}

/// The bits of `start..start + count` that lie in `range`.
fn inside(start: isize, count: usize, range: Range<usize>) -> u32 {
    let inside = |i: usize| start + i as isize >= range.start as isize && start + (i as isize) < range.end as isize;
    (0..count).filter(|&i| inside(i)).fold(0, |bits, i| bits | 1 << i)
}

impl TileData<'_> {
    /// `H` is how many rows of windows see a pixel at most.
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
        for sample in 0..self.samples {
            for down in down.clone() {
                let row = 2 * down - above;
                for across in across.clone().step_by(PAIRS) {
                    let column = 2 * across - left;
                    let dy = (down * windows.output[1] as isize + across) * channels as isize;
                    let dx = ((row - self.rows.start as isize) * width as isize + column) * channels as isize;
                    let place = Place {
                        dy: (sample * dy_len) as isize + dy,
                        dy_rows: inside(down + 1 - H as isize, H, 0..windows.output[0]),
                        dy_columns: inside(across + 1 - H as isize, H - 1 + PAIRS, 0..windows.output[1]),
                        dx: (sample * per_sample) as isize + dx,
                        rows: inside(row, 2, self.rows.clone()),
                        columns: inside(column, 2 * PAIRS, 0..width),
                    };
                    for channel in (0..channels).step_by(I::LANES) {
                        // SAFETY: the assertions above bound every pixel and channel; the place names those that exist.
                        unsafe {
                            if channels - channel >= I::LANES {
                                self.tile::<I, K, H, false>(isa, &place, channel);
                            } else {
                                self.tile::<I, K, H, true>(isa, &place, channel);
                            }
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// The pixels that the place names, and the channels, lie inside the slices.
    #[inline(always)]
    unsafe fn tile<I: Isa, const K: usize, const H: usize, const PART: bool>(
        &mut self,
        isa: I,
        place: &Place,
        channel: usize,
    ) {
        let channels = self.windows.channels;
        let mask = isa.first(channels - channel);
        // SAFETY: the caller's promise, and the mask ends at the channels.
        unsafe {
            let packed = self.packed.as_ptr().add(channel * K * K);
            let mut weights = [[isa.zero(); K]; K];
            for row in 0..K {
                for column in 0..K {
                    weights[row][column] = isa.load(packed.add((row * K + column) * I::LANES));
                }
            }
            // (row of the pair, pair, column of the pair)
            let mut sums = [[[isa.zero(); 2]; PAIRS]; 2];
            let dy = self.dy.as_ptr().wrapping_offset(place.dy + channel as isize);
            let pitch = self.windows.row_len();
            // The gradient `back` rows and `number - (H - 1)` columns from the tile's first; written out, since only
            // constant indices keep the sums in registers.
            macro_rules! pixel {
                ($back:literal $($number:literal)*) => {$(
                    if $number < H - 1 + PAIRS && place.dy_columns & (1 << $number) != 0 {
                        let from = dy.wrapping_sub($back * pitch).wrapping_add($number * channels).wrapping_sub((H - 1) * channels);
                        let gradient = if PART { isa.load_masked(mask, from) } else { isa.load(from) };
                        pixel!(@ gradient $back $number 0);
                        pixel!(@ gradient $back $number 1);
                        pixel!(@ gradient $back $number 2);
                        pixel!(@ gradient $back $number 3);
                    }
                )*};
                (@ $gradient:ident $back:literal $number:literal $pair:literal) => {
                    // How many columns of windows back from the pair this gradient is.
                    let column = ($pair + H - 1usize).wrapping_sub($number);
                    if column < H {
                        for odd in 0..2 {
                            for odd_column in 0..2 {
                                let (row, column) = (2 * $back + odd, 2 * column + odd_column);
                                if row < K && column < K {
                                    let sum = &mut sums[odd][$pair][odd_column];
                                    *sum = isa.mul_add($gradient, weights[row][column], *sum);
                                }
                            }
                        }
                    }
                };
            }
            macro_rules! rows {
                ($($back:literal)*) => {$(
                    if $back < H && place.dy_rows & (1 << (H - 1usize).wrapping_sub($back)) != 0 {
                        pixel!($back 0 1 2 3 4 5);
                    }
                )*};
            }
            rows!(0 1 2);
            let dx = self.dx.as_mut_ptr().wrapping_offset(place.dx + channel as isize);
            let pitch = self.windows.input[1] * channels;
            for row in 0..2 {
                if place.rows & (1 << row) != 0 {
                    for column in 0..2 * PAIRS {
                        if place.columns & (1 << column) != 0 {
                            let to = dx.wrapping_add(row * pitch + column * channels);
                            let sum = sums[row][column / 2][column % 2];
                            if PART { isa.store_masked(mask, to, sum) } else { isa.store(to, sum) }
                        }
                    }
                }
            }
        }
    }
}
