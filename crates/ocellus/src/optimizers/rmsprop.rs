//! Steps divided by the recent size of the gradients.

use super::Clipping;
use crate::schedules::Schedule;
use ocellus_engine::Rule;
use serde::{Deserialize, Serialize};

/// `mean_square = rho * mean_square + (1 - rho) * gradient²; weight -= learning_rate * gradient / sqrt(mean_square + epsilon)`
///
/// Tieleman and Hinton, 2012.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RmsProp {
    /// The size of the steps.
    pub learning_rate: Schedule,
    /// What the mean square keeps of itself at each step.
    pub rho: f32,
    /// What the velocity keeps of itself at each step.
    pub momentum: f32,
    /// Added under the root.
    pub epsilon: f32,
    /// Whether the mean gradient is taken off first.
    pub centered: bool,
    /// Bounds on gradients.
    #[serde(flatten)]
    pub clipping: Clipping,
}

impl Default for RmsProp {
    fn default() -> Self {
        RmsProp {
            learning_rate: 1e-3.into(),
            rho: 0.9,
            momentum: 0.0,
            epsilon: 1e-7,
            centered: false,
            clipping: Clipping::default(),
        }
    }
}

impl RmsProp {
    /// What the mean square keeps of itself at each step. 0.9 by default.
    pub fn rho(self, rho: f32) -> Self {
        RmsProp { rho, ..self }
    }

    /// What the velocity keeps of itself at each step. 0.0 by default.
    pub fn momentum(self, momentum: f32) -> Self {
        RmsProp { momentum, ..self }
    }

    /// Added under the root. 1e-7 by default.
    pub fn epsilon(self, epsilon: f32) -> Self {
        RmsProp { epsilon, ..self }
    }

    /// Whether the mean gradient is taken off first. False by default.
    pub fn centered(self, centered: bool) -> Self {
        RmsProp { centered, ..self }
    }

    pub(super) fn rule(&self) -> Rule {
        Rule::RmsProp { rho: self.rho, momentum: self.momentum, epsilon: self.epsilon, centered: self.centered }
    }
}
