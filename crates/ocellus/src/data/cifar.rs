//! CIFAR-10 and CIFAR-100 in their binary format.
//!
//! ```text
//! CIFAR-10    label                1024 red, 1024 green, 1024 blue      × 10,000 a file
//! CIFAR-100   coarse label, label  1024 red, 1024 green, 1024 blue
//! ```
//! Pixels are 32 x 32, row by row. <https://www.cs.toronto.edu/~kriz/cifar.html>

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fingerprint::xxh64;
use super::{DataError, Dataset, Preprocessing, Source, Split};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// CIFAR-10's classes, for where `batches.meta.txt` is missing.
const CIFAR_10: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Files of one of the two.
pub(super) struct Cifar {
    pub(super) path: PathBuf,
    fine: bool,
    train: Vec<PathBuf>,
    test: Vec<PathBuf>,
}

impl Cifar {
    /// What lies in `folder`, or in the folder of that format's archive within it.
    pub(super) fn find(folder: &Path) -> Option<Self> {
        [folder.to_owned(), folder.join("cifar-10-batches-bin"), folder.join("cifar-100-binary")].into_iter().find_map(
            |path| {
                let file = |name: &str| Some(path.join(name)).filter(|file| file.is_file());
                let train: Vec<_> = (1..=5).filter_map(|n| file(&format!("data_batch_{n}.bin"))).collect();
                let test: Vec<_> = file("test_batch.bin").into_iter().collect();
                if !train.is_empty() || !test.is_empty() {
                    return Some(Self { path, fine: false, train, test });
                }
                let (train, test): (Vec<_>, Vec<_>) =
                    (file("train.bin").into_iter().collect(), file("test.bin").into_iter().collect());
                (!train.is_empty() || !test.is_empty()).then_some(Self { path, fine: true, train, test })
            },
        )
    }

    /// One file, as training data.
    pub(super) fn of_file(file: &Path) -> Option<Self> {
        let name = file.file_name()?.to_str()?;
        let path = file.parent()?.to_owned();
        let ten = (name.starts_with("data_batch_") || name == "test_batch.bin") && name.ends_with(".bin");
        let hundred = name == "train.bin" || name == "test.bin";
        (ten || hundred).then(|| Self { path, fine: hundred, train: vec![file.to_owned()], test: vec![] })
    }

    pub(super) fn has(&self, split: Split) -> bool {
        !self.files(split).is_empty()
    }

    pub(super) fn open(&self, split: Split) -> Result<Dataset, DataError> {
        let class_names = self.class_names()?;
        let (mut pixels, mut labels, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for file in self.files(split) {
            self.read(file, class_names.len(), &mut pixels, &mut labels)?;
            files.push((file.clone(), labels.len()));
        }
        let preprocessing = Preprocessing { image_size: [SIDE, SIDE], channels: 3, ..Preprocessing::default() };
        Dataset::from_source(Arc::new(Batches { pixels, files }), labels, class_names, preprocessing)
    }

    fn files(&self, split: Split) -> &[PathBuf] {
        match split {
            Split::Train => &self.train,
            Split::Validation => &[],
            Split::Test => &self.test,
        }
    }

    /// Names as the files beside have them; without, CIFAR-10's are known and CIFAR-100's are numbers.
    fn class_names(&self) -> Result<Vec<String>, DataError> {
        let (name, count) =
            if self.fine { ("fine_label_names.txt", 100) } else { ("batches.meta.txt", CIFAR_10.len()) };
        let path = self.path.join(name);
        if !path.is_file() {
            let known = |class: usize| {
                CIFAR_10.get(class).filter(|_| !self.fine).map_or(class.to_string(), ToString::to_string)
            };
            return Ok((0..count).map(known).collect());
        }
        let mut text = String::new();
        let file = File::open(&path).map_err(DataError::io(&path))?;
        file.take(1 << 16).read_to_string(&mut text).map_err(DataError::io(&path))?;
        let names: Vec<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
        if names.len() != count {
            return Err(DataError::format(
                &path,
                format!("expected {count} class names, one per line, got {}", names.len()),
            ));
        }
        Ok(names)
    }

    fn read(&self, path: &Path, classes: usize, pixels: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<(), DataError> {
        let header = 1 + usize::from(self.fine);
        let record = header + 3 * PLANE;
        let length = fs::metadata(path).map_err(DataError::io(path))?.len();
        if length == 0 || !length.is_multiple_of(record as u64) {
            let problem =
                format!("has {length} bytes, expected records of {record}; it is truncated or of another format");
            return Err(DataError::format(path, problem));
        }
        let count = (length / record as u64) as usize;
        let too_large = |_| DataError::format(path, format!("its {count} images do not fit into memory"));
        pixels.try_reserve_exact(count.saturating_mul(3 * PLANE)).map_err(too_large)?;
        let mut file = BufReader::with_capacity(1 << 17, File::open(path).map_err(DataError::io(path))?);
        let mut bytes = vec![0; record];
        for index in 0..count {
            file.read_exact(&mut bytes).map_err(DataError::io(path))?;
            let (head, planes) = bytes.split_at(header);
            let label = u32::from(head[header - 1]);
            if label as usize >= classes {
                return Err(DataError::LabelOutOfRange { path: path.to_owned(), index, label, classes });
            }
            labels.push(label);
            let (red, rest) = planes.split_at(PLANE);
            let (green, blue) = rest.split_at(PLANE);
            pixels.extend(red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]));
        }
        Ok(())
    }
}

/// Images of several files, one after another in memory.
struct Batches {
    pixels: Vec<u8>,
    /// Each file, and the number of images up to its end.
    files: Vec<(PathBuf, usize)>,
}

impl Source for Batches {
    fn len(&self) -> usize {
        self.pixels.len() / (3 * PLANE)
    }

    fn copy_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        pixels.copy_from_slice(&self.pixels[index * 3 * PLANE..][..3 * PLANE]);
        Ok(())
    }

    fn pixels(&self) -> Option<&[u8]> {
        Some(&self.pixels)
    }

    fn name_of(&self, index: usize) -> String {
        let at = self.files.partition_point(|&(_, end)| end <= index);
        let start = at.checked_sub(1).map_or(0, |before| self.files[before].1);
        self.files
            .get(at)
            .map_or_else(|| index.to_string(), |(file, _)| format!("{}[{}]", file.display(), index - start))
    }

    fn hash_of(&self, index: usize) -> Result<u64, DataError> {
        Ok(xxh64(&self.pixels[index * 3 * PLANE..][..3 * PLANE]))
    }
}
