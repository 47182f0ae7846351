//! The weight gradient behind a max-pool, by filter: only the maxima have a gradient, at most one pixel of each window.
//!
//! For each filter, the pixels with a gradient are gathered in a list, so that no branch depends on a value; the
//! filter's own gradient, which is a few contiguous runs of the input per pixel, then stays in registers for the whole list.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::PooledShape;
use super::geometry::{Source, window_offset};
use crate::Level;
use crate::isa::{Isa, Kernel};
use bytemuck::{Pod, Zeroable};

/// The plan: offsets and sizes.
#[derive(Clone, Debug)]
pub(super) struct SparseWeights {
    shape: PooledShape,
    level: Level,
    source: Source,
    /// Where the convolution's windows start, all of one pooling window's, then the next one's.
    windows: Vec<u32>,
    /// Pooled pixels whose lists are made together.
    chunk: usize,
    /// Values in one row of the kernel, contiguous in the input, and the same in whole vectors.
    run: usize,
    padded_run: usize,
    /// From one row of the kernel to the next in the input.
    row_step: usize,
}

/// A pixel with a gradient.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    /// Where its window starts in the input.
    offset: u32,
    gradient: f32,
}

/// Pooled pixels in a chunk: enough to be worth loading a filter's sums for, few enough that their input stays in
/// the first-level cache, and whole samples where these are small.
fn chunk_of(pixels: usize) -> usize {
    const MOST: usize = 48;
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
        Some(SparseWeights {
            shape,
            level,
            windows: pooled_windows(&shape, &source),
            chunk: chunk_of(height * width),
            run,
            padded_run: run.next_multiple_of(super::pack::TileSize::of(level).lanes),
            row_step: conv.dilation[0] * source.pitch(),
            source,
        })
    }

    fn filter_len(&self) -> usize {
        self.shape.conv.kernel[0] * self.padded_run
    }

    /// Lengths of the parts of the scratch: sums, lists, their lengths, offsets.
    fn parts(&self) -> [usize; 4] {
        let filters = self.shape.conv.filters;
        [filters * self.filter_len(), 2 * filters * self.chunk, filters, self.chunk * self.shape.window()]
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
        let [sums, lists, lengths, offsets] = self.parts();
        let (sums, scratch) = scratch.split_at_mut(sums);
        let (lists, scratch) = scratch.split_at_mut(lists);
        let (lengths, scratch) = scratch.split_at_mut(lengths);
        let (offsets, scratch) = scratch.split_at_mut(offsets);
        let x = self.source.prepare(samples, x, scratch);
        self.level.dispatch(Sweep {
            plan: self,
            samples,
            x,
            dy,
            argmax,
            sums,
            lists: bytemuck::cast_slice_mut(lists),
            lengths: bytemuck::cast_slice_mut(lengths),
            offsets: bytemuck::cast_slice_mut(offsets),
        });
        self.transpose(sums, dw, accumulate);
    }

    /// Turns `[filter][kernel row][run]` into `[kernel row][run][filter]`.
    fn transpose(&self, sums: &[f32], dw: &mut [f32], accumulate: bool) {
        let filters = self.shape.conv.filters;
        let filter_len = self.filter_len();
        for (row, rows) in dw.chunks_exact_mut(self.run * filters).enumerate() {
            for (value, to) in rows.chunks_exact_mut(filters).enumerate() {
                let from = &sums[row * self.padded_run + value..];
                for (filter, to) in to.iter_mut().enumerate() {
                    let sum = from[filter * filter_len];
                    *to = if accumulate { *to + sum } else { sum };
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
    lists: &'a mut [Entry],
    lengths: &'a mut [u32],
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
            self.list(first, plan.chunk.min(total - first));
            let mut row = 0;
            while row < kernel_rows {
                let rows = if kernel_rows - row >= 3 { 3 } else { 1 };
                // As many sums as a tile has, in parts of about equal size.
                let most = (I::TILE_ROWS * I::TILE_VECTORS / rows).min(8);
                let part = vectors.div_ceil(vectors.div_ceil(most));
                for vector in (0..vectors).step_by(part) {
                    let block = Block { row, vector, fresh: first == 0 };
                    // SAFETY: the assertion above bounds what every window reads.
                    unsafe { self.any_block(isa, rows, part.min(vectors - vector), &block) };
                }
                row += rows;
            }
        }
    }
}

/// The part of every filter whose sums one pass computes: its first kernel row and vector, and whether they start at zero.
struct Block {
    row: usize,
    vector: usize,
    fresh: bool,
}

impl Sweep<'_> {
    /// Lists, for each filter, the pixels from `first` that have a gradient.
    #[inline(always)]
    fn list(&mut self, first: usize, count: usize) {
        let plan = self.plan;
        let (filters, window) = (plan.shape.conv.filters, plan.shape.window());
        let pixels = plan.windows.len() / window;
        for (i, offsets) in self.offsets.chunks_exact_mut(window).take(count).enumerate() {
            let (sample, pixel) = ((first + i) / pixels, (first + i) % pixels);
            let start = (sample * plan.source.sample()) as u32;
            for (offset, &at) in offsets.iter_mut().zip(&plan.windows[pixel * window..][..window]) {
                *offset = start + at;
            }
        }
        let range = first * filters..(first + count) * filters;
        let (dy, argmax) = (&self.dy[range.clone()], &self.argmax[range]);
        for (filter, (list, length)) in self.lists.chunks_exact_mut(plan.chunk).zip(self.lengths.iter_mut()).enumerate()
        {
            let mut n = 0;
            let pixels = dy[filter..].iter().step_by(filters).zip(argmax[filter..].iter().step_by(filters));
            for ((&gradient, &position), offsets) in pixels.zip(self.offsets.chunks_exact(window)) {
                let position = usize::from(position);
                list[n] = Entry { offset: offsets[position.min(window - 1)], gradient };
                n += usize::from((gradient != 0.0) & (position < window));
            }
            *length = n as u32;
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
    /// Every window that a list names is readable for the kernel's rows.
    #[inline(always)]
    unsafe fn block<I: Isa, const ROWS: usize, const VECTORS: usize>(&mut self, isa: I, block: &Block) {
        let plan = self.plan;
        let column = block.vector * I::LANES;
        // Of the last vector, only what belongs to the run is read.
        let used = (plan.run - column).min(VECTORS * I::LANES) - (VECTORS - 1) * I::LANES;
        let mask = isa.first(used);
        let filter_len = plan.filter_len();
        let start = block.row * plan.row_step + column;
        let lists = self.lists.chunks_exact(plan.chunk).zip(self.lengths.iter());
        for ((list, &length), sums) in lists.zip(self.sums.chunks_exact_mut(filter_len)) {
            let at = sums[block.row * plan.padded_run + column..].as_mut_ptr();
            let mut block_sums = [[isa.zero(); VECTORS]; ROWS];
            // SAFETY: sums have whole vectors for every row; reads of the input are bounded by the caller's promise and the mask.
            unsafe {
                if !block.fresh {
                    for r in 0..ROWS {
                        for v in 0..VECTORS {
                            block_sums[r][v] = isa.load(at.add(r * plan.padded_run + v * I::LANES));
                        }
                    }
                }
                let x = self.x.as_ptr().add(start);
                if used == I::LANES {
                    for entry in &list[..length as usize] {
                        let gradient = isa.splat(entry.gradient);
                        let x = x.add(entry.offset as usize);
                        for r in 0..ROWS {
                            for v in 0..VECTORS {
                                let values = isa.load(x.add(r * plan.row_step + v * I::LANES));
                                block_sums[r][v] = isa.mul_add(gradient, values, block_sums[r][v]);
                            }
                        }
                    }
                } else {
                    for entry in &list[..length as usize] {
                        let gradient = isa.splat(entry.gradient);
                        let x = x.add(entry.offset as usize);
                        for r in 0..ROWS {
                            for v in 0..VECTORS {
                                let from = x.add(r * plan.row_step + v * I::LANES);
                                let values = if v + 1 < VECTORS { isa.load(from) } else { isa.load_masked(mask, from) };
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
