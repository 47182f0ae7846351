//! Which samples to leave out, by what was found, and the lists that say so.

use std::collections::BTreeMap;
use std::path::Path;

use super::report::{Finding, Kind, Report, split_name};
use crate::data::{Catalog, Split};

/// Which samples to leave out, and why. What a person has to decide about, such as near-duplicates or dark images, stays.
///
/// Left out are what cannot be decoded or is damaged; of exact copies all but one, where the test images' stay before
/// the validation images' before training images; all copies of an image that has different labels; and training images
/// that are near-duplicates of test or validation images.
#[derive(Clone, Debug)]
pub struct Cleaning {
    dropped: BTreeMap<usize, Kind>,
}

impl Cleaning {
    /// What follows from a report on this catalog.
    #[must_use]
    pub fn of(report: &Report, catalog: &Catalog) -> Self {
        let mut cleaning = Self { dropped: BTreeMap::new() };
        for finding in &report.findings {
            cleaning.drop_for(finding, catalog);
        }
        cleaning
    }

    fn drop_for(&mut self, finding: &Finding, catalog: &Catalog) {
        let samples: Vec<usize> = finding.samples.iter().filter_map(|mention| mention.sample).collect();
        let of_use = |index: usize| catalog.split(index);
        let dropped: Vec<usize> = match finding.kind {
            Kind::Empty
            | Kind::Truncated
            | Kind::Damaged
            | Kind::NotAnImage
            | Kind::Oversized
            | Kind::Unreadable
            | Kind::Contradiction => samples,
            Kind::Leak | Kind::Duplicates => {
                // Splits are in the order of their use, the test images last.
                let kept = samples.iter().copied().reduce(|a, b| if of_use(b) > of_use(a) { b } else { a });
                samples.into_iter().filter(|&index| Some(index) != kept).collect()
            }
            Kind::NearLeak => samples.into_iter().filter(|&index| of_use(index) == Split::Train).collect(),
            _ => Vec::new(),
        };
        for index in dropped {
            self.dropped.entry(index).or_insert(finding.kind);
        }
    }

    /// How many samples are left out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dropped.len()
    }

    /// Whether all stay.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty()
    }

    /// A manifest of all that stays, as CSV with the columns `file_name`, `label` and `split`: data that can be opened. Files
    /// are named relative to `folder`, the manifest's own, where they lie within it.
    ///
    /// None where the samples are no files.
    #[must_use]
    pub fn manifest(&self, catalog: &Catalog, folder: &Path) -> Option<String> {
        let folder = folder.canonicalize().ok()?;
        let mut csv = String::from("file_name,label,split\n");
        for index in (0..catalog.len()).filter(|index| !self.dropped.contains_key(index)) {
            let file = catalog.file_of(index)?;
            let file = file.canonicalize().unwrap_or(file);
            let file = file.strip_prefix(&folder).unwrap_or(&file);
            let label = catalog.label(index).and_then(|label| catalog.class_names().get(label as usize));
            let label = label.map_or("", String::as_str);
            csv += &format!(
                "{},{},{}\n",
                csv_field(&file.to_string_lossy()),
                csv_field(label),
                split_name(catalog.split(index))
            );
        }
        Some(csv)
    }

    /// The list of what is left out, as CSV with the columns `name`, `split`, `label` and `reason`: for any data, to be given
    /// to a training.
    #[must_use]
    pub fn drops(&self, catalog: &Catalog) -> String {
        let mut csv = String::from("name,split,label,reason\n");
        for (&index, kind) in &self.dropped {
            let label = catalog.label(index).and_then(|label| catalog.class_names().get(label as usize));
            csv += &format!(
                "{},{},{},{}\n",
                csv_field(&catalog.name_of(index)),
                split_name(catalog.split(index)),
                csv_field(label.map_or("", String::as_str)),
                csv_field(kind.title())
            );
        }
        csv
    }
}

/// A field of a CSV file, in quotes where it needs them.
#[must_use]
pub fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ') {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
