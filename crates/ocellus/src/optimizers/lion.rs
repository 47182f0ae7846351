//! Steps of the same size for every weight: only the sign counts.

use super::Clipping;
use crate::schedules::Schedule;
use ocellus_engine::Rule;
use serde::{Deserialize, Serialize};

/// `weight -= learning_rate * sign(beta_1 * mean + (1 - beta_1) * gradient)`; then the mean follows the gradient with `beta_2`. The
/// learning rate is usually a third to a tenth of Adam's, and the decay as many times larger.
///
/// Chen et al., *Symbolic discovery of optimization algorithms*, 2023.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lion {
    /// The size of the steps.
    pub learning_rate: Schedule,
    /// What the mean gradient counts in a step.
    pub beta_1: f32,
    /// What the mean gradient keeps of itself at each step.
    pub beta_2: f32,
    /// What a weight loses at each step, times the learning rate.
    pub weight_decay: f32,
    /// Bounds on gradients.
    #[serde(flatten)]
    pub clipping: Clipping,
}

impl Default for Lion {
    fn default() -> Self {
        Lion { learning_rate: 1e-3.into(), beta_1: 0.9, beta_2: 0.99, weight_decay: 0.0, clipping: Clipping::default() }
    }
}

impl Lion {
    /// What the mean gradient counts in a step. 0.9 by default.
    pub fn beta_1(self, beta_1: f32) -> Self {
        Lion { beta_1, ..self }
    }

    /// What the mean gradient keeps of itself at each step. 0.99 by default.
    pub fn beta_2(self, beta_2: f32) -> Self {
        Lion { beta_2, ..self }
    }

    /// What a weight loses at each step, times the learning rate. 0 by default.
    pub fn weight_decay(self, weight_decay: f32) -> Self {
        Lion { weight_decay, ..self }
    }

    pub(super) fn rule(&self) -> Rule {
        Rule::Lion { beta_1: self.beta_1, beta_2: self.beta_2, weight_decay: self.weight_decay }
    }
}
