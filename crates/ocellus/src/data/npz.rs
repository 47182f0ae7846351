//! NumPy's `.npz`: arrays in a zip archive, under the names that MedMNIST and Keras give them.
//!
//! ```text
//! train_images, train_labels, val_images, val_labels, test_images, test_labels      MedMNIST
//! x_train, y_train, x_test, y_test                                                  Keras
//! ```
//! Images are bytes of shape `[count, height, width]` or `[count, height, width, channels]`, labels whole numbers of shape
//! `[count]` or `[count, 1]`. <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open::{MOST_SAMPLES, trusted};
use super::source::Memory;
use super::zip::{Zip, has_extension};
use super::{DataError, Dataset, Preprocessing, Split};

/// For each part the names of its images and labels.
const NAMES: [(Split, [&str; 2]); 6] = [
    (Split::Train, ["train_images", "train_labels"]),
    (Split::Validation, ["val_images", "val_labels"]),
    (Split::Test, ["test_images", "test_labels"]),
    (Split::Train, ["x_train", "y_train"]),
    (Split::Validation, ["x_val", "y_val"]),
    (Split::Test, ["x_test", "y_test"]),
];

/// An array's header is not longer than this.
const MAX_HEADER: usize = 1 << 16;

pub(super) fn is_npz(path: &Path) -> bool {
    has_extension(path, &["npz"])
}

/// An archive of arrays, with the parts that it has.
pub(super) struct Npz {
    pub(super) path: PathBuf,
    zip: Zip,
    /// The members of a part's images and labels.
    parts: Vec<(Split, [usize; 2])>,
}

impl Npz {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let zip = Zip::open(path)?;
        let find = |name: &str| zip.members.iter().position(|member| member.name.strip_suffix(".npy") == Some(name));
        let parts: Vec<(Split, [usize; 2])> = NAMES
            .iter()
            .filter_map(|(split, [images, labels])| Some((*split, [find(images)?, find(labels)?])))
            .collect();
        if parts.is_empty() {
            let found: Vec<&str> = zip.members.iter().map(|member| member.name.as_str()).take(20).collect();
            let problem = format!(
                "expected the arrays `train_images` and `train_labels` (and val_, test_), or `x_train` and `y_train`; got {}",
                if found.is_empty() { "none".to_owned() } else { found.join(", ") }
            );
            return Err(DataError::format(path, problem));
        }
        Ok(Self { path: path.to_owned(), zip, parts })
    }

    pub(super) fn has(&self, split: Split) -> bool {
        self.parts.iter().any(|(of, _)| *of == split)
    }

    pub(super) fn read(&self, split: Split) -> Result<Dataset, DataError> {
        let part = self.parts.iter().find(|(of, _)| *of == split);
        let (_, [images, labels]) = part.ok_or_else(|| DataError::Empty { path: self.path.clone() })?;
        let (labels_path, images_path) = (self.member_path(*labels), self.member_path(*images));
        let labels = self.array(*labels)?;
        let labels = labels.whole_numbers().map_err(|problem| DataError::format(&labels_path, problem))?;
        let images = self.array(*images)?;
        let (count, shape) = match images.shape[..] {
            [count, height, width] => (count, [height, width, 1]),
            [count, height, width, channels @ (1 | 3)] => (count, [height, width, channels]),
            _ => {
                let problem = format!(
                    "has the shape {:?}, expected [images, height, width] or [images, height, width, 1 or 3]",
                    images.shape
                );
                return Err(DataError::format(&images_path, problem));
            }
        };
        if images.kind != "u1" {
            let problem = format!("holds numbers of type {}, expected bytes (u1)", images.kind);
            return Err(DataError::format(&images_path, problem));
        }
        if count != labels.len() {
            let labels = labels.len();
            return Err(DataError::CountMismatch { images_path, images: count, labels_path, labels });
        }
        let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
        let preprocessing =
            Preprocessing { image_size: [shape[0], shape[1]], channels: shape[2], ..Preprocessing::default() };
        preprocessing.check().map_err(|error| DataError::format(&images_path, error.to_string()))?;
        let memory = Memory::new(images.data, shape, &images_path)
            .ok_or_else(|| DataError::format(&images_path, "its shape does not fit its data"))?;
        let names = (0..classes).map(|class| class.to_string()).collect();
        Dataset::from_source(Arc::new(memory), labels, names, preprocessing)
    }

    /// Where the labels of a part are, for messages.
    pub(super) fn labels_path(&self, split: Split) -> PathBuf {
        let part = self.parts.iter().find(|(of, _)| *of == split);
        part.map_or_else(|| self.path.clone(), |(_, [_, labels])| self.member_path(*labels))
    }

    fn member_path(&self, member: usize) -> PathBuf {
        self.path.join(&self.zip.members[member].name)
    }

    fn array(&self, member: usize) -> Result<Array, DataError> {
        let path = self.member_path(member);
        let mut bytes = Vec::new();
        let (packed, size) = self.zip.members[member].sizes();
        if size > trusted(packed) {
            let problem = format!(
                "unpacks {packed} bytes to {size}, more than is trusted; if it is right, save it with numpy.savez, not packed"
            );
            return Err(DataError::format(&path, problem));
        }
        let read = self.zip.read(&self.zip.members[member], &mut bytes);
        read.and_then(|()| Array::parse(bytes)).map_err(|problem| DataError::format(&path, problem))
    }
}

/// An array as it lies in its file.
struct Array {
    /// NumPy's name for the kind of its numbers, `u1` or `i8`.
    kind: String,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Array {
    fn parse(mut bytes: Vec<u8>) -> Result<Self, String> {
        let broken = || "is no array of NumPy, or damaged".to_owned();
        if !bytes.starts_with(b"\x93NUMPY") {
            return Err(broken());
        }
        let (start, length) = match (bytes.get(6), bytes.get(8..12)) {
            (Some(1), Some(&[low, high, ..])) => (10, usize::from(u16::from_le_bytes([low, high]))),
            (Some(2 | 3), Some(&[a, b, c, d])) => (12, u32::from_le_bytes([a, b, c, d]) as usize),
            _ => return Err(broken()),
        };
        let header = bytes.get(start..start + length.min(MAX_HEADER)).filter(|header| header.len() == length);
        let header = header.and_then(|header| std::str::from_utf8(header).ok()).ok_or_else(broken)?;
        // The header is Python's literal of a dictionary with these three keys.
        let value = |key: &str| Some(header.split_once(&format!("'{key}':"))?.1.trim_start());
        let descr = value("descr").and_then(|text| text.strip_prefix('\'')?.split_once('\'')).ok_or_else(broken)?.0;
        let fortran = value("fortran_order").is_some_and(|text| text.starts_with("True"));
        let shape = value("shape").and_then(|text| text.strip_prefix('(')?.split_once(')')).ok_or_else(broken)?.0;
        let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty()).map(str::parse::<usize>);
        let shape = sizes.collect::<Result<Vec<_>, _>>().map_err(|_| broken())?;
        let kind = descr.trim_start_matches(['|', '<', '=', '>']).to_owned();
        let width = kind.get(1..).and_then(|width| width.parse::<usize>().ok()).ok_or_else(broken)?;
        if descr.starts_with('>') && width > 1 {
            return Err("holds numbers in big-endian order, expected little-endian".into());
        }
        if fortran && shape.iter().filter(|&&size| size > 1).count() > 1 {
            return Err("is in Fortran's order; save it with numpy.ascontiguousarray".into());
        }
        let count = shape.iter().try_fold(width, |product, &size| product.checked_mul(size));
        let held = bytes.len() - start - length;
        if count != Some(held) {
            return Err(format!("has the shape {shape:?}, which {held} bytes do not fit; it is damaged"));
        }
        bytes.drain(..start + length);
        Ok(Self { kind, shape, data: bytes })
    }

    /// The numbers of `[count]` or `[count, 1]` labels.
    fn whole_numbers(&self) -> Result<Vec<u32>, String> {
        match self.shape[..] {
            [_] | [_, 1] => {}
            [_, many] => {
                return Err(format!(
                    "has {many} labels for each image; expected one, since classes exclude each other"
                ));
            }
            _ => return Err(format!("has the shape {:?}, expected [images] or [images, 1]", self.shape)),
        }
        if self.shape[0] > MOST_SAMPLES {
            return Err(format!("has {} labels, more than {MOST_SAMPLES}", self.shape[0]));
        }
        let width = match self.kind.as_str() {
            "u1" | "i1" | "b1" => 1,
            "u2" | "i2" => 2,
            "u4" | "i4" => 4,
            "u8" | "i8" => 8,
            kind => return Err(format!("holds numbers of type {kind}, expected whole ones")),
        };
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        // A negative number is large here, too.
        let label = |(index, bytes)| match number(bytes) {
            label @ 0..=0xffff => Ok(label as u32),
            _ => Err(format!("sample {index} has a label that is negative or above 65,535")),
        };
        self.data.chunks_exact(width).enumerate().map(label).collect()
    }
}
