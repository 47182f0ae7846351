//! `Catalog`: every sample of some data as it lies there, not decoded, of all parts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::dataset::Skipped;
use super::open::Layout;
use super::store::Store;
use super::{DataError, Dataset, ImageProblem, Limits, Split};

/// Every sample of some data as it lies there: its name, class, part, group and encoded bytes. Nothing is decoded, no part and
/// no class need be complete. What makes training data of it is [`Dataset::open`]; this is for looking at the data itself.
///
/// ```no_run
/// use ocellus::data::{Catalog, Content, Limits};
/// let catalog = Catalog::open("photos")?;
/// let mut bytes = Vec::new();
/// for index in 0..catalog.len() {
///     match catalog.read(index, &Limits::default(), &mut bytes) {
///         Ok(Content::Encoded) => {} // `bytes` is an image file
///         Ok(Content::Pixels([_height, _width, _channels])) => {}
///         Err(problem) => eprintln!("{}: {problem}", catalog.name_of(index)),
///     }
/// }
/// # Ok::<(), ocellus::data::DataError>(())
/// ```
#[derive(Clone)]
pub struct Catalog {
    pub(super) path: PathBuf,
    pub(super) images: CatalogImages,
    pub(super) samples: Arc<[Sample]>,
    pub(super) classes: Classes,
    /// For a sample's group, its name.
    pub(super) groups: Arc<[String]>,
    /// Where the class folders of a part lie, where there are such.
    pub(super) class_folders: Vec<(Split, PathBuf)>,
    pub(super) refused: Vec<Skipped>,
    pub(super) notes: Vec<String>,
}

/// What [`Catalog::read`] has put in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// An image file.
    Encoded,
    /// Pixels of this height, width and number of channels.
    Pixels([usize; 3]),
}

#[derive(Clone)]
pub(super) enum CatalogImages {
    Encoded(Arc<dyn Store>),
    /// Data that was read whole, with the index of its first sample.
    Pixels(Vec<(usize, Dataset)>),
}

/// What is known of a sample.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    /// [`NONE`] where it has no class.
    pub(super) label: u32,
    /// [`NONE`] where it has no group.
    pub(super) group: u32,
    pub(super) split: Split,
}

/// No label, no group.
pub(super) const NONE: u32 = u32::MAX;

/// Classes at most: a label beyond is no class but a number or an identifier.
pub(super) const MAX_CLASSES: usize = 1 << 16;

/// Class names: those of the training data in their order, then those that only other parts have.
#[derive(Clone, Default)]
pub(super) struct Classes {
    pub(super) names: Vec<String>,
    /// How many of them training data has.
    pub(super) known: usize,
}

/// Class names as they are met, brought into order in the end.
#[derive(Default)]
pub(super) struct ClassCollector {
    numbers: HashMap<String, u32>,
    names: Vec<(String, bool)>,
}

impl ClassCollector {
    /// The preliminary number of a class; `None` where there are too many.
    pub(super) fn number(&mut self, name: &str, split: Split) -> Option<u32> {
        let trained = split == Split::Train;
        if let Some(&number) = self.numbers.get(name) {
            self.names[number as usize].1 |= trained;
            return Some(number);
        }
        if self.names.len() >= MAX_CLASSES {
            return None;
        }
        let number = self.names.len() as u32;
        self.numbers.insert(name.to_owned(), number);
        self.names.push((name.to_owned(), trained));
        Some(number)
    }

    /// The classes in order, and for each preliminary number the final one. Where all names are whole numbers they are in
    /// the order of numbers, or else by bytes. Without training data all classes are known.
    pub(super) fn finish(self) -> (Classes, Vec<u32>) {
        let numeric = self.names.iter().all(|(name, _)| is_number(name));
        self.finish_as(numeric)
    }

    /// The same, always in the order of bytes, as folders are.
    pub(super) fn finish_by_bytes(self) -> (Classes, Vec<u32>) {
        self.finish_as(false)
    }

    fn finish_as(self, numeric: bool) -> (Classes, Vec<u32>) {
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        let any_trained = self.names.iter().any(|(_, trained)| *trained);
        let foreign = |at: usize| any_trained && !self.names[at].1;
        let number = |at: usize| if numeric { self.names[at].0.parse().unwrap_or(i64::MAX) } else { 0 };
        order.sort_by(|&a, &b| {
            (foreign(a), number(a), &self.names[a].0).cmp(&(foreign(b), number(b), &self.names[b].0))
        });
        let known = order.iter().filter(|&&at| !foreign(at)).count();
        let mut mapped = vec![0; order.len()];
        for (label, &at) in order.iter().enumerate() {
            mapped[at] = label as u32;
        }
        let names = order.iter().map(|&at| self.names[at].0.clone()).collect();
        (Classes { names, known }, mapped)
    }
}

fn is_number(name: &str) -> bool {
    name.parse::<i64>().is_ok_and(|number| number.to_string() == name)
}

/// Whether a text can be a class name: something, and nothing that breaks lines.
pub(super) fn is_class_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 1024 && !name.contains(char::is_control)
}

impl Catalog {
    /// List the data at a path, or a known data set by its name.
    ///
    /// # Errors
    /// There is nothing that could be understood.
    pub fn open(data: impl AsRef<Path>) -> Result<Self, DataError> {
        Layout::recognise(data.as_ref())?.catalog()
    }

    /// Number of samples, of all parts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Where the data lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the classes: those of the training data in the order of its labels, then those that only other parts have.
    #[must_use]
    pub fn class_names(&self) -> &[String] {
        &self.classes.names
    }

    /// How many of the classes training data knows; the others are errors to whoever opens the part that has them.
    #[must_use]
    pub fn known_classes(&self) -> usize {
        self.classes.known
    }

    /// Class of sample `index`, where it has one.
    #[must_use]
    pub fn label(&self, index: usize) -> Option<u32> {
        Some(self.samples[index].label).filter(|&label| label != NONE)
    }

    /// Part that sample `index` belongs to.
    #[must_use]
    pub fn split(&self, index: usize) -> Split {
        self.samples[index].split
    }

    /// Group of sample `index`, whose samples must stay together, where it has one.
    #[must_use]
    pub fn group(&self, index: usize) -> Option<&str> {
        self.groups.get(self.samples[index].group as usize).map(String::as_str)
    }

    /// Whether there is a sample of this part.
    #[must_use]
    pub fn has(&self, split: Split) -> bool {
        self.samples.iter().any(|sample| sample.split == split)
    }

    /// A name by which a person finds sample `index` again.
    #[must_use]
    pub fn name_of(&self, index: usize) -> String {
        match &self.images {
            CatalogImages::Encoded(store) => store.name_of(index),
            CatalogImages::Pixels(parts) => {
                let (first, part) = part_of(parts, index);
                part.name_of(index - first)
            }
        }
    }

    /// The file that is sample `index`, where it has one of its own.
    #[must_use]
    pub fn file_of(&self, index: usize) -> Option<PathBuf> {
        match &self.images {
            CatalogImages::Encoded(store) => store.file_of(index),
            CatalogImages::Pixels(_) => None,
        }
    }

    /// Bytes of sample `index` as it is stored, where that is known without reading it.
    #[must_use]
    pub fn size_of(&self, index: usize) -> Option<u64> {
        match &self.images {
            CatalogImages::Encoded(store) => store.size_of(index),
            CatalogImages::Pixels(parts) => Some(part_of(parts, index).1.image_len() as u64),
        }
    }

    /// Put the content of sample `index` in `bytes`, whatever was there, and say what it is.
    ///
    /// # Errors
    /// It cannot be read, or is larger than an image may be.
    pub fn read(&self, index: usize, limits: &Limits, bytes: &mut Vec<u8>) -> Result<Content, ImageProblem> {
        match &self.images {
            CatalogImages::Encoded(store) => store.read(index, limits, bytes).map(|()| Content::Encoded),
            CatalogImages::Pixels(parts) => {
                let (first, part) = part_of(parts, index);
                bytes.clear();
                bytes.resize(part.image_len(), 0);
                let copied = part.copy_image(index - first, bytes);
                copied.map_err(|error| ImageProblem::Unreadable(error.to_string()))?;
                Ok(Content::Pixels(part.image_shape()))
            }
        }
    }

    /// What lies there but is no sample, and why: names that lead elsewhere, rows without a label and the like.
    #[must_use]
    pub fn refused(&self) -> &[Skipped] {
        &self.refused
    }

    /// Remarks on how the data was understood.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where class `label` of a part lies, for messages.
    pub(super) fn class_path(&self, split: Split, label: u32) -> PathBuf {
        let folder = self.class_folders.iter().find(|(of, _)| *of == split).map(|(_, folder)| folder);
        match (folder, self.classes.names.get(label as usize)) {
            (Some(folder), Some(name)) => folder.join(name),
            _ => self.path.clone(),
        }
    }

    /// Data that was read whole, its parts after each other.
    pub(super) fn of_datasets(path: PathBuf, parts: Vec<(Split, Dataset)>) -> Self {
        let mut samples = Vec::new();
        let mut images = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let mut notes = Vec::new();
        for (split, part) in parts {
            let mut number = |name: &String| {
                *numbers.entry(name.clone()).or_insert_with(|| {
                    names.push(name.clone());
                    (names.len() - 1) as u32
                })
            };
            let labels: Vec<u32> = part.class_names().iter().map(&mut number).collect();
            images.push((samples.len(), part.clone()));
            notes.extend(part.notes().iter().cloned());
            let sample = |&label: &u32| Sample { label: labels[label as usize], group: NONE, split };
            samples.extend(part.labels().iter().map(sample));
        }
        Self {
            path,
            images: CatalogImages::Pixels(images),
            samples: samples.into(),
            classes: Classes { known: names.len(), names },
            groups: Arc::default(),
            class_folders: Vec::new(),
            refused: Vec::new(),
            notes,
        }
    }
}

/// The part that a sample belongs to, with the index of its first sample.
fn part_of(parts: &[(usize, Dataset)], index: usize) -> (usize, &Dataset) {
    let at = parts.partition_point(|(first, _)| *first <= index) - 1;
    (parts[at].0, &parts[at].1)
}
