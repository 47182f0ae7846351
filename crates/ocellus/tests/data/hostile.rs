//! Files as strangers send them: named errors, no panic, no memory that a header asks for.

use std::path::Path;
use std::sync::OnceLock;

use image::ImageFormat;
use ocellus::data::{Dataset, Limits, OpenOptions, Preprocessing, Split};
use proptest::prelude::*;

use super::{encode, folder, grey, gzip, idx, jpeg, raw_png, zlib};

/// Opening a folder of these files fails, and the message has all of these parts.
#[track_caller]
fn check_with(options: &OpenOptions, files: Vec<(&str, Vec<u8>)>, expected: &[&str]) {
    let root = folder(files);
    let message = match Dataset::open(root.path(), options) {
        Ok(data) => panic!("opened as {data:?}, expected an error with {expected:?}"),
        Err(error) => error.to_string(),
    };
    for part in expected {
        assert!(message.contains(part), "{message}\ndoes not contain {part}");
    }
    assert!(message.contains(&*root.path().to_string_lossy()), "{message}\nnames no file");
}

#[track_caller]
fn check(files: Vec<(&str, Vec<u8>)>, expected: &[&str]) {
    check_with(&OpenOptions::default(), files, expected);
}

#[test]
fn folders_without_what_is_needed() {
    check(vec![], &["there are no images here", "expected class folders"]);
    check(vec![("a/", vec![]), ("b/", vec![])], &["there are no images here"]);
    check(vec![("a/1.png", grey(1))], &["one class only, `a`", "two or more"]);
    check(vec![("data/a/1.png", grey(1)), ("data/b/1.png", grey(1))], &["one class only", "was", "data meant?"]);
    check(vec![("a/1.png", grey(1)), ("b/1.png", grey(1)), ("c/", vec![])], &["class `c` has no usable image"]);
    check(
        vec![("a/1.png", grey(1)), ("b/1.png", b"hello".to_vec())],
        &["class `b` has no usable image", "1.png", "it holds text"],
    );
    check(vec![("1.png", grey(1))], &["no class folders"]);
    check(vec![("notes.txt", b"hello".to_vec())], &["`notes.txt`", "Expected class folders"]);
    check(vec![("a\nb/1.png", grey(1)), ("c/1.png", grey(1))], &["class name must be UTF-8"]);
    check(
        vec![("train/a/1.png", grey(1)), ("Training/a/1.png", grey(1)), ("train/b/1.png", grey(1))],
        &["both name the training split"],
    );
    let validation = OpenOptions { split: Split::Validation, ..Default::default() };
    check_with(
        &validation,
        vec![("a/1.png", grey(1)), ("b/1.png", grey(1))],
        &["no validation split", "hold back a fraction"],
    );
    check_with(
        &validation,
        vec![
            ("train/a/1.png", grey(1)),
            ("train/b/1.png", grey(1)),
            ("val/a/1.png", grey(1)),
            ("val/zebra/1.png", grey(1)),
        ],
        &["val/zebra: class `zebra` is not among the 2 classes of the training data (a, b)"],
    );
    let missing = Dataset::open("no/such/place", &OpenOptions::default()).unwrap_err().to_string();
    assert!(
        missing.contains("no/such/place: no such file or folder") && missing.contains("fashion-mnist-6k"),
        "{missing}"
    );
}

#[test]
fn images_that_are_none() {
    let cut = |bytes: Vec<u8>, keep: usize| bytes[..bytes.len() * keep / 100].to_vec();
    let rgb = || image::DynamicImage::from(image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([x as u8, y as u8, 0])));
    let row = zlib(&[0; 100]);
    let mut huge_jpeg = jpeg();
    let frame = huge_jpeg.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
    huge_jpeg[frame + 5..frame + 9].fill(0xff);
    let mut bad_jpeg_end = jpeg();
    bad_jpeg_end.truncate(bad_jpeg_end.len() - 2);
    for (name, bytes, expected) in [
        ("empty.png", vec![], "the file is empty (0 bytes)"),
        ("text.png", b"hello there".to_vec(), "it holds text"),
        ("page.jpg", b"\n<!DOCTYPE html><html>".to_vec(), "it holds a web page"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0".to_vec(), "HEIC, which is not supported; convert it to JPEG"),
        ("pointer.png", b"version https://git-lfs.github.com/spec/v1\noid".to_vec(), "git lfs pull"),
        ("zeros.jpg", vec![0; 5000], "nothing but zero bytes"),
        ("noise.png", (0..=255).collect(), "unknown data"),
        ("cut.jpg", cut(jpeg(), 70), "the image is truncated"),
        ("tail.jpg", bad_jpeg_end, "the image is truncated"),
        ("cut.png", cut(encode(&rgb(), ImageFormat::Png), 60), "the image is truncated"),
        ("cut.gif", cut(encode(&rgb(), ImageFormat::Gif), 60), "the image is"),
        ("cut.bmp", cut(encode(&rgb(), ImageFormat::Bmp), 60), "the image is truncated"),
        ("cut.webp", cut(encode(&rgb(), ImageFormat::WebP), 60), "the image is"),
        ("cut.tiff", cut(encode(&rgb(), ImageFormat::Tiff), 60), "the image is"),
        ("head.png", encode(&rgb(), ImageFormat::Png)[..10].to_vec(), "the image is"),
        (
            "huge.png",
            raw_png(60_000, 60_000, 8, 2, &[(b"IDAT", &row)]),
            "60000 x 60000 pixels, more than the limit of 134 million",
        ),
        ("huge.jpg", huge_jpeg, "65535 x 65535 pixels"),
        ("none.png", raw_png(0, 5, 8, 2, &[(b"IDAT", &row)]), "the image is damaged"),
        ("short.png", raw_png(50, 50, 8, 2, &[(b"IDAT", &row)]), "the image is"),
    ] {
        let root = folder([(name, bytes)]);
        let preprocessing = Preprocessing::default();
        let mut pixels = vec![0; preprocessing.image_len()];
        let path = root.path().join(name);
        let error = preprocessing.prepare_file(&path, &Limits::default(), &mut pixels).err();
        let message = error.unwrap_or_else(|| panic!("{name} was accepted")).to_string();
        assert!(message.contains(expected) && message.contains(name), "{name}: {message}");
    }
    let missing = Preprocessing::default().prepare_file(Path::new("gone.png"), &Limits::default(), &mut [0; 784]);
    assert!(missing.unwrap_err().to_string().contains("gone.png: cannot be read"));
}

#[test]
fn idx_files_that_lie() {
    let labels = || idx(&[2], &[0, 1]);
    let images = || idx(&[2, 2, 2], &[7; 8]);
    let changed = |mut bytes: Vec<u8>, at: usize, value: u8| {
        bytes[at] = value;
        bytes
    };
    let mut broken_gzip = gzip(&idx(&[2, 40, 40], &(0..3200).map(|i| (i * i % 251) as u8).collect::<Vec<_>>()));
    let middle = broken_gzip.len() / 2;
    broken_gzip[middle] ^= 0x55;
    for (name, images, labels, expected) in [
        (
            "magic",
            changed(images(), 0, 1),
            labels(),
            "expected it to begin with 00 00 08 03 or 00 00 08 04, got 01 00 08 03",
        ),
        ("floats", changed(images(), 2, 0x0d), labels(), "32-bit floats (type 0x0d), expected unsigned bytes"),
        ("labels for images", labels(), labels(), "has 1 dimensions, expected 3 or 4; is it a file of labels?"),
        ("images for labels", images(), images(), "has 3 dimensions, expected 1"),
        ("empty", vec![], labels(), "the file is empty"),
        ("two bytes", vec![0, 0], labels(), "the file is too short"),
        ("no sizes", images()[..9].to_vec(), labels(), "ends within its sizes"),
        ("truncated", images()[..20].to_vec(), labels(), "states sizes 2 x 2 x 2, more than the 4 bytes that follow"),
        ("too long", [images(), vec![0]].concat(), labels(), "that is 8 bytes, but 9 follow"),
        ("overflow", idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 8]), labels(), "truncated or damaged"),
        ("huge", idx(&[u32::MAX, 100, 100], &[0; 8]), labels(), "truncated or damaged"),
        ("nothing", idx(&[0, 2, 2], &[]), labels(), "it holds nothing"),
        ("no width", idx(&[2, 2, 0], &[]), labels(), "it holds nothing"),
        ("five channels", idx(&[2, 1, 1, 5], &[0; 10]), labels(), "has 5 channels, expected 1 or 3"),
        ("wide", idx(&[2, 1, 20_000], &[0; 40_000]), labels(), "expected sides of 1 to 16384"),
        ("one class", images(), idx(&[2], &[0, 0]), "one class only, `0`"),
        ("counts", idx(&[3, 2, 2], &[7; 12]), labels(), "holds 2 labels, but"),
        (
            "gzip states too much",
            gzip(&idx(&[u32::MAX, 28, 28], &[0; 8])),
            labels(),
            "more than a packed file of its length",
        ),
        ("gzip short", gzip(&images()[..20]), labels(), "ends after 4 of 8 bytes"),
        ("gzip long", gzip(&[images(), vec![0; 1000]].concat()), labels(), "goes on after the 8 bytes"),
        ("gzip truncated", gzip(&images())[..20].to_vec(), labels(), "gzip data is damaged or truncated"),
        ("gzip damaged", broken_gzip, labels(), "damaged"),
    ] {
        let root = folder([("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)]);
        let error = Dataset::open(root.path(), &OpenOptions::default()).err();
        let message = error.unwrap_or_else(|| panic!("{name} was accepted")).to_string();
        assert!(message.contains(expected) && message.contains("train-"), "{name}: {message}");
    }
    // The name says fashion, the labels say otherwise.
    check(
        vec![("fashion/train-images-idx3-ubyte", images()), ("fashion/train-labels-idx1-ubyte", idx(&[2], &[0, 10]))],
        &["one class only"],
    );
    let root = folder([
        ("fashion/train-images-idx3-ubyte", images()),
        ("fashion/train-labels-idx1-ubyte", idx(&[2], &[0, 10])),
    ]);
    let error = Dataset::open(root.path().join("fashion"), &OpenOptions::default()).unwrap_err().to_string();
    assert!(error.contains("sample 1 has label 10, expected 0 to 9"), "{error}");
}

#[test]
fn labels_that_leave_classes_empty() {
    for (name, labels, expected) in [
        ("mnist", [0, 10], Err("sample 1 has label 10, expected 0 to 9")),
        ("emnist", [0, 10], Ok("9 of the 11 classes have no label, from `1` to `9`; is one of the others wrong?")),
        ("shapes", [0, 2], Ok("no label is `1`; is one of the others wrong?")),
        ("shapes", [0, 1], Ok("")),
    ] {
        let file = |file: &str| format!("{name}/train-{file}-ubyte");
        let (images, numbers) = (file("images-idx3"), file("labels-idx1"));
        let root = folder([(&*images, idx(&[2, 1, 1], &[7; 2])), (&*numbers, idx(&[2], &labels))]);
        let opened = Dataset::open(root.path().join(name), &OpenOptions::default());
        let notes = opened.map(|data| data.notes().join("\n")).map_err(|error| error.to_string());
        match (&notes, expected) {
            (Ok(notes), Ok("")) => assert_eq!(notes, "", "{name}"),
            (Ok(told), Ok(part)) | (Err(told), Err(part)) => assert!(told.contains(part), "{name}: {told}"),
            _ => panic!("{name}: expected {expected:?}, received {notes:?}"),
        }
    }
}

#[test]
fn cifar_files_that_lie() {
    let record = |label: u8| [vec![label], vec![0; 3072]].concat();
    check(vec![("data_batch_1.bin", vec![])], &["data_batch_1.bin: has 0 bytes, expected records of 3073"]);
    check(vec![("data_batch_1.bin", record(1)[..3000].to_vec())], &["has 3000 bytes, expected records of 3073"]);
    check(vec![("data_batch_1.bin", [record(1), record(10)].concat())], &["sample 1 has label 10, expected 0 to 9"]);
    check(vec![("train.bin", [vec![0], record(100)].concat())], &["sample 0 has label 100, expected 0 to 99"]);
    check(
        vec![("data_batch_1.bin", record(1)), ("batches.meta.txt", b"one\ntwo\n".to_vec())],
        &["batches.meta.txt: expected 10 class names, one per line, got 2"],
    );
    let test = OpenOptions { split: Split::Test, ..Default::default() };
    check_with(&test, vec![("data_batch_1.bin", record(1))], &["no test split"]);
    let pets = OpenOptions { classes: Some(vec!["cat".into(), "dog".into()]), ..Default::default() };
    check_with(&pets, vec![("data_batch_1.bin", record(0))], &["class `airplane` is not among the 2 classes"]);
    let data = folder([("data_batch_1.bin", [record(3), record(5)].concat())]);
    assert_eq!(Dataset::open(data.path(), &pets).unwrap().labels(), [0, 1]);
}

#[test]
fn data_in_memory_that_does_not_fit() {
    let names = || vec!["a".to_owned(), "b".to_owned()];
    for (pixels, shape, labels, expected) in [
        (vec![0; 7], [2, 2, 1], vec![0, 1], "not a number of images"),
        (vec![0; 8], [2, 2, 1], vec![0], "2 images, but 1 labels"),
        (vec![0; 8], [2, 2, 1], vec![0, 2], "sample 1 has label 2, but there are 2 classes"),
        (vec![], [2, 2, 1], vec![], "no samples"),
        (vec![0; 8], [0, 2, 1], vec![0], "not a number of images"),
        (vec![0; 8], [usize::MAX, 2, 1], vec![0], "not a number of images"),
    ] {
        let error = Dataset::from_pixels(pixels, shape, labels, names()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Good files of every format, to be damaged.
fn originals() -> &'static [(&'static str, Vec<u8>)] {
    static FILES: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let image = image::DynamicImage::from(image::RgbImage::from_fn(24, 16, |x, y| {
            image::Rgb([(x * 9) as u8, (y * 15) as u8, 7])
        }));
        let images = idx(&[3, 4, 4], &[9; 48]);
        let cifar: Vec<u8> = (0..3073u32).map(|i| (i % 10) as u8).collect();
        vec![
            ("a.png", encode(&image, ImageFormat::Png)),
            ("a.jpg", encode(&image, ImageFormat::Jpeg)),
            ("a.webp", encode(&image, ImageFormat::WebP)),
            ("a.gif", encode(&image, ImageFormat::Gif)),
            ("a.bmp", encode(&image, ImageFormat::Bmp)),
            ("a.tiff", encode(&image, ImageFormat::Tiff)),
            ("train-images-idx3-ubyte.gz", gzip(&images)),
            ("train-images-idx3-ubyte", images),
            ("data_batch_1.bin", cifar),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(
        file in 0..9usize,
        // Half of the changes go to the first bytes, where headers are.
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<u8>()), 0..8),
        keep in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let (name, bytes) = &originals()[file];
        let mut bytes = bytes.clone();
        for (at, early, value) in changes {
            let within = if early { bytes.len().min(64) } else { bytes.len() };
            bytes[at.index(within)] = value;
        }
        if let Some(keep) = keep {
            bytes.truncate(keep.index(bytes.len()));
        }
        if name.starts_with("a.") {
            let preprocessing = Preprocessing::default();
            let mut pixels = vec![0; preprocessing.image_len()];
            let limits = Limits { pixels: 1 << 16, ..Limits::default() };
            let _ = preprocessing.prepare_bytes(&bytes, &limits, &mut pixels);
        } else {
            let root = folder([(*name, bytes), ("train-labels-idx1-ubyte", idx(&[3], &[0, 1, 2]))]);
            if let Ok(data) = Dataset::open(root.path(), &OpenOptions::default()) {
                let mut pixels = vec![0; data.image_len()];
                for index in 0..data.len() {
                    data.copy_image(index, &mut pixels).unwrap();
                    assert!((data.label(index) as usize) < data.class_count());
                }
            }
        }
    }
}
