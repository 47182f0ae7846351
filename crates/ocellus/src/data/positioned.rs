//! A file that several threads read at places of their own, without mapping it into memory: what another program does to a
//! mapped file meanwhile would be undefined, a read merely fails.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::DataError;

/// An open file with its length when it was opened.
pub(super) struct Positioned {
    file: File,
    pub(super) path: PathBuf,
    pub(super) length: u64,
    /// What changes with the file.
    pub(super) stamp: u64,
}

impl Positioned {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io(path))?;
        let metadata = file.metadata().map_err(DataError::io(path))?;
        if !metadata.is_file() {
            return Err(DataError::format(path, "is no regular file"));
        }
        Ok(Self { file, path: path.to_owned(), length: metadata.len(), stamp: super::store::stamp(path) })
    }

    /// A file that is open.
    pub(super) fn of(file: &File, path: &Path) -> io::Result<Self> {
        let (length, file) = (file.metadata()?.len(), file.try_clone()?);
        Ok(Self { file, path: path.to_owned(), length, stamp: 0 })
    }

    #[cfg(unix)]
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, bytes, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.file, bytes, offset)
    }

    /// Fill `bytes` from `offset` on.
    pub(super) fn read_exact_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.read_at(bytes, offset) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    bytes = &mut bytes[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Read on from `offset` for at most `length` bytes.
    pub(super) fn section(&self, offset: u64, length: u64) -> Section<'_> {
        Section { file: self, at: offset, end: offset.saturating_add(length) }
    }
}

/// A stretch of a file as a reader.
pub(super) struct Section<'a> {
    file: &'a Positioned,
    at: u64,
    end: u64,
}

impl Section<'_> {
    /// Step over bytes; `false` where there are not so many.
    pub(super) fn advance(&mut self, bytes: u64) -> bool {
        let most = self.end.min(self.file.length);
        match self.at.checked_add(bytes).filter(|&at| at <= most) {
            Some(at) => {
                self.at = at;
                true
            }
            None => false,
        }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = (self.end - self.at).min(bytes.len() as u64) as usize;
        let read = self.file.read_at(&mut bytes[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
