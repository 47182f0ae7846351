//! What every fuzz target does: bytes as a file of some name, listed, opened and read within small limits.
//!
//! ```sh
//! cargo +nightly fuzz run zip          # from the repository's root; targets: cargo fuzz list
//! ```

use std::fs;

use ocellus::data::{Catalog, Dataset, Limits, OpenOptions, Preprocessing, splits_of};

fn limits() -> Limits {
    Limits { pixels: 1 << 20, memory: 1 << 20 }
}

/// Bytes as an image file.
pub fn image(bytes: &[u8]) {
    let preprocessing = Preprocessing::default();
    let mut pixels = vec![0; preprocessing.image_len()];
    let _ = preprocessing.prepare_bytes(bytes, &limits(), &mut pixels);
}

/// Bytes as a data file of this name, with what belongs beside it.
pub fn data(name: &str, bytes: &[u8], beside: &[(&str, &[u8])]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("a file in it");
    for (name, bytes) in beside {
        fs::write(folder.path().join(name), bytes).expect("a file in it");
    }
    let mut content = Vec::new();
    if let Ok(catalog) = Catalog::open(&path) {
        for index in 0..catalog.len().min(100) {
            let _ = catalog.read(index, &limits(), &mut content);
            assert!(catalog.label(index).is_none_or(|label| (label as usize) < catalog.class_names().len()));
        }
    }
    for split in splits_of(&path).unwrap_or_default() {
        let options = OpenOptions { split, limits: limits(), ..OpenOptions::default() };
        if let Ok(part) = Dataset::open(&path, &options) {
            let mut pixels = vec![0; part.image_len()];
            for index in 0..part.len().min(100) {
                let _ = part.copy_image(index, &mut pixels);
            }
        }
    }
}
