//! The one way in: what lies at a path, or behind a name, is recognised and read.

use std::path::{Path, PathBuf};

use super::cache::CacheOptions;
use super::catalog::{Catalog, CatalogImages};
use super::cifar::Cifar;
use super::folder::ClassFolders;
use super::images;
use super::known::Known;
use super::mnist::IdxFiles;
use super::npz::{Npz, is_npz};
use super::{
    DataError, Dataset, ImageProblem, Preprocessing, Split, Splits, builtin, manifest, members, parquet, tar, zip,
};

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
    /// Where prepared images are kept between runs. By default nowhere.
    pub cache: Option<CacheOptions>,
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
            cache: None,
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
    /// Bytes of decoded images that are kept in memory. Beyond, images are decoded anew each time. 256 MiB.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pixels: 1 << 27, memory: 1 << 28 }
    }
}

impl Limits {
    /// The most bytes that an encoded image may have.
    pub(super) fn encoded_bytes(&self) -> u64 {
        self.pixels.saturating_mul(8).saturating_add(1 << 20)
    }

    /// The length of an encoded image, where it is within limits.
    pub(super) fn allow(&self, length: u64) -> Result<usize, ImageProblem> {
        let allowed = usize::try_from(length).ok().filter(|_| length <= self.encoded_bytes());
        allowed.ok_or_else(|| ImageProblem::Unreadable(format!("{length} bytes are too many for one image")))
    }
}

/// Samples of data that is kept whole.
pub(super) const MOST_SAMPLES: usize = 1 << 24;

/// The most bytes that packed data is unpacked to where all of it is kept: 128 MB do no harm, and photographs shrink to a tenth at
/// best, drawn shapes to a hundredth; deflate's own limit is a thousandth.
pub(super) fn trusted(packed: u64) -> u64 {
    packed.saturating_mul(300).max(1 << 27)
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

impl Splits {
    /// Open every part that the data has; `options.split` has no say.
    ///
    /// # Errors
    /// As [`Dataset::open`]; also where there is no training data.
    pub fn open(data: impl AsRef<Path>, options: &OpenOptions, progress: Progress) -> Result<Self, DataError> {
        let layout = Layout::recognise(data.as_ref())?.listed()?;
        let train = layout.open(&OpenOptions { split: Split::Train, ..options.clone() }, progress)?;
        let alike = OpenOptions {
            classes: Some(train.class_names().to_vec()),
            preprocessing: Some(train.preprocessing().clone()),
            ..options.clone()
        };
        let open = |split| {
            let options = OpenOptions { split, ..alike.clone() };
            layout.has(split).then(|| layout.open(&options, progress)).transpose()
        };
        Ok(Self { validation: open(Split::Validation)?, test: open(Split::Test)?, train })
    }
}

/// What was found at a path.
pub(super) enum Layout {
    Builtin,
    Idx(PathBuf),
    IdxFile(IdxFiles),
    Cifar(Cifar),
    Npz(Box<Npz>),
    /// Listed whenever that is needed, which may take a while.
    Folders(ClassFolders),
    Listed(Box<Catalog>),
}

impl Layout {
    pub(super) fn recognise(path: &Path) -> Result<Self, DataError> {
        if !path.exists() {
            let name = path.to_string_lossy();
            if name.contains('{') {
                return Self::of_files(path, &members::expand_braces(path)?);
            }
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
            return Self::of_files(path, &[path.to_owned()]);
        }
        if Split::ALL.iter().any(|&split| IdxFiles::find(path, split).is_some()) {
            return Ok(Self::Idx(path.to_owned()));
        }
        if let Some(cifar) = Cifar::find(path) {
            return Ok(Self::Cifar(cifar));
        }
        if let Some(file) = manifest::NAMES.iter().map(|name| path.join(name)).find(|file| file.is_file()) {
            return Ok(Self::Listed(Box::new(manifest::read(&file)?)));
        }
        match ClassFolders::find(path) {
            Ok(folders) => Ok(Self::Folders(folders)),
            // A folder of archives or tables is all of them.
            Err(error) => match files_of_one_kind(path) {
                Some(files) => Self::of_files(path, &files),
                None => Err(error),
            },
        }
    }

    /// What files hold that together are data at `path`.
    fn of_files(path: &Path, files: &[PathBuf]) -> Result<Self, DataError> {
        let listed = |catalog: Catalog| Ok(Self::Listed(Box::new(catalog)));
        let all = |is: fn(&Path) -> bool| files.iter().all(|file| is(file));
        if all(tar::is_tar) {
            return listed(tar::catalog(path, files)?);
        }
        if all(parquet::is_parquet) {
            return listed(parquet::catalog(path, files)?);
        }
        let [file] = files else {
            let problem = "stands for several files; expected .tar, .tar.gz or .parquet files".into();
            return Err(DataError::Unrecognised { path: path.to_owned(), problem });
        };
        if let Some(files) = IdxFiles::of_file(file) {
            return Ok(Self::IdxFile(files));
        }
        if let Some(cifar) = Cifar::of_file(file) {
            return Ok(Self::Cifar(cifar));
        }
        if is_npz(file) {
            return Ok(Self::Npz(Box::new(Npz::open(file)?)));
        }
        if zip::is_zip(file) {
            return listed(zip::catalog(file)?);
        }
        if manifest::is_manifest(file) {
            return listed(manifest::read(file)?);
        }
        Err(DataError::Unrecognised { path: path.to_owned(), problem: "is a file of no known kind".into() })
    }

    /// The same, with all that is to be listed listed.
    fn listed(self) -> Result<Self, DataError> {
        Ok(match self {
            Self::Folders(folders) => Self::Listed(Box::new(folders.list()?)),
            other => other,
        })
    }

    /// Every sample of all parts.
    pub(super) fn catalog(self) -> Result<Catalog, DataError> {
        let path = self.path();
        let layout = match self.listed()? {
            Self::Listed(catalog) => return Ok(*catalog),
            layout => layout,
        };
        let mut parts = Vec::new();
        for split in Split::ALL.into_iter().filter(|&split| layout.has(split)) {
            parts.push((split, layout.read(split)?.0));
        }
        Ok(Catalog::of_datasets(path, parts))
    }

    fn has(&self, split: Split) -> bool {
        match self {
            Self::Builtin => split != Split::Validation,
            Self::Idx(folder) => IdxFiles::find(folder, split).is_some(),
            Self::IdxFile(_) => split == Split::Train,
            Self::Cifar(cifar) => cifar.has(split),
            Self::Npz(npz) => npz.has(split),
            Self::Folders(folders) => folders.has(split),
            Self::Listed(catalog) => catalog.has(split),
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Builtin => Known::BUILTIN.into(),
            Self::Idx(folder) => folder.clone(),
            Self::IdxFile(files) => files.images.clone(),
            Self::Cifar(cifar) => cifar.path.clone(),
            Self::Npz(npz) => npz.path.clone(),
            Self::Folders(folders) => folders.root.clone(),
            Self::Listed(catalog) => catalog.path.clone(),
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
            Self::Listed(catalog) => open_listed(catalog, options, progress),
            Self::Folders(folders) => open_listed(&folders.list()?, options, progress),
            _ => {
                let (data, numbered) = self.read(split)?;
                fit(data, &self.labels_path(split), numbered, options)
            }
        }
    }

    /// A part of a format that is read whole, and whether its classes have numbers for names.
    fn read(&self, split: Split) -> Result<(Dataset, bool), DataError> {
        let idx = |files: &IdxFiles| files.open().map(|(data, named)| (data, !named));
        match self {
            Self::Builtin => Ok((builtin(split)?, false)),
            Self::Idx(folder) => {
                let files = IdxFiles::find(folder, split);
                idx(&files.ok_or_else(|| DataError::Empty { path: folder.clone() })?)
            }
            Self::IdxFile(files) => idx(files),
            Self::Cifar(cifar) => Ok((cifar.open(split)?, false)),
            Self::Npz(npz) => Ok((npz.read(split)?, true)),
            Self::Folders(_) | Self::Listed(_) => Err(DataError::Argument("encoded images are not read whole".into())),
        }
    }

    /// Where the labels of a part are, for messages.
    fn labels_path(&self, split: Split) -> PathBuf {
        match self {
            Self::Idx(folder) => IdxFiles::find(folder, split).map_or_else(|| folder.clone(), |files| files.labels),
            Self::IdxFile(files) => files.labels.clone(),
            Self::Npz(npz) => npz.labels_path(split),
            _ => self.path(),
        }
    }
}

fn open_listed(catalog: &Catalog, options: &OpenOptions, progress: Progress) -> Result<Dataset, DataError> {
    match &catalog.images {
        CatalogImages::Encoded(store) => images::open(catalog, store, options, progress),
        CatalogImages::Pixels(_) => Err(DataError::Argument("pixels are not decoded".into())),
    }
}

/// The archives or tables of a folder, or of the folder `data` in it, where there are such.
fn files_of_one_kind(folder: &Path) -> Option<Vec<PathBuf>> {
    [folder.to_owned(), folder.join("data")].into_iter().find_map(|folder| {
        let entries = std::fs::read_dir(folder).ok()?;
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort_unstable();
        [tar::is_tar as fn(&Path) -> bool, parquet::is_parquet].into_iter().find_map(|is| {
            let of_kind: Vec<PathBuf> = files.iter().filter(|file| is(file) && file.is_file()).cloned().collect();
            (!of_kind.is_empty()).then_some(of_kind)
        })
    })
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
