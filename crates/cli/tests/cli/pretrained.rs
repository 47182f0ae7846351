//! Weights that others have trained: made a model of, trained further; and everything that can be wrong with them.

use std::fs;

use crate::harness::Place;

/// A safetensors file of these tensors, each filled with one number.
fn safetensors(tensors: &[(String, Vec<usize>, f32)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, value) in tensors {
        let begin = data.len();
        (0..shape.iter().product()).for_each(|_| data.extend(value.to_le_bytes()));
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()] });
        header.insert(name.clone(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// ResNet-20's tensors as PyTorch has them, for three classes.
fn resnet20() -> Vec<(String, Vec<usize>, f32)> {
    let model = ocellus::models::find("resnet20").unwrap().build([32, 32, 3], 3).unwrap();
    let tensors = model.weights().map(|(name, shape, _)| {
        let (module, parameter) = name.rsplit_once('/').unwrap();
        let shape = match *shape {
            [height, width, channels, filters] => vec![filters, channels, height, width],
            [inputs, units] => vec![units, inputs],
            _ => shape.to_vec(),
        };
        let (tensor, value) = match parameter {
            "kernel" => ("weight", 0.01),
            "gamma" => ("weight", 1.0),
            "beta" => ("bias", 0.1),
            "moving_mean" => ("running_mean", 0.0),
            "moving_variance" => ("running_var", 1.0),
            other => (other, 0.0),
        };
        (format!("{module}.{tensor}"), shape, value)
    });
    tensors.collect()
}

#[test]
fn weights_become_a_model_that_names_classes() {
    let place = Place::new();
    place.photos("photos", 4);
    place.write("net/weights.safetensors", safetensors(&resnet20()));
    place.write("net/names.txt", "tench, Tinca tinca\ngoldfish, \nshark\n");
    place.write("net/other.txt", "not the names\n");
    let run = place.run("import net/weights.safetensors --output imported.safetensors").succeeds();
    assert!(run.stdout().contains("resnet20 with") && run.stdout().contains("32x32x3"), "{}", run.stdout());
    assert!(run.stderr().contains("names.txt: 3 class names"), "{}", run.stderr());
    let answer = place.run("predict imported.safetensors photos/above/1.png --top 3 --json").succeeds().json();
    let classes: Vec<&str> = answer["top"].as_array().unwrap().iter().map(|a| a["class"].as_str().unwrap()).collect();
    assert_eq!(classes.len(), 3);
    assert!(classes.contains(&"goldfish") && classes.contains(&"tench, Tinca tinca"), "{classes:?}");
    place.run("import imported.safetensors").fails(2, &["imported.safetensors: is a model of ocellus already"]);
    place
        .run("import net/weights.safetensors --class-names net/other.txt")
        .fails(1, &["net/other.txt: 1 names", "3 classes"]);
    assert!(!place.exists("runs"));
}

#[test]
fn a_model_is_trained_further_on_other_classes() {
    let place = Place::new();
    place.trained();
    for class in ["left", "right", "middle"] {
        (0..6).for_each(|n| place.image(&format!("others/{class}/{n}.png"), class != "left", 9 * n));
    }
    let line =
        "train others --weights run/model.safetensors --fine-tune --head-epochs 2 --epochs 1 --output tuned --json";
    let run = place.run(line).succeeds();
    assert_eq!(run.json()["epochs"], 3);
    assert!(run.stderr().contains("begins anew: it tells 3 classes apart, the file's 2"), "{}", run.stderr());
    let summary = place.run("summary tuned/model.safetensors --json").succeeds().json();
    assert_eq!(summary["class_names"].as_array().unwrap().len(), 3);
    let again = place.run("train --config tuned/config.toml --output again --json").succeeds();
    assert_eq!(again.json()["history"]["loss"], run.json()["history"]["loss"]);
}

/// A recipe's groups hold beside what fine-tuning says: their epochs count those of all layers, and what is frozen stays frozen.
#[test]
fn fine_tuning_and_a_recipe_s_groups_hold_together() {
    let place = Place::new();
    place.trained();
    let start = "train photos --weights run/model.safetensors --fine-tune --head-epochs 1 --epochs 2";
    place.write("while.toml", "[[groups]]\nparameters = \"conv2d\"\nepochs = 1\n");
    place.write("fast.toml", "[[groups]]\nparameters = \"*/bias\"\nlearning_rate = 64.0\n");
    let values = |run: &str, name: &str| {
        let model = ocellus::Model::load(place.path(&format!("{run}/model.safetensors"))).unwrap();
        model.weights().find(|(known, ..)| *known == name).unwrap().2.to_vec()
    };
    let frozen = "--freeze conv2d --output frozen --recipe fast.toml";
    place.run(&format!("{start} {frozen}")).succeeds();
    assert_eq!(values("frozen", "conv2d/bias"), values("run", "conv2d/bias"));
    assert_ne!(values("frozen", "conv2d_1/bias"), values("run", "conv2d_1/bias"));
    let once = start.replace("--epochs 2", "--epochs 1");
    place.run(&format!("{start} --recipe while.toml --output while")).succeeds();
    place.run(&format!("{once} --recipe while.toml --output once")).succeeds();
    assert_ne!(values("while", "conv2d/kernel"), values("run", "conv2d/kernel"));
    assert_ne!(values("while", "conv2d_1/kernel"), values("once", "conv2d_1/kernel"));
    let config = place.text("frozen/config.toml");
    assert!(config.contains("[[recipe.groups]]") && config.contains("freeze = [\"conv2d\"]"), "{config}");
}

#[test]
fn a_model_of_one_layer_is_trained_further() {
    let place = Place::new();
    place.photos("photos", 6);
    place.write(
        "net.toml",
        "layers = [{ class = 'Flatten' }, { class = 'Dense', units = 'classes', activation = 'softmax' }]",
    );
    place.run("train photos --model net.toml --epochs 1 --output run").succeeds();
    let line =
        "train photos --weights run/model.safetensors --fine-tune --head-epochs 1 --epochs 1 --output tuned --json";
    assert_eq!(place.run(line).succeeds().json()["epochs"], 2);
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let place = Place::new();
    place.photos("photos", 4);
    let whole = safetensors(&resnet20());
    place.write("half", &whole[..whole.len() / 2]);
    place.write("pickle.pth", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.");
    place.write("strange", safetensors(&[("a.weight".into(), vec![2], 0.0)]));
    let mut spoiled = resnet20();
    spoiled[3].2 = f32::NAN;
    place.write("spoiled", safetensors(&spoiled));
    place.write("fine", &whole);
    for (line, code, parts) in [
        ("train photos --weights missing", 1, &["missing"][..]),
        ("train photos --weights photos", 1, &["photos"]),
        ("train photos --weights half", 1, &["half: is truncated"]),
        ("train photos --weights pickle.pth", 1, &["pickle.pth: is a pickle of PyTorch", "python -c"]),
        ("train photos --weights strange", 2, &["strange: of no known model (a.weight …)", "--model"]),
        ("train photos --weights spoiled", 1, &["spoiled: tensor", "are not finite"]),
        ("train photos --weights fine --model resnet32", 1, &["fine: ", "(resnet32)", "looks like resnet20"]),
        ("train photos --weights fine --freeze stam", 2, &["--freeze: no layer is named \"stam\""]),
        ("train photos --fine-tune", 2, &["--fine-tune", "--weights FILE"]),
        ("import strange", 2, &["strange: of no known model"]),
        ("import pickle.pth", 1, &["pickle.pth: is a pickle of PyTorch"]),
    ] {
        place.run(line).fails(code, parts);
    }
    assert!(!place.exists("runs") && fs::read(place.path("fine")).unwrap() == whole);
}
