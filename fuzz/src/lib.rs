//! What every fuzz target does: bytes as a file of some name, opened and read within small limits.
//!
//! ```sh
//! fuzz/run zip SEEDS -max_total_time=300      # what follows the target goes to libFuzzer
//! ```
//!
//! `fuzz/run` needs a nightly compiler and nothing else; with cargo-fuzz, `cargo +nightly fuzz run zip` does the same. Seeds are small
//! files of the kind, such as those in `crates/ocellus/tests/data/fixtures`.

use std::fs;
use std::path::Path;

use ocellus::check::{CheckOptions, check};
use ocellus::data::{Catalog, Dataset, Limits, OpenOptions, Preprocessing, splits_of};
use ocellus::labels::{Corrections, SampleRecord, suspects};
use ocellus::model::{Model, WeightFile};

fn limits() -> Limits {
    Limits { pixels: 1 << 20, memory: 1 << 20 }
}

/// A PNG of one grey pixel.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\
    \0\0\0\nIDATx\xdac`\x07\0\0\x09\0\x08\x8d\xab\xb9\x01\0\0\0\0IEND\xaeB`\x82";

/// Bytes as an image file.
pub fn image(bytes: &[u8]) {
    let preprocessing = Preprocessing::default();
    let mut pixels = vec![0; preprocessing.image_len()];
    let _ = preprocessing.prepare_bytes(bytes, &limits(), &mut pixels);
}

/// What `read` does with bytes as a file of this name.
fn file(name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders around it");
    fs::write(&path, bytes).expect("a file in it");
    read(&path);
}

/// Bytes as a data file of this name, with what belongs beside it.
pub fn data(name: &str, bytes: &[u8], beside: &[(&str, &[u8])]) {
    file(name, bytes, |path| {
        for (name, bytes) in beside {
            fs::write(path.with_file_name(name), bytes).expect("a file beside it");
        }
        let mut content = Vec::new();
        if let Ok(catalog) = Catalog::open(path) {
            for index in 0..catalog.len().min(100) {
                let _ = catalog.read(index, &limits(), &mut content);
                assert!(catalog.label(index).is_none_or(|label| (label as usize) < catalog.class_names().len()));
            }
            assert!(catalog.class_names().iter().all(|name| !name.contains(char::is_control)));
        }
        for split in splits_of(path).unwrap_or_default() {
            let options = OpenOptions { split, limits: limits(), ..OpenOptions::default() };
            if let Ok(part) = Dataset::open(path, &options) {
                let mut pixels = vec![0; part.image_len()];
                for index in 0..part.len().min(100) {
                    let _ = part.copy_image(index, &mut pixels);
                }
            }
        }
    });
}

/// Bytes as an image among others that are checked: a JPEG's coded data is read once more, by the letter.
pub fn checked(bytes: &[u8]) {
    file("a/1.jpg", bytes, |path| {
        let root = path.parent().and_then(Path::parent).expect("two folders");
        fs::create_dir(root.join("b")).expect("another class");
        fs::write(root.join("b/2.png"), PNG).expect("another image");
        if let Ok(catalog) = Catalog::open(root) {
            let options = CheckOptions { near_duplicates: false, threads: Some(1), limits: limits() };
            let _ = check(&catalog, &options, &|_, _| {}).text();
        }
    });
}

/// A safetensors file: its header up to the first line's end, then its data. The header's length is added, so that changes to it matter.
fn safetensors(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let (header, data) = bytes.split_at(end);
    [&(header.len() as u64).to_le_bytes(), header, data.get(1..).unwrap_or_default()].concat()
}

/// Bytes as a model file, see [`safetensors`].
pub fn model(bytes: &[u8]) {
    file("model.safetensors", &safetensors(bytes), |path| drop(Model::load(path)));
}

/// Bytes as a file of pretrained weights.
pub fn weights(bytes: &[u8]) {
    file("weights.safetensors", &safetensors(bytes), |path| {
        let Ok(weights) = WeightFile::open(path) else { return };
        let _ = weights.published();
        let mut model = ocellus::models::find("reference_cnn").and_then(|model| model.build([28, 28, 1], 10).ok());
        let _ = model.as_mut().map(|model| model.load_weights(path));
    });
}

/// Bytes as a run's record of its samples.
pub fn record(bytes: &[u8]) {
    file("samples.safetensors", &safetensors(bytes), |path| {
        if let Ok(record) = SampleRecord::load(path) {
            let _ = suspects(&record);
        }
    });
}

/// Bytes as a list of labels to change.
pub fn corrections(bytes: &[u8]) {
    file("list.csv", bytes, |path| {
        let data = Dataset::from_pixels(vec![0; 2], [1, 1, 1], vec![0, 1], vec!["a".into(), "b".into()]);
        for corrections in [Corrections::read_drops(path), Corrections::read_labels(path)] {
            let _ = corrections.and_then(|corrections| corrections.apply(data.as_ref().expect("two samples")));
        }
    });
}
