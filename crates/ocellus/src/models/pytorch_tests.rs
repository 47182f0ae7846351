//! The models against PyTorch: the same weights, the same images, the same outputs (`reference/golden_zoo.py`).

use super::find;
use crate::golden::Golden;
use crate::model::Model;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::HashMap;

/// The largest difference of a logit.
const TOLERANCE: f64 = 1e-3;

/// Wellons' lowbias32.
fn hash32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

fn bits(key: u32, i: u32) -> u32 {
    hash32(i.wrapping_add(hash32(key)))
}

/// FNV-1a of a tensor's name.
fn key(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The name that PyTorch's modules give a parameter of ours.
fn tensor_name(name: &str) -> String {
    let (layer, parameter) = name.rsplit_once('/').unwrap();
    let theirs = match parameter {
        "kernel" | "gamma" => "weight",
        "bias" | "beta" => "bias",
        "moving_mean" => "running_mean",
        "moving_variance" => "running_var",
        // Parameters that are no module's.
        "token" | "embedding" | "scale" => return layer.to_owned(),
        other => panic!("{other}"),
    };
    format!("{layer}.{theirs}")
}

/// PyTorch's shape for a parameter of ours.
fn shape_there(class: &str, shape: &[usize]) -> Vec<usize> {
    match (class, shape) {
        ("DepthwiseConv2d", &[height, width, channels, 1]) => vec![channels, 1, height, width],
        (_, &[height, width, channels, filters]) => vec![filters, channels, height, width],
        ("Dense", &[inputs, units]) => vec![units, inputs],
        ("ClassToken", &[channels]) => vec![1, 1, channels],
        ("PositionEmbedding", &[tokens, channels]) => vec![1, tokens, channels],
        _ => shape.to_vec(),
    }
}

/// A tensor's numbers, by the formula of `reference/README.md`.
fn values(name: &str, shape: &[usize], variance: f64) -> Vec<u8> {
    let fan_in: usize = shape[1.min(shape.len())..].iter().product();
    let (offset, scale) = match (name.rsplit('.').next().unwrap(), shape.len()) {
        ("running_mean", _) => (0.0, 0.2),
        ("running_var", _) => (1.0, 0.4),
        ("gamma", _) => (0.5, 0.3),
        ("cls_token" | "pos_embed", _) => (0.0, 0.5),
        ("weight", 1) => (1.0, 0.25),
        (_, 1) => (0.0, 0.1),
        _ => (0.0, (3.0 * variance / fan_in as f64).sqrt()),
    };
    let (key, count) = (key(name), shape.iter().product::<usize>() as u32);
    let unit = |place: u32| f64::from(bits(key, place)) / 4_294_967_296.0 * 2.0 - 1.0;
    (0..count).flat_map(|place| ((offset + scale * unit(place)) as f32).to_le_bytes()).collect()
}

/// Fills the model through a file of tensors with PyTorch's names, shapes and order.
fn fill(model: &mut Model, variance: f64) {
    let costs = model.costs();
    let class = |layer: &str| costs.iter().find(|known| known.name == layer).unwrap().class;
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = model
        .weights()
        .map(|(name, shape, _)| {
            let shape = shape_there(class(name.rsplit_once('/').unwrap().0), shape);
            let name = tensor_name(name);
            let values = values(&name, &shape, variance);
            (name, shape, values)
        })
        .collect();
    let views =
        tensors.iter().map(|(name, shape, values)| (name, TensorView::new(Dtype::F32, shape.clone(), values).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let loaded = model.load_weights(&path).unwrap();
    assert_eq!(loaded.parameters, model.parameter_count());
}

fn check(golden: &Golden, name: &str) {
    let [height, width]: [usize; 2] = golden.metadata("size");
    let variances: HashMap<String, f64> = golden.metadata("variances");
    let classes = golden.metadata("classes");
    let mut model = find(name).unwrap().build([height, width, 3], classes).unwrap();
    fill(&mut model, variances[name]);
    let images: Vec<u8> = (0..2 * height * width * 3).map(|i| (bits(1000, i as u32) >> 24) as u8).collect();
    let found = model.predict(&images).unwrap();
    let mut worst = 0.0f64;
    for (&found, expected) in found.values().iter().zip(golden.tensor(name)) {
        worst = worst.max((f64::from(found).ln() - f64::from(expected)).abs());
    }
    eprintln!("{name}: largest difference {worst:.1e}");
    assert!(worst <= TOLERANCE, "{name}: {worst:.1e}");
}

#[test]
fn outputs_are_pytorchs() {
    let golden = Golden::read("zoo");
    for name in [
        "lenet5",
        "airbench94",
        "resnet20",
        "resnet18",
        "resnet50",
        "squeezenet1_1",
        "mobilenet_v2",
        "efficientnet_lite0",
        "efficientnet_lite2",
        "efficientnet_b0",
        "convnext_atto",
        "vit_tiny",
    ] {
        check(&golden, name);
    }
}

/// The nets that take longer, or those of the file in `reference/golden` that `OCELLUS_ZOO` names: see `docs/models.md`.
#[test]
#[ignore = "large nets, or images of full size"]
fn every_output_is_pytorchs() {
    let golden = Golden::read(&std::env::var("OCELLUS_ZOO").unwrap_or_else(|_| "zoo".into()));
    let variances: HashMap<String, f64> = golden.metadata("variances");
    let mut names: Vec<&String> = variances.keys().collect();
    names.sort();
    for name in names {
        check(&golden, name);
    }
}
