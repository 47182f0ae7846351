//! The one way in: what lies at a path, or behind a name, is recognised and read.

use std::path::{Path, PathBuf};

use super::{DataError, Dataset, Split, builtin, idx};

/// What is wanted of a data set.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Which part.
    pub split: Split,
    /// Height and width of the images. By default the size they have; where they differ, a size that suits them.
    pub image_size: Option<[usize; 2]>,
    /// 1 for grey, 3 for RGB. By default what the images have.
    pub channels: Option<usize>,
    /// Class names in the order of the labels, as a model was trained with. By default made from the data: the folders'
    /// names in alphabetical order (by bytes, as Keras), or the names that belong to the format.
    pub classes: Option<Vec<String>>,
    /// Whether a damaged image is an error. By default it is skipped, and listed in [`Dataset::skipped`].
    pub strict: bool,
    /// How much a file may ask for.
    pub limits: Limits,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            split: Split::Train,
            image_size: None,
            channels: None,
            classes: None,
            strict: false,
            limits: Limits::default(),
        }
    }
}

/// How much a file may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Pixels of one image as its header states them; a larger one is refused before memory is set aside. 2^27, that is 134 million.
    pub pixels: u64,
    /// Bytes of decoded images that are kept in memory. Beyond, images are decoded anew each time. 1 GiB.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pixels: 1 << 27, memory: 1 << 30 }
    }
}

impl Dataset {
    /// Open the data at a path, or a known data set by its name.
    ///
    /// # Errors
    /// There is nothing that could be understood, or it is damaged: see [`DataError`].
    pub fn open(data: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, DataError> {
        let path = data.as_ref();
        if let Some(files) = IdxFiles::find(path, options.split) {
            return files.open(options);
        }
        if path.as_os_str() == "fashion-mnist" {
            return builtin(options.split);
        }
        Err(DataError::Unrecognised { path: path.to_owned(), problem: "no data found".into() })
    }
}

/// The files of one split in IDX.
struct IdxFiles {
    images: PathBuf,
    labels: PathBuf,
}

impl IdxFiles {
    fn find(folder: &Path, split: Split) -> Option<Self> {
        let prefixes: &[&str] = match split {
            Split::Train => &["train"],
            Split::Validation => &["validation", "valid", "val"],
            Split::Test => &["t10k", "test"],
        };
        let find = |prefix: &str, kind: &str, dimensions: u32| {
            ["-idx", ".idx"].iter().flat_map(|join| ["", ".gz"].map(|end| (join, end))).find_map(|(join, end)| {
                let file = folder.join(format!("{prefix}-{kind}{join}{dimensions}-ubyte{end}"));
                file.is_file().then_some(file)
            })
        };
        prefixes
            .iter()
            .find_map(|prefix| Some(Self { images: find(prefix, "images", 3)?, labels: find(prefix, "labels", 1)? }))
    }

    fn open(self, _options: &OpenOptions) -> Result<Dataset, DataError> {
        let labels = idx::read(&self.labels, &[1])?;
        let images = idx::read(&self.images, &[3])?;
        if labels.sizes[0] != images.sizes[0] {
            return Err(DataError::CountMismatch {
                images_path: self.images,
                images: images.sizes[0],
                labels_path: self.labels,
                labels: labels.sizes[0],
            });
        }
        let labels: Vec<u32> = labels.data.into_iter().map(u32::from).collect();
        let classes = labels.iter().max().map_or(0, |&l| l as usize + 1);
        Dataset::from_pixels(
            images.data,
            [images.sizes[1], images.sizes[2], 1],
            labels,
            (0..classes).map(|c| c.to_string()).collect(),
        )
    }
}
