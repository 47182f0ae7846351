//! Depthwise convolution with 3x3 and 5x5 kernels, tile by tile: two rows of pixels of one vector of channels stay in registers.
//!
//! Every input pixel of a tile is read once and multiplied into all outputs that see it, and one vector of weights serves all of
//! them. Nothing is padded: taps outside the image are left out, row by row and column by column.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::depthwise::is_depthwise;
use super::{ConvShape, Epilogue};
use crate::Level;
use crate::isa::{Isa, Kernel};
use std::ops::Range;

/// Reads the columns that exist of one row of input pixels, and does `each` for every tap of the row and output column that
/// see one. Written out, since only constant indices keep a tile in registers.
macro_rules! for_columns {
    ($I:ident, $K:ident, $S:ident, $C:ident, $PART:ident, $isa:ident, $x:ident, $channels:ident, $mask:ident,
     $inside:expr, |$value:ident, $tap:ident, $column:ident| $each:block) => {
        for_columns!(@ ($I, $K, $S, $C, $PART, $isa, $x, $channels, $mask, $inside, $value, $tap, $column, $each)
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
    };
    (@ $all:tt $($index:literal)*) => {$( for_columns!(@@ $index $all); )*};
    (@@ $index:literal ($I:ident, $K:ident, $S:ident, $C:ident, $PART:ident, $isa:ident, $x:ident, $channels:ident,
     $mask:ident, $inside:expr, $value:ident, $tap:ident, $column:ident, $each:block)) => {
        if const { $index < ($C - 1) * $S + $K } && $inside & (1 << $index) != 0 {
            let from = $x.wrapping_add($index * $channels);
            let $value = if $PART { $isa.load_masked($mask, from) } else { $isa.load(from) };
            for_columns!(@@@ $index $K $S $C $tap $column $each 0);
            for_columns!(@@@ $index $K $S $C $tap $column $each 1);
            for_columns!(@@@ $index $K $S $C $tap $column $each 2);
            for_columns!(@@@ $index $K $S $C $tap $column $each 3);
            for_columns!(@@@ $index $K $S $C $tap $column $each 4);
        }
    };
    (@@@ $index:literal $K:ident $S:ident $C:ident $tap:ident $column:ident $each:block $number:literal) => {
        {
        // Before the first output column, this wraps to a number that is none.
        const SEEN: usize = ($index as usize).wrapping_sub($number);
        if const { $number < $K && SEEN % $S == 0 && SEEN / $S < $C } {
            let ($tap, $column) = ($number % $K, SEEN / $S);
            $each
        }
        }
    };
}
pub(super) use for_columns;

/// The windows of a convolution along both axes, of a size and stride that have tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) channels: usize,
    /// Values from one pixel of the image and of the output to the next: the channels, or more where these are some of an image's.
    pub(super) pitch: [usize; 2],
    /// Pixels of the image and of the output.
    pub(super) input: [usize; 2],
    pub(super) output: [usize; 2],
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// Rows and columns by which the first window begins before the image; negative where it begins inside.
    pub(super) before: [isize; 2],
}

impl Windows {
    /// The windows of a forward pass of that shape, if it is one that has tiles.
    pub(super) fn of_input(shape: &ConvShape) -> Option<Self> {
        let ([height, width, channels], [out_height, out_width, _]) = (shape.input, shape.output());
        let suits = is_depthwise(shape)
            && matches!(shape.kernel, [3, 3] | [5, 5])
            && matches!(shape.strides, [1, 1] | [2, 2])
            && shape.dilation == [1, 1];
        suits.then_some(Windows {
            channels,
            pitch: [channels; 2],
            input: [height, width],
            output: [out_height, out_width],
            kernel: shape.kernel[0],
            stride: shape.strides[0],
            before: [shape.padding[0] as isize, shape.padding[2] as isize],
        })
    }

    /// Where unit strides make the data gradient a convolution, too: the windows that it slides over the output's gradient.
    pub(super) fn of_gradient(shape: &ConvShape) -> Option<Self> {
        let windows = Windows::of_input(shape).filter(|windows| windows.stride == 1)?;
        let before = windows.before.map(|before| windows.kernel as isize - 1 - before);
        Some(Windows { input: windows.output, output: windows.input, before, ..windows })
    }

    pub(super) fn input_len(&self) -> usize {
        self.input[0] * self.input[1] * self.pitch[0]
    }

    /// Values of one row of the output.
    pub(super) fn row_len(&self) -> usize {
        self.output[1] * self.pitch[1]
    }

    /// The row or column of the input that a window begins at.
    fn start(&self, axis: usize, window: usize) -> isize {
        (window * self.stride) as isize - self.before[axis]
    }

    /// Which of the rows or columns from `start` on lie inside the image, as bits.
    fn inside(&self, axis: usize, start: isize) -> u32 {
        let (from, to) = ((-start).clamp(0, 31) as u32, (self.input[axis] as isize - start).clamp(0, 31) as u32);
        if from < to { ((1u32 << to) - 1) & !((1u32 << from) - 1) } else { 0 }
    }
}

/// Columns of the larger and of the smaller tile.
pub(super) const WIDE: usize = 7;
pub(super) const NARROW: usize = 4;

/// How many of the tiles that cover so many columns are wide ones: as many as leave the fewest columns unused.
pub(super) fn wide_tiles(columns: usize) -> usize {
    let unused = |wide: usize| (columns - wide * WIDE).next_multiple_of(NARROW) - (columns - wide * WIDE);
    let wide = (0..=columns / WIDE).rev().min_by_key(|&wide| unused(wide)).unwrap_or(0);
    // A last tile that is not full had better be wide.
    if unused(wide) > 0 && (columns - wide * WIDE) > NARROW { wide + 1 } else { wide }
}

/// Whether a level has the registers for a wide tile of such kernels, together with their weights.
pub(super) const fn wide_tile<I: Isa>(kernel: usize) -> bool {
    many_registers::<I>() && kernel == 3
}

/// Whether a level has more than sixteen registers. With fewer, tiles are so small that their sums wait for each other, and only the next
/// tile's work fills the time; so those inside the image are compiled apart, without a question for every pixel, which leaves the
/// processor room to begin with it.
pub(super) const fn many_registers<I: Isa>() -> bool {
    I::TILE_ROWS * I::TILE_VECTORS >= 24
}

/// A tile's place: two rows of pixels of some columns.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    /// Where the input's first pixel lies, which may be outside of the image.
    pub(super) input: isize,
    /// Which rows and columns of the input exist.
    pub(super) rows: u32,
    pub(super) columns: u32,
    /// Where the first output pixel lies, and how many there are across.
    pub(super) output: usize,
    pub(super) count: usize,
    /// Whether the second row exists.
    pub(super) two: bool,
    pub(super) wide: bool,
    /// Whether all that a narrow tile reads and writes exists.
    pub(super) inside: bool,
}

impl Place {
    fn is_inside(&self, windows: &Windows) -> bool {
        let rows = (1 << (windows.kernel + windows.stride)) - 1;
        let columns = (1 << ((NARROW - 1) * windows.stride + windows.kernel)) - 1;
        self.rows & rows == rows && self.columns & columns == columns && self.count == NARROW && self.two
    }

    /// The same place, as the compiler sees it where everything exists.
    #[inline(always)]
    pub(super) fn all(&self, columns: usize) -> Place {
        Place { rows: u32::MAX, columns: u32::MAX, count: columns, two: true, ..*self }
    }

    /// A wide tile as two narrow ones.
    pub(super) fn halves(&self, windows: &Windows) -> [Place; 2] {
        let inputs = NARROW * windows.stride;
        let right = Place {
            input: self.input + (inputs * windows.pitch[0]) as isize,
            columns: self.columns >> inputs,
            output: self.output + NARROW * windows.pitch[1],
            count: self.count.saturating_sub(NARROW),
            ..*self
        };
        [Place { count: self.count.min(NARROW), ..*self }, right]
    }
}

/// The tiles of some rows of an output whose pixels start at `output`, of an image whose pixels start at `input`.
pub(super) struct Places<'a> {
    pub(super) windows: &'a Windows,
    pub(super) rows: Range<usize>,
    pub(super) input: usize,
    pub(super) output: usize,
    /// How many tiles of a row are wide ones.
    pub(super) wide: usize,
    /// The next tile: its row, column and number in the row.
    pub(super) next: [usize; 3],
}

impl<'a> Places<'a> {
    pub(super) fn new<I: Isa>(windows: &'a Windows, rows: Range<usize>, input: usize, output: usize) -> Self {
        let wide = if wide_tile::<I>(windows.kernel) { wide_tiles(windows.output[1]) } else { 0 };
        Places { windows, next: [rows.start, 0, 0], rows, input, output, wide }
    }
}

impl Iterator for Places<'_> {
    type Item = Place;

    #[inline]
    fn next(&mut self) -> Option<Place> {
        let windows = self.windows;
        let ([from, to], width) = (windows.pitch, windows.output[1]);
        let [row, column, tile] = self.next;
        if row >= self.rows.end || width == 0 {
            return None;
        }
        let (from_row, from_column) = (windows.start(0, row), windows.start(1, column));
        let most = if tile < self.wide { WIDE } else { NARROW };
        self.next = if column + most < width { [row, column + most, tile + 1] } else { [row + 2, 0, 0] };
        let place = Place {
            input: self.input as isize + (from_row * windows.input[1] as isize + from_column) * from as isize,
            rows: windows.inside(0, from_row),
            columns: windows.inside(1, from_column),
            output: self.output + ((row - self.rows.start) * width + column) * to,
            count: most.min(width - column),
            two: row + 1 < self.rows.end,
            wide: tile < self.wide,
            inside: false,
        };
        Some(Place { inside: place.is_inside(windows), ..place })
    }
}

/// How weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// As [`depthwise::pack`](super::depthwise::pack) makes them.
    Packed,
    /// `[tap][channel]`, as they are given, of so many channels.
    Plain { channels: usize },
}

/// The most tiles that are done for one vector of channels before the next: what belongs to the channels then stays in registers or the
/// first-level cache, and so does each line of the image for all tiles that read it.
pub(super) const BLOCK: usize = 32;

/// Bytes of such tiles, from the second-level cache; few in tests, so that these know several blocks.
const BLOCK_BYTES: usize = if cfg!(test) { 4 << 10 } else { 512 << 10 };

/// The next tiles of an image of so many channels, if there are any.
#[inline(always)]
pub(super) fn next_block<'a, P>(
    places: &mut impl Iterator<Item = P>,
    block: &'a mut [P; BLOCK],
    channels: usize,
) -> Option<&'a [P]> {
    let most = (BLOCK_BYTES / (4 * 2 * WIDE * channels.max(1))).clamp(1, BLOCK);
    let mut count = 0;
    for (to, place) in block[..most].iter_mut().zip(places) {
        *to = place;
        count += 1;
    }
    (count > 0).then(|| &block[..count])
}

/// `y = epilogue(convolution(x, weights) + bias)` of some rows of each sample's output.
pub(super) struct Tiles<'a> {
    pub(super) windows: &'a Windows,
    /// The rows of the output that are computed.
    pub(super) rows: Range<usize>,
    pub(super) samples: usize,
    pub(super) x: &'a [f32],
    pub(super) weights: &'a [f32],
    pub(super) layout: Layout,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) epilogue: Epilogue,
    /// Whether the output is hardly in the second-level cache, so that it is asked for before it is written.
    pub(super) cold: bool,
    /// Those rows, sample by sample.
    pub(super) y: &'a mut [f32],
}

impl Tiles<'_> {
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
struct Sweep<'a, const K: usize, const S: usize>(Tiles<'a>);

impl<const K: usize, const S: usize> Kernel for Sweep<'_, K, S> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.sweep::<I, K, S>(isa);
    }
}

impl Tiles<'_> {
    #[inline(always)]
    fn sweep<I: Isa, const K: usize, const S: usize>(mut self, isa: I) {
        let windows = self.windows;
        let per_sample = self.rows.len() * windows.row_len();
        assert!(self.rows.end <= windows.output[0], "rows of the output");
        let beyond =
            windows.pitch.map(|pitch| pitch.checked_sub(windows.channels).expect("pixels that do not overlap"));
        assert!(self.samples * windows.input_len() <= self.x.len() + beyond[0], "inputs of every pixel");
        assert!(self.samples * per_sample <= self.y.len() + beyond[1], "outputs of every pixel");
        let weights = match self.layout {
            Layout::Packed => K * K * windows.channels.next_multiple_of(I::LANES),
            Layout::Plain { channels } => (K * K - 1) * channels + windows.channels,
        };
        assert!(weights <= self.weights.len(), "weights of every tap");
        assert!(self.bias.is_none_or(|bias| bias.len() >= windows.channels), "a bias for each channel");
        for sample in 0..self.samples {
            let mut places =
                Places::new::<I>(windows, self.rows.clone(), sample * windows.input_len(), sample * per_sample);
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
        }
    }

    /// Some tiles, of one vector of channels; of that only those that exist if `PART`.
    ///
    /// # Safety
    /// The places, and the channels, lie inside the slices.
    #[inline(always)]
    unsafe fn block<I: Isa, const K: usize, const S: usize, const PART: bool>(
        &mut self,
        isa: I,
        places: &[Place],
        channel: usize,
    ) {
        let windows = self.windows;
        let mask = isa.first(windows.channels - channel);
        // SAFETY: the caller's promise, and the mask ends at the channels.
        unsafe {
            let mut weights = [[isa.zero(); K]; K];
            let (from, tap) = match self.layout {
                Layout::Packed => (self.weights.as_ptr().add(channel * K * K), I::LANES),
                Layout::Plain { channels } => (self.weights.as_ptr().add(channel), channels),
            };
            for row in 0..K {
                for column in 0..K {
                    let from = from.add((row * K + column) * tap);
                    weights[row][column] = if PART { isa.load_masked(mask, from) } else { isa.load(from) };
                }
            }
            let bias = match self.bias {
                Some(bias) if PART => isa.load_masked(mask, bias.as_ptr().add(channel)),
                Some(bias) => isa.load(bias.as_ptr().add(channel)),
                None => isa.zero(),
            };
            for place in places {
                let factors = (weights, bias);
                match place.wide && wide_tile::<I>(K) {
                    true if !PART => self.tile::<I, K, S, WIDE, false, false>(isa, place, channel, factors),
                    true => {
                        // Rare enough to do without a wide tile of its own.
                        let [left, right] = place.halves(windows);
                        self.tile::<I, K, S, NARROW, PART, false>(isa, &left, channel, factors);
                        self.tile::<I, K, S, NARROW, PART, false>(isa, &right, channel, factors);
                    }
                    false if !PART && !many_registers::<I>() && place.inside => {
                        self.tile::<I, K, S, NARROW, false, true>(isa, place, channel, factors);
                    }
                    false => self.tile::<I, K, S, NARROW, PART, false>(isa, place, channel, factors),
                }
            }
        }
    }

    /// One tile of one vector of channels, of that only those that exist if `PART`; `INSIDE` promises that all of its pixels do.
    ///
    /// # Safety
    /// The pixels that the place names, and the channels, lie inside the slices.
    #[inline(always)]
    unsafe fn tile<I: Isa, const K: usize, const S: usize, const C: usize, const PART: bool, const INSIDE: bool>(
        &mut self,
        isa: I,
        place: &Place,
        channel: usize,
        (weights, bias): ([[I::F32; K]; K], I::F32),
    ) {
        let place = if INSIDE { place.all(C) } else { *place };
        let [from, to] = self.windows.pitch;
        let mask = isa.first(self.windows.channels - channel);
        // SAFETY: the caller's promise, and the mask ends at the channels.
        unsafe {
            let (mut first, mut second) = ([bias; C], [bias; C]);
            let y = self.y.as_mut_ptr().add(place.output + channel);
            if self.cold {
                // The next tile's pixels.
                for row in 0..2 {
                    for column in 0..C {
                        isa.prefetch(y.wrapping_add(row * self.windows.row_len() + (C + column) * to));
                    }
                }
            }
            let x = self.x.as_ptr().wrapping_offset(place.input + channel as isize);
            let pitch = self.windows.input[1] * from;
            macro_rules! rows {
                ($($row:literal)*) => {$(
                    // Its place in the windows of the first row of outputs is `$row`, and of the second `$row - S`.
                    if const { $row < K + S } && place.rows & (1 << $row) != 0 {
                        let x = x.wrapping_add($row * pitch);
                        for_columns!(I, K, S, C, PART, isa, x, from, mask, place.columns, |x, tap, column| {
                            if const { $row < K } {
                                first[column] = isa.mul_add(x, weights[$row % K][tap], first[column]);
                            }
                            if const { $row >= S } {
                                second[column] = isa.mul_add(x, weights[($row + K - S) % K][tap], second[column]);
                            }
                        });
                    }
                )*};
            }
            rows!(0 1 2 3 4 5 6);
            let (low, high) = self.epilogue.bounds();
            let (low, high) = (isa.splat(low), isa.splat(high));
            for column in 0..C {
                if column < place.count {
                    let to = y.add(column * to);
                    let value = isa.min(high, isa.max(low, first[column]));
                    if PART { isa.store_masked(mask, to, value) } else { isa.store(to, value) }
                }
            }
            if place.two {
                let y = y.add(self.windows.row_len());
                for column in 0..C {
                    if column < place.count {
                        let to = y.add(column * to);
                        let value = isa.min(high, isa.max(low, second[column]));
                        if PART { isa.store_masked(mask, to, value) } else { isa.store(to, value) }
                    }
                }
            }
        }
    }
}
