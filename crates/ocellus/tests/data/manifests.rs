//! Manifests, and walking through all samples of any data.

use ocellus::data::{Catalog, Content, Dataset, Limits, OpenOptions, Split, Splits, splits_of};

use super::{folder, grey, idx, relative};

/// What a manifest of this name and text gives: for each sample its file, class and split; or the error.
fn read(name: &str, text: &[u8]) -> Result<(Vec<String>, Vec<String>), String> {
    let images = ["1.png", "2.png", "sub/3.png", "sub dir/4,5.png"];
    let files = images.iter().zip(1..).map(|(&path, value)| (path, grey(value)));
    let root = folder(files.chain([(name, text.to_vec())]));
    let catalog = Catalog::open(root.path().join(name)).map_err(|error| error.to_string())?;
    let samples = (0..catalog.len()).map(|index| {
        let file = relative(&catalog.file_of(index).unwrap(), root.path()).display().to_string();
        let class = &catalog.class_names()[catalog.label(index).unwrap() as usize];
        let group = catalog.group(index).map_or(String::new(), |group| format!(" {group}"));
        format!("{file} {class} {}{group}", catalog.split(index))
    });
    let refused = catalog.refused().iter().map(|refused| refused.reason.clone()).collect();
    Ok((samples.collect(), refused))
}

#[track_caller]
fn check(name: &str, text: &str, samples: &[&str], refused: &[&str]) {
    let (found, left_out) = read(name, text.as_bytes()).unwrap();
    assert_eq!(found, samples, "{text}");
    assert_eq!(left_out.len(), refused.len(), "{left_out:?}");
    for (reason, part) in left_out.iter().zip(refused) {
        assert!(reason.contains(part), "{reason}\ndoes not contain {part}");
    }
}

#[test]
fn tables_and_lines_are_understood() {
    let two = ["1.png a training", "2.png b training"];
    check("m.csv", "file_name,label\n1.png,a\n2.png,b\n", &two, &[]);
    check("m.csv", "\u{feff}path,class,width\r\n1.png,a,3\r\n2.png,b,4\r\n", &two, &[]);
    check("m.csv", "label;note;Filename\na;x;1.png\nb;\"y;\n z\";2.png", &two, &[]);
    check("m.tsv", "path\tlabel\n1.png\ta\n\n2.png\tb\textra\n", &two, &[]);
    check(
        "m.jsonl",
        "{\"file_name\": \"1.png\", \"label\": \"a\"}\n\n{\"path\": \"2.png\", \"label\": \"b\", \"x\": []}",
        &two,
        &[],
    );
    check(
        "m.csv",
        "path,label,split,group\n1.png,a,train,g1\n2.png,b,Test,\nsub\\3.png,a,valid,g1\n\"sub dir/4,5.png\",b,,g2\n",
        &["1.png a training g1", "2.png b test", "sub/3.png a validation g1", "sub dir/4,5.png b training g2"],
        &[],
    );
    // Numbers are in the order of numbers.
    let labels = "file_name,label\n1.png,10\n2.png,9\n";
    let root = folder([("1.png", grey(1)), ("2.png", grey(2)), ("m.csv", labels.into())]);
    assert_eq!(Catalog::open(root.path().join("m.csv")).unwrap().class_names(), ["9", "10"]);
}

#[test]
fn rows_that_cannot_be_used_are_named() {
    check(
        "m.csv",
        "path,label,split\n1.png,a,\n,a,\n2.png,,\n2.png,\"a\nb\",\nhttp://x/1.png,a,\nsub/..,a,\n2.png,a,half\n2.png,b,",
        &["1.png a training", "2.png b training"],
        &[
            "line 3 names no file",
            "line 4 has no label for `2.png`",
            "line 5 has a label that is no class name",
            "line 7 names an address",
            "line 8 names a folder",
            "line 9 has the split `half`",
        ],
    );
    check(
        "m.jsonl",
        "{\"path\": \"1.png\", \"label\": 3}\nnonsense\n[1]\n{\"path\": 5}",
        &["1.png 3 training"],
        &["line 2 is no JSON object", "line 3 is no JSON object", "line 4 has no label"],
    );
    let blank = "\n".repeat(40);
    check("m.csv", &format!("path,label\n1.png,a\n{blank}2.png,b\n"), &["1.png a training", "2.png b training"], &[]);
    let unclosed = (0..30).map(|row| format!("3.png,a,{row}\n")).collect::<String>();
    check(
        "m.csv",
        &format!("path,label,note\n1.png,a,\"two\nlines\"\n2.png,b,\n\"1\n.png\",a,\n2.png,b,\"no end\n{unclosed}"),
        &["1.png a training", "2.png b training"],
        &["line 5 has a file name with control characters", "line 7 begins a row that goes over 31 lines; is a quote"],
    );
    let long = [b"{\"path\": \"".to_vec(), vec![b'x'; 1 << 20]].concat();
    for (name, text, expected) in [
        ("m.csv", &b""[..], "the file is empty"),
        ("m.csv", b"a,b\n1,2\n", "expected a header with the columns `file_name` (or `path`) and `label`"),
        ("m.csv", b"a,b\n1,2\n", "got `a`, `b`"),
        ("m.csv", b"path,label\n", "no rows"),
        ("m.csv", b"path,label\n1.png,\n", "no row that could be used: line 2 has no label"),
        ("m.csv", b"path,label\n\xff.png,a\n", "line 2 is not UTF-8"),
        ("m.csv", b"\xff\xfep\0a\0", "UTF-16"),
        ("m.jsonl", &long, "line 1 is longer than"),
    ] {
        let error = read(name, text).unwrap_err();
        assert!(error.contains(expected) && error.contains(name), "{error}\ndoes not contain {expected}");
    }
    let many: String = (0..70_000).map(|row| format!("1.png,id-{row}\n")).collect();
    let error = read("m.csv", format!("path,label\n{many}").as_bytes()).unwrap_err();
    assert!(error.contains("more than 65536 different labels"), "{error}");
}

#[test]
fn a_manifest_is_a_data_set() {
    let text =
        "path,label,split,group\n1.png,a,train,x\n2.png,b,train,y\n1.png,a,train,x\n3.png,b,test,\ngone.png,a,train,\n";
    let root = folder([("1.png", grey(1)), ("2.png", grey(2)), ("3.png", grey(3)), ("manifest.csv", text.into())]);
    for data in [root.path().join("manifest.csv"), root.path().to_owned()] {
        assert_eq!(splits_of(&data).unwrap(), [Split::Train, Split::Test]);
        let splits = Splits::open(&data, &OpenOptions::default(), &|_, _| {}).unwrap();
        let (train, test) = (splits.train, splits.test.unwrap());
        assert_eq!((train.labels(), test.labels()), (&[0, 1, 0][..], &[1][..]));
        assert_eq!(train.groups(), Some(&[0, 1, 0][..]));
        assert_eq!(train.subset([1]).groups(), Some(&[1][..]));
        assert!(train.skipped()[0].path.ends_with("gone.png"), "{:?}", train.skipped());
        let mut bytes = Vec::new();
        assert!(test.read_encoded(0, &mut bytes).unwrap());
        assert_eq!(bytes, grey(3));
    }
    let unknown = "path,label,split\n1.png,a,train\n2.png,b,train\n3.png,zebra,test\n";
    let root = folder([("1.png", grey(1)), ("2.png", grey(2)), ("3.png", grey(3)), ("m.csv", unknown.into())]);
    let options = OpenOptions { split: Split::Test, ..Default::default() };
    let error = Dataset::open(root.path().join("m.csv"), &options).unwrap_err().to_string();
    assert!(error.contains("class `zebra` is not among the 2 classes of the training data (a, b)"), "{error}");
    let catalog = Catalog::open(root.path().join("m.csv")).unwrap();
    assert_eq!((catalog.class_names(), catalog.known_classes()), (&["a", "b", "zebra"].map(String::from)[..], 2));
}

#[test]
fn every_sample_can_be_walked() {
    let walk = |catalog: &Catalog| {
        let mut bytes = Vec::new();
        let samples = (0..catalog.len()).map(|index| {
            let content = catalog.read(index, &Limits::default(), &mut bytes);
            assert_eq!(catalog.size_of(index), Some(bytes.len() as u64));
            (catalog.label(index).unwrap(), catalog.split(index), content.ok(), bytes.clone())
        });
        samples.collect::<Vec<_>>()
    };
    let root = folder([
        ("train/a/1.png", grey(1)),
        ("train/b/1.png", b"no image".to_vec()),
        ("test/a/2.png", grey(2)),
        ("test/zebra/2.png", grey(3)),
        ("test/aardvark/", vec![]),
    ]);
    let catalog = Catalog::open(root.path()).unwrap();
    assert_eq!(catalog.class_names(), ["a", "b", "zebra"]);
    let encoded = Some(Content::Encoded);
    assert_eq!(
        walk(&catalog),
        [
            (0, Split::Train, encoded, grey(1)),
            (1, Split::Train, encoded, b"no image".to_vec()),
            (0, Split::Test, encoded, grey(2)),
            (2, Split::Test, encoded, grey(3)),
        ]
    );
    let numbers = folder([
        ("train-images-idx3-ubyte", idx(&[2, 1, 2], &[1, 2, 3, 4])),
        ("train-labels-idx1-ubyte", idx(&[2], &[0, 1])),
        ("t10k-images-idx3-ubyte", idx(&[1, 1, 2], &[5, 6])),
        ("t10k-labels-idx1-ubyte", idx(&[1], &[0])),
    ]);
    let pixels = Some(Content::Pixels([1, 2, 1]));
    assert_eq!(
        walk(&Catalog::open(numbers.path()).unwrap()),
        [
            (0, Split::Train, pixels, vec![1, 2]),
            (1, Split::Train, pixels, vec![3, 4]),
            (0, Split::Test, pixels, vec![5, 6]),
        ]
    );
}
