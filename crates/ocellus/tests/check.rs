//! Faults planted in a small folder, one of each kind, and what a check says of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, RgbImage, imageops};
use ocellus::check::{CheckOptions, Cleaning, Kind, Report, Weight, check, html};
use ocellus::data::{Catalog, Dataset, Limits, OpenOptions, Split};
use ocellus::random::{Purpose, Random};
use tempfile::TempDir;

/// A picture of blobs, another one for each seed, 96 x 72.
fn picture(seed: u64) -> RgbImage {
    let mut random = Random::new(seed, Purpose::Test, 0, 0);
    let blobs: Vec<[f32; 6]> = (0..14)
        .map(|_| {
            let mut draw = |low, high| random.uniform_in(low, high);
            [
                draw(0.0, 96.0),
                draw(0.0, 72.0),
                draw(4.0, 16.0),
                draw(-150.0, 150.0),
                draw(-150.0, 150.0),
                draw(-150.0, 150.0),
            ]
        })
        .collect();
    RgbImage::from_fn(96, 72, |x, y| {
        let mut rgb = [120.0f32; 3];
        for [at_x, at_y, size, colour @ ..] in &blobs {
            let distance = ((x as f32 - at_x).powi(2) + (y as f32 - at_y).powi(2)) / (size * size);
            rgb.iter_mut().zip(colour).for_each(|(value, colour)| *value += colour * (-distance).exp());
        }
        image::Rgb(rgb.map(|value| value.clamp(0.0, 255.0) as u8))
    })
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(seed: u64) -> Vec<u8> {
    encoded(picture(seed), ImageFormat::Png)
}

fn write(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Good images: two classes, 12 training and 4 test images each.
fn good() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (class, first) in [("cat", 0), ("dog", 100)] {
        for number in 0..12 {
            write(root.path(), &format!("train/{class}/{number}.png"), png(first + number));
        }
        for number in 0..4 {
            write(root.path(), &format!("test/{class}/{number}.png"), png(first + 50 + number));
        }
    }
    root
}

fn look(root: &Path) -> (Catalog, Report) {
    let catalog = Catalog::open(root).unwrap();
    let report = check(&catalog, &CheckOptions::default(), &|_, _| {});
    (catalog, report)
}

/// For each kind, what was found: the files' names relative to the folder, in order, or the message.
fn found(root: &Path, report: &Report) -> BTreeMap<Kind, Vec<String>> {
    let mut found: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
    for finding in &report.findings {
        let names = found.entry(finding.kind).or_default();
        let relative =
            |name: &str| Path::new(name).strip_prefix(root).unwrap().display().to_string().replace('\\', "/");
        names.extend(finding.samples.iter().map(|mention| relative(&mention.name)));
        names.extend(Some(finding.message.clone()).filter(|message| !message.is_empty()));
    }
    found
}

#[test]
fn good_data_is_clean() {
    let root = good();
    let (catalog, report) = look(root.path());
    assert_eq!(found(root.path(), &report), BTreeMap::new());
    assert_eq!((report.weight(), report.samples, report.usable), (None, 32, 32));
    assert!(Cleaning::of(&report, &catalog).is_empty());
    assert!(report.text().contains("nothing found"), "{}", report.text());
}

#[test]
fn every_planted_fault_is_found_and_nothing_else() {
    let root = good();
    let path = root.path();
    let jpeg = |seed| encoded(picture(seed), ImageFormat::Jpeg);
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() * 2 / 3);
        bytes
    };
    // Damaged in every way.
    write(path, "train/cat/empty.png", b"");
    write(path, "train/cat/cut.png", cut(png(201)));
    write(path, "train/cat/cut.jpg", cut(jpeg(202)));
    let mut overwritten = jpeg(203);
    let middle = overwritten.len() / 2;
    overwritten[middle..middle + 100].fill(0);
    write(path, "train/cat/overwritten.jpg", overwritten);
    let mut endless = jpeg(204);
    endless.truncate(endless.len() - 2);
    write(path, "train/cat/endless.jpg", endless);
    write(path, "train/cat/page.jpg", "<!DOCTYPE html><html></html>");
    write(path, "train/cat/notes.txt", "the good ones are in the other folder");
    // Copies: within a class, across splits, across classes; exact and near.
    write(path, "train/cat/copy of 1.png", png(1));
    write(path, "train/cat/copy of 2.bmp", encoded(picture(2), ImageFormat::Bmp));
    write(path, "test/cat/copy of 3.png", png(3));
    write(path, "train/dog/copy of 4.png", png(4));
    write(path, "train/cat/like 5.jpg", jpeg(5));
    let larger = imageops::resize(&picture(6), 144, 108, imageops::FilterType::CatmullRom);
    write(path, "test/cat/like 6.png", encoded(larger, ImageFormat::Png));
    let cropped = imageops::crop_imm(&picture(107), 4, 3, 89, 66).to_image();
    write(path, "train/dog/like 7.png", encoded(cropped, ImageFormat::Png));
    // Odd ones.
    write(path, "train/dog/blank.png", encoded(RgbImage::from_pixel(96, 72, image::Rgb([200; 3])), ImageFormat::Png));
    let mut dark = picture(301);
    dark.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|value| value / 12));
    write(path, "train/dog/dark.png", encoded(dark, ImageFormat::Png));
    write(path, "train/dog/really.png", jpeg(302));
    let wide = imageops::resize(&picture(303), 384, 72, imageops::FilterType::Triangle);
    write(path, "train/dog/wide.png", encoded(wide, ImageFormat::Png));
    let tiny = imageops::resize(&picture(304), 20, 15, imageops::FilterType::Triangle);
    write(path, "train/dog/tiny.png", encoded(tiny, ImageFormat::Png));
    write(path, "train/dog/grey.png", encoded(imageops::grayscale(&picture(305)), ImageFormat::Png));
    // What is no part of the data.
    write(path, "train/dog/.DS_Store", b"\0");
    write(path, "train/dog/.ipynb_checkpoints/1-checkpoint.png", png(101));
    write(path, "train/Thumbs.db", b"\0");
    write(path, "forgotten.png", png(401));

    let (catalog, report) = look(path);
    let found = found(path, &report);
    let expected: &[(Kind, &[&str])] = &[
        (Kind::Empty, &["train/cat/empty.png"]),
        (Kind::Truncated, &["train/cat/cut.jpg", "train/cat/cut.png", "train/cat/endless.jpg"]),
        (Kind::Damaged, &["train/cat/overwritten.jpg"]),
        (Kind::NotAnImage, &["train/cat/notes.txt", "train/cat/page.jpg"]),
        (Kind::Leak, &["train/cat/3.png", "test/cat/copy of 3.png"]),
        (Kind::Contradiction, &["train/cat/4.png", "train/dog/copy of 4.png"]),
        (Kind::NearLeak, &["train/cat/6.png", "test/cat/like 6.png"]),
        (
            Kind::Duplicates,
            &["train/cat/1.png", "train/cat/copy of 1.png", "train/cat/2.png", "train/cat/copy of 2.bmp"],
        ),
        (Kind::NearDuplicates, &["train/cat/5.png", "train/cat/like 5.jpg", "train/dog/7.png", "train/dog/like 7.png"]),
        (Kind::Mistyped, &["train/dog/really.png"]),
        (Kind::Blank, &["train/dog/blank.png"]),
        (Kind::Dark, &["train/dog/dark.png"]),
        (Kind::Small, &["train/dog/tiny.png"]),
        (Kind::Elongated, &["train/dog/wide.png"]),
        (Kind::Colours, &["train/dog/grey.png"]),
        (Kind::Stray, &["train/Thumbs.db", "train/dog/.DS_Store", "train/dog/.ipynb_checkpoints"]),
        (Kind::Unused, &["forgotten.png"]),
    ];
    for (kind, names) in expected {
        let got = found.get(kind).map(Vec::as_slice).unwrap_or_default();
        assert!(
            got.len() >= names.len() && names.iter().all(|name| got.iter().any(|g| g == name)),
            "{kind:?}: {got:?}"
        );
        let files = got.iter().filter(|name| !name.contains(' ') || name.contains('/')).count();
        assert_eq!(files, names.len(), "{kind:?}: {got:?}");
    }
    let kinds: Vec<Kind> = expected.iter().map(|(kind, _)| *kind).collect();
    assert!(found.keys().all(|kind| kinds.contains(kind)), "{:?}", found.keys());
    assert_eq!(report.weight(), Some(Weight::Error));

    // What is left after cleaning can be opened, and is clean but for what a person decides about.
    let cleaning = Cleaning::of(&report, &catalog);
    let manifest = path.join("clean.csv");
    fs::write(&manifest, cleaning.manifest(&catalog, path).unwrap()).unwrap();
    let (_, cleaned) = look(&manifest);
    assert_eq!(cleaned.weight(), Some(Weight::Warning), "{}", cleaned.text());
    assert_eq!(cleaned.samples, catalog.len() - cleaning.len());
    let left: Vec<Kind> = cleaned.findings.iter().map(|finding| finding.kind).collect();
    assert!(
        ![Kind::Leak, Kind::NearLeak, Kind::Contradiction, Kind::Duplicates].iter().any(|k| left.contains(k)),
        "{left:?}"
    );
    let test = Dataset::open(&manifest, &OpenOptions { split: Split::Test, ..OpenOptions::default() }).unwrap();
    assert_eq!(test.len(), 10, "test images stay");
    // All of them are named, with the reason.
    let drops = cleaning.drops(&catalog);
    assert_eq!(drops.lines().count(), 1 + cleaning.len());
    assert!(drops.contains("cut.png,train,cat,Truncated images"), "{drops}");
}

#[test]
fn splits_that_became_classes_are_noticed() {
    let root = good();
    // An image beside the class folders, and train is a class of its own.
    write(root.path(), "train/forgotten.png", png(401));
    let (_, report) = look(root.path());
    let kinds: Vec<Kind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains(&Kind::SplitsAsClasses), "{kinds:?}");
    assert_eq!(report.weight(), Some(Weight::Error));
}

#[test]
fn the_page_holds_pictures_and_no_stranger_s_markup() {
    let root = good();
    write(root.path(), "train/dog/<script>alert(1)<\u{2215}script>.png", png(1));
    write(root.path(), "train/dog/cut.png", &png(7)[..100]);
    let (catalog, report) = look(root.path());
    let page = html(&report, &catalog, &Limits::default());
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
    assert!(!page.contains("http://") && !page.contains("https://"), "it needs nothing else");
    // Two copies with different labels, in a group; the truncated one has no picture.
    assert_eq!((page.matches("<img ").count(), page.matches("no picture").count()), (2, 1));
    for (open, close) in [("<div", "</div>"), ("<figure", "</figure>"), ("<p", "</p>"), ("<table", "</table>")] {
        assert_eq!(page.matches(open).count(), page.matches(close).count(), "{open}");
    }
}

#[test]
fn damaged_files_of_every_kind_are_named_and_never_fatal() {
    let root = good();
    let mut random = Random::new(9, Purpose::Test, 0, 0);
    let formats =
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP];
    for (number, format) in formats.into_iter().cycle().take(60).enumerate() {
        let mut bytes = encoded(picture(500), format);
        for _ in 0..random.below(40) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.next_u64() as u8;
        }
        bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
        write(root.path(), &format!("train/cat/bad{number}.{}", format.extensions_str()[0]), bytes);
    }
    let (catalog, report) = look(root.path());
    assert_eq!(report.samples, 32 + 60);
    assert!(report.usable >= 32 && report.weight() == Some(Weight::Error));
    serde_json::to_string(&report).unwrap();
    assert!(html(&report, &catalog, &Limits::default()).contains("no picture"));
}

#[test]
fn the_report_does_not_depend_on_threads() {
    let root = good();
    write(root.path(), "train/dog/copy.png", png(1));
    let catalog = Catalog::open(root.path()).unwrap();
    let report =
        |threads| check(&catalog, &CheckOptions { threads: Some(threads), ..CheckOptions::default() }, &|_, _| {});
    assert_eq!(report(1).findings, report(5).findings);
}
