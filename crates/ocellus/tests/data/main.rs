//! Data sets from files made here: good ones in every layout and format, and bad ones of every kind.

mod archives;
mod bombs;
mod cache;
mod folders;
mod formats;
mod hostile;
mod idx_and_cifar;
mod loader;
mod manifests;

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageFormat};
use tempfile::TempDir;

/// A temporary folder with the given files, folders made as needed. A path that ends in `/` is an empty folder.
fn folder<'a>(files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = root.path().join(path);
        if path.to_string_lossy().ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    root
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A grey PNG of one value, 8 x 8.
fn grey(value: u8) -> Vec<u8> {
    encode(&image::GrayImage::from_pixel(8, 8, image::Luma([value])).into(), ImageFormat::Png)
}

/// A JPEG with some structure, 24 x 16.
fn jpeg() -> Vec<u8> {
    let image = image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([(x * 10) as u8, (y * 15) as u8, (x * y) as u8]));
    encode(&image.into(), ImageFormat::Jpeg)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An IDX file of bytes.
fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    bytes.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// A PNG file of one header and compressed data, right or wrong.
fn raw_png(width: u32, height: u32, bits: u8, kind: u8, chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([bits, kind, 0, 0, 0]);
    for (name, data) in [(b"IHDR", &header[..])].into_iter().chain(chunks.iter().copied()).chain([(b"IEND", &[][..])]) {
        let mut crc = flate2::Crc::new();
        crc.update(name);
        crc.update(data);
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend([&name[..], data, &crc.sum().to_be_bytes()].concat());
    }
    bytes
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `path` relative to `root`, for comparison.
fn relative(path: &Path, root: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_owned()
}
