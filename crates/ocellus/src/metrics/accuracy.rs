//! The share of samples whose predicted class is the right one.

use super::{Mean, Metric, predicted_class, rows};

/// The share of right predictions: categorical, or binary where the model has one output.
#[derive(Debug, Clone, Default)]
pub struct Accuracy {
    mean: Mean,
}

impl Accuracy {
    /// An accuracy that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Metric for Accuracy {
    fn name(&self) -> String {
        "accuracy".into()
    }

    fn update(&mut self, predictions: &[f32], labels: &[u32], weights: Option<&[f32]>) {
        for (row, label, weight) in rows(predictions, labels, weights) {
            let right = predicted_class(row) == Some(label as usize);
            self.mean.update(f64::from(u8::from(right)), f64::from(weight));
        }
    }

    fn value(&self) -> f64 {
        self.mean.value()
    }

    fn reset(&mut self) {
        self.mean.reset();
    }

    fn merge(&mut self, other: &Self) {
        self.mean.merge(&other.mean);
    }
}
