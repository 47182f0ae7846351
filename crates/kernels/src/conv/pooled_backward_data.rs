//! The gradient of a pooled convolution with respect to its input: each pooled value passes its gradient to one window.

use super::pooled_backward_weights::expand;
use super::sparse_data::SparseData;
use super::{BackwardData, PooledShape};
use crate::packing::{Cut, Packing, WeightRows};
use crate::{Level, Pool, Precision};

/// `dx` from `dy`, the positions of the maxima and the weights.
#[derive(Clone, Debug)]
pub struct PooledBackwardData {
    shape: PooledShape,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Sparse(Box<SparseData>),
    /// Through the gradient of the whole convolution.
    Dense(Box<BackwardData>),
}

impl PooledBackwardData {
    /// Lays out the gradient of a pooled convolution of that shape.
    pub fn new(shape: PooledShape, level: Level, precision: Precision) -> Self {
        shape.check();
        let sparse = SparseData::new(shape, level).map(|sparse| Way::Sparse(Box::new(sparse)));
        PooledBackwardData {
            shape,
            way: sparse.unwrap_or_else(|| Way::Dense(Box::new(BackwardData::new(shape.conv, level, precision)))),
        }
    }

    /// Values that [`run`](Self::run) needs besides; what they hold does not matter.
    pub fn scratch_len(&self, samples: usize) -> usize {
        match &self.way {
            Way::Sparse(sparse) => sparse.scratch_len(),
            Way::Dense(dense) => samples * self.shape.conv.output_len() + dense.scratch_len(samples),
        }
    }

    /// Computes `dx` of `samples` images from the gradient `dy` of the pooled values.
    pub fn run(&self, samples: usize, dy: &[f32], argmax: &[u8], packed: &[f32], dx: &mut [f32], scratch: &mut [f32]) {
        let shape = &self.shape;
        assert_eq!(dy.len(), samples * shape.output_len(), "dy of {shape:?}");
        assert_eq!(argmax.len(), dy.len(), "argmax of {shape:?}");
        assert_eq!(dx.len(), samples * shape.conv.input_len(), "dx of {shape:?}");
        match &self.way {
            Way::Sparse(sparse) => sparse.run(samples, dy, argmax, packed, dx, scratch),
            Way::Dense(dense) => {
                let (full, scratch) = scratch.split_at_mut(samples * shape.conv.output_len());
                expand(shape, dy, argmax, full);
                dense.run(samples, full, packed, dx.into(), scratch);
            }
        }
    }
}

impl Packing for PooledBackwardData {
    fn packed_len(&self) -> usize {
        match &self.way {
            Way::Sparse(sparse) => sparse.packed_len(),
            Way::Dense(dense) => dense.packed_len(),
        }
    }

    fn pack(&self, pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        assert_eq!(weights.len(), self.shape.conv.weights_len(), "weights of {:?}", self.shape);
        match &self.way {
            Way::Sparse(sparse) => sparse.pack(pool, weights, packed),
            Way::Dense(dense) => dense.pack(pool, weights, packed),
        }
    }

    fn cut(&self) -> Option<Cut> {
        match &self.way {
            Way::Sparse(sparse) => Some(sparse.cut()),
            Way::Dense(dense) => dense.cut(),
        }
    }

    unsafe fn pack_rows(&self, weights: &WeightRows) {
        // SAFETY: the caller's promise; cut and length are the way's.
        unsafe {
            match &self.way {
                Way::Sparse(sparse) => sparse.pack_rows(weights),
                Way::Dense(dense) => dense.pack_rows(weights),
            }
        }
    }
}
