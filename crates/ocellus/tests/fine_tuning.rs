//! Training in part: what is frozen stays, what learns does so as if the rest were constants, kept features change nothing.

use ocellus::data::{self, Dataset, Split};
use ocellus::layers::*;
use ocellus::losses::Loss;
use ocellus::metrics::Accuracy;
use ocellus::model::{FitOptions, Input, Model, Snapshot};
use ocellus::optimizers::{Adam, Sgd};
use std::collections::BTreeMap;

fn images() -> Dataset {
    data::builtin(Split::Train).unwrap().take(96)
}

/// A residual net with everything that does something else in training.
fn net() -> Model {
    let input = Input::new([28, 28, 1]);
    let norm = |name: &str| BatchNormalization::new().momentum(0.5).named(name);
    let stem = Conv2d::new(8, 3).strides(2).use_bias(false).named("stem").call(&input);
    let stem = Activation::Relu.call(norm("stem_bn").call(stem));
    let depthwise = DepthwiseConv2d::new(3).padding(Padding::Same).use_bias(false).named("block.depthwise").call(&stem);
    let block = Activation::Relu6.call(norm("block.bn").call(depthwise));
    let block = Dropout::new(0.3).call(Conv2d::new(8, 1).named("block.conv").call(block));
    let sum = Add::new().named("sum").call([&stem, &block]);
    let average = Dropout::new(0.2).call(GlobalAveragePooling2d::new().call(MaxPooling2d::new(2).call(sum)));
    let output = Dense::new(10).activation(Activation::Softmax).named("classifier").call(average);
    let mut model = Model::new(&input, &output).unwrap();
    // Statistics that are not those of the beginning.
    model.compile(Sgd::new(), Loss::categorical_cross_entropy(), ()).unwrap();
    model.fit(&images(), FitOptions::new().batch_size(16)).unwrap();
    model
}

fn train(model: &mut Model, cache: bool) -> Vec<f64> {
    let (images, test) = (images(), data::builtin(Split::Test).unwrap().take(32));
    model.compile(Adam::new().learning_rate(0.01), Loss::categorical_cross_entropy(), [Accuracy::new()]).unwrap();
    let options = FitOptions::new().epochs(3).batch_size(16).validation_data(&test).cache_features(cache).threads(2);
    let history = model.fit(&images, options).unwrap();
    [history.get("loss").unwrap(), history.get("val_loss").unwrap()].concat()
}

/// The parameters that differ, by layer.
fn changed(model: &Model, before: &Snapshot) -> Vec<String> {
    let mut other = net();
    other.restore(before);
    let mut layers: Vec<String> = model
        .weights()
        .zip(other.weights())
        .filter(|((_, _, now), (_, _, then))| now != then)
        .map(|((name, ..), _)| name.split('/').next().unwrap().to_owned())
        .collect();
    layers.dedup();
    layers
}

#[test]
fn what_is_frozen_stays_and_kept_features_change_nothing() {
    for (patterns, learning) in [
        (&["backbone"][..], &["classifier"][..]),
        (&["..stem_bn"], &["block.depthwise", "block.bn", "block.conv", "classifier"]),
        // Two values of what is frozen are read: nothing is kept.
        (&["stem", "stem_bn", "block.depthwise", "block.bn"], &["block.conv", "classifier"]),
        (&["stem", "block"], &["stem_bn", "classifier"]),
    ] {
        let mut results = BTreeMap::new();
        for cache in [false, true] {
            let mut model = net();
            patterns.iter().for_each(|pattern| assert!(model.freeze(pattern).unwrap() > 0));
            let before = model.snapshot();
            let losses = train(&mut model, cache);
            assert!(losses[2] < losses[0], "{patterns:?}: {losses:?}");
            assert_eq!(changed(&model, &before), learning, "{patterns:?}");
            results.insert(cache, losses);
        }
        for (plain, kept) in results[&false].iter().zip(&results[&true]) {
            assert!((plain - kept).abs() < 1e-4, "{patterns:?}: {results:?}");
        }
    }
}

#[test]
fn fixed_statistics_stay() {
    let mut model = net();
    model.fix_statistics("*").unwrap();
    let before: Vec<(String, Vec<f32>)> =
        model.weights().map(|(name, _, values)| (name.into(), values.to_vec())).collect();
    train(&mut model, true);
    for ((name, _, now), (_, then)) in model.weights().zip(&before) {
        assert_eq!(now == then, name.contains("moving"), "{name}");
    }
}

#[test]
fn a_factor_scales_the_learning_rate() {
    let step = |factor: f32| {
        let mut model = net();
        model.set_learning_rate_factor("classifier", factor).unwrap();
        let before = model.snapshot();
        model.compile(Sgd::new().learning_rate(0.1), Loss::categorical_cross_entropy(), ()).unwrap();
        model.fit(&images().take(16), FitOptions::new().batch_size(16)).unwrap();
        let mut other = net();
        other.restore(&before);
        let moved: Vec<Vec<f32>> = model
            .weights()
            .zip(other.weights())
            .map(|((_, _, a), (_, _, b))| a.iter().zip(b).map(|(a, b)| a - b).collect())
            .collect();
        moved
    };
    let (whole, half) = (step(1.0), step(0.5));
    let last = whole.len() - 2;
    assert_eq!(whole[..last], half[..last], "the other layers move as before");
    for (whole, half) in whole[last].iter().zip(&half[last]) {
        assert!((whole - 2.0 * half).abs() < 1e-6 && (*whole != 0.0 || *half == 0.0), "{whole} {half}");
    }
    assert!(step(0.0)[last].iter().all(|moved| *moved == 0.0));
}

#[test]
fn all_frozen_is_no_training() {
    let mut model = net();
    model.freeze("*").unwrap();
    assert_eq!(model.trainable_count(), 0);
    let before = model.snapshot();
    train(&mut model, true);
    assert!(changed(&model, &before).is_empty());
}
