//! Everything that evaluating a model on labelled images tells.

use serde::{Deserialize, Deserializer, Serialize};

use super::{ClassScores, ConfusionMatrix, Interval, Mean, Metric, Scores, TopK};

/// What a model scored on a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The number of samples.
    pub samples: u64,
    /// The mean loss per sample; in JSON, null where it is not finite.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The share of samples predicted rightly.
    pub accuracy: f64,
    /// The accuracy's 95% confidence interval, [Wilson's](super::wilson).
    pub accuracy_interval: Interval,
    /// The top-k accuracy, where there are more than k classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<TopKAccuracy>,
    /// Precision, recall and F1, each class counting the same.
    pub macro_average: Scores,
    /// Precision, recall and F1, each class counting by its number of samples.
    pub weighted_average: Scores,
    /// Precision, recall, F1 and support of every class.
    pub classes: Vec<ClassScores>,
    /// Which class was taken for which, with the classes' names.
    pub confusion_matrix: ConfusionMatrix,
}

/// The share of samples whose class is among the k most probable ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TopKAccuracy {
    /// How many classes may be named.
    pub k: usize,
    /// The share.
    pub accuracy: f64,
}

/// Gathers an [`Evaluation`] batch by batch.
#[derive(Debug, Clone)]
pub struct Evaluator {
    loss: Mean,
    top_k: Option<TopK>,
    confusion_matrix: ConfusionMatrix,
}

impl Evaluator {
    /// An evaluator for these classes. Top-5 accuracy is measured too, where there are more than five.
    pub fn new(class_names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let confusion_matrix = ConfusionMatrix::new(class_names);
        let top_k = (confusion_matrix.classes() > 5).then(|| TopK::new(5));
        Self { loss: Mean::new(), top_k, confusion_matrix }
    }

    /// Takes in a batch with its mean loss; `predictions` is (samples, classes), or (samples, 1) for two classes.
    ///
    /// # Panics
    /// If the shapes do not fit or a label is no class.
    pub fn update(&mut self, predictions: &[f32], labels: &[u32], mean_loss: f64) {
        self.loss.update(mean_loss, labels.len() as f64);
        self.confusion_matrix.update(predictions, labels, None);
        if let Some(top_k) = &mut self.top_k {
            top_k.update(predictions, labels, None);
        }
    }

    /// Takes in what another evaluator of the same classes has seen.
    pub fn merge(&mut self, other: &Self) {
        self.loss.merge(&other.loss);
        self.confusion_matrix.merge(&other.confusion_matrix);
        if let (Some(top_k), Some(other)) = (&mut self.top_k, &other.top_k) {
            top_k.merge(other);
        }
    }

    /// The evaluation of everything seen.
    pub fn finish(self) -> Evaluation {
        let matrix = self.confusion_matrix;
        Evaluation {
            samples: matrix.samples(),
            loss: self.loss.value(),
            accuracy: matrix.accuracy(),
            accuracy_interval: matrix.accuracy_interval(),
            top_k: self.top_k.map(|top_k| TopKAccuracy { k: top_k.k(), accuracy: top_k.value() }),
            macro_average: matrix.macro_average(),
            weighted_average: matrix.weighted_average(),
            classes: matrix.class_scores(),
            confusion_matrix: matrix,
        }
    }
}

/// JSON knows no NaN: it is written as null.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_and_survives_json() {
        let mut first = Evaluator::new(["a", "b", "c", "d", "e", "f"]);
        let mut second = first.clone();
        first.update(&[0.9, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3, 0.2, 0.2, 0.2, 0.1], &[0, 5], 1.0);
        second.update(&[0.0, 0.0, 1.0, 0.0, 0.0, 0.0], &[2], 4.0);
        first.merge(&second);
        let evaluation = first.finish();
        assert_eq!((evaluation.samples, evaluation.loss, evaluation.accuracy), (3, 2.0, 2.0 / 3.0));
        assert_eq!(evaluation.top_k, Some(TopKAccuracy { k: 5, accuracy: 1.0 }));
        assert_eq!(evaluation.classes[5].support, 1);
        let json = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), evaluation);
    }

    #[test]
    fn a_loss_that_is_not_a_number_survives_json() {
        let mut evaluator = Evaluator::new(["a", "b"]);
        evaluator.update(&[f32::NAN], &[0], f64::NAN);
        let evaluation = evaluator.finish();
        assert_eq!((evaluation.accuracy, evaluation.top_k), (0.0, None));
        let json = serde_json::to_string(&evaluation).unwrap();
        assert!(json.contains(r#""loss":null"#), "{json}");
        assert!(serde_json::from_str::<Evaluation>(&json).unwrap().loss.is_nan());
    }
}
