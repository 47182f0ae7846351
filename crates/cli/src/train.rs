//! `ocellus train`: data, model, training, the test, and what is kept of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use ocellus::callbacks::{Callback, CallbackResult, Control, EpochEnd};
use ocellus::data::{CacheOptions, Dataset, OpenOptions, Sampler, Split, Splits, splits_of};
use ocellus::durable::{check_writable, create_folder, write_atomically};
use ocellus::history::History;
use ocellus::losses::Loss;
use ocellus::metrics::{Accuracy, Evaluation};
use ocellus::model::{FitOptions, Model, ModelError, Precision};
use ocellus::report;
use serde::Serialize;

use crate::arguments::Train;
use crate::loading::Fold;
use crate::models;
use crate::output::{lossy, note, print, print_json, quoted, shape, thousands};
use crate::progress::{Progress, Reading, seconds};
use crate::results::{results, tell_about};
use crate::settings::{Resolved, Settings, Validation};

/// The share of the training images that is kept apart for the test, where there are no test images.
pub(crate) const TEST_FRACTION: f64 = 0.2;

pub(crate) fn run(arguments: Train) -> Result<()> {
    let began = Instant::now();
    let file = arguments.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let settings = arguments.settings.over(file).resolve();
    let config = settings.to_toml()?;
    let plan = models::Plan::find(&settings.model)?;
    let folder = run_folder(&settings, plan.name());
    check_writable(&folder)?;

    let data = open(&settings, arguments.loading.cache())?;
    let mut model = plan.build(data.train.image_shape(), data.train.class_count(), settings.seed)?;
    model.compile(
        settings.optimizer.optimizer(Some(settings.learning_rate)),
        Loss::for_outputs(model.output_shape().iter().product()),
        [Accuracy::new()],
    )?;
    introduce(&settings, &data, plan.name(), &model);

    let files = Files::new(folder);
    let history = fit(&mut model, &data, &settings, &files, &config)?;

    // As the file is used, unless told otherwise.
    model.set_precision(Precision::F32)?;
    let evaluation = model.evaluate(&data.test)?;
    model.set_evaluation(evaluation.clone());
    model.save(&files.model)?;
    history.write_csv(&files.history)?;
    write_atomically(&files.learning_curves, report::learning_curves_svg(&history))?;
    write_atomically(&files.confusion_matrix, report::confusion_matrix_svg(&evaluation.confusion_matrix))?;

    let outcome = Outcome {
        run: &files.folder,
        data: &settings.data,
        model: &files.model,
        parameters: model.parameter_count(),
        seconds: began.elapsed().as_secs_f64(),
        epochs: history.len(),
        history: history.names().into_iter().map(|name| (name, numbers(&history, name))).collect(),
        test: &evaluation,
        example: example_image(&data.test, &files)?,
    };
    if arguments.json {
        return print_json(&outcome);
    }
    // Where both go to a terminal, the results stand apart from the progress.
    note("");
    print(outcome.text())
}

/// The images of a training.
struct Data {
    train: Dataset,
    /// Where validation images are kept apart from the training images: both together, and the share kept apart.
    undivided: Option<(Dataset, f64)>,
    test: Dataset,
    validation: Dataset,
    /// Where test and validation images come from, in words.
    test_origin: String,
    validation_origin: String,
}

fn open(settings: &Resolved, cache: Option<CacheOptions>) -> Result<Data> {
    let options = OpenOptions { strict: settings.strict, cache, ..OpenOptions::default() };
    let reading = Reading::stderr();
    let progress = |done, all| reading.update(done, all);
    let mut splits = Splits::open(&settings.data, &options, &progress)?;
    let mut test_origin = "the data's".to_owned();
    if splits.test.is_none() && splits.validation.is_some() {
        // Validation decides nothing here, so these images measure as honestly as a part of the training images would.
        test_origin = "the validation images, which decide nothing".to_owned();
        splits.test = splits.validation.clone();
    } else if splits.test.is_none() {
        test_origin = format!("{:.0}% of the training images of each class, kept apart", TEST_FRACTION * 100.0);
    }
    let Splits { train, validation, test } = splits.hold_back_test(TEST_FRACTION, settings.seed)?;
    let test = test.context("the data has no test images")?;
    let mut undivided = None;
    let (train, validation, validation_origin) = if let Some(Fold { number, of }) = settings.fold {
        let (rest, validation) = train.fold(number - 1, of, settings.seed)?;
        (rest, validation, format!("part {number} of {of} of the training images, kept apart"))
    } else {
        match (&settings.validation, validation) {
            (Some(Validation::Fraction(fraction)), _) => {
                let (rest, validation) = train.split_stratified(*fraction, settings.seed)?;
                undivided = Some((train, *fraction));
                (rest, validation, "of the training images, kept apart".to_owned())
            }
            (Some(Validation::Data(path)), _) => {
                let present = splits_of(path)?;
                let wanted = [Split::Validation, Split::Test, Split::Train];
                let split = wanted.into_iter().find(|split| present.contains(split)).unwrap_or(Split::Train);
                let alike = OpenOptions {
                    split,
                    classes: Some(train.class_names().to_vec()),
                    preprocessing: Some(train.preprocessing().clone()),
                    ..options
                };
                let validation = Dataset::open_with(path, &alike, &progress)?;
                (train, validation, format!("{split} images of {}", path.display()))
            }
            (None, Some(validation)) => (train, validation, "the data's".to_owned()),
            (None, None) => (train, test.clone(), "the test images, only watched: they decide nothing".to_owned()),
        }
    };
    drop(reading);
    tell_about(&[&train, &validation, &test]);
    if [&train, &validation, &test].iter().any(|dataset| dataset.is_empty()) {
        bail!(
            "{}: too few images to keep some apart for validation and test; each class needs two or more",
            settings.data.display()
        );
    }
    Ok(Data { train, undivided, test, validation, test_origin, validation_origin })
}

fn introduce(settings: &Resolved, data: &Data, model_name: &str, model: &Model) {
    note(format_args!(
        "{}: {} training images of {}, {} classes",
        settings.data.display(),
        thousands(data.train.len() as u64),
        shape(&data.train.image_shape()),
        data.train.class_count()
    ));
    note(format_args!("  test: {} images ({})", thousands(data.test.len() as u64), data.test_origin));
    let count = thousands(data.validation.len() as u64);
    note(format_args!("  validation: {count} images ({})", data.validation_origin));
    note(format_args!(
        "{model_name}: {} parameters, {} at {:?}, batch size {}, seed {}",
        thousands(model.parameter_count() as u64),
        serde_json::to_string(&settings.optimizer).unwrap_or_default().trim_matches('"'),
        settings.learning_rate,
        settings.batch_size,
        settings.seed
    ));
}

/// Trains; what was reached is kept after each epoch, so that a run that is ended loses one epoch at most.
fn fit(model: &mut Model, data: &Data, settings: &Resolved, files: &Files, config: &str) -> Result<History> {
    model.set_precision(settings.precision.precision())?;
    let mut progress = Progress::stderr();
    let mut keeper = Keeper { files, config, history: History::new(), kept: None };
    let options = FitOptions::new()
        .batch_size(settings.batch_size)
        .epochs(settings.epochs)
        .seed(settings.seed)
        .sampler(if settings.balanced { Sampler::Balanced } else { Sampler::Uniform })
        .callback(&mut progress)
        .callback(&mut keeper);
    let options = match settings.threads {
        Some(threads) => options.threads(threads),
        None => options,
    };
    // Left to `fit`, which divides alike, so that the model file tells how: `evaluate` finds the test images by it.
    let fitted = match &data.undivided {
        Some((images, share)) => model.fit(images, options.validation_split(*share)),
        None => model.fit(&data.train, options.validation_data(&data.validation)),
    };
    progress.clear();
    fitted.map_err(|error| match (error, keeper.kept) {
        (error @ (ModelError::NotFinite { .. } | ModelError::Callback(_)), Some(epoch)) => {
            anyhow!("{error}. The model after epoch {} is kept in {}", epoch + 1, files.model.display())
        }
        (error @ ModelError::NotFinite { .. }, None) => anyhow!("{error}. No epoch was finished: no model is kept"),
        (error, _) => error.into(),
    })
}

/// Keeps what each epoch reached. Before the first one is done it leaves the folder as it is: an earlier run's files are
/// replaced together or not at all.
struct Keeper<'a> {
    files: &'a Files,
    config: &'a str,
    history: History,
    /// The epoch after which the model was last saved.
    kept: Option<u64>,
}

impl Callback for Keeper<'_> {
    fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        if self.history.is_empty() {
            create_folder(&self.files.folder)?;
            write_atomically(&self.files.config, self.config)?;
        }
        self.history.push(epoch.epoch, epoch.values.iter().map(|(name, value)| (name.as_str(), *value)));
        self.history.write_csv(&self.files.history)?;
        control.model_mut().save(&self.files.model)?;
        self.kept = Some(epoch.epoch);
        Ok(())
    }
}

/// Where a run's results are kept.
struct Files {
    folder: PathBuf,
    config: PathBuf,
    model: PathBuf,
    history: PathBuf,
    learning_curves: PathBuf,
    confusion_matrix: PathBuf,
    example: PathBuf,
}

impl Files {
    fn new(folder: PathBuf) -> Self {
        Self {
            config: folder.join("config.toml"),
            model: folder.join("model.safetensors"),
            history: folder.join("history.csv"),
            learning_curves: folder.join("learning_curves.svg"),
            confusion_matrix: folder.join("confusion_matrix.svg"),
            example: folder.join("example.png"),
            folder,
        }
    }
}

/// The folder that was asked for, or the first of its kind that does not exist.
fn run_folder(settings: &Resolved, model: &str) -> PathBuf {
    if let Some(folder) = &settings.output {
        if folder.join("model.safetensors").exists() {
            note(format_args!("note: {} holds an earlier run, which this one replaces", folder.display()));
        }
        return folder.clone();
    }
    let data = settings.data.file_name().map_or_else(|| "data".into(), |name| name.to_string_lossy().into_owned());
    let name = format!("{data}-{model}");
    let free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    let numbered = (2u64..).map(|number| Path::new("runs").join(format!("{name}-{number}")));
    let mut candidates = std::iter::once(Path::new("runs").join(&name)).chain(numbered);
    candidates.find(free).unwrap_or_else(|| Path::new("runs").join(name))
}

/// What a training came to.
#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(serialize_with = "lossy")]
    run: &'a Path,
    #[serde(serialize_with = "lossy")]
    data: &'a Path,
    #[serde(serialize_with = "lossy")]
    model: &'a Path,
    parameters: usize,
    seconds: f64,
    epochs: usize,
    history: std::collections::BTreeMap<&'a str, Vec<Option<f64>>>,
    test: &'a Evaluation,
    /// An image to try the model on.
    #[serde(skip)]
    example: PathBuf,
}

impl Outcome<'_> {
    fn text(&self) -> String {
        let model = quoted(self.model);
        format!(
            "{}\nTrained in {}. In {}: config.toml, history.csv, model.safetensors, confusion_matrix.svg, \
             learning_curves.svg\n\nNext:\n  ocellus evaluate {model} {}\n  ocellus predict {model} {}\n",
            results("Test accuracy", self.test),
            seconds(self.seconds),
            self.run.display(),
            quoted(self.data),
            quoted(&self.example),
        )
    }
}

/// The file of a test image; written to the run's folder where the data has no files of images.
fn example_image(test: &Dataset, files: &Files) -> Result<PathBuf> {
    let name = PathBuf::from(test.name_of(0));
    if name.is_file() {
        return Ok(name);
    }
    let mut pixels = vec![0; test.image_len()];
    test.copy_image(0, &mut pixels)?;
    match report::image_png(&pixels, test.image_shape()) {
        Some(png) => {
            write_atomically(&files.example, png)?;
            Ok(files.example.clone())
        }
        None => Ok("IMAGE".into()),
    }
}

/// A metric's values for JSON, which knows no NaN.
fn numbers(history: &History, name: &str) -> Vec<Option<f64>> {
    history.get(name).unwrap_or_default().iter().map(|value| value.is_finite().then_some(*value)).collect()
}
