//! Parquet files as Hugging Face has them: a column `image` of `{bytes, path}`, a column `label`.
//!
//! <https://parquet.apache.org/docs/file-format/>. Only what such files use is read: plain and dictionary encodings, pages
//! uncompressed, snappy or gzip. The index of pages is read once; an image is found in its page.

mod page;
mod snappy;
mod thrift;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use page::{Chunk, Page, Values};
use thrift::Thrift;

use super::catalog::{Catalog, CatalogImages, ClassCollector, Classes, MAX_CLASSES, NONE, Sample, is_class_name};
use super::members::{self, Refused};
use super::positioned::Positioned;
use super::store::Store;
use super::zip::has_extension;
use super::{DataError, ImageProblem, Limits};

/// A footer that is longer describes no images.
const MAX_FOOTER: u64 = 1 << 24;
/// Bytes of the document that names the classes; of a longer one, each small number would take 32.
const MAX_NAMES: usize = 1 << 22;
/// Names of columns, best first.
const IMAGES: &[&str] = &["image", "img", "images", "picture", "jpg", "png"];
const LABELS: &[&str] = &["label", "labels", "class", "fine_label", "target", "cls"];
/// Pages that are kept unpacked, since images are mostly asked for in order, and bytes of them (one is always kept).
const KEPT_PAGES: usize = 4;
const KEPT_BYTES: usize = 1 << 26;

pub(super) fn is_parquet(path: &Path) -> bool {
    has_extension(path, &["parquet"])
}

/// A column of the schema. Names are not copied: groups within groups of long names would make paths without end.
struct Column<'a> {
    top: &'a str,
    leaf: &'a str,
    /// How many names its path has.
    depth: usize,
    kind: i64,
    /// How many of its levels may be missing.
    optional: u32,
    repeated: bool,
}

/// One file: where its images are.
struct Table {
    file: Positioned,
    /// Pages of images, with the number of rows before each.
    pages: Vec<(u64, Page)>,
}

/// Images of some files, with the pages that were read last.
struct Tables {
    tables: Vec<Table>,
    /// Of each sample, its file and row.
    rows: Vec<(u32, u32)>,
    recent: Mutex<Vec<Recent>>,
}

/// A page's file and number, and its values.
type Recent = ((u32, usize), Arc<Values>);

/// All images of these files with their classes.
pub(super) fn catalog(path: &Path, files: &[PathBuf]) -> Result<Catalog, DataError> {
    let mut tables = Vec::new();
    let (mut rows, mut samples) = (Vec::new(), Vec::new());
    let mut collector = ClassCollector::default();
    let mut named: Option<Vec<String>> = None;
    let mut refused = Vec::new();
    for (number, path) in files.iter().enumerate() {
        let mut left_out = Refused::default();
        let opened = open(path)?;
        let split = members::split_in_name(path);
        if let Some(names) = opened.class_names {
            if names.len() > MAX_CLASSES {
                return Err(members::too_many_classes(path));
            }
            named.get_or_insert(names);
        }
        for (row, label) in opened.labels.into_iter().enumerate() {
            let label = label.map(|label| &opened.texts[label as usize]);
            let label = match &named {
                Some(names) => label.and_then(|label| names.get(label.parse::<usize>().ok()?)),
                None => label,
            };
            match label {
                Some(label) => {
                    let label = collector.number(label, split).ok_or_else(|| members::too_many_classes(path))?;
                    samples.push(Sample { label, group: NONE, split });
                    rows.push((number as u32, row as u32));
                }
                None => left_out.add(path, &row.to_string(), "has no label that names a class"),
            }
        }
        refused.extend(left_out.finish(path));
        tables.push(opened.table);
    }
    if samples.is_empty() {
        return Err(DataError::format(path, "holds no labelled images"));
    }
    let (mut classes, mut mapped) = collector.finish();
    if let Some(names) = named {
        // The order of the names is that of the labels.
        let places: HashMap<&str, u32> = names.iter().zip(0..).map(|(name, at)| (name.as_str(), at)).collect();
        let place = |name: &String| places.get(name.as_str()).copied().unwrap_or_default();
        let final_labels: Vec<u32> = classes.names.iter().map(place).collect();
        for label in &mut mapped {
            *label = final_labels[*label as usize];
        }
        classes = Classes { known: names.len(), names };
    }
    for sample in &mut samples {
        sample.label = mapped[sample.label as usize];
    }
    Ok(Catalog {
        path: path.to_owned(),
        images: CatalogImages::Encoded(Arc::new(Tables { tables, rows, recent: Mutex::default() })),
        samples: samples.into(),
        classes,
        groups: Arc::default(),
        class_folders: Vec::new(),
        refused,
        notes: Vec::new(),
    })
}

struct Opened {
    table: Table,
    /// Of each row, which of the texts its label is.
    labels: Vec<Option<u32>>,
    texts: Vec<String>,
    class_names: Option<Vec<String>>,
}

fn open(path: &Path) -> Result<Opened, DataError> {
    let file = Positioned::open(path)?;
    parse(file).map_err(|problem| DataError::format(path, problem))
}

fn parse(file: Positioned) -> Result<Opened, String> {
    let broken = |_: std::io::Error| "cannot be read to its end".to_owned();
    let mut tail = [0; 8];
    let tail_start = file.length.checked_sub(12).ok_or("is too short for Parquet")? + 4;
    file.read_exact_at(&mut tail, tail_start).map_err(broken)?;
    let length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if tail[4..] != *b"PAR1" || length > tail_start || length > MAX_FOOTER {
        return Err("does not end as Parquet does; it is truncated or of another format".into());
    }
    let mut footer = vec![0; length as usize];
    file.read_exact_at(&mut footer, tail_start - length).map_err(broken)?;
    let footer = thrift::parse(&footer).ok_or("has a damaged footer")?.0;

    let columns = columns(footer.get(2).list());
    let binary = |column: &&(usize, &Column)| column.1.kind == page::BYTES && !column.1.repeated;
    let numbered: Vec<(usize, &Column)> = columns.iter().enumerate().collect();
    let image = IMAGES.iter().find_map(|name| {
        let of_name = |column: &&(usize, &Column)| column.1.top == *name;
        let bytes = numbered.iter().filter(of_name).filter(binary);
        bytes
            .clone()
            .find(|(_, column)| column.leaf == "bytes")
            .or(bytes.clone().find(|(_, column)| column.depth == 1))
            .copied()
    });
    let label = LABELS.iter().find_map(|name| {
        numbered.iter().find(|(_, column)| column.depth == 1 && column.top == *name && !column.repeated).copied()
    });
    let names = || columns.iter().map(|column| members::shortened(column.top)).take(20).collect::<Vec<_>>().join(", ");
    let (Some((image, image_column)), Some((label, label_column))) = (image, label) else {
        return Err(format!("expected the columns `image` with `bytes`, and `label`; got {}", names()));
    };

    let (mut pages, mut labels, mut rows, mut cost) = (Vec::new(), Vec::new(), 0, 0);
    let mut numbers: HashMap<String, u32> = HashMap::new();
    for group in footer.get(4).list() {
        let chunks = group.get(1).list();
        let chunk = |at: usize, column: &Column| {
            let meta = chunks.get(at).map(|chunk| chunk.get(3)).ok_or("has a row group without its columns")?;
            Chunk::new(meta, column.optional)
        };
        let image_chunk = chunk(image, image_column)?;
        let image_rows = page::index(&file, &image_chunk, rows, &mut pages, &mut cost)?;
        let label_chunk = chunk(label, label_column)?;
        let mut label_pages = Vec::new();
        let label_rows = page::index(&file, &label_chunk, 0, &mut label_pages, &mut cost)?;
        if image_rows != label_rows {
            return Err(format!("has {image_rows} images, but {label_rows} labels in a row group"));
        }
        for (_, page) in &label_pages {
            page.read(&file)?.texts(label_column.kind, |text| {
                labels.push(text.filter(|text| is_class_name(text)).map(|text| match numbers.get(text) {
                    Some(&number) => number,
                    None => {
                        let number = numbers.len() as u32;
                        numbers.insert(text.to_owned(), number);
                        number
                    }
                }));
            })?;
            if numbers.len() > MAX_CLASSES {
                return Err(format!("has more than {MAX_CLASSES} different labels; are they of another kind?"));
            }
        }
        rows += image_rows;
        if rows > u64::from(u32::MAX) {
            return Err("has more than 2^32 rows".into());
        }
    }
    let class_names = class_names(&footer, label_column.top);
    let mut texts = vec![String::new(); numbers.len()];
    for (text, number) in numbers {
        texts[number as usize] = text;
    }
    Ok(Opened { table: Table { file, pages }, labels, texts, class_names })
}

/// The columns that hold values, in the order of the chunks.
fn columns(schema: &[Thrift]) -> Vec<Column<'_>> {
    let mut columns = Vec::new();
    // Of each group that is open: its name, whether it may be missing or repeats, and children that are left.
    let mut open: Vec<(&str, bool, bool, i64)> = Vec::new();
    for (at, element) in schema.iter().enumerate() {
        let name = element.get(4).text().unwrap_or_default();
        let (optional, repeated) = (element.get(3).number() == Some(1), element.get(3).number() == Some(2));
        let children = element.get(5).number().unwrap_or(0);
        if at > 0 {
            if let Some((.., left)) = open.last_mut() {
                *left -= 1;
            }
            if children == 0 {
                let groups = &open[1.min(open.len())..];
                columns.push(Column {
                    top: groups.first().map_or(name, |(name, ..)| name),
                    leaf: name,
                    depth: groups.len() + 1,
                    kind: element.get(1).number().unwrap_or(-1),
                    optional: groups.iter().filter(|(_, optional, ..)| *optional).count() as u32 + u32::from(optional),
                    repeated: repeated || groups.iter().any(|(_, _, repeated, _)| *repeated),
                });
            }
        }
        if children > 0 || at == 0 {
            open.push((name, optional, repeated, children));
        }
        while open.len() > 1 && open.last().is_some_and(|(.., left)| *left <= 0) {
            open.pop();
        }
        if open.len() > 64 {
            break;
        }
    }
    columns
}

/// The names that Hugging Face's `datasets` writes for the label's numbers.
fn class_names(footer: &Thrift, label: &str) -> Option<Vec<String>> {
    let pairs = footer.get(5).list();
    let pair = pairs.iter().find(|pair| pair.get(1).text() == Some("huggingface"))?;
    let text = pair.get(2).text().filter(|text| text.len() <= MAX_NAMES)?;
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    let names = document.get("info")?.get("features")?.get(label)?.get("names")?.as_array()?;
    let names: Vec<String> = names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect();
    let unique = names.iter().collect::<std::collections::HashSet<_>>().len() == names.len();
    (unique && names.len() > 1 && names.iter().all(|name| is_class_name(name))).then_some(names)
}

impl Tables {
    /// The page that holds a row, and the row's place in it.
    fn page(&self, table: u32, row: u32) -> Result<(Arc<Values>, usize), String> {
        let pages = &self.tables[table as usize].pages;
        let at =
            pages.partition_point(|(first, _)| *first <= u64::from(row)).checked_sub(1).ok_or("has no such row")?;
        let place = (u64::from(row) - pages[at].0) as usize;
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, values)) = recent().iter().find(|(key, _)| *key == (table, at)) {
            return Ok((values.clone(), place));
        }
        let values = Arc::new(pages[at].1.read(&self.tables[table as usize].file)?);
        let mut recent = recent();
        recent.push(((table, at), values.clone()));
        let size = |recent: &[Recent]| recent.iter().map(|(_, values)| values.size()).sum::<usize>();
        while recent.len() > KEPT_PAGES || (recent.len() > 1 && size(&recent) > KEPT_BYTES) {
            recent.remove(0);
        }
        Ok((values, place))
    }
}

impl Store for Tables {
    fn name_of(&self, index: usize) -> String {
        let (table, row) = self.rows[index];
        format!("{}[{row}]", self.tables[table as usize].file.path.display())
    }

    fn size_of(&self, _index: usize) -> Option<u64> {
        None
    }

    fn read(&self, index: usize, limits: &Limits, bytes: &mut Vec<u8>) -> Result<(), ImageProblem> {
        let (table, row) = self.rows[index];
        let (values, place) = self.page(table, row).map_err(ImageProblem::Unreadable)?;
        let value = values.bytes(place).ok_or_else(|| ImageProblem::Unreadable("the row holds no bytes".into()))?;
        limits.allow(value.len() as u64)?;
        bytes.clear();
        bytes.extend_from_slice(value);
        Ok(())
    }

    fn stamp_of(&self, index: usize) -> u64 {
        let (table, row) = self.rows[index];
        (self.tables[table as usize].file.stamp ^ u64::from(row).wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1)
    }
}
