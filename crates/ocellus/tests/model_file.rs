//! Model files: what is written comes back to the bit, and no file from a stranger does harm. One test for each attack.

use ocellus::data::{self, Preprocessing, Split};
use ocellus::layers::*;
use ocellus::losses::Loss;
use ocellus::model::{FitOptions, Model, Sequential};
use ocellus::optimizers::Adam;
use ocellus::random::{Purpose, Random};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

fn trained() -> Model {
    let mut model = Sequential::new([28, 28, 1])
        .add(Conv2d::new(3, 3).strides(3).activation(Activation::Relu))
        .add(BatchNormalization::new())
        .add(Flatten::new())
        .add(Dense::new(10).activation(Activation::Softmax))
        .build()
        .unwrap();
    model.compile(Adam::new(), Loss::categorical_cross_entropy(), ()).unwrap();
    model.fit(&data::builtin(Split::Train).unwrap().take(64), FitOptions::new().seed(5)).unwrap();
    model
}

/// A file taken apart.
#[derive(Clone)]
struct Parts {
    document: Value,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Parts {
    fn of(bytes: &[u8]) -> Self {
        let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
        let document = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["ocellus"]).unwrap();
        let tensors = SafeTensors::deserialize(bytes).unwrap().tensors().into_iter();
        let tensors = tensors.map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())));
        Parts { document, tensors: tensors.collect() }
    }

    fn bytes(&self, key: &str, json: String) -> Vec<u8> {
        let view = |(dtype, shape, data): &(Dtype, Vec<usize>, Vec<u8>)| {
            // The views are only read while this file's parts live.
            TensorView::new(*dtype, shape.clone(), Box::leak(data.clone().into_boxed_slice())).unwrap()
        };
        let views = self.tensors.iter().map(|(name, tensor)| (name.clone(), view(tensor)));
        safetensors::serialize(views, Some(HashMap::from([(key.to_owned(), json)]))).unwrap()
    }
}

fn saved() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    trained().save(&path).unwrap();
    std::fs::read(path).unwrap()
}

fn load(bytes: &[u8]) -> Result<Model, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    Model::load(&path).map_err(|error| {
        let text = error.to_string();
        assert!(text.starts_with(&path.display().to_string()), "the error names the file: {text}");
        text
    })
}

fn refuses(bytes: &[u8], problem: &str) {
    let error = load(bytes).expect_err(problem);
    assert!(error.contains(problem), "{error:?} instead of {problem:?}");
}

/// Loads the file after a change to its parts.
fn changed(change: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let mut parts = Parts::of(&saved());
    change(&mut parts);
    parts.bytes("ocellus", parts.document.to_string())
}

#[test]
fn comes_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut model = trained();
    let test = data::builtin(Split::Test).unwrap().take(70);
    let evaluation = model.evaluate(&test).unwrap();
    model.set_evaluation(evaluation.clone());
    model.save(&path).unwrap();
    let mut loaded = Model::load(&path).unwrap();
    assert_eq!(loaded.predict(&test).unwrap(), model.predict(&test).unwrap());
    assert_eq!(loaded.snapshot(), model.snapshot());
    assert_eq!(loaded.class_names(), model.class_names());
    assert_eq!(loaded.preprocessing(), model.preprocessing());
    assert_eq!(loaded.training_record(), model.training_record());
    assert_eq!(loaded.training_record().seed, 5);
    assert_eq!(loaded.evaluation(), Some(&evaluation));
    assert_eq!(loaded.evaluate(&test).unwrap(), evaluation);
    let first = std::fs::read(&path).unwrap();
    loaded.save(&path).unwrap();
    assert!(std::fs::read(&path).unwrap() == first, "saving what was loaded gives the same file");
}

#[test]
fn the_same_training_makes_the_same_file() {
    assert!(saved() == saved());
    assert!(!String::from_utf8_lossy(&saved()).contains("seconds"));
}

#[test]
fn what_loading_would_refuse_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let refuses = |model: &mut Model, problem: &str| {
        let error = model.save(&path).expect_err(problem).to_string();
        assert!(error.contains(problem), "{error:?} instead of {problem:?}");
        assert!(!path.exists());
    };
    let mut model = trained();
    model.set_weight("dense/bias", &[f32::MAX; 10]).unwrap();
    model.set_weight("dense/kernel", &[f32::MAX; 2430 / 10 * 10]).unwrap();
    refuses(&mut model, "not written: the model gives NaN for one of its golden images (image 0, output 0)");
    let mut model = trained();
    model.set_preprocessing(Preprocessing { scale: f32::NAN, ..model.preprocessing().clone() });
    refuses(&mut model, "not written");
    let mut model = trained();
    model.set_preprocessing(Preprocessing { image_size: [9, 9], ..model.preprocessing().clone() });
    refuses(&mut model, "the preprocessing makes images of 9x9x1, but the layers take 28x28x1");
    let mut model = trained();
    model.compile(Adam::new().learning_rate(f32::NAN), Loss::categorical_cross_entropy(), ()).unwrap();
    let _ = model.fit(&data::builtin(Split::Train).unwrap().take(64), FitOptions::new());
    refuses(&mut model, "the model cannot be written");
}

#[test]
fn a_model_that_has_seen_no_images_can_be_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut model = Sequential::new([5]).add(Dense::new(2)).build().unwrap();
    model.save(&path).unwrap();
    assert_eq!(Model::load(&path).unwrap().snapshot(), model.snapshot());
}

#[test]
fn what_one_instruction_set_wrote_another_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut model = trained();
    for level in ocellus::Level::available() {
        model.set_level(level);
        model.save(&path).unwrap();
        Model::load(&path).unwrap_or_else(|error| panic!("{level:?}: {error}"));
    }
}

#[test]
fn attack_no_file_or_a_folder_or_a_device() {
    let device = if cfg!(unix) { "/dev/zero" } else { "/nowhere" };
    for path in ["/nowhere/model.safetensors", env!("CARGO_MANIFEST_DIR"), device] {
        let error = Model::load(Path::new(path)).unwrap_err().to_string();
        assert!(error.starts_with(path), "{error}");
    }
}

#[test]
fn attack_truncation_anywhere() {
    let bytes = saved();
    for length in (0..bytes.len()).step_by(97).chain([1, 7, 8, 9, bytes.len() - 1]) {
        refuses(&bytes[..length], "not a model file, or a damaged one");
    }
}

#[test]
fn attack_a_header_that_lies_about_its_length() {
    let bytes = saved();
    for length in [0, 1, bytes.len() as u64, u64::MAX, u64::MAX - 7, 1 << 40, 99_999_999] {
        let lie = [&length.to_le_bytes(), &bytes[8..]].concat();
        refuses(&lie, "not a model file, or a damaged one");
    }
    refuses(b"\x89PNG\r\n\x1a\n and so on, for a while", "not a model file, or a damaged one");
}

#[test]
fn attack_a_strangers_safetensors() {
    let parts = Parts::of(&saved());
    refuses(&parts.bytes("format", "pt".into()), "a safetensors file, but not one of ocellus");
}

#[test]
fn attack_a_description_that_is_no_description() {
    let parts = Parts::of(&saved());
    for json in ["", "{", "null", "[]", "{}", &"[".repeat(100_000)] {
        refuses(&parts.bytes("ocellus", json.to_owned()), "the description of the model is damaged");
    }
}

#[test]
fn attack_a_newer_version() {
    refuses(&changed(|parts| parts.document["format_version"] = json!(2)), "has format version 2, but this version");
    refuses(&changed(|parts| parts.document["format_version"] = json!(-1)), "the description of the model is damaged");
}

#[test]
fn attack_layers_that_do_not_exist_or_fit() {
    for (layer, key, value, problem) in [
        (0, "class", json!("Conv9D"), "unknown variant `Conv9D`"),
        (0, "colour", json!("blue"), "unknown field `colour`"),
        (0, "filters", json!(-3), "the description of the model is damaged"),
        (0, "filters", json!(4), "tensor \"conv2d/kernel\": expected 3x3x1x4 of F32, found 3x3x1x3 of F32"),
        (0, "filters", json!(1u64 << 62), "conv2d (Conv2d): too large"),
        (0, "kernel_size", json!([1u64 << 40, 1u64 << 40]), "conv2d (Conv2d): expected kernel"),
        (0, "kernel_size", json!([29, 29]), "the kernel covers 29x29, more than its input of 28x28"),
        (0, "strides", json!([0, 0]), "expected strides of at least 1"),
        (0, "groups", json!(0), "0 groups"),
        (0, "inputs", json!(["dense"]), "conv2d (Conv2d): its input \"dense\" is not the name of an earlier layer"),
        (0, "inputs", json!(["conv2d"]), "its input \"conv2d\" is not the name of an earlier layer"),
        (0, "inputs", json!([]), "expected 1 input(s), received 0"),
        (1, "name", json!("conv2d"), "its name is taken"),
        (1, "momentum", json!(1e30), "expected a momentum of 0 to 1"),
        (3, "units", json!(1u64 << 63), "too large"),
        (3, "units", json!(9), "10 class names, but 9 outputs"),
    ] {
        refuses(&changed(|parts| parts.document["layers"][layer][key] = value.clone()), problem);
    }
    refuses(&changed(|parts| parts.document["layers"] = json!([])), "a model needs at least one layer");
    for shape in [json!([]), json!([0, 28, 1]), json!([1u64 << 40, 1u64 << 40, 1])] {
        refuses(&changed(|parts| parts.document["input_shape"] = shape.clone()), "the input shape");
    }
}

#[test]
fn attack_layers_that_multiply_without_end() {
    let bytes = changed(|parts| {
        let double =
            |n: usize, input: &str| json!({"class": "Concatenate", "name": format!("c{n}"), "inputs": [input, input]});
        let mut layers = vec![double(0, "input")];
        layers.extend((1..60).map(|n| double(n, &format!("c{}", n - 1))));
        parts.document["layers"] = json!(layers);
    });
    refuses(&bytes, "too large");
    let bytes = changed(|parts| {
        let pool = |n: usize, input: &str| {
            json!({"class": "MaxPooling2D", "name": format!("p{n}"), "inputs": [input], "pool_size": [280, 280],
                   "strides": [1, 1], "padding": "same"})
        };
        let mut layers = vec![pool(0, "input")];
        layers.extend((1..5000).map(|n| pool(n, &format!("p{}", n - 1))));
        parts.document["layers"] = json!(layers);
    });
    refuses(&bytes, "too large");
}

#[test]
fn attack_preprocessing_and_class_names_that_do_not_fit() {
    refuses(
        &changed(|parts| parts.document["preprocessing"]["image_size"] = json!([1u64 << 40, 1])),
        "the preprocessing makes",
    );
    refuses(
        &changed(|parts| parts.document["preprocessing"]["channels"] = json!(3)),
        "the preprocessing makes images of 28x28x3",
    );
    refuses(
        &changed(|parts| parts.document["preprocessing"]["scale"] = json!(1e300)),
        "the description of the model is damaged",
    );
    refuses(&changed(|parts| parts.document["class_names"] = json!(["one"])), "1 class names, but 10 outputs");
}

#[test]
fn attack_a_tensor_missing() {
    for name in ["conv2d/kernel", "batch_normalization/moving_variance", "golden/images", "golden/outputs"] {
        let bytes = changed(|parts| drop(parts.tensors.remove(name)));
        refuses(&bytes, &format!("tensor {name:?}: expected it, but it is missing"));
    }
}

#[test]
fn attack_a_tensor_of_another_shape_or_type() {
    refuses(
        &changed(|parts| parts.tensors.get_mut("conv2d/kernel").unwrap().1 = vec![27]),
        "expected 3x3x1x3 of F32, found 27",
    );
    refuses(&changed(|parts| parts.tensors.get_mut("conv2d/bias").unwrap().0 = Dtype::I32), "found 3 of I32");
    refuses(
        &changed(|parts| parts.tensors.get_mut("golden/outputs").unwrap().1 = vec![40]),
        "expected 4x10 of F32, found 40",
    );
    refuses(
        &changed(|parts| parts.tensors.get_mut("golden/images").unwrap().1 = vec![4, 784]),
        "expected 1 to 16 images of 28x28x1, found 4x784",
    );
    refuses(
        &changed(|parts| {
            parts.tensors.insert("golden/images".into(), (Dtype::U8, vec![0, 28, 28, 1], Vec::new()));
        }),
        "expected 1 to 16 images",
    );
}

#[test]
fn attack_a_tensor_too_many() {
    let bytes = changed(|parts| {
        parts.tensors.insert("backdoor/kernel".into(), (Dtype::F32, vec![1], vec![0; 4]));
    });
    refuses(&bytes, "tensor \"backdoor/kernel\": no layer has such a parameter");
}

#[test]
fn attack_weights_that_were_changed() {
    let set = |name: &'static str, value: f32| {
        changed(move |parts| parts.tensors.get_mut(name).unwrap().2[..4].copy_from_slice(&value.to_le_bytes()))
    };
    for value in [1e3, f32::NAN, f32::INFINITY] {
        refuses(&set("dense/bias", value), "was recorded (golden image");
    }
    refuses(&set("golden/outputs", f32::NAN), "where NaN was recorded (golden image 0, output 0)");
    refuses(&set("golden/outputs", 0.9999), "the file is damaged or was changed");
}

#[test]
fn attack_preprocessing_that_was_changed() {
    refuses(&changed(|parts| parts.document["preprocessing"]["scale"] = json!(1.0)), "was recorded (golden image");
}

#[test]
fn attack_any_byte_changed() {
    let bytes = saved();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
    let mut random = Random::new(1, Purpose::Test, 0, 0);
    for case in 0..300 {
        let mut bytes = bytes.clone();
        // Most of the file is numbers; half of the changes go to the header.
        let end = if case % 2 == 0 { header } else { bytes.len() };
        let at = random.below(end as u64) as usize;
        bytes[at] = random.below(256) as u8;
        // Whatever comes of it, nothing panics, and a model that loads can predict.
        if let Ok(mut model) = load(&bytes) {
            model.predict(&[0u8; 784]).unwrap();
        }
    }
}

#[test]
fn a_calibration_must_suit_the_layers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut model = trained();
    model.calibrate(&data::builtin(Split::Train).unwrap().take(10)).unwrap();
    model.save(&path).unwrap();
    let parts = Parts::of(&std::fs::read(&path).unwrap());
    let with = |change: &dyn Fn(&mut Value)| {
        let mut parts = parts.clone();
        change(&mut parts.document["calibration"]);
        parts.bytes("ocellus", parts.document.to_string())
    };
    assert!(load(&with(&|_| {})).is_ok());
    for (range, problem) in [
        (json!([2.0, 1.0]), "dense: the calibration's range from 2 to 1 is none"),
        (json!([0.0, 1e39]), "damaged"),
        (json!([null, 1.0]), "damaged"),
        (json!(["NaN", 1.0]), "damaged"),
        (json!([1.0]), "damaged"),
    ] {
        refuses(&with(&|calibration| calibration["ranges"]["dense"] = range.clone()), problem);
    }
    let missing = |calibration: &mut Value| drop(calibration["ranges"].as_object_mut().unwrap().remove("conv2d"));
    refuses(&with(&missing), "conv2d: the calibration has no range for it");
    let unknown = |calibration: &mut Value| calibration["ranges"]["flatten"] = json!([0.0, 1.0]);
    refuses(&with(&unknown), "has a range for \"flatten\", but no layer of that name is calibrated");
    refuses(&with(&|calibration| *calibration = json!({"images": 3})), "damaged");
}
