//! The weight gradient behind a max-pool where windows are small, as in a first layer: a lookup replaces the search for the maximum.
//!
//! Lanes are filters, and each filter's maximum is somewhere else in the pooling window. With the window's part of the input
//! copied together, the values that one tap multiplied at every position of the maximum lie within sixteen of each other, so
//! one permutation fetches each filter's own.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::PooledShape;
use super::geometry::{Source, window_offset};
use crate::Level;
use crate::isa::{Isa, Kernel};

/// Values of the window whose sums are held at once.
const VALUES: usize = 9;

/// Pooled pixels whose patches are copied together.
const CHUNK: usize = 64;

/// The plan: offsets and sizes.
#[derive(Clone, Debug)]
pub(super) struct PatchWeights {
    shape: PooledShape,
    level: Level,
    source: Source,
    /// Where the first convolution window of each pooling window starts.
    corners: Vec<u32>,
    /// Rows of a patch, and values in one row.
    rows: usize,
    pitch: usize,
    /// Where each row of the gradient lies in the patch of the first position, in whole groups of `VALUES`.
    values: Vec<usize>,
    /// How far the patch of each position is from the first one's.
    positions: [f32; 16],
}

impl PatchWeights {
    /// The plan, if the shape is one that this way suits.
    pub(super) fn new(shape: PooledShape, level: Level) -> Option<Self> {
        let conv = &shape.conv;
        let ([height, width, _], channels) = (shape.output(), conv.input[2]);
        let [down, across] = shape.pool;
        let extent = conv.extent();
        let rows = (down - 1) * conv.strides[0] + extent[0];
        let pitch = ((across - 1) * conv.strides[1] + extent[1]) * channels;
        let farthest = (down - 1) * conv.strides[0] * pitch + (across - 1) * conv.strides[1] * channels;
        // A closed position picks the last entry of the table of positions, which therefore is none.
        if conv.groups > 1 || !(2..16).contains(&shape.window()) || farthest >= 16 || height * width == 0 {
            return None;
        }
        let source = Source::of_input(conv);
        let mut positions = [0.0; 16];
        for (position, offset) in positions.iter_mut().take(shape.window()).enumerate() {
            let (row, column) = (position / across, position % across);
            *offset = (row * conv.strides[0] * pitch + column * conv.strides[1] * channels) as f32;
        }
        let depth = conv.taps() * channels;
        let value = |k: usize| {
            let (tap, channel) = (k / channels, k % channels);
            let (row, column) = (tap / conv.kernel[1], tap % conv.kernel[1]);
            row * conv.dilation[0] * pitch + column * conv.dilation[1] * channels + channel
        };
        Some(PatchWeights {
            shape,
            level,
            corners: (0..height * width)
                .map(|p| window_offset(conv, &source, p / width * down, p % width * across))
                .collect(),
            rows,
            pitch,
            values: (0..depth.next_multiple_of(VALUES)).map(|k| value(k.min(depth - 1))).collect(),
            positions,
            source,
        })
    }

    /// Values of the patches of a chunk, and of what a lookup may read beyond.
    fn patches_len(&self) -> usize {
        CHUNK * self.rows * self.pitch + 16
    }

    pub(super) fn scratch_len(&self, samples: usize) -> usize {
        self.source.scratch_len(samples) + self.patches_len()
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
        let (patches, scratch) = scratch.split_at_mut(self.patches_len());
        // What lookups read beyond the last patch is multiplied by nothing, but must be readable.
        patches.fill(0.0);
        let x = self.source.prepare(samples, x, scratch);
        self.level.dispatch(Sweep { plan: self, samples, x, dy, argmax, dw, accumulate, patches });
    }
}

struct Sweep<'a> {
    plan: &'a PatchWeights,
    samples: usize,
    x: &'a [f32],
    dy: &'a [f32],
    argmax: &'a [u8],
    dw: &'a mut [f32],
    accumulate: bool,
    patches: &'a mut [f32],
}

impl Kernel for Sweep<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let plan = self.plan;
        let filters = plan.shape.conv.filters;
        let total = self.samples * plan.corners.len();
        assert!(self.dy.len() == total * filters && self.argmax.len() == self.dy.len(), "gradients for every pixel");
        assert_eq!(self.dw.len(), plan.shape.conv.weights_len(), "a gradient for every weight");
        assert_eq!(self.patches.len(), plan.patches_len(), "room for the patches");
        for first in (0..total).step_by(CHUNK) {
            let count = CHUNK.min(total - first);
            self.copy(first, count);
            // Two vectors of filters share what a patch's lookups read, where there are registers for both.
            let most = if I::TILE_ROWS * I::TILE_VECTORS > 2 * VALUES { 2 * I::LANES } else { I::LANES };
            for filter in (0..filters).step_by(most) {
                for group in 0..plan.values.len() / VALUES {
                    if most > I::LANES && filters - filter > I::LANES {
                        self.sum::<I, 2>(isa, first, count, filter, group * VALUES);
                    } else {
                        self.sum::<I, 1>(isa, first, count, filter, group * VALUES);
                    }
                }
            }
        }
    }
}

impl Sweep<'_> {
    /// Copies the patches of the chunk together.
    #[inline(always)]
    fn copy(&mut self, first: usize, count: usize) {
        let plan = self.plan;
        let pixels = plan.corners.len();
        let (mut sample, mut pixel) = (first / pixels, first % pixels);
        for patch in self.patches.chunks_exact_mut(plan.rows * plan.pitch).take(count) {
            let mut from = sample * plan.source.sample() + plan.corners[pixel] as usize;
            for row in patch.chunks_exact_mut(plan.pitch) {
                // Rows are so short that a call to copy them would cost more than the copy.
                let (fours, rest) = row.as_chunks_mut::<4>();
                let source = &self.x[from..from + plan.pitch];
                let (source_fours, source_rest) = source.as_chunks::<4>();
                for (to, &from) in fours.iter_mut().zip(source_fours) {
                    *to = from;
                }
                for (to, &from) in rest.iter_mut().zip(source_rest) {
                    *to = from;
                }
                from += plan.source.pitch();
            }
            pixel += 1;
            if pixel == pixels {
                (sample, pixel) = (sample + 1, 0);
            }
        }
    }

    /// Sums the chunk's gradient of some values of the window, for some vectors of filters.
    #[inline(always)]
    fn sum<I: Isa, const VECTORS: usize>(&mut self, isa: I, first: usize, count: usize, filter: usize, value: usize) {
        let plan = self.plan;
        let filters = plan.shape.conv.filters;
        // Every vector but the last is whole.
        let used = (filters - filter).min(VECTORS * I::LANES) - (VECTORS - 1) * I::LANES;
        let count_of = |v: usize| if v + 1 < VECTORS { I::LANES } else { used };
        let mask = isa.first(used);
        let stored = VALUES.min(plan.shape.conv.taps() * plan.shape.conv.input[2] - value);
        let window = isa.splat(plan.shape.window() as f32);
        let offsets: [usize; VALUES] = std::array::from_fn(|i| plan.values[value + i]);
        let mut sums = [[isa.zero(); VECTORS]; VALUES];
        // SAFETY: `run` has checked the lengths, and no level's two vectors exceed `nowhere`; every pixel has the filters from `filter` on, and so has every row of the
        // gradient; a lookup starts inside a patch, and sixteen more values follow the last one.
        unsafe {
            // Rows beyond the last value are summed, too, so that the sums' indices are constants, but into nowhere.
            let mut nowhere = [0.0f32; 32];
            let dw = self.dw.as_mut_ptr().add(value * filters + filter);
            let rows: [*mut f32; VALUES] =
                std::array::from_fn(|i| if i < stored { dw.add(i * filters) } else { nowhere.as_mut_ptr() });
            if self.accumulate || first > 0 {
                for i in 0..VALUES {
                    for v in 0..VECTORS {
                        let from = rows[i].add(v * I::LANES);
                        sums[i][v] = if v + 1 < VECTORS { isa.load(from) } else { isa.load_masked(mask, from) };
                    }
                }
            }
            for pixel in 0..count {
                let at = (first + pixel) * filters + filter;
                let patch = self.patches.as_ptr().add(pixel * plan.rows * plan.pitch);
                let mut gradients = [isa.zero(); VECTORS];
                let mut indices = [isa.to_index(isa.zero()); VECTORS];
                for v in 0..VECTORS {
                    let from = self.dy.as_ptr().add(at + v * I::LANES);
                    let gradient = if v + 1 < VECTORS { isa.load(from) } else { isa.load_masked(mask, from) };
                    let position = isa.load_bytes(self.argmax.as_ptr().add(at + v * I::LANES), count_of(v));
                    gradients[v] = isa.select(isa.greater(window, position), gradient, isa.zero());
                    indices[v] = isa.to_index(isa.pick(isa.to_index(position), plan.positions.as_ptr()));
                }
                for i in 0..VALUES {
                    for v in 0..VECTORS {
                        let values = isa.pick(indices[v], patch.add(offsets[i]));
                        sums[i][v] = isa.mul_add(values, gradients[v], sums[i][v]);
                    }
                }
            }
            for i in 0..VALUES {
                for v in 0..VECTORS {
                    let to = rows[i].add(v * I::LANES);
                    if v + 1 < VECTORS {
                        isa.store(to, sums[i][v]);
                    } else {
                        isa.store_masked(mask, to, sums[i][v]);
                    }
                }
            }
        }
    }
}
