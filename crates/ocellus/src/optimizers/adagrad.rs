//! Steps divided by the size of all gradients so far.

use super::Clipping;
use crate::schedules::Schedule;
use ocellus_engine::Rule;
use serde::{Deserialize, Serialize};

/// `sum += gradient²; weight -= learning_rate * gradient / sqrt(sum + epsilon)`, the sum beginning at 0.1.
///
/// Duchi, Hazan and Singer, *Adaptive subgradient methods*, 2011.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adagrad {
    /// The size of the steps.
    pub learning_rate: Schedule,
    /// Added under the root.
    pub epsilon: f32,
    /// Bounds on gradients.
    #[serde(flatten)]
    pub clipping: Clipping,
}

impl Default for Adagrad {
    fn default() -> Self {
        Adagrad {
            learning_rate: 1e-3.into(),
            epsilon: 1e-7,
            clipping: Clipping::default(),
        }
    }
}

impl Adagrad {
    /// Added under the root. 1e-7 by default.
    pub fn epsilon(self, epsilon: f32) -> Self {
        Adagrad { epsilon, ..self }
    }

    pub(super) fn rule(&self) -> Rule {
        Rule::Adagrad { epsilon: self.epsilon }
    }
}
