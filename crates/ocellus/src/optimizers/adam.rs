//! Adaptive moment estimation.

use super::Clipping;
use crate::schedules::Schedule;
use ocellus_engine::Rule;
use serde::{Deserialize, Serialize};

/// Steps along the mean gradient, divided by the root of the mean square, both corrected for having started at zero.
///
/// Kingma and Ba, *Adam: a method for stochastic optimization*, 2015.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adam {
    /// The size of the steps.
    pub learning_rate: Schedule,
    /// What the mean gradient keeps of itself at each step.
    pub beta_1: f32,
    /// What the mean square keeps of itself at each step.
    pub beta_2: f32,
    /// Added to the root.
    pub epsilon: f32,
    /// Whether the largest mean square so far is divided by (Reddi, Kale and Kumar, 2018).
    pub amsgrad: bool,
    /// Bounds on gradients.
    #[serde(flatten)]
    pub clipping: Clipping,
}

impl Default for Adam {
    fn default() -> Self {
        Adam {
            learning_rate: 1e-3.into(),
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-7,
            amsgrad: false,
            clipping: Clipping::default(),
        }
    }
}

impl Adam {
    /// What the mean gradient keeps of itself at each step. 0.9 by default.
    pub fn beta_1(self, beta_1: f32) -> Self {
        Adam { beta_1, ..self }
    }

    /// What the mean square keeps of itself at each step. 0.999 by default.
    pub fn beta_2(self, beta_2: f32) -> Self {
        Adam { beta_2, ..self }
    }

    /// Added to the root. 1e-7 by default.
    pub fn epsilon(self, epsilon: f32) -> Self {
        Adam { epsilon, ..self }
    }

    /// Whether the largest mean square so far is divided by (Reddi, Kale and Kumar, 2018). False by default.
    pub fn amsgrad(self, amsgrad: bool) -> Self {
        Adam { amsgrad, ..self }
    }

    pub(super) fn rule(&self) -> Rule {
        Rule::Adam {
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon,
            weight_decay: 0.0,
            amsgrad: self.amsgrad,
        }
    }
}
