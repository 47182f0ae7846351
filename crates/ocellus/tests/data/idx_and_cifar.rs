//! IDX and CIFAR files: every name and form they come in.

use ocellus::data::{Dataset, OpenOptions, Split, Splits};

use super::{folder, gzip, idx};

/// The pixels of all images.
fn pixels(data: &Dataset) -> Vec<u8> {
    let mut all = vec![0; data.len() * data.image_len()];
    for (index, image) in all.chunks_mut(data.image_len()).enumerate() {
        data.copy_image(index, image).unwrap();
    }
    all
}

#[test]
fn idx_under_its_many_names() {
    let bytes: Vec<u8> = (0..24).collect();
    let images = idx(&[4, 2, 3], &bytes);
    let labels = idx(&[4], &[2, 0, 1, 2]);
    for (images_name, labels_name, split, zip) in [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", Split::Train, false),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", Split::Train, true),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte", Split::Train, false),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte", Split::Train, true),
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", Split::Test, true),
        ("test-images-idx3-ubyte", "test-labels-idx1-ubyte", Split::Test, false),
    ] {
        let pack = |bytes: &[u8]| if zip { gzip(bytes) } else { bytes.to_vec() };
        let root = folder([(images_name, pack(&images)), (labels_name, pack(&labels))]);
        let options = OpenOptions { split, ..Default::default() };
        let data = Dataset::open(root.path(), &options).unwrap();
        assert_eq!((data.labels(), data.image_shape()), (&[2, 0, 1, 2][..], [2, 3, 1]), "{images_name}");
        assert_eq!(data.class_names(), ["0", "1", "2"]);
        assert_eq!(pixels(&data), bytes);
        assert!(data.name_of(3).ends_with(&format!("{images_name}[3]")), "{}", data.name_of(3));
        // The file of images stands for both.
        let alone = Dataset::open(root.path().join(images_name), &OpenOptions::default()).unwrap();
        assert_eq!(alone.fingerprint().unwrap(), data.fingerprint().unwrap());
    }
}

#[test]
fn idx_in_colour() {
    let root = folder([
        ("train-images-idx4-ubyte", idx(&[2, 1, 2, 3], &(0..12).collect::<Vec<_>>())),
        ("train-labels-idx1-ubyte", idx(&[2], &[0, 1])),
    ]);
    let data = Dataset::open(root.path(), &OpenOptions::default()).unwrap();
    assert_eq!(data.image_shape(), [1, 2, 3]);
    let grey = Dataset::open(root.path(), &OpenOptions { channels: Some(1), ..Default::default() }).unwrap();
    assert_eq!((grey.image_shape(), pixels(&grey)), ([1, 2, 1], vec![1, 4, 7, 10]));
}

#[test]
fn classes_of_numbers_take_a_models_names_in_order() {
    let root =
        folder([("t10k-images-idx3-ubyte", idx(&[2, 1, 1], &[5, 6])), ("t10k-labels-idx1-ubyte", idx(&[2], &[0, 2]))]);
    let open = |classes: &[&str]| {
        let classes = Some(classes.iter().map(ToString::to_string).collect());
        Dataset::open(root.path(), &OpenOptions { split: Split::Test, classes, ..Default::default() })
    };
    assert_eq!(open(&["x", "y", "z", "w"]).unwrap().labels(), [0, 2]);
    // Where the model's classes are numbers, too, they are names.
    assert_eq!(open(&["2", "1", "0"]).unwrap().labels(), [2, 0]);
    let error = open(&["x", "y"]).unwrap_err().to_string();
    assert!(error.contains("sample 1 has label 2, expected 0 to 1"), "{error}");
}

#[test]
fn fashion_mnist_is_known_by_its_folder() {
    let files = || {
        [
            ("data/train-images-idx3-ubyte", idx(&[2, 1, 1], &[5, 6])),
            ("data/train-labels-idx1-ubyte", idx(&[2], &[0, 9])),
        ]
    };
    for (name, expected) in [("Fashion-MNIST", "Ankle boot"), ("digits", "9")] {
        let root = folder(files());
        std::fs::rename(root.path().join("data"), root.path().join(name)).unwrap();
        let data = Dataset::open(root.path().join(name), &OpenOptions::default()).unwrap();
        assert_eq!(data.class_names().last().unwrap(), expected);
    }
}

#[test]
fn another_shape_is_made_at_once_or_on_demand() {
    let bytes: Vec<u8> = (0..4 * 64).map(|i| i as u8).collect();
    let root = folder([
        ("train-images-idx3-ubyte", idx(&[4, 8, 8], &bytes)),
        ("train-labels-idx1-ubyte", idx(&[4], &[0, 1, 0, 1])),
    ]);
    let open = |memory| {
        let mut options = OpenOptions { image_size: Some([4, 6]), channels: Some(3), ..Default::default() };
        options.limits.memory = memory;
        Dataset::open(root.path(), &options).unwrap()
    };
    let (at_once, on_demand) = (open(1 << 20), open(0));
    assert!(at_once.in_memory() && !on_demand.in_memory());
    assert_eq!(at_once.image_shape(), [4, 6, 3]);
    assert_eq!(pixels(&at_once), pixels(&on_demand));
    assert_eq!(at_once.notes(), ["images of 8 x 8 are resized to 4 x 6"]);
}

/// CIFAR records of these labels: planes of red 1, green 2, blue 3 plus the record's number.
fn records(labels: &[&[u8]]) -> Vec<u8> {
    let record = |(number, label): (usize, &&[u8])| {
        let planes = (1..=3u8).flat_map(move |plane| [plane + 10 * number as u8; 1024]);
        label.iter().copied().chain(planes).collect::<Vec<u8>>()
    };
    labels.iter().enumerate().flat_map(record).collect()
}

#[test]
fn cifar_10_and_100() {
    let ten = |prefix: &str| {
        [
            (format!("{prefix}data_batch_1.bin"), records(&[&[9], &[0]])),
            (format!("{prefix}data_batch_2.bin"), records(&[&[3]])),
            (format!("{prefix}test_batch.bin"), records(&[&[1]])),
        ]
    };
    for prefix in ["", "cifar-10-batches-bin/"] {
        let files = ten(prefix);
        let root = folder(files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())));
        let splits = Splits::open(root.path(), &OpenOptions::default(), &|_, _| {}).unwrap();
        assert_eq!((splits.train.labels(), splits.train.image_shape()), (&[9, 0, 3][..], [32, 32, 3]));
        assert_eq!(splits.train.class_names()[9], "truck");
        assert_eq!(splits.test.unwrap().labels(), [1]);
        let all = pixels(&splits.train);
        assert_eq!((&all[..4], &all[3072..3075]), (&[1, 2, 3, 1][..], &[11, 12, 13][..]));
        assert!(splits.train.name_of(2).ends_with("data_batch_2.bin[0]"), "{}", splits.train.name_of(2));
    }
    let names: String = (0..100).map(|i| format!("class{i}\n")).collect();
    let root = folder([
        ("train.bin", records(&[&[19, 99], &[0, 4]])),
        ("test.bin", records(&[&[19, 7]])),
        ("fine_label_names.txt", names.into_bytes()),
    ]);
    let data = Dataset::open(root.path(), &OpenOptions::default()).unwrap();
    assert_eq!((data.labels(), &*data.class_names()[99]), (&[99, 4][..], "class99"));
}
