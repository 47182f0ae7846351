//! How parameters change after a step.

use crate::{ParameterId, Value};
use ocellus_kernels::update::Rule;

/// One parameter, its gradient, and the rule that joins them.
#[derive(Clone, Debug)]
pub struct Update {
    /// What changes.
    pub parameter: ParameterId,
    /// The sum that holds its gradient.
    pub gradient: Value,
    /// The optimizer's rule.
    pub rule: Rule,
    /// The rule's memory, as many as [`Rule::state_count`] says.
    pub state: Vec<ParameterId>,
    /// Factor of the sum of absolute values in the loss.
    pub l1: f32,
    /// Factor of the sum of squares in the loss.
    pub l2: f32,
    /// What the step's learning rate is multiplied by for this parameter.
    pub rate: f32,
}

/// Bounds on gradients, as Keras' optimizers have them; at most one is meant to be set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clip {
    /// Every gradient value is cut to `-v..=v`.
    pub value: Option<f32>,
    /// Every parameter's gradient is scaled down to this Euclidean norm.
    pub norm: Option<f32>,
    /// All gradients together are scaled down to this Euclidean norm.
    pub global_norm: Option<f32>,
}
