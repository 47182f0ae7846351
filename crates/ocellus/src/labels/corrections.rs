//! `Corrections`: samples to leave out or to give another label, by name, from CSV files.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::data::{DataError, Dataset};

/// Bytes of the largest file that is read.
const LARGEST: u64 = 1 << 28;

/// The names that the column of samples' names goes by, and that of their new labels.
const NAME: &[&str] = &["name", "file_name", "path", "file"];
const NEW_LABEL: &[&str] = &["new_label", "label"];

/// Samples to leave out, and samples to give another label.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Corrections {
    /// For each name, its new label; none to leave it out.
    rows: HashMap<String, Option<String>>,
    /// The last part of each name, for data that was opened by another path.
    by_file: HashMap<String, Vec<String>>,
    path: PathBuf,
}

/// What [`Corrections::apply`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Corrected {
    /// Samples that were named.
    pub named: usize,
    /// Samples left out.
    pub dropped: usize,
    /// Samples with another label than before.
    pub relabelled: usize,
}

impl Corrections {
    /// Read the names of samples to leave out: a CSV file with a column `name`.
    ///
    /// # Errors
    /// The file cannot be read, or has no such column.
    pub fn read_drops(path: &Path) -> Result<Self, DataError> {
        Self::read(path, false)
    }

    /// Read the names of samples and their labels: a CSV file with columns `name` and `new_label` (or `label`). A row without a
    /// new label changes nothing.
    ///
    /// # Errors
    /// The file cannot be read, or has no such columns.
    pub fn read_labels(path: &Path) -> Result<Self, DataError> {
        Self::read(path, true)
    }

    fn read(path: &Path, labels: bool) -> Result<Self, DataError> {
        let broken = |problem: String| DataError::Format { path: path.to_owned(), problem };
        let file = File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file.take(LARGEST));
        let header = reader.headers().map_err(|error| broken(format!("is no CSV file: {error}")))?.clone();
        let column = |known: &[&str]| {
            let named =
                |name: &&str| header.iter().position(|column| column.trim_start_matches('\u{feff}').trim() == *name);
            known.iter().find_map(named)
        };
        let got = || header.iter().take(20).collect::<Vec<_>>().join(", ");
        let name = column(NAME).ok_or_else(|| broken(format!("expected a column `name`, got {}", got())))?;
        let label = match column(NEW_LABEL) {
            Some(label) => Some(label).filter(|_| labels),
            None if labels => return Err(broken(format!("expected a column `new_label` or `label`, got {}", got()))),
            None => None,
        };
        let mut corrections = Self { path: path.to_owned(), ..Self::default() };
        for record in reader.records() {
            let record = record.map_err(|error| broken(format!("is no CSV file: {error}")))?;
            let Some(name) = record.get(name).filter(|name| !name.is_empty()) else { continue };
            let new = label.map(|label| record.get(label).unwrap_or_default().trim());
            if new != Some("") {
                corrections.add(name, new);
            }
        }
        Ok(corrections)
    }

    fn add(&mut self, name: &str, label: Option<&str>) {
        if self.rows.insert(name.to_owned(), label.map(str::to_owned)).is_none() {
            self.by_file.entry(last_part(name).to_owned()).or_default().push(name.to_owned());
        }
    }

    /// How many samples are named.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The data with these corrections. Samples that are not named stay as they are; names that are no samples of this
    /// part are passed over, for they may be another part's.
    ///
    /// # Errors
    /// A new label is no class of the data.
    pub fn apply(&self, data: &Dataset) -> Result<(Dataset, Corrected), DataError> {
        let mut corrected = Corrected::default();
        let (mut kept, mut labels) = (Vec::with_capacity(data.len()), Vec::with_capacity(data.len()));
        let classes: HashMap<&str, u32> = data.class_names().iter().map(String::as_str).zip(0..).collect();
        for index in 0..data.len() {
            let row = self.of(&data.name_of(index));
            corrected.named += usize::from(row.is_some());
            let label = match row {
                None => data.label(index),
                Some(None) => {
                    corrected.dropped += 1;
                    continue;
                }
                Some(Some(new)) => {
                    let new = *classes.get(new.as_str()).ok_or_else(|| DataError::UnknownClass {
                        path: self.path.clone(),
                        class: new.clone(),
                        known: data.class_names().to_vec(),
                    })?;
                    corrected.relabelled += usize::from(new != data.label(index));
                    new
                }
            };
            kept.push(index);
            labels.push(label);
        }
        Ok((data.subset(kept).with_labels(labels), corrected))
    }

    /// What is to become of a sample: by its whole name, or where that is unknown by the one name that ends alike.
    fn of(&self, name: &str) -> Option<&Option<String>> {
        if let Some(row) = self.rows.get(name) {
            return Some(row);
        }
        let alike = |known: &&String| ends_with_parts(known, name) || ends_with_parts(name, known);
        let mut candidates = self.by_file.get(last_part(name))?.iter().filter(alike);
        match (candidates.next(), candidates.next()) {
            (Some(only), None) => self.rows.get(only),
            _ => None,
        }
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// Whether a path ends with all parts of another.
fn ends_with_parts(path: &str, end: &str) -> bool {
    let end = end.trim_start_matches("./");
    path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with(['/', '\\']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Dataset {
        let names = ["a", "b"].map(String::from).to_vec();
        Dataset::from_pixels((0..4).collect(), [1, 1, 1], vec![0, 1, 0, 1], names).unwrap()
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.csv");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn samples_are_left_out_and_labelled_anew_by_name() {
        let (_folder, path) = file("label,name,new_label\na,sample[0],b\na,sample[2],\nb,other[1],a\n");
        let (changed, corrected) = Corrections::read_labels(&path).unwrap().apply(&data()).unwrap();
        assert_eq!((changed.labels(), corrected.relabelled, corrected.dropped), (&[1, 1, 0, 1][..], 1, 0));
        let (changed, corrected) = Corrections::read_drops(&path).unwrap().apply(&data()).unwrap();
        assert_eq!((changed.labels(), corrected.dropped), (&[1, 1][..], 2));
        assert_eq!(changed.name_of(0), "sample[1]");
    }

    #[test]
    fn names_of_another_folder_are_known_by_their_end() {
        for (first, second, expected) in [
            ("photos/cat/1.jpg", "/home/me/photos/cat/1.jpg", true),
            ("/home/me/photos/cat/1.jpg", "./photos/cat/1.jpg", true),
            ("photos/cat/1.jpg", "dog/1.jpg", false),
            ("11.jpg", "1.jpg", false),
        ] {
            let mut corrections = Corrections::default();
            corrections.add(first, None);
            assert_eq!(corrections.of(second).is_some(), expected, "{first} {second}");
        }
        let mut corrections = Corrections::default();
        corrections.add("x/cat/1.jpg", None);
        corrections.add("y/cat/1.jpg", None);
        assert_eq!(corrections.of("cat/1.jpg"), None, "which of the two?");
    }

    #[test]
    fn what_is_wrong_with_a_list_is_told() {
        for (text, part) in [
            ("id,label\n1,a\n", "expected a column `name`, got id, label"),
            ("name\nx\n", "expected a column `new_label`"),
            ("", "expected a column `name`"),
        ] {
            let (_folder, path) = file(text);
            let error = Corrections::read_labels(&path).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("list.csv"), "{error}");
        }
        let (_folder, path) = file("name,new_label\nsample[1],c\n");
        let error = Corrections::read_labels(&path).unwrap().apply(&data()).unwrap_err().to_string();
        assert!(error.contains("class `c` is not among the 2 classes"), "{error}");
        let (_folder, path) = file("name\n\u{fffd}\n");
        std::fs::write(&path, b"name\n\xff\xfe\n").unwrap();
        assert!(Corrections::read_drops(&path).is_err());
    }
}
