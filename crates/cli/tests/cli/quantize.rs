//! Prediction in 8 bits from the command line.

use std::fs;

use crate::harness::Place;

#[test]
fn a_model_is_prepared_compared_and_used() {
    let place = Place::new();
    place.trained();
    let before = fs::read(place.path("run/model.safetensors")).unwrap();
    for line in ["predict run/model.safetensors photos/above/1.png", "evaluate run/model.safetensors photos"] {
        let run = place.run(&format!("{line} --precision int8"));
        run.fails(
            1,
            &["error: run/model.safetensors: was not prepared for int8", "ocellus quantize run/model.safetensors DATA"],
        );
    }
    let run = place.run("quantize run/model.safetensors photos --output small.safetensors --images 6").succeeds();
    let text = run.stdout();
    for part in ["f32", "int8", "images/s", "points", "ocellus predict small.safetensors IMAGE --precision int8"] {
        assert!(text.contains(part), "expected {part:?}\n{text}");
    }
    assert!(run.stderr().contains("measuring ranges on 6 of 20 images"), "{}", run.stderr());
    assert_eq!(fs::read(place.path("run/model.safetensors")).unwrap(), before, "the model given stays as it is");

    let outcome = place.run("quantize run/model.safetensors photos --json").succeeds().json();
    for key in ["calibration_images", "test_images", "accuracy_difference", "same_class", "speedup"] {
        assert!(outcome[key].is_number(), "{key} in {outcome}");
    }
    assert!(outcome["f32"]["accuracy"].is_number() && outcome["int8"]["images_s"].is_number());
    assert_eq!(outcome["output"], "run/model.safetensors");
    assert_ne!(fs::read(place.path("run/model.safetensors")).unwrap(), before, "without --output it gains the ranges");

    for model in ["small.safetensors", "run/model.safetensors"] {
        let predict = |precision: &str| {
            place.run(&format!("predict {model} photos/above/1.png photos/below/2.png{precision}")).succeeds().stdout()
        };
        assert_eq!(predict(""), predict(" --precision f32"));
        assert!(predict(" --precision int8").contains("above"));
        let evaluation = place.run(&format!("evaluate {model} photos --precision int8 --json")).succeeds().json();
        assert_eq!(evaluation["accuracy"], outcome["int8"]["accuracy"]);
    }
}

#[test]
fn data_that_does_not_suit_is_refused() {
    let place = Place::new();
    place.trained();
    place.image("others/cat/1.png", true, 0);
    place.image("others/dog/1.png", true, 0);
    let before = fs::read(place.path("run/model.safetensors")).unwrap();
    place.run("quantize run/model.safetensors others").fails(1, &["others", "`cat`"]);
    place.run("quantize run/model.safetensors missing").fails(1, &["missing"]);
    place.run("quantize missing photos").fails(1, &["missing"]);
    place.run("quantize run photos").fails(1, &["run/model.safetensors"]);
    place.run("quantize run/model.safetensors photos --output none/model").fails(1, &["none/model"]);
    place.run("quantize run/model.safetensors photos --images 0").fails(2, &["--images", "at least 1"]);
    place.run("predict run/model.safetensors x --precision int4").fails(2, &["--precision", "f32, bf16, int8"]);
    assert_eq!(fs::read(place.path("run/model.safetensors")).unwrap(), before);
}
