//! `ocellus train` from its data to its last file.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::{Place, names};

const FILES: [&str; 7] = [
    "config.toml",
    "confusion_matrix.svg",
    "example.png",
    "history.csv",
    "learning_curves.svg",
    "model.safetensors",
    "samples.safetensors",
];

#[test]
fn a_run_keeps_everything_and_says_what_to_try_next() {
    let place = Place::new();
    place.photos("photos", 10);
    let run = place.run("train photos --epochs 3 --batch-size 4 --learning-rate 0.01").succeeds();
    let found = names(&place.path("runs/photos-reference_cnn"));
    let expected: Vec<&str> = FILES.into_iter().filter(|name| *name != "example.png").collect();
    assert_eq!(found, expected);

    let (stdout, stderr) = (run.stdout(), run.stderr());
    for part in ["Test accuracy: 100.0% (95% interval ", "precision", "predicted", "runs/photos-reference_cnn"] {
        assert!(stdout.contains(part), "expected {part:?}\n{stdout}");
    }
    let epochs: Vec<&str> = stderr.lines().filter(|line| line.starts_with("epoch ")).collect();
    assert_eq!(epochs.len(), 3, "{stderr}");
    for part in ["epoch 3/3  loss ", "  accuracy ", "  val_loss ", "  val_accuracy ", "/s"] {
        assert!(epochs[2].contains(part), "{}", epochs[2]);
    }
    assert!(!stderr.contains('\r') && !stderr.contains('\u{1b}'), "no bar without a terminal: {stderr:?}");

    let history = place.text("runs/photos-reference_cnn/history.csv");
    assert!(history.starts_with("epoch,accuracy,loss,val_accuracy,val_loss,learning_rate,seconds\n0,"), "{history}");
    assert_eq!(history.lines().count(), 4);
    for (file, part) in [("confusion_matrix.svg", ">above</text>"), ("learning_curves.svg", ">accuracy</text>")] {
        assert!(place.text(&format!("runs/photos-reference_cnn/{file}")).contains(part), "{file}");
    }

    // The two commands work as they stand.
    let next: Vec<&str> = stdout.lines().filter_map(|line| line.strip_prefix("  ocellus ")).collect();
    assert_eq!(next.len(), 2, "{stdout}");
    let evaluated = place.run(next[0]).succeeds();
    assert!(evaluated.stdout().starts_with("Accuracy: 100.0% "), "{}", evaluated.stdout());
    assert!(evaluated.stderr().contains("measured on the images that were kept apart"), "{}", evaluated.stderr());
    let predicted = place.run(next[1]).succeeds();
    assert!(predicted.stdout().contains("%"), "{}", predicted.stdout());
}

#[test]
fn bf16_is_kept_with_the_run_and_asked_for_in_use() {
    let place = Place::new();
    place.photos("photos", 10);
    // So short that the loss does not vanish.
    let line = "train photos --epochs 1 --batch-size 4 --learning-rate 0.0005 --output run";
    place.run(&format!("{line} --precision bf16")).succeeds();
    assert!(place.text("run/config.toml").contains("precision = \"bf16\""), "{}", place.text("run/config.toml"));
    let loss = |line: &str| place.run(line).succeeds().json()["loss"].as_f64().expect("a loss");
    let exact = loss("evaluate run/model.safetensors photos --json");
    let rounded = loss("evaluate run/model.safetensors photos --json --precision bf16");
    assert!(exact != rounded && (exact - rounded).abs() < exact.max(0.1) / 16.0, "{rounded} instead of {exact}");
    let predicted = place.run("predict run/model.safetensors photos/above/0.png --precision bf16").succeeds();
    assert!(predicted.stdout().contains('%'), "{}", predicted.stdout());
    place.run("predict run/model.safetensors photos/above/0.png --precision f16").fails(2, &["f16", "bf16"]);
    place.write("half.toml", "precision = 'half'");
    place.run("train photos --config half.toml").fails(2, &["half.toml", "bf16"]);
}

#[test]
fn evaluation_finds_the_images_kept_apart_by_training() {
    let place = Place::new();
    place.photos("photos", 10);
    for validation in ["", "--validation 0.25", "--validation 0.2 --seed 3"] {
        let trained = place.run(&format!("train photos --epochs 1 {validation} --output run --json")).succeeds().json();
        let evaluated = place.run("evaluate run/model.safetensors photos --json").succeeds();
        assert!(evaluated.stderr().contains("measured on the images that were kept apart"), "{}", evaluated.stderr());
        let evaluated = evaluated.json();
        for key in ["samples", "loss", "confusion_matrix"] {
            assert_eq!(evaluated[key], trained["test"][key], "{validation}: {key}");
        }
    }
    place.photos("photos", 11);
    let evaluated = place.run("evaluate run/model.safetensors photos").succeeds();
    assert!(evaluated.stderr().contains("measured on all"), "{}", evaluated.stderr());
}

#[test]
fn the_same_run_twice_makes_the_same_model_file() {
    let place = Place::new();
    place.photos("photos", 6);
    for run in ["a", "b"] {
        place.run(&format!("train photos --epochs 2 --output {run}")).succeeds();
    }
    let bytes = |run: &str| std::fs::read(place.path(&format!("{run}/model.safetensors"))).unwrap();
    assert!(bytes("a") == bytes("b"));
    let history = place.text("a/history.csv");
    assert!(history.lines().nth(1).unwrap().contains(",0.001,"), "{history}");
}

#[test]
fn a_batch_can_be_larger_than_the_data() {
    let place = Place::new();
    place.photos("photos", 4);
    let whole = place.run("train photos --epochs 2 --batch-size 8 --json --output a").succeeds().json();
    let huge = format!("train photos --epochs 2 --batch-size {} --json --output b", usize::MAX);
    assert_eq!(place.run(&huge).succeeds().json()["test"], whole["test"]);
}

#[test]
fn a_run_that_is_killed_keeps_its_last_whole_epoch() {
    let place = Place::new();
    place.photos("photos", 10);
    let mut run = place.command("train photos --epochs 9999 --output run").stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(run.stderr.take().unwrap()).lines();
    let reached = lines.map_while(Result::ok).any(|line| line.starts_with("epoch    3/9999"));
    run.kill().unwrap();
    assert!(!run.wait().unwrap().success() && reached);
    // A file that was being written may lie beside.
    let mut found = names(&place.path("run"));
    found.retain(|name| !name.ends_with(".part"));
    assert_eq!(found, ["backup.safetensors", "config.toml", "history.csv", "model.safetensors"]);
    assert!(place.text("run/history.csv").lines().count() >= 3);
    place.run("evaluate run/model.safetensors photos").succeeds();
}

/// Wherever it was killed, what comes of it is what comes of a run that was not.
#[test]
fn a_run_that_was_killed_goes_on() {
    let place = Place::new();
    place.trained();
    let fine = "--weights run/model.safetensors --fine-tune --head-epochs 45 --epochs 45";
    for (name, settings, lines) in [
        ("plain", "--epochs 90", &["epoch  2/90", "epoch 17/90"][..]),
        ("fine", fine, &["epoch  3/45", "epoch 50/90"]),
        ("averaged", "--epochs 90 --recipe mean.toml", &["epoch 52/90"]),
    ] {
        place.write("mean.toml", "[averaging]\nclass = \"Stochastic\"\nfrom = 0.5\n");
        let line = format!("train photos --batch-size 4 --seed 5 {settings} --output");
        place.run(&format!("{line} {name}")).succeeds();
        for (number, reached) in lines.iter().enumerate() {
            let run = format!("{name}-{number}");
            let mut killed = place.command(&format!("{line} {run}")).stderr(Stdio::piped()).spawn().unwrap();
            let mut told = BufReader::new(killed.stderr.take().unwrap()).lines().map_while(Result::ok);
            assert!(told.any(|line| line.starts_with(reached)), "{run}");
            killed.kill().unwrap();
            killed.wait().unwrap();
            let went_on = place.run(&format!("train --resume {run} --threads 1 --json")).succeeds();
            assert!(went_on.stderr().contains(&format!("{run}: going on after epoch ")), "{}", went_on.stderr());
            assert!(went_on.json()["resumed_after"].as_u64().is_some_and(|epoch| epoch > 0));
            for file in ["model.safetensors", "samples.safetensors", "confusion_matrix.svg"] {
                let bytes = |run: &str| std::fs::read(place.path(&format!("{run}/{file}"))).unwrap();
                assert!(bytes(&run) == bytes(name), "{run}: {file}");
            }
            assert_eq!(place.text(&format!("{run}/history.csv")).lines().count(), 91, "{run}");
            assert!(!place.exists(&format!("{run}/backup.safetensors")), "{run}");
            place
                .run(&format!("train --resume {run}"))
                .fails(1, &[&run, "the run is done, its model is", "model.safetensors"]);
        }
    }
}

#[test]
fn what_cannot_go_on_is_told() {
    let place = Place::new();
    place.trained();
    place.run("train --resume nowhere").fails(2, &["nowhere", "config.toml"]);
    place.run("train --resume run").fails(1, &["run: the run is done"]);
    std::fs::remove_file(place.path("run/model.safetensors")).unwrap();
    place.run("train --resume run").fails(1, &["run: no epoch of the run was done", "train --config run/config.toml"]);
    for beside in ["photos", "--epochs 5", "--seed 1", "--output other", "--fine-tune"] {
        place.run(&format!("train {beside} --resume run")).fails(2, &["--resume", "no settings"]);
    }
    place.run("train --resume run --recipe airbench94").fails(2, &["--resume", "--recipe"]);
    place.write("run/backup.safetensors", "something else");
    place.run("train --resume run").fails(1, &["run/backup.safetensors", "not a backup of a training"]);
}

#[test]
fn runs_are_numbered_and_never_written_over_unasked() {
    let place = Place::new();
    place.photos("photos", 5);
    for _ in 0..3 {
        place.run("train photos --epochs 1").succeeds();
    }
    assert_eq!(
        names(&place.path("runs")),
        ["photos-reference_cnn", "photos-reference_cnn-2", "photos-reference_cnn-3"]
    );
    let again = place.run("train photos --epochs 1 --output runs/photos-reference_cnn-2").succeeds();
    assert!(again.stderr().contains("holds an earlier run, which this one replaces"), "{}", again.stderr());
}

#[test]
fn a_config_file_repeats_a_run_and_what_is_typed_counts_more() {
    let place = Place::new();
    place.photos("photos", 6);
    place
        .run("train photos --epochs 2 --seed 7 --batch-size 3 --optimizer sgd --validation 0.25 --output a")
        .succeeds();
    place.run("train --config a/config.toml --output b --threads 1").succeeds();
    place.run("train --config a/config.toml --output c --threads 3 --seed 8 --epochs 1").succeeds();
    let measured = |run: &str| {
        let history = place.text(&format!("{run}/history.csv"));
        let without_seconds = history.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned());
        without_seconds.collect::<Vec<_>>()
    };
    assert_eq!(measured("a"), measured("b"));
    assert_eq!(measured("c").len(), 2);
    assert_ne!(measured("a")[1], measured("c")[1]);
    let config = place.text("c/config.toml");
    for part in
        ["optimizer = \"sgd\"", "epochs = 1", "seed = 8", "batch_size = 3", "validation = 0.25", "learning_rate = 0.01"]
    {
        assert!(config.contains(part), "expected {part:?}\n{config}");
    }
}

#[test]
fn validation_images_come_from_where_they_are_said_to() {
    let place = Place::new();
    place.photos("photos/train", 6);
    place.photos("photos/test", 3);
    place.photos("others", 2);
    for (arguments, expected) in [
        ("", "validation: 6 images (the test images, only watched: they decide nothing)"),
        ("--validation 0.5", "validation: 6 images (of the training images, kept apart)"),
        ("--validation others", "validation: 4 images (training images of others)"),
    ] {
        let run = place.run(&format!("train photos --epochs 1 {arguments}")).succeeds();
        assert!(run.stderr().contains("test: 6 images (the data's)"), "{}", run.stderr());
        assert!(run.stderr().contains(expected), "{arguments}: {}", run.stderr());
    }
    place.photos("photos/val", 4);
    let run = place.run("train photos --epochs 1").succeeds();
    assert!(run.stderr().contains("validation: 8 images (the data's)"), "{}", run.stderr());
}

#[test]
fn validation_images_are_the_test_where_there_are_no_others() {
    let place = Place::new();
    place.photos("photos/train", 6);
    place.photos("photos/val", 4);
    let trained = place.run("train photos --epochs 1 --output run --json").succeeds();
    assert!(trained.stderr().contains("test: 8 images (the validation images"), "{}", trained.stderr());
    let evaluated = place.run("evaluate run/model.safetensors photos --json").succeeds().json();
    assert_eq!(evaluated["confusion_matrix"], trained.json()["test"]["confusion_matrix"]);
}

#[test]
fn results_for_programs() {
    let place = Place::new();
    place.photos("photos", 5);
    let json = place.run("train photos --epochs 2 --output run --json").succeeds().json();
    assert_eq!(json["model"], "run/model.safetensors");
    assert_eq!(json["history"]["loss"].as_array().unwrap().len(), 2);
    assert_eq!(json["test"]["samples"], 2);
    assert_eq!(json["test"]["classes"][1]["name"], "below");
    assert!(json["test"]["accuracy_interval"]["low"].is_number());
}

#[test]
fn without_data_it_trains_on_what_it_carries() {
    let place = Place::new();
    place.write(
        "tiny.toml",
        "[[layers]]\nclass = 'Flatten'\n[[layers]]\nclass = 'Dense'\nunits = 'classes'\nactivation = 'softmax'",
    );
    let run = place.run("train --model tiny.toml --epochs 1 --output run").succeeds();
    assert_eq!(names(&place.path("run")), FILES);
    assert!(run.stdout().contains("Ankle boot") && run.stdout().contains("top-5"), "{}", run.stdout());
    let predicted = place.run("predict run/model.safetensors run/example.png").succeeds().stdout();
    assert!(predicted.starts_with("run/example.png  "), "{predicted}");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_keeps_what_was_good() {
    let place = Place::new();
    place.photos("photos", 6);
    let diverging = "train photos --epochs 3 --learning-rate 1e30 --optimizer sgd --output run";
    place
        .run(&format!("{diverging} --batch-size 2"))
        .fails(1, &["the loss became", "in epoch 1, step", "no model is kept"]);
    place.run(diverging).fails(1, &["the validation loss became NaN in epoch 1"]);
    assert!(!place.exists("run"));
    place.run("train photos --epochs 1 --output run").succeeds();
    place.run(diverging).fails(1, &["loss became"]);
    place.run("predict run/model.safetensors photos/above/0.png").succeeds();
    assert!(place.text("run/config.toml").contains("epochs = 1"));
}
