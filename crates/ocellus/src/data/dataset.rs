//! `Dataset`: indexed, labelled samples of one shape, whatever they were read from.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fingerprint::xxh64;
use super::source::{InMemory, Memory, Prepared};
use super::{DataError, Preprocessing, Source};

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// What the model learns from.
    Train,
    /// What choices are made with: when to stop, which learning rate.
    Validation,
    /// What the final figures come from.
    Test,
}

impl Split {
    /// All of them, in the order of their use.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// A file that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Indexed, labelled images of one shape. Cheap to clone: clones and subsets share their pixels.
#[derive(Clone)]
pub struct Dataset {
    source: Arc<dyn Source>,
    /// For each sample, its index in the source.
    indices: Arc<[u32]>,
    labels: Arc<[u32]>,
    /// For each sample, the group that it must stay together with, where the data tells.
    groups: Option<Arc<[u32]>>,
    class_names: Arc<[String]>,
    preprocessing: Preprocessing,
    skipped: Arc<[Skipped]>,
    notes: Arc<[String]>,
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset")
            .field("samples", &self.len())
            .field("image_shape", &self.image_shape())
            .field("class_names", &self.class_names)
            .field("skipped", &self.skipped.len())
            .finish_non_exhaustive()
    }
}

impl Dataset {
    /// Samples from a source of one's own: `labels[i]` is the class of the source's image `i`.
    ///
    /// # Errors
    /// The numbers of images and labels differ, there are none, a label has no class, or there are more than `u32` counts.
    pub fn from_source(
        source: Arc<dyn Source>,
        labels: Vec<u32>,
        class_names: Vec<String>,
        preprocessing: Preprocessing,
    ) -> Result<Self, DataError> {
        if source.len() != labels.len() {
            return Err(DataError::Argument(format!("{} images, but {} labels", source.len(), labels.len())));
        }
        if let Some((index, label)) = labels.iter().enumerate().find(|&(_, &l)| l as usize >= class_names.len()) {
            let classes = class_names.len();
            return Err(DataError::Argument(format!(
                "sample {index} has label {label}, but there are {classes} classes"
            )));
        }
        let count = u32::try_from(labels.len())
            .map_err(|_| DataError::Argument(format!("{} samples; a data set holds fewer than 2^32", labels.len())))?;
        if count == 0 {
            return Err(DataError::Argument("a data set of no samples".into()));
        }
        Ok(Self {
            source,
            indices: (0..count).collect(),
            labels: labels.into(),
            groups: None,
            class_names: class_names.into(),
            preprocessing,
            skipped: Arc::default(),
            notes: Arc::default(),
        })
    }

    /// Samples from pixels in memory, in the order sample, height, width, channel. `image_shape` is `[height, width, channels]`.
    ///
    /// # Errors
    /// As [`Dataset::from_source`], and pixels that are not `labels.len()` images of that shape.
    pub fn from_pixels(
        pixels: Vec<u8>,
        image_shape: [usize; 3],
        labels: Vec<u32>,
        class_names: Vec<String>,
    ) -> Result<Self, DataError> {
        let source = Memory::new(pixels, image_shape, Path::new("sample")).ok_or_else(|| {
            DataError::Argument(format!("the pixels are not a number of images of shape {image_shape:?}"))
        })?;
        let [height, width, channels] = image_shape;
        let preprocessing = Preprocessing { image_size: [height, width], channels, ..Preprocessing::default() };
        Self::from_source(Arc::new(source), labels, class_names, preprocessing)
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no samples. Only a subset can be empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// `[height, width, channels]` of every image.
    #[must_use]
    pub fn image_shape(&self) -> [usize; 3] {
        let [height, width] = self.preprocessing.image_size;
        [height, width, self.preprocessing.channels]
    }

    /// Bytes of one image: the product of its shape.
    #[must_use]
    pub fn image_len(&self) -> usize {
        self.image_shape().iter().product()
    }

    /// How images became pixels; it goes into the model file, and prediction does the same.
    #[must_use]
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// Names of the classes; a label is an index into them.
    #[must_use]
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Number of classes, those without samples included.
    #[must_use]
    pub fn class_count(&self) -> usize {
        self.class_names.len()
    }

    /// Class of every sample.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Class of sample `index`.
    ///
    /// # Panics
    /// There is no such sample.
    #[must_use]
    pub fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    /// Number of samples of each class.
    #[must_use]
    pub fn samples_per_class(&self) -> Vec<usize> {
        let mut counts = vec![0; self.class_count()];
        for &label in self.labels.iter() {
            counts[label as usize] += 1;
        }
        counts
    }

    /// A file name, or file and position, by which a person finds sample `index` again.
    ///
    /// # Panics
    /// There is no such sample.
    #[must_use]
    pub fn name_of(&self, index: usize) -> String {
        self.source.name_of(self.indices[index] as usize)
    }

    /// Write the pixels of sample `index` to `pixels`, in the order height, width, channel.
    ///
    /// # Errors
    /// An image that is decoded when asked for can no longer be read. Images in memory never fail.
    ///
    /// # Panics
    /// There is no such sample, or `pixels` is not [`Dataset::image_len`] long.
    pub fn copy_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        assert_eq!(pixels.len(), self.image_len(), "buffer for one image");
        let index = self.indices[index] as usize;
        match self.source.pixels() {
            Some(all) => pixels.copy_from_slice(&all[index * pixels.len()..][..pixels.len()]),
            None => self.source.copy_image(index, pixels)?,
        }
        Ok(())
    }

    /// A hash of the content of sample `index`: of its file, or of its pixels where it has none of its own.
    ///
    /// # Errors
    /// The image can no longer be read.
    ///
    /// # Panics
    /// There is no such sample.
    pub fn hash_of(&self, index: usize) -> Result<u64, DataError> {
        self.source.hash_of(self.indices[index] as usize)
    }

    /// Whether the hashes of all samples are known.
    pub(crate) fn is_hashed(&self) -> bool {
        self.source.is_hashed()
    }

    /// Whether all pixels are in memory, so that reading them costs a copy and cannot fail.
    #[must_use]
    pub fn in_memory(&self) -> bool {
        self.source.pixels().is_some()
    }

    /// The samples at `indices`, in that order; one may occur several times.
    ///
    /// # Panics
    /// An index has no sample.
    #[must_use]
    pub fn subset(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let chosen: Vec<usize> = indices.into_iter().collect();
        Self {
            indices: chosen.iter().map(|&i| self.indices[i]).collect(),
            labels: chosen.iter().map(|&i| self.labels[i]).collect(),
            groups: self.groups.as_ref().map(|groups| chosen.iter().map(|&i| groups[i]).collect()),
            ..self.clone()
        }
    }

    /// The same samples with other labels, one of the classes each.
    pub(crate) fn with_labels(mut self, labels: Vec<u32>) -> Self {
        debug_assert!(labels.len() == self.len() && labels.iter().all(|&label| (label as usize) < self.class_count()));
        self.labels = labels.into();
        self
    }

    /// The first `count` samples, or all where there are fewer.
    #[must_use]
    pub fn take(&self, count: usize) -> Self {
        self.subset(0..count.min(self.len()))
    }

    /// A hash of the content of sample `index`.
    ///
    /// # Errors
    /// It can no longer be read.
    pub(super) fn content_hash(&self, index: usize) -> Result<u64, DataError> {
        self.source.hash_of(self.indices[index] as usize)
    }

    /// Put sample `index` in `bytes` as it is stored, an image file, and say whether that is so: IDX, CIFAR and NumPy data
    /// has pixels only.
    ///
    /// # Errors
    /// It can no longer be read.
    ///
    /// # Panics
    /// There is no such sample.
    pub fn read_encoded(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool, DataError> {
        self.source.read_encoded(self.indices[index] as usize, bytes)
    }

    /// For each sample a number that those of its group have in common, where the data names groups.
    #[must_use]
    pub fn groups(&self) -> Option<&[u32]> {
        self.groups.as_deref()
    }

    /// Files that were left out, with reasons. Report them: they are never left out silently.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Remarks on how the data was understood that a person should read once.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// A hash of all that matters: shape, class names, and every sample's label and content in order.
    /// Written `xxh64:` and 16 hexadecimal digits.
    ///
    /// # Errors
    /// An image can no longer be read.
    pub fn fingerprint(&self) -> Result<String, DataError> {
        let mut record = Vec::with_capacity(self.len() * 12 + 1024);
        for size in self.image_shape() {
            record.extend((size as u64).to_le_bytes());
        }
        for name in self.class_names.iter() {
            record.extend((name.len() as u64).to_le_bytes());
            record.extend(name.as_bytes());
        }
        for (&index, &label) in self.indices.iter().zip(self.labels.iter()) {
            record.extend(label.to_le_bytes());
            record.extend(self.source.hash_of(index as usize)?.to_le_bytes());
        }
        Ok(format!("xxh64:{:016x}", xxh64(&record)))
    }

    /// The same samples with labels that index `classes`. Names must be among them; where classes are merely `numbered`,
    /// their numbers are taken as indices.
    pub(super) fn with_classes(mut self, classes: &[String], path: &Path, numbered: bool) -> Result<Self, DataError> {
        let places: HashMap<&str, usize> = classes.iter().zip(0..).map(|(class, at)| (class.as_str(), at)).collect();
        let by_name = |name: &String| places.get(name.as_str()).copied();
        let by_number = |number: usize| (number < classes.len()).then_some(number);
        let all_named = self.class_names.iter().all(|name| by_name(name).is_some());
        let mut mapped = Vec::with_capacity(self.class_count());
        for (number, (name, count)) in self.class_names.iter().zip(self.samples_per_class()).enumerate() {
            match if numbered && !all_named { by_number(number) } else { by_name(name) } {
                Some(label) => mapped.push(label as u32),
                // A class that no sample has may be unknown.
                None if count == 0 => mapped.push(u32::MAX),
                None if numbered => {
                    let index = self.labels.iter().position(|&label| label as usize == number).unwrap_or_default();
                    let (path, label, classes) = (path.to_owned(), number as u32, classes.len());
                    return Err(DataError::LabelOutOfRange { path, index, label, classes });
                }
                None => {
                    return Err(DataError::UnknownClass {
                        path: path.to_owned(),
                        class: name.clone(),
                        known: classes.to_vec(),
                    });
                }
            }
        }
        self.labels = self.labels.iter().map(|&label| mapped[label as usize]).collect();
        self.class_names = classes.into();
        Ok(self)
    }

    /// The same samples, each brought to what `preprocessing` says: at once where all fit into `memory` bytes, or else
    /// whenever one is asked for.
    pub(super) fn prepared(mut self, preprocessing: Preprocessing, memory: u64) -> Result<Self, DataError> {
        if preprocessing.image_shape() == self.image_shape() && preprocessing.crop == 1.0 {
            self.preprocessing = preprocessing;
            return Ok(self);
        }
        let shape = self.image_shape();
        let [height, width, _] = shape;
        let [to_height, to_width, _] = preprocessing.image_shape();
        if [height, width] != [to_height, to_width] {
            let note = format!("images of {height} x {width} are resized to {to_height} x {to_width}");
            self.note(note);
        }
        let image_len = preprocessing.image_len();
        let on_demand = Prepared { from: self.source.clone(), shape, preprocessing: preprocessing.clone() };
        let total = on_demand.len().saturating_mul(image_len);
        self.preprocessing = preprocessing;
        if total as u64 > memory {
            self.source = Arc::new(on_demand);
            return Ok(self);
        }
        let mut pixels = vec![0; total];
        for (index, image) in pixels.chunks_exact_mut(image_len).enumerate() {
            on_demand.copy_image(index, image)?;
        }
        self.source = Arc::new(InMemory { pixels, on_demand });
        Ok(self)
    }

    /// Notes which classes have no sample, for `path` names the file of labels.
    pub(super) fn with_gaps_noted(mut self, path: &Path) -> Self {
        let counts = self.samples_per_class();
        let names = counts.iter().zip(self.class_names()).filter(|(count, _)| **count == 0);
        let names: Vec<&str> = names.map(|(_, name)| name.as_str()).collect();
        let note = match names[..] {
            [] => return self,
            [name] => format!("{}: no label is `{name}`", path.display()),
            [first, .., last] => format!(
                "{}: {} of the {} classes have no label, from `{first}` to `{last}`",
                path.display(),
                names.len(),
                counts.len()
            ),
        };
        self.note(note + "; is one of the others wrong?");
        self
    }

    fn note(&mut self, note: String) {
        self.notes = self.notes.iter().cloned().chain([note]).collect();
    }

    pub(super) fn with_groups(mut self, groups: Option<Vec<u32>>) -> Self {
        self.groups = groups.map(Into::into);
        self
    }

    pub(super) fn with_remarks(mut self, skipped: Vec<Skipped>, notes: Vec<String>) -> Self {
        self.skipped = skipped.into();
        self.notes = notes.into();
        self
    }
}
