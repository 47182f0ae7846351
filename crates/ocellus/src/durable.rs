//! Writing files so that a reader, or a crash, never sees half of one: written beside, then renamed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file could not be written; what stood at its path before still stands there.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {}", path.display(), explain(source))]
pub struct WriteError {
    /// The file that was to be written.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

/// Writes `bytes` to `path`, all of them or none: into a new file in the same folder, flushed to disk, then renamed
/// over `path`.
///
/// A symbolic link is followed and kept. A path that is no regular file (`/dev/stdout`, a pipe) is written to directly.
pub fn write_atomically(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<(), WriteError> {
    let bytes = bytes.as_ref();
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// As [`write_atomically`], for contents that are produced piece by piece.
///
/// The writer is not buffered: wrap it where the pieces are small, and flush.
pub fn write_atomically_with(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), WriteError> {
    let path = path.as_ref();
    replace(path, write).map_err(|source| WriteError { path: path.to_owned(), source })
}

/// Makes a folder, and those above it, where they are missing.
pub fn create_folder(folder: impl AsRef<Path>) -> Result<(), WriteError> {
    let folder = folder.as_ref();
    fs::create_dir_all(folder).map_err(|source| WriteError { path: folder.to_owned(), source })
}

/// Checks that files could be written in `folder`, or that it could be made, and leaves everything as it was: a long run
/// finds out before it starts that its results could not be kept.
pub fn check_writable(folder: impl AsRef<Path>) -> Result<(), WriteError> {
    let folder = folder.as_ref();
    let here = Path::new(".");
    let mut ancestors = folder.ancestors().map(|path| if path.as_os_str().is_empty() { here } else { path });
    let existing = ancestors.find(|path| path.symlink_metadata().is_ok()).unwrap_or(here);
    let probe = || {
        if !fs::metadata(existing)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let (file, temporary) = create_beside(&existing.join("probe"))?;
        drop(file);
        fs::remove_file(temporary)
    };
    probe().map_err(|source| WriteError { path: folder.to_owned(), source })
}

fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let existing = match fs::metadata(path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let target = match &existing {
        Some(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Some(metadata) if !metadata.is_file() => return write(&mut OpenOptions::new().write(true).open(path)?),
        Some(_) => fs::canonicalize(path)?,
        None => path.to_owned(),
    };
    let (mut file, temporary) = create_beside(&target)?;
    let written = (|| {
        write(&mut file)?;
        if let Some(metadata) = &existing {
            // Not every file system knows permissions: the new file's own will do there.
            let _ = file.set_permissions(metadata.permissions());
        }
        file.sync_all()?;
        fs::rename(&temporary, &target)
    })();
    match written {
        Ok(()) => sync_folder(&target),
        Err(_) => {
            // The first error is the one to tell.
            let _ = fs::remove_file(&temporary);
        }
    }
    written
}

/// A new, empty file in `path`'s folder that no other writer uses, and its path.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    loop {
        let mut beside = OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}-{}.part", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let beside = path.with_file_name(beside);
        match OpenOptions::new().write(true).create_new(true).open(&beside) {
            Ok(file) => return Ok((file, beside)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes the rename itself last through a power failure, where the system can.
fn sync_folder(path: &Path) {
    if cfg!(unix)
        && let Some(folder) = path.parent()
    {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        // The file is complete either way.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// The system's message, with what to do about it.
fn explain(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space or choose another place",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "choose a place you may write to",
        io::ErrorKind::NotFound => "the folder does not exist: create it or choose another",
        io::ErrorKind::IsADirectory => "it is a folder: name a file",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file stands where a folder is needed: move it or choose another place"
        }
        _ => return error.to_string(),
    };
    format!("{error} ({advice})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn writes_new_and_over_old_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        for bytes in [&b"first"[..], b"", b"second, longer"] {
            write_atomically(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(names(folder.path()), ["model"]);
    }

    #[test]
    fn a_failure_keeps_the_old_file_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        write_atomically(&path, "old").unwrap();
        let error = write_atomically_with(&path, |file| {
            file.write_all(b"half of the n")?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert_eq!(error.path, path);
        assert!(error.to_string().starts_with(&format!("cannot write {}: ", path.display())), "{error}");
        assert!(error.to_string().contains("free some space"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["model"]);
    }

    #[test]
    fn an_impossible_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        write_atomically(folder.path().join("file"), "").unwrap();
        for (path, advice) in [
            (folder.path().to_owned(), "it is a folder"),
            (folder.path().join("missing/model"), "the folder does not exist"),
            (folder.path().join("file/model"), "a file stands where a folder is needed"),
        ] {
            let error = write_atomically(&path, "").unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()) && error.contains(advice), "{error}");
        }
        for folder in [folder.path().join("file"), folder.path().join("file/below/it")] {
            for error in [check_writable(&folder).unwrap_err(), create_folder(&folder).unwrap_err()] {
                assert_eq!(error.path, folder);
                assert!(error.to_string().contains("a file stands where a folder is needed"), "{error}");
            }
        }
    }

    #[test]
    fn a_check_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs/first");
        check_writable(&runs).unwrap();
        assert!(names(folder.path()).is_empty());
        create_folder(&runs).unwrap();
        check_writable(&runs).unwrap();
        assert!(names(&runs).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn links_and_permissions_are_kept_and_devices_written_to() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write_atomically(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();
        write_atomically(&link, "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        write_atomically("/dev/null", "gone").unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let error = write_atomically("/dev/full", "bytes").unwrap_err().to_string();
        assert!(error.contains("/dev/full") && error.contains("free some space"), "{error}");
    }
}
