//! Callbacks in real trainings.

use ocellus::callbacks::*;
use ocellus::history::History;
use ocellus::layers::{Activation, Dense};
use ocellus::losses::Loss;
use ocellus::metrics::Accuracy;
use ocellus::model::{FitOptions, Model, ModelError, Sequential};
use ocellus::optimizers::Sgd;

/// Trains on a few numbers, validating on others whose labels are wrong, so that the validation loss rises.
fn fit<'a>(learning_rate: f32, options: FitOptions<'a>) -> (Model, Result<History, ModelError>) {
    let mut model = Sequential::new([2]).add(Dense::new(2).activation(Activation::Softmax)).build().unwrap();
    let optimizer = Sgd::new().learning_rate(learning_rate);
    model.compile(optimizer, Loss::categorical_cross_entropy(), [Accuracy::new()]).unwrap();
    let features = [1.0, 0.0, 0.0, 1.0, 0.9, 0.1, 0.2, 0.8];
    let result = model.fit((&features, &[0, 1, 0, 1]), FitOptions { batch_size: 2, ..options });
    (model, result)
}

const WRONG: ([f32; 4], [u32; 2]) = ([1.0, 0.0, 0.0, 1.0], [1, 0]);

fn wrong() -> FitOptions<'static> {
    FitOptions::new().validation_data((&WRONG.0, &WRONG.1))
}

#[test]
fn early_stopping_waits_and_restores_the_best_weights() {
    let mut stopping = EarlyStopping::new("val_loss").patience(2).restore_best_weights(true);
    let (model, history) = fit(0.5, wrong().epochs(20).callback(&mut stopping));
    assert_eq!(history.unwrap().len(), 3);
    assert_eq!((stopping.stopped_epoch(), stopping.best_epoch()), (Some(2), 0));
    let (after_one, _) = fit(0.5, FitOptions::new().epochs(1));
    assert_eq!(model.snapshot(), after_one.snapshot());

    let (_, history) = fit(0.5, FitOptions::new().epochs(5).callback(EarlyStopping::new("loss")));
    assert_eq!(history.unwrap().len(), 5, "a loss that falls does not stop");
}

#[test]
fn the_learning_rate_is_reduced_on_a_plateau() {
    let reduce = ReduceLrOnPlateau::new("val_loss").factor(0.5).patience(1).min_lr(0.1);
    let (_, history) = fit(0.5, wrong().epochs(6).callback(reduce));
    let rates: Vec<f32> = history.unwrap().get("learning_rate").unwrap().iter().map(|&rate| rate as f32).collect();
    assert_eq!(rates, [0.5, 0.5, 0.25, 0.125, 0.1, 0.1]);
}

#[test]
fn the_learning_rate_is_scheduled() {
    let halve = LearningRateScheduler::new(|epoch, rate| if epoch == 0 { rate } else { rate / 2.0 });
    let (_, history) = fit(0.4, FitOptions::new().epochs(3).callback(halve));
    let rates: Vec<f32> = history.unwrap().get("learning_rate").unwrap().iter().map(|&rate| rate as f32).collect();
    assert_eq!(rates, [0.4, 0.2, 0.1]);
}

#[test]
fn a_closure_stops_within_an_epoch() {
    let mut epochs = 0;
    let options = FitOptions::new()
        .epochs(9)
        .callback(Closure::on_batch_end(|batch, control| {
            if batch.epoch == 1 && batch.step == 1 {
                control.stop();
            }
        }))
        .callback(Closure::on_epoch_end(|epoch, _| {
            assert!(epoch.get("loss").is_some() && epoch.get("val_loss").is_none());
            epochs += 1;
        }));
    let (_, history) = fit(0.1, options);
    assert_eq!(history.unwrap().len(), 2);
    assert_eq!(epochs, 2);
}

#[test]
fn a_csv_file_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.csv");
    let (_, history) = fit(0.1, wrong().epochs(2).callback(CsvLogger::new(&path)));
    assert_eq!(History::read_csv(&path).unwrap().to_csv(), history.unwrap().to_csv());
}

#[test]
fn checkpoints_keep_the_best_or_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let best = ModelCheckpoint::new(path("best.safetensors")).save_best_only(true);
    let all = ModelCheckpoint::new(path("{epoch}.safetensors"));
    let (model, history) = fit(0.5, wrong().epochs(3).callback(best).callback(all));
    history.unwrap();
    let mut best = Model::load(path("best.safetensors")).unwrap();
    let mut first = Model::load(path("1.safetensors")).unwrap();
    assert_eq!(best.predict(&WRONG.0).unwrap(), first.predict(&WRONG.0).unwrap());
    assert_eq!(best.training_record().epochs, 1);
    assert_eq!(Model::load(path("3.safetensors")).unwrap().snapshot(), model.snapshot());

    let nowhere = ModelCheckpoint::new(path("missing/model.safetensors"));
    let (_, result) = fit(0.5, FitOptions::new().callback(nowhere));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("missing"), "{error}");
}

#[test]
fn a_value_that_is_not_measured_cannot_be_monitored() {
    let (_, result) = fit(0.5, FitOptions::new().callback(EarlyStopping::new("val_loss")));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("nothing named \"val_loss\" is measured to monitor; give validation data"), "{error}");
}

#[test]
fn a_callback_may_evaluate_but_not_compile() {
    struct Meddler;
    impl Callback for Meddler {
        fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
            control.model_mut().evaluate((&WRONG.0, &WRONG.1))?;
            if epoch.epoch == 1 {
                control.model_mut().compile(Sgd::new(), Loss::mean_squared_error(), ())?;
            }
            Ok(())
        }
    }
    let (_, result) = fit(0.5, FitOptions::new().epochs(3).callback(Meddler));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("a callback compiled the model"), "{error}");
}

#[test]
fn progress_is_a_line_for_each_epoch_and_a_bar_where_wanted() {
    let shown = |bar: bool| {
        let mut text = Vec::new();
        fit(0.1, FitOptions::new().epochs(2).callback(Progress::new(&mut text, bar))).1.unwrap();
        String::from_utf8(text).unwrap()
    };
    let lines = shown(false);
    assert_eq!(lines.lines().count(), 2);
    assert!(lines.starts_with("Epoch 1/2 - loss: 0.") && lines.contains(" - accuracy: "), "{lines}");
    assert!(shown(true).starts_with("\r1/2 [==========..........] "), "{}", shown(true));
}
