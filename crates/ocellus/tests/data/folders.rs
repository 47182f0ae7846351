//! Layouts of class folders.

use ocellus::data::{Dataset, OpenOptions, Split, Splits, splits_of};

use super::{folder, grey, relative};

fn open(root: &std::path::Path, split: Split) -> Dataset {
    Dataset::open(root, &OpenOptions { split, ..Default::default() }).unwrap()
}

/// What is found in a folder of these files: per split, samples per class.
#[track_caller]
fn check(files: &[&str], class_names: &[&str], expected: &[(Split, &[usize])]) {
    let root =
        folder(files.iter().map(|&path| (path, if path.ends_with(".txt") { b"text".to_vec() } else { grey(9) })));
    let splits: Vec<Split> = expected.iter().map(|&(split, _)| split).collect();
    assert_eq!(splits_of(root.path()).unwrap(), splits, "{files:?}");
    for &(split, counts) in expected {
        let data = open(root.path(), split);
        assert_eq!(data.class_names(), class_names, "{files:?}");
        assert_eq!(data.samples_per_class(), counts, "{files:?} {split}");
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_once_and_pipes_are_not_waited_for() {
    use std::os::unix::fs::symlink;
    let root = folder([("a/1.png", grey(1)), ("b/1.png", grey(2))]);
    // Folders that all lead into each other, which has as many ways through them as orders.
    for from in 0..12 {
        std::fs::create_dir(root.path().join(format!("a/{from}"))).unwrap();
        std::fs::write(root.path().join(format!("a/{from}/1.png")), grey(from)).unwrap();
        for to in (0..12).filter(|&to| to != from) {
            symlink(format!("../{to}"), root.path().join(format!("a/{from}/to-{to}"))).unwrap();
        }
    }
    symlink(root.path(), root.path().join("b/around")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(root.path().join("pipe")).status();
    let piped = made.is_ok_and(|status| status.success());
    if piped {
        symlink(root.path().join("pipe"), root.path().join("b/pipe.png")).unwrap();
    }
    let data = open(root.path(), Split::Train);
    // Each of the twelve directly and through one link, and the two beside them.
    assert_eq!(data.len(), 26);
    assert_eq!(data.skipped().len(), usize::from(piped), "{:?}", data.skipped());
    assert!(data.skipped().iter().all(|skipped| skipped.reason.contains("no regular file")), "{:?}", data.skipped());
}

#[test]
fn layouts_are_recognised() {
    use Split::{Test, Train, Validation};
    check(&["b/1.png", "a/2.png", "a/3.png"], &["a", "b"], &[(Train, &[2, 1])]);
    check(
        &["train/b/1.png", "train/a/2.png", "val/a/3.png", "val/b/3.png", "test/b/4.png", "README.txt"],
        &["a", "b"],
        &[(Train, &[1, 1]), (Validation, &[1, 1]), (Test, &[0, 1])],
    );
    check(
        &["Training/a/1.png", "Training/b/1.png", "valid/a/1.png"],
        &["a", "b"],
        &[(Train, &[1, 1]), (Validation, &[1, 0])],
    );
    // Test data alone, for a model that exists.
    check(&["test/a/1.png", "test/b/1.png"], &["a", "b"], &[(Test, &[1, 1])]);
    // Files in folders within a class folder belong to the class.
    check(&["a/x/1.png", "a/x/y/2.png", "b/3.png"], &["a", "b"], &[(Train, &[2, 1])]);
    // A class of vehicles called "train" is no split.
    check(&["car/1.png", "plane/2.png", "train/3.png"], &["car", "plane", "train"], &[(Train, &[1, 1, 1])]);
    // What systems leave behind is no data.
    check(
        &[
            "a/1.png",
            "b/1.png",
            ".git/1.png",
            "__MACOSX/1.png",
            "a/.DS_Store.png",
            "a/Thumbs.db",
            "a/.ipynb_checkpoints/1.png",
        ],
        &["a", "b"],
        &[(Train, &[1, 1])],
    );
    // Plain alphabetical order, by bytes, as Keras has it: neither case nor numbers are special.
    check(&["a/1.png", "B/1.png", "10/1.png", "9/1.png", "é/1.png"], &["10", "9", "B", "a", "é"], &[(Train, &[1; 5])]);
}

#[test]
fn a_stored_class_list_keeps_its_order() {
    let root = folder([("cat/1.png", grey(1)), ("dog/1.png", grey(2)), ("dog/2.png", grey(3))]);
    let classes = ["emu", "dog", "cat"].map(String::from).to_vec();
    let data =
        Dataset::open(root.path(), &OpenOptions { classes: Some(classes.clone()), ..Default::default() }).unwrap();
    assert_eq!(data.class_names(), classes);
    assert_eq!(data.labels(), [2, 1, 1]);
    assert!(data.notes().iter().any(|note| note.contains("`emu`")), "{:?}", data.notes());
    let natural = open(root.path(), Split::Train);
    assert_eq!(natural.labels(), [0, 1, 1]);
}

#[test]
fn classes_and_size_come_from_training_data() {
    let wide = super::encode(&image::GrayImage::new(16, 4).into(), image::ImageFormat::Png);
    let root = folder([
        ("train/a/1.png", grey(1)),
        ("train/b/1.png", grey(2)),
        ("train/c/1.png", grey(2)),
        ("test/c/1.png", wide.clone()),
        ("val/b/1.png", wide),
    ]);
    let splits = Splits::open(root.path(), &OpenOptions::default(), &|_, _| {}).unwrap();
    let (validation, test) = (splits.validation.unwrap(), splits.test.unwrap());
    assert_eq!((test.labels(), test.image_shape()), (&[2][..], [8, 8, 1]));
    assert_eq!((validation.labels(), validation.image_shape()), (&[1][..], [8, 8, 1]));
}

#[test]
fn images_keep_their_size_or_get_one_that_suits() {
    let png = |height, width, rgb: bool| {
        let image =
            image::DynamicImage::new(width, height, if rgb { image::ColorType::Rgb8 } else { image::ColorType::L8 });
        super::encode(&image, image::ImageFormat::Png)
    };
    for (images, expected, noted) in [
        ([png(20, 30, false), png(20, 30, false)], [20, 30, 1], false),
        ([png(20, 30, false), png(20, 30, true)], [20, 30, 3], false),
        ([png(20, 30, false), png(30, 20, false)], [32, 32, 1], true),
        ([png(100, 130, true), png(120, 90, true)], [96, 96, 3], true),
        ([png(400, 400, true), png(400, 400, true)], [128, 128, 3], true),
    ] {
        let [a, b] = images;
        let root = folder([("a/1.png", a), ("b/1.png", b)]);
        let data = open(root.path(), Split::Train);
        assert_eq!((data.image_shape(), !data.notes().is_empty()), (expected, noted), "{:?}", data.notes());
        let options = OpenOptions { image_size: Some([5, 6]), channels: Some(3), ..Default::default() };
        let asked = Dataset::open(root.path(), &options).unwrap();
        assert_eq!((asked.image_shape(), asked.notes().len()), ([5, 6, 3], 0));
    }
}

#[test]
fn pixels_labels_and_names_stay_together_past_damaged_files() {
    let root = folder([
        ("a/1.png", grey(10)),
        ("a/2.png", b"not a picture".to_vec()),
        ("a/3.jpg", grey(30)),
        ("b/1.png", grey(40)),
        ("b/2.png", grey(50)[..60].to_vec()),
        ("b/3.png", Vec::new()),
        ("b/4", grey(60)),
    ]);
    for memory in [1 << 20, 0] {
        let mut options = OpenOptions::default();
        options.limits.memory = memory;
        let data = Dataset::open(root.path(), &options).unwrap();
        assert_eq!(data.in_memory(), memory > 0);
        let got: Vec<_> = (0..data.len())
            .map(|i| {
                let mut pixels = vec![0; 64];
                data.copy_image(i, &mut pixels).unwrap();
                (relative(data.name_of(i).as_ref(), root.path()).display().to_string(), data.label(i), pixels[63])
            })
            .collect();
        let expected = [("a/1.png", 0, 10), ("a/3.jpg", 0, 30), ("b/1.png", 1, 40), ("b/4", 1, 60)];
        assert_eq!(got, expected.map(|(name, label, value)| (name.to_owned(), label, value)));
        let skipped: Vec<_> =
            data.skipped().iter().map(|s| (relative(&s.path, root.path()).display().to_string(), &*s.reason)).collect();
        assert_eq!(
            skipped,
            [
                ("a/2.png".to_owned(), "not an image that is understood: it holds text"),
                ("b/2.png".to_owned(), "the image is truncated"),
                ("b/3.png".to_owned(), "the file is empty (0 bytes)"),
            ]
        );
    }
    let strict =
        Dataset::open(root.path(), &OpenOptions { strict: true, ..Default::default() }).unwrap_err().to_string();
    assert!(strict.contains("a/2.png: not an image") && strict.contains("and 2 other files"), "{strict}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    let outside = folder([("1.png", grey(1)), ("2.png", grey(1))]);
    let root = folder([("a/1.png", grey(1)), ("b/1.png", grey(1))]);
    let link =
        |target: &std::path::Path, name: &str| std::os::unix::fs::symlink(target, root.path().join(name)).unwrap();
    link(outside.path(), "c");
    link(root.path(), "a/circle");
    link("/nowhere/at/all".as_ref(), "b/broken.png");
    let data = open(root.path(), Split::Train);
    assert_eq!(data.samples_per_class(), [1, 1, 2]);
    assert_eq!(data.skipped().len(), 1, "{:?}", data.skipped());
    // Those that lead out of the data are told.
    link(&outside.path().join("1.png"), "a/9.png");
    let notes = open(root.path(), Split::Train).notes().join("\n");
    assert!(notes.contains("a/9.png and 1 more links lead out of"), "{notes}");
}

#[test]
fn stratified_parts_share_classes_and_keep_order() {
    let root = folder(
        [("a", 10), ("b", 5), ("c", 1), ("d", 2)]
            .iter()
            .flat_map(|&(class, count)| (0..count).map(move |i| format!("{class}/{i}.png")))
            .collect::<Vec<_>>()
            .iter()
            .zip(1..)
            .map(|(path, value)| (path.as_str(), grey(value))),
    );
    let data = open(root.path(), Split::Train);
    let (rest, held) = data.split_stratified(0.2, 5).unwrap();
    assert_eq!((rest.samples_per_class(), held.samples_per_class()), (vec![8, 4, 1, 1], vec![2, 1, 0, 1]));
    let names = |data: &Dataset| (0..data.len()).map(|i| data.name_of(i)).collect::<Vec<_>>();
    let mut all = [names(&rest), names(&held)].concat();
    assert!(names(&held).is_sorted() && names(&rest).is_sorted());
    all.sort();
    assert_eq!(all, names(&data));
    assert_eq!(names(&data.split_stratified(0.2, 5).unwrap().1), names(&held));
    assert_ne!(names(&data.split_stratified(0.2, 6).unwrap().1), names(&held));
    for fraction in [0.0, 1.0, -1.0, f64::NAN] {
        assert!(data.split_stratified(fraction, 0).is_err());
    }

    let splits =
        Splits::open(root.path(), &OpenOptions::default(), &|_, _| {}).unwrap().hold_back_test(0.2, 5).unwrap();
    assert_eq!((names(&splits.train), names(&splits.test.unwrap())), (names(&rest), names(&held)));
}

#[test]
fn fingerprint_follows_content() {
    let files = |value| [("a/1.png", grey(1)), ("b/1.png", grey(value))];
    let print = |value| open(folder(files(value)).path(), Split::Train).fingerprint().unwrap();
    assert_eq!(print(2), print(2));
    assert_ne!(print(2), print(3));
    let root = folder(files(2));
    let data = open(root.path(), Split::Train);
    assert_ne!(data.subset([1, 0]).fingerprint().unwrap(), data.fingerprint().unwrap());
}
