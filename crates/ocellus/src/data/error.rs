//! What can be wrong with data, said so that the reader knows which file, what was expected, and what to do.

use std::path::{Path, PathBuf};

use super::Split;

/// The layouts that are recognised.
const EXPECTED: &str = "class folders (train/CLASS/image.jpg, test/CLASS/… or CLASS/image.jpg), \
    IDX files (train-images-idx3-ubyte and its like, plain or .gz) or CIFAR binary files (data_batch_1.bin …)";

/// Why data could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A binary data file is not what its place or name says.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what came.
        problem: String,
    },
    /// There is nothing at a path, and no known data set of that name.
    #[error("{data}: no such file or folder, and no data set of that name; known are {}", known.join(", "))]
    NotFound {
        /// What was asked for.
        data: String,
        /// Names of known data sets.
        known: Vec<String>,
    },
    /// Nothing there is a data set.
    #[error("{}: {problem}. Expected {EXPECTED}", path.display())]
    Unrecognised {
        /// Where data was expected.
        path: PathBuf,
        /// What is there instead.
        problem: String,
    },
    /// The data has no such part.
    #[error("{}: there is no {split} split here; {hint}", path.display())]
    NoSplit {
        /// The data.
        path: PathBuf,
        /// The part that was asked for.
        split: Split,
        /// What to do.
        hint: String,
    },
    /// Images and labels do not belong together.
    #[error("{}: holds {labels} labels, but {} holds {images} images; take both files from the same source", labels_path.display(), images_path.display())]
    CountMismatch {
        /// The file of images.
        images_path: PathBuf,
        /// How many images it holds.
        images: usize,
        /// The file of labels.
        labels_path: PathBuf,
        /// How many labels it holds.
        labels: usize,
    },
    /// A label names no class.
    #[error("{}: sample {index} has label {label}, expected 0 to {}", path.display(), classes.saturating_sub(1))]
    LabelOutOfRange {
        /// The file of labels.
        path: PathBuf,
        /// Which sample.
        index: usize,
        /// Its label.
        label: u32,
        /// How many classes there are.
        classes: usize,
    },
    /// What the caller asked for makes no sense.
    #[error("{0}")]
    Argument(String),
}

impl DataError {
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), problem: problem.into() }
    }
}
