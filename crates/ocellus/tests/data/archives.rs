//! Data in archives and tables: tar shards, zip, NumPy's npz, Parquet; good ones, and what strangers send.

use std::io::Write;
use std::path::Path;

use ocellus::data::{Catalog, Dataset, Limits, OpenOptions, Split, Splits, splits_of};

use super::{folder, grey, gzip};

/// A member of a tar archive: its name, kind and content.
pub(super) fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    seal(&mut header);
    let mut bytes = header.to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Put its checksum into a header.
fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A tar archive of regular files.
fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let members = files.iter().flat_map(|(name, content)| member(name, b'0', content));
    members.chain([0; 1024]).collect()
}

/// A zip archive; every other member is deflated.
pub(super) fn zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (index, (name, content)) in files.iter().enumerate() {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let deflated = index % 2 == 1;
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        let packed = if deflated { encoder.finish().unwrap() } else { content.clone() };
        let mut common = vec![20, 0, 0, 0, if deflated { 8 } else { 0 }, 0, 0, 0, 0, 0];
        common.extend(crc.sum().to_le_bytes());
        common.extend((packed.len() as u32).to_le_bytes());
        common.extend((content.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        let offset = bytes.len() as u32;
        bytes.extend([b"PK\x03\x04", &common[..], name.as_bytes(), &packed].concat());
        directory.extend([b"PK\x01\x02\x14\x03", &common[..], &[0; 10]].concat());
        directory.extend([&offset.to_le_bytes(), name.as_bytes()].concat());
    }
    let (start, length, count) = (bytes.len() as u32, directory.len() as u32, (files.len() as u16).to_le_bytes());
    bytes.extend(directory);
    bytes.extend(
        [b"PK\x05\x06\0\0\0\0", &count[..], &count, &length.to_le_bytes(), &start.to_le_bytes(), &[0, 0]].concat(),
    );
    bytes
}

/// What is in the data: for each sample the end of its name, its class, its part, the first pixel.
pub(super) fn samples(data: &Path) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for split in splits_of(data).map_err(|error| error.to_string())? {
        let options = OpenOptions { split, ..Default::default() };
        let part = Dataset::open(data, &options).map_err(|error| error.to_string())?;
        let mut pixels = vec![0; part.image_len()];
        for index in 0..part.len() {
            part.copy_image(index, &mut pixels).unwrap();
            let name = part.name_of(index);
            let name = name.rsplit('/').next().unwrap();
            let class = &part.class_names()[part.label(index) as usize];
            lines.push(format!("{name} {class} {split} {}", pixels[0]));
        }
    }
    Ok(lines)
}

fn refused(data: &Path) -> Vec<String> {
    let catalog = Catalog::open(data).unwrap();
    catalog.refused().iter().map(|refused| refused.reason.clone()).collect()
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fixtures").join(name)).unwrap()
}

#[test]
fn shards_have_their_labels_beside_images_or_in_folders() {
    let numbered = tar(&[
        ("./0001.png", grey(1)),
        ("./0001.cls", b"10\n".to_vec()),
        ("./0002.cls", b"9".to_vec()),
        ("./0002.png", grey(2)),
        ("./0002.txt", b"ignored".to_vec()),
    ]);
    let json = tar(&[("a.png", grey(3)), ("a.json", br#"{"label": 9, "x": {}}"#.to_vec()), ("b.png", grey(4))]);
    let folders = tar(&[("d/cat/1.png", grey(5)), ("d/dog/1.png", grey(6)), ("d/dog/.hidden.png", grey(7))]);
    let expected = ["0001.png 10 training 1", "0002.png 9 training 2"];
    for (name, bytes) in [("x.tar", numbered.clone()), ("x.tar.gz", gzip(&numbered)), ("x.tgz", gzip(&numbered))] {
        let root = folder([(name, bytes)]);
        assert_eq!(samples(&root.path().join(name)).unwrap(), expected, "{name}");
        assert_eq!(samples(root.path()).unwrap(), expected, "the folder of {name}");
    }
    let root = folder([
        ("t-train-00.tar", numbered.clone()),
        ("t-train-01.tar.gz", gzip(&json)),
        ("t-val-00.tar", json),
        ("f.tar", folders),
    ]);
    let all = ["0001.png 10 training 1", "0002.png 9 training 2", "a.png 9 training 3", "a.png 9 validation 3"];
    let braces = root.path().join("t-{train,val}-{00..00}.tar");
    assert_eq!(samples(&braces).unwrap(), [all[0], all[1], all[3]]);
    assert_eq!(samples(&root.path().join("f.tar")).unwrap(), ["1.png cat training 5", "1.png dog training 6"]);
    assert!(refused(&root.path().join("t-val-00.tar"))[0].contains("`b.png` has no label"));
    let classes = Catalog::open(braces).unwrap().class_names().to_vec();
    assert_eq!(classes, ["9", "10"]);
}

#[test]
fn gzipped_shards_can_be_read_in_any_order() {
    let names: Vec<String> = (0..40).map(|index| format!("{index:03}")).collect();
    let mut files = Vec::new();
    for (index, name) in names.iter().enumerate() {
        files.push((format!("{name}.png"), grey(index as u8)));
        files.push((format!("{name}.cls"), vec![b'0' + (index % 2) as u8]));
    }
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let root = folder([("s.tar.gz", gzip(&tar(&files)))]);
    let catalog = Catalog::open(root.path().join("s.tar.gz")).unwrap();
    let mut bytes = Vec::new();
    for index in (0..40).chain([20, 3, 39, 4, 0]).chain((0..40).rev()) {
        catalog.read(index, &Limits::default(), &mut bytes).unwrap();
        assert_eq!(bytes, grey(index as u8), "{index}");
    }
}

#[test]
fn hostile_shards() {
    let good = [
        member("1.png", b'0', &grey(1)),
        member("1.cls", b'0', b"a"),
        member("2.png", b'0', &grey(2)),
        member("2.cls", b'0', b"b"),
    ]
    .concat();
    let mut absurd = member("3.png", b'0', &grey(3));
    absurd[124..136].copy_from_slice(b"77777777777\0");
    seal(&mut absurd);
    let mut binary = absurd.clone();
    binary[124..136].fill(0xff);
    binary[124] = 0x80;
    seal(&mut binary);
    let mut unsealed = member("3.png", b'0', &grey(3));
    unsealed[0] = b'9';
    let long_name = member("././@LongLink", b'L', &[b'x'; 70_000]);
    let named = |name: &str| member(name, b'0', &grey(3));
    for (what, bytes, expected) in [
        ("leads out", named("../../3.png"), "`../../3.png` has a name that leads out of the archive"),
        ("absolute", named("/etc/3.png"), "has an absolute name"),
        ("drive", named("C:\\3.png"), "has an absolute name"),
        ("newline", named("a\nb/3.png"), "`a\\nb/3.png` has a name with control characters"),
        ("symbolic link", member("3.png", b'2', &[]), "`3.png` is a link"),
        ("hard link", member("3.png", b'1', &[]), "is a link"),
        ("device", member("3.png", b'3', &[]), "is no regular file"),
        ("sizes", absurd, "`3.png` is cut off: the archive is truncated"),
        ("binary sizes", binary, "a header states no size"),
        ("checksum", unsealed, "a header's checksum differs"),
        ("long names", long_name, "absurd length of a name"),
        ("cut", named("3.png")[..520].to_vec(), "`3.png` is cut off"),
        ("a label of lines", [named("3.png"), member("3.cls", b'0', b"a\nb")].concat(), "holds no class name"),
        ("a label of bytes", [named("3.png"), member("3.cls", b'0', b"\xff")].concat(), "holds no class name"),
        ("a long label", [named("3.png"), member("3.cls", b'0', &[b'x'; 70_000])].concat(), "too long for a label"),
    ] {
        for gzipped in [false, true] {
            let bytes = [&good[..], &bytes].concat();
            let name = if gzipped { "x.tar.gz" } else { "x.tar" };
            let root = folder([(name, if gzipped { gzip(&bytes) } else { bytes })]);
            let data = root.path().join(name);
            assert_eq!(samples(&data).unwrap(), ["1.png a training 1", "2.png b training 2"], "{what}");
            let refused = refused(&data);
            assert!(refused.iter().any(|reason| reason.contains(expected)), "{what}: {refused:?}");
        }
    }
    for (name, bytes, expected) in [
        ("x.tar", vec![], "holds no images"),
        ("x.tar", vec![1; 700], "checksum differs"),
        ("x.tar", tar(&[("1.png", grey(1))]), "no labels"),
        ("x.tar.gz", gzip(&good)[..60].to_vec(), "holds no images that could be used"),
        ("x.tar.gz", vec![0x1f, 0x8b, 9, 9, 9, 9, 9], "holds no images that could be used"),
    ] {
        let root = folder([(name, bytes)]);
        let error = samples(&root.path().join(name)).unwrap_err();
        assert!(error.contains(expected) && error.contains(name), "{error}\ndoes not contain {expected}");
    }
}

#[test]
fn an_archive_of_names_takes_bounded_memory() {
    // Each of nothing but a name of 4,000 bytes, which shrinks to a few.
    let folders = "x".repeat(3_980);
    let named = |index: usize, extension: &str, content: &[u8]| {
        let long = member("././@LongLink", b'L', format!("a/{folders}/{index}.{extension}").as_bytes());
        [long, member("x", b'0', content)].concat()
    };
    let labels: Vec<u8> = (0..6_000).flat_map(|index| named(index, "cls", b"a")).collect();
    let images = [member("a/1.png", b'0', &grey(1)), member("b/2.png", b'0', &grey(2))].concat();
    let root = folder([("x.tar.gz", gzip(&[images, labels].concat()))]);
    let labelled = Catalog::open(root.path().join("x.tar.gz")).unwrap();
    let reasons: Vec<&str> = labelled.refused().iter().map(|refused| refused.reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("more names than")), "{reasons:?}");
    let bytes: Vec<u8> = [member("a/1.png", b'0', &grey(1)), member("b/2.png", b'0', &grey(2))]
        .concat()
        .into_iter()
        .chain((0..6_000).flat_map(|index| named(index, "png", &[])))
        .collect();
    let root = folder([("x.tar.gz", gzip(&bytes)), ("y.tar", bytes)]);
    let [packed, plain] = ["x.tar.gz", "y.tar"].map(|name| Catalog::open(root.path().join(name)).unwrap());
    let reasons: Vec<&str> = packed.refused().iter().map(|refused| refused.reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("more names than")), "{reasons:?}");
    assert!(packed.len() < 5_000 && plain.len() == 6_002, "{} {}", packed.len(), plain.len());
}

#[test]
fn zip_archives_hold_class_folders() {
    let files = [
        ("train/b/1.png", grey(1)),
        ("train/a/2.png", grey(2)),
        ("test/b/3.png", grey(3)),
        ("__MACOSX/train/a/._2.png", vec![]),
    ];
    let expected = ["2.png a training 2", "1.png b training 1", "3.png b test 3"];
    for prefix in ["", "photos/", "x/y/"] {
        let names: Vec<String> = files.iter().map(|(name, _)| format!("{prefix}{name}")).collect();
        let members: Vec<_> =
            names.iter().zip(&files).map(|(name, (_, bytes))| (name.as_str(), bytes.clone())).collect();
        let root = folder([("d.zip", zip(&members))]);
        assert_eq!(samples(&root.path().join("d.zip")).unwrap(), expected, "{prefix}");
    }
}

#[test]
fn hostile_zip_archives() {
    let zipped = |name| zip(&[("a/1.png", grey(1)), ("b/2.png", grey(2)), (name, grey(3))]);
    let changed = |find: &[u8], at: usize, value: &[u8]| {
        let mut bytes = zipped("b/3.png");
        let place = bytes.windows(find.len()).rposition(|window| window == find).unwrap() + at;
        bytes[place..place + value.len()].copy_from_slice(value);
        bytes
    };
    for (what, bytes, expected) in [
        ("leads out", zipped("../b/3.png"), "leads out of the archive"),
        ("leads out in the middle", zipped("b/../../3.png"), "leads out of the archive"),
        ("absolute", zipped("/b/3.png"), "absolute name"),
        ("no folder", zipped("3.png"), "lies in no class folder"),
        ("encrypted", changed(b"PK\x01\x02", 8, &[1]), "is encrypted"),
        ("a link", changed(b"PK\x01\x02", 40, &[0xff, 0xa1]), "is a link"),
        ("bzip2", changed(b"PK\x01\x02", 10, &[12]), "other than deflate"),
        ("another size", changed(b"PK\x01\x02", 24, &[1, 0]), "states two sizes"),
        ("not UTF-8", changed(b"b/3.png", 0, &[0xff]), "not UTF-8"),
    ] {
        let root = folder([("x.zip", bytes)]);
        let data = root.path().join("x.zip");
        assert_eq!(samples(&data).unwrap(), ["1.png a training 1", "2.png b training 2"], "{what}");
        let refused = refused(&data);
        assert!(refused.iter().any(|reason| reason.contains(expected)), "{what}: {refused:?}");
    }
    // What is wrong only with the content is an image that cannot be read.
    let bomb = {
        let mut bytes = zip(&[("a/1.png", grey(1)), ("b/2.png", vec![0; 100_000]), ("b/3.png", grey(3))]);
        let place = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        let second = place + bytes[place + 1..].windows(4).position(|window| window == b"PK\x01\x02").unwrap() + 1;
        bytes[second + 24..second + 28].copy_from_slice(&1000u32.to_le_bytes());
        bytes
    };
    for (what, bytes, expected) in [
        ("checksum", changed(b"PK\x01\x02", 16, &[9, 9]), "the checksum differs"),
        ("nothing there", changed(b"PK\x01\x02", 42, &[0xff]), "nothing is where its directory says"),
        ("more than stated", bomb, "has not the 1000 bytes that the archive's directory states"),
    ] {
        let root = folder([("x.zip", bytes)]);
        let data = Dataset::open(root.path().join("x.zip"), &OpenOptions::default()).unwrap();
        assert_eq!(data.skipped().len(), 1, "{what}");
        assert!(data.skipped()[0].reason.contains(expected), "{what}: {}", data.skipped()[0].reason);
    }
    let whole = zipped("b/3.png");
    for (bytes, expected) in [
        (vec![], "is too short"),
        (whole[..whole.len() - 30].to_vec(), "no directory at its end"),
        (changed(b"PK\x05\x06", 10, &[200]), "does not fit"),
        (changed(b"PK\x05\x06", 16, &[0xfe, 0xff, 0xff]), "does not fit"),
        (zip(&[("a/readme.txt", vec![])]), "holds no images"),
        (zip(&[("1.png", grey(1))]), "no class folders"),
    ] {
        let root = folder([("x.zip", bytes)]);
        let error = samples(&root.path().join("x.zip")).unwrap_err();
        assert!(error.contains(expected), "{error}\ndoes not contain {expected}");
    }
}

#[test]
fn arrays_of_numpy() {
    let root = folder([("grey.npz", fixture("grey.npz")), ("colour.npz", fixture("colour.npz"))]);
    let splits = Splits::open(root.path().join("grey.npz"), &OpenOptions::default(), &|_, _| {}).unwrap();
    assert_eq!((splits.train.image_shape(), splits.train.labels()), ([4, 5, 1], &[0, 1, 2, 0, 1, 2][..]));
    assert_eq!((splits.validation.unwrap().labels(), splits.test.unwrap().len()), (&[1, 2][..], 3));
    let mut pixels = vec![0; 20];
    splits.train.copy_image(5, &mut pixels).unwrap();
    assert_eq!(pixels, [5; 20]);
    let colour = Dataset::open(root.path().join("colour.npz"), &OpenOptions::default()).unwrap();
    assert_eq!((colour.image_shape(), colour.labels()), ([4, 5, 3], &[0, 1, 0, 1, 0, 1][..]));
    assert_eq!(Catalog::open(root.path().join("colour.npz")).unwrap().len(), 7);

    let npy = |descr: &str, shape: &str, data: &[u8]| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    let images = || npy("|u1", "(2, 1, 2)", &[1, 2, 3, 4]);
    let labels = || npy("<i8", "(2,)", &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    for (images, labels, expected) in [
        (npy("<f4", "(2, 1)", &[0; 8]), labels(), "has the shape [2, 1], expected [images, height, width]"),
        (npy("<i4", "(2, 1, 1)", &[0; 8]), labels(), "numbers of type i4, expected bytes"),
        (npy("|u1", "(3, 1, 2)", &[0; 4]), labels(), "which 4 bytes do not fit"),
        (npy("|u1", "(99999999999, 99999999999, 9)", &[0; 4]), labels(), "do not fit"),
        (npy("|u1", "(4, 1, 1)", &[0; 4]), labels(), "holds 2 labels, but"),
        (b"hello".to_vec(), labels(), "no array of NumPy"),
        (images(), npy("|u1", "(2, 14)", &[0; 28]), "14 labels for each image"),
        (images(), npy("<i8", "(2,)", &[255; 16]), "sample 0 has a label that is negative"),
        (images(), npy("<f4", "(2,)", &[0; 8]), "type f4, expected whole ones"),
        (images(), npy("|u1", "(2,)", &[0; 2]), "one class only"),
    ] {
        let root = folder([("x.npz", zip(&[("train_images.npy", images), ("train_labels.npy", labels)]))]);
        let error = samples(&root.path().join("x.npz")).unwrap_err();
        assert!(error.contains(expected), "{error}\ndoes not contain {expected}");
    }
    // What is stated is not set aside: not by a directory that lies, and not by one that may be true.
    let bytes = zip(&[("train_labels.npy", labels()), ("train_images.npy", images())]);
    let place = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    let mut bomb = bytes;
    bomb[place + 24..place + 28].copy_from_slice(&(3u32 << 30).to_le_bytes());
    let root = folder([("x.npz", bomb)]);
    assert!(samples(&root.path().join("x.npz")).unwrap_err().contains("more than is trusted"));
    let root = folder([("x.npz", zip(&[("images.npy", images())]))]);
    assert!(samples(&root.path().join("x.npz")).unwrap_err().contains("got images.npy"));
}

#[test]
fn parquet_files() {
    for (name, split) in
        [("train-snappy.parquet", Split::Train), ("test-plain.parquet", Split::Test), ("gzip-v2.parquet", Split::Train)]
    {
        let root = folder([(name, fixture(name))]);
        let expected: Vec<String> = (0..20)
            .map(|row| format!("{name}[{row}] {} {split} {}", ["cat", "bird", "ant"][row % 3], row * 10))
            .collect();
        assert_eq!(samples(&root.path().join(name)).unwrap(), expected);
    }
    let root = folder([
        ("data/train-0.parquet", fixture("train-snappy.parquet")),
        ("data/test-0.parquet", fixture("test-plain.parquet")),
        ("text.parquet", fixture("text.parquet")),
        ("zstd.parquet", fixture("zstd.parquet")),
    ]);
    let splits = Splits::open(root.path().join("data"), &OpenOptions::default(), &|_, _| {}).unwrap();
    assert_eq!((splits.train.len(), splits.test.unwrap().len()), (20, 20));
    assert_eq!(splits.train.class_names(), ["cat", "bird", "ant"]);
    let text = root.path().join("text.parquet");
    assert_eq!(samples(&text).unwrap()[..2], ["text.parquet[0] b training 0", "text.parquet[1] a training 10"]);
    assert!(refused(&text)[0].contains("`2` has no label"), "{:?}", refused(&text));
    let error = samples(&root.path().join("zstd.parquet")).unwrap_err();
    assert!(error.contains("packed with Zstandard; expected none, snappy or gzip"), "{error}");
    for (bytes, expected) in [(vec![], "too short"), (vec![7; 100], "does not end as Parquet does")] {
        let root = folder([("x.parquet", bytes)]);
        let error = samples(&root.path().join("x.parquet")).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

/// Good files of every kind, for the property test that damages them.
pub(super) fn originals() -> Vec<(&'static str, Vec<u8>)> {
    let shard = tar(&[
        ("1.png", grey(1)),
        ("1.cls", b"a".to_vec()),
        ("2.png", grey(2)),
        ("2.json", br#"{"label": "b"}"#.to_vec()),
    ]);
    vec![
        ("x.tar.gz", gzip(&shard)),
        ("x.tar", shard),
        ("x.zip", zip(&[("a/1.png", grey(1)), ("b/2.png", grey(2))])),
        ("grey.npz", fixture("grey.npz")),
        ("colour.npz", fixture("colour.npz")),
        ("train-snappy.parquet", fixture("train-snappy.parquet")),
        ("gzip-v2.parquet", fixture("gzip-v2.parquet")),
        ("test-plain.parquet", fixture("test-plain.parquet")),
        ("m.csv", b"path,label,split,group\n1.png,a,train,x\n2.png,b,test,y\n".to_vec()),
        ("m.jsonl", b"{\"path\": \"1.png\", \"label\": \"a\"}\n{\"path\": \"2.png\", \"label\": 3}\n".to_vec()),
    ]
}

mod damaged {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn archives_and_tables_never_panic(
            file in 0..10usize,
            // Half of the changes go to the last bytes, where directories are.
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<u8>()), 0..8),
            keep in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        ) {
            let (name, mut bytes) = originals().swap_remove(file);
            for (at, late, value) in changes {
                let first = if late { bytes.len().saturating_sub(300) } else { 0 };
                let place = first + at.index(bytes.len() - first);
                bytes[place] = value;
            }
            if let Some(keep) = keep {
                bytes.truncate(keep.index(bytes.len()));
            }
            let root = folder([(name, bytes), ("1.png", grey(1)), ("2.png", grey(2))]);
            let data = root.path().join(name);
            let limits = Limits { pixels: 1 << 16, ..Limits::default() };
            let mut content = Vec::new();
            if let Ok(catalog) = Catalog::open(&data) {
                for index in 0..catalog.len() {
                    let _ = catalog.read(index, &limits, &mut content);
                    let _ = (catalog.name_of(index), catalog.size_of(index), catalog.group(index));
                    prop_assert!(catalog.label(index).is_none_or(|label| (label as usize) < catalog.class_names().len()));
                }
            }
            for split in splits_of(&data).unwrap_or_default() {
                let options = OpenOptions { split, limits: limits.clone(), ..Default::default() };
                if let Ok(part) = Dataset::open(&data, &options) {
                    let mut pixels = vec![0; part.image_len()];
                    for index in 0..part.len() {
                        part.copy_image(index, &mut pixels).unwrap();
                    }
                }
            }
        }
    }
}
