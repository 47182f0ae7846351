//! Adam with weights that decay.

use super::Clipping;
use crate::schedules::Schedule;
use ocellus_engine::Rule;
use serde::{Deserialize, Serialize};

/// [`Adam`](super::Adam), with every weight made smaller by `learning_rate * weight_decay` of itself at each step.
///
/// Loshchilov and Hutter, *Decoupled weight decay regularization*, 2019.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdamW {
    /// The size of the steps.
    pub learning_rate: Schedule,
    /// What a weight loses at each step, times the learning rate.
    pub weight_decay: f32,
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

impl Default for AdamW {
    fn default() -> Self {
        AdamW {
            learning_rate: 1e-3.into(),
            weight_decay: 0.004,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-7,
            amsgrad: false,
            clipping: Clipping::default(),
        }
    }
}

impl AdamW {
    /// What a weight loses at each step, times the learning rate. 0.004 by default.
    pub fn weight_decay(self, weight_decay: f32) -> Self {
        AdamW { weight_decay, ..self }
    }

    /// What the mean gradient keeps of itself at each step. 0.9 by default.
    pub fn beta_1(self, beta_1: f32) -> Self {
        AdamW { beta_1, ..self }
    }

    /// What the mean square keeps of itself at each step. 0.999 by default.
    pub fn beta_2(self, beta_2: f32) -> Self {
        AdamW { beta_2, ..self }
    }

    /// Added to the root. 1e-7 by default.
    pub fn epsilon(self, epsilon: f32) -> Self {
        AdamW { epsilon, ..self }
    }

    /// Whether the largest mean square so far is divided by (Reddi, Kale and Kumar, 2018). False by default.
    pub fn amsgrad(self, amsgrad: bool) -> Self {
        AdamW { amsgrad, ..self }
    }

    pub(super) fn rule(&self) -> Rule {
        Rule::Adam {
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            amsgrad: self.amsgrad,
        }
    }
}
