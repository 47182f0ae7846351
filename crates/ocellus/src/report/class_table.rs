//! Precision, recall and F1 per class as a table for the terminal.

use super::text::{left, name_column, right};
use crate::metrics::{ConfusionMatrix, Scores};

/// More classes than this are not all listed.
const MOST_ROWS: usize = 50;
/// How many of them are, then.
const WORST_ROWS: usize = 20;
const LONGEST_NAME: usize = 28;
const AVERAGES: [&str; 3] = ["accuracy", "macro average", "weighted average"];

/// A row per class with its precision, recall, F1 and number of samples, then the averages: scikit-learn's
/// `classification_report`. Of more than fifty classes, the twenty with the lowest F1.
pub fn class_table(matrix: &ConfusionMatrix) -> String {
    let scores = matrix.class_scores();
    let mut shown: Vec<usize> = (0..scores.len()).collect();
    let mut table = String::new();
    if scores.len() > MOST_ROWS {
        shown.sort_by(|&a, &b| scores[a].scores.f1.total_cmp(&scores[b].scores.f1));
        shown.truncate(WORST_ROWS);
        table = format!("The {WORST_ROWS} of {} classes with the lowest F1:\n", scores.len());
    }
    let labels = shown.iter().map(|&class| scores[class].name.as_str()).chain(AVERAGES);
    let (names, columns) = name_column(labels, LONGEST_NAME);
    let count = |support: u64| right(&support.to_string(), 9);
    let row = |name: &str, scores: Scores, support: u64| {
        let Scores { precision, recall, f1 } = scores;
        format!("{}  {precision:>9.3}  {recall:>6.3}  {f1:>6.3}{}\n", left(name, columns), count(support))
    };
    table += &format!("{}  precision  recall      f1  samples\n", left("class", columns));
    for (&class, name) in shown.iter().zip(&names) {
        table += &row(name, scores[class].scores, scores[class].support);
    }
    let samples = matrix.samples();
    let [accuracy, macro_average, weighted_average] = AVERAGES;
    table += &format!("{}\n", "─".repeat(columns + 36));
    table += &format!("{}  {:>25.3}{}\n", left(accuracy, columns), matrix.accuracy(), count(samples));
    table += &row(macro_average, matrix.macro_average(), samples);
    table += &row(weighted_average, matrix.weighted_average(), samples);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_complete() {
        let mut matrix = ConfusionMatrix::new(["cat", "日本", "never seen"]);
        for (actual, predicted) in [(0, 0), (0, 0), (0, 1), (1, 1)] {
            matrix.record(actual, Some(predicted));
        }
        let expected = "\
class             precision  recall      f1  samples
cat                   1.000   0.667   0.800        3
日本                  0.500   1.000   0.667        1
never seen            0.000   0.000   0.000        0
────────────────────────────────────────────────────
accuracy                              0.750        4
macro average         0.500   0.556   0.489        4
weighted average      0.875   0.750   0.767        4
";
        assert_eq!(class_table(&matrix), expected);
    }

    #[test]
    fn of_many_classes_the_worst_are_listed() {
        let mut matrix = ConfusionMatrix::numbered(100);
        for class in 0..100 {
            matrix.record(class, Some(if class == 77 { 78 } else { class }));
        }
        let table = class_table(&matrix);
        assert!(table.starts_with("The 20 of 100 classes"), "{table}");
        assert_eq!(table.lines().count(), 1 + 1 + 20 + 4);
        assert!(table.lines().nth(2).unwrap().starts_with("77 "), "{table}");
    }
}
