//! The confusion matrix as a table for the terminal, and the most frequent mistakes as a list.

use super::text::{left, name_column, percent, right, shorten, width};
use crate::metrics::ConfusionMatrix;

/// More classes than this do not fit a terminal's width.
const MOST_CLASSES: usize = 20;
/// How many of the most frequent mistakes stand in for a table that does not fit.
const MOST_MISTAKES: usize = 15;
const LONGEST_NAME: usize = 16;
/// The table's width, where the classes' names fit it.
const COLUMNS: usize = 80;
/// A narrower column shows numbers instead of shortened names.
const SHORTEST_NAME: usize = 4;

/// A row per true class and a column per predicted class; zeros are dots. Of more than twenty classes, the
/// [most frequent mistakes](most_confused).
pub fn confusion_table(matrix: &ConfusionMatrix) -> String {
    let classes = matrix.classes();
    if classes == 0 {
        return String::new();
    }
    if classes > MOST_CLASSES {
        return most_confused(matrix, MOST_MISTAKES);
    }
    let (mut names, mut name_columns) = name_column(matrix.class_names().iter().map(String::as_str), LONGEST_NAME);
    let all = (0..classes).flat_map(|actual| (0..classes).map(move |predicted| (actual, predicted)));
    let digits = all.map(|(actual, predicted)| matrix.count(actual, predicted).to_string().len()).max().unwrap_or(1);
    let longest = names.iter().map(|name| width(name)).max().unwrap_or(1);
    // Two blanks between columns.
    let room = (COLUMNS.saturating_sub(name_columns) / classes).saturating_sub(2).min(longest);
    let headers: Vec<String> = if room >= longest.min(SHORTEST_NAME) {
        names.iter().map(|name| shorten(name, room)).collect()
    } else {
        let last = (classes - 1).to_string().len();
        names = (names.iter().enumerate()).map(|(class, name)| format!("{class:>last$} {name}")).collect();
        name_columns += last + 1;
        (0..classes).map(|class| class.to_string()).collect()
    };
    let header_columns = headers.iter().map(|header| width(header)).max().unwrap_or(1);
    let cell_columns = 2 + digits.max(header_columns);
    let undecided: Vec<u64> = (0..classes).map(|class| matrix.undecided(class)).collect();
    let any_undecided = undecided.iter().any(|count| *count > 0);

    let name_columns = name_columns.max("true".len());
    let mut table = format!("{}  predicted\n{}", " ".repeat(name_columns), left("true", name_columns));
    for header in &headers {
        table += &right(header, cell_columns);
    }
    if any_undecided {
        table += "   none (not a number)";
    }
    table.push('\n');
    for (actual, name) in names.iter().enumerate() {
        table += &left(name, name_columns);
        for predicted in 0..classes {
            let cell = match matrix.count(actual, predicted) {
                0 => "·".to_owned(),
                count => count.to_string(),
            };
            table += &right(&cell, cell_columns);
        }
        if any_undecided {
            table += &right(&undecided[actual].to_string(), 7);
        }
        table.push('\n');
    }
    table
}

/// The `limit` most frequent mistakes, one per line: the true class, what it was taken for, how often, and the share of
/// the true class's samples that is.
pub fn most_confused(matrix: &ConfusionMatrix, limit: usize) -> String {
    let mistakes = matrix.most_confused(limit);
    if mistakes.is_empty() {
        return "No class was taken for another.\n".into();
    }
    let name = |class: usize| matrix.class_names()[class].as_str();
    let (actual, actual_columns) = name_column(mistakes.iter().map(|mistake| name(mistake.actual)), 32);
    let (predicted, predicted_columns) = name_column(mistakes.iter().map(|mistake| name(mistake.predicted)), 32);
    let digits = mistakes[0].count.to_string().len();
    let mut list = String::from("Most confused, true → predicted:\n");
    for ((mistake, actual), predicted) in mistakes.iter().zip(&actual).zip(&predicted) {
        let support = matrix.support(mistake.actual);
        list += &format!(
            "{} → {}  {:>digits$} of {support} ({})\n",
            left(actual, actual_columns),
            left(predicted, predicted_columns),
            mistake.count,
            percent(mistake.count as f64 / support as f64),
        );
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(names: &[&str], counts: &[(usize, usize, usize)]) -> ConfusionMatrix {
        let mut matrix = ConfusionMatrix::new(names.iter().copied());
        for &(actual, predicted, count) in counts {
            (0..count).for_each(|_| matrix.record(actual, Some(predicted)));
        }
        matrix
    }

    #[test]
    fn ten_classes_of_thousands_fit_a_terminal() {
        let names =
            ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"];
        let table = confusion_table(&matrix(&names, &[(0, 0, 1000), (9, 8, 20)]));
        assert!(table.lines().all(|line| width(line) <= 80), "{table}");
        assert!(table.contains("Coat"), "{table}");
    }

    #[test]
    fn small_matrices_are_aligned() {
        let matrix = matrix(&["cat", "a dog that barks", "日本"], &[(0, 0, 12), (0, 1, 3), (1, 1, 1000), (2, 0, 7)]);
        let expected = "                  predicted
true                           cat  a dog that barks              日本
cat                             12                 3                 ·
a dog that barks                 ·              1000                 ·
日本                             7                 ·                 ·
";
        assert_eq!(confusion_table(&matrix), expected);
    }

    #[test]
    fn rows_stay_within_the_width_and_are_of_one() {
        for (classes, length) in [(1, 1), (2, 60), (10, 11), (14, 30), (20, 30), (20, 1)] {
            let names: Vec<String> = (0..classes).map(|class| format!("{class:x<length$}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let matrix = matrix(&names, &[(0, 0, 999), (classes - 1, 0, 1)]);
            let table = confusion_table(&matrix);
            let widths: Vec<usize> = table.lines().skip(1).map(width).collect();
            assert!(widths.iter().all(|columns| *columns == widths[0] && *columns <= 120), "{table}");
            assert_eq!(widths.len(), classes + 1);
        }
        assert_eq!(confusion_table(&ConfusionMatrix::numbered(0)), "");
    }

    #[test]
    fn undecided_samples_have_a_column() {
        let mut matrix = matrix(&["a", "b"], &[(0, 0, 1)]);
        matrix.record(1, None);
        let table = confusion_table(&matrix);
        assert!(table.contains("none") && table.lines().last().unwrap().ends_with('1'), "{table}");
    }

    #[test]
    fn many_classes_become_a_list() {
        let names: Vec<String> = (0..100).map(|class| format!("class {class}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let list = confusion_table(&matrix(&names, &[(3, 4, 2), (99, 0, 11), (99, 99, 22)]));
        let expected = "\
Most confused, true → predicted:
class 99 → class 0  11 of 33 (33.3%)
class 3  → class 4   2 of 2 (100.0%)
";
        assert_eq!(list, expected);
        assert!(most_confused(&ConfusionMatrix::numbered(3), 9).starts_with("No class"));
    }
}
