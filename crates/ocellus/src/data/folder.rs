//! Class folders: the name of an image's folder is its class.
//!
//! ```text
//! ROOT/train/CLASS/…/image.jpg    divided: with val (valid, validation), test, as far as there are such
//! ROOT/CLASS/…/image.jpg          not divided
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use super::decode::has_image_extension;
use super::images::{Found, Images};
use super::open::Progress;
use super::{DataError, Dataset, OpenOptions, Split};

/// Where class folders were found.
pub(super) struct ClassFolders {
    pub(super) root: PathBuf,
    /// The folders of class folders; one for `Train` alone where the data is not divided.
    splits: Vec<(Split, PathBuf)>,
}

/// Folders within a class folder are followed this deep.
const MAX_DEPTH: usize = 16;

/// A folder of images of one class.
struct Class {
    name: String,
    path: PathBuf,
}

impl ClassFolders {
    /// What lies in `root`.
    pub(super) fn find(root: &Path) -> Result<Self, DataError> {
        let entries = Entries::of(root)?;
        let divided: Vec<(Split, PathBuf)> = entries
            .folders
            .iter()
            .filter_map(|path| Some((split_of(&file_name(path))?, path.clone())))
            .filter(|(_, path)| Entries::of(path).is_ok_and(|inner| !inner.folders.is_empty() && !inner.has_images()))
            .collect();
        // A class may be called "train": it holds images then, or stands among folders that are no splits.
        let has_train = divided.iter().any(|&(split, _)| split == Split::Train);
        if has_train || (!divided.is_empty() && divided.len() == entries.folders.len()) {
            let mut splits = divided;
            splits.sort();
            if let Some(pair) = splits.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                let (first, second) = (file_name(&pair[0].1), file_name(&pair[1].1));
                let problem = format!("`{first}` and `{second}` both name the {} split; remove one", pair[0].0);
                return Err(DataError::Unrecognised { path: root.to_owned(), problem });
            }
            return Ok(Self { root: root.to_owned(), splits });
        }
        if !entries.folders.is_empty() {
            return Ok(Self { root: root.to_owned(), splits: vec![(Split::Train, root.to_owned())] });
        }
        if entries.has_images() {
            let problem = "holds images, but no class folders, so their classes are unknown".into();
            return Err(DataError::Unrecognised { path: root.to_owned(), problem });
        }
        Err(match entries.files.first() {
            None => DataError::Empty { path: root.to_owned() },
            Some(file) => {
                let problem = format!("holds nothing that is known, but `{}`", file_name(file));
                DataError::Unrecognised { path: root.to_owned(), problem }
            }
        })
    }

    pub(super) fn has(&self, split: Split) -> bool {
        self.folder(split).is_some()
    }

    fn folder(&self, split: Split) -> Option<&Path> {
        self.splits.iter().find(|(s, _)| *s == split).map(|(_, path)| path.as_path())
    }

    pub(super) fn open(&self, options: &OpenOptions, progress: Progress) -> Result<Dataset, DataError> {
        let Some(folder) = self.folder(options.split) else { return Err(DataError::Empty { path: self.root.clone() }) };
        let folders = classes_in(folder)?;
        // The class list is made from the training data, whatever is opened, unless a model brings its own.
        let class_names = match (&options.classes, self.folder(Split::Train)) {
            (Some(classes), _) => classes.clone(),
            (None, Some(train)) if train != folder => names(&classes_in(train)?),
            (None, _) => names(&folders),
        };
        let mut found = Vec::new();
        let mut notes = Vec::new();
        for class in &folders {
            let mut files = Vec::new();
            list_files(&class.path, MAX_DEPTH, &mut files)?;
            files.sort_unstable();
            match class_names.iter().position(|name| *name == class.name) {
                Some(label) => found.extend(files.into_iter().map(|path| Found { path, label: label as u32 })),
                None if files.is_empty() => notes.push(format!("folder `{}` is empty and was ignored", class.name)),
                None => {
                    let path = class.path.clone();
                    return Err(DataError::UnknownClass { path, class: class.name.clone(), known: class_names });
                }
            }
        }
        if found.is_empty() {
            return Err(DataError::Empty { path: folder.to_owned() });
        }
        // A model brings its classes; data that makes its own must have something to tell apart.
        let defines_classes = options.classes.is_none() && options.split == Split::Train;
        if let [only] = &class_names[..]
            && defines_classes
        {
            let inner = folders.first().map(|class| classes_in(&class.path)).transpose()?.unwrap_or_default();
            let hint = match folders.first() {
                Some(class) if inner.len() > 1 => format!("; was {} meant?", class.path.display()),
                _ => String::new(),
            };
            return Err(DataError::OneClass { path: folder.to_owned(), class: only.clone(), hint });
        }
        let images = Images::open(found, folder, options, progress)?;
        let counts = images.samples_per_class(class_names.len());
        for (name, _) in class_names.iter().zip(counts).filter(|&(_, count)| count == 0) {
            match folders.iter().find(|class| class.name == *name) {
                Some(class) if defines_classes => {
                    let first = images.skipped.iter().find(|skipped| skipped.path.starts_with(&class.path));
                    let hint = first.map_or_else(String::new, |s| format!(" (`{}`: {})", file_name(&s.path), s.reason));
                    return Err(DataError::EmptyClass { path: folder.to_owned(), class: name.clone(), hint });
                }
                _ => notes.push(format!("no image of class `{name}` in {}", folder.display())),
            }
        }
        images.into_dataset(class_names, notes)
    }
}

fn names(classes: &[Class]) -> Vec<String> {
    classes.iter().map(|class| class.name.clone()).collect()
}

/// Class folders of a folder, in alphabetical order by bytes.
fn classes_in(folder: &Path) -> Result<Vec<Class>, DataError> {
    let mut classes = Vec::new();
    for path in Entries::of(folder)?.folders {
        let Some(name) =
            path.file_name().and_then(|name| name.to_str()).filter(|name| !name.contains(char::is_control))
        else {
            return Err(DataError::ClassName { path });
        };
        classes.push(Class { name: name.to_owned(), path });
    }
    classes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(classes)
}

/// Files of a folder and the folders within.
fn list_files(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let entries = Entries::of(folder)?;
    files.extend(entries.files);
    if depth > 0 {
        for inner in &entries.folders {
            list_files(inner, depth - 1, files)?;
        }
    }
    Ok(())
}

/// What lies in a folder, without what file managers and notebooks leave behind.
struct Entries {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Entries {
    fn of(folder: &Path) -> Result<Self, DataError> {
        let mut entries = Self { folders: Vec::new(), files: Vec::new() };
        for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
            let entry = entry.map_err(DataError::io(folder))?;
            let path = entry.path();
            if is_stray(&file_name(&path)) {
                continue;
            }
            let kind = entry.file_type().map_err(DataError::io(&path))?;
            // Links are followed, except to a folder that they lie in; what a link points to may be missing.
            let is_folder = if kind.is_symlink() { path.is_dir() && !leads_back(&path, folder) } else { kind.is_dir() };
            if is_folder {
                entries.folders.push(path);
            } else if kind.is_file() || (kind.is_symlink() && !path.is_dir()) {
                entries.files.push(path);
            }
        }
        entries.folders.sort_unstable();
        entries.files.sort_unstable();
        Ok(entries)
    }

    fn has_images(&self) -> bool {
        self.files.iter().any(|file| has_image_extension(file))
    }
}

fn leads_back(link: &Path, folder: &Path) -> bool {
    match (link.canonicalize(), folder.canonicalize()) {
        (Ok(target), Ok(folder)) => folder.starts_with(target),
        _ => true,
    }
}

fn is_stray(name: &str) -> bool {
    name.starts_with('.')
        || ["Thumbs.db", "desktop.ini", "__MACOSX", "__pycache__"].iter().any(|stray| stray.eq_ignore_ascii_case(name))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn split_of(name: &str) -> Option<Split> {
    match name.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Split::Train),
        "val" | "valid" | "validation" => Some(Split::Validation),
        "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}
