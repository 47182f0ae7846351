//! The one way in: what lies at a path, or behind a name, is recognised and read.

use std::path::{Path, PathBuf};

use super::cifar::Cifar;
use super::folder::ClassFolders;
use super::known::Known;
use super::mnist::IdxFiles;
use super::{DataError, Dataset, Preprocessing, Split, builtin};

/// What is wanted of a data set.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Which part.
    pub split: Split,
    /// Height and width of the images. By default the size they have; where they differ or are large, a size that suits
    /// them, with a note in [`Dataset::notes`].
    pub image_size: Option<[usize; 2]>,
    /// 1 for grey, 3 for RGB. By default what the images have.
    pub channels: Option<usize>,
    /// How images become pixels, in full, as a model file has it. It overrides `image_size` and `channels`.
    pub preprocessing: Option<Preprocessing>,
    /// Class names in the order of the labels, as a model was trained with. By default made from the training data: the
    /// folders' names in alphabetical order (by bytes, as Keras), or the names that belong to the format.
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
            preprocessing: None,
            classes: None,
            strict: false,
            limits: Limits::default(),
        }
    }
}

impl OpenOptions {
    /// Preprocessing for images that have `shape` (`[height, width, channels]`) where nothing else was asked for.
    pub(super) fn preprocessing_for(&self, shape: [usize; 3]) -> Result<Preprocessing, DataError> {
        let preprocessing = self.preprocessing.clone().unwrap_or_else(|| Preprocessing {
            image_size: self.image_size.unwrap_or([shape[0], shape[1]]),
            channels: self.channels.unwrap_or(shape[2]),
            ..Preprocessing::default()
        });
        preprocessing.check()?;
        Ok(preprocessing)
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

/// Told how many of how many images have been read; called from several threads.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

impl Dataset {
    /// Open the data at a path, or a known data set by its name.
    ///
    /// A folder may hold class folders (divided, `train/cat/1.jpg`, `test/…`, or not, `cat/1.jpg`), the IDX files of MNIST
    /// and its like, or CIFAR's binary files. Class folders that are not divided are all [`Split::Train`].
    ///
    /// # Errors
    /// There is nothing that could be understood, or it is damaged: see [`DataError`].
    pub fn open(data: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, DataError> {
        Self::open_with(data, options, &|_, _| {})
    }

    /// [`Dataset::open`], reporting how far reading a folder of images has come.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_with(data: impl AsRef<Path>, options: &OpenOptions, progress: Progress) -> Result<Self, DataError> {
        Layout::recognise(data.as_ref())?.open(options, progress)
    }
}

/// The parts that the data at a path or of a name has. Class folders that are not divided have [`Split::Train`] alone.
///
/// # Errors
/// There is nothing that could be understood.
pub fn splits_of(data: impl AsRef<Path>) -> Result<Vec<Split>, DataError> {
    let layout = Layout::recognise(data.as_ref())?;
    Ok(Split::ALL.into_iter().filter(|&split| layout.has(split)).collect())
}

/// What was found at a path.
enum Layout {
    Builtin,
    Idx(PathBuf),
    IdxFile(IdxFiles),
    Cifar(Cifar),
    Folders(ClassFolders),
}

impl Layout {
    fn recognise(path: &Path) -> Result<Self, DataError> {
        if !path.exists() {
            let name = path.to_string_lossy();
            return match Known::of_name(&name) {
                Some(Known { in_binary: true, .. }) => Ok(Self::Builtin),
                Some(Known { folder: Some(folder), .. }) => Self::recognise(&folder),
                Some(known) => Err(DataError::NotFound {
                    data: name.into_owned(),
                    hint: format!("that data set is not on this machine: {}", known.source),
                }),
                None => Err(DataError::not_found(&name)),
            };
        }
        if path.is_file() {
            if let Some(files) = IdxFiles::of_file(path) {
                return Ok(Self::IdxFile(files));
            }
            if let Some(cifar) = Cifar::of_file(path) {
                return Ok(Self::Cifar(cifar));
            }
            return Err(DataError::Unrecognised {
                path: path.to_owned(),
                problem: "is a file of no known kind".into(),
            });
        }
        if Split::ALL.iter().any(|&split| IdxFiles::find(path, split).is_some()) {
            return Ok(Self::Idx(path.to_owned()));
        }
        if let Some(cifar) = Cifar::find(path) {
            return Ok(Self::Cifar(cifar));
        }
        ClassFolders::find(path).map(Self::Folders)
    }

    fn has(&self, split: Split) -> bool {
        match self {
            Self::Builtin => split != Split::Validation,
            Self::Idx(folder) => IdxFiles::find(folder, split).is_some(),
            Self::IdxFile(_) => split == Split::Train,
            Self::Cifar(cifar) => cifar.has(split),
            Self::Folders(folders) => folders.has(split),
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Builtin => Known::BUILTIN.into(),
            Self::Idx(folder) => folder.clone(),
            Self::IdxFile(files) => files.images.clone(),
            Self::Cifar(cifar) => cifar.path.clone(),
            Self::Folders(folders) => folders.root.clone(),
        }
    }

    fn open(&self, options: &OpenOptions, progress: Progress) -> Result<Dataset, DataError> {
        let split = options.split;
        if !self.has(split) {
            let hint = match split {
                Split::Train => "use it to evaluate a model",
                Split::Validation | Split::Test => "hold back a fraction of the training data, or name other data",
            };
            return Err(DataError::NoSplit { path: self.path(), split, hint: hint.into() });
        }
        match self {
            Self::Builtin => builtin(split).and_then(|data| fit(data, Known::BUILTIN.as_ref(), false, options)),
            Self::Idx(folder) => match IdxFiles::find(folder, split) {
                Some(files) => Self::open_idx(&files, options),
                None => Err(DataError::Empty { path: folder.clone() }),
            },
            Self::IdxFile(files) => Self::open_idx(files, options),
            Self::Cifar(cifar) => fit(cifar.open(split)?, &cifar.path, false, options),
            Self::Folders(folders) => folders.open(options, progress),
        }
    }

    fn open_idx(files: &IdxFiles, options: &OpenOptions) -> Result<Dataset, DataError> {
        let (data, named) = files.open()?;
        fit(data, &files.labels, !named, options)
    }
}

/// Bring data that was read whole to the classes and the shape that are asked for. Where `numbered`, its classes have no
/// names but numbers, and are taken in order.
fn fit(data: Dataset, path: &Path, numbered: bool, options: &OpenOptions) -> Result<Dataset, DataError> {
    let preprocessing = options.preprocessing_for(data.image_shape())?;
    if let [class] = data.class_names()
        && options.classes.is_none()
    {
        return Err(DataError::OneClass { path: path.to_owned(), class: class.clone(), hint: String::new() });
    }
    // A gap in the numbers may be the labels' first number, or the mark of a wrong label.
    let data = if options.classes.is_none() { data.with_gaps_noted(path) } else { data };
    let data = match &options.classes {
        Some(classes) if data.class_names() != classes.as_slice() => data.with_classes(classes, path, numbered)?,
        _ => data,
    };
    data.prepared(preprocessing, options.limits.memory)
}
