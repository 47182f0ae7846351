//! Trainings that were ended and go on: as if nothing had been.

use ocellus::callbacks::{
    Callback, CallbackResult, Control, CsvLogger, EarlyStopping, EpochEnd, LearningRateScheduler, Mode,
    ModelCheckpoint, ReduceLrOnPlateau, Training,
};
use ocellus::data::augment::{Augment, Mixing, RandomFlip, Translate};
use ocellus::data::{self, Dataset, Sampler, Split};
use ocellus::history::History;
use ocellus::layers::*;
use ocellus::losses::Loss;
use ocellus::metrics::Accuracy;
use ocellus::model::{
    Averaging, Backup, Distillation, FitOptions, Input, Model, ModelError, ParameterGroup, Precision,
};
use ocellus::optimizers::{Adam, Nadam, Optimizer, Sgd};
use ocellus::schedules::Schedule;
use std::path::Path;

const EPOCHS: u64 = 4;

fn clothes(count: usize) -> Dataset {
    data::builtin(Split::Train).unwrap().take(count)
}

/// Batch normalisation and dropout, so that statistics and chance take part.
fn net(units: usize, optimizer: impl Into<Optimizer>) -> Model {
    let input = Input::new([28, 28, 1]);
    let x = Conv2d::new(4, 3).strides(2).use_bias(false).call(&input);
    let x = MaxPooling2d::new(2).call(Activation::Relu.call(BatchNormalization::new().call(&x)));
    let x = Dense::new(units).activation(Activation::Relu).call(Dropout::new(0.3).call(Flatten::new().call(&x)));
    let mut model = Model::new(&input, &Dense::new(10).activation(Activation::Softmax).call(&x)).unwrap();
    model.compile(optimizer, Loss::categorical_cross_entropy(), [Accuracy::new()]).unwrap();
    model
}

/// Ends a training before an epoch, or before its end.
struct KilledBefore(u64);

impl Callback for KilledBefore {
    fn on_epoch_begin(&mut self, epoch: u64, _: &mut Control<'_>) -> CallbackResult {
        if epoch == self.0 { Err("killed".into()) } else { Ok(()) }
    }

    fn on_train_end(&mut self, _: &History, _: &mut Control<'_>) -> CallbackResult {
        Err("killed".into())
    }
}

fn options<'a>() -> FitOptions<'a> {
    FitOptions { record_samples: true, ..FitOptions::new().epochs(EPOCHS).batch_size(16).seed(3) }
}

fn sgd() -> Sgd {
    Sgd::new().momentum(0.9).learning_rate(0.02)
}

/// What comes of a training.
#[derive(PartialEq)]
struct Outcome {
    /// The model's file.
    file: Vec<u8>,
    /// What was measured in each epoch, but the time.
    measured: Vec<(String, Vec<f64>)>,
    /// How each sample was seen: bits of losses and margins.
    seen: Vec<[u32; 2]>,
}

fn outcome(model: &mut Model, history: &History, file: &Path) -> Outcome {
    model.save(file).unwrap();
    let names = history.names().into_iter().filter(|name| *name != "seconds");
    let measured = names.map(|name| (name.to_owned(), history.get(name).unwrap().to_vec())).collect();
    let seen = model.trajectories().unwrap();
    assert_eq!(seen.epochs().len() as u64, EPOCHS);
    let of_sample = |sample| seen.losses(sample).zip(seen.margins(sample));
    let seen = (0..seen.len()).flat_map(of_sample).map(|(loss, margin)| [loss.to_bits(), margin.to_bits()]).collect();
    Outcome { file: std::fs::read(file).unwrap(), measured, seen }
}

#[test]
fn a_training_goes_on_as_if_it_had_never_been_ended() {
    type Case = (&'static str, fn() -> Model, fn() -> FitOptions<'static>);
    let cases: [Case; 10] = [
        ("adam", || net(8, Adam::new().global_clipnorm(1.0)), options),
        ("nadam in batches that move the weights together", || net(8, Nadam::new()), || options().accumulate(3)),
        (
            "a schedule",
            || net(8, Sgd::new().learning_rate(Schedule::piecewise_constant([7, 15], [0.1, 0.05, 0.01]))),
            options,
        ),
        (
            "rates from a callback",
            || net(8, sgd()),
            || options().callback(LearningRateScheduler::new(|_, rate| rate / 2.0)),
        ),
        (
            "rates from a plateau",
            || net(8, sgd()),
            || options().callback(ReduceLrOnPlateau::new("loss").mode(Mode::Max).patience(2).cooldown(1)),
        ),
        (
            "lookahead for some steps",
            || net(8, sgd()),
            || options().steps(17).averaging(Averaging::Lookahead { every: 3, decay: 0.8, power: 2.0 }),
        ),
        ("a moving average", || net(8, sgd()), || options().averaging(Averaging::Exponential { decay: 0.9 })),
        ("the mean of weights", || net(8, sgd()), || options().averaging(Averaging::Stochastic { from: 0.25 })),
        (
            "groups that stop, other images",
            || net(8, sgd()),
            || {
                let augment = Augment::new().then(RandomFlip::new()).then(Translate::new(2));
                let group = ParameterGroup::new("conv2d").epochs(2);
                let mixing = Mixing { mixup: 0.2, ..Mixing::default() };
                options().group(group).augment(augment).mixing(mixing).sampler(Sampler::Balanced)
            },
        ),
        (
            "bf16",
            || {
                let mut model = net(8, sgd());
                model.set_precision(Precision::Bf16).unwrap();
                model
            },
            options,
        ),
    ];
    let (train, folder) = (clothes(88), tempfile::tempdir().unwrap());
    let (backup, file) = (folder.path().join("backup.safetensors"), folder.path().join("model.safetensors"));
    for (case, model, options) in cases {
        let mut whole = model();
        let history = whole.fit(&train, options().validation_split(0.1)).unwrap();
        let expected = outcome(&mut whole, &history, &file);
        for before in 1..=EPOCHS {
            let what = format!("{case}, killed before epoch {before}");
            let killed = options().validation_split(0.1).backup(&backup).callback(KilledBefore(before));
            let error = model().fit(&train, killed).unwrap_err();
            assert!(matches!(error, ModelError::Callback(_)), "{what}: {error}");
            let reached = Backup::read(&backup).unwrap().expect("a backup");
            assert_eq!(reached.next_epoch(), before, "{what}");
            let mut model = model();
            let history = model.fit(&train, options().validation_split(0.1).resume(reached)).unwrap();
            let outcome = outcome(&mut model, &history, &file);
            assert_eq!(outcome.measured, expected.measured, "{what}");
            assert!(outcome == expected, "{what}");
        }
    }
}

#[test]
fn a_training_that_stopped_stays_stopped() {
    struct Stop;
    impl Callback for Stop {
        fn on_epoch_end(&mut self, _: &EpochEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
            control.stop();
            Ok(())
        }
    }
    let (train, folder) = (clothes(32), tempfile::tempdir().unwrap());
    let path = folder.path().join("backup.safetensors");
    assert!(Backup::read(&path).unwrap().is_none());
    let mut model = net(8, Adam::new());
    assert_eq!(model.fit(&train, options().backup(&path).callback(Stop)).unwrap().len(), 1);
    let mut again = net(8, Adam::new());
    assert_eq!(again.fit(&train, options().resume(Backup::read(&path).unwrap())).unwrap().len(), 1);
    assert_eq!(again.snapshot(), model.snapshot());
}

#[test]
fn another_training_does_not_go_on() {
    let (train, folder) = (clothes(32), tempfile::tempdir().unwrap());
    let path = folder.path().join("backup.safetensors");
    let killed = options().backup(&path).callback(KilledBefore(1));
    net(8, Adam::new()).fit(&train, killed).unwrap_err();
    let resume = || options().resume(Backup::read(&path).unwrap());
    fn refuses(mut model: Model, train: &Dataset, options: FitOptions<'_>, part: &str) {
        let error = model.fit(train, options).unwrap_err().to_string();
        assert!(error.contains("backup.safetensors: is of another training: ") && error.contains(part), "{error}");
    }
    refuses(net(8, Adam::new()), &train, resume().seed(4), "another `seed`: 3 in the backup, 4 now");
    refuses(net(8, Adam::new()), &train, resume().batch_size(8), "another `batch_size`");
    refuses(net(8, Adam::new()), &train, resume().epochs(5), "another `epochs`");
    refuses(net(9, Adam::new()), &train, resume(), "another `layers`. Ask");
    refuses(net(8, Nadam::new()), &train, resume(), "another `optimizer`");
    refuses(net(8, Adam::new()), &clothes(33), resume(), "another `samples`");
    let others = data::builtin(Split::Test).unwrap().take(32);
    refuses(net(8, Adam::new()), &others, resume(), "other training images or labels");
}

#[test]
fn damaged_backups_are_refused() {
    let (train, folder) = (clothes(32), tempfile::tempdir().unwrap());
    let path = folder.path().join("backup.safetensors");
    let mut model = net(8, Adam::new());
    model.fit(&train, options().backup(&path)).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let refuses = |bytes: &[u8], part: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = Backup::read(&path).unwrap_err().to_string();
        assert!(error.contains("backup.safetensors: ") && error.contains(part), "{error}");
    };
    for length in (0..bytes.len()).step_by(bytes.len() / 97) {
        refuses(&bytes[..length], "not a backup of a training, or a damaged one");
    }
    let changed = |from: &str, to: &str| {
        let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).expect("it in the file");
        let mut bytes = bytes.clone();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    refuses(&changed("format_version\\\":1", "format_version\\\":9"), "install a newer ocellus");
    refuses(&changed("next_epoch", "next_epock"), "the description of the training is damaged");
    refuses(&changed("ocellus_backup", "ocellus_bakcup"), "no backup");
    model.save(&path).unwrap();
    refuses(&std::fs::read(&path).unwrap(), "no backup");
    assert!(Backup::read(folder.path()).unwrap_err().to_string().contains("the backup cannot be read"));
    // An epoch that the training does not have.
    std::fs::write(&path, changed("next_epoch\\\":4", "next_epoch\\\":7")).unwrap();
    let error = model.fit(&train, options().resume(Backup::read(&path).unwrap())).unwrap_err().to_string();
    assert!(error.contains("its next epoch is 7, of 4"), "{error}");
    // The first epoch comes next: nothing was written after it.
    std::fs::write(&path, changed("next_epoch\\\":4", "next_epoch\\\":0")).unwrap();
    let error = model.fit(&train, options().resume(Backup::read(&path).unwrap())).unwrap_err().to_string();
    assert!(error.contains("its next epoch is 0, of 4"), "{error}");
    // Numbers that are none.
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let kernel = data + header["conv2d/kernel"]["data_offsets"][0].as_u64().unwrap() as usize;
    let mut infinite = bytes.clone();
    infinite[kernel..kernel + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, infinite).unwrap();
    let before = model.snapshot();
    let refused = model.fit(&train, options().resume(Backup::read(&path).unwrap())).unwrap_err().to_string();
    assert!(refused.contains("expected numbers, found NaN or infinity"), "{refused}");
    // A tensor that is missing.
    std::fs::write(&path, changed("dense/bias/optimizer/1", "dense/bias/optimizer/7")).unwrap();
    let error = model.fit(&train, options().resume(Backup::read(&path).unwrap())).unwrap_err().to_string();
    assert!(error.contains("\"dense/bias/optimizer/1\": expected it, but it is missing"), "{error}");
    // Whatever was wrong, nothing of the model was changed.
    assert_eq!(model.snapshot(), before);
}

#[test]
fn another_teacher_does_not_go_on() {
    let (train, folder) = (clothes(32), tempfile::tempdir().unwrap());
    let path = folder.path().join("backup.safetensors");
    let (teacher, mut other) = (net(8, sgd()), net(8, sgd()));
    other.fit(&train, options().epochs(1)).unwrap();
    let taught = |teacher| options().distillation(Distillation::new(teacher));
    net(4, sgd()).fit(&train, taught(&teacher).backup(&path).callback(KilledBefore(1))).unwrap_err();
    let resume = |options: FitOptions<'_>| {
        net(4, sgd()).fit(&train, options.resume(Backup::read(&path).unwrap())).map(|history| history.len())
    };
    let error = resume(taught(&other)).unwrap_err().to_string();
    assert!(error.contains("another `distillation`"), "{error}");
    assert_eq!(resume(taught(&teacher)).unwrap() as u64, EPOCHS);
}

#[test]
fn callbacks_know_the_epochs_before() {
    /// The best epoch's number, when the training ends.
    struct Stopped<'a>(EarlyStopping, &'a mut Option<u64>);
    impl Callback for Stopped<'_> {
        fn on_train_begin(&mut self, training: &Training, control: &mut Control<'_>) -> CallbackResult {
            self.0.on_train_begin(training, control)
        }
        fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
            self.0.on_epoch_end(epoch, control)
        }
        fn on_train_end(&mut self, _: &History, _: &mut Control<'_>) -> CallbackResult {
            *self.1 = self.0.stopped_epoch();
            Ok(())
        }
    }
    let (train, folder) = (clothes(48), tempfile::tempdir().unwrap());
    let file = |name: &str| folder.path().join(name);
    let backup = file("backup.safetensors");
    // Later epochs' losses are lower, so that the first one's is the greatest.
    let fit = |name: &str, options: FitOptions<'_>, stopped: &mut Option<u64>| {
        let best = file(&format!("{name}-{{epoch}}.safetensors")).to_str().unwrap().to_owned();
        let best = ModelCheckpoint::new(best).monitor("loss").mode(Mode::Max).save_best_only(true);
        let patience = EarlyStopping::new("loss").mode(Mode::Max).patience(3);
        let options = options.callback(CsvLogger::new(file(&format!("{name}.csv")))).callback(best);
        net(8, sgd()).fit(&train, options.callback(Stopped(patience, stopped)))
    };
    let (mut whole, mut killed, mut went_on) = (None, None, None);
    fit("whole", options(), &mut whole).unwrap();
    fit("parts", options().backup(&backup).callback(KilledBefore(2)), &mut killed).unwrap_err();
    fit("parts", options().resume(Backup::read(&backup).unwrap()), &mut went_on).unwrap();
    assert_eq!((whole, killed, went_on), (Some(3), None, Some(3)));
    let lines = |name: &str| {
        let csv = std::fs::read_to_string(file(name)).unwrap();
        csv.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(lines("parts.csv").len() as u64, 1 + EPOCHS);
    assert_eq!(lines("parts.csv"), lines("whole.csv"));
    for epoch in 1..=EPOCHS {
        let saved = ["whole", "parts"].map(|name| file(&format!("{name}-{epoch}.safetensors")).is_file());
        assert_eq!(saved, [epoch == 1; 2], "epoch {epoch}");
    }
}
