//! Penalties on large weights, added to the loss.

use serde::{Deserialize, Serialize};

/// `l1 * Σ|w| + l2 * Σw²`, added to the training loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regularizer {
    /// Factor of the sum of absolute values.
    #[serde(default)]
    pub l1: f32,
    /// Factor of the sum of squares.
    #[serde(default)]
    pub l2: f32,
}

impl Regularizer {
    /// No penalty.
    pub const NONE: Regularizer = Regularizer { l1: 0.0, l2: 0.0 };

    /// A penalty on the sum of absolute values; Keras' default factor is 0.01.
    pub fn l1(factor: f32) -> Self {
        Regularizer { l1: factor, ..Self::NONE }
    }

    /// A penalty on the sum of squares; Keras' default factor is 0.01.
    pub fn l2(factor: f32) -> Self {
        Regularizer { l2: factor, ..Self::NONE }
    }

    /// Both penalties.
    pub fn l1_l2(l1: f32, l2: f32) -> Self {
        Regularizer { l1, l2 }
    }

    /// Whether there is no penalty.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// What these weights add to the loss.
    pub fn penalty(&self, weights: &[f32]) -> f64 {
        let sum = |factor: f32, term: fn(f64) -> f64| match factor {
            0.0 => 0.0,
            _ => f64::from(factor) * weights.iter().map(|&w| term(f64::from(w))).sum::<f64>(),
        };
        sum(self.l1, f64::abs) + sum(self.l2, |w| w * w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties() {
        let weights = [1.0, -2.0, 0.5];
        assert_eq!(Regularizer::NONE.penalty(&weights), 0.0);
        assert!((Regularizer::l1(0.5).penalty(&weights) - 1.75).abs() < 1e-12);
        assert!((Regularizer::l2(0.5).penalty(&weights) - 2.625).abs() < 1e-12);
        assert!((Regularizer::l1_l2(0.5, 0.5).penalty(&weights) - 4.375).abs() < 1e-12);
    }
}
