//! Adam's direction, at each parameter's own length: for large batches.

use super::Clipping;
use crate::schedules::Schedule;
use ocellus_engine::Rule;
use serde::{Deserialize, Serialize};

/// Each parameter moves by `learning_rate` times its own Euclidean norm, in the direction of [`AdamW`](super::AdamW).
///
/// You et al., *Large batch optimization for deep learning: training BERT in 76 minutes*, 2020.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lamb {
    /// The size of the steps.
    pub learning_rate: Schedule,
    /// What the mean gradient keeps of itself at each step.
    pub beta_1: f32,
    /// What the mean square keeps of itself at each step.
    pub beta_2: f32,
    /// Added to the root.
    pub epsilon: f32,
    /// What the direction has of the weights.
    pub weight_decay: f32,
    /// Bounds on gradients.
    #[serde(flatten)]
    pub clipping: Clipping,
}

impl Default for Lamb {
    fn default() -> Self {
        Lamb {
            learning_rate: 1e-3.into(),
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-7,
            weight_decay: 0.0,
            clipping: Clipping::default(),
        }
    }
}

impl Lamb {
    /// What the mean gradient keeps of itself at each step. 0.9 by default.
    pub fn beta_1(self, beta_1: f32) -> Self {
        Lamb { beta_1, ..self }
    }

    /// What the mean square keeps of itself at each step. 0.999 by default.
    pub fn beta_2(self, beta_2: f32) -> Self {
        Lamb { beta_2, ..self }
    }

    /// Added to the root. 1e-7 by default.
    pub fn epsilon(self, epsilon: f32) -> Self {
        Lamb { epsilon, ..self }
    }

    /// What the direction has of the weights. 0 by default.
    pub fn weight_decay(self, weight_decay: f32) -> Self {
        Lamb { weight_decay, ..self }
    }

    pub(super) fn rule(&self) -> Rule {
        Rule::Lamb {
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
        }
    }
}
