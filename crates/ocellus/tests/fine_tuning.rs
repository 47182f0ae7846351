//! Training in part: what is frozen stays, what learns does so as if the rest were constants, kept features change nothing.

use ocellus::data::augment::{Mixing, Translate};
use ocellus::data::{self, Augment, Dataset, Sampler, Split};
use ocellus::layers::*;
use ocellus::losses::Loss;
use ocellus::metrics::Accuracy;
use ocellus::model::{Averaging, FitOptions, Input, Model, ParameterGroup, Samples, Snapshot, Views};
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

fn frozen(pattern: &str) -> ParameterGroup {
    ParameterGroup::new(pattern).frozen()
}

fn train(model: &mut Model, patterns: &[&str], cache: bool) -> Vec<f64> {
    let options = FitOptions::new().cache_features(cache);
    train_with(model, patterns.iter().fold(options, |options, pattern| options.group(frozen(pattern))))
}

fn train_with(model: &mut Model, options: FitOptions<'_>) -> Vec<f64> {
    let (images, test) = (images(), data::builtin(Split::Test).unwrap().take(32));
    model.compile(Adam::new().learning_rate(0.01), Loss::categorical_cross_entropy(), [Accuracy::new()]).unwrap();
    let history = model.fit(&images, options.epochs(3).batch_size(20).validation_data(&test).threads(2)).unwrap();
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
            let before = model.snapshot();
            let losses = train(&mut model, patterns, cache);
            assert!(losses[2] < losses[0], "{patterns:?}: {losses:?}");
            assert_eq!(changed(&model, &before), learning, "{patterns:?}");
            results.insert(cache, losses);
        }
        for (plain, kept) in results[&false].iter().zip(&results[&true]) {
            assert!((plain - kept).abs() < 1e-4, "{patterns:?}: {results:?}");
        }
    }
}

/// Whatever else a training is told, features that are kept give what computing them in each epoch gives.
#[test]
fn kept_features_are_batched_as_images_are() {
    type Told = fn(FitOptions<'static>) -> FitOptions<'static>;
    let told: [(&str, Told); 11] = [
        ("nothing", |options| options),
        ("balanced", |options| options.sampler(Sampler::Balanced)),
        ("weighted", |options| {
            options.sampler(Sampler::Weighted((0..96u8).map(|index| f32::from(index % 3)).collect()))
        }),
        ("class_weight", |options| options.class_weight((0..10u8).map(f32::from).collect::<Vec<f32>>())),
        ("accumulate", |options| options.accumulate(3)),
        ("drop_last", |options| options.drop_last(true)),
        ("steps", |options| options.steps(7)),
        ("average", |options| options.averaging(Averaging::Exponential { decay: 0.9 })),
        ("mean of epochs", |options| options.averaging(Averaging::Stochastic { from: 0.0 })),
        ("augment", |options| options.augment(Augment::new().then(Translate::new(2)))),
        ("mixing", |options| options.mixing(Mixing { mixup: 0.4, ..Mixing::default() })),
    ];
    let mut plain = None;
    for (name, told) in told {
        let [computed, kept] = [false, true].map(|cache| {
            let mut model = net();
            let options = FitOptions::new().group(frozen("backbone")).cache_features(cache);
            let losses = train_with(&mut model, told(options));
            model.set_views(Views::Mirror);
            [losses, vec![model.evaluate(&images()).unwrap().loss]].concat()
        });
        assert!(computed.iter().zip(&kept).all(|(a, b)| (a - b).abs() < 1e-4), "{name}: {computed:?} {kept:?}");
        let differs = |plain: &Vec<f64>| plain.iter().zip(&kept).any(|(a, b)| (a - b).abs() > 1e-3);
        assert!(plain.as_ref().is_none_or(differs), "{name} does nothing");
        plain.get_or_insert(kept);
    }
}

/// Arrays are sampled as data sets are, whether their targets are classes or numbers.
#[test]
fn arrays_are_sampled_as_data_sets_are() {
    let data = images();
    let mut pixels = vec![0; 96 * 784];
    pixels.chunks_mut(784).enumerate().for_each(|(n, image)| data.copy_image(n, image).unwrap());
    let mut targets = vec![0.0f32; 960];
    data.labels().iter().enumerate().for_each(|(n, &label)| targets[10 * n + label as usize] = 1.0);
    for sampler in [Sampler::Balanced, Sampler::Weighted((0..96u8).map(f32::from).collect())] {
        let fit = |samples: Samples<'_>| {
            let mut model = net();
            model.compile(Sgd::new(), Loss::categorical_cross_entropy(), ()).unwrap();
            model.fit(samples, FitOptions::new().sampler(sampler.clone())).unwrap();
            model.snapshot()
        };
        let expected = fit((&data).into());
        assert!(fit((&pixels, data.labels()).into()) == expected);
        assert!(fit((&pixels, &targets).into()) == expected);
    }
    let too_few = FitOptions::new().sampler(Sampler::Weighted(vec![1.0; 3].into()));
    let error = net().fit((&pixels, data.labels()), too_few).unwrap_err().to_string();
    assert!(error.contains("3 weights for 96 samples"), "{error}");
}

#[test]
fn fixed_statistics_stay() {
    let mut model = net();
    let before: Vec<(String, Vec<f32>)> =
        model.weights().map(|(name, _, values)| (name.into(), values.to_vec())).collect();
    train(&mut model, &["*/moving_*"], true);
    for ((name, _, now), (_, then)) in model.weights().zip(&before) {
        assert_eq!(now == then, name.contains("moving"), "{name}");
    }
}

#[test]
fn a_factor_scales_the_learning_rate() {
    let step = |factor: f32| {
        let mut model = net();
        let before = model.snapshot();
        model.compile(Sgd::new().learning_rate(0.1), Loss::categorical_cross_entropy(), ()).unwrap();
        let group = ParameterGroup::new("classifier").learning_rate(factor);
        model.fit(&images().take(16), FitOptions::new().batch_size(16).group(group)).unwrap();
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
    let before = model.snapshot();
    train(&mut model, &["*"], true);
    assert!(changed(&model, &before).is_empty());
}

/// What a recipe's groups say and what is frozen beside them hold together, whichever comes first.
#[test]
fn what_any_group_freezes_is_frozen() {
    let fast = || ParameterGroup::new("*/bias").learning_rate(64.0);
    let run = |groups: [ParameterGroup; 2]| {
        let mut model = net();
        let before = model.snapshot();
        train_with(&mut model, groups.into_iter().fold(FitOptions::new(), FitOptions::group));
        assert_eq!(changed(&model, &before), ["classifier"]);
        model.snapshot()
    };
    assert!(run([fast(), frozen("backbone")]) == run([frozen("backbone"), fast()]));
}

/// Frozen after an epoch, a layer's statistics stay, too.
#[test]
fn a_layer_can_learn_for_a_while() {
    let statistics = |epochs: u64| {
        let mut model = net();
        model.compile(Sgd::new(), Loss::categorical_cross_entropy(), ()).unwrap();
        let group = ParameterGroup::new("*_bn").epochs(1);
        model.fit(&images(), FitOptions::new().epochs(epochs).group(group)).unwrap();
        model.weights().filter(|(name, ..)| name.starts_with("stem_bn")).map(|w| w.2.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(statistics(1), statistics(3));
}
