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

    pub(super) fn rule(&self) -> Rule {
        Rule::Sgd { momentum: self.momentum, nesterov: self.nesterov }
    }
}
