//! The gradient of a pooled convolution with respect to its input: each pooled value passes its gradient to one window.

use super::pooled_backward_weights::expand;
use super::{BackwardData, PooledShape};
use crate::{Level, Pool};

/// `dx` from `dy`, the positions of the maxima and the weights.
#[derive(Clone, Debug)]
pub struct PooledBackwardData {
    shape: PooledShape,
    dense: BackwardData,
}

impl PooledBackwardData {
    /// Lays out the gradient of a pooled convolution of that shape.
    pub fn new(shape: PooledShape, level: Level) -> Self {
        shape.check();
        PooledBackwardData { shape, dense: BackwardData::new(shape.conv, level) }
    }

    /// Values that [`pack`](Self::pack) writes.
    pub fn packed_len(&self) -> usize {
        self.dense.packed_len()
    }

    /// Brings `weights` (HWIO) into the order that [`run`](Self::run) reads.
    pub fn pack(&self, pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        self.dense.pack(pool, weights, packed);
    }

    /// Values that [`run`](Self::run) needs besides; what they hold does not matter.
    pub fn scratch_len(&self, samples: usize) -> usize {
        samples * self.shape.conv.output_len() + self.dense.scratch_len(samples)
    }

    /// Computes `dx` of `samples` images from the gradient `dy` of the pooled values.
    pub fn run(&self, samples: usize, dy: &[f32], argmax: &[u8], packed: &[f32], dx: &mut [f32], scratch: &mut [f32]) {
        let shape = &self.shape;
        assert_eq!(dy.len(), samples * shape.output_len(), "dy of {shape:?}");
        assert_eq!(argmax.len(), dy.len(), "argmax of {shape:?}");
        let (full, scratch) = scratch.split_at_mut(samples * shape.conv.output_len());
        expand(shape, dy, argmax, full);
        self.dense.run(samples, full, packed, dx, scratch);
    }
}
