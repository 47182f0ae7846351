//! What every epoch of a training run measured: Keras' `History`, and its CSV file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::{WriteError, write_atomically};

/// The column of the time that an epoch took.
pub(crate) const SECONDS: &str = "seconds";

/// A training run's metrics, a column per metric and a row per epoch.
///
/// Columns bear Keras' names: `accuracy`, `loss`, `val_accuracy`, `val_loss`, `learning_rate`, and `seconds` for the time
/// an epoch took. A value that was not measured in an epoch is NaN.
///
/// ```
/// use ocellus::history::History;
/// let mut history = History::new();
/// history.push(0, [("accuracy", 0.71), ("loss", 0.80), ("val_accuracy", 0.81)]);
/// history.push(1, [("accuracy", 0.84), ("loss", 0.44), ("val_accuracy", 0.79)]);
/// assert_eq!(history.get("loss"), Some(&[0.80, 0.44][..]));
/// assert_eq!(history.best("val_accuracy").unwrap().epoch, 0);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    epochs: Vec<u64>,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq)]
struct Column {
    name: String,
    values: Vec<f64>,
}

/// The epoch in which a metric was best.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// The metric's value in it.
    pub value: f64,
}

/// A history file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file could not be opened or is not text.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("line {line}: {problem}")]
    Line {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A file's line is not what it should be.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Which line, and why.
        source: Box<HistoryError>,
    },
}

impl History {
    /// A history of no epochs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an epoch (counted from 0) and what it measured.
    pub fn push<'a>(&mut self, epoch: u64, metrics: impl IntoIterator<Item = (&'a str, f64)>) {
        let rows = self.epochs.len();
        self.epochs.push(epoch);
        for column in &mut self.columns {
            column.values.push(f64::NAN);
        }
        for (name, value) in metrics {
            let at = self.columns.iter().position(|column| column.name == name).unwrap_or_else(|| {
                self.columns.push(Column { name: name.into(), values: vec![f64::NAN; rows + 1] });
                self.columns.len() - 1
            });
            self.columns[at].values[rows] = value;
        }
    }

    /// Drops this epoch and those after it.
    pub fn truncate(&mut self, epoch: u64) {
        let kept = self.epochs.iter().take_while(|&&known| known < epoch).count();
        self.epochs.truncate(kept);
        self.columns.iter_mut().for_each(|column| column.values.truncate(kept));
    }

    /// The number of epochs.
    pub fn len(&self) -> usize {
        self.epochs.len()
    }

    /// Whether no epoch has ended.
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    /// The epochs' numbers, counted from 0; a continued run begins at a later one.
    pub fn epochs(&self) -> &[u64] {
        &self.epochs
    }

    /// The metrics' names: Keras' CSVLogger's order, which is the alphabet's, then `learning_rate` and `seconds`.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        names.sort_by_key(|name| (["learning_rate", SECONDS].contains(name), *name));
        names
    }

    /// A metric's values, one per epoch.
    pub fn get(&self, name: &str) -> Option<&[f64]> {
        self.columns.iter().find(|column| column.name == name).map(|column| column.values.as_slice())
    }

    /// A metric's value in the last epoch.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.get(name)?.last().copied()
    }

    /// The first epoch in which a metric was best: lowest where it [is better so](lower_is_better), else highest. NaN is
    /// never best.
    pub fn best(&self, name: &str) -> Option<Best> {
        let sign = if lower_is_better(name) { -1.0 } else { 1.0 };
        (self.epochs.iter().zip(self.get(name)?))
            .filter(|(_, value)| !value.is_nan())
            .map(|(&epoch, &value)| Best { epoch, value })
            .reduce(|best, next| if sign * next.value > sign * best.value { next } else { best })
    }

    /// The history as CSV: `epoch,accuracy,loss,val_accuracy,val_loss`, then what else was measured; epochs counted from
    /// 0, as Keras' CSVLogger does.
    pub fn to_csv(&self) -> String {
        let names = self.names();
        let mut csv = String::from("epoch");
        for name in &names {
            csv.push(',');
            csv.push_str(&name.replace([',', '"', '\n', '\r'], "_"));
        }
        csv.push('\n');
        for (row, epoch) in self.epochs.iter().enumerate() {
            csv.push_str(&epoch.to_string());
            for name in &names {
                let value = self.get(name).map_or(f64::NAN, |values| values[row]);
                csv.push_str(&format!(",{value}"));
            }
            csv.push('\n');
        }
        csv
    }

    /// Reads what [`to_csv`](Self::to_csv) or Keras' CSVLogger wrote.
    pub fn from_csv(csv: &str) -> Result<Self, HistoryError> {
        let wrong = |line: usize, problem: String| HistoryError::Line { line: line + 1, problem };
        let mut lines = csv.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (at, header) = lines.next().ok_or_else(|| wrong(0, "expected a header, found nothing".into()))?;
        let names: Vec<&str> = header.trim_start_matches('\u{feff}').split(',').map(str::trim).collect();
        if names[0] != "epoch" {
            return Err(wrong(at, format!("expected the first column to be `epoch`, found `{}`", names[0])));
        }
        if let Some(twice) = (1..names.len()).find(|&column| names[..column].contains(&names[column])) {
            return Err(wrong(at, format!("the column `{}` is there twice", names[twice])));
        }
        let mut history = Self::new();
        for (at, line) in lines {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            if fields.len() != names.len() {
                return Err(wrong(at, format!("expected {} fields, found {}", names.len(), fields.len())));
            }
            let epoch = (fields[0].parse())
                .map_err(|_| wrong(at, format!("`{}` is no epoch: expected a whole number", fields[0])))?;
            let mut metrics = Vec::with_capacity(names.len());
            for (name, field) in names.iter().zip(&fields).skip(1) {
                let value = match *field {
                    "" | "NA" => f64::NAN,
                    field => (field.parse())
                        .map_err(|_| wrong(at, format!("`{field}` is no value for `{name}`: expected a number")))?,
                };
                metrics.push((*name, value));
            }
            history.push(epoch, metrics);
        }
        Ok(history)
    }

    /// Writes the CSV file, whole or not at all.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<(), WriteError> {
        write_atomically(path, self.to_csv())
    }

    /// Reads a CSV file.
    pub fn read_csv(path: impl AsRef<Path>) -> Result<Self, HistoryError> {
        let path = path.as_ref();
        let csv =
            std::fs::read_to_string(path).map_err(|source| HistoryError::Read { path: path.to_owned(), source })?;
        Self::from_csv(&csv).map_err(|source| HistoryError::File { path: path.to_owned(), source: Box::new(source) })
    }
}

/// Whether a metric is the better the lower it is: Keras' `mode="auto"`, which takes those named for an accuracy (or one of
/// precision, recall, F1 and AUC) as better the higher, and everything else as a loss.
pub fn lower_is_better(name: &str) -> bool {
    !["acc", "precision", "recall", "f1", "auc"].iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let mut history = History::new();
        history.push(0, [("loss", 0.9), ("accuracy", 0.5), ("seconds", 1.25), ("learning_rate", 1e-3)]);
        history
            .push(1, [("loss", 0.5), ("accuracy", 0.7), ("val_loss", 0.6), ("val_accuracy", 0.65), ("seconds", 1.0)]);
        history.push(2, [("loss", f64::NAN), ("accuracy", 0.1), ("val_loss", f64::INFINITY), ("val_accuracy", 0.65)]);
        history
    }

    #[test]
    fn csv_has_keras_column_order_and_comes_back() {
        let csv = history().to_csv();
        let expected = "\
            epoch,accuracy,loss,val_accuracy,val_loss,learning_rate,seconds\n\
            0,0.5,0.9,NaN,NaN,0.001,1.25\n\
            1,0.7,0.5,0.65,0.6,NaN,1\n\
            2,0.1,NaN,0.65,inf,NaN,NaN\n";
        assert_eq!(csv, expected);
        assert_eq!(History::from_csv(&csv).unwrap().to_csv(), csv);
    }

    #[test]
    fn reads_what_keras_writes() {
        let csv = "epoch,accuracy,loss,val_accuracy,val_loss\r\n\
                   0,0.7340999841690063,0.7265625596046448,0.8299999833106995,0.4711\r\n1,nan,NA,,0.4\r\n";
        let history = History::from_csv(csv).unwrap();
        assert_eq!(history.names(), ["accuracy", "loss", "val_accuracy", "val_loss"]);
        assert_eq!(history.get("accuracy").unwrap()[0], 0.7340999841690063);
        assert_eq!(history.get("val_loss"), Some(&[0.4711, 0.4][..]));
        assert!(history.last("val_accuracy").unwrap().is_nan());
    }

    #[test]
    fn refuses_what_is_no_history() {
        for (csv, message) in [
            ("", "line 1: expected a header"),
            ("loss,accuracy\n", "line 1: expected the first column to be `epoch`, found `loss`"),
            ("epoch,loss,loss\n", "line 1: the column `loss` is there twice"),
            ("epoch,loss\n0,1\n\n1\n", "line 4: expected 2 fields, found 1"),
            ("epoch,loss\n-1,1\n", "line 2: `-1` is no epoch"),
            ("epoch,loss\n0,low\n", "line 2: `low` is no value for `loss`"),
        ] {
            let error = History::from_csv(csv).unwrap_err().to_string();
            assert!(error.contains(message), "{csv:?}: {error}");
        }
    }

    #[test]
    fn best_is_the_first_of_the_best_and_never_nan() {
        let history = history();
        assert_eq!(history.best("loss"), Some(Best { epoch: 1, value: 0.5 }));
        assert_eq!(history.best("val_accuracy"), Some(Best { epoch: 1, value: 0.65 }));
        assert_eq!(history.best("val_loss"), Some(Best { epoch: 1, value: 0.6 }));
        assert_eq!(history.best("nothing"), None);
        assert_eq!(History::new().best("loss"), None);
        let mut lost = History::new();
        lost.push(0, [("loss", f64::NAN)]);
        assert_eq!(lost.best("loss"), None);
    }

    #[test]
    fn files_are_named_in_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.csv");
        let error = History::read_csv(&path).unwrap_err().to_string();
        assert!(error.contains("history.csv"), "{error}");
        history().write_csv(&path).unwrap();
        assert_eq!(History::read_csv(&path).unwrap().len(), 3);
        std::fs::write(&path, "epoch\nx\n").unwrap();
        let error = History::read_csv(&path).unwrap_err().to_string();
        assert!(error.contains("history.csv: line 2"), "{error}");
    }
}
