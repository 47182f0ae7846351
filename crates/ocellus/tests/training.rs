//! Training through the public interface: the same bits for the same seed, what the numbers mean, and what goes wrong.

use ocellus::data::{self, Dataset, Split};
use ocellus::layers::*;
use ocellus::losses::Loss;
use ocellus::metrics::{Accuracy, TopK};
use ocellus::model::{FitOptions, Input, Model, ModelError, Precision, Sequential};
use ocellus::optimizers::{Adam, Optimizer, Sgd};
use ocellus::regularizers::Regularizer;
use ocellus::schedules::Schedule;

fn clothes(count: usize) -> Dataset {
    data::builtin(Split::Train).unwrap().take(count)
}

/// Convolutions with batch normalisation and dropout, so that everything random and every kind of sum takes part.
fn small_net() -> Model {
    let input = Input::new([28, 28, 1]);
    let x = Conv2d::new(8, 3).strides(2).activation(Activation::Relu).call(&input);
    let y = BatchNormalization::new().call(Conv2d::new(8, 3).padding(Padding::Same).use_bias(false).call(&x));
    let x = MaxPooling2d::new(2).call(Activation::Relu.call(Add::new().call([&x, &y])));
    let x = Dropout::new(0.3).call(Flatten::new().call(&x));
    Model::new(&input, &Dense::new(10).activation(Activation::Softmax).call(&x)).unwrap()
}

fn compiled(mut model: Model, optimizer: impl Into<Optimizer>) -> Model {
    model.compile(optimizer, Loss::categorical_cross_entropy(), [Accuracy::new()]).unwrap();
    model
}

fn weights(model: &Model) -> Vec<u32> {
    model.weights().flat_map(|(_, _, values)| values.iter().map(|value| value.to_bits())).collect()
}

#[test]
fn the_same_seed_gives_the_same_bits_with_any_number_of_threads() {
    let train = clothes(150);
    let run = |threads: usize, seed: u64| {
        let mut model = compiled(small_net(), Adam::new().global_clipnorm(1.0));
        let options = FitOptions::new().epochs(2).seed(seed).threads(threads).validation_data(&train);
        let history = model.fit(&train, options).unwrap();
        let values = ["loss", "accuracy", "val_loss"].map(|name| history.get(name).unwrap().to_vec());
        (weights(&model), values, model.predict(&train).unwrap())
    };
    let first = run(1, 7);
    for threads in [2, 3, 4] {
        assert!(run(threads, 7) == first, "{threads} threads");
    }
    assert!(run(2, 8).0 != first.0, "another seed");
}

#[test]
fn bf16_trains_alike_and_to_the_same_bits_with_any_number_of_threads() {
    let train = clothes(300);
    let run = |precision: Precision, threads: usize| {
        let mut model = compiled(small_net(), Adam::new());
        model.set_precision(precision).unwrap();
        let history = model.fit(&train, FitOptions::new().epochs(3).seed(7).threads(threads)).unwrap();
        assert_eq!(model.training_record().precision, precision.name());
        (weights(&model), history.get("loss").unwrap().to_vec(), model.predict(&train).unwrap())
    };
    let single = run(Precision::F32, 1);
    let pairs = run(Precision::Bf16, 1);
    assert!(run(Precision::Bf16, 3) == pairs, "3 threads");
    assert!(pairs.0 != single.0, "factors are rounded");
    for (epoch, (bf16, f32)) in pairs.1.iter().zip(&single.1).enumerate() {
        // Products are off by at most 2^-7 of themselves, and their errors have both signs.
        assert!((bf16 - f32).abs() < f32 / 128.0, "epoch {epoch}: loss {bf16} instead of {f32}");
    }
}

#[test]
fn a_file_of_a_model_trained_in_bf16_gives_single_precision_unless_asked() {
    let train = clothes(100);
    let mut model = compiled(small_net(), Adam::new());
    model.set_precision(Precision::Bf16).unwrap();
    model.fit(&train, FitOptions::new()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model.save(&path).unwrap();
    let rounded = model.predict(&train).unwrap();
    let mut loaded = Model::load(&path).unwrap();
    assert_eq!(loaded.training_record().precision, "bf16");
    let exact = loaded.predict(&train).unwrap();
    assert!(exact != rounded, "saving leaves the model's precision as it was");
    for (exact, rounded) in exact.values().iter().zip(rounded.values()) {
        assert!((exact - rounded).abs() < 1.0 / 64.0, "{rounded} instead of {exact}");
    }
    loaded.set_precision(Precision::Bf16).unwrap();
    assert!(loaded.predict(&train).unwrap() == rounded);
    model.set_precision(Precision::F32).unwrap();
    assert!(model.predict(&train).unwrap() == exact);
}

#[test]
fn a_profile_times_every_operation_and_changes_nothing() {
    let train = clothes(40);
    let run = |profile: bool| {
        let mut model = compiled(small_net(), Adam::new());
        let mut options = FitOptions::new().seed(1);
        options.profile = profile;
        model.fit(&train, options).unwrap();
        model
    };
    let (plain, profiled) = (run(false), run(true));
    assert!(weights(&plain) == weights(&profiled));
    assert!(plain.step_times().is_empty());
    let times = profiled.step_times();
    for op in ["Conv2d", "Dropout", "Conv2d+Moments", "ConvBackwardWeights", "Update"] {
        assert!(times.iter().any(|step| step.op == op && !step.time.is_zero()), "{op}: {times:?}");
    }
    let convolution = times.iter().find(|step| step.place == "conv2d" && step.op == "Conv2d").unwrap();
    // 13x13 outputs of 8 filters over 3x3x1 values, a multiplication and an addition each.
    assert_eq!(convolution.flops, 13 * 13 * 8 * 9 * 2);
}

#[test]
fn data_sets_and_arrays_train_alike() {
    let train = clothes(50);
    let mut pixels = vec![0u8; 50 * 784];
    for (index, pixels) in pixels.chunks_exact_mut(784).enumerate() {
        train.copy_image(index, pixels).unwrap();
    }
    let numbers: Vec<f32> = pixels.iter().map(|&pixel| f32::from(pixel) * (1.0 / 255.0)).collect();
    let one_hot: Vec<f32> = train
        .labels()
        .iter()
        .flat_map(|&label| (0..10).map(move |class| f32::from(u8::from(class == label))))
        .collect();
    let options = || FitOptions::new().seed(3).epochs(2).threads(2);
    let fresh = || compiled(small_net(), Adam::new());
    let mut model = fresh();
    model.fit(&train, options()).unwrap();
    let expected = weights(&model);
    let mut model = fresh();
    model.fit((&pixels, train.labels()), options()).unwrap();
    assert!(weights(&model) == expected, "bytes");
    let mut model = fresh();
    model.fit((&numbers, train.labels()), options()).unwrap();
    assert!(weights(&model) == expected, "numbers");
    let mut model = fresh();
    model.fit((&numbers, &one_hot), options()).unwrap();
    assert!(weights(&model) == expected, "targets that are numbers");
}

#[test]
fn predictions_do_not_depend_on_what_is_predicted_beside_them() {
    let images = clothes(150);
    let mut model = small_net();
    let together = model.predict(&images).unwrap();
    for index in [0, 5, 127, 128, 149] {
        let alone = model.predict(&images.subset([index])).unwrap();
        assert_eq!(alone.row(0), together.row(index), "image {index}");
    }
    assert_eq!(together.top(0, 3).len(), 3);
    assert_eq!(Some(together.top(0, 1)[0].0), together.classes()[0]);
    assert!(model.predict(&Vec::<u8>::new()).unwrap().is_empty());
}

#[test]
fn a_residual_net_learns() {
    let train = clothes(256);
    let mut model =
        compiled(ocellus::models::find("residual_cnn").unwrap().build([28, 28, 1], 10).unwrap(), Adam::new());
    let history = model.fit(&train, FitOptions::new().epochs(6)).unwrap();
    let losses = history.get("loss").unwrap();
    assert!(losses[5] < losses[0] / 2.0, "{losses:?}");
    assert!(history.last("accuracy").unwrap() > 0.7, "{:?}", history.get("accuracy"));
}

#[test]
fn evaluation_and_validation_agree() {
    let (train, test) = (clothes(70), data::builtin(Split::Test).unwrap().take(45));
    let mut model = small_net();
    model.compile(Adam::new(), Loss::categorical_cross_entropy(), (Accuracy::new(), TopK::new(5))).unwrap();
    let history = model.fit(&train, FitOptions::new().validation_data(&test)).unwrap();
    let evaluation = model.evaluate(&test).unwrap();
    assert_eq!(evaluation.samples, 45);
    assert!((evaluation.loss - history.last("val_loss").unwrap()).abs() < 1e-6);
    assert_eq!(evaluation.accuracy, history.last("val_accuracy").unwrap());
    assert_eq!(evaluation.top_k.unwrap().accuracy, history.last("val_top_5_accuracy").unwrap());
    assert_eq!(evaluation.classes[9].name, "Ankle boot");
    assert_eq!(
        history.names(),
        [
            "accuracy",
            "loss",
            "top_5_accuracy",
            "val_accuracy",
            "val_loss",
            "val_top_5_accuracy",
            "learning_rate",
            "seconds"
        ]
    );
    assert_eq!(model.training_record().samples, 70);
    assert_eq!(model.training_record().data_fingerprint, train.fingerprint().ok());
}

/// Four numbers for each sample, of three classes.
fn flowers() -> (Vec<f32>, Vec<u32>) {
    let features = (0..10u32).flat_map(|n| (0..4).map(move |k| ((n * 7 + k * 3) % 11) as f32 / 11.0)).collect();
    (features, (0..10).map(|n| n % 3).collect())
}

fn classifier(regularizer: Regularizer) -> Sequential {
    Sequential::new([4]).add(Dense::new(3).activation(Activation::Softmax).kernel_regularizer(regularizer))
}

/// The loss of the first step, with all samples in it.
fn first_loss(regularizer: Regularizer, loss: Loss, options: FitOptions<'_>) -> f64 {
    let (features, labels) = flowers();
    let mut model = classifier(regularizer).build().unwrap();
    model.compile(Sgd::new(), loss, ()).unwrap();
    model.fit((&features, &labels), options).unwrap().last("loss").unwrap()
}

#[test]
fn penalties_and_class_weights_are_part_of_the_loss() {
    let plain = first_loss(Regularizer::NONE, Loss::categorical_cross_entropy(), FitOptions::new());
    let regularizer = Regularizer::l1_l2(0.01, 0.1);
    let model = classifier(regularizer).build().unwrap();
    let penalty = regularizer.penalty(model.weights().next().unwrap().2);
    let penalised = first_loss(regularizer, Loss::categorical_cross_entropy(), FitOptions::new());
    assert!((penalised - plain - penalty).abs() < 1e-6, "{penalised} - {plain}, not {penalty}");
    let weights = FitOptions::new().class_weight([2.0, 2.0, 2.0]);
    let doubled = first_loss(Regularizer::NONE, Loss::categorical_cross_entropy(), weights);
    assert!((doubled - 2.0 * plain).abs() < 1e-6, "{doubled}, not twice {plain}");
    let sparse = first_loss(Regularizer::NONE, Loss::sparse_categorical_cross_entropy(), FitOptions::new());
    assert_eq!(sparse, plain);
}

#[test]
fn a_penalty_shrinks_weights() {
    let (features, labels) = flowers();
    let norm = |regularizer| {
        let mut model = compiled(classifier(regularizer).build().unwrap(), Sgd::new().learning_rate(0.1));
        model.fit((&features, &labels), FitOptions::new().epochs(50)).unwrap();
        model.weights().next().unwrap().2.iter().map(|w| w * w).sum::<f32>()
    };
    assert!(norm(Regularizer::l2(0.1)) < 0.5 * norm(Regularizer::NONE));
}

#[test]
fn two_classes_by_one_output() {
    let (features, _) = flowers();
    let labels: Vec<u32> = features.chunks(4).map(|f| u32::from(f[0] > 0.5)).collect();
    let mut model = Sequential::new([4]).add(Dense::new(1).activation(Activation::Sigmoid)).build().unwrap();
    model.compile(Adam::new().learning_rate(0.1), Loss::binary_cross_entropy(), [Accuracy::new()]).unwrap();
    let history = model.fit((&features, &labels), FitOptions::new().epochs(400)).unwrap();
    assert_eq!(history.last("accuracy"), Some(1.0));
    let evaluation = model.evaluate((&features, &labels)).unwrap();
    assert_eq!((evaluation.accuracy, evaluation.classes.len()), (1.0, 2));
    let (predictions, label) = (model.predict(&features).unwrap(), labels[3] as usize);
    assert_eq!((predictions.row(3).len(), predictions.top(3, 2)[0].0), (1, label));
}

#[test]
fn the_last_samples_are_validated_on_and_the_last_batch_may_be_small() {
    let (features, labels) = flowers();
    let mut model = compiled(classifier(Regularizer::NONE).build().unwrap(), Sgd::new());
    let mut steps = Vec::new();
    let count = ocellus::callbacks::Closure::on_batch_end(|batch, _| steps.push((batch.step, batch.samples)));
    let options = FitOptions::new().batch_size(3).validation_split(0.2).callback(count);
    let history = model.fit((&features, &labels), options).unwrap();
    assert_eq!(steps, [(1, 3), (2, 6), (3, 8)]);
    let held_back = model.evaluate((&features[32..], &labels[8..])).unwrap();
    assert!((held_back.loss - history.last("val_loss").unwrap()).abs() < 1e-6);
}

#[test]
fn schedules_count_steps_over_all_trainings() {
    let (features, labels) = flowers();
    let schedule = Schedule::piecewise_constant([5, 11], [0.3, 0.2, 0.1]);
    let mut model = compiled(classifier(Regularizer::NONE).build().unwrap(), Sgd::new().learning_rate(schedule));
    let mut rates = Vec::new();
    for _ in 0..3 {
        let options = FitOptions::new().batch_size(3);
        let history = model.fit((&features, &labels), options).unwrap();
        rates.push(history.last("learning_rate").unwrap() as f32);
    }
    assert_eq!(rates, [0.3, 0.2, 0.2]);
}

/// Trains for five epochs at a rate that is good in the first two and then ruinous.
fn spoiled_in_the_third_epoch(model: &mut Model, train: &Dataset, validation: Option<&Dataset>) -> (ModelError, Model) {
    let steps = train.len().div_ceil(32) as u64;
    let schedule = Schedule::piecewise_constant([2 * steps - 1], [0.01, 1e30]);
    let compile = |model: &mut Model, rate: Schedule| {
        model.compile(Sgd::new().learning_rate(rate), Loss::categorical_cross_entropy(), [Accuracy::new()]).unwrap();
    };
    let options =
        |epochs| FitOptions { validation_data: validation.map(Into::into), ..FitOptions::new().epochs(epochs) };
    let mut good = small_net();
    compile(&mut good, 0.01.into());
    good.fit(train, options(2)).unwrap();
    compile(model, schedule);
    (model.fit(train, options(5)).unwrap_err(), good)
}

#[test]
fn what_is_not_finite_ends_the_training_with_the_weights_of_the_last_good_epoch() {
    let images = clothes(96);
    let (one_step, three_steps) = (images.take(32), images.clone());
    // The rate ruins the weights in the third epoch's first step, and the next thing computed with them shows it.
    for (train, validation, what, at_step) in [
        (&three_steps, None, "loss", 2),
        (&three_steps, Some(&images), "loss", 2),
        (&one_step, None, "outputs", 1),
        (&one_step, Some(&images), "validation loss", 1),
    ] {
        let mut model = small_net();
        let (error, good) = spoiled_in_the_third_epoch(&mut model, train, validation);
        let ModelError::NotFinite { what: found, epoch, step, loss, learning_rate } = error else { panic!("{error}") };
        assert_eq!((found, epoch, step, learning_rate), (what, 3, at_step, 1e30), "{error}");
        assert!(!loss.is_finite());
        assert!(error.to_string().contains(&format!("the {what} became {loss} in epoch 3, step {at_step}")), "{error}");
        assert_eq!(weights(&model), weights(&good), "{what}");
        assert_eq!(model.history().get("loss"), good.history().get("loss"), "the epochs before are not lost");
        assert_eq!(model.history().epochs(), [0, 1]);
        assert_eq!(model.training_record().epochs, 2);
        // The optimizer has nothing left of what it did to the weights.
        model.fit(train, FitOptions::new()).unwrap();
    }
}

#[test]
fn weights_that_are_not_finite_are_not_kept() {
    // The first step's loss is finite, and its gradient times the learning rate is not.
    let (features, _) = flowers();
    let mut model = Sequential::new([4]).add(Dense::new(1)).build().unwrap();
    model.compile(Sgd::new().learning_rate(1e35).momentum(0.9), Loss::mean_squared_error(), ()).unwrap();
    let before = model.snapshot();
    let error = model.fit((&features, &[1e10; 10]), FitOptions::new().epochs(3)).unwrap_err();
    assert!(matches!(error, ModelError::NotFinite { what: "weights", epoch: 1, step: 1, .. }), "{error}");
    assert_eq!(model.snapshot(), before);
    assert!(model.history().is_empty());
}

#[test]
fn the_history_outlives_an_error_of_a_callback() {
    let train = clothes(32);
    let mut model = compiled(small_net(), Sgd::new());
    let full = ocellus::callbacks::Closure::on_epoch_end(|_, control| control.stop());
    model.fit(&train, FitOptions::new().epochs(3).callback(full)).unwrap();
    assert_eq!(model.history().len(), 1);
    struct Fails;
    impl ocellus::callbacks::Callback for Fails {
        fn on_epoch_end(
            &mut self,
            epoch: &ocellus::callbacks::EpochEnd<'_>,
            _: &mut ocellus::callbacks::Control<'_>,
        ) -> ocellus::callbacks::CallbackResult {
            if epoch.epoch == 1 { Err("the disk is full".into()) } else { Ok(()) }
        }
    }
    let error = model.fit(&train, FitOptions::new().epochs(3).callback(Fails)).unwrap_err();
    assert_eq!(error.to_string(), "the disk is full");
    assert_eq!(model.history().epochs(), [0, 1]);
}

#[test]
fn learning_rates_are_told_in_their_own_digits() {
    let train = clothes(32);
    let mut model = compiled(small_net(), Adam::new());
    model.fit(&train, FitOptions::new()).unwrap();
    assert_eq!(model.history().get("learning_rate"), Some(&[0.001][..]));
    assert_eq!(model.training_record().metrics["learning_rate"], Some(0.001));
}

#[test]
fn what_does_not_fit_is_said() {
    let (features, labels) = flowers();
    let check = |problem: &str, run: &dyn Fn(&mut Model) -> Result<(), ModelError>| {
        let mut model = compiled(classifier(Regularizer::NONE).build().unwrap(), Sgd::new());
        let error = run(&mut model).expect_err(problem).to_string();
        assert!(error.contains(problem), "{error:?} instead of {problem:?}");
    };
    let fit = |model: &mut Model, options| model.fit((&features, &labels), options).map(|_| ());
    check("no whole number of images of 4", &|m| m.predict(&features[1..]).map(|_| ()));
    check("10 images, but 9 labels", &|m| m.fit((&features, &labels[1..]), FitOptions::new()).map(|_| ()));
    check("sample 2 has label 3, but the model knows classes 0 to 2", &|m| {
        m.evaluate((&features, &[0, 0, 3, 0, 0, 0, 0, 0, 0, 0])).map(|_| ())
    });
    check("need 30 target values, received 4", &|m| m.evaluate((&features, &features[..4])).map(|_| ()));
    check("there are no samples", &|m| m.evaluate((&features[..0], &labels[..0])).map(|_| ()));
    check("batch_size must be at least 1", &|m| fit(m, FitOptions::new().batch_size(0)));
    check("validation_split must be between 0 and 1, received 1", &|m| fit(m, FitOptions::new().validation_split(1.0)));
    check("class_weight must be 3 finite numbers", &|m| fit(m, FitOptions::new().class_weight([1.0, 2.0])));
    check("the model takes images of 4, the data set has 28x28x1", &|m| m.evaluate(&clothes(3)).map(|_| ()));
    check("the model has no parameter \"dense/gamma\"", &|m| m.set_weight("dense/gamma", &[]));
    check("dense/bias: expected 3 values, received 1", &|m| m.set_weight("dense/bias", &[0.0]));

    let mut model = classifier(Regularizer::NONE).build().unwrap();
    assert!(matches!(fit(&mut model, FitOptions::new()), Err(ModelError::NotCompiled)));
    let mut model = Sequential::new([28, 28, 1]).add(Flatten::new()).add(Dense::new(3)).build().unwrap();
    model.compile(Sgd::new(), Loss::categorical_cross_entropy(), ()).unwrap();
    let error = model.fit(&clothes(10), FitOptions::new()).unwrap_err().to_string();
    assert!(error.contains("the data has 10 classes, but the model gives 3 output(s)"), "{error}");

    let others =
        Dataset::from_pixels(vec![0; 2 * 784], [28, 28, 1], vec![0, 1], ('a'..='j').map(String::from).collect());
    let mut model = compiled(small_net(), Sgd::new());
    let error = model.fit(&clothes(10), FitOptions::new().validation_data(&others.unwrap())).unwrap_err().to_string();
    assert!(error.contains("the data has a class \"a\" that the model does not know; it knows T-shirt/top"), "{error}");

    let mut model = compiled(small_net(), Sgd::new());
    model.set_class_names(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]).unwrap();
    let error = model.evaluate(&clothes(10)).unwrap_err().to_string();
    assert!(error.contains("the data has a class \"T-shirt/top\" that the model does not know"), "{error}");
}

#[test]
fn models_that_compute_nothing_give_what_went_in() {
    let numbers = [0.5, -1.0, 2.0, 0.0, 1.0, 3.0];
    for layer in [
        AnyLayer::from(Dropout::new(0.5)),
        Activation::Linear.into(),
        Flatten::new().into(),
        Rescaling::new(1.0).into(),
    ] {
        let mut model = Sequential::new([3]).add(layer.clone()).build().unwrap();
        assert_eq!(model.predict(&numbers).unwrap().values(), numbers, "{layer:?}");
        let mut model = Sequential::new([3]).add(layer.clone()).add(Flatten::new()).build().unwrap();
        assert_eq!(model.predict(&numbers).unwrap().values(), numbers, "{layer:?}");
        model.compile(Sgd::new(), Loss::mean_squared_error(), ()).unwrap();
        let history = model.fit((&numbers, &[0.0f32; 6]), FitOptions::new()).unwrap();
        assert!(history.last("loss").unwrap() > 0.0, "{layer:?}");
    }
    let bytes = [0u8, 255, 0];
    let mut model = Sequential::new([3]).add(Dropout::new(0.5)).build().unwrap();
    assert_eq!(model.predict(&bytes).unwrap().values(), [0.0, 1.0, 0.0]);
    let input = Input::new([3]);
    let mut model = Model::new(&input, &Add::new().call([&input, &input])).unwrap();
    assert_eq!(model.predict(&bytes).unwrap().values(), [0.0, 2.0, 0.0]);
}
