//! The weight gradient behind a max-pool, by filter: only the maxima have a gradient, at most one pixel of each window.
//!
//! For each filter, the pixels with a gradient are the bits of a mask, so that no branch depends on a single value; the
//! filter's own gradient, a few contiguous runs of the input for each pixel, stays in registers for the whole mask.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::PooledShape;
use super::geometry::{LINE, Source, window_offset};
use crate::Level;
use crate::isa::{Isa, Kernel};

/// The plan: offsets and sizes.
#[derive(Clone, Debug)]
pub(super) struct SparseWeights {
    shape: PooledShape,
    level: Level,
    lanes: usize,
    source: Source,
    /// Where the convolution's windows start, all of one pooling window's, then the next one's.
    windows: Vec<u32>,
    /// Pooled pixels in one mask.
    chunk: usize,
    /// Values in one row of the kernel, contiguous in the input, and the same in whole vectors.
    run: usize,
    padded_run: usize,
    /// From one row of the kernel to the next in the input.
    row_step: usize,
}

/// The pixels of a chunk with a gradient, bit by bit, the low half first.
type Pixels = [u32; 2];

/// The most pooled pixels in a chunk.
const MOST: usize = 48;

/// Pooled pixels in a chunk: enough to be worth loading a filter's sums for, few enough that their input stays in
/// the first-level cache, and whole samples where these are small.
fn chunk_of(pixels: usize) -> usize {
    if pixels <= MOST { MOST / pixels * pixels } else { pixels.div_ceil(pixels.div_ceil(MOST - 8)) }
}

/// Where the convolution's windows start, all of one pooling window's, then the next one's.
pub(super) fn pooled_windows(shape: &PooledShape, source: &Source) -> Vec<u32> {
    let [height, width, _] = shape.output();
    let [down, across] = shape.pool;
    let mut windows = Vec::with_capacity(height * width * shape.window());
    for window in 0..height * width {
        for pixel in 0..shape.window() {
            let (row, column) = (window / width * down + pixel / across, window % width * across + pixel % across);
            windows.push(window_offset(&shape.conv, source, row, column));
        }
    }
    windows
}

impl SparseWeights {
    /// The plan, if the shape is one that this way suits.
    pub(super) fn new(shape: PooledShape, level: Level) -> Option<Self> {
        let conv = &shape.conv;
        let [height, width, _] = shape.output();
        let contiguous = conv.groups == 1 && (conv.dilation[1] == 1 || conv.kernel[1] == 1);
        if !contiguous || shape.window() == 1 || height * width == 0 {
            return None;
        }
        let source = Source::of_input(conv);
        let run = conv.kernel[1] * conv.input[2];
        let lanes = super::pack::TileSize::of(level).lanes;
        Some(SparseWeights {
            shape,
            level,
            windows: pooled_windows(&shape, &source),
            chunk: chunk_of(height * width),
            run,
            padded_run: run.next_multiple_of(lanes),
            lanes,
            row_step: conv.dilation[0] * source.pitch(),
            source,
        })
    }

    fn filter_len(&self) -> usize {
        self.shape.conv.kernel[0] * self.padded_run
    }

    /// Lengths of the parts of the scratch: sums, masks, offsets.
    fn parts(&self) -> [usize; 3] {
        let filters = self.shape.conv.filters;
        [filters.next_multiple_of(self.lanes) * self.filter_len(), 2 * filters, self.chunk * self.shape.window()]
            .map(|len| len.next_multiple_of(LINE))
    }

    pub(super) fn scratch_len(&self, samples: usize) -> usize {
        self.source.scratch_len(samples) + self.parts().iter().sum::<usize>()
    }

    #[allow(clippy::too_many_arguments, reason = "each is one buffer of the operation")]
    pub(super) fn run(
        &self,
        samples: usize,
        x: &[f32],
        dy: &[f32],
        argmax: &[u8],
        dw: &mut [f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) {
        let [sums, masks, offsets] = self.parts();
        let (sums, scratch) = scratch.split_at_mut(sums);
        let (masks, scratch) = scratch.split_at_mut(masks);
        let (offsets, scratch) = scratch.split_at_mut(offsets);
        let x = self.source.prepare(samples, x, scratch);
        self.level.dispatch(Sweep {
            plan: self,
            samples,
            x,
            dy,
            argmax,
            sums,
            masks: &mut bytemuck::cast_slice_mut(masks)[..self.shape.conv.filters],
            offsets: bytemuck::cast_slice_mut(offsets),
        });
        self.level.dispatch(Transpose { plan: self, sums, dw, accumulate });
    }
}

/// Turns `[filter][kernel row][run]` into `[kernel row][run][filter]`.
struct Transpose<'a> {
    plan: &'a SparseWeights,
    sums: &'a [f32],
    dw: &'a mut [f32],
    accumulate: bool,
}

impl Kernel for Transpose<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let plan = self.plan;
        let filters = plan.shape.conv.filters;
        let filter_len = plan.filter_len();
        assert!(self.sums.len() >= filters.next_multiple_of(I::LANES) * filter_len, "sums in whole vectors");
        // Room for the block of any level.
        let mut block = [0.0f32; 16 * 16];
        for (row, rows) in self.dw.chunks_exact_mut(plan.run * filters).enumerate() {
            for (vector, rows) in rows.chunks_mut(I::LANES * filters).enumerate() {
                for filter in (0..filters).step_by(I::LANES) {
                    let mask = isa.first(filters - filter);
                    let from = filter * filter_len + row * plan.padded_run + vector * I::LANES;
                    // SAFETY: sums hold whole vectors of values for whole vectors of filters; the mask ends at the filters.
                    unsafe {
                        isa.transpose(self.sums.as_ptr().add(from), filter_len, block.as_mut_ptr(), I::LANES);
                        for (i, row) in rows.chunks_exact_mut(filters).enumerate() {
                            let to = row.as_mut_ptr().add(filter);
                            let mut sum = isa.load(block.as_ptr().add(i * I::LANES));
                            if self.accumulate {
                                sum = isa.add(sum, isa.load_masked(mask, to));
                            }
                            isa.store_masked(mask, to, sum);
                        }
                    }
                }
            }
        }
    }
}

struct Sweep<'a> {
    plan: &'a SparseWeights,
    samples: usize,
    x: &'a [f32],
    dy: &'a [f32],
    argmax: &'a [u8],
    sums: &'a mut [f32],
    /// For each filter, the pixels of the chunk that have a gradient.
    masks: &'a mut [Pixels],
    /// Where the windows of the chunk start in `x`.
    offsets: &'a mut [u32],
}

impl Kernel for Sweep<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let plan = self.plan;
        let kernel_rows = plan.shape.conv.kernel[0];
        let pixels = plan.windows.len() / plan.shape.window();
        let total = self.samples * pixels;
        let reach = (kernel_rows - 1) * plan.row_step + plan.run;
        let farthest = plan.windows.iter().max().map_or(0, |&w| w as usize) + (self.samples - 1) * plan.source.sample();
        assert!(farthest + reach <= self.x.len() && self.x.len() <= u32::MAX as usize, "windows inside x");
        let vectors = plan.padded_run / I::LANES;
        for first in (0..total).step_by(plan.chunk) {
            let count = plan.chunk.min(total - first);
            self.locate(first, count);
            self.find(isa, first, count);
            let mut row = 0;
            while row < kernel_rows {
                let rows = if kernel_rows - row >= 3 { 3 } else { 1 };
                // As many sums as a tile has, in parts of about equal size.
                let most = (I::TILE_ROWS * I::TILE_VECTORS / rows).min(8);
                let part = vectors.div_ceil(vectors.div_ceil(most));
                for vector in (0..vectors).step_by(part) {
                    let block = Block { row, vector, first };
                    // SAFETY: the assertion above bounds what every window reads.
                    unsafe { self.any_block(isa, rows, part.min(vectors - vector), &block) };
                }
                row += rows;
            }
        }
    }
}

/// What one pass computes: the part of every filter's sums from that kernel row and vector on, over the chunk of pixels from
/// `first` on.
struct Block {
    row: usize,
    vector: usize,
    first: usize,
}

impl Sweep<'_> {
    /// Writes down where the windows of the chunk start.
    #[inline(always)]
    fn locate(&mut self, first: usize, count: usize) {
        let plan = self.plan;
        let window = plan.shape.window();
        let pixels = plan.windows.len() / window;
        for (i, offsets) in self.offsets.chunks_exact_mut(window).take(count).enumerate() {
            let (sample, pixel) = ((first + i) / pixels, (first + i) % pixels);
            let start = (sample * plan.source.sample()) as u32;
            for (offset, &at) in offsets.iter_mut().zip(&plan.windows[pixel * window..][..window]) {
                *offset = start + at;
            }
        }
    }

    /// Finds, for each filter, the pixels of the chunk that have a gradient.
    #[inline(always)]
    fn find<I: Isa>(&mut self, isa: I, first: usize, count: usize) {
        let filters = self.plan.shape.conv.filters;
        let range = first * filters..(first + count) * filters;
        let (dy, argmax) = (&self.dy[range.clone()], &self.argmax[range]);
        let window = isa.splat(self.plan.shape.window() as f32);
        for (i, masks) in self.masks.chunks_mut(I::LANES).enumerate() {
            let (filter, used) = (i * I::LANES, masks.len());
            let lanes = isa.first(used);
            // Bits are gathered as sums of powers of two, sixteen of which a float holds exactly.
            let mut words = [[0.0f32; 16]; MOST / 16];
            for (word, bits) in words.iter_mut().enumerate() {
                let mut sum = isa.zero();
                for bit in 0..16.min(count.saturating_sub(word * 16)) {
                    let at = (word * 16 + bit) * filters + filter;
                    // SAFETY: each pixel has `used` values from its filter `filter` on.
                    let (gradients, positions) = unsafe {
                        (isa.load_masked(lanes, dy[at..].as_ptr()), isa.load_bytes(argmax[at..].as_ptr(), used))
                    };
                    let open = isa.select(isa.greater(window, positions), isa.splat((1 << bit) as f32), isa.zero());
                    sum = isa.add(sum, isa.select(isa.equal(gradients, isa.zero()), isa.zero(), open));
                }
                // SAFETY: no level has more than sixteen lanes.
                unsafe { isa.store(bits.as_mut_ptr(), sum) };
            }
            for (lane, mask) in masks.iter_mut().enumerate() {
                *mask = [words[0][lane] as u32 | (words[1][lane] as u32) << 16, words[2][lane] as u32];
            }
        }
    }

    /// # Safety
    /// See [`block`](Self::block).
    #[inline(always)]
    unsafe fn any_block<I: Isa>(&mut self, isa: I, rows: usize, vectors: usize, block: &Block) {
        macro_rules! dispatch {
            ($($rows:literal: $($vectors:literal)*;)*) => {
                match (rows, vectors) {
                    $($(($rows, $vectors) if $rows * $vectors <= I::TILE_ROWS * I::TILE_VECTORS =>
                        // SAFETY: the caller's promise.
                        unsafe { self.block::<I, $rows, $vectors>(isa, block) },)*)*
                    _ => unreachable!("{rows} rows of {vectors} vectors are no block"),
                }
            };
        }
        dispatch! {
            1: 1 2 3 4 5 6 7 8;
            3: 1 2 3 4 5 6 7 8;
        }
    }

    /// # Safety
    /// Every window of the chunk is readable for the kernel's rows.
    #[inline(always)]
    unsafe fn block<I: Isa, const ROWS: usize, const VECTORS: usize>(&mut self, isa: I, block: &Block) {
        let plan = self.plan;
        let column = block.vector * I::LANES;
        // Of the last vector, only what belongs to the run is read.
        let used = (plan.run - column).min(VECTORS * I::LANES) - (VECTORS - 1) * I::LANES;
        let last = isa.first(used);
        let filter_len = plan.filter_len();
        let start = block.row * plan.row_step + column;
        let (filters, window) = (plan.shape.conv.filters, plan.shape.window());
        let (dy, argmax) = (self.dy[block.first * filters..].as_ptr(), self.argmax[block.first * filters..].as_ptr());
        let offsets = self.offsets.as_ptr();
        for (filter, (mask, sums)) in self.masks.iter().zip(self.sums.chunks_exact_mut(filter_len)).enumerate() {
            let mut left = u64::from(mask[0]) | u64::from(mask[1]) << 32;
            let at = sums[block.row * plan.padded_run + column..].as_mut_ptr();
            let mut block_sums = [[isa.zero(); VECTORS]; ROWS];
            // SAFETY: sums have whole vectors for every row; the mask names pixels of the chunk whose position is one of the
            // window; reads of the input are bounded by the caller's promise and, in the last vector, by the lanes.
            unsafe {
                if block.first > 0 {
                    for r in 0..ROWS {
                        for v in 0..VECTORS {
                            block_sums[r][v] = isa.load(at.add(r * plan.padded_run + v * I::LANES));
                        }
                    }
                }
                let x = self.x.as_ptr().add(start);
                if used == I::LANES {
                    while left != 0 {
                        let at = left.trailing_zeros() as usize;
                        left &= left - 1;
                        let gradient = isa.splat(*dy.add(at * filters + filter));
                        let position = usize::from(*argmax.add(at * filters + filter));
                        let x = x.add(*offsets.add(at * window + position) as usize);
                        for r in 0..ROWS {
                            for v in 0..VECTORS {
                                let values = isa.load(x.add(r * plan.row_step + v * I::LANES));
                                block_sums[r][v] = isa.mul_add(gradient, values, block_sums[r][v]);
                            }
                        }
                    }
                } else {
                    while left != 0 {
                        let at = left.trailing_zeros() as usize;
                        left &= left - 1;
                        let gradient = isa.splat(*dy.add(at * filters + filter));
                        let position = usize::from(*argmax.add(at * filters + filter));
                        let x = x.add(*offsets.add(at * window + position) as usize);
                        for r in 0..ROWS {
                            for v in 0..VECTORS {
                                let from = x.add(r * plan.row_step + v * I::LANES);
                                let values = if v + 1 < VECTORS { isa.load(from) } else { isa.load_masked(last, from) };
                                block_sums[r][v] = isa.mul_add(gradient, values, block_sums[r][v]);
                            }
                        }
                    }
                }
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        isa.store(at.add(r * plan.padded_run + v * I::LANES), block_sums[r][v]);
                    }
                }
            }
        }
    }
}
