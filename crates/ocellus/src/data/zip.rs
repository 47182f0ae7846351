//! Zip archives, read in place: the directory once, members by their position.
//!
//! <https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>. Stored and deflated members, zip64; no encryption. A member
//! never takes more memory than its directory entry states and the caller allows.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use flate2::read::DeflateDecoder;

use super::catalog::{Catalog, CatalogImages};
use super::members::{self, Refused};
use super::positioned::Positioned;
use super::store::Store;
use super::{DataError, ImageProblem, Limits};

/// A member of an archive.
pub(super) struct Member {
    pub(super) name: String,
    /// Where its local header begins.
    offset: u64,
    packed: u64,
    pub(super) size: u64,
    crc: u32,
    deflated: bool,
}

impl Member {
    /// Bytes as they lie in the archive, and unpacked.
    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.packed, self.size)
    }
}

/// An archive whose directory was read.
pub(super) struct Zip {
    pub(super) file: Positioned,
    pub(super) members: Vec<Member>,
    pub(super) refused: Refused,
}

/// The most that the directory may take.
const MAX_DIRECTORY: u64 = 1 << 30;
const LOCAL_HEADER: u64 = 30;
const DIRECTORY_HEADER: usize = 46;
const END: usize = 22;

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

impl Zip {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let file = Positioned::open(path)?;
        let broken =
            |problem: &str| DataError::format(path, format!("{problem}; the zip archive is truncated or damaged"));
        // The end record is followed by a comment of at most 65,535 bytes.
        let tail_length = file.length.min((END + 0xffff) as u64) as usize;
        let mut tail = vec![0; tail_length];
        let tail_start = file.length - tail_length as u64;
        file.read_exact_at(&mut tail, tail_start).map_err(DataError::io(path))?;
        let last = tail_length.checked_sub(END).ok_or_else(|| broken("is too short"))?;
        let end = (0..=last).rev().find(|&at| tail[at..].starts_with(b"PK\x05\x06"));
        let end = end.ok_or_else(|| broken("has no directory at its end"))?;
        let (mut count, mut size, mut start) =
            (number(&tail, end + 10, 2), number(&tail, end + 12, 4), number(&tail, end + 16, 4));
        if count == 0xffff || size == 0xffff_ffff || start == 0xffff_ffff {
            let locator = end.checked_sub(20).filter(|&at| tail[at..].starts_with(b"PK\x06\x07"));
            if let Some(locator) = locator {
                let mut record = [0; 56];
                let at = number(&tail, locator + 8, 8);
                file.read_exact_at(&mut record, at).map_err(|_| broken("its zip64 directory is missing"))?;
                if !record.starts_with(b"PK\x06\x06") {
                    return Err(broken("its zip64 directory is missing"));
                }
                (count, size, start) = (number(&record, 32, 8), number(&record, 40, 8), number(&record, 48, 8));
            }
        }
        let fits = start.checked_add(size).is_some_and(|end| end <= file.length);
        if !fits || size > MAX_DIRECTORY || count.saturating_mul(DIRECTORY_HEADER as u64) > size {
            return Err(broken("states a directory that does not fit it"));
        }
        let mut directory = vec![0; size as usize];
        file.read_exact_at(&mut directory, start).map_err(DataError::io(path))?;
        let mut zip = Self { file, members: Vec::with_capacity(count as usize), refused: Refused::default() };
        let mut rest = &directory[..];
        for _ in 0..count {
            let entry = Entry::parse(rest).ok_or_else(|| broken("its directory ends early"))?;
            rest = &rest[entry.length..];
            zip.add(path, entry);
        }
        Ok(zip)
    }

    fn add(&mut self, path: &Path, entry: Entry) {
        let Ok(name) = std::str::from_utf8(entry.name) else {
            return self.refused.add(path, &String::from_utf8_lossy(entry.name), "has a name that is not UTF-8");
        };
        // Written by tools that know no better.
        let name = name.replace('\\', "/");
        if name.ends_with('/') {
            return;
        }
        let problem = members::name_problem(&name).or(match () {
            () if entry.flags & 1 != 0 => Some("is encrypted"),
            () if entry.unix_mode & 0o170_000 == 0o120_000 => Some("is a link"),
            () if entry.method != 0 && entry.method != 8 => {
                Some("is packed in a way other than deflate; pack it again")
            }
            () if entry.method == 0 && entry.packed != entry.size => Some("states two sizes"),
            () if entry.packed > self.file.length => Some("states a size beyond the archive's"),
            () => None,
        });
        match problem {
            Some(problem) => self.refused.add(path, &name, problem),
            None => self.members.push(Member {
                name,
                offset: entry.offset,
                packed: entry.packed,
                size: entry.size,
                crc: entry.crc,
                deflated: entry.method == 8,
            }),
        }
    }

    /// Put a member in `bytes`; it has at most `most` bytes, which was compared with its stated size.
    pub(super) fn read(&self, member: &Member, bytes: &mut Vec<u8>) -> Result<(), String> {
        let damaged = |error: std::io::Error| format!("the archive is damaged there: {error}");
        let mut header = [0; LOCAL_HEADER as usize];
        self.file.read_exact_at(&mut header, member.offset).map_err(damaged)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err("the archive is damaged: nothing is where its directory says".into());
        }
        let start = member.offset + LOCAL_HEADER + number(&header, 26, 2) + number(&header, 28, 2);
        bytes.clear();
        // A lying size must not reserve what cannot come: deflate expands a thousandfold at most.
        let plausible = member.packed.saturating_mul(1_040).saturating_add(64);
        if member.size > plausible {
            return Err(format!("states {} bytes, more than {} packed ones can hold", member.size, member.packed));
        }
        bytes.try_reserve(member.size as usize + 1).map_err(|error| error.to_string())?;
        let packed = self.file.section(start, member.packed);
        let most = member.size.saturating_add(1);
        let read = if member.deflated {
            DeflateDecoder::new(packed).take(most).read_to_end(bytes)
        } else {
            packed.take(most).read_to_end(bytes)
        };
        read.map_err(damaged)?;
        if bytes.len() as u64 != member.size {
            return Err(format!("has not the {} bytes that the archive's directory states", member.size));
        }
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        if crc.sum() != member.crc {
            return Err("the archive is damaged there: the checksum differs".into());
        }
        Ok(())
    }
}

/// An entry of the directory.
struct Entry<'a> {
    name: &'a [u8],
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    offset: u64,
    unix_mode: u32,
    /// Bytes of the entry itself.
    length: usize,
}

impl<'a> Entry<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..DIRECTORY_HEADER).filter(|header| header.starts_with(b"PK\x01\x02"))?;
        let [name, extra, comment] = [28, 30, 32].map(|at| number(header, at, 2) as usize);
        let length = DIRECTORY_HEADER + name + extra + comment;
        bytes.get(..length)?;
        let unix = header[5] == 3;
        let mut entry = Self {
            name: &bytes[DIRECTORY_HEADER..][..name],
            flags: number(header, 8, 2) as u16,
            method: number(header, 10, 2) as u16,
            crc: number(header, 16, 4) as u32,
            packed: number(header, 20, 4),
            size: number(header, 24, 4),
            offset: number(header, 42, 4),
            unix_mode: if unix { (number(header, 38, 4) >> 16) as u32 } else { 0 },
            length,
        };
        // Zip64: the numbers that do not fit follow in this order.
        let mut extra = &bytes[DIRECTORY_HEADER + name..][..extra];
        while extra.len() >= 4 {
            let (kind, length) = (number(extra, 0, 2), number(extra, 2, 2) as usize);
            let mut field = extra.get(4..4 + length)?;
            if kind == 1 {
                for value in [&mut entry.size, &mut entry.packed, &mut entry.offset] {
                    if *value == 0xffff_ffff && field.len() >= 8 {
                        *value = number(field, 0, 8);
                        field = &field[8..];
                    }
                }
            }
            extra = &extra[4 + length..];
        }
        Some(entry)
    }
}

/// Class folders in an archive.
pub(super) fn catalog(path: &Path) -> Result<Catalog, DataError> {
    let Zip { file, members, mut refused } = Zip::open(path)?;
    let mut members: Vec<Member> = members.into_iter().filter(|member| members::is_image(&member.name)).collect();
    // A few bytes that many members share could unpack to any size.
    members.sort_by_key(|member| member.offset);
    let mut end = 0;
    members.retain(|member| {
        let apart = member.offset >= end;
        if apart {
            end = member.offset.saturating_add(LOCAL_HEADER + member.packed);
        } else {
            refused.add(path, &member.name, "lies within another member");
        }
        apart
    });
    members.sort_by(|a, b| a.name.cmp(&b.name));
    if members.is_empty() {
        return Err(DataError::format(path, "holds no images; expected class folders, as in cat/1.jpg"));
    }
    let names: Vec<String> = members.iter().map(|member| member.name.clone()).collect();
    let (classes, samples) = members::by_folders(path, &names)?;
    let (mut kept, mut with_class) = (Vec::new(), Vec::new());
    for (member, sample) in members.into_iter().zip(samples) {
        match sample {
            Some(sample) => {
                kept.push(member);
                with_class.push(sample);
            }
            None => refused.add(path, &member.name, "lies in no class folder"),
        }
    }
    if with_class.is_empty() {
        return Err(DataError::format(path, "holds images, but no class folders, so their classes are unknown"));
    }
    // By part and class, as in folders.
    let mut order: Vec<usize> = (0..kept.len()).collect();
    order.sort_by_key(|&at| (with_class[at].split, with_class[at].label));
    let samples = order.iter().map(|&at| with_class[at]).collect();
    let mut slots: Vec<Option<Member>> = kept.into_iter().map(Some).collect();
    let members = order.iter().filter_map(|&at| slots[at].take()).collect();
    let zip = Zip { file, members, refused: Refused::default() };
    Ok(Catalog {
        path: path.to_owned(),
        images: CatalogImages::Encoded(Arc::new(zip)),
        samples,
        classes,
        groups: Arc::default(),
        class_folders: Vec::new(),
        refused: refused.finish(path),
        notes: Vec::new(),
    })
}

impl Store for Zip {
    fn name_of(&self, index: usize) -> String {
        self.file.path.join(&self.members[index].name).display().to_string()
    }

    fn size_of(&self, index: usize) -> Option<u64> {
        Some(self.members[index].size)
    }

    fn read(&self, index: usize, limits: &Limits, bytes: &mut Vec<u8>) -> Result<(), ImageProblem> {
        let member = &self.members[index];
        limits.allow(member.size)?;
        Zip::read(self, member, bytes).map_err(ImageProblem::Unreadable)
    }

    fn stamp_of(&self, index: usize) -> u64 {
        let member = &self.members[index];
        self.file.stamp ^ (u64::from(member.crc) << 32 | member.offset).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Where an archive lies beside what it is for.
pub(super) fn is_zip(path: &Path) -> bool {
    has_extension(path, &["zip"])
}

/// Whether a file's name ends so.
pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    extensions.iter().any(|extension| name.strip_suffix(extension).is_some_and(|stem| stem.ends_with('.')))
}
