//! Tar archives, read in place, and shards of them as WebDataset has them.
//!
//! ```text
//! 0001.jpg  0001.cls       an image and its class share the name up to the first dot; the class is a number or a name
//! 0002.png  0002.json      or in JSON: {"label": "cat"}
//! cat/1.jpg                without such labels the folders are classes
//! ```
//! Plain archives are indexed once and then read at any place. Gzipped ones can only be read on from where one is; images that
//! were passed are kept for a while, so that threads may ask a little out of order.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::MultiGzDecoder;

use super::catalog::{Catalog, CatalogImages, ClassCollector, NONE, Sample, is_class_name};
use super::members::{self, Refused};
use super::positioned::{Positioned, Section};
use super::store::Store;
use super::zip::has_extension;
use super::{DataError, ImageProblem, Limits, Skipped};

const BLOCK: u64 = 512;
/// Names, classes and JSON documents that are longer say nothing of use.
const MAX_TEXT: u64 = 1 << 16;
/// Bytes of images that were passed and are kept, for each gzipped archive.
const MAX_PASSED: usize = 1 << 26;

/// Bytes of names and labels that a gzipped archive may have for each of its own, and in any case: an archive of nothing but
/// names shrinks a thousandfold.
const NAMES_PER_BYTE: u64 = 16;
const MIN_NAMES: u64 = 1 << 24;

/// Whether a file's name is one that archives have.
pub(super) fn is_tar(path: &Path) -> bool {
    has_extension(path, &["tar", "tar.gz", "tgz"])
}

/// A stream of bytes that can be stepped over.
trait Input: Read {
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

impl Input for Section<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if self.advance(bytes) { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

/// Gzip data of a file, unpacked.
struct Unpacked<R>(MultiGzDecoder<R>);

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

impl<R: Read> Input for Unpacked<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.0).take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

/// What a header says of the member that follows.
struct Header {
    name: String,
    size: u64,
    kind: u8,
}

/// Members one after another.
struct Walk<I> {
    input: I,
    /// Where the next byte of `input` is in the unpacked archive.
    position: u64,
    /// What is left of the current member.
    rest: u64,
    /// What fills its last block.
    padding: u64,
}

impl<I: Input> Walk<I> {
    fn new(input: I) -> Self {
        Self { input, position: 0, rest: 0, padding: 0 }
    }

    fn block(&mut self) -> io::Result<Option<[u8; BLOCK as usize]>> {
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.position += BLOCK;
        Ok(Some(block))
    }

    /// The next member; its content is what comes next. `None` at the end.
    fn next(&mut self) -> io::Result<Option<Header>> {
        let (mut long_name, mut long_size) = (None, None);
        loop {
            self.input.skip(self.rest)?;
            // An archive may well end with the last member.
            if self.input.skip(self.padding).is_err() {
                return Ok(None);
            }
            self.position += self.rest + self.padding;
            (self.rest, self.padding) = (0, 0);
            let Some(block) = self.block()? else { return Ok(None) };
            if block.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            let invalid = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
            if octal(&block[148..156]) != Some(checksum(&block)) {
                return Err(invalid("a header's checksum differs"));
            }
            let size = size_field(&block[124..136]).ok_or_else(|| invalid("a header states no size"))?;
            let size = long_size.take().unwrap_or(size);
            let whole = size.checked_next_multiple_of(BLOCK).filter(|whole| whole.checked_add(self.position).is_some());
            (self.rest, self.padding) = (size, whole.ok_or_else(|| invalid("a header states an absurd size"))? - size);
            match block[156] {
                // A name that follows: GNU's, or among pax' records.
                kind @ (b'L' | b'x') if size <= MAX_TEXT => {
                    let text = self.text(size)?;
                    if kind == b'L' {
                        let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
                        long_name = Some(String::from_utf8_lossy(&text[..end]).into_owned());
                    } else {
                        let (name, size) = pax(&text);
                        long_name = name.or(long_name);
                        long_size = size.or(long_size);
                    }
                }
                b'L' | b'x' => return Err(invalid("a header states an absurd length of a name")),
                b'g' | b'K' => {}
                kind => {
                    let name = long_name.take().unwrap_or_else(|| short_name(&block));
                    return Ok(Some(Header { name, size, kind }));
                }
            }
        }
    }

    /// The content of the current member, which is short.
    fn text(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut text = vec![0; size as usize];
        self.input.read_exact(&mut text)?;
        self.position += size;
        self.rest -= size;
        Ok(text)
    }
}

fn short_name(block: &[u8; BLOCK as usize]) -> String {
    let text = |field: &[u8]| {
        let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
    // Only POSIX' own format has a prefix there.
    let posix = block[257..263] == *b"ustar\0";
    if posix && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// Octal digits, or GNU's binary numbers for sizes that these cannot hold.
fn size_field(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    let (high, low) = field.split_at(4);
    let fits = high[0] == 0x80 && high[1..].iter().all(|&byte| byte == 0);
    fits.then(|| low.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

fn checksum(block: &[u8; BLOCK as usize]) -> u64 {
    let blank = u64::from(b' ') * 8;
    block[..148].iter().chain(&block[156..]).map(|&byte| u64::from(byte)).sum::<u64>() + blank
}

/// The path and size among records of the form `LENGTH KEY=VALUE\n`.
fn pax(mut text: &[u8]) -> (Option<String>, Option<u64>) {
    let (mut name, mut size) = (None, None);
    while let Some(space) = text.iter().position(|&byte| byte == b' ') {
        let length = std::str::from_utf8(&text[..space]).ok().and_then(|length| length.parse::<usize>().ok());
        let Some(length) = length.filter(|&length| length > space + 1 && length <= text.len()) else { break };
        let record = &text[space + 1..length - 1];
        if let Some(value) = record.strip_prefix(b"path=") {
            name = Some(String::from_utf8_lossy(value).into_owned());
        } else if let Some(value) = record.strip_prefix(b"size=") {
            size = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        }
        text = &text[length..];
    }
    (name, size)
}

/// An image within the archives.
struct Member {
    shard: u32,
    name: Box<str>,
    offset: u64,
    size: u64,
}

struct Shard {
    file: Arc<Positioned>,
    /// Where reading has come to, for gzipped archives.
    cursor: Option<Mutex<Cursor>>,
}

/// Images of some archives.
struct Shards {
    shards: Vec<Shard>,
    members: Vec<Member>,
}

/// A place in a gzipped archive.
#[derive(Default)]
struct Cursor {
    input: Option<Unpacked<BufReader<OwnedSection>>>,
    position: u64,
    /// Images that were passed, by where they begin.
    passed: VecDeque<(u64, Vec<u8>)>,
    passed_bytes: usize,
}

/// A file read from the beginning on.
struct OwnedSection {
    file: Arc<Positioned>,
    at: u64,
}

impl Read for OwnedSection {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.section(self.at, u64::MAX).read(bytes)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// What listing one archive found.
struct Listed {
    members: Vec<(Box<str>, u64, u64)>,
    labels: HashMap<String, String>,
    /// Bytes that the members' names and labels may still take.
    room: u64,
}

impl Listed {
    fn new(room: u64) -> Self {
        Self { members: Vec::new(), labels: HashMap::new(), room }
    }

    /// Make room for a name and what is kept beside it.
    fn make_room(&mut self, name: &str) -> io::Result<()> {
        let bytes = name.len() as u64 + size_of::<(Box<str>, u64, u64)>() as u64;
        self.room = self.room.checked_sub(bytes).ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidData, "more names than an archive of its size holds images")
        })?;
        Ok(())
    }
}

/// All images of these archives with their classes.
pub(super) fn catalog(path: &Path, files: &[PathBuf]) -> Result<Catalog, DataError> {
    let mut shards = Vec::with_capacity(files.len());
    let mut members: Vec<Member> = Vec::new();
    let mut refused = Vec::new();
    let mut classes = ClassCollector::default();
    let mut samples: Vec<Option<Sample>> = Vec::new();
    let mut labelled = false;
    for (number, path) in files.iter().enumerate() {
        let file = Arc::new(Positioned::open(path)?);
        let gzipped = starts_gzipped(&file);
        let mut left_out = Refused::default();
        let listed = if gzipped {
            let packed = BufReader::with_capacity(1 << 16, OwnedSection { file: file.clone(), at: 0 });
            let room = file.length.saturating_mul(NAMES_PER_BYTE).max(MIN_NAMES);
            list(path, Unpacked(MultiGzDecoder::new(packed)), room, &mut left_out)
        } else {
            // Every name has a header in the file.
            list(path, file.section(0, file.length), u64::MAX, &mut left_out)
        };
        let split = members::split_in_name(path);
        for (name, offset, size) in listed.members {
            let key = members::key_and_extension(&name).map_or("", |(key, _)| key);
            let sample = match listed.labels.get(key) {
                Some(label) if is_class_name(label) => {
                    labelled = true;
                    let label = classes.number(label, split).ok_or_else(|| members::too_many_classes(path))?;
                    Some(Sample { label, group: NONE, split })
                }
                _ => None,
            };
            samples.push(sample);
            members.push(Member { shard: number as u32, name, offset, size });
        }
        refused.extend(left_out.finish(path));
        shards.push(Shard { file, cursor: gzipped.then(Mutex::default) });
    }
    if members.is_empty() {
        let problem = match refused.first() {
            Some(Skipped { reason, .. }) => format!("holds no images that could be used: {reason}"),
            None => "holds no images; expected such as 0001.jpg with 0001.cls, or class folders".into(),
        };
        return Err(DataError::format(path, problem));
    }
    let classes = if labelled {
        let (classes, mapped) = classes.finish();
        for sample in samples.iter_mut().flatten() {
            sample.label = mapped[sample.label as usize];
        }
        classes
    } else {
        let names: Vec<String> = members.iter().map(|member| member.name.to_string()).collect();
        let (classes, by_folder) = members::by_folders(path, &names)?;
        samples = by_folder;
        // Where folders say nothing of parts, archives' names may.
        if samples.iter().flatten().all(|sample| sample.split == super::Split::Train) {
            for (sample, member) in samples.iter_mut().zip(&members) {
                if let Some(sample) = sample {
                    sample.split = members::split_in_name(&files[member.shard as usize]);
                }
            }
        }
        classes
    };
    let mut unlabelled = Refused::default();
    let mut kept = Vec::with_capacity(members.len());
    let mut known = Vec::with_capacity(members.len());
    for (member, sample) in members.into_iter().zip(samples) {
        match sample {
            Some(sample) => {
                kept.push(member);
                known.push(sample);
            }
            None => unlabelled.add(
                &files[member.shard as usize],
                &member.name,
                "has no label: neither .cls, .json nor a folder",
            ),
        }
    }
    refused.extend(unlabelled.finish(path));
    if kept.is_empty() {
        return Err(DataError::format(
            path,
            "holds images, but no labels; expected 0001.cls or 0001.json beside 0001.jpg, or class folders",
        ));
    }
    Ok(Catalog {
        path: path.to_owned(),
        images: CatalogImages::Encoded(Arc::new(Shards { shards, members: kept })),
        samples: known.into(),
        classes,
        groups: Arc::default(),
        class_folders: Vec::new(),
        refused,
        notes: Vec::new(),
    })
}

fn starts_gzipped(file: &Positioned) -> bool {
    let mut magic = [0; 2];
    file.read_exact_at(&mut magic, 0).is_ok() && magic == [0x1f, 0x8b]
}

/// The images and labels of one archive. What is damaged ends the listing and is told.
fn list(path: &Path, input: impl Input, room: u64, refused: &mut Refused) -> Listed {
    let mut listed = Listed::new(room);
    let mut walk = Walk::new(input);
    let mut last = String::new();
    let result = loop {
        match walk.next() {
            Ok(Some(header)) => {
                last.clone_from(&header.name);
                if let Err(error) = take(path, &mut walk, header, &mut listed, refused) {
                    break Err(error);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = result {
        // A member that is cut off was listed before its end was missed.
        if listed.members.last().is_some_and(|(name, ..)| **name == *last) && error.kind() == ErrorKind::UnexpectedEof {
            listed.members.pop();
        }
        let reason = match error.kind() {
            ErrorKind::UnexpectedEof => "is cut off: the archive is truncated".to_owned(),
            _ => format!("is followed by damaged data ({error}); the rest of the archive was not read"),
        };
        refused.add(path, &last, &reason);
    }
    listed
}

fn take(
    path: &Path,
    walk: &mut Walk<impl Input>,
    Header { name, size, kind }: Header,
    listed: &mut Listed,
    refused: &mut Refused,
) -> io::Result<()> {
    let name = name.strip_prefix("./").unwrap_or(&name);
    match kind {
        0 | b'0' | b'7' => {}
        b'5' => return Ok(()),
        b'1' | b'2' => {
            refused.add(path, name, "is a link");
            return Ok(());
        }
        _ => {
            refused.add(path, name, "is no regular file");
            return Ok(());
        }
    }
    // A trailing slash is how old archives write a folder.
    if name.ends_with('/') {
        return Ok(());
    }
    if let Some(problem) = members::name_problem(name) {
        refused.add(path, name, problem);
        return Ok(());
    }
    if members::is_image(name) {
        listed.make_room(name)?;
        listed.members.push((name.into(), walk.position, size));
        return Ok(());
    }
    let Some((key, extension)) = members::key_and_extension(name) else { return Ok(()) };
    let is_json = extension.eq_ignore_ascii_case("json");
    if !is_json && !extension.eq_ignore_ascii_case("cls") {
        return Ok(());
    }
    if size > MAX_TEXT {
        refused.add(path, name, "is too long for a label");
        return Ok(());
    }
    let text = walk.text(size)?;
    let label =
        if is_json { label_in_json(&text) } else { std::str::from_utf8(&text).ok().map(|text| text.trim().to_owned()) };
    let label = label.filter(|label| is_class_name(label));
    if let Some(label) = &label {
        listed.make_room(key)?;
        listed.make_room(label)?;
    }
    match label {
        // What stands in a file of its own counts more.
        Some(label) if !is_json => drop(listed.labels.insert(key.to_owned(), label)),
        Some(label) => drop(listed.labels.entry(key.to_owned()).or_insert(label)),
        None if is_json => {}
        None => refused.add(path, name, "holds no class name"),
    }
    Ok(())
}

fn label_in_json(text: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(text).ok()?;
    ["label", "cls", "class", "class_name", "target"].iter().find_map(|key| match document.get(key)? {
        serde_json::Value::String(text) => Some(text.trim().to_owned()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

impl Store for Shards {
    fn name_of(&self, index: usize) -> String {
        let member = &self.members[index];
        self.shards[member.shard as usize].file.path.join(&*member.name).display().to_string()
    }

    fn size_of(&self, index: usize) -> Option<u64> {
        Some(self.members[index].size)
    }

    fn read(&self, index: usize, limits: &Limits, bytes: &mut Vec<u8>) -> Result<(), ImageProblem> {
        let member = &self.members[index];
        let length = limits.allow(member.size)?;
        let shard = &self.shards[member.shard as usize];
        let read = match &shard.cursor {
            None => {
                // The length lies within the file, as was seen when it was listed.
                bytes.clear();
                bytes.resize(length, 0);
                shard.file.read_exact_at(bytes, member.offset)
            }
            Some(cursor) => {
                let mut cursor = cursor.lock().unwrap_or_else(PoisonError::into_inner);
                cursor.read(&shard.file, self.members_from(index), limits, bytes)
            }
        };
        read.map_err(|error| ImageProblem::Unreadable(format!("the archive cannot be read there: {error}")))
    }

    fn stamp_of(&self, index: usize) -> u64 {
        let member = &self.members[index];
        let place = (member.offset ^ member.size << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (self.shards[member.shard as usize].file.stamp ^ place).max(1)
    }
}

impl Shards {
    /// The images of a shard from its first one on, and which of them is `index`.
    fn members_from(&self, index: usize) -> (&[Member], usize) {
        let shard = self.members[index].shard;
        let first = self.members.partition_point(|member| member.shard < shard);
        (&self.members[first..], index - first)
    }
}

impl Cursor {
    /// Read the image `wanted` of `members`. Those that are passed on the way are kept for who asks for them next.
    fn read(
        &mut self,
        file: &Arc<Positioned>,
        (members, wanted): (&[Member], usize),
        limits: &Limits,
        bytes: &mut Vec<u8>,
    ) -> io::Result<()> {
        let target = &members[wanted];
        if let Some(at) = self.passed.iter().position(|(offset, _)| *offset == target.offset)
            && let Some((_, kept)) = self.passed.remove(at)
        {
            self.passed_bytes -= kept.len();
            *bytes = kept;
            return Ok(());
        }
        if self.input.is_none() || self.position > target.offset {
            let packed = BufReader::with_capacity(1 << 16, OwnedSection { file: file.clone(), at: 0 });
            *self = Self { input: Some(Unpacked(MultiGzDecoder::new(packed))), ..Self::default() };
        }
        let next = members.partition_point(|member| member.shard == target.shard && member.offset < self.position);
        for member in &members[next..=wanted] {
            let result = self.step(member, limits, bytes);
            if let Err(error) = result {
                self.input = None;
                return Err(error);
            }
            if member.offset != target.offset && !bytes.is_empty() {
                self.passed_bytes += bytes.len();
                self.passed.push_back((member.offset, std::mem::take(bytes)));
                while self.passed_bytes > MAX_PASSED
                    && let Some((_, oldest)) = self.passed.pop_front()
                {
                    self.passed_bytes -= oldest.len();
                }
            }
        }
        Ok(())
    }

    /// Read on to a member and its content; nothing of one that is too large.
    fn step(&mut self, member: &Member, limits: &Limits, bytes: &mut Vec<u8>) -> io::Result<()> {
        let Some(input) = &mut self.input else { return Err(ErrorKind::UnexpectedEof.into()) };
        input.skip(member.offset - self.position)?;
        self.position = member.offset;
        bytes.clear();
        let Ok(length) = limits.allow(member.size) else { return Ok(()) };
        input.take(length as u64).read_to_end(bytes)?;
        if bytes.len() != length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.position += length as u64;
        Ok(())
    }
}
