//! `ocellus` on data of other formats than class folders.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use ocellus::data::{CacheOptions, Dataset, OpenOptions};
use ocellus::model::Model;

use crate::harness::{Place, names};

/// A manifest of a folder's images.
fn manifest(place: &Place) {
    place.photos("photos", 10);
    let rows = (0..10)
        .flat_map(|n| ["above", "below"].map(|class| format!("photos/{class}/{n}.png,{class},visit-{}\n", n / 2)));
    place.write("photos.csv", format!("file_name,label,group\n{}missing.png,above,\n", rows.collect::<String>()));
}

#[test]
fn a_manifest_is_trained_on_fold_by_fold() {
    let place = Place::new();
    manifest(&place);
    let line = "train photos.csv --epochs 2 --batch-size 4 --learning-rate 0.01 --balanced";
    let run = place.run(&format!("{line} --fold 2/4 --output run")).succeeds();
    for part in ["missing.png: cannot be read", "part 2 of 4 of the training images, kept apart"] {
        assert!(run.stderr().contains(part), "{}", run.stderr());
    }
    let config = place.text("run/config.toml");
    assert!(config.contains("fold = \"2/4\"") && config.contains("balanced = true"), "{config}");
    let again = place.run("train --config run/config.toml --output again").succeeds();
    assert_eq!(again.stdout().lines().next(), run.stdout().lines().next());
    place.run("evaluate run/model.safetensors photos.csv").succeeds();
    place.run(&format!("{line} --strict")).fails(1, &["missing.png: cannot be read"]);
}

#[test]
fn prepared_images_are_kept_where_asked() {
    let place = Place::new();
    manifest(&place);
    let line = "train photos.csv --epochs 1 --batch-size 4";
    place.run(&format!("{line} --cache none --output a")).succeeds();
    // So few images are decoded sooner than they are kept.
    place.run(&format!("{line} --cache kept --cache-size 1MB --output b")).succeeds();
    assert!(!place.exists("kept") || names(&place.path("kept")).is_empty());
    assert_eq!(place.text("a/history.csv").lines().count(), place.text("b/history.csv").lines().count());
}

#[test]
fn prepared_images_are_used_by_all_who_read_the_data() {
    let place = Place::new();
    place.trained();
    let model = Model::load(place.path("run/model.safetensors")).unwrap();
    let cache = CacheOptions { worth: Duration::ZERO, ..CacheOptions::new(place.path("kept")) };
    let preprocessing = Some(model.preprocessing().clone());
    let options = OpenOptions { cache: Some(cache), preprocessing, ..OpenOptions::default() };
    Dataset::open(place.path("photos"), &options).unwrap();
    let file = place.path("kept").join(&names(&place.path("kept"))[0]);
    for line in [
        "evaluate run/model.safetensors photos",
        "quantize run/model.safetensors photos --output int8.safetensors",
        "suggest run photos",
    ] {
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::options().append(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        place.run(&format!("{line} --cache none")).succeeds();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), long_ago, "{line}");
        place.run(&format!("{line} --cache kept")).succeeds();
        assert!(fs::metadata(&file).unwrap().modified().unwrap() > long_ago, "{line} does not use the cache");
    }
}
