//! Images of which no class is known: all files of a folder, whatever its layout.

use std::path::Path;
use std::sync::Arc;

use super::catalog::{Catalog, CatalogImages, Classes, NONE, Sample};
use super::folder::files_within;
use super::store::Store;
use super::{DataError, Dataset, OpenOptions, Progress, Split, images};

impl Dataset {
    /// All images of a folder and the folders within, prepared as `options` say. They have one class, which means nothing;
    /// files that are no images are [skipped](Dataset::skipped).
    ///
    /// # Errors
    /// A folder cannot be read, there are no files, or none is an image that can be used.
    pub fn open_unlabelled(
        folder: impl AsRef<Path>,
        options: &OpenOptions,
        progress: Progress,
    ) -> Result<Self, DataError> {
        let folder = folder.as_ref();
        let (files, notes) = files_within(folder)?;
        let count = files.count();
        if count == 0 {
            let problem = format!("{}: there are no files here; expected images", folder.display());
            return Err(DataError::Argument(problem));
        }
        let store: Arc<dyn Store> = Arc::new(files);
        let catalog = Catalog {
            path: folder.to_owned(),
            images: CatalogImages::Encoded(store.clone()),
            samples: vec![Sample { label: 0, group: NONE, split: Split::Train }; count].into(),
            classes: Classes { names: vec![UNKNOWN.into()], known: 1 },
            groups: Arc::default(),
            class_folders: Vec::new(),
            refused: Vec::new(),
            notes,
        };
        let options = OpenOptions { split: Split::Train, classes: Some(vec![UNKNOWN.into()]), ..options.clone() };
        images::open(&catalog, &store, &options, progress).map_err(|error| match error {
            DataError::Unrecognised { path, problem } => DataError::Argument(format!(
                "{}: none of its files is an image that can be used; {}: {problem}",
                folder.display(),
                path.display()
            )),
            other => other,
        })
    }
}

/// What stands for a class.
const UNKNOWN: &str = "unlabelled";
