//! Prepared pixels kept on disk, so that images are decoded once and not once for each epoch and run.
//!
//! ```text
//! header   magic, number of records, bytes of an image, hash of the table                  64 bytes
//! table    per record: hash of the image's name, its stamp, hash of its content, hash of the pixels    32 bytes each
//! pixels   per record
//! ```
//! A record of zeros is none. Records are found by name and hold while the stamp does, so a file that changed is decoded anew.
//! Files are written beside and renamed: two runs that make the same one do not meet, and a killed run leaves nothing that
//! is taken for whole. Pixels are compared with their hash when read, so that no damage to the file goes unnoticed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions as FileOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::Preprocessing;
use super::fingerprint::xxh64;
use super::positioned::Positioned;

/// Where prepared pixels are kept, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// The folder; it is made where it is missing, and holds nothing else.
    pub folder: PathBuf,
    /// Bytes of all files in it. What was not used for longest is removed first; where one data set takes more, the rest of its
    /// images is decoded whenever asked for.
    pub size: u64,
    /// Data that one thread prepares in less time than this is not kept.
    pub worth: Duration,
}

impl CacheOptions {
    /// 20 GB in `folder`, for data that takes longer than 2 seconds to prepare.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), size: 20_000_000_000, worth: Duration::from_secs(2) }
    }

    /// 20 GB in the folder that the system has for such things; `None` where it has none.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = if cfg!(windows) {
            variable("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            variable("HOME").map(|home| home.join("Library/Caches"))
        } else {
            variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
        };
        Some(Self::new(folder?.join("ocellus")))
    }
}

const MAGIC: &[u8; 8] = b"OCELPIX2";
const HEADER: u64 = 64;
const RECORD: u64 = 32;
const EXTENSION: &str = "pixels";
/// A file that is being made is not, where it was not written to for so long.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// What is known of a cached image.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) struct Record {
    name: u64,
    stamp: u64,
    pub(super) content: u64,
    pixels: u64,
}

impl Record {
    pub(super) fn new(name: &str, stamp: u64, content: u64, pixels: &[u8]) -> Self {
        Self { name: hash_of_name(name), stamp, content, pixels: xxh64(pixels) }
    }

    /// That a file was found damaged, and need not be tried again to know what it is that the cache lacks.
    pub(super) fn of_damaged(name: &str, stamp: u64) -> Self {
        Self { name: hash_of_name(name), stamp, ..Self::default() }
    }

    /// Whether there are pixels.
    pub(super) fn is_image(&self) -> bool {
        self.name != 0 && self.pixels != 0
    }
}

fn hash_of_name(name: &str) -> u64 {
    xxh64(name.as_bytes()).max(1)
}

/// The file of one part of some data, prepared in one way.
pub(super) fn file_of(options: &CacheOptions, data: &Path, part: &str, preprocessing: &Preprocessing) -> PathBuf {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    // What changes pixels; scale and offset come after.
    let Preprocessing { image_size, channels, resize, crop, filter, background, scale: _, offset: _ } = preprocessing;
    let version = env!("CARGO_PKG_VERSION");
    let key = format!("{version}\n{part}\n{image_size:?} {channels} {resize:?} {crop} {filter:?} {background:?}\n");
    let key = [key.as_bytes(), data.as_os_str().as_encoded_bytes()].concat();
    let name = data.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(40).collect();
    options.folder.join(format!("{name}-{part}-{:016x}.{EXTENSION}", xxh64(&key)))
}

/// A file of prepared pixels.
pub(super) struct Cache {
    file: Positioned,
    records: Vec<Record>,
    image_len: usize,
}

impl Cache {
    /// The file at `path`, where there is a whole one of such images.
    pub(super) fn open(path: &Path, image_len: usize) -> Option<Self> {
        let file = Positioned::open(path).ok()?;
        let mut header = [0; HEADER as usize];
        file.read_exact_at(&mut header, 0).ok()?;
        let number = |at: usize| u64::from_le_bytes(*header[at..].first_chunk().unwrap_or(&[0; 8]));
        let count = number(8);
        let length = size(count, image_len as u64)?;
        if header[..8] != *MAGIC || number(16) != image_len as u64 || file.length != length {
            return None;
        }
        let mut table = vec![0; (count * RECORD) as usize];
        file.read_exact_at(&mut table, HEADER).ok()?;
        if xxh64(&table) != number(24) {
            return None;
        }
        let records = table.as_chunks::<{ RECORD as usize }>().0.iter().map(|bytes| {
            let [name, stamp, content, pixels] =
                [0, 8, 16, 24].map(|at| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 8])));
            Record { name, stamp, content, pixels }
        });
        let records = records.collect();
        // What was used last is removed last.
        let _ = FileOptions::new().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(Self { file, records, image_len })
    }

    /// For each image, given by name and stamp, the place of its record.
    pub(super) fn places(&self, images: impl Iterator<Item = (String, u64)>) -> Vec<Option<u32>> {
        let mut by_name: Option<HashMap<u64, u32>> = None;
        let mut find = |at: usize, name: u64| match self.records.get(at) {
            // Nearly always nothing was added or removed.
            Some(record) if record.name == name => Some(at as u32),
            _ => by_name
                .get_or_insert_with(|| self.records.iter().zip(0..).map(|(record, at)| (record.name, at)).collect())
                .get(&name)
                .copied(),
        };
        let place = |(at, (name, stamp)): (usize, (String, u64))| {
            let place = find(at, hash_of_name(&name))?;
            (stamp != 0 && self.records[place as usize].stamp == stamp).then_some(place)
        };
        images.enumerate().map(place).collect()
    }

    /// Whether there is a record at `place`, with pixels.
    pub(super) fn is_image(&self, place: usize) -> bool {
        self.records.get(place).is_some_and(Record::is_image)
    }

    pub(super) fn record(&self, place: u32) -> Record {
        self.records[place as usize]
    }

    /// Read a record's pixels; `false` where they are damaged.
    pub(super) fn read(&self, place: u32, pixels: &mut [u8]) -> bool {
        let Some(start) = size(self.records.len() as u64, 0) else { return false };
        let at = start + u64::from(place) * self.image_len as u64;
        pixels.len() == self.image_len
            && self.file.read_exact_at(pixels, at).is_ok()
            && xxh64(pixels) == self.records[place as usize].pixels
    }
}

/// Bytes of a file of `count` records, where that many can be.
fn size(count: u64, image_len: u64) -> Option<u64> {
    let table = count.checked_mul(RECORD)?.checked_add(HEADER)?;
    count.checked_mul(image_len)?.checked_add(table)
}

/// How many of `count` images may be kept.
pub(super) fn allowed(options: &CacheOptions, count: usize, image_len: usize) -> usize {
    let most = options.size.saturating_sub(HEADER) / (image_len as u64 + RECORD);
    (count as u64).min(most) as usize
}

/// A file that is being made; it counts once it is [`finished`](Self::finish).
pub(super) struct Making {
    file: File,
    path: PathBuf,
    part: PathBuf,
    count: u64,
    image_len: usize,
    failed: AtomicBool,
    renamed: bool,
}

impl Making {
    /// Begin the file at `path` for as many of `count` images as the options allow.
    pub(super) fn begin(options: &CacheOptions, path: &Path, count: usize, image_len: usize) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let count = allowed(options, count, image_len) as u64;
        let length = size(count, image_len as u64).filter(|_| count > 0);
        let length = length.ok_or_else(|| io::Error::other("the cache's size is less than one image"))?;
        fs::create_dir_all(&options.folder)?;
        make_room(options, path, length);
        let (file, part) = loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let part = path.with_extension(format!("{}-{number}.part", std::process::id()));
            match FileOptions::new().read(true).write(true).create_new(true).open(&part) {
                // Processes of two containers may have one number; killed ones leave their files.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => break (opened?, part),
            }
        };
        let failed = AtomicBool::new(file.set_len(length).is_err());
        Ok(Self { file, path: path.to_owned(), part, count, image_len, failed, renamed: false })
    }

    /// Keep the pixels of image `at`. A failure, as of a full disk, ends the making, not the work.
    pub(super) fn put(&self, at: usize, record: Record, pixels: &[u8]) {
        if at as u64 >= self.count || self.failed.load(Ordering::Relaxed) {
            return;
        }
        let numbers = [record.name, record.stamp, record.content, record.pixels];
        let mut bytes = [0; RECORD as usize];
        for (bytes, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *bytes = number.to_le_bytes();
        }
        let start = HEADER + self.count * RECORD + at as u64 * self.image_len as u64;
        let written = write_all_at(&self.file, pixels, start)
            .and_then(|()| write_all_at(&self.file, &bytes, HEADER + at as u64 * RECORD));
        if written.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    /// Give the file its name. Nothing is kept where something failed; the result says what.
    pub(super) fn finish(mut self) -> Result<Cache, String> {
        let mut header = [0; HEADER as usize];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&self.count.to_le_bytes());
        header[16..24].copy_from_slice(&(self.image_len as u64).to_le_bytes());
        let mut table = vec![0; (self.count * RECORD) as usize];
        let read = Positioned::of(&self.file, &self.part).and_then(|file| file.read_exact_at(&mut table, HEADER));
        header[24..32].copy_from_slice(&xxh64(&table).to_le_bytes());
        let failed = read.is_err() || self.failed.load(Ordering::Relaxed);
        let whole = !failed && write_all_at(&self.file, &header, 0).is_ok();
        self.renamed = whole && fs::rename(&self.part, &self.path).is_ok();
        let cache = if self.renamed { Cache::open(&self.path, self.image_len) } else { None };
        cache.ok_or_else(|| {
            let path = self.path.display();
            format!("{path} could not be written; is the disk full? Images are decoded whenever asked for")
        })
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // Once renamed, another's file may have the name.
        if !self.renamed {
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Remove what was not used for longest until `length` more bytes are allowed.
fn make_room(options: &CacheOptions, path: &Path, length: u64) {
    let Ok(entries) = fs::read_dir(&options.folder) else { return };
    let now = SystemTime::now();
    let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let file = entry.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        let changed = metadata.modified().unwrap_or(now);
        match extension {
            Some("part") if now.duration_since(changed).is_ok_and(|age| age > ABANDONED) => {
                let _ = fs::remove_file(&file);
            }
            // The file that is replaced makes room by itself.
            Some("part" | EXTENSION) if file != path => files.push((changed, metadata.len(), file)),
            _ => {}
        }
    }
    files.sort();
    let mut held = files.iter().fold(0u64, |sum, (_, length, _)| sum.saturating_add(*length));
    for (_, bytes, file) in files {
        if held.saturating_add(length) <= options.size {
            break;
        }
        // One that is being made is left to who makes it.
        if file.extension().is_some_and(|extension| extension == EXTENSION) && fs::remove_file(&file).is_ok() {
            held -= bytes;
        }
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}
