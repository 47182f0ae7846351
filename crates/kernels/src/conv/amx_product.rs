//! The matrix product of bf16 pairs by tile instructions (AMX): what `tile` computes in vectors, for convolutions of one group.
//!
//! The windows of 32 output pixels are copied as the rows of tiles; each pair of tiles meets all panels of weights, which lie as the
//! instruction wants them. Where the rows are the pixels of pooling windows, only their maxima are stored. Sixteen times as many
//! products as in single-precision vectors come out of it, so that nothing is filtered: fewer multiplications would not pay for
//! their transforms.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::geometry::Segment;
use super::pack::TileSize;
use super::pooled_tile::activated;
use super::{Epilogue, Sums};
use crate::isa::{Amx, Isa, TILE, TileKernel, Tiles};
use crate::values::{store, store_first};
use std::mem::MaybeUninit;

/// Rows that meet the weights together, and the sums of one tile.
const ROWS: usize = 2 * TILE;
pub(super) const TILE_LEN: usize = TILE * TILE;

/// The deepest reduction in slots: 3x3 of 512 channels, or 1x1 of 4,608.
const MOST_DEPTH: usize = 2304;

/// Fewer slots of a tile than these are not worth it.
const LEAST_SLOTS: usize = 8;

/// The slots that tiles have for a reduction over these segments, if tiles are worth it.
pub(super) fn slots(segments: &[Segment]) -> Option<usize> {
    let divides = |slots: &usize| segments.iter().all(|segment| segment.len.is_multiple_of(*slots));
    let depth: usize = segments.iter().map(|segment| segment.len).sum();
    (LEAST_SLOTS..=TILE).rev().find(divides).filter(|slots| depth / slots * TILE <= MOST_DEPTH)
}

/// What becomes of the rows' sums.
pub(super) enum AmxOutput<'a> {
    /// Each is stored, that of a row of one sample where `places` says, `stride` values further for each sample.
    Plain { places: &'a [u32], stride: usize, epilogue: Epilogue, sums: Sums<'a> },
    /// The rows are the pixels of pooling windows, all of one window's, then the next one's. The maximum of each is stored, and
    /// which pixel it is of.
    Pooled { window: usize, relu: bool, maxima: &'a mut [f32], positions: &'a mut [u8] },
}

/// The most pixels of a pooling window.
pub(super) const MOST_WINDOW: usize = TILE;

/// One product of windows and packed weights.
pub(super) struct AmxProduct<'a> {
    /// Where the rows of one sample start in `a`, for how many samples, and from one sample to the next.
    pub(super) rows: &'a [u32],
    pub(super) samples: usize,
    pub(super) stride: usize,
    pub(super) segments: &'a [Segment],
    /// What [`slots`] says of them.
    pub(super) slots: usize,
    pub(super) a: &'a [f32],
    /// Panels of `depth` rows, the first half of which are pairs.
    pub(super) b: &'a [f32],
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) output: AmxOutput<'a>,
}

/// Memory that tiles are loaded from and stored to.
#[repr(align(64))]
pub(super) struct Aligned<const LEN: usize>(MaybeUninit<[f32; LEN]>);

impl<const LEN: usize> Aligned<LEN> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Aligned(MaybeUninit::uninit())
    }

    #[inline(always)]
    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

impl AmxProduct<'_> {
    /// Computes it; the one place where it is compiled.
    #[inline(never)]
    pub(super) fn run_on(self, tiles: Amx) {
        tiles.run(self);
    }

    /// Asserts that every read and write below is inside its slice.
    fn check(&self, size: TileSize) {
        assert_eq!(slots(self.segments), Some(self.slots), "slots of these segments");
        let again = self.samples.saturating_sub(1);
        let greatest = |offsets: &[u32]| offsets.iter().copied().max().unwrap_or(0) as usize;
        if let Some(a) = self.segments.iter().filter(|s| s.len > 0).map(|s| s.a + s.len - 1).max() {
            assert!(greatest(self.rows) + again * self.stride + a < self.a.len(), "rows inside a");
        }
        let k = self.segments.iter().map(|s| s.k + s.len).max().unwrap_or(0);
        assert!(k <= self.depth && self.depth * size.padded(self.columns) <= self.b.len(), "rows inside b");
        assert!(self.bias.is_none_or(|bias| bias.len() >= self.columns), "a bias for each column");
        match &self.output {
            AmxOutput::Plain { places, stride, sums, .. } => {
                assert_eq!(self.rows.len(), places.len(), "a place for each row");
                assert!(greatest(places) + again * stride + self.columns <= sums.len(), "rows inside the output");
            }
            AmxOutput::Pooled { window, maxima, positions, .. } => {
                assert!((1..=MOST_WINDOW).contains(window) && self.rows.len().is_multiple_of(*window), "whole windows");
                let values = self.samples * self.rows.len() / window * self.columns;
                assert!(maxima.len() == values && positions.len() == values, "maxima of every window");
            }
        }
    }
}

impl TileKernel for AmxProduct<'_> {
    #[inline(always)]
    fn run<I: Isa, T: Tiles>(mut self, isa: I, tiles: &mut T) {
        let per_sample = self.rows.len();
        let total = per_sample * self.samples;
        if total == 0 || self.columns == 0 {
            return;
        }
        let size = TileSize { lanes: I::LANES, rows: I::TILE_ROWS, columns: I::LANES * I::TILE_VECTORS };
        assert!(I::LANES == TILE && I::TILE_VECTORS == 2, "panels of two tiles");
        self.check(size);
        let mut block = Aligned::<{ ROWS * MOST_DEPTH }>::new();
        let block = block.as_mut_ptr();
        let chunks = self.segments.iter().map(|segment| segment.len).sum::<usize>() / self.slots;
        let most = match &self.output {
            AmxOutput::Plain { .. } => ROWS,
            AmxOutput::Pooled { window, .. } => ROWS / window * window,
        };
        tiles.configure(self.slots);
        let (mut sample, mut row) = (0, 0);
        for first in (0..total).step_by(most) {
            let count = (total - first).min(most);
            let (mut input, mut output) = ([0usize; ROWS], [0usize; ROWS]);
            for r in 0..count {
                input[r] = self.rows[row] as usize + sample * self.stride;
                output[r] = match &self.output {
                    AmxOutput::Plain { places, stride, .. } => places[row] as usize + sample * stride,
                    AmxOutput::Pooled { window, .. } => (first + r) / window * self.columns,
                };
                row += 1;
                if row == per_sample {
                    (sample, row) = (sample + 1, 0);
                }
            }
            // What lies in the rows beyond the last one is computed and not stored.
            let last = input[count - 1];
            input[count..].fill(last);
            // SAFETY: `check` has bounded every offset of the rows, the reduction and the panels; a block has room for all chunks.
            unsafe {
                for half in 0..count.div_ceil(TILE) {
                    self.copy_windows(isa, &input[half * TILE..][..TILE], block.add(half * chunks * TILE_LEN));
                }
                for column in (0..self.columns).step_by(size.columns) {
                    let pitch = size.panel(column, self.columns);
                    match (count > TILE, pitch > TILE) {
                        (true, true) => self.tiles::<I, T, 2, 2>(isa, tiles, block, chunks, column, &output[..count]),
                        (true, false) => self.tiles::<I, T, 2, 1>(isa, tiles, block, chunks, column, &output[..count]),
                        (false, true) => self.tiles::<I, T, 1, 2>(isa, tiles, block, chunks, column, &output[..count]),
                        (false, false) => self.tiles::<I, T, 1, 1>(isa, tiles, block, chunks, column, &output[..count]),
                    }
                }
            }
        }
        tiles.release();
    }
}

impl AmxProduct<'_> {
    /// Copies 16 windows as tiles, one for each chunk of the reduction.
    ///
    /// # Safety
    /// The windows are inside `a`, and `to` has room for a tile for each chunk.
    #[inline(always)]
    unsafe fn copy_windows<I: Isa>(&self, isa: I, input: &[usize], mut to: *mut f32) {
        let a = self.a.as_ptr();
        let mask = isa.first(self.slots);
        for segment in self.segments {
            for at in (0..segment.len).step_by(self.slots) {
                // SAFETY: the caller's promise.
                unsafe {
                    for r in 0..TILE {
                        let from = a.add(input[r] + segment.a + at);
                        let slots = if self.slots == TILE { isa.load(from) } else { isa.load_masked(mask, from) };
                        isa.store(to.add(r * TILE), slots);
                    }
                    to = to.add(TILE_LEN);
                }
            }
        }
    }

    /// Multiplies the tiles of a block with one panel, and stores the sums.
    ///
    /// # Safety
    /// The block has `H` tiles for each of the chunks, the panel `V`, and the outputs are inside `sums`.
    #[inline(always)]
    unsafe fn tiles<I: Isa, T: Tiles, const H: usize, const V: usize>(
        &mut self,
        isa: I,
        tiles: &mut T,
        block: *const f32,
        chunks: usize,
        column: usize,
        output: &[usize],
    ) {
        let pitch = V * TILE;
        let mut results = Aligned::<{ 4 * TILE_LEN }>::new();
        let results = results.as_mut_ptr();
        // SAFETY: the caller's promise; all of the tiles are configured.
        unsafe {
            let panel = self.b.as_ptr().add(column * self.depth);
            tiles.zero::<0>();
            tiles.zero::<1>();
            tiles.zero::<2>();
            tiles.zero::<3>();
            let mut a = block;
            for segment in self.segments {
                let mut b = panel.add(segment.k * pitch);
                for _ in 0..segment.len / self.slots {
                    tiles.load::<4>(a, TILE);
                    tiles.load::<6>(b, pitch);
                    tiles.multiply_add::<0, 4, 6>();
                    if V == 2 {
                        tiles.load::<7>(b.add(TILE), pitch);
                        tiles.multiply_add::<1, 4, 7>();
                    }
                    if H == 2 {
                        tiles.load::<5>(a.add(chunks * TILE_LEN), TILE);
                        tiles.multiply_add::<2, 5, 6>();
                    }
                    if H == 2 && V == 2 {
                        tiles.multiply_add::<3, 5, 7>();
                    }
                    a = a.add(TILE_LEN);
                    b = b.add(self.slots * pitch);
                }
            }
            tiles.store::<0>(results);
            if V == 2 {
                tiles.store::<1>(results.add(TILE_LEN));
            }
            if H == 2 {
                tiles.store::<2>(results.add(2 * TILE_LEN));
            }
            if H == 2 && V == 2 {
                tiles.store::<3>(results.add(3 * TILE_LEN));
            }
            for v in 0..V {
                let column = column + v * TILE;
                let used = self.columns.saturating_sub(column).min(TILE);
                let bias = match self.bias {
                    Some(bias) => isa.load_masked(isa.first(used), bias.as_ptr().add(column)),
                    None => isa.zero(),
                };
                // Row by row; that of the second tile of rows is two tiles further.
                let results = results.add(v * TILE_LEN);
                match &mut self.output {
                    AmxOutput::Plain { epilogue, sums, .. } => {
                        store_sums(isa, results, bias, *epilogue, sums, column, used, output);
                    }
                    AmxOutput::Pooled { window, relu, maxima, positions } => {
                        let (maxima, positions) = (maxima.as_mut_ptr(), positions.as_mut_ptr());
                        for (n, pixels) in output.chunks_exact(*window).enumerate() {
                            let to = pixels[0] + column;
                            let (best, position) = maximum(isa, results, n * *window, *window, bias, *relu);
                            isa.store_masked(isa.first(used), maxima.add(to), best);
                            isa.store_positions(positions.add(to), used, position);
                        }
                    }
                }
            }
        }
    }
}

/// Where the sums of a row are among the results of a vector of columns.
#[inline(always)]
fn place(row: usize) -> usize {
    row / TILE * 2 * TILE_LEN + row % TILE * TILE
}

/// Stores what each row gives.
///
/// # Safety
/// The results are those of as many rows as there are in `output`, whose places have room for the `used` sums from `column` on.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "each differs from tile to tile")]
unsafe fn store_sums<I: Isa>(
    isa: I,
    results: *const f32,
    bias: I::F32,
    epilogue: Epilogue,
    sums: &mut Sums<'_>,
    column: usize,
    used: usize,
    output: &[usize],
) {
    let (half, onto) = (sums.is_bf16(), sums.is_onto());
    let to = sums.as_mut_ptr();
    let (least, most) = epilogue.bounds();
    let (least, most) = (isa.splat(least), isa.splat(most));
    for (row, &at) in output.iter().enumerate() {
        let at = at + column;
        // SAFETY: the caller's promise; the mask ends at what is used.
        unsafe {
            let mut sum = isa.load(results.add(place(row)));
            if onto {
                sum = isa.add(isa.load_masked(isa.first(used), to.add(at)), sum);
            }
            sum = isa.add(sum, bias);
            // The sum is the second operand, so that NaN stays NaN.
            sum = isa.min(most, isa.max(least, sum));
            if used == TILE {
                store::<I, true>(isa, to, half, at, sum);
            } else {
                store_first::<I, true>(isa, to, half, at, used, sum);
            }
        }
    }
}

/// The largest of a window's pixels, which are the rows from `first` on, with the bias added, and its position: the first of equal ones;
/// zero and closed where `relu` stops it.
///
/// # Safety
/// The results are those of that many rows.
#[inline(always)]
unsafe fn maximum<I: Isa>(
    isa: I,
    results: *const f32,
    first: usize,
    window: usize,
    bias: I::F32,
    relu: bool,
) -> (I::F32, I::Position) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut best = isa.load(results.add(place(first)));
        let mut position = isa.position(0);
        for i in 1..window {
            let pixel = isa.load(results.add(place(first + i)));
            let greater = isa.greater(pixel, best);
            best = isa.max(pixel, best);
            position = isa.select_position(greater, isa.position(i as u8), position);
        }
        activated(isa, best, position, bias, relu)
    }
}
