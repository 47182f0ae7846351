//! What can be wrong with data, said so that the reader knows which file, what was expected, and what to do.

use std::path::{Path, PathBuf};

use super::Split;

/// The layouts that are recognised.
const EXPECTED: &str = "class folders (train/CLASS/image.jpg, test/CLASS/… or CLASS/image.jpg), a manifest (.csv, .jsonl), \
    IDX files (train-images-idx3-ubyte and its like, plain or .gz), CIFAR binary files (data_batch_1.bin …), \
    .npz, .zip, .tar, .tar.gz or .parquet";

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
    #[error("{data}: no such file or folder; {hint}")]
    NotFound {
        /// What was asked for.
        data: String,
        /// What to do.
        hint: String,
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
    /// An image could not be used.
    #[error("{}: {problem}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: ImageProblem,
    },
    /// Images could not be used, where that is not to be borne.
    #[error("{}: {problem}{}; repair or remove, or leave out strict reading", path.display(), and_others(*others))]
    Strict {
        /// The first such file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// How many more there are.
        others: usize,
    },
    /// A folder holds no images.
    #[error("{}: there are no images here; expected class folders with PNG, JPEG, WebP, GIF, BMP or TIFF files", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// There is nothing to tell apart.
    #[error("{}: there is one class only, `{class}`; a classifier needs two or more{hint}", path.display())]
    OneClass {
        /// The folder of class folders, or the file of labels.
        path: PathBuf,
        /// The only class.
        class: String,
        /// What may have been meant.
        hint: String,
    },
    /// A class has nothing to learn from.
    #[error("{}: class `{class}` has no usable image; add images or remove the class{hint}", path.display())]
    EmptyClass {
        /// The data.
        path: PathBuf,
        /// The class.
        class: String,
        /// Why its images could not be used, if there are any.
        hint: String,
    },
    /// A class that the model does not know.
    #[error("{}: class `{class}` is not among the {} classes of the training data ({}); remove its images or train with them", path.display(), known.len(), shortened(known))]
    UnknownClass {
        /// The folder or file that names it.
        path: PathBuf,
        /// The class.
        class: String,
        /// Classes that are known.
        known: Vec<String>,
    },
    /// A folder's name cannot be a class name.
    #[error("{path:?}: a class name must be UTF-8 without line breaks and control characters; rename the folder")]
    ClassName {
        /// The folder.
        path: PathBuf,
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

/// Why an image file could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageProblem {
    /// There is nothing in it.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// It is something else, whatever its name says.
    #[error("not an image that is understood: it holds {found}")]
    Unrecognised {
        /// What it seems to hold.
        found: String,
    },
    /// Its header states more pixels than an image may have.
    #[error("its header states {width} x {height} pixels, more than the limit of {} million", limit / 1_000_000)]
    TooLarge {
        /// Stated width.
        width: u32,
        /// Stated height.
        height: u32,
        /// Most pixels allowed.
        limit: u64,
    },
    /// It ends too early.
    #[error("the image is truncated")]
    Truncated,
    /// It cannot be decoded.
    #[error("the image is damaged: {0}")]
    Damaged(String),
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => " (and 1 other file)".into(),
        n => format!(" (and {n} other files)"),
    }
}

/// The first names of a list.
fn shortened(names: &[String]) -> String {
    let mut list = names.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 10 {
        list.push_str(", …");
    }
    list
}

impl DataError {
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn not_found(data: &str) -> Self {
        let names: Vec<&str> = super::known().iter().map(|known| known.name).collect();
        Self::NotFound { data: data.into(), hint: format!("nor is it the name of a data set ({})", names.join(", ")) }
    }

    pub(super) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), problem: problem.into() }
    }
}
