//! Symbolic tensors: how a model's layers are wired before there is a model.

use crate::layers::NamedLayer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What flows from layer to layer, without numbers: made by [`Input`] and by [`Layer::call`](crate::layers::Layer::call).
#[derive(Clone, Debug)]
pub struct Tensor {
    node: Arc<Node>,
}

#[derive(Debug)]
struct Node {
    /// Ascending in the order of making, so that inputs have smaller numbers than what is made from them.
    number: u64,
    made_by: MadeBy,
}

#[derive(Debug)]
pub(super) enum MadeBy {
    Input(Vec<usize>),
    Layer(NamedLayer, Vec<Tensor>),
}

/// The beginning of a model.
///
/// ```
/// use ocellus::layers::{Activation, Add, Conv2d, Layer, Padding};
/// use ocellus::model::Input;
/// let x = Input::new([32, 32, 16]);
/// let y = Conv2d::new(16, 3).padding(Padding::Same).activation(Activation::Relu).call(&x);
/// let y = Conv2d::new(16, 3).padding(Padding::Same).call(&y);
/// let y = Activation::Relu.call(&Add::new().call([&x, &y]));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Input;

impl Input {
    /// A tensor of samples of this shape, the batch left out: images are (height, width, channels).
    #[allow(clippy::new_ret_no_self, reason = "Keras' Input(shape) gives a tensor, too")]
    pub fn new(shape: impl Into<Vec<usize>>) -> Tensor {
        Tensor::new(MadeBy::Input(shape.into()))
    }
}

impl Tensor {
    fn new(made_by: MadeBy) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Tensor { node: Arc::new(Node { number: NEXT.fetch_add(1, Ordering::Relaxed), made_by }) }
    }

    pub(crate) fn of_layer(layer: NamedLayer, inputs: Vec<Tensor>) -> Self {
        Tensor::new(MadeBy::Layer(layer, inputs))
    }

    pub(super) fn made_by(&self) -> &MadeBy {
        &self.node.made_by
    }

    pub(super) fn number(&self) -> u64 {
        self.node.number
    }

    /// This tensor and everything it is made from, each once, in the order of making.
    pub(super) fn ancestry(&self) -> Vec<Tensor> {
        let mut found = std::collections::BTreeMap::new();
        let mut waiting = vec![self.clone()];
        while let Some(tensor) = waiting.pop() {
            if found.contains_key(&tensor.number()) {
                continue;
            }
            if let MadeBy::Layer(_, inputs) = tensor.made_by() {
                waiting.extend(inputs.iter().cloned());
            }
            found.insert(tensor.number(), tensor);
        }
        found.into_values().collect()
    }
}

impl Drop for Node {
    /// Drops a long chain without recursion.
    fn drop(&mut self) {
        let take = |made_by: &mut MadeBy| match made_by {
            MadeBy::Layer(_, inputs) => std::mem::take(inputs),
            MadeBy::Input(_) => Vec::new(),
        };
        let mut waiting = take(&mut self.made_by);
        while let Some(tensor) = waiting.pop() {
            if let Some(mut node) = Arc::into_inner(tensor.node) {
                waiting.extend(take(&mut node.made_by));
            }
        }
    }
}

/// What a layer is applied to: a tensor or several.
pub trait IntoInputs {
    /// The tensors in order.
    fn into_inputs(self) -> Vec<Tensor>;
}

impl IntoInputs for &Tensor {
    fn into_inputs(self) -> Vec<Tensor> {
        vec![self.clone()]
    }
}

impl IntoInputs for Tensor {
    fn into_inputs(self) -> Vec<Tensor> {
        vec![self]
    }
}

impl<const N: usize> IntoInputs for [&Tensor; N] {
    fn into_inputs(self) -> Vec<Tensor> {
        self.into_iter().cloned().collect()
    }
}

impl IntoInputs for &[Tensor] {
    fn into_inputs(self) -> Vec<Tensor> {
        self.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Activation, Add, Layer};

    #[test]
    fn a_shared_tensor_is_found_once_and_in_order() {
        let x = Input::new([4]);
        let a = Activation::Relu.call(&x);
        let b = Activation::Tanh.call(&a);
        let y = Add::new().call([&a, &b]);
        let numbers: Vec<_> = y.ancestry().iter().map(Tensor::number).collect();
        assert_eq!(numbers, [&x, &a, &b, &y].map(Tensor::number));
    }

    #[test]
    fn a_very_long_chain_is_dropped() {
        let mut x = Input::new([1]);
        for _ in 0..200_000 {
            x = Activation::Relu.call(&x);
        }
        drop(x);
    }
}
