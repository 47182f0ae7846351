//! Wrong usage ends with code 2 and says what was expected; help and version go to stdout.

use std::io;

use crate::harness::Place;

#[test]
fn wrong_usage_is_told_before_anything_is_done() {
    let place = Place::new();
    for (line, parts) in [
        ("fly", &["unrecognized subcommand 'fly'"][..]),
        ("train --epoch 3", &["unexpected argument '--epoch'", "--epochs"]),
        ("train --epochs 0", &["--epochs", "above 0"]),
        ("train --epochs three", &["--epochs", "a number above 0"]),
        ("train --batch-size -3", &["--batch-size"]),
        ("train --threads 0", &["--threads", "1 to 1024"]),
        ("train --learning-rate -1", &["--learning-rate", "above 0"]),
        ("train --learning-rate nan", &["--learning-rate", "above 0"]),
        ("train --seed x", &["--seed"]),
        ("train --validation 1.5", &["--validation", "between 0 and 1", "1.5"]),
        ("train --fold 6/5", &["--fold", "K from 1 to N"]),
        ("train --fold 1/5 --validation 0.1", &["--fold", "cannot be used with", "--validation"]),
        ("train --cache-size lots", &["--cache-size", "such as 500MB or 20GB"]),
        ("train --optimizer adamant", &["--optimizer", "adam, adamw, sgd"]),
        ("train --model reference_cn", &["did you mean reference_cnn?"]),
        ("summary Residual-CNN", &["did you mean residual_cnn?"]),
        ("train --model resnet9000", &["error: resnet9000", "reference_cnn", "FILE.toml"]),
        ("train --model none.toml", &["error: none.toml", "No such file"]),
        ("train --config none.toml", &["--config none.toml", "No such file"]),
        ("train a b", &["unexpected argument 'b'"]),
        ("evaluate model", &["<DATA>"]),
        ("predict model", &["<IMAGE>"]),
        ("predict model a --top 0", &["--top", "at least 1"]),
        ("benchmark --model nothing", &["error: nothing", "reference_cnn"]),
        ("summary nothing", &["nothing", "reference_cnn"]),
    ] {
        let run = place.run(line).fails(2, parts);
        assert_eq!(run.stdout(), "", "{line}");
    }
    assert!(!place.exists("runs"));
}

#[test]
fn what_is_wrong_with_a_config_file_is_told() {
    let place = Place::new();
    for (text, part) in [
        ("epochs = 0", "epochs: expected a number above 0"),
        ("epoch = 1", "line 1: unknown key \"epoch\" (did you mean epochs?)"),
        ("epochs = ", "TOML parse error"),
        ("validation = 2.0", "validation: expected a fraction"),
        ("optimizer = 'adamant'", "unknown name \"adamant\""),
    ] {
        place.write("my.toml", text);
        place.run("train --config my.toml").fails(2, &["--config my.toml: ", part]);
    }
    place.write("net.toml", "[[layers]]\nclass = 'Conv3D'");
    place.photos("photos", 3);
    place.run("train photos --model net.toml").fails(2, &["net", "Conv3D"]);
    place.write("net.toml", "[[layers");
    place.run("train photos --model net.toml").fails(2, &["error: net.toml:1: unclosed"]);
    assert!(!place.exists("runs"));
}

#[test]
fn an_instruction_set_that_is_none_is_wrong_usage() {
    let place = Place::new();
    place.photos("photos", 4);
    for line in ["train photos", "benchmark"] {
        let run = place.run_with(line, &[("OCELLUS_ISA", "sse9")]);
        run.fails(2, &["error: OCELLUS_ISA: ", "sse9", "portable"]);
    }
    assert!(!place.exists("runs"));
}

#[test]
fn help_and_version_are_results() {
    let place = Place::new();
    let version = place.run("--version").succeeds().stdout();
    assert_eq!(version, format!("ocellus {}\n", env!("CARGO_PKG_VERSION")));
    for command in [
        "",
        "train ",
        "evaluate ",
        "predict ",
        "quantize ",
        "check ",
        "labels ",
        "suggest ",
        "summary ",
        "models ",
        "datasets ",
        "benchmark ",
    ] {
        let run = place.run(&format!("{command}--help")).succeeds();
        assert!(run.stdout().contains("Usage: ocellus") && run.stderr().is_empty(), "{command}: {}", run.stdout());
    }
    let run = place.run("").code(2);
    assert!(run.stderr().contains("Usage: ocellus") && run.stdout().is_empty());
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let place = Place::new();
    for line in ["datasets", "models", "models --json", "summary reference_cnn", "--help"] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = place.command(line).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_cannot_be_written_are_a_failure() {
    let place = Place::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = place.command("models").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.starts_with("error: cannot write to standard output: No space left"), "{stderr}");
}
