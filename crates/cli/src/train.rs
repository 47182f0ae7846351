//! `ocellus train`: data, model, training, the test, and what is kept of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use ocellus::callbacks::{Callback, CallbackResult, Control, EpochEnd};
use ocellus::check::glance;
use ocellus::data::{CacheOptions, Dataset, OpenOptions, Sampler, Split, Splits, splits_of};
use ocellus::durable::{WriteError, check_writable, create_folder, write_atomically};
use ocellus::history::History;
use ocellus::labels::{Corrected, Corrections, SampleRecord};
use ocellus::metrics::{Accuracy, Evaluation};
use ocellus::model::{Backup, FitOptions, Model, ModelError, ParameterGroup, Precision, Views};
use ocellus::optimizers::Optimizer;
use ocellus::recipe::{Length, Recipe};
use ocellus::report;
use ocellus::suggest::CurvePoint;
use serde::Serialize;

use crate::arguments::Train;
use crate::budget;
use crate::failure::usage;
use crate::fine_tuning::Pretrained;
use crate::labels;
use crate::loading::Fold;
use crate::models;
use crate::output::{lossy, note, print, print_json, quoted, shape, thousands};
use crate::progress::{Progress, Reading, seconds};
use crate::recipes;
use crate::results::{results, tell_about};
use crate::settings::{Epochs, Resolved, Settings, Validation};

/// The share of the training images that is kept apart for the test, where there are no test images.
pub(crate) const TEST_FRACTION: f64 = 0.2;

pub(crate) fn run(arguments: Train) -> Result<()> {
    let began = Instant::now();
    let (mut settings, backup) = match &arguments.resume {
        Some(folder) => resumed(folder, arguments.settings)?,
        None => {
            let file = arguments.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
            let recipe = arguments.recipe.as_deref().map(recipes::find).transpose()?;
            let typed = Settings { recipe: recipe.clone(), ..arguments.settings };
            (typed.over(file).over(recipe.map(Settings::of_recipe).unwrap_or_default()), None)
        }
    };
    let pretrained = Pretrained::open(&mut settings)?;
    let mut settings = settings.resolve();
    let recipe = settings.recipe.clone().unwrap_or_default();
    if arguments.time.is_some() && settings.fine_tuning.fine_tune {
        return Err(usage("--time: expected no --fine-tune beside it; set --epochs and --head-epochs"));
    }
    settings.distillation.check().map_err(usage)?;
    let teacher = settings.distillation.open(settings.precision)?;
    let plan = models::Plan::find(&settings.model)?;
    let folder = arguments.resume.unwrap_or_else(|| run_folder(&settings, plan.name()));
    check_writable(&folder)?;

    let data = open(&settings, arguments.loading.cache(), pretrained.as_ref())?;
    let mut model = plan.build(data.train.image_shape(), data.train.class_count(), settings.seed)?;
    if let Some(pretrained) = &pretrained {
        model = pretrained.load_into(model, &settings.fine_tuning)?;
    }
    model.set_threads(settings.threads);
    if let Some(time) = arguments.time {
        compile(&mut model, settings.highest_optimizer(), &recipe)?;
        model.set_precision(settings.precision.precision())?;
        let images = [&data.train, &data.validation, &data.test];
        let groups = settings.fine_tuning.groups(&model)?;
        let beside = (&recipe, groups, teacher.as_ref());
        settings.epochs = budget::epochs(&mut model, images, &settings, beside, time, began)?;
    }
    let config = settings.to_toml()?;
    introduce(&settings, &data, plan.name(), &model);
    if !arguments.no_check {
        glance_at(&data);
    }

    let files = Files::new(folder);
    if pretrained.is_none() {
        recipe.initialize(&mut model, &data.train)?;
    }
    let resumed_after = backup.as_ref().map(Backup::next_epoch);
    let history = fit(&mut model, &data, &settings, (&recipe, teacher.as_ref()), &files, &config, backup)?;

    // As the file is used, unless told otherwise.
    model.set_precision(Precision::F32)?;
    let over_views = (recipe.views != Views::One).then(|| -> Result<_> {
        model.set_views(recipe.views);
        let evaluation = model.evaluate(&data.test)?;
        model.set_views(Views::One);
        Ok(OverViews { views: recipe.views, accuracy: evaluation.accuracy, loss: evaluation.loss })
    });
    let over_views = over_views.transpose()?;
    let evaluation = model.evaluate(&data.test)?;
    model.set_evaluation(evaluation.clone());
    model.save(&files.model)?;
    history.write_csv(&files.history)?;
    keep_samples(&model, &data.train, &files.samples)?;
    write_atomically(&files.learning_curves, report::learning_curves_svg(&history))?;
    write_atomically(&files.confusion_matrix, report::confusion_matrix_svg(&evaluation.confusion_matrix))?;

    // All that it was for is kept now.
    remove_if_there(&files.backup)?;

    let outcome = Outcome {
        run: &files.folder,
        data: &settings.data,
        model: &files.model,
        parameters: model.parameter_count(),
        seconds: began.elapsed().as_secs_f64(),
        resumed_after,
        epochs: history.len(),
        history: history.names().into_iter().map(|name| (name, numbers(&history, name))).collect(),
        test: &evaluation,
        over_views,
        example: example_image(&data.test, &files)?,
        files: files.present(),
    };
    if arguments.json {
        return print_json(&outcome);
    }
    // Where both go to a terminal, the results stand apart from the progress.
    note("");
    print(outcome.text())
}

/// The settings of a run that was ended before it was done, and where it was.
fn resumed(folder: &Path, typed: Settings) -> Result<(Settings, Option<Backup>)> {
    let threads = typed.threads;
    if typed != (Settings { threads, ..Settings::default() }) {
        return Err(usage("--resume: expected no settings but --threads beside it: those of the run count"));
    }
    let files = Files::new(folder.to_owned());
    if !files.config.is_file() {
        let folder = folder.display();
        return Err(usage(format!("--resume {folder}: expected the folder of a run, but it holds no config.toml")));
    }
    let settings = Settings { threads, ..Settings::default() }.over(Settings::read(&files.config)?);
    let Some(backup) = Backup::read(&files.backup)? else {
        let (config, folder) = (files.config.display(), folder.display());
        match files.model.is_file() {
            true => bail!("{folder}: the run is done, its model is {}", files.model.display()),
            false => bail!("{folder}: no epoch of the run was done: `ocellus train --config {config}` begins anew"),
        }
    };
    note(format_args!("{}: going on after epoch {}", folder.display(), backup.next_epoch()));
    Ok((settings, Some(backup)))
}

/// The images of a training.
pub(crate) struct Data {
    pub(crate) train: Dataset,
    /// Where validation images are kept apart from the training images: both together, and the share kept apart.
    undivided: Option<(Dataset, f64)>,
    test: Dataset,
    validation: Dataset,
    /// Where test and validation images come from, in words.
    test_origin: String,
    validation_origin: String,
}

pub(crate) fn open(settings: &Resolved, cache: Option<CacheOptions>, pretrained: Option<&Pretrained>) -> Result<Data> {
    let preprocessing = pretrained.and_then(Pretrained::preprocessing);
    let options = OpenOptions { strict: settings.strict, cache, preprocessing, ..OpenOptions::default() };
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
    let splits = splits.hold_back_test(TEST_FRACTION, settings.seed)?;
    let Splits { train, validation, test } = correct(splits, settings)?;
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
            "{}: too few images to keep some apart for validation and test; each class needs two or more, \
             copies of an image counted once",
            settings.data.display()
        );
    }
    Ok(Data { train, undivided, test, validation, test_origin, validation_origin })
}

/// Leaves out and labels anew what the settings' files name.
fn correct(mut splits: Splits, settings: &Resolved) -> Result<Splits> {
    let drops = settings.drop_labels.as_deref().map(|path| (path, Corrections::read_drops(path)));
    let labels = settings.relabel.as_deref().map(|path| (path, Corrections::read_labels(path)));
    for (path, corrections) in [labels, drops].into_iter().flatten() {
        let corrections = corrections?;
        let mut all = Corrected::default();
        for part in [Some(&mut splits.train), splits.validation.as_mut(), splits.test.as_mut()].into_iter().flatten() {
            let (changed, corrected) = corrections.apply(part)?;
            *part = changed;
            all.dropped += corrected.dropped;
            all.relabelled += corrected.relabelled;
            all.named += corrected.named;
        }
        if all.named == 0 && !corrections.is_empty() {
            bail!("{}: names no image of {}; was it made for other data?", path.display(), settings.data.display());
        }
        note(format_args!(
            "{}: {} of the {} images that it names are here, {} left out, {} labelled anew",
            path.display(),
            thousands(all.named as u64),
            thousands(corrections.len() as u64),
            thousands(all.dropped as u64),
            thousands(all.relabelled as u64)
        ));
    }
    Ok(splits)
}

/// Tells what a short look at the data finds.
fn glance_at(data: &Data) {
    let parts = [(Split::Train, &data.train), (Split::Validation, &data.validation), (Split::Test, &data.test)];
    // Validation images may be the test images, or the other way round: then they are looked at once.
    let last = |part: &Dataset| part.len().checked_sub(1).map(|at| (at, part.name_of(0), part.name_of(at)));
    let same = |a: &Dataset, b: &Dataset| last(a) == last(b);
    let parts = if same(&data.validation, &data.test) { vec![parts[0], parts[2]] } else { parts.to_vec() };
    for finding in glance(&parts) {
        note(format_args!("warning: {}: {} (--no-check skips this)", finding.kind.title(), finding.message));
    }
}

/// Keeps how the training samples were seen, for `ocellus labels`.
fn keep_samples(model: &Model, train: &Dataset, path: &Path) -> Result<()> {
    let Some(trajectories) = model.trajectories().filter(|kept| kept.len() == train.len()) else { return Ok(()) };
    let record = SampleRecord {
        trajectories: trajectories.clone(),
        names: (0..train.len()).map(|index| train.name_of(index)).collect(),
        class_names: train.class_names().to_vec(),
    };
    Ok(record.save(path)?)
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

/// How well a class is recognised, by how many of its images were learnt from.
pub(crate) struct ClassCurve {
    pub(crate) class: String,
    pub(crate) points: Vec<CurvePoint>,
}

/// The shares of the training images that learning curves are made from, and the seeds of each.
const CURVE_PARTS: [usize; 4] = [8, 4, 2, 1];
const CURVE_SEEDS: u64 = 3;
/// Parts are gone through more often than all is, up to so many times, for the number of steps counts, too.
const CURVE_EPOCHS: u64 = 4;

/// The learning curve of each class: a run's training repeated on parts of its training images.
pub(crate) fn learning_curves(
    config: &Path,
    threads: Option<usize>,
    cache: Option<CacheOptions>,
) -> Result<Vec<ClassCurve>> {
    let mut settings = Settings { threads, ..Settings::default() }.over(Settings::read(config)?);
    let pretrained = Pretrained::open(&mut settings)?;
    let settings = settings.resolve();
    let recipe = settings.recipe.clone().unwrap_or_default();
    let teacher = settings.distillation.open(settings.precision)?;
    let plan = models::Plan::find(&settings.model)?;
    let data = open(&settings, cache, pretrained.as_ref())?;
    let names = data.train.class_names().iter();
    let mut curves: Vec<_> = names.map(|class| ClassCurve { class: class.clone(), points: Vec::new() }).collect();
    for part in CURVE_PARTS {
        for seed in 0..CURVE_SEEDS {
            let some = match part {
                1 => data.train.clone(),
                _ => data.train.split_stratified(1.0 / part as f64, seed)?.1,
            };
            note(format_args!("training on {} images, seed {seed}", thousands(some.len() as u64)));
            let mut model = plan.build(some.image_shape(), some.class_count(), seed)?;
            if let Some(pretrained) = &pretrained {
                (model, _) = pretrained.loaded(model, settings.fine_tuning.partial_weights)?;
            } else {
                recipe.initialize(&mut model, &some)?;
            }
            model.set_threads(settings.threads);
            let epochs = settings.epochs.0 * CURVE_EPOCHS.min(part as u64) as f64;
            let settings = Resolved { seed, epochs: Epochs(epochs), ..settings.clone() };
            let beside = (&recipe, teacher.as_ref());
            fit_stages(&mut model, some.len(), &settings, beside, None, |model, options| model.fit(&some, options))?;
            let evaluation = model.evaluate(&data.test)?;
            let matrix = &evaluation.confusion_matrix;
            for (class, (curve, samples)) in curves.iter_mut().zip(some.samples_per_class()).enumerate() {
                let tested = matrix.support(class);
                let wrong = (tested - matrix.count(class, class)) as usize;
                curve.points.push(CurvePoint { samples, wrong, tested: tested as usize });
            }
        }
    }
    Ok(curves)
}

/// Trains; what was reached is kept after each epoch, so that a run that is ended loses one epoch at most.
fn fit(
    model: &mut Model,
    data: &Data,
    settings: &Resolved,
    beside: (&Recipe, Option<&Model>),
    files: &Files,
    config: &str,
    resume: Option<Backup>,
) -> Result<History> {
    let (mut progress, mut keeper) = (Progress::stderr(), Keeper::new(files, config, resume.as_ref())?);
    let fitted = fit_stages(model, data.train.len(), settings, beside, resume, |model, options| {
        let options = options.record_samples(true).backup(&files.backup);
        let options = options.callback(&mut progress).callback(&mut keeper);
        // Left to `fit`, which divides alike, so that the model file tells how: `evaluate` finds the test images by it.
        match &data.undivided {
            Some((images, share)) => model.fit(images, options.validation_split(*share)),
            None => model.fit(&data.train, options.validation_data(&data.validation)),
        }
    });
    progress.clear();
    let Keeper { history, kept, .. } = keeper;
    let told = |error: anyhow::Error| match (error.downcast_ref::<ModelError>(), kept) {
        (Some(ModelError::NotFinite { .. } | ModelError::Callback(_)), Some(epoch)) => {
            anyhow!("{error}. The model after epoch {} is kept in {}", epoch + 1, files.model.display())
        }
        (Some(ModelError::NotFinite { .. }), None) => {
            anyhow!("{error}. No epoch was finished: no model is kept")
        }
        _ => error,
    };
    fitted.map(|()| history).map_err(told)
}

/// Trains as the settings say, by `fit`: where they ask for it the last layer alone, then all that are to learn.
fn fit_stages(
    model: &mut Model,
    samples: usize,
    settings: &Resolved,
    (recipe, teacher): (&Recipe, Option<&Model>),
    mut resume: Option<Backup>,
    mut fit: impl FnMut(&mut Model, FitOptions<'_>) -> Result<History, ModelError>,
) -> Result<()> {
    model.set_precision(settings.precision.precision())?;
    let (tuning, head_epochs) = (&settings.fine_tuning, settings.fine_tuning.head_epochs());
    let mut fit_epochs = |model: &mut Model,
                          recipe: &Recipe,
                          groups: Vec<ParameterGroup>,
                          first_epoch: u64,
                          length: Length,
                          resume: Option<Backup>| {
        let options = FitOptions::new()
            .batch_size(settings.batch_size)
            .initial_epoch(first_epoch)
            .epochs_before(first_epoch)
            .seed(settings.seed)
            .groups(groups)
            .resume(resume)
            .sampler(if settings.balanced { Sampler::Balanced } else { Sampler::Uniform });
        let mut options = recipe.options(options, length);
        options.distillation = settings.distillation.distillation(teacher);
        fit(model, settings.threads.into_iter().fold(options, FitOptions::threads))
    };
    let head = recipe.steps(samples, settings.batch_size, head_epochs as f64);
    let whole = recipe.steps(samples, settings.batch_size, settings.epochs.0);
    // Told before anything is trained that does not fit.
    let groups = tuning.groups(model)?;
    for group in &recipe.groups {
        model.parameters_named(&group.parameters)?;
    }
    let of_head = resume.take_if(|backup| head_epochs > 0 && backup.next_epoch() <= head_epochs);
    // A backup of the epochs after those has the weights that they led to.
    if head_epochs > 0 && resume.is_none() {
        // The recipe's groups learn for their epochs of all layers, which come after these.
        let lasting = Recipe { groups: recipe.groups.iter().map(ParameterGroup::lasting).collect(), ..recipe.clone() };
        let mut groups = groups.clone();
        // A net may have no layer with parameters but the last.
        if model.parameters_named("backbone").is_ok() {
            groups.push(ParameterGroup::new("backbone").frozen());
        }
        compile(model, settings.highest_optimizer(), recipe)?;
        fit_epochs(model, &lasting, groups, 0, head, of_head)?;
    }
    let later = recipe.groups.iter().map(|group| group.later_by(head_epochs)).collect();
    let recipe = &Recipe { groups: later, ..recipe.clone() };
    compile(model, tuning.scheduled(recipe, settings.highest_optimizer(), whole), recipe)?;
    let length = Length { epochs: head_epochs + whole.epochs, ..whole };
    fit_epochs(model, recipe, groups, head_epochs, length, resume)?;
    Ok(())
}

fn compile(model: &mut Model, optimizer: Optimizer, recipe: &Recipe) -> Result<()> {
    let loss = recipe.loss(model.output_shape().iter().product());
    Ok(model.compile(optimizer, loss, [Accuracy::new()])?)
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

impl<'a> Keeper<'a> {
    fn new(files: &'a Files, config: &'a str, resume: Option<&Backup>) -> Result<Self> {
        let mut keeper = Keeper { files, config, history: History::new(), kept: None };
        if let Some(backup) = resume {
            keeper.history = History::read_csv(&files.history)?;
            // Of an epoch whose backup was not written yet.
            keeper.history.truncate(backup.next_epoch());
            keeper.kept = backup.next_epoch().checked_sub(1);
        }
        Ok(keeper)
    }
}

impl Callback for Keeper<'_> {
    fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        if self.history.is_empty() {
            create_folder(&self.files.folder)?;
            remove_if_there(&self.files.backup)?;
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
    samples: PathBuf,
    /// Only until the run is done.
    backup: PathBuf,
}

impl Files {
    fn new(folder: PathBuf) -> Self {
        Self {
            config: folder.join("config.toml"),
            history: folder.join("history.csv"),
            model: folder.join("model.safetensors"),
            confusion_matrix: folder.join("confusion_matrix.svg"),
            learning_curves: folder.join("learning_curves.svg"),
            samples: folder.join(labels::FILE),
            example: folder.join("example.png"),
            backup: folder.join("backup.safetensors"),
            folder,
        }
    }

    /// Those that were written.
    fn present(&self) -> Vec<&PathBuf> {
        let Self { config, history, model, confusion_matrix, learning_curves, samples, example, .. } = self;
        let all = [config, history, model, confusion_matrix, learning_curves, samples, example];
        all.into_iter().filter(|path| path.is_file()).collect()
    }
}

/// Removes a file, if it is there.
fn remove_if_there(path: &Path) -> Result<(), WriteError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(WriteError { path: path.to_owned(), source }),
        _ => Ok(()),
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
    /// Epochs that were done before the run was ended and went on; the seconds are without them.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed_after: Option<u64>,
    epochs: usize,
    history: std::collections::BTreeMap<&'a str, Vec<Option<f64>>>,
    test: &'a Evaluation,
    /// The same over several views of each image, where the recipe asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    over_views: Option<OverViews>,
    /// What is kept in the run's folder.
    #[serde(skip)]
    files: Vec<&'a PathBuf>,
    /// An image to try the model on.
    #[serde(skip)]
    example: PathBuf,
}

/// What was measured on several views of each test image.
#[derive(Serialize)]
struct OverViews {
    views: Views,
    accuracy: f64,
    loss: f64,
}

impl Outcome<'_> {
    fn text(&self) -> String {
        let model = quoted(self.model);
        let files: Vec<_> = self.files.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        let over_views = self.over_views.as_ref().map_or_else(String::new, |OverViews { views, accuracy, loss }| {
            let (accuracy, name) = (report::percent(*accuracy), views.name());
            format!("Test accuracy over several views of each image ({name}): {accuracy}, loss {loss:.4}\n")
        });
        let since = self.resumed_after.map_or_else(String::new, |epoch| format!(" since epoch {epoch}"));
        format!(
            "{}{over_views}\nTrained in {}{since}. In {}: {}\n\nNext:\n  ocellus evaluate {model} {}\n  ocellus predict {model} {}\n",
            results("Test accuracy", self.test),
            seconds(self.seconds),
            self.run.display(),
            files.join(", "),
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
