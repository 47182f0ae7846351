//! The models against PyTorch: the same weights, the same images, the same outputs (`reference/golden_zoo.py`).

use super::find;
use crate::golden::Golden;
use crate::model::Model;
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

/// PyTorch's shape for a parameter of ours, and for each of our axes which of theirs it is.
fn layout(class: &str, shape: &[usize], flattened: Option<[usize; 3]>) -> (Vec<usize>, Vec<usize>) {
    match (class, shape) {
        ("DepthwiseConv2d", &[height, width, channels, 1]) => (vec![channels, 1, height, width], vec![2, 3, 0, 1]),
        (_, &[height, width, channels, filters]) => (vec![filters, channels, height, width], vec![2, 3, 1, 0]),
        ("Dense", &[inputs, units]) => match flattened {
            Some([height, width, channels]) => (vec![units, channels, height, width], vec![2, 3, 1, 0]),
            None => (vec![units, inputs], vec![1, 0]),
        },
        _ => (shape.to_vec(), (0..shape.len()).collect()),
    }
}

/// The values of a parameter, by the formula of `reference/README.md`.
fn values(name: &str, class: &str, shape: &[usize], flattened: Option<[usize; 3]>, variance: f64) -> Vec<f32> {
    let (theirs, axes) = layout(class, shape, flattened);
    let ours: Vec<usize> = axes.iter().map(|&axis| theirs[axis]).collect();
    let fan_in: usize = theirs[1.min(theirs.len())..].iter().product();
    let part = name.rsplit('.').next().unwrap();
    let (offset, scale) = match (part, theirs.len()) {
        ("running_mean", _) => (0.0, 0.2),
        ("running_var", _) => (1.0, 0.4),
        ("gamma", _) => (0.5, 0.3),
        ("cls_token" | "pos_embed", _) => (0.0, 0.5),
        ("weight", 1) => (1.0, 0.25),
        (_, 1) => (0.0, 0.1),
        _ => (0.0, (3.0 * variance / fan_in as f64).sqrt()),
    };
    let strides: Vec<usize> = (0..theirs.len()).map(|axis| theirs[axis + 1..].iter().product()).collect();
    let (key, mut place) = (key(name), vec![0; ours.len()]);
    let mut values = Vec::with_capacity(shape.iter().product());
    for _ in 0..shape.iter().product::<usize>() {
        let at: usize = place.iter().zip(&axes).map(|(&n, &axis)| n * strides[axis]).sum();
        let unit = f64::from(bits(key, at as u32)) / 4_294_967_296.0 * 2.0 - 1.0;
        values.push((offset + scale * unit) as f32);
        for axis in (0..ours.len()).rev() {
            place[axis] += 1;
            if place[axis] < ours[axis] {
                break;
            }
            place[axis] = 0;
        }
    }
    values
}

fn fill(model: &mut Model, variance: f64) {
    let costs = model.costs();
    let shape = |name: &str| costs.iter().find(|layer| layer.name == name).map(|layer| layer.output_shape.clone());
    let flattened = |layer: &str| {
        let before = |name: &str| Some(costs.iter().find(|layer| layer.name == name)?.inputs[0].clone());
        let mut name = before(layer)?;
        while costs.iter().find(|layer| layer.name == name)?.class == "Dropout" {
            name = before(&name)?;
        }
        let flatten = costs.iter().find(|layer| layer.name == name)?.class == "Flatten";
        match (flatten, &shape(&before(&name)?)?[..]) {
            (true, &[height, width, channels]) => Some([height, width, channels]),
            _ => None,
        }
    };
    let parameters: Vec<(String, Vec<usize>)> =
        model.weights().map(|(name, shape, _)| (name.to_owned(), shape.to_vec())).collect();
    for (name, shape) in parameters {
        let layer = name.rsplit_once('/').unwrap().0;
        let class = costs.iter().find(|known| known.name == layer).unwrap().class;
        let filled = values(&tensor_name(&name), class, &shape, flattened(layer), variance);
        model.set_weight(&name, &filled).unwrap();
    }
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
