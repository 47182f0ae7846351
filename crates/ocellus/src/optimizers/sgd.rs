//! Gradient descent, with momentum where wanted.

use super::Clipping;
use crate::schedules::Schedule;
use ocellus_engine::Rule;
use serde::{Deserialize, Serialize};

/// `velocity = momentum * velocity - learning_rate * gradient; weight += velocity`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sgd {
    /// The size of the steps.
    pub learning_rate: Schedule,
    /// What the velocity keeps of itself at each step.
    pub momentum: f32,
    /// Whether the gradient is used as if at the place where the velocity leads (Sutskever et al., 2013).
    pub nesterov: bool,
    /// Times the weight, this is added to the gradient after clipping: the coupled weight decay of PyTorch's SGD. Penalties of
    /// layers are the same, save that the loss tells them.
    #[serde(skip_serializing_if = "is_zero")]
    pub weight_decay: f32,
    /// Bounds on gradients.
    #[serde(flatten)]
    pub clipping: Clipping,
}

impl Default for Sgd {
    fn default() -> Self {
        Sgd {
            learning_rate: 0.01.into(),
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            clipping: Clipping::default(),
        }
    }
}

impl Sgd {
    /// What the velocity keeps of itself at each step. 0.0 by default.
    pub fn momentum(self, momentum: f32) -> Self {
        Sgd { momentum, ..self }
    }

    /// Whether the gradient is used as if at the place where the velocity leads (Sutskever et al., 2013). False by default.
    pub fn nesterov(self, nesterov: bool) -> Self {
        Sgd { nesterov, ..self }
    }

    /// Times the weight, this is added to the gradient. 0.0 by default.
    pub fn weight_decay(self, weight_decay: f32) -> Self {
        Sgd { weight_decay, ..self }
    }

    pub(super) fn rule(&self) -> Rule {
        Rule::Sgd { momentum: self.momentum, nesterov: self.nesterov }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(value: &f32) -> bool {
    *value == 0.0
}
