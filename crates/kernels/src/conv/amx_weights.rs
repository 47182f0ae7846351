//! The weight gradient of bf16 pairs by tile instructions (AMX): pairs of output pixels, which the reduction runs over.
//!
//! With unit strides the images are laid out as one long row of pixels, zeros between the rows and the samples, so that every tap
//! reads the same row from another pixel on: joined once by pairs that begin at even pixels and once by such that begin at odd
//! ones, it serves all taps. With other strides each tap has its own row. Gradients are joined and transposed once; the tiles sum
//! the transposed gradient of the weights, sixteen filters by sixteen channels at a time.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::ConvShape;
use super::amx_product::{Aligned, TILE_LEN};
use super::geometry::{LINE, unaliased};
use crate::isa::{Amx, Isa, TILE, TileKernel, Tiles};

/// Chunks of 16 pairs whose factors stay in the first-level cache for all taps, and bytes of them in the second-level one.
const CHUNKS: usize = 12;
const BLOCK_BYTES: usize = 512 << 10;

/// Bytes of sums beyond which they are not put aside between chunks: all samples pass together.
const MOST_SUMS: usize = 512 << 10;

/// The plan: offsets and sizes.
#[derive(Clone, Debug)]
pub(super) struct AmxWeights {
    shape: ConvShape,
    tiles: Amx,
    /// Pixels from one row of the gradients to the next, and from one sample to the next: an even number.
    row: usize,
    sample: usize,
    /// Zeros before the first pixel of a long row.
    start: usize,
    /// For each tap the long row that it reads, and from which pair on.
    taps: Vec<(usize, usize)>,
    long_rows: usize,
    /// Channels and filters in whole tiles, and slots from one pair of pixels to the next.
    padded_channels: usize,
    padded_filters: usize,
    pitch: usize,
    /// Samples that are joined together.
    block: usize,
    /// Chunks that pass all taps together.
    chunks: usize,
}

impl AmxWeights {
    /// The plan, for a convolution of one group.
    pub(super) fn new(shape: ConvShape, tiles: Amx) -> Self {
        let ([height, width, filters], [_, columns, channels]) = (shape.output(), shape.input);
        let [top, bottom, left, right] = shape.padding;
        let [padded_channels, padded_filters] = [channels, filters].map(|n| n.next_multiple_of(TILE));
        let flat = shape.strides == [1, 1];
        let row = if flat { columns + left.max(right) } else { width };
        let rows = if flat { shape.input[0] + top.max(bottom) } else { height };
        let start = if flat { top * row + left } else { 0 };
        let tap = |tap: usize| {
            if !flat {
                return (tap, 0);
            }
            let [down, across] = [tap / shape.kernel[1] * shape.dilation[0], tap % shape.kernel[1] * shape.dilation[1]];
            let pixel = down * row + across;
            (pixel % 2, pixel / 2)
        };
        let sums = 4 * shape.taps() * padded_channels * padded_filters;
        let mut plan = AmxWeights {
            shape,
            tiles,
            row,
            sample: (rows * row).next_multiple_of(2),
            start,
            taps: (0..shape.taps()).map(tap).collect(),
            long_rows: if flat { 2 } else { shape.taps() },
            padded_channels,
            padded_filters,
            pitch: unaliased(padded_channels, 4096),
            block: usize::MAX,
            chunks: usize::MAX,
        };
        if sums <= MOST_SUMS {
            let bytes = 4 * (plan.sample / 2) * (plan.long_rows * plan.pitch + padded_filters);
            plan.block = (BLOCK_BYTES / bytes.max(1)).max(1);
            plan.chunks = CHUNKS;
        }
        plan
    }

    /// Chunks of pairs of so many samples, and pairs of a long row.
    fn lengths(&self, samples: usize) -> [usize; 2] {
        let chunks = (samples * self.sample / 2).div_ceil(TILE);
        let beyond = self.taps.iter().map(|&(_, pair)| pair).max().unwrap_or(0);
        [chunks, chunks * TILE + beyond]
    }

    /// Values of the long rows, of the gradients' tiles and of the sums that are put aside.
    fn parts(&self, samples: usize) -> [usize; 3] {
        let [chunks, pairs] = self.lengths(samples.min(self.block));
        let aside = samples > self.block || chunks > self.chunks;
        let sums = if aside { self.taps.len() * self.padded_channels * self.padded_filters } else { 0 };
        [self.long_rows * pairs * self.pitch, chunks * TILE * self.padded_filters, sums]
    }

    pub(super) fn scratch_len(&self, samples: usize) -> usize {
        self.parts(samples).iter().sum::<usize>() + LINE
    }

    /// Sums the gradient of at least one sample with at least one output pixel.
    pub(super) fn run(
        &self,
        samples: usize,
        x: &[f32],
        dy: &[f32],
        dw: &mut [f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) {
        // Rows of tiles should not lie across cache lines.
        let skip = scratch.as_ptr().align_offset(64).min(LINE);
        let [long, tiles, sums] = self.parts(samples);
        let (long, scratch) = scratch[skip..].split_at_mut(long);
        let (gradients, scratch) = scratch.split_at_mut(tiles);
        let sums = &mut scratch[..sums];
        let (x_len, dy_len) = (self.shape.input_len(), self.shape.output_len());
        for begin in (0..samples).step_by(self.block.min(samples)) {
            let count = self.block.min(samples - begin);
            Block {
                plan: self,
                samples: count,
                x: &x[begin * x_len..(begin + count) * x_len],
                dy: &dy[begin * dy_len..(begin + count) * dy_len],
                first: begin == 0,
                last: begin + count == samples,
                accumulate,
                dw: &mut *dw,
                long: &mut *long,
                gradients: &mut *gradients,
                sums: &mut *sums,
            }
            .run_on(self.tiles);
        }
    }
}

/// Some samples' share of the sums.
struct Block<'a> {
    plan: &'a AmxWeights,
    samples: usize,
    x: &'a [f32],
    dy: &'a [f32],
    /// Whether these are the first samples, and the last ones.
    first: bool,
    last: bool,
    accumulate: bool,
    dw: &'a mut [f32],
    /// `[long row][pair][channel]`
    long: &'a mut [f32],
    /// `[tile of filters][chunk][filter][pair]`
    gradients: &'a mut [f32],
    /// `[tile of filters][tap][tile of channels][filter][channel]`, if they are put aside between chunks.
    sums: &'a mut [f32],
}

impl Block<'_> {
    #[inline(never)]
    fn run_on(self, tiles: Amx) {
        tiles.run(self);
    }
}

impl TileKernel for Block<'_> {
    #[inline(always)]
    fn run<I: Isa, T: Tiles>(mut self, isa: I, tiles: &mut T) {
        let (plan, shape) = (self.plan, &self.plan.shape);
        assert_eq!(I::LANES, TILE, "vectors of a tile's rows");
        assert!(self.samples > 0 && self.x.len() == self.samples * shape.input_len(), "x of {shape:?}");
        assert_eq!(self.dy.len(), self.samples * shape.output_len(), "dy of {shape:?}");
        assert_eq!(self.dw.len(), shape.weights_len(), "dw of {shape:?}");
        let [chunks, pairs] = plan.lengths(self.samples);
        let most = plan.chunks.min(chunks);
        let filter_tiles = plan.padded_filters / TILE;
        let units = plan.taps.len() * (plan.padded_channels / TILE);
        assert!(plan.long_rows * pairs * plan.pitch <= self.long.len(), "room for long rows");
        assert!(chunks * TILE * plan.padded_filters <= self.gradients.len(), "room for gradients");
        let whole = self.first && self.last && most == chunks;
        assert!(whole || filter_tiles * units * TILE_LEN <= self.sums.len(), "room for sums");
        // SAFETY: the assertions above give all pixels, tiles and sums their room.
        unsafe {
            if shape.strides != [1, 1] {
                for tap in 0..plan.taps.len() {
                    self.join_tap(isa, tap, pairs);
                }
            } else {
                self.join_flat(isa, pairs);
            }
            self.transpose_gradients(isa, chunks);
            tiles.configure(TILE);
            for begin in (0..chunks).step_by(most) {
                let part = Part {
                    chunks: begin..chunks.min(begin + most),
                    of: chunks,
                    pairs,
                    first: self.first && begin == 0,
                    last: self.last && begin + most >= chunks,
                };
                for filter in (0..filter_tiles).step_by(2) {
                    if filter + 1 < filter_tiles {
                        for unit in (0..units).step_by(2) {
                            match units - unit {
                                1 => self.multiply::<I, T, 2, 1>(isa, tiles, &part, filter, unit),
                                _ => self.multiply::<I, T, 2, 2>(isa, tiles, &part, filter, unit),
                            }
                        }
                        continue;
                    }
                    let mut unit = 0;
                    while unit < units {
                        match units - unit {
                            4.. => self.multiply::<I, T, 1, 4>(isa, tiles, &part, filter, unit),
                            2.. => self.multiply::<I, T, 1, 2>(isa, tiles, &part, filter, unit),
                            _ => self.multiply::<I, T, 1, 1>(isa, tiles, &part, filter, unit),
                        }
                        unit += match units - unit {
                            4.. => 4,
                            2.. => 2,
                            _ => 1,
                        };
                    }
                }
            }
            tiles.release();
        }
    }
}

/// Some chunks of the reduction.
struct Part {
    chunks: std::ops::Range<usize>,
    /// Chunks of the block, and pairs of a long row.
    of: usize,
    pairs: usize,
    /// Whether nothing was summed before, and whether nothing comes after.
    first: bool,
    last: bool,
}

/// Walks over pixels in the order of long rows.
struct Walk {
    sample: usize,
    row: usize,
    column: usize,
    position: usize,
}

impl Walk {
    fn new() -> Self {
        Walk { sample: 0, row: 0, column: 0, position: 0 }
    }

    /// Sample, row and column of the pixel here, if an image of `height` by `width` has it; then goes on to the next.
    #[inline(always)]
    fn next(&mut self, plan: &AmxWeights, samples: usize, height: usize, width: usize) -> Option<[usize; 3]> {
        let inside = self.sample < samples && self.row < height && self.column < width;
        let here = if inside { Some([self.sample, self.row, self.column]) } else { None };
        self.position += 1;
        self.column += 1;
        if self.column == plan.row {
            (self.row, self.column) = (self.row + 1, 0);
        }
        if self.position == plan.sample {
            *self = Walk { sample: self.sample + 1, ..Walk::new() };
        }
        here
    }
}

impl Block<'_> {
    /// Stores the pair of two pixels, zeros where there is none.
    ///
    /// # Safety
    /// The pixels have `width` values at `from`, and `to` has room for whole vectors.
    #[inline(always)]
    unsafe fn join<I: Isa>(isa: I, from: *const f32, width: usize, pixels: [Option<usize>; 2], to: *mut f32) {
        for column in (0..width).step_by(I::LANES) {
            let mask = isa.first(width - column);
            let mut values = [isa.zero(); 2];
            for i in 0..2 {
                if let Some(pixel) = pixels[i] {
                    // SAFETY: the caller's promise; the mask ends at the width.
                    values[i] = unsafe { isa.load_masked(mask, from.add(pixel * width + column)) };
                }
            }
            // SAFETY: the caller's promise.
            unsafe { isa.store(to.add(column), isa.pair(values[0], values[1])) };
        }
    }

    /// Joins the pixels of all samples by pairs, from the even ones on and from the odd ones on.
    ///
    /// # Safety
    /// Everything is as `run` asserts.
    #[inline(always)]
    unsafe fn join_flat<I: Isa>(&mut self, isa: I, pairs: usize) {
        let plan = self.plan;
        let [height, width, channels] = plan.shape.input;
        let (mut walk, mut before) = (Walk::new(), None);
        for pixel in 0..=2 * pairs {
            let mut here = None;
            if pixel >= plan.start
                && let Some([sample, row, column]) = walk.next(plan, self.samples, height, width)
            {
                here = Some((sample * height + row) * width + column);
            }
            if let Some(last) = pixel.checked_sub(1) {
                let to = (last % 2 * pairs + last / 2) * plan.pitch;
                // SAFETY: the caller's promise.
                unsafe {
                    Self::join(isa, self.x.as_ptr(), channels, [before, here], self.long.as_mut_ptr().add(to));
                }
            }
            before = here;
        }
    }

    /// Joins by pairs the pixels that a tap reads.
    ///
    /// # Safety
    /// As for [`join_flat`](Self::join_flat).
    #[inline(always)]
    unsafe fn join_tap<I: Isa>(&mut self, isa: I, tap: usize, pairs: usize) {
        let (plan, shape) = (self.plan, &self.plan.shape);
        let ([height, width, channels], [out_height, out_width, _]) = (shape.input, shape.output());
        let place = [tap / shape.kernel[1] * shape.dilation[0], tap % shape.kernel[1] * shape.dilation[1]];
        let mut walk = Walk::new();
        for pair in 0..pairs {
            let mut pixels = [None; 2];
            for pixel in &mut pixels {
                if let Some([sample, row, column]) = walk.next(plan, self.samples, out_height, out_width) {
                    let row = (row * shape.strides[0] + place[0]).wrapping_sub(shape.padding[0]);
                    let column = (column * shape.strides[1] + place[1]).wrapping_sub(shape.padding[2]);
                    if row < height && column < width {
                        *pixel = Some((sample * height + row) * width + column);
                    }
                }
            }
            let to = (tap * pairs + pair) * plan.pitch;
            // SAFETY: the caller's promise.
            unsafe { Self::join(isa, self.x.as_ptr(), channels, pixels, self.long.as_mut_ptr().add(to)) };
        }
    }

    /// Joins the gradients by pairs and makes tiles of them, whose rows are filters.
    ///
    /// # Safety
    /// As for [`join_flat`](Self::join_flat).
    #[inline(always)]
    unsafe fn transpose_gradients<I: Isa>(&mut self, isa: I, chunks: usize) {
        let plan = self.plan;
        let [height, width, filters] = plan.shape.output();
        let mut walk = Walk::new();
        let mut pairs = Aligned::<TILE_LEN>::new();
        for chunk in 0..chunks {
            let mut pixels = [[None; 2]; TILE];
            for pair in &mut pixels {
                for pixel in pair {
                    if let Some([sample, row, column]) = walk.next(plan, self.samples, height, width) {
                        *pixel = Some((sample * height + row) * width + column);
                    }
                }
            }
            for tile in 0..plan.padded_filters / TILE {
                let mask = isa.first(filters - tile * TILE);
                // SAFETY: the caller's promise; the mask ends at the filters.
                unsafe {
                    let from = self.dy.as_ptr().add(tile * TILE);
                    for (row, pixels) in pixels.iter().enumerate() {
                        let mut values = [isa.zero(); 2];
                        for i in 0..2 {
                            if let Some(pixel) = pixels[i] {
                                values[i] = isa.load_masked(mask, from.add(pixel * filters));
                            }
                        }
                        isa.store(pairs.as_mut_ptr().add(row * TILE), isa.pair(values[0], values[1]));
                    }
                    let to = self.gradients.as_mut_ptr().add((tile * chunks + chunk) * TILE_LEN);
                    isa.transpose(pairs.as_mut_ptr(), TILE, to, TILE);
                }
            }
        }
    }

    /// Multiplies `F` tiles of filters with `U` units, each a tap's tile of channels.
    ///
    /// # Safety
    /// Everything is as `run` asserts, and the tiles are configured.
    #[inline(always)]
    unsafe fn multiply<I: Isa, T: Tiles, const F: usize, const U: usize>(
        &mut self,
        isa: I,
        tiles: &mut T,
        part: &Part,
        filter: usize,
        unit: usize,
    ) {
        let plan = self.plan;
        let channel_tiles = plan.padded_channels / TILE;
        let units = plan.taps.len() * channel_tiles;
        // SAFETY: the caller's promise.
        unsafe {
            let a: [_; F] = std::array::from_fn(|f| {
                self.gradients.as_ptr().add(((filter + f) * part.of + part.chunks.start) * TILE_LEN)
            });
            let b: [_; U] = std::array::from_fn(|u| {
                let (tap, tile) = ((unit + u) / channel_tiles, (unit + u) % channel_tiles);
                let (long, pair) = plan.taps[tap];
                let pair = long * part.pairs + pair + part.chunks.start * TILE;
                self.long.as_ptr().add(pair * plan.pitch + tile * TILE)
            });
            let aside = self.sums.as_mut_ptr();
            let place = |index: usize| {
                let (f, u) = if F == 2 { (index / 2, index % 2) } else { (0, index) };
                (u < U).then(|| aside.wrapping_add(((filter + f) * units + unit + u) * TILE_LEN))
            };
            macro_rules! each_sum {
                ($($index:literal),*) => { $(
                    if let Some(from) = place($index) {
                        if part.first { tiles.zero::<$index>() } else { tiles.load::<$index>(from, TILE) }
                    }
                )* };
            }
            each_sum!(0, 1, 2, 3);
            for chunk in 0..part.chunks.len() {
                let (a, b) = (a.map(|a| a.add(chunk * TILE_LEN)), b.map(|b| b.add(chunk * TILE * plan.pitch)));
                tiles.load::<4>(a[0], TILE);
                tiles.load::<6>(b[0], plan.pitch);
                tiles.multiply_add::<0, 4, 6>();
                if U > 1 {
                    tiles.load::<7>(b[1], plan.pitch);
                    tiles.multiply_add::<1, 4, 7>();
                }
                if F > 1 {
                    tiles.load::<5>(a[1], TILE);
                    tiles.multiply_add::<2, 5, 6>();
                    if U > 1 {
                        tiles.multiply_add::<3, 5, 7>();
                    }
                }
                if U > 2 {
                    tiles.load::<6>(b[2], plan.pitch);
                    tiles.multiply_add::<2, 4, 6>();
                    tiles.load::<7>(b[3], plan.pitch);
                    tiles.multiply_add::<3, 4, 7>();
                }
            }
            let mut results = Aligned::<{ 4 * TILE_LEN }>::new();
            macro_rules! each_result {
                ($($index:literal),*) => { $(
                    if let Some(aside) = place($index) {
                        tiles.store::<$index>(if part.last { results.as_mut_ptr().add($index * TILE_LEN) } else { aside });
                    }
                )* };
            }
            each_result!(0, 1, 2, 3);
            if part.last {
                for index in (0..4).filter(|&index| place(index).is_some()) {
                    let (f, u) = if F == 2 { (index / 2, index % 2) } else { (0, index) };
                    let results = results.as_mut_ptr().add(index * TILE_LEN);
                    self.add_transposed(isa, results, filter + f, unit + u);
                }
            }
        }
    }

    /// Adds a tile of sums, whose rows are filters, to the gradient of the weights.
    ///
    /// # Safety
    /// Everything is as `run` asserts.
    #[inline(always)]
    unsafe fn add_transposed<I: Isa>(&mut self, isa: I, results: *const f32, filter: usize, unit: usize) {
        let plan = self.plan;
        let (channels, filters) = (plan.shape.input[2], plan.shape.filters);
        let channel_tiles = plan.padded_channels / TILE;
        let (tap, channel) = (unit / channel_tiles, unit % channel_tiles * TILE);
        let mask = isa.first(filters - filter * TILE);
        let mut turned = Aligned::<TILE_LEN>::new();
        // SAFETY: the caller's promise; the mask ends at the filters.
        unsafe {
            isa.transpose(results, TILE, turned.as_mut_ptr(), TILE);
            for row in 0..TILE.min(channels - channel) {
                let to = self.dw.as_mut_ptr().add((tap * channels + channel + row) * filters + filter * TILE);
                let mut sum = isa.load(turned.as_mut_ptr().add(row * TILE));
                if self.accumulate {
                    sum = isa.add(isa.load_masked(mask, to), sum);
                }
                isa.store_masked(mask, to, sum);
            }
        }
    }
}
