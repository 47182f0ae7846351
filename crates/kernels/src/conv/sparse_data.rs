//! The data gradient behind a max-pool: every pooled value adds its filter's weights, times its gradient, to one window.
//!
//! The filters of a pooled pixel are grouped by where their maximum was, as bit masks, so that the sums of a
//! window stay in registers while all filters that touch it are added, and no branch depends on a single value.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::PooledShape;
use super::geometry::{LINE, Source, forward_taps};
use super::sparse_weights::pooled_windows;
use crate::isa::{Isa, Kernel};
use crate::packing::{Cut, WeightRows};
use crate::pool::Disjoint;
use crate::{Level, Pool};

/// Filters in one mask. Their weights for one vector of channels and nine taps fill half of a first-level cache.
const BLOCK: usize = 32;

/// Taps whose sums are held at once.
const TAPS: usize = 9;

/// The plan: offsets and sizes.
#[derive(Clone, Debug)]
pub(super) struct SparseData {
    shape: PooledShape,
    level: Level,
    lanes: usize,
    source: Source,
    /// Where the convolution's windows start, all of one pooling window's, then the next one's.
    windows: Vec<u32>,
    /// Where each tap lies from there.
    taps: Vec<usize>,
    /// Whether one pooling window's sums, a patch of four by four pixels, are held at once.
    patches: bool,
}

impl SparseData {
    /// The plan, if the shape is one that this way suits.
    pub(super) fn new(shape: PooledShape, level: Level) -> Option<Self> {
        let conv = &shape.conv;
        let [height, width, _] = shape.output();
        if conv.groups > 1 || !(2..=16).contains(&shape.window()) || height * width == 0 {
            return None;
        }
        let source = Source::of_input(conv);
        let size = super::pack::TileSize::of(level);
        let registers = size.rows * size.columns / size.lanes >= 24;
        let small = shape.pool == [2, 2] && conv.kernel == [3, 3] && conv.strides == [1, 1] && conv.dilation == [1, 1];
        Some(SparseData {
            shape,
            level,
            lanes: size.lanes,
            windows: pooled_windows(&shape, &source),
            taps: forward_taps(conv, &source).iter().map(|tap| tap.offset).collect(),
            patches: registers && small,
            source,
        })
    }

    /// Values of one vector of channels: `[filter][tap][lane]`.
    fn vector_len(&self) -> usize {
        self.shape.conv.filters * self.taps.len() * self.lanes
    }

    pub(super) fn packed_len(&self) -> usize {
        self.shape.conv.input[2].div_ceil(self.lanes) * self.vector_len()
    }

    /// Packs HWIO weights as `[vector of channels][filter][tap][lane]`, missing channels zero.
    pub(super) fn pack(&self, pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        let [_, _, channels] = self.shape.conv.input;
        let filters = self.shape.conv.filters;
        let (taps, lanes) = (self.taps.len(), self.lanes);
        assert_eq!(packed.len(), self.packed_len(), "packed length");
        let blocks = filters.div_ceil(BLOCK);
        let packed = Disjoint(packed.as_mut_ptr());
        pool.run(channels.div_ceil(lanes) * blocks, &|_, task| {
            let (vector, first) = (task / blocks, task % blocks * BLOCK);
            let count = BLOCK.min(filters - first);
            let start = vector * self.vector_len() + first * taps * lanes;
            // SAFETY: blocks of filters are disjoint ranges of `packed`, whose length was checked, and each is one task's.
            let block = unsafe { packed.range(start, start + count * taps * lanes) };
            let used = lanes.min(channels - vector * lanes);
            let tap = |tap: usize| &weights[(tap * channels + vector * lanes) * filters..];
            self.level.dispatch(Pack { plan: self, tap, used, first, block });
        });
    }

    /// Where the weights can be cut.
    pub(super) fn cut(&self) -> Cut {
        self.shape.conv.cut(self.lanes)
    }

    /// Packs these channels alone.
    ///
    /// # Safety
    /// As for [`Packing::pack_rows`](crate::Packing::pack_rows).
    pub(super) unsafe fn pack_rows(&self, weights: &WeightRows) {
        let range = weights.range();
        for channel in range.clone().step_by(self.lanes) {
            let (start, used) = (channel / self.lanes * self.vector_len(), self.lanes.min(range.end - channel));
            // SAFETY: the place of this vector of channels in the form, which the caller says is theirs alone.
            let block = unsafe { weights.packed().range(start, start + self.vector_len()) };
            let tap = |tap| &weights.tap(tap)[(channel - range.start) * self.shape.conv.filters..];
            self.level.dispatch(Pack { plan: self, tap, used, first: 0, block });
        }
    }

    fn masks_len(&self) -> usize {
        (self.windows.len() * self.shape.conv.filters.div_ceil(BLOCK)).next_multiple_of(LINE)
    }

    pub(super) fn scratch_len(&self) -> usize {
        self.masks_len() + self.source.scratch_len(1)
    }

    pub(super) fn run(
        &self,
        samples: usize,
        dy: &[f32],
        argmax: &[u8],
        packed: &[f32],
        dx: &mut [f32],
        scratch: &mut [f32],
    ) {
        assert_eq!(packed.len(), self.packed_len(), "packed weights of {:?}", self.shape);
        let (masks, scratch) = scratch.split_at_mut(self.masks_len());
        let masks: &mut [u32] = bytemuck::cast_slice_mut(masks);
        let padded_len = self.source.scratch_len(1);
        let per_sample = self.shape.output_len();
        for sample in 0..samples {
            let dx = &mut dx[sample * self.shape.conv.input_len()..][..self.shape.conv.input_len()];
            let dy = &dy[sample * per_sample..][..per_sample];
            let argmax = &argmax[sample * per_sample..][..per_sample];
            let image: &mut [f32] = if padded_len == 0 { &mut *dx } else { &mut scratch[..padded_len] };
            image.fill(0.0);
            self.level.dispatch(Scatter { plan: self, dy, argmax, packed, masks: &mut *masks, image });
            if padded_len > 0 {
                self.source.restore(&scratch[..padded_len], dx);
            }
        }
    }
}

/// The weights of one vector of channels for the filters from `first` on.
struct Pack<'a, F> {
    plan: &'a SparseData,
    /// A tap's weights from the first of these channels on.
    tap: F,
    /// Channels that exist.
    used: usize,
    first: usize,
    block: &'a mut [f32],
}

impl<'a, F: Fn(usize) -> &'a [f32]> Kernel for Pack<'a, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let filters = self.plan.shape.conv.filters;
        let taps = self.plan.taps.len();
        let pitch = taps * I::LANES;
        let count = self.block.len() / pitch;
        let used = self.used;
        // Whole blocks go through registers.
        let whole = if used == I::LANES { count - count % I::LANES } else { 0 };
        for tap in 0..taps {
            let from = &(self.tap)(tap)[self.first..];
            for filter in (0..whole).step_by(I::LANES) {
                let from = &from[filter..][..(I::LANES - 1) * filters + I::LANES];
                let to = &mut self.block[filter * pitch + tap * I::LANES..][..(I::LANES - 1) * pitch + I::LANES];
                // SAFETY: both slices hold `LANES` rows of `LANES` values at their pitch.
                unsafe { isa.transpose(from.as_ptr(), filters, to.as_mut_ptr(), pitch) };
            }
            for filter in whole..count {
                let to = &mut self.block[filter * pitch + tap * I::LANES..][..I::LANES];
                for (lane, to) in to.iter_mut().enumerate() {
                    *to = if lane < used { from[lane * filters + filter] } else { 0.0 };
                }
            }
        }
    }
}

/// The gradient of one sample.
struct Scatter<'a> {
    plan: &'a SparseData,
    dy: &'a [f32],
    argmax: &'a [u8],
    packed: &'a [f32],
    /// The filters whose maximum was there: `[pooled pixel][block of filters][position]`.
    masks: &'a mut [u32],
    image: &'a mut [f32],
}

impl Kernel for Scatter<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let plan = self.plan;
        let [_, _, channels] = plan.shape.conv.input;
        let farthest = plan.windows.iter().max().map_or(0, |&w| w as usize) + plan.taps.iter().max().map_or(0, |&t| t);
        assert!(farthest + channels <= self.image.len(), "windows inside the image");
        self.find(isa);
        let blocks = plan.shape.conv.filters.div_ceil(BLOCK);
        for channel in (0..channels).step_by(I::LANES) {
            let used = I::LANES.min(channels - channel);
            for block in 0..blocks {
                let block = Place { channel, used, block };
                // SAFETY: the assertion above bounds what every window touches.
                unsafe {
                    if plan.patches {
                        self.patches(isa, &block);
                    } else {
                        for tap in (0..plan.taps.len()).step_by(TAPS) {
                            self.any_taps(isa, &block, tap, TAPS.min(plan.taps.len() - tap));
                        }
                    }
                }
            }
        }
    }
}

/// Which channels and filters one pass adds.
struct Place {
    /// The first channel, and how many.
    channel: usize,
    used: usize,
    block: usize,
}

impl Scatter<'_> {
    /// Finds which filters have a gradient at which position of every window.
    #[inline(always)]
    fn find<I: Isa>(&mut self, isa: I) {
        let (filters, window) = (self.plan.shape.conv.filters, self.plan.shape.window());
        let pixels = self.dy.chunks_exact(filters).zip(self.argmax.chunks_exact(filters));
        let masks = self.masks.chunks_exact_mut(filters.div_ceil(BLOCK) * window);
        for ((dy, argmax), masks) in pixels.zip(masks) {
            let blocks = dy.chunks(BLOCK).zip(argmax.chunks(BLOCK));
            for ((dy, argmax), masks) in blocks.zip(masks.chunks_exact_mut(window)) {
                masks.fill(0);
                for (i, (dy, argmax)) in dy.chunks(I::LANES).zip(argmax.chunks(I::LANES)).enumerate() {
                    // SAFETY: both chunks have `dy.len()` values.
                    let (gradients, positions) = unsafe {
                        (isa.load_masked(isa.first(dy.len()), dy.as_ptr()), isa.load_bytes(argmax.as_ptr(), dy.len()))
                    };
                    let zero = isa.bits(isa.equal(gradients, isa.zero()));
                    for (position, mask) in masks.iter_mut().enumerate() {
                        let here = isa.bits(isa.equal(positions, isa.splat(position as f32)));
                        *mask |= (here & !zero) << (i * I::LANES);
                    }
                }
            }
        }
    }

    /// Pooling windows of 2x2 behind a 3x3 kernel: sixteen pixels in registers, each position adding to nine of them.
    ///
    /// # Safety
    /// Every window lies inside the image.
    #[inline(always)]
    unsafe fn patches<I: Isa>(&mut self, isa: I, place: &Place) {
        let plan = self.plan;
        let [_, width, channels] = [0, plan.source.pitch() / plan.source.channels, plan.source.channels];
        let filters = plan.shape.conv.filters;
        let blocks = filters.div_ceil(BLOCK);
        let mask = isa.first(place.used);
        let whole = place.used == I::LANES;
        let first = place.block * BLOCK;
        let start = place.channel / I::LANES * plan.vector_len() + first * TAPS * I::LANES;
        let weights = self.packed[start..].as_ptr();
        for (pixel, corners) in plan.windows.chunks_exact(4).enumerate() {
            let masks = &self.masks[(pixel * blocks + place.block) * 4..][..4];
            // SAFETY: the caller's promise for the image; masks hold only filters that exist, whose gradients and weights
            // follow the block's first.
            unsafe {
                let gradients = self.dy.as_ptr().add(pixel * filters + first);
                let image = self.image.as_mut_ptr().add(corners[0] as usize + place.channel);
                let mut sums = [[isa.zero(); 4]; 4];
                for row in 0..4 {
                    for column in 0..4 {
                        let from = image.add((row * width + column) * channels);
                        sums[row][column] = if whole { isa.load(from) } else { isa.load_masked(mask, from) };
                    }
                }
                sums = add::<I, 0, 0>(isa, masks[0], gradients, weights, sums);
                sums = add::<I, 0, 1>(isa, masks[1], gradients, weights, sums);
                sums = add::<I, 1, 0>(isa, masks[2], gradients, weights, sums);
                sums = add::<I, 1, 1>(isa, masks[3], gradients, weights, sums);
                for row in 0..4 {
                    for column in 0..4 {
                        let to = image.add((row * width + column) * channels);
                        if whole {
                            isa.store(to, sums[row][column]);
                        } else {
                            isa.store_masked(mask, to, sums[row][column]);
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// See [`taps`](Self::taps).
    #[inline(always)]
    unsafe fn any_taps<I: Isa>(&mut self, isa: I, place: &Place, tap: usize, count: usize) {
        macro_rules! dispatch {
            ($($count:literal)*) => {
                match count {
                    // SAFETY: the caller's promise.
                    $($count => unsafe { self.taps::<I, $count>(isa, place, tap) },)*
                    _ => unreachable!("{count} taps at once"),
                }
            };
        }
        dispatch! { 1 2 3 4 5 6 7 8 9 }
    }

    /// Any pool and kernel: some taps of one convolution window at a time.
    ///
    /// # Safety
    /// Every window lies inside the image.
    #[inline(always)]
    unsafe fn taps<I: Isa, const COUNT: usize>(&mut self, isa: I, place: &Place, tap: usize) {
        let plan = self.plan;
        let filters = plan.shape.conv.filters;
        let (blocks, window, stride) = (filters.div_ceil(BLOCK), plan.shape.window(), plan.taps.len() * I::LANES);
        let lanes = isa.first(place.used);
        let first = place.block * BLOCK;
        let start = place.channel / I::LANES * plan.vector_len() + first * stride + tap * I::LANES;
        let weights = self.packed[start..].as_ptr();
        let taps: [usize; COUNT] = std::array::from_fn(|i| plan.taps[tap + i]);
        for (pixel, corners) in plan.windows.chunks_exact(window).enumerate() {
            let masks = &self.masks[(pixel * blocks + place.block) * window..][..window];
            for (&corner, &mask) in corners.iter().zip(masks) {
                if mask == 0 {
                    continue;
                }
                // SAFETY: the caller's promise for the image; masks hold only filters that exist, whose gradients and
                // weights follow the block's first.
                unsafe {
                    let gradients = self.dy.as_ptr().add(pixel * filters + first);
                    let image = self.image.as_mut_ptr().add(corner as usize + place.channel);
                    let mut sums = [isa.zero(); COUNT];
                    for i in 0..COUNT {
                        sums[i] = isa.load_masked(lanes, image.add(taps[i]));
                    }
                    let mut left = mask;
                    while left != 0 {
                        let filter = left.trailing_zeros() as usize;
                        left &= left - 1;
                        let gradient = isa.splat(*gradients.add(filter));
                        let weights = weights.add(filter * stride);
                        for i in 0..COUNT {
                            sums[i] = isa.mul_add(gradient, isa.load(weights.add(i * I::LANES)), sums[i]);
                        }
                    }
                    for i in 0..COUNT {
                        let to = image.add(taps[i]);
                        if place.used == I::LANES {
                            isa.store(to, sums[i]);
                        } else {
                            isa.store_masked(lanes, to, sums[i]);
                        }
                    }
                }
            }
        }
    }
}

/// Adds the filters of the mask to the 3x3 pixels from `(ROW, COLUMN)` of the patch.
///
/// # Safety
/// For every filter of the mask, its gradient is readable from `gradients` and its nine vectors from `weights`.
#[inline(always)]
unsafe fn add<I: Isa, const ROW: usize, const COLUMN: usize>(
    isa: I,
    mask: u32,
    gradients: *const f32,
    weights: *const f32,
    mut sums: [[I::F32; 4]; 4],
) -> [[I::F32; 4]; 4] {
    let mut left = mask;
    while left != 0 {
        let filter = left.trailing_zeros() as usize;
        left &= left - 1;
        // SAFETY: the caller's promise.
        unsafe {
            let gradient = isa.splat(*gradients.add(filter));
            let weights = weights.add(filter * TAPS * I::LANES);
            for row in 0..3 {
                for column in 0..3 {
                    let weights = isa.load(weights.add((row * 3 + column) * I::LANES));
                    let sum = &mut sums[ROW + row][COLUMN + column];
                    *sum = isa.mul_add(gradient, weights, *sum);
                }
            }
        }
    }
    sums
}
