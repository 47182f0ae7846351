//! `Store`: where encoded images lie, whatever holds them; here, in files of their own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::preprocessing::read_file_into;
use super::{ImageProblem, Limits};

/// Encoded images that can be read in any order, from several threads.
pub(super) trait Store: Send + Sync {
    /// A name by which a person finds image `index` again.
    fn name_of(&self, index: usize) -> String;

    /// The file that is image `index`, where it has one of its own.
    fn file_of(&self, _index: usize) -> Option<PathBuf> {
        None
    }

    /// Bytes of image `index` as it is stored, where that is known without reading it.
    fn size_of(&self, index: usize) -> Option<u64>;

    /// Put the encoded image in `bytes`, whatever was there.
    fn read(&self, index: usize, limits: &Limits, bytes: &mut Vec<u8>) -> Result<(), ImageProblem>;

    /// A number that changes whenever the image does, found without reading it. 0 where there is none.
    fn stamp_of(&self, index: usize) -> u64;
}

/// Files by folder. A million of them take some 60 bytes each.
#[derive(Default)]
pub(super) struct Files {
    folders: Vec<PathBuf>,
    /// The index of its folder, and the file's name.
    files: Vec<(u32, Box<OsStr>)>,
}

impl Files {
    /// A folder to add files of.
    pub(super) fn add_folder(&mut self, folder: PathBuf) -> u32 {
        self.folders.push(folder);
        (self.folders.len() - 1) as u32
    }

    /// A file of a folder that was added.
    pub(super) fn add(&mut self, folder: u32, name: &OsStr) {
        self.files.push((folder, name.into()));
    }

    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    pub(super) fn shrink(&mut self) {
        self.files.shrink_to_fit();
    }

    fn path(&self, index: usize) -> PathBuf {
        let (folder, name) = &self.files[index];
        self.folders[*folder as usize].join(&**name)
    }
}

impl Store for Files {
    fn name_of(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }

    fn file_of(&self, index: usize) -> Option<PathBuf> {
        Some(self.path(index))
    }

    fn size_of(&self, index: usize) -> Option<u64> {
        Some(self.path(index).metadata().ok()?.len())
    }

    fn read(&self, index: usize, limits: &Limits, bytes: &mut Vec<u8>) -> Result<(), ImageProblem> {
        let path = self.path(index);
        // A pipe would be waited for, a device may never end.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(ImageProblem::Unreadable("it is no regular file".into()));
        }
        read_file_into(&path, limits, bytes)
    }

    fn stamp_of(&self, index: usize) -> u64 {
        stamp(&self.path(index))
    }
}

/// A number that changes whenever a file does: made of its length, the time of its last change and, on Unix, that of its
/// entry, which no program can set back. 0 where it cannot be told.
pub(super) fn stamp(path: &Path) -> u64 {
    let Ok(metadata) = path.metadata() else { return 0 };
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let nanoseconds = changed.map_or(0, |time| time.as_nanos() as u64);
    let numbers = [metadata.len(), nanoseconds, change_of_entry(&metadata)];
    super::fingerprint::xxh64(numbers.map(u64::to_le_bytes).as_flattened()).max(1)
}

#[cfg(unix)]
fn change_of_entry(metadata: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    (metadata.ctime() as u64).wrapping_mul(1_000_000_000).wrapping_add(metadata.ctime_nsec() as u64)
}

#[cfg(not(unix))]
fn change_of_entry(_: &std::fs::Metadata) -> u64 {
    0
}
