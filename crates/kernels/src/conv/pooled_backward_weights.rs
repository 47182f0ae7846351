//! The gradient of a pooled convolution with respect to its weights and bias.

use super::patch_weights::PatchWeights;
use super::sparse_weights::SparseWeights;
use super::{BackwardWeights, CLOSED, PooledShape};
use crate::isa::{Isa, Kernel};
use crate::{Level, Precision};

/// `dw` and `db` from `x`, `dy` and the positions of the maxima.
#[derive(Clone, Debug)]
pub struct PooledBackwardWeights {
    shape: PooledShape,
    level: Level,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Patch(PatchWeights),
    Sparse(SparseWeights),
    /// Through the gradient of the whole convolution.
    Dense(Box<BackwardWeights>),
}

impl PooledBackwardWeights {
    /// Lays out the gradient of a pooled convolution of that shape.
    pub fn new(shape: PooledShape, level: Level, precision: Precision) -> Self {
        shape.check();
        let patch = || PatchWeights::new(shape, level).map(Way::Patch);
        let sparse = || SparseWeights::new(shape, level).map(Way::Sparse);
        let way = patch()
            .or_else(sparse)
            .unwrap_or_else(|| Way::Dense(Box::new(BackwardWeights::new(shape.conv, level, precision))));
        PooledBackwardWeights { shape, level, way }
    }

    /// Values that [`run`](Self::run) needs besides; what they hold does not matter.
    pub fn scratch_len(&self, samples: usize) -> usize {
        match &self.way {
            Way::Patch(patch) => patch.scratch_len(samples),
            Way::Sparse(sparse) => sparse.scratch_len(samples),
            Way::Dense(dense) => samples * self.shape.conv.output_len() + dense.scratch_len(samples),
        }
    }

    /// Sums the gradients of `samples` images into `dw` (HWIO) and `db`: over what they hold if `accumulate`, else over zero.
    #[allow(clippy::too_many_arguments, reason = "each is one buffer of the operation")]
    pub fn run(
        &self,
        samples: usize,
        x: &[f32],
        dy: &[f32],
        argmax: &[u8],
        dw: &mut [f32],
        db: &mut [f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) {
        let shape = &self.shape;
        assert_eq!(dy.len(), samples * shape.output_len(), "dy of {shape:?}");
        assert_eq!(argmax.len(), dy.len(), "argmax of {shape:?}");
        assert_eq!(db.len(), shape.conv.filters, "db of {shape:?}");
        assert_eq!(x.len(), samples * shape.conv.input_len(), "x of {shape:?}");
        assert_eq!(dw.len(), shape.conv.weights_len(), "dw of {shape:?}");
        self.level.dispatch(BiasGradient { dy, argmax, db, accumulate });
        match &self.way {
            _ if samples == 0 && accumulate => {}
            _ if samples == 0 => dw.fill(0.0),
            Way::Patch(patch) => patch.run(samples, x, dy, argmax, dw, accumulate, scratch),
            Way::Sparse(sparse) => sparse.run(samples, x, dy, argmax, dw, accumulate, scratch),
            Way::Dense(dense) => {
                let (full, scratch) = scratch.split_at_mut(samples * shape.conv.output_len());
                expand(shape, dy, argmax, full);
                dense.run(samples, x, full, dw, accumulate, scratch);
            }
        }
    }
}

/// The sum of the gradients that reach each filter.
struct BiasGradient<'a> {
    dy: &'a [f32],
    argmax: &'a [u8],
    db: &'a mut [f32],
    accumulate: bool,
}

impl Kernel for BiasGradient<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let filters = self.db.len();
        assert_eq!(self.dy.len(), self.argmax.len(), "a position for each gradient");
        let pixels = self.dy.len() / filters;
        let closed = isa.splat(f32::from(CLOSED));
        for (i, db) in self.db.chunks_mut(I::LANES).enumerate() {
            let (first, count) = (i * I::LANES, db.len());
            let mask = isa.first(count);
            // SAFETY: `db` has `count` values, and so has every pixel from its filter `first` on.
            unsafe {
                let mut sum = if self.accumulate { isa.load_masked(mask, db.as_ptr()) } else { isa.zero() };
                for pixel in 0..pixels {
                    let at = pixel * filters + first;
                    let gradient = isa.load_masked(mask, self.dy.as_ptr().add(at));
                    let position = isa.load_bytes(self.argmax.as_ptr().add(at), count);
                    sum = isa.add(sum, isa.select(isa.equal(position, closed), isa.zero(), gradient));
                }
                isa.store_masked(mask, db.as_mut_ptr(), sum);
            }
        }
    }
}

/// The gradient of every pixel of the convolution: that of its pooled value at the maximum, zero elsewhere.
pub(super) fn expand(shape: &PooledShape, dy: &[f32], argmax: &[u8], full: &mut [f32]) {
    full.fill(0.0);
    let [height, width, filters] = shape.output();
    let [_, full_width, _] = shape.conv.output();
    let [down, across] = shape.pool;
    if filters == 0 || height * width == 0 {
        return;
    }
    let pooled = dy.chunks_exact(filters).zip(argmax.chunks_exact(filters));
    for (window, (dy, argmax)) in pooled.enumerate() {
        let (sample, row, column) =
            (window / (height * width), window % (height * width) / width * down, window % width * across);
        let image = &mut full[sample * shape.conv.output_len()..][..shape.conv.output_len()];
        for (filter, (&g, &position)) in dy.iter().zip(argmax).enumerate() {
            let position = usize::from(position);
            if position < shape.window() {
                let pixel = (row + position / across) * full_width + column + position % across;
                image[pixel * filters + filter] = g;
            }
        }
    }
}
