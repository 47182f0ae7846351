//! What the commands beside `train` print.

use crate::harness::Place;

#[test]
fn predict_names_classes_for_people_and_programs() {
    let place = Place::new();
    place.trained();
    place.image("new.png", true, 20);
    place.image("with blank.png", false, 20);

    let run = place.run("predict run/model.safetensors new.png photos/below/1.png").succeeds();
    let lines: Vec<String> = run.stdout().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("new.png             above "), "{lines:?}");
    assert!(lines[1].starts_with("photos/below/1.png  below ") && lines[1].ends_with('%'), "{lines:?}");

    let line = place.run("predict run/model.safetensors new.png --top 5").succeeds().stdout();
    assert!(line.contains("above ") && line.contains("below "), "{line}");

    let json = place.run("predict run/model.safetensors new.png --json").succeeds().json();
    assert_eq!((&json["image"], &json["class"]), (&"new.png".into(), &"above".into()));
    assert!(json["probability"].as_f64().unwrap() > 0.5 && json.get("top").is_none(), "{json}");
    let json = place.run("predict run/model.safetensors new.png --json --top 2").succeeds().json();
    assert_eq!(json["top"][1]["class"], "below");
}

#[test]
fn one_bad_image_does_not_hide_the_others() {
    let place = Place::new();
    place.trained();
    place.write("text.png", "no image at all");
    let line = "predict run/model.safetensors photos/above/1.png text.png missing.png photos photos/below/1.png";
    let run = place.run(line).code(1);
    assert_eq!(run.stdout().lines().count(), 2, "{}", run.stdout());
    for part in ["error: text.png: ", "error: missing.png: ", "error: photos: is a folder"] {
        assert!(run.stderr().contains(part), "{}", run.stderr());
    }
    let run = place.run(&format!("{line} --json")).code(1);
    let objects: Vec<serde_json::Value> =
        run.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 5);
    assert!(objects[1]["error"].as_str().unwrap().contains("text.png"));
}

#[test]
fn evaluate_measures_and_says_on_what() {
    let place = Place::new();
    place.trained();
    let json = place.run("evaluate run/model.safetensors photos --json").succeeds().json();
    assert_eq!((&json["samples"], &json["data"]), (&4.into(), &"photos".into()));
    place.photos("others", 3);
    let run = place.run("evaluate run/model.safetensors others --threads 1").succeeds();
    assert!(run.stderr().contains("others has no test images: measured on all"), "{}", run.stderr());
    for part in ["Accuracy: ", ", 6 images", "above", "macro average", "predicted"] {
        assert!(run.stdout().contains(part), "{}", run.stdout());
    }
}

#[test]
fn summary_tells_layers_and_training() {
    let place = Place::new();
    place.trained();
    let run = place.run("summary run/model.safetensors").succeeds();
    for part in [
        "conv2d (Conv2d)",
        "Total params",
        "Classes: 2 (above, below)",
        "Trained: 2 epochs on 16 images",
        "Test accuracy: ",
    ] {
        assert!(run.stdout().contains(part), "expected {part:?}\n{}", run.stdout());
    }
    let json = place.run("summary run/model.safetensors --json").succeeds().json();
    assert_eq!(json["class_names"][0], "above");
    assert_eq!(json["training"]["epochs"], 2);
    let run = place.run("summary reference_cnn").succeeds();
    assert!(run.stdout().contains("121,930"), "{}", run.stdout());
}

#[test]
fn lists_name_what_can_be_named() {
    let place = Place::new();
    let models = place.run("models --json").succeeds().json();
    assert!(
        models
            .as_array()
            .unwrap()
            .iter()
            .any(|model| model["name"] == "reference_cnn" && model["parameters"] == 121_930)
    );
    let datasets = place.run("datasets --json").succeeds().json();
    let names: Vec<&str> = datasets.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"fashion-mnist") && names.contains(&"mnist"), "{names:?}");
    for (list, part) in [("models", "reference_cnn"), ("datasets", "cifar10")] {
        assert!(place.run(list).succeeds().stdout().contains(part), "{list}");
    }
}
