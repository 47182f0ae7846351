//! Class folders: the name of an image's folder is its class.
//!
//! ```text
//! ROOT/train/CLASS/…/image.jpg    divided: with val (valid, validation), test, as far as there are such
//! ROOT/CLASS/…/image.jpg          not divided
//! ```

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalog::{Catalog, CatalogImages, Classes, MAX_CLASSES, NONE, Sample};
use super::decode::has_image_extension;
use super::store::Files;
use super::{DataError, Split};

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
            .filter_map(|name| Some((split_of(name.to_str()?)?, root.join(name))))
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
                let problem = format!("holds nothing that is known, but `{}`", file.to_string_lossy());
                DataError::Unrecognised { path: root.to_owned(), problem }
            }
        })
    }

    pub(super) fn has(&self, split: Split) -> bool {
        self.splits.iter().any(|(of, _)| *of == split)
    }

    /// All files in class folders, by part, class and path.
    pub(super) fn list(&self) -> Result<Catalog, DataError> {
        let listed = self.splits.iter().map(|(split, folder)| Ok((*split, classes_in(folder)?)));
        let listed: Vec<(Split, Vec<Class>)> = listed.collect::<Result<_, DataError>>()?;
        let trained = listed.iter().find(|(split, _)| *split == Split::Train).or(listed.first());
        let mut names: Vec<String> = trained.map(|(_, classes)| names(classes)).unwrap_or_default();
        let known = names.len();
        for ((_, classes), (_, folder)) in listed.iter().zip(&self.splits) {
            if classes.len() > MAX_CLASSES {
                let count = classes.len();
                let problem =
                    format!("holds {count} class folders, more than the {MAX_CLASSES} classes that there may be");
                return Err(DataError::format(folder, problem));
            }
        }
        let mut unknown: HashMap<&str, usize> = HashMap::new();
        let (mut files, mut samples, mut notes) = (Files::default(), Vec::new(), Vec::new());
        let mut links = Vec::new();
        for (split, classes) in &listed {
            for class in classes {
                let before = files.count();
                if class.path.is_symlink() {
                    links.push(class.path.clone());
                }
                list_files(class.path.clone(), MAX_DEPTH, &mut files, &mut links, &mut HashSet::new())?;
                let found = files.count() - before;
                let label = match names[..known].binary_search(&class.name) {
                    Ok(label) => label,
                    Err(_) if found == 0 => {
                        notes.push(format!("folder `{}` is empty and was ignored", class.name));
                        continue;
                    }
                    Err(_) => *unknown.entry(&class.name).or_insert_with(|| {
                        names.push(class.name.clone());
                        names.len() - 1
                    }),
                };
                samples.extend((0..found).map(|_| Sample { label: label as u32, group: NONE, split: *split }));
            }
        }
        files.shrink();
        notes.extend(about_links(&self.root, &links));
        Ok(Catalog {
            path: self.root.clone(),
            images: CatalogImages::Encoded(Arc::new(files)),
            samples: samples.into(),
            classes: Classes { names, known },
            groups: Arc::default(),
            class_folders: self.splits.clone(),
            refused: Vec::new(),
            notes,
        })
    }
}

/// All files of a folder and the folders within, and what to tell of links.
pub(super) fn files_within(folder: &Path) -> Result<(Files, Vec<String>), DataError> {
    let (mut files, mut links) = (Files::default(), Vec::new());
    list_files(folder.to_owned(), MAX_DEPTH, &mut files, &mut links, &mut HashSet::new())?;
    files.shrink();
    Ok((files, about_links(folder, &links).into_iter().collect()))
}

/// What to tell of links that lead out of the data: whose data it is may not know what it names.
fn about_links(data: &Path, links: &[PathBuf]) -> Option<String> {
    let root = data.canonicalize().ok()?;
    let leads_out = |link: &&PathBuf| link.canonicalize().is_ok_and(|target| !target.starts_with(&root));
    let mut outside = links.iter().take(MAX_LINKS).filter(leads_out);
    let first = outside.next()?.display();
    Some(match outside.count() {
        0 => format!("{first} is a link that leads out of {}; it is followed", data.display()),
        more => format!("{first} and {more} more links lead out of {}; they are followed", data.display()),
    })
}

/// Links of which it is looked up where they lead, at most.
const MAX_LINKS: usize = 10_000;

/// A folder within the only class folder that was perhaps meant, since it holds several.
pub(super) fn perhaps_meant(class_folder: &Path) -> bool {
    classes_in(class_folder).is_ok_and(|inner| inner.len() > 1)
}

fn names(classes: &[Class]) -> Vec<String> {
    classes.iter().map(|class| class.name.clone()).collect()
}

/// Class folders of a folder, in alphabetical order by bytes.
fn classes_in(folder: &Path) -> Result<Vec<Class>, DataError> {
    let mut classes = Vec::new();
    for name in Entries::of(folder)?.folders {
        let path = folder.join(&name);
        let Some(name) = name.to_str().filter(|name| !name.contains(char::is_control)) else {
            return Err(DataError::ClassName { path });
        };
        classes.push(Class { name: name.to_owned(), path });
    }
    classes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(classes)
}

/// Files of a folder and the folders within, and which of these are links. A folder is `entered` by one link at most: two
/// that lead into each other's would else be followed in all orders.
fn list_files(
    folder: PathBuf,
    depth: usize,
    files: &mut Files,
    links: &mut Vec<PathBuf>,
    entered: &mut HashSet<PathBuf>,
) -> Result<(), DataError> {
    let entries = Entries::of(&folder)?;
    links.extend(entries.links.iter().map(|name| folder.join(name)));
    let mut is_new = |name: &&OsString| {
        let linked = entries.links.binary_search(name).is_ok();
        !linked || folder.join(name).canonicalize().is_ok_and(|target| entered.insert(target))
    };
    let inner: Vec<PathBuf> = entries.folders.iter().filter(&mut is_new).map(|name| folder.join(name)).collect();
    if !entries.files.is_empty() {
        let folder = files.add_folder(folder);
        for name in &entries.files {
            files.add(folder, name);
        }
    }
    if depth > 0 {
        for inner in inner {
            list_files(inner, depth - 1, files, links, entered)?;
        }
    }
    Ok(())
}

/// What lies in a folder, without what file managers and notebooks leave behind.
struct Entries {
    folders: Vec<OsString>,
    files: Vec<OsString>,
    /// Those of both that are links.
    links: Vec<OsString>,
}

impl Entries {
    fn of(folder: &Path) -> Result<Self, DataError> {
        let mut entries = Self { folders: Vec::new(), files: Vec::new(), links: Vec::new() };
        for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
            let entry = entry.map_err(DataError::io(folder))?;
            let name = entry.file_name();
            if is_stray(&name) {
                continue;
            }
            let kind = entry.file_type().map_err(|error| DataError::io(&entry.path())(error))?;
            if kind.is_symlink() {
                entries.links.push(name.clone());
            }
            // Links are followed, except to a folder that they lie in; what a link points to may be missing.
            let linked_folder = kind.is_symlink().then(|| entry.path()).filter(|path| path.is_dir());
            if kind.is_dir() || linked_folder.as_ref().is_some_and(|path| !leads_back(path, folder)) {
                entries.folders.push(name);
            } else if kind.is_file() || (kind.is_symlink() && linked_folder.is_none()) {
                entries.files.push(name);
            }
        }
        entries.folders.sort_unstable();
        entries.files.sort_unstable();
        entries.links.sort_unstable();
        Ok(entries)
    }

    fn has_images(&self) -> bool {
        self.files.iter().any(|file| has_image_extension(Path::new(file)))
    }
}

fn leads_back(link: &Path, folder: &Path) -> bool {
    match (link.canonicalize(), folder.canonicalize()) {
        (Ok(target), Ok(folder)) => folder.starts_with(target),
        _ => true,
    }
}

/// What file managers, notebooks and version control leave behind.
pub(crate) fn is_stray(name: &OsStr) -> bool {
    let strays = ["Thumbs.db", "desktop.ini", "__MACOSX", "__pycache__"];
    name.as_encoded_bytes().starts_with(b".") || strays.iter().any(|stray| name.eq_ignore_ascii_case(stray))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The part that a name means.
pub(super) fn split_of(name: &str) -> Option<Split> {
    match name.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Split::Train),
        "val" | "valid" | "validation" | "dev" => Some(Split::Validation),
        "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}
