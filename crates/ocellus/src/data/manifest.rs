//! Manifests: a table or lines of JSON that name image files with their classes.
//!
//! ```text
//! file_name,label,split,group          {"file_name": "cats/1.jpg", "label": "cat", "split": "train"}
//! cats/1.jpg,cat,train,visit-7         {"path": "dogs/2.jpg", "label": "dog", "group": "visit-8"}
//! ```
//! Files are relative to the manifest's folder. `split` and `group` need not be there; other columns are ignored.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalog::{Catalog, CatalogImages, ClassCollector, MAX_CLASSES, NONE, Sample, is_class_name};
use super::folder::split_of;
use super::store::Files;
use super::{DataError, Skipped, Split};

/// The names that each column goes by, best first.
const FILE: &[&str] = &["file_name", "filename", "path", "file", "filepath", "file_path", "image", "image_path"];
const LABEL: &[&str] = &["label", "class", "class_name", "category", "target"];
const SPLIT: &[&str] = &["split", "set", "subset"];
const GROUP: &[&str] = &["group", "group_id"];

/// Manifests of a folder that are looked for where nothing was named.
pub(super) const NAMES: [&str; 4] = ["manifest.csv", "manifest.jsonl", "metadata.csv", "metadata.jsonl"];

/// A line is not longer than this, nor a file.
const MAX_LINE: u64 = 1 << 20;
const MAX_FILE: u64 = 1 << 31;
/// Lines of a row: more, and a quote that is not closed has made one row of all that follows.
const MAX_LINES: u64 = 20;
/// Rows that cannot be used, up to which each is named.
const MAX_REFUSED: usize = 1000;

/// Whether a file's name is one that manifests have.
pub(super) fn is_manifest(path: &Path) -> bool {
    kind(path).is_some()
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Table,
    Lines,
}

fn kind(path: &Path) -> Option<Kind> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "csv" | "tsv" => Some(Kind::Table),
        "jsonl" | "ndjson" => Some(Kind::Lines),
        _ => None,
    }
}

/// Read the manifest at `path`.
pub(super) fn read(path: &Path) -> Result<Catalog, DataError> {
    let file = File::open(path).map_err(DataError::io(path))?;
    let length = file.metadata().map_err(DataError::io(path))?.len();
    if length > MAX_FILE {
        return Err(DataError::format(path, format!("has {length} bytes, more than the {MAX_FILE} of a manifest")));
    }
    let mut input = BufReader::with_capacity(1 << 16, file.take(MAX_FILE));
    match input.fill_buf().map_err(DataError::io(path))? {
        [] => return Err(DataError::format(path, "the file is empty; expected a row for each image")),
        [0xef, 0xbb, 0xbf, ..] => input.consume(3),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            return Err(DataError::format(path, "is UTF-16 text; save it as UTF-8"));
        }
        _ => {}
    }
    let mut rows = Rows::new(path);
    match kind(path) {
        Some(Kind::Lines) => read_lines(path, input, &mut rows)?,
        _ => read_table(path, input, &mut rows)?,
    }
    rows.finish()
}

/// What a row says; empty where it says nothing.
#[derive(Default)]
struct Row<'a> {
    file: &'a str,
    label: &'a str,
    split: &'a str,
    group: &'a str,
}

fn read_table(path: &Path, mut input: impl BufRead, rows: &mut Rows) -> Result<(), DataError> {
    let mut header = Vec::new();
    (&mut input).take(MAX_LINE).read_until(b'\n', &mut header).map_err(DataError::io(path))?;
    let delimiter = *[b',', b';', b'\t', b'|']
        .iter()
        .max_by_key(|&&delimiter| header.iter().filter(|&&byte| byte == delimiter).count())
        .unwrap_or(&b',');
    let ration = Cell::new(MAX_LINE);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .has_headers(true)
        .from_reader(Rationed { input: Cursor::new(header).chain(input), left: &ration });
    let broken = |error: csv::Error| DataError::format(path, format!("is no table that can be read: {error}"));
    let names: Vec<String> = reader
        .byte_headers()
        .map_err(broken)?
        .iter()
        .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
        .collect();
    let column = |known: &[&str]| known.iter().find_map(|known| names.iter().position(|name| name == known));
    let expected =
        "expected a header with the columns `file_name` (or `path`) and `label`, and perhaps `split` and `group`";
    let found = || names.iter().map(|name| format!("`{name}`")).take(20).collect::<Vec<_>>().join(", ");
    let (Some(file), Some(label)) = (column(FILE), column(LABEL)) else {
        return Err(DataError::format(path, format!("{expected}; got {}", found())));
    };
    let (split, group) = (column(SPLIT), column(GROUP));
    let mut record = csv::ByteRecord::new();
    loop {
        let line = reader.position().line();
        ration.set(MAX_LINE);
        let read = reader.read_byte_record(&mut record);
        let broken = |error| DataError::format(path, format!("line {line} begins a row that cannot be read: {error}"));
        if !read.map_err(broken)? {
            break;
        }
        // Blank lines before a row are not its own.
        let lines = 1 + record.as_slice().trim_ascii_end().iter().filter(|&&byte| byte == b'\n').count() as u64;
        if lines > MAX_LINES {
            rows.refuse(line, format!("begins a row that goes over {lines} lines; is a quote not closed?"));
            continue;
        }
        let field = |column: Option<usize>| {
            let bytes = column.and_then(|column| record.get(column)).unwrap_or_default();
            std::str::from_utf8(bytes).map(str::trim)
        };
        let row = || -> Result<_, std::str::Utf8Error> {
            Ok(Row { file: field(Some(file))?, label: field(Some(label))?, split: field(split)?, group: field(group)? })
        };
        match row() {
            Ok(row) => rows.add(line, &row)?,
            Err(_) => rows.refuse(line, "is not UTF-8; save the manifest as UTF-8".into()),
        }
    }
    Ok(())
}

/// Input of which so many bytes are left to a row: a quote that is not closed makes one row of all that follows.
struct Rationed<'a, R> {
    input: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Rationed<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other(format!("a row is longer than {MAX_LINE} bytes; is a quote not closed?")));
        }
        let read = (&mut self.input).take(self.left.get()).read(bytes)?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}

fn read_lines(path: &Path, mut input: impl BufRead, rows: &mut Rows) -> Result<(), DataError> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut input).take(MAX_LINE).read_until(b'\n', &mut line).map_err(DataError::io(path))?;
        if read == 0 {
            break;
        }
        if read as u64 == MAX_LINE {
            return Err(DataError::format(path, format!("line {number} is longer than {MAX_LINE} bytes")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let fields: serde_json::Map<String, serde_json::Value> = match serde_json::from_slice(&line) {
            Ok(fields) => fields,
            Err(error) => {
                rows.refuse(number, format!("is no JSON object ({error})"));
                continue;
            }
        };
        let texts: HashMap<String, String> = fields
            .into_iter()
            .filter_map(|(name, value)| {
                let text = match value {
                    serde_json::Value::String(text) => text.trim().to_owned(),
                    serde_json::Value::Number(number) => number.to_string(),
                    serde_json::Value::Bool(value) => value.to_string(),
                    _ => return None,
                };
                Some((name.to_ascii_lowercase(), text))
            })
            .collect();
        let field = |known: &[&str]| known.iter().find_map(|known| texts.get(*known)).map_or("", String::as_str);
        rows.add(number, &Row { file: field(FILE), label: field(LABEL), split: field(SPLIT), group: field(GROUP) })?;
    }
    Ok(())
}

/// Samples as rows name them.
struct Rows<'a> {
    path: &'a Path,
    root: PathBuf,
    files: Files,
    folders: HashMap<PathBuf, u32>,
    samples: Vec<Sample>,
    classes: ClassCollector,
    groups: HashMap<String, u32>,
    group_names: Vec<String>,
    refused: Vec<Skipped>,
    refused_count: usize,
}

impl<'a> Rows<'a> {
    fn new(path: &'a Path) -> Self {
        Self {
            path,
            root: path.parent().unwrap_or(Path::new("")).to_owned(),
            files: Files::default(),
            folders: HashMap::new(),
            samples: Vec::new(),
            classes: ClassCollector::default(),
            groups: HashMap::new(),
            group_names: Vec::new(),
            refused: Vec::new(),
            refused_count: 0,
        }
    }

    fn refuse(&mut self, line: u64, reason: String) {
        self.refused_count += 1;
        if self.refused.len() < MAX_REFUSED {
            self.refused.push(Skipped { path: self.path.to_owned(), reason: format!("line {line} {reason}") });
        }
    }

    fn add(&mut self, line: u64, row: &Row) -> Result<(), DataError> {
        if row.file.is_empty() {
            // An empty last line of a table has been left out by its reader.
            self.refuse(line, "names no file".into());
            return Ok(());
        }
        if row.label.is_empty() {
            self.refuse(line, format!("has no label for `{}`", shortened(row.file)));
            return Ok(());
        }
        if !is_class_name(row.label) {
            self.refuse(line, format!("has a label that is no class name: {:?}", shortened(row.label)));
            return Ok(());
        }
        if row.file.contains(char::is_control) {
            self.refuse(line, format!("has a file name with control characters: {:?}", shortened(row.file)));
            return Ok(());
        }
        if row.file.contains("://") {
            self.refuse(line, format!("names an address, `{}`; fetch the file and name it", shortened(row.file)));
            return Ok(());
        }
        let split = match split_of(row.split) {
            Some(split) => split,
            None if row.split.is_empty() => Split::Train,
            None => {
                let split = shortened(row.split);
                self.refuse(line, format!("has the split `{split}`, expected `train`, `val` or `test`"));
                return Ok(());
            }
        };
        // Written on Windows, where a file's name has no `/`.
        let file = if row.file.contains('/') { row.file.to_owned() } else { row.file.replace('\\', "/") };
        let file = Path::new(&file);
        let Some(name) = file.file_name() else {
            self.refuse(line, format!("names a folder, `{}`", shortened(row.file)));
            return Ok(());
        };
        let Some(label) = self.classes.number(row.label, split) else {
            let problem = format!("has more than {MAX_CLASSES} different labels; is that column one of classes?");
            return Err(DataError::format(self.path, problem));
        };
        let group = if row.group.is_empty() {
            NONE
        } else {
            let next = self.group_names.len() as u32;
            let group = *self.groups.entry(row.group.to_owned()).or_insert(next);
            if group == next {
                self.group_names.push(row.group.to_owned());
            }
            group
        };
        let parent = file.parent().unwrap_or(Path::new(""));
        let folder = match self.folders.get(parent) {
            Some(folder) => *folder,
            None => {
                let folder = self.files.add_folder(self.root.join(parent));
                self.folders.insert(parent.to_owned(), folder);
                folder
            }
        };
        self.files.add(folder, name);
        self.samples.push(Sample { label, group, split });
        Ok(())
    }

    fn finish(mut self) -> Result<Catalog, DataError> {
        if self.samples.is_empty() {
            let problem = match self.refused.first() {
                Some(first) => format!("has no row that could be used: {}", first.reason),
                None => "has a header, but no rows".into(),
            };
            return Err(DataError::format(self.path, problem));
        }
        let more = self.refused_count - self.refused.len();
        if more > 0 {
            self.refused.push(Skipped { path: self.path.to_owned(), reason: format!("{more} more rows like these") });
        }
        let (classes, mapped) = self.classes.finish();
        for sample in &mut self.samples {
            sample.label = mapped[sample.label as usize];
        }
        self.files.shrink();
        Ok(Catalog {
            path: self.path.to_owned(),
            images: CatalogImages::Encoded(Arc::new(self.files)),
            samples: self.samples.into(),
            classes,
            groups: self.group_names.into(),
            class_folders: Vec::new(),
            refused: self.refused,
            notes: Vec::new(),
        })
    }
}

/// A text from a file, as much of it as a message can take.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
