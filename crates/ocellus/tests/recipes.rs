//! What recipes ask of a training: changed images, parameters that learn in their own way, averages, a number of steps.

use ocellus::data::augment::{AlternatingFlip, Mixing, RandomFlip, Translate};
use ocellus::data::{self, Augment, Dataset, Split};
use ocellus::layers::*;
use ocellus::losses::Loss;
use ocellus::metrics::Accuracy;
use ocellus::model::{Averaging, FitOptions, Model, ParameterGroup, ProgressiveResizing, Sequential, Views};
use ocellus::optimizers::{Optimizer, Sgd};
use ocellus::regularizers::Regularizer;

fn clothes(count: usize) -> Dataset {
    data::builtin(Split::Train).unwrap().take(count)
}

fn net() -> Model {
    let mut model = Sequential::new([28, 28, 1])
        .add(Conv2d::new(4, 3).strides(2).use_bias(false).named("conv"))
        .add(BatchNormalization::new().named("norm"))
        .add(Activation::Relu)
        .add(GlobalAveragePooling2d::new())
        .add(Dense::new(10).activation(Activation::Softmax).named("head"))
        .build()
        .unwrap();
    let optimizer = Sgd::new().learning_rate(0.1).momentum(0.9).nesterov(true).weight_decay(1e-3);
    model.compile(optimizer, Loss::categorical_cross_entropy().label_smoothing(0.1), [Accuracy::new()]).unwrap();
    model
}

fn values(model: &Model, name: &str) -> Vec<f32> {
    model.weights().find(|(known, ..)| *known == name).unwrap().2.to_vec()
}

/// Where nothing depends on the batch, parts of a batch have the same mean gradient as the whole, whatever bounds it.
#[test]
fn accumulated_batches_move_the_weights_as_one_large_batch_does() {
    let train = clothes(80);
    for optimizer in [
        Sgd::new().learning_rate(0.5).momentum(0.9).weight_decay(0.01),
        Sgd::new().learning_rate(0.5).global_clipnorm(0.1),
        Sgd::new().learning_rate(0.5).clipnorm(0.05),
        Sgd::new().learning_rate(0.5).clipvalue(0.002),
    ] {
        let run = |batch_size, accumulate| {
            let regularizer = Regularizer { l1: 1e-3, l2: 1e-2 };
            let mut model = Sequential::new([28, 28, 1])
                .add(Flatten::new())
                .add(Dense::new(10).kernel_regularizer(regularizer).activation(Activation::Softmax).named("head"))
                .build()
                .unwrap();
            model.compile(optimizer.clone(), Loss::categorical_cross_entropy(), ()).unwrap();
            let options = FitOptions::new().epochs(2).shuffle(false).batch_size(batch_size).accumulate(accumulate);
            model.fit(&train, options).unwrap();
            values(&model, "head/kernel")
        };
        let (whole, parts) = (run(40, 1), run(8, 5));
        let difference = whole.iter().zip(&parts).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-5, "{optimizer:?}: {difference}");
        assert_ne!(whole, run(8, 1));
        // The last step of an epoch has what remains: 10 batches are 3, 3, 3 and 1.
        assert_ne!(parts, run(8, 3));
    }
    assert!(net().fit(&train, FitOptions::new().accumulate(0)).is_err());
}

/// Everything at once, and so with any number of threads.
#[test]
fn the_same_seed_gives_the_same_bits_with_any_number_of_threads() {
    let train = clothes(100);
    let run = |threads| {
        let mut model = net();
        let augment = Augment::new()
            .then(AlternatingFlip {})
            .then(RandomFlip { vertical: true, ..RandomFlip::new() })
            .then(Translate::new(2));
        let options = FitOptions::new()
            .epochs(3)
            .batch_size(16)
            .steps(8)
            .drop_last(true)
            .augment(augment)
            .mixing(Mixing { mixup: 0.3, cutmix: 1.0, probability: Some(0.7) })
            .accumulate(2)
            .averaging(Averaging::Lookahead { every: 2, decay: 0.5, power: 1.0 })
            .group(ParameterGroup::new("*/beta").learning_rate(8.0).weight_decay(0.1))
            .group(ParameterGroup::new("conv/*").epochs(1))
            .threads(threads);
        let history = model.fit(&train, options).unwrap();
        assert_eq!(history.len(), 3);
        model.snapshot()
    };
    let one = run(1);
    assert!(run(2) == one && run(3) == one);
}

/// Every optimizer lowers the loss, and frozen parameters keep their values with each.
#[test]
fn all_optimizers_learn() {
    let train = clothes(128);
    for name in Optimizer::NAMES {
        let mut model = net();
        let rate = match name {
            "sgd" => 0.1,
            "adagrad" => 0.05,
            // All but the head is frozen, which moves at a share of the rate.
            "muon" => 0.5,
            _ => 0.01,
        };
        let optimizer = Optimizer::named(name).unwrap().with_learning_rate(rate);
        model.compile(optimizer, Loss::categorical_cross_entropy(), ()).unwrap();
        let before = values(&model, "conv/kernel");
        let group = ParameterGroup::new("conv/kernel").frozen();
        let history = model.fit(&train, FitOptions::new().epochs(12).group(group)).unwrap();
        let losses = history.get("loss").unwrap();
        assert!(losses[11] < losses[0], "{name}: {losses:?}");
        assert_eq!(values(&model, "conv/kernel"), before, "{name}");
    }
}

#[test]
fn arrays_are_changed_as_data_sets_are() {
    let train = clothes(60);
    let mut pixels = vec![0; 60 * 784];
    pixels.chunks_mut(784).enumerate().for_each(|(n, image)| train.copy_image(n, image).unwrap());
    let mixing = Mixing { mixup: 0.4, ..Mixing::default() };
    let augment = || Augment::new().then(Translate::new(3));
    let options = || FitOptions::new().batch_size(16).augment(augment()).mixing(mixing);
    let (mut a, mut b, mut plain) = (net(), net(), net());
    a.fit(&train, options()).unwrap();
    b.fit((&pixels, train.labels()), options()).unwrap();
    plain.fit(&train, FitOptions::new().batch_size(16)).unwrap();
    assert!(a.snapshot() == b.snapshot());
    assert!(a.snapshot() != plain.snapshot());
    let numbers = vec![0.5f32; 784];
    let error = a.fit((&numbers, &[1u32]), options()).unwrap_err().to_string();
    assert!(error.contains("expected images as bytes"), "{error}");
}

#[test]
fn groups_learn_in_their_own_way() {
    let train = clothes(64);
    let run = |group: Option<ParameterGroup>, epochs| {
        let mut model = net();
        let mut options = FitOptions::new().epochs(epochs).batch_size(64);
        options.groups.extend(group);
        model.fit(&train, options).unwrap();
        model
    };
    let (start, plain) = (net(), run(None, 1));
    let frozen = run(Some(ParameterGroup::new("conv/kernel").frozen()), 1);
    assert_eq!(values(&frozen, "conv/kernel"), values(&start, "conv/kernel"));
    assert_eq!(values(&frozen, "head/kernel"), values(&plain, "head/kernel"));
    // The first step is proportional to the rate; a bias begins at zero, so it does not decay.
    let fast = run(Some(ParameterGroup::new("*/bias").learning_rate(4.0)), 1);
    for (fast, plain) in values(&fast, "head/bias").iter().zip(values(&plain, "head/bias")) {
        assert!((fast - 4.0 * plain).abs() < 1e-6, "{fast} {plain}");
    }
    // A kernel's step has its decay: twice the learning rate with half the decay moves it otherwise than twice as far.
    let light = run(Some(ParameterGroup::new("head/kernel").weight_decay(0.0)), 1);
    let (start, decayed) = (values(&start, "head/kernel"), values(&plain, "head/kernel"));
    for ((light, plain), start) in values(&light, "head/kernel").iter().zip(decayed).zip(start) {
        // Nesterov's first step is 1.9 times the gradient.
        assert!((light - plain - 1.9 * 0.1 * 1e-3 * start).abs() < 1e-6);
    }
    let (once, twice) =
        (run(Some(ParameterGroup::new("conv/*").epochs(1)), 1), run(Some(ParameterGroup::new("conv/*").epochs(1)), 2));
    assert_eq!(values(&once, "conv/kernel"), values(&twice, "conv/kernel"));
    assert_ne!(values(&once, "head/kernel"), values(&twice, "head/kernel"));
    let error = net().fit(&train, FitOptions::new().group(ParameterGroup::new("convolution/*"))).unwrap_err();
    assert!(
        error.to_string().contains("no parameter is named \"convolution/*\"; the model has conv/kernel"),
        "{error}"
    );
}

#[test]
fn training_ends_with_the_average_that_was_validated() {
    let train = clothes(64);
    let run = |averaging: Option<Averaging>| {
        let mut model = net();
        let mut options = FitOptions::new().epochs(4).batch_size(16).validation_data(&train);
        options.averaging = averaging;
        let history = model.fit(&train, options).unwrap();
        let loss = *history.get("val_loss").unwrap().last().unwrap();
        let measured = model.evaluate(&train).unwrap().loss;
        (model, loss, measured)
    };
    let (plain, ..) = run(None);
    let (moving, validated, measured) = run(Some(Averaging::Exponential { decay: 0.9 }));
    assert!((validated - measured).abs() < 1e-5, "{validated} {measured}");
    assert_ne!(values(&moving, "head/kernel"), values(&plain, "head/kernel"));
    let (stochastic, ..) = run(Some(Averaging::Stochastic { from: 0.5 }));
    // The statistics are those of the averaged weights, not the average of the statistics.
    assert_ne!(values(&stochastic, "norm/moving_mean"), values(&plain, "norm/moving_mean"));
    let (none, ..) = run(Some(Averaging::Exponential { decay: 0.0 }));
    let pairs = values(&none, "head/kernel").into_iter().zip(values(&plain, "head/kernel"));
    assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn images_grow_over_the_epochs() {
    let train = clothes(64);
    let mut pixels = vec![0; 64 * 784];
    pixels.chunks_mut(784).enumerate().for_each(|(n, image)| train.copy_image(n, image).unwrap());
    let options = || FitOptions::new().epochs(3).batch_size(16).resizing(ProgressiveResizing::new(0.5));
    let run = |threads| {
        let mut model = net();
        model.fit(&train, options().threads(threads)).unwrap();
        model
    };
    let (mut one, mut plain, mut arrays) = (run(1), net(), net());
    plain.fit(&train, FitOptions::new().epochs(3).batch_size(16)).unwrap();
    arrays.fit((&pixels, train.labels()), options()).unwrap();
    assert!(run(2).snapshot() == one.snapshot() && arrays.snapshot() == one.snapshot());
    assert!(plain.snapshot() != one.snapshot());
    assert_eq!(one.predict(&train).unwrap().len(), 64);
    // The last epoch's images may be smaller than those that statistics are measured on in the end.
    let growing = ProgressiveResizing { until: 1.0, ..ProgressiveResizing::new(0.5) };
    let averaging = Averaging::Stochastic { from: 0.0 };
    net().fit(&train, FitOptions::new().epochs(2).resizing(growing).averaging(averaging)).unwrap();
    let mut flat = Sequential::new([28, 28, 1])
        .add(Flatten::new())
        .add(Dense::new(10).activation(Activation::Softmax))
        .build()
        .unwrap();
    flat.compile(Sgd::new(), Loss::categorical_cross_entropy(), ()).unwrap();
    let error = flat.fit(&train, options()).unwrap_err().to_string();
    assert!(error.contains("for images of 16x16, dense/kernel would have another shape"), "{error}");
}

#[test]
fn views_of_an_image_are_averaged() {
    let test = clothes(40);
    let mut model = net();
    model.fit(&test, FitOptions::new().epochs(3)).unwrap();
    let one = model.predict(&test).unwrap();
    let loss = model.evaluate(&test).unwrap().loss;
    model.set_views(Views::Mirror);
    let mirrored = model.predict(&test).unwrap();
    assert_ne!(one, mirrored);
    assert!(mirrored.rows().all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
    let of_views = model.evaluate(&test).unwrap().loss;
    assert!(of_views.is_finite() && (of_views / loss - 1.0).abs() < 0.2 && of_views != loss, "{of_views} {loss}");
}

/// As with the epochs of the last layer alone, before those of all layers.
#[test]
fn shares_of_the_epochs_count_without_those_before() {
    let train = clothes(40);
    let run = |change: &dyn Fn(FitOptions<'static>) -> FitOptions<'static>| {
        let mut model = net();
        model.fit(&train, change(FitOptions::new().initial_epoch(3).epochs(7))).unwrap();
        values(&model, "head/kernel")
    };
    let from = |from| Averaging::Stochastic { from };
    let averaged = run(&|options| options.epochs_before(3).averaging(from(0.5)));
    assert_eq!(averaged, run(&|options| options.averaging(from(5.0 / 7.0))));
    assert_ne!(averaged, run(&|options| options.averaging(from(0.5))));
    let grown = ProgressiveResizing { from: 0.5, until: 0.4, multiple: 4 };
    let whole = run(&|options| options);
    assert_eq!(whole, run(&|options| options.resizing(grown)));
    assert_ne!(whole, run(&|options| options.epochs_before(3).resizing(grown)));
}
