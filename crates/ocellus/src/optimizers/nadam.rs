//! Adam with Nesterov's look-ahead.

use super::Clipping;
use crate::schedules::Schedule;
use ocellus_engine::Rule;
use serde::{Deserialize, Serialize};

/// [`Adam`](super::Adam), its mean gradient looked at as if one step further.
///
/// Dozat, *Incorporating Nesterov momentum into Adam*, 2016.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nadam {
    /// The size of the steps.
    pub learning_rate: Schedule,
    /// What the mean gradient keeps of itself at each step.
    pub beta_1: f32,
    /// What the mean square keeps of itself at each step.
    pub beta_2: f32,
    /// Added to the root.
    pub epsilon: f32,
    /// Bounds on gradients.
    #[serde(flatten)]
    pub clipping: Clipping,
}

impl Default for Nadam {
    fn default() -> Self {
        Nadam { learning_rate: 1e-3.into(), beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, clipping: Clipping::default() }
    }
}

impl Nadam {
    /// What the mean gradient keeps of itself at each step. 0.9 by default.
    pub fn beta_1(self, beta_1: f32) -> Self {
        Nadam { beta_1, ..self }
    }

    /// What the mean square keeps of itself at each step. 0.999 by default.
    pub fn beta_2(self, beta_2: f32) -> Self {
        Nadam { beta_2, ..self }
    }

    /// Added to the root. 1e-7 by default.
    pub fn epsilon(self, epsilon: f32) -> Self {
        Nadam { epsilon, ..self }
    }

    pub(super) fn rule(&self) -> Rule {
        Rule::Nadam { beta_1: self.beta_1, beta_2: self.beta_2, epsilon: self.epsilon }
    }
}
