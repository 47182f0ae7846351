//! The layout of MNIST: per split one IDX file of images and one of labels, under names that are nearly always the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::builtin::FASHION_MNIST;
use super::fingerprint::xxh64;
use super::source::Memory;
use super::{DataError, Dataset, Preprocessing, Split, idx};

/// The two files of a split.
#[derive(Debug, PartialEq)]
pub(super) struct IdxFiles {
    pub(super) images: PathBuf,
    pub(super) labels: PathBuf,
}

/// XXH64 of the labels of Fashion-MNIST's training and test set.
const FASHION_LABELS: [u64; 2] = [0x97e6_7794_95a8_b4ba, 0x440b_cedb_1e3e_9174];

impl IdxFiles {
    /// The files of a split in `folder`: `train-images-idx3-ubyte`, `t10k-labels.idx1-ubyte.gz` and so on.
    pub(super) fn find(folder: &Path, split: Split) -> Option<Self> {
        let prefixes: &[&str] = match split {
            Split::Train => &["train"],
            Split::Validation => &["validation", "valid", "val"],
            Split::Test => &["t10k", "test"],
        };
        let find = |prefix: &str, kind: &str, dimensions: &[u32]| {
            let names = dimensions.iter().flat_map(|d| {
                ["-idx", ".idx"]
                    .iter()
                    .flat_map(move |join| ["", ".gz"].map(|end| format!("{prefix}-{kind}{join}{d}-ubyte{end}")))
            });
            names.map(|name| folder.join(name)).find(|file| file.is_file())
        };
        prefixes.iter().find_map(|prefix| {
            Some(Self { images: find(prefix, "images", &[3, 4])?, labels: find(prefix, "labels", &[1])? })
        })
    }

    /// The pair that a file of images belongs to, by its name.
    pub(super) fn of_file(images: &Path) -> Option<Self> {
        let name = images.file_name()?.to_str()?;
        let stem = name.strip_suffix(".gz").unwrap_or(name);
        let (prefix, rest) = stem.split_once("images")?;
        let rest = rest.replace("idx3", "idx1").replace("idx4", "idx1");
        ["", ".gz"].into_iter().find_map(|end| {
            let labels = images.with_file_name(format!("{prefix}labels{rest}{end}"));
            labels.is_file().then(|| Self { images: images.to_owned(), labels })
        })
    }

    /// Read both. Also says whether the classes have names; otherwise they are called by their numbers.
    pub(super) fn open(&self) -> Result<(Dataset, bool), DataError> {
        let labels = idx::read(&self.labels, &[1])?.data;
        let images = idx::read(&self.images, &[3, 4])?;
        let (count, shape) = match images.sizes[..] {
            [count, height, width] => (count, [height, width, 1]),
            [count, height, width, channels @ (1 | 3)] => (count, [height, width, channels]),
            _ => {
                let problem = format!("has {} channels, expected 1 or 3", images.sizes[3]);
                return Err(DataError::format(&self.images, problem));
            }
        };
        if count != labels.len() {
            return Err(DataError::CountMismatch {
                images_path: self.images.clone(),
                images: count,
                labels_path: self.labels.clone(),
                labels: labels.len(),
            });
        }
        let named = self.is_fashion(&labels);
        let classes = labels.iter().max().map_or(0, |&label| usize::from(label) + 1);
        if (named || self.is_digits())
            && let Some(index) = labels.iter().position(|&label| usize::from(label) >= FASHION_MNIST.len())
        {
            let (label, classes) = (u32::from(labels[index]), FASHION_MNIST.len());
            return Err(DataError::LabelOutOfRange { path: self.labels.clone(), index, label, classes });
        }
        let class_names: Vec<String> = if named {
            FASHION_MNIST.map(String::from).to_vec()
        } else {
            // A split may lack the last digits, but digits are ten.
            let digits = if self.is_mnist() { 10 } else { 0 };
            (0..classes.max(digits)).map(|class| class.to_string()).collect()
        };
        let preprocessing =
            Preprocessing { image_size: [shape[0], shape[1]], channels: shape[2], ..Preprocessing::default() };
        preprocessing.check().map_err(|error| DataError::format(&self.images, error.to_string()))?;
        let memory = Memory::new(images.data, shape, &self.images)
            .ok_or_else(|| DataError::format(&self.images, "its sizes do not fit its data"))?;
        let labels = labels.into_iter().map(u32::from).collect();
        Ok((Dataset::from_source(Arc::new(memory), labels, class_names, preprocessing)?, named))
    }

    /// Fashion-MNIST has no class names in its files: it is known by its labels, or a part of it by its folder's name.
    fn is_fashion(&self, labels: &[u8]) -> bool {
        FASHION_LABELS.contains(&xxh64(labels)) || self.folder_name().contains("fashion")
    }

    fn is_mnist(&self) -> bool {
        self.folder_name().contains("mnist")
    }

    /// Ten classes and no more, unlike EMNIST.
    fn is_digits(&self) -> bool {
        ["mnist", "qmnist", "kmnist"].contains(&self.folder_name().as_str())
    }

    /// Name of the folder, in lower case.
    fn folder_name(&self) -> String {
        let folder = self.images.canonicalize().ok().and_then(|path| Some(path.parent()?.file_name()?.to_owned()));
        folder.unwrap_or_default().to_string_lossy().to_ascii_lowercase()
    }
}
