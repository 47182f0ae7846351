//! How good predictions are: metrics that are fed batch by batch, and the [`Evaluation`] that gathers them.
//!
//! Every ratio follows scikit-learn's `zero_division=0`: 0/0 is 0, so that a class without samples, or one that was
//! never predicted, reads as 0 and not as NaN. A row of predictions with a NaN in it predicts nothing and counts as
//! wrong.

mod accuracy;
mod confusion_matrix;
mod evaluation;
mod interval;
mod mean;
mod top_k;

pub use accuracy::Accuracy;
pub use confusion_matrix::{ClassScores, Confusion, ConfusionMatrix, Scores};
pub use evaluation::{Evaluation, Evaluator, TopKAccuracy};
pub use interval::{Interval, wilson};
pub use mean::Mean;
pub use top_k::TopK;

/// A number that sums up the samples seen since the last reset.
pub trait Metric {
    /// The name it bears in a [`History`](crate::history::History), Keras' where Keras has one.
    fn name(&self) -> String;

    /// Takes in a batch: `predictions` is (samples, outputs), one row per sample of `labels`, each label a class index.
    ///
    /// With one output, the row is the probability of class 1 and the label 0 or 1. A sample counts as often as its
    /// weight says; without weights, once. A weight of 0 leaves it out.
    ///
    /// # Panics
    /// If `predictions` is no whole number of rows, or `weights` of another length than `labels`.
    fn update(&mut self, predictions: &[f32], labels: &[u32], weights: Option<&[f32]>);

    /// The metric over everything seen; 0 before anything was.
    fn value(&self) -> f64;

    /// Forgets everything seen.
    fn reset(&mut self);

    /// Takes in what another metric of the same configuration has seen.
    fn merge(&mut self, other: &Self)
    where
        Self: Sized;
}

/// The rows of a batch: each sample's predictions, label and weight.
fn rows<'a>(
    predictions: &'a [f32],
    labels: &'a [u32],
    weights: Option<&'a [f32]>,
) -> impl Iterator<Item = (&'a [f32], u32, f32)> {
    let outputs = if labels.is_empty() { 0 } else { predictions.len() / labels.len() };
    assert_eq!(outputs * labels.len(), predictions.len(), "predictions must be a whole number of rows");
    assert!(outputs > 0 || labels.is_empty(), "a row of predictions must have an output");
    if let Some(weights) = weights {
        assert_eq!(weights.len(), labels.len(), "one weight per label");
    }
    let weight = move |sample: usize| weights.map_or(1.0, |weights| weights[sample]);
    // `chunks_exact` refuses 0, which only an empty batch has.
    (predictions.chunks_exact(outputs.max(1)).zip(labels))
        .enumerate()
        .map(move |(sample, (row, &label))| (row, label, weight(sample)))
}

/// The class that a row of outputs predicts: the first of the largest, or with one output whether it exceeds one half;
/// none where an output is NaN.
///
/// ```
/// use ocellus::metrics::predicted_class;
/// assert_eq!(predicted_class(&[0.2, 0.5, 0.3]), Some(1));
/// assert_eq!(predicted_class(&[0.7]), Some(1)); // the probability of class 1
/// assert_eq!(predicted_class(&[0.7, f32::NAN]), None);
/// ```
pub fn predicted_class(row: &[f32]) -> Option<usize> {
    if row.iter().any(|value| value.is_nan()) {
        return None;
    }
    match row {
        [] => None,
        [probability] => Some(usize::from(*probability > 0.5)),
        _ => Some(row.iter().enumerate().fold(0, |best, (class, value)| if *value > row[best] { class } else { best })),
    }
}

/// 0 where there is nothing to divide by.
fn ratio(numerator: f64, denominator: f64) -> f64 {
    if denominator == 0.0 { 0.0 } else { numerator / denominator }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One harness for every metric: the value over batches, the same however they are cut and merged, and 0 after reset.
    fn check<M: Metric + Clone>(
        metric: M,
        predictions: &[f32],
        labels: &[u32],
        weights: Option<&[f32]>,
        expected: f64,
    ) {
        let name = metric.name();
        let mut whole = metric.clone();
        assert_eq!(whole.value(), 0.0, "{name} before anything");
        whole.update(predictions, labels, weights);
        assert!((whole.value() - expected).abs() < 1e-9, "{name}: {} instead of {expected}", whole.value());

        let outputs = predictions.len() / labels.len();
        for cut in 0..=labels.len() {
            let (mut left, mut right) = (metric.clone(), metric.clone());
            let (first, second) = predictions.split_at(cut * outputs);
            left.update(first, &labels[..cut], weights.map(|weights| &weights[..cut]));
            right.update(second, &labels[cut..], weights.map(|weights| &weights[cut..]));
            left.merge(&right);
            assert!((left.value() - expected).abs() < 1e-9, "{name} merged at {cut}");
        }
        whole.reset();
        assert_eq!(whole.value(), 0.0, "{name} after reset");
    }

    const THREE: [f32; 12] = [0.5, 0.3, 0.2, 0.1, 0.3, 0.6, 0.2, 0.2, 0.6, 0.4, 0.4, 0.2];

    #[test]
    fn accuracy() {
        check(Accuracy::new(), &THREE, &[0, 2, 0, 0], None, 0.75);
        check(Accuracy::new(), &THREE, &[0, 2, 0, 1], None, 0.5);
        check(Accuracy::new(), &THREE, &[0, 2, 0, 1], Some(&[3.0, 1.0, 4.0, 0.0]), 0.5);
        check(Accuracy::new(), &THREE, &[0, 2, 0, 1], Some(&[0.0; 4]), 0.0);
        check(Accuracy::new(), &THREE, &[7, 8, 9, u32::MAX], None, 0.0);
        // One output is a probability; one half itself is class 0, as in Keras.
        check(Accuracy::new(), &[0.9, 0.1, 0.5, 0.6], &[1, 0, 0, 0], None, 0.75);
    }

    #[test]
    fn nan_and_infinity() {
        let nan = f32::NAN;
        check(Accuracy::new(), &[nan, 0.0, 1.0, nan, nan, nan, 0.0, 1.0], &[0, 0, 1, 1], None, 0.25);
        check(Accuracy::new(), &[nan, 1.0], &[0, 1], None, 0.5);
        check(Accuracy::new(), &[f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY, 0.0], &[0, 0], None, 1.0);
        check(TopK::new(2), &[nan, 0.0, 1.0, 0.0, 0.2, 0.1], &[0, 2], None, 0.5);
        check(ConfusionMatrix::numbered(2), &[nan, 0.0, 1.0, 0.0], &[0, 0], None, 0.5);
    }

    #[test]
    fn top_k() {
        check(TopK::new(1), &THREE, &[0, 2, 0, 1], None, 0.5);
        check(TopK::new(2), &THREE, &[1, 0, 0, 1], None, 0.75);
        check(TopK::new(3), &THREE, &[1, 0, 0, 1], None, 1.0);
        check(TopK::new(9), &THREE, &[1, 0, 0, 3], None, 0.75);
        check(TopK::new(2), &THREE, &[1, 0, 0, 1], Some(&[1.0, 2.0, 1.0, 0.0]), 0.5);
        // Ties are ranked by class, as `predicted_class` does: a constant output is not right every time.
        check(TopK::new(2), &[0.25; 8], &[2, 1], None, 0.5);
    }

    #[test]
    fn confusion_matrix() {
        check(ConfusionMatrix::numbered(3), &THREE, &[0, 2, 0, 0], None, 0.75);
        check(ConfusionMatrix::numbered(3), &THREE, &[0, 2, 0, 1], Some(&[1.0, 0.0, 1.0, 1.0]), 1.0 / 3.0);
        check(ConfusionMatrix::numbered(2), &[0.9, 0.1, 0.5, 0.6], &[1, 0, 0, 0], None, 0.75);
    }

    #[test]
    #[should_panic(expected = "whole number of rows")]
    fn ragged_predictions() {
        Accuracy::new().update(&[0.0; 5], &[0, 1], None);
    }
}
