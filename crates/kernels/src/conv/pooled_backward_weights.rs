//! The gradient of a pooled convolution with respect to its weights and bias.

use super::{BackwardWeights, CLOSED, PooledShape};
use crate::Level;

/// `dw` and `db` from `x`, `dy` and the positions of the maxima.
#[derive(Clone, Debug)]
pub struct PooledBackwardWeights {
    shape: PooledShape,
    dense: BackwardWeights,
}

impl PooledBackwardWeights {
    /// Lays out the gradient of a pooled convolution of that shape.
    pub fn new(shape: PooledShape, level: Level) -> Self {
        shape.check();
        PooledBackwardWeights { shape, dense: BackwardWeights::new(shape.conv, level) }
    }

    /// Values that [`run`](Self::run) needs besides; what they hold does not matter.
    pub fn scratch_len(&self, samples: usize) -> usize {
        samples * self.shape.conv.output_len() + self.dense.scratch_len(samples)
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
        if !accumulate {
            db.fill(0.0);
        }
        let filters = shape.conv.filters.max(1);
        for (dy, argmax) in dy.chunks_exact(filters).zip(argmax.chunks_exact(filters)) {
            for ((db, &g), &position) in db.iter_mut().zip(dy).zip(argmax) {
                *db += if position == CLOSED { 0.0 } else { g };
            }
        }
        let (full, scratch) = scratch.split_at_mut(samples * shape.conv.output_len());
        expand(shape, dy, argmax, full);
        self.dense.run(samples, x, full, dw, accumulate, scratch);
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
