//! How often each class was taken for each other one, and the scores that follow from it.

use serde::{Deserialize, Serialize};

use super::{Interval, Metric, predicted_class, ratio, rows, wilson};

/// Counts of samples by true and predicted class, with the classes' names.
///
/// It counts whole samples: a weight of 0 leaves one out, every other weight counts it once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct ConfusionMatrix {
    class_names: Vec<String>,
    /// (true class, predicted class)
    counts: Vec<u64>,
    /// (true class): samples whose outputs held a NaN, so that nothing was predicted.
    undecided: Vec<u64>,
}

/// Precision, recall and F1, of one class or averaged over classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Of the samples predicted as this class, the share that is of it.
    pub precision: f64,
    /// Of the samples of this class, the share predicted as it.
    pub recall: f64,
    /// The harmonic mean of precision and recall.
    pub f1: f64,
}

/// One class's scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// The class's name.
    pub name: String,
    /// How well it was recognised.
    #[serde(flatten)]
    pub scores: Scores,
    /// The number of samples that are of this class.
    pub support: u64,
}

/// A mistake that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confusion {
    /// The class that was to be recognised.
    pub actual: usize,
    /// The class it was taken for.
    pub predicted: usize,
    /// How often.
    pub count: u64,
}

impl ConfusionMatrix {
    /// A matrix for these classes that has seen nothing.
    pub fn new(class_names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let class_names: Vec<String> = class_names.into_iter().map(Into::into).collect();
        let classes = class_names.len();
        Self { class_names, counts: vec![0; classes * classes], undecided: vec![0; classes] }
    }

    /// A matrix for `classes` classes that are named by their numbers.
    pub fn numbered(classes: usize) -> Self {
        Self::new((0..classes).map(|class| class.to_string()))
    }

    /// Counts one sample; `predicted` is none where the model's outputs were not numbers.
    ///
    /// # Panics
    /// If a class is out of range.
    pub fn record(&mut self, actual: usize, predicted: Option<usize>) {
        let classes = self.classes();
        assert!(actual < classes, "class {actual} of {classes}");
        match predicted {
            Some(predicted) => {
                assert!(predicted < classes, "class {predicted} of {classes}");
                self.counts[actual * classes + predicted] += 1;
            }
            None => self.undecided[actual] += 1,
        }
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// The classes' names, in order.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// How many samples of class `actual` were predicted as class `predicted`.
    pub fn count(&self, actual: usize, predicted: usize) -> u64 {
        self.counts[actual * self.classes()..][..self.classes()][predicted]
    }

    /// How many samples of class `actual` got no prediction, their outputs not being numbers.
    pub fn undecided(&self, actual: usize) -> u64 {
        self.undecided[actual]
    }

    /// The number of samples of class `actual`.
    pub fn support(&self, actual: usize) -> u64 {
        self.counts[actual * self.classes()..][..self.classes()].iter().sum::<u64>() + self.undecided[actual]
    }

    /// The number of samples predicted as class `predicted`.
    pub fn predicted(&self, predicted: usize) -> u64 {
        (0..self.classes()).map(|actual| self.count(actual, predicted)).sum()
    }

    /// The number of samples.
    pub fn samples(&self) -> u64 {
        self.counts.iter().chain(&self.undecided).sum()
    }

    /// The number of samples predicted rightly.
    pub fn correct(&self) -> u64 {
        (0..self.classes()).map(|class| self.count(class, class)).sum()
    }

    /// The share of samples predicted rightly.
    pub fn accuracy(&self) -> f64 {
        ratio(self.correct() as f64, self.samples() as f64)
    }

    /// The 95% confidence interval of the accuracy, [Wilson's](wilson).
    pub fn accuracy_interval(&self) -> Interval {
        wilson(self.correct(), self.samples())
    }

    /// Every class's scores, in the classes' order.
    pub fn class_scores(&self) -> Vec<ClassScores> {
        let score = |(class, name): (usize, &String)| {
            let correct = self.count(class, class) as f64;
            let (support, predicted) = (self.support(class), self.predicted(class));
            let scores = Scores {
                precision: ratio(correct, predicted as f64),
                recall: ratio(correct, support as f64),
                f1: ratio(2.0 * correct, support as f64 + predicted as f64),
            };
            ClassScores { name: name.clone(), scores, support }
        };
        self.class_names.iter().enumerate().map(score).collect()
    }

    /// The scores' mean over all classes, each counting the same, those without samples included.
    pub fn macro_average(&self) -> Scores {
        average(self.class_scores().iter().map(|class| (class.scores, 1.0)))
    }

    /// The scores' mean over all classes, each counting by its number of samples.
    pub fn weighted_average(&self) -> Scores {
        average(self.class_scores().iter().map(|class| (class.scores, class.support as f64)))
    }

    /// The `limit` most frequent mistakes, the most frequent first and equals in the classes' order.
    pub fn most_confused(&self, limit: usize) -> Vec<Confusion> {
        let classes = self.classes();
        let confusion =
            |(at, &count): (usize, &u64)| Confusion { actual: at / classes, predicted: at % classes, count };
        let mut mistakes: Vec<_> = (self.counts.iter().enumerate().map(confusion))
            .filter(|mistake| mistake.actual != mistake.predicted && mistake.count > 0)
            .collect();
        mistakes.sort_by_key(|mistake| std::cmp::Reverse(mistake.count));
        mistakes.truncate(limit);
        mistakes
    }
}

fn average(scores: impl Iterator<Item = (Scores, f64)>) -> Scores {
    let (mut sum, mut total) = (Scores::default(), 0.0);
    for (scores, weight) in scores {
        sum.precision += scores.precision * weight;
        sum.recall += scores.recall * weight;
        sum.f1 += scores.f1 * weight;
        total += weight;
    }
    Scores { precision: ratio(sum.precision, total), recall: ratio(sum.recall, total), f1: ratio(sum.f1, total) }
}

/// Its value is the accuracy. One output per row is the probability of the second of two classes.
impl Metric for ConfusionMatrix {
    fn name(&self) -> String {
        "confusion_matrix".into()
    }

    fn update(&mut self, predictions: &[f32], labels: &[u32], weights: Option<&[f32]>) {
        for (row, label, weight) in rows(predictions, labels, weights) {
            let outputs = if self.classes() == 2 && row.len() == 1 { 2 } else { row.len() };
            assert_eq!(outputs, self.classes(), "outputs and classes");
            if weight != 0.0 {
                self.record(label as usize, predicted_class(row));
            }
        }
    }

    fn value(&self) -> f64 {
        self.accuracy()
    }

    fn reset(&mut self) {
        self.counts.fill(0);
        self.undecided.fill(0);
    }

    fn merge(&mut self, other: &Self) {
        assert_eq!(self.classes(), other.classes(), "matrices of the same classes");
        let add = |counts: &mut [u64], others: &[u64]| {
            for (count, other) in counts.iter_mut().zip(others) {
                *count += other;
            }
        };
        add(&mut self.counts, &other.counts);
        add(&mut self.undecided, &other.undecided);
    }
}

/// The matrix as it is written to JSON: a row per true class.
#[derive(Serialize, Deserialize)]
struct Written {
    class_names: Vec<String>,
    counts: Vec<Vec<u64>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    undecided: Vec<u64>,
}

impl From<ConfusionMatrix> for Written {
    fn from(matrix: ConfusionMatrix) -> Self {
        let all_decided = matrix.undecided.iter().all(|count| *count == 0);
        Self {
            counts: matrix.counts.chunks(matrix.classes().max(1)).map(<[u64]>::to_vec).collect(),
            undecided: if all_decided { Vec::new() } else { matrix.undecided },
            class_names: matrix.class_names,
        }
    }
}

impl TryFrom<Written> for ConfusionMatrix {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let classes = written.class_names.len();
        if written.counts.len() != classes || written.counts.iter().any(|row| row.len() != classes) {
            return Err(format!("confusion matrix: expected {classes} rows of {classes} counts, one per class name"));
        }
        if !written.undecided.is_empty() && written.undecided.len() != classes {
            return Err(format!("confusion matrix: expected {classes} undecided counts"));
        }
        let mut matrix = Self::new(written.class_names);
        matrix.counts = written.counts.concat();
        if !written.undecided.is_empty() {
            matrix.undecided = written.undecided;
        }
        let sum = |total: u64, count: &u64| total.checked_add(*count);
        match matrix.counts.iter().chain(&matrix.undecided).try_fold(0, sum) {
            Some(_) => Ok(matrix),
            None => Err("confusion matrix: the counts' sum is too large".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(pairs: &[(usize, usize)], classes: usize) -> ConfusionMatrix {
        let mut matrix = ConfusionMatrix::numbered(classes);
        for (actual, predicted) in pairs {
            matrix.record(*actual, Some(*predicted));
        }
        matrix
    }

    #[test]
    fn agrees_with_scikit_learn() {
        // sklearn.metrics.precision_recall_fscore_support(
        //     [0, 0, 0, 1, 1, 2, 4], [0, 0, 1, 1, 2, 0, 3], labels=range(5), zero_division=0)
        // and with average="macro" and "weighted".
        let matrix = matrix(&[(0, 0), (0, 0), (0, 1), (1, 1), (1, 2), (2, 0), (4, 3)], 5);
        let two_thirds = 2.0 / 3.0;
        let expected = [
            (two_thirds, two_thirds, two_thirds, 3),
            (0.5, 0.5, 0.5, 2),
            (0.0, 0.0, 0.0, 1),
            (0.0, 0.0, 0.0, 0), // predicted once, never true
            (0.0, 0.0, 0.0, 1), // never predicted
        ];
        for (class, (precision, recall, f1, support)) in matrix.class_scores().iter().zip(expected) {
            assert_eq!(class.scores, Scores { precision, recall, f1 }, "class {}", class.name);
            assert_eq!(class.support, support, "class {}", class.name);
        }
        let near = |scores: Scores, expected: f64| {
            for score in [scores.precision, scores.recall, scores.f1] {
                assert!((score - expected).abs() < 1e-12, "{score} instead of {expected}");
            }
        };
        near(matrix.macro_average(), 7.0 / 30.0);
        near(matrix.weighted_average(), 3.0 / 7.0);
        assert_eq!(matrix.accuracy(), 3.0 / 7.0);
    }

    #[test]
    fn nothing_seen_is_all_zeros() {
        for classes in [0, 1, 3] {
            let matrix = ConfusionMatrix::numbered(classes);
            assert_eq!((matrix.samples(), matrix.accuracy()), (0, 0.0));
            assert_eq!(matrix.macro_average(), Scores::default());
            assert_eq!(matrix.weighted_average(), Scores::default());
            assert_eq!(matrix.accuracy_interval(), Interval { low: 0.0, high: 1.0 });
        }
    }

    #[test]
    fn undecided_samples_lower_the_recall_only() {
        let mut matrix = matrix(&[(0, 0), (1, 1)], 2);
        matrix.record(0, None);
        let first = &matrix.class_scores()[0];
        assert_eq!((first.scores.precision, first.scores.recall, first.support), (1.0, 0.5, 2));
        assert_eq!((matrix.samples(), matrix.undecided(0)), (3, 1));
    }

    #[test]
    fn the_most_confused_come_first() {
        let matrix = matrix(&[(0, 0), (0, 1), (2, 1), (2, 1), (1, 0)], 3);
        let mistakes: Vec<_> = matrix.most_confused(2).iter().map(|m| (m.actual, m.predicted, m.count)).collect();
        assert_eq!(mistakes, [(2, 1, 2), (0, 1, 1)]);
        assert_eq!(matrix.most_confused(9).len(), 3);
    }

    #[test]
    fn json_round_trip_and_refusals() {
        let mut matrix = matrix(&[(0, 0), (0, 1)], 2);
        let json = serde_json::to_string(&matrix).unwrap();
        assert_eq!(json, r#"{"class_names":["0","1"],"counts":[[1,1],[0,0]]}"#);
        matrix.record(1, None);
        for matrix in [matrix, ConfusionMatrix::numbered(0)] {
            let json = serde_json::to_string(&matrix).unwrap();
            assert_eq!(serde_json::from_str::<ConfusionMatrix>(&json).unwrap(), matrix);
        }
        for (json, message) in [
            (r#"{"class_names":["a","b"],"counts":[[1,1],[0]]}"#, "2 rows of 2 counts"),
            (r#"{"class_names":["a","b"],"counts":[[1,1]]}"#, "2 rows of 2 counts"),
            (r#"{"class_names":["a"],"counts":[[1]],"undecided":[1,2]}"#, "1 undecided"),
            (r#"{"class_names":["a"],"counts":[[18446744073709551615]],"undecided":[1]}"#, "too large"),
        ] {
            let error = serde_json::from_str::<ConfusionMatrix>(json).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
