//! Weights of other frameworks arrive where they belong, and what does not fit is told.

use super::names::{tables, tensor};
use super::*;
use crate::layers::*;
use crate::model::Sequential;
use crate::models::find;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;

/// Tensors as PyTorch would have them.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn file(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn load(model: &mut Model, bytes: &[u8], strictness: Strictness) -> Result<LoadedWeights, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let opened = WeightFile::open(&path).map_err(ModelError::from);
    let loaded = opened.and_then(|opened| model.load_weights_from(&opened, strictness));
    loaded.map_err(|error| {
        let text = error.to_string();
        assert!(text.starts_with(&path.display().to_string()), "the error names the file: {text}");
        text
    })
}

/// The tensors of a table for this model, each filled with a number of its own.
fn tensors(model: &Model, table: &Table) -> Tensors {
    let layers: Vec<usize> =
        (0..model.layer_parameters.len()).filter(|&n| !model.layer_parameters[n].is_empty()).collect();
    let modules: Vec<&str> = table.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(modules.len(), layers.len(), "{} of {}", table.architecture, table.origin);
    let mut tensors = Tensors::new();
    for (&layer, module) in layers.iter().zip(&modules) {
        for (spec, n) in model.network.nodes[layer].parameters.iter().zip(1..) {
            let shape = model.layout_of(layer, spec.name).expected(&spec.shape);
            let number = (layer * 10 + n) as f32 / 10_000.0;
            let values = vec![number; shape.iter().product()];
            tensors.insert(tensor(module, spec.name), (Dtype::F32, shape, bytes(&values)));
        }
        if module.contains("bn") {
            tensors.insert(format!("{module}.num_batches_tracked"), (Dtype::I64, vec![1], vec![0; 8]));
        }
    }
    tensors
}

fn table(architecture: &str) -> &'static Table {
    tables().iter().find(|table| table.architecture == architecture).unwrap()
}

/// The smallest of the nets that others have published weights of.
fn resnet20(classes: usize) -> Model {
    find("resnet20").unwrap().build([32, 32, 3], classes).unwrap()
}

#[test]
fn every_table_has_names_of_its_own_and_is_recognised() {
    for table in tables() {
        let mut names: Vec<&str> = table.modules.iter().map(|module| module.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), table.modules.len(), "{} of {}", table.architecture, table.origin);
        let tensors = table.modules.iter().map(|module| {
            let shape = Layout::of(module.class, module.parameter).expected(&module.shape);
            // A file with one byte for each number would do if there were such numbers; few are large.
            (tensor(&module.name, module.parameter), (Dtype::U8, shape.clone(), vec![0; shape.iter().product()]))
        });
        let opened = WeightFile::open_bytes(&file(&tensors.collect()));
        assert_eq!((opened.architecture(), opened.origin()), (Some(table.architecture), Some(table.origin)));
        assert_eq!(opened.classes(), Some(1000));
    }
}

fn of_resnet20() -> (Model, Tensors) {
    let model = resnet20(10);
    let tensors = tensors(&model, table("resnet20"));
    (model, tensors)
}

#[test]
fn every_tensor_arrives_where_it_belongs() {
    let (mut model, tensors) = of_resnet20();
    let bytes = file(&tensors);
    let opened = WeightFile::open_bytes(&bytes);
    assert_eq!((opened.architecture(), opened.origin()), (Some("resnet20"), Some("pytorch-cifar-models")));
    assert_eq!(opened.classes(), Some(10));
    let loaded = load(&mut model, &bytes, Strictness::Strict).unwrap();
    assert_eq!(loaded.parameters, model.parameter_count());
    for (layer, ids) in model.layer_parameters.iter().enumerate() {
        for (&id, n) in ids.iter().zip(1..) {
            let parameter = model.parameters.get(id);
            let number = (layer * 10 + n) as f32 / 10_000.0;
            assert!(parameter.values().iter().all(|&value| value == number), "{}", parameter.name);
        }
    }
}

#[test]
fn a_last_layer_of_other_classes_is_replaced() {
    let (_, tensors) = of_resnet20();
    let mut model = resnet20(3);
    let before: Vec<f32> = model.weights().last().unwrap().2.to_vec();
    let loaded = load(&mut model, &file(&tensors), Strictness::Strict).unwrap();
    assert_eq!(loaded.replaced_head, Some(ReplacedHead { layer: "fc".into(), in_file: 10, in_model: 3 }));
    assert_eq!(model.weights().last().unwrap().2, before);
    assert!(model.weights().next().unwrap().2.iter().all(|&value| value < 0.1));
}

#[test]
fn halves_and_wrapped_names_are_taken() {
    let (mut model, tensors) = of_resnet20();
    let half = |data: &[u8]| -> Vec<u8> { data.as_chunks::<4>().0.iter().flat_map(|b| [b[2], b[3]]).collect() };
    let wrapped = tensors.into_iter().map(|(name, (dtype, shape, data))| {
        let (dtype, data) = if dtype == Dtype::F32 { (Dtype::BF16, half(&data)) } else { (dtype, data) };
        (format!("module.{name}"), (dtype, shape, data))
    });
    let loaded = load(&mut model, &file(&wrapped.collect()), Strictness::Strict).unwrap();
    assert_eq!(loaded.parameters, model.parameter_count());
}

#[test]
fn what_does_not_fit_is_told() {
    type Change = fn(&mut Tensors);
    let cases: [(&str, Change, &[&str]); 6] = [
        (
            "missing",
            |t| drop(t.remove("layer1.0.conv1.weight")),
            &["1 missing", "layer1.0.conv1.weight (layer1.0.conv1/kernel)"],
        ),
        (
            "many missing",
            |t| t.retain(|name, _| !name.starts_with("layer3.")),
            &["35 missing", " and 30 more", "(resnet20)"],
        ),
        (
            "unexpected",
            |t| drop(t.insert("extra.weight".into(), (Dtype::F32, vec![1], vec![0; 4]))),
            &["1 not expected\n  not expected: extra.weight"],
        ),
        (
            "shape",
            |t| drop(t.insert("conv1.weight".into(), (Dtype::F32, vec![16, 1, 3, 3], vec![0; 4 * 16 * 9]))),
            &["1 of another shape", "conv1.weight: expected 16x3x3x3, found 16x1x3x3"],
        ),
        (
            "not finite",
            |t| t.get_mut("layer2.0.bn1.bias").unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes()),
            &["\"layer2.0.bn1.bias\"", "1 of its 32 numbers are not finite, the first is NaN"],
        ),
        ("integers", |t| t.get_mut("bn1.weight").unwrap().0 = Dtype::I32, &["\"bn1.weight\"", "found I32"]),
    ];
    for (what, change, parts) in cases {
        let (mut model, mut tensors) = of_resnet20();
        let before = model.snapshot();
        change(&mut tensors);
        let error = load(&mut model, &file(&tensors), Strictness::Strict).expect_err(what);
        for part in parts {
            assert!(error.contains(part), "{what}: expected {part:?} in {error}");
        }
        assert!(model.snapshot() == before, "{what}: the model is as it was");
    }
}

#[test]
fn other_architectures_are_named() {
    let (mut model, mut tensors) = of_resnet20();
    let modules = &table("mobilenet_v2").modules;
    let strangers = modules.iter().map(|module| {
        let shape = Layout::of(module.class, module.parameter).expected(&module.shape);
        (tensor(&module.name, module.parameter), (Dtype::U8, shape.clone(), vec![0; shape.iter().product()]))
    });
    let error = load(&mut model, &file(&strangers.collect()), Strictness::Strict).unwrap_err();
    assert!(error.contains("none of its tensors has a name that the model's layers have (resnet20)"), "{error}");
    assert!(error.contains("looks like mobilenet_v2 with the names of torchvision"), "{error}");
    for (block, stage) in (3..9).flat_map(|block| (1..=3).map(move |stage| (block, stage))) {
        for module in ["conv1", "bn1", "conv2", "bn2"] {
            tensors.insert(format!("layer{stage}.{block}.{module}.weight"), (Dtype::F32, vec![1], vec![0; 4]));
        }
    }
    let error = load(&mut model, &file(&tensors), Strictness::Strict).unwrap_err();
    assert!(error.contains("(resnet20): 72 not expected") && error.contains("looks like resnet56"), "{error}");
}

#[test]
fn damaged_files_are_refused() {
    let (mut model, tensors) = of_resnet20();
    let whole = file(&tensors);
    for (bytes, problem) in [
        (&whole[..whole.len() / 2], "is truncated"),
        (&whole[..100], "is truncated"),
        (&whole[..4], "no safetensors file"),
        (&b""[..], "is empty"),
    ] {
        let error = load(&mut model, bytes, Strictness::Strict).unwrap_err();
        assert!(error.contains(problem), "{error:?} instead of {problem:?}");
    }
}

#[test]
fn a_part_is_taken_where_that_is_allowed() {
    let (mut model, mut tensors) = of_resnet20();
    tensors.remove("layer1.0.conv1.weight");
    tensors.insert("extra.weight".into(), (Dtype::F32, vec![1], vec![0; 4]));
    let loaded = load(&mut model, &file(&tensors), Strictness::Partial).unwrap();
    assert_eq!(loaded.parameters, model.parameter_count() - 3 * 3 * 16 * 16);
    assert_eq!(loaded.passed_over.missing, ["layer1.0.conv1.weight (layer1.0.conv1/kernel)"]);
    assert_eq!(loaded.passed_over.unexpected, ["extra.weight"]);
}

#[test]
fn models_of_ocellus_pass_on_their_weights() {
    let net = |classes| {
        let layers =
            Sequential::new([8, 8, 3]).add(Conv2d::new(4, 3)).add(BatchNormalization::new()).add(Flatten::new());
        layers.add(Dense::new(classes).activation(Activation::Softmax)).build().unwrap()
    };
    let (mut from, mut to) = (net(3), net(5));
    from.initialize(7);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    from.save(&path).unwrap();
    let loaded = to.load_weights(&path).unwrap();
    assert_eq!((loaded.origin.as_str(), loaded.replaced_head.unwrap().in_file), ("ocellus", 3));
    assert_eq!(to.weights().next().unwrap().2, from.weights().next().unwrap().2);
}

#[test]
fn flattened_images_are_turned() {
    let mut model = Sequential::new([2, 2, 3])
        .add(Conv2d::new(2, 1).use_bias(false))
        .add(Flatten::new())
        .add(Dropout::new(0.5))
        .add(Dense::new(1).use_bias(false))
        .build()
        .unwrap();
    assert_eq!(model.layout_of(3, "kernel"), Layout::Dense { image: Some([2, 2, 2]) });
    model = Sequential::new([2, 2, 3]).add(GlobalAveragePooling2d::new()).add(Dense::new(2)).build().unwrap();
    assert_eq!(model.layout_of(1, "kernel"), Layout::Dense { image: None });
}

#[test]
fn a_normalisation_comes_before_everything_and_keeps_the_weights() {
    let net = || Sequential::new([4, 4, 3]).add(Conv2d::new(2, 3)).add(Flatten::new()).build().unwrap();
    let before = net().snapshot();
    let mut model = net().with_pixels_normalized([0.5, 0.25, 0.0], [0.25, 0.5, 1.0]).unwrap();
    assert!(model.snapshot() == before && model.takes_pixels());
    let pixels: Vec<u8> = (0..48).map(|n| n * 5).collect();
    let normalized = pixels
        .iter()
        .zip((0..3).cycle())
        .map(|(&pixel, channel)| (f32::from(pixel) / 255.0 - [0.5, 0.25, 0.0][channel]) / [0.25, 0.5, 1.0][channel]);
    let (mut plain, normalized) = (net(), normalized.collect::<Vec<f32>>());
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close(model.predict(&pixels).unwrap().values(), plain.predict(&normalized).unwrap().values()));
    // Another one takes its place.
    let mut model = model.with_pixels_normalized([0.0; 3], [1.0; 3]).unwrap();
    assert_eq!(model.architecture().layers.len(), 3);
    let scaled: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
    assert!(close(model.predict(&pixels).unwrap().values(), plain.predict(&scaled).unwrap().values()));
}
