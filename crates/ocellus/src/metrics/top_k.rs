//! The share of samples whose right class is among the k most probable.

use super::{Mean, Metric, rows};

/// Top-k accuracy. `TopK::new(1)` is the categorical accuracy.
///
/// Equal outputs are ranked by class index, so that a model that answers the same for every class scores k/classes and
/// not 1.
#[derive(Debug, Clone)]
pub struct TopK {
    k: usize,
    mean: Mean,
}

impl TopK {
    /// Counts a sample as right where its class is among the `k` largest outputs.
    pub fn new(k: usize) -> Self {
        Self { k, mean: Mean::new() }
    }

    /// How many classes may be named.
    pub fn k(&self) -> usize {
        self.k
    }
}

impl Metric for TopK {
    fn name(&self) -> String {
        format!("top_{}_accuracy", self.k)
    }

    fn update(&mut self, predictions: &[f32], labels: &[u32], weights: Option<&[f32]>) {
        for (row, label, weight) in rows(predictions, labels, weights) {
            let right = rank(row, label as usize).is_some_and(|rank| rank < self.k);
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

/// How many classes come before `label`; none where the row holds a NaN or no such class.
fn rank(row: &[f32], label: usize) -> Option<usize> {
    let own = *row.get(label)?;
    if row.iter().any(|value| value.is_nan()) {
        return None;
    }
    let before = |(class, value): (usize, &f32)| *value > own || (*value == own && class < label);
    Some(row.iter().enumerate().filter(|entry| before(*entry)).count())
}
