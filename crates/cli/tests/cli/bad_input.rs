//! Bad data, images, models and places: code 1, a message with the file, nothing half-written, no panic.

use std::fs;

use crate::harness::{Place, names};

#[test]
fn bad_data_is_refused_before_anything_is_written() {
    let place = Place::new();
    fs::create_dir_all(place.path("empty")).unwrap();
    place.image("one/cat/1.png", true, 0);
    place.photos("bare", 3);
    fs::create_dir_all(place.path("bare/nothing")).unwrap();
    place.write("text", "no data at all");
    place.photos("strict", 4);
    place.write("strict/above/damaged.png", "text");
    place.photos("few", 1);
    place.photos("validated", 4);
    place.image("strange/cat/1.png", true, 0);
    place.image("strange/above/1.png", true, 0);
    for (line, parts) in [
        ("train missing", &["missing", "no such file or folder"][..]),
        ("train empty", &["empty"]),
        ("train one", &["one", "one class only, `cat`"]),
        ("train bare", &["bare", "`nothing`"]),
        ("train text", &["text"]),
        ("train strict --strict", &["damaged.png"]),
        ("train few", &["few: too few images"]),
        ("train validated --validation strange", &["strange", "`cat`"]),
        ("train validated --validation missing", &["missing"]),
    ] {
        place.run(line).fails(1, parts);
    }
    assert!(!place.exists("runs"));
}

#[test]
fn damaged_images_are_named_and_counted() {
    let place = Place::new();
    place.photos("photos", 6);
    place.write("photos/above/text.png", "text");
    place.write("photos/below/nothing.png", "");
    let whole = fs::read(place.path("photos/below/1.png")).unwrap();
    place.write("photos/below/half.png", &whole[..whole.len() / 2]);
    let run = place.run("train photos --epochs 1").succeeds();
    for part in ["text.png", "nothing.png", "half.png", "3 damaged images were skipped"] {
        assert_eq!(run.stderr().matches(part).count(), 1, "expected {part:?} once\n{}", run.stderr());
    }
}

#[test]
fn bad_models_are_refused() {
    let place = Place::new();
    place.trained();
    let whole = fs::read(place.path("run/model.safetensors")).unwrap();
    place.write("half", &whole[..whole.len() / 2]);
    place.write("nothing", "");
    place.write("text", "no model at all, but long enough to hold a header of some length");
    // The first tensor's values: the outputs recorded with the golden images no longer come.
    let mut changed = whole.clone();
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    changed[header..].iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
    place.write("changed", changed);
    for model in ["half", "nothing", "text", "changed", "missing", "photos"] {
        place.run(&format!("predict {model} photos/above/1.png")).fails(1, &[model]);
        place.run(&format!("evaluate {model} photos")).fails(1, &[model]);
    }
}

#[test]
fn a_folder_is_no_model_file() {
    let place = Place::new();
    place.trained();
    for line in ["predict run photos/above/1.png", "evaluate run photos", "summary run"] {
        place.run(line).fails(1, &["error: run: is a run's folder", "run/model.safetensors"]);
    }
    place.run("summary photos").fails(1, &["error: photos: is a folder; expected a model file"]);
}

#[test]
fn an_architecture_that_cannot_be_is_told_with_its_file_and_layer() {
    let place = Place::new();
    place.photos("photos", 4);
    place.write("nets/big.toml", "[[layers]]\nname = 'first'\nclass = 'Conv2D'\nfilters = 3\nkernel_size = 50");
    for line in ["train photos --model nets/big.toml", "summary nets/big.toml", "benchmark --model nets/big.toml"] {
        place.run(line).fails(1, &["error: nets/big.toml:1: first (Conv2d): the kernel covers 50x50"]);
    }
    assert!(!place.exists("runs"));
}

#[test]
fn data_of_other_classes_is_refused() {
    let place = Place::new();
    place.trained();
    place.image("others/cat/1.png", true, 0);
    place.image("others/dog/1.png", true, 0);
    place.run("evaluate run/model.safetensors others").fails(1, &["others", "`cat`"]);
}

#[test]
fn images_too_small_for_the_model_are_refused() {
    let place = Place::new();
    for (grey, (class, name)) in [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")].into_iter().enumerate() {
        let png = ocellus::report::image_png(&[grey as u8; 16], [4, 4, 1]).unwrap();
        place.write(&format!("small/{class}/{name}.png"), &png);
    }
    place.run("train small").fails(1, &["conv2d_1 (Conv2d): the kernel covers 3x3"]);
    assert!(!place.exists("runs"));
}

#[test]
fn an_output_folder_that_cannot_be_is_told_before_training() {
    let place = Place::new();
    place.photos("photos", 4);
    place.write("file", "in the way");
    for output in ["file", "file/below"] {
        let run = place.run(&format!("train photos --output {output}"));
        let run = run.fails(1, &[&format!("cannot write {output}"), "a file stands where a folder is needed"]);
        assert!(!run.stderr().contains("epoch"), "{}", run.stderr());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_nothing_is_half_written() {
    let place = Place::new();
    place.photos("photos", 4);
    for file in ["config.toml", "history.csv", "model.safetensors", "confusion_matrix.svg"] {
        fs::create_dir_all(place.path("run")).unwrap();
        std::os::unix::fs::symlink("/dev/full", place.path("run").join(file)).unwrap();
        let run = place.run("train photos --epochs 1 --output run");
        run.fails(1, &[&format!("run/{file}"), "No space left", "free some space"]);
        assert!(names(&place.path("run")).iter().all(|name| !name.ends_with(".part")));
        fs::remove_dir_all(place.path("run")).unwrap();
    }
}
