//! The training loop.

use super::averaging::Average;
use super::backup::{self, Arguments, TrainingProgress};
use super::batches::{Batch, BatchOptions, Batches};
use super::distillation::Distillation;
use super::features::Cut;
use super::golden::GoldenImages;
use super::graph::{Basis, Inference, Training};
use super::groups::Groups;
use super::{FitOptions, Images, Model, ModelError, ProgressiveResizing, Samples, Snapshot, Verbose};
use crate::callbacks::{self, BatchEnd, Callback, CallbackResult, Control, EpochEnd, Progress};
use crate::history::{History, SECONDS};
use crate::labels::Trajectories;
use crate::losses::Loss;
use crate::metrics::{Mean, Metric};
use crate::optimizers::Optimizer;
use crate::schedules::Schedule;
use ocellus_engine::{DType, Input, Level, Outcome, Runner, Scalars};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

impl Model {
    /// Trains on labelled samples: a data set, or a pair of arrays `(&images, &labels)`.
    ///
    /// The same seed gives the same weights to the bit, whatever the number of threads. Bytes are scaled as the data set's
    /// preprocessing says; numbers go in as they are.
    ///
    /// # Errors
    /// Where the model was not compiled, arguments or samples do not suit it, a callback fails, or the loss, the validation
    /// loss or the weights are no longer finite: then the model has the weights after the last epoch in which all were, or
    /// those of the beginning, and its optimizer begins anew. [`history`](Self::history) has the epochs so far.
    pub fn fit<'a>(
        &mut self,
        samples: impl Into<Samples<'a>>,
        mut options: FitOptions<'a>,
    ) -> Result<History, ModelError> {
        let samples = samples.into();
        self.check_class_names(samples)?;
        self.history = History::new();
        self.trajectories = None;
        let validation = options.validation_data.take();
        let Some(share) = options.validation_split.filter(|_| validation.is_none()) else {
            return self.fit_and_validate(samples, validation, FitOptions { validation_split: None, ..options });
        };
        if !(share > 0.0 && share < 1.0) {
            return Err(ModelError::Argument(format!("validation_split must be between 0 and 1, received {share}")));
        }
        match samples.images {
            Images::Dataset(dataset) => {
                let (train, validation) = dataset.split_stratified(share, options.seed)?;
                self.fit_and_validate((&train).into(), Some((&validation).into()), options)
            }
            _ => {
                let (train, validation) = samples.split_arrays(share, self.input_shape(), self.outputs())?;
                self.fit_and_validate(train, Some(validation), options)
            }
        }
    }

    fn fit_and_validate(
        &mut self,
        samples: Samples<'_>,
        validation: Option<Samples<'_>>,
        mut options: FitOptions<'_>,
    ) -> Result<History, ModelError> {
        if self.compiled.is_none() {
            return Err(ModelError::NotCompiled);
        }
        let FitOptions { batch_size, shuffle, seed, drop_last, mixing, .. } = options;
        let (class_weight, augment, sampler) =
            (options.class_weight.clone(), options.augment.clone(), options.sampler.clone());
        // A teacher looks at images, too.
        let same_images =
            augment.is_empty() && mixing.is_none() && options.resizing.is_none() && options.distillation.is_none();
        let batching = BatchOptions { batch_size, shuffle, seed, class_weight, augment, mixing, drop_last, sampler };
        let groups = self.groups(&options.groups)?;
        if let Some(problem) = options.averaging.and_then(|averaging| averaging.problem()) {
            return Err(ModelError::Argument(problem));
        }
        let batches = Batches::new(samples, self.input_shape(), self.outputs(), batching.clone())?;
        let Some(compiled) = &self.compiled else { return Err(ModelError::NotCompiled) };
        let (loss, optimizer) = (compiled.loss, compiled.optimizer.clone());
        let arguments = backup::arguments(self, &options, batches.count(), &optimizer, &loss)?;
        let resumed = options.resume.take().map(|backup| {
            backup.check(&arguments, samples.images, options.initial_epoch.saturating_add(1)..=options.epochs)?;
            backup.resumed(self, options.averaging, options.record_samples, batches.count())
        });
        let resumed = resumed.transpose()?;
        self.adopt(samples, seed)?;
        self.forget_calibration();
        // Only now, since the training data may be what tells the classes.
        let mut validation_batches = validation.map(|samples| self.batches(samples, batch_size)).transpose()?;
        if options.threads.is_some() {
            self.engine.set_threads(options.threads);
        }
        let threads = self.engine.pool().threads();
        let level = self.engine.level()?;
        if let Some(distillation) = &options.distillation {
            distillation.check(self, &loss)?;
        }
        self.record.begin(&options, &batches, &optimizer, &loss, (level, self.precision));
        let mut average = options.averaging.map(|averaging| Average::new(averaging, self));
        let mut trajectories =
            options.record_samples.then(|| Trajectories::new(batches.count(), options.epochs, &loss));
        let iterations = self.compiled.as_ref().map_or(0, |compiled| compiled.iterations);
        let mut progress = TrainingProgress {
            next_epoch: options.initial_epoch,
            iterations,
            steps: 0,
            stop: false,
            schedule: optimizer.learning_rate().clone(),
            learning_rate: optimizer.learning_rate().at(iterations),
        };
        if let Some(resumed) = resumed {
            let (reached, earlier) = resumed.restore(self, average.as_mut());
            progress = reached;
            if let (Some(trajectories), Some(earlier)) = (&mut trajectories, earlier) {
                trajectories.resume(earlier);
            }
        }
        let images = if samples.images.are_bytes() { DType::U8 } else { DType::F32 };
        let cut = self.cut(&self.learning(&groups, options.initial_epoch)).filter(|cut| {
            let count = batches.count() + validation_batches.as_ref().map_or(0, Batches::count);
            options.cache_features && same_images && Model::can_keep(cut, count)
        });
        // Computed once; the epochs begin with them.
        let of = |model: &mut Self, samples| cut.as_ref().map(|cut| model.features(cut, samples)).transpose();
        let features = of(self, samples)?;
        let validation_features = validation.map(|samples| of(self, samples)).transpose()?.flatten();
        let (mut batches, mut measuring) = (batches, None);
        if let (Some(cut), Some(features)) = (&cut, &features) {
            batches = Batches::new(features.samples(), &cut.shape, self.outputs(), batching)?;
            if let Some(features) = &validation_features {
                let options = BatchOptions::in_order(batch_size);
                let batches = Batches::new(features.samples(), &cut.shape, self.outputs(), options)?;
                measuring = Some(self.measuring_from(cut, &loss, batches.batch_size())?);
                validation_batches = Some(batches);
            }
        }
        let whole =
            self.check_resizing(options.resizing, samples, options.epochs.saturating_sub(options.epochs_before))?;
        let epochs = options.epochs.saturating_sub(options.initial_epoch);
        let accumulate = options.accumulate;
        if accumulate == 0 {
            return Err(ModelError::argument("accumulate must be at least 1, received 0"));
        }
        let each = batches.steps().div_ceil(accumulate) as u64;
        let steps = options.steps.unwrap_or(u64::MAX).min(epochs.saturating_mul(each));
        let making = Making {
            optimizer: optimizer.clone(),
            images,
            level,
            cut: cut.clone(),
            groups,
            distillation: options.distillation,
            resizing: options.resizing.map(|resizing| (resizing, whole)),
            counted: options.epochs_before..options.epochs,
            threads,
            profile: options.profile,
        };
        // A training that was ended after its last epoch goes on with what comes after it.
        let ended = progress.stop || progress.next_epoch >= options.epochs;
        let first = progress.next_epoch.saturating_sub(u64::from(ended)).max(options.initial_epoch);
        let training = making.make(self, &loss, batches.batch_size(), first)?;
        let mut callbacks = options.callbacks;
        if options.verbose != Verbose::Silent {
            callbacks.push(Box::new(Progress::stderr(options.verbose == Verbose::Bar)));
        }
        let mut fit = Fit {
            trajectories,
            predictions: vec![0.0; batches.batch_size() * self.outputs()],
            safe: self.snapshot(),
            compiled: self.compile_count,
            metrics: self.compiled.as_mut().map_or_else(Vec::new, |compiled| std::mem::take(&mut compiled.metrics)),
            average,
            backup: options.backup.map(|path| (path, arguments)),
            model: self,
            samples,
            batches,
            validation: validation_batches,
            measuring,
            training,
            making,
            steps,
            accumulate,
            done: progress.steps,
            threads,
            loss,
            schedule: progress.schedule,
            learning_rate: progress.learning_rate,
            seed,
            callbacks,
            stop: progress.stop,
        };
        let result = fit.run(progress.next_epoch, options.epochs);
        let profiled = options.profile.then(|| fit.training.runner.profile());
        let (metrics, trajectories) = (fit.metrics, fit.trajectories);
        self.trajectories = trajectories;
        if let Some(compiled) = &mut self.compiled {
            compiled.metrics = metrics;
        }
        self.step_times = profiled.unwrap_or_default();
        result
    }

    /// Takes over what training on these samples means for the model: class names, preprocessing, golden images.
    fn adopt(&mut self, samples: Samples<'_>, seed: u64) -> Result<(), ModelError> {
        if let Images::Dataset(dataset) = samples.images {
            self.class_names = dataset.class_names().to_vec();
            let mut preprocessing = dataset.preprocessing().clone();
            if self.network.takes_pixels() {
                (preprocessing.scale, preprocessing.offset) = (1.0, 0.0);
            }
            if preprocessing != self.preprocessing {
                self.set_preprocessing(preprocessing);
            }
        }
        self.golden = Some(GoldenImages::choose(samples.images, self.input_shape(), seed)?);
        Ok(())
    }
}

impl Model {
    /// Refuses images or layers whose size cannot change, before anything is trained; gives the images' whole size.
    fn check_resizing(
        &self,
        resizing: Option<ProgressiveResizing>,
        samples: Samples<'_>,
        epochs: u64,
    ) -> Result<[usize; 2], ModelError> {
        let Some(resizing) = resizing else { return Ok([0, 0]) };
        if let Some(problem) = resizing.problem() {
            return Err(ModelError::Argument(problem));
        }
        let (&[height, width, _], true) = (self.input_shape(), samples.images.are_bytes()) else {
            return Err(ModelError::argument(
                "resizing: expected images as bytes, (height, width, channels), received others",
            ));
        };
        for epoch in 0..epochs.min(1000) {
            self.network_at(resizing.size([height, width], epoch, epochs))?;
        }
        Ok([height, width])
    }
}

/// A training under way.
struct Fit<'a, 'b> {
    model: &'a mut Model,
    samples: Samples<'b>,
    batches: Batches<'b>,
    validation: Option<Batches<'b>>,
    /// The plan for validation on features, where frozen layers' were computed before.
    measuring: Option<Inference>,
    training: Training,
    making: Making<'b>,
    average: Option<Average>,
    /// The file that backups are written to, and what the training was asked for.
    backup: Option<(PathBuf, Arguments)>,
    /// Steps in all, and those done.
    steps: u64,
    done: u64,
    /// Batches that make a step.
    accumulate: usize,
    threads: usize,
    loss: Loss,
    metrics: Vec<Box<dyn Metric + Send>>,
    schedule: Schedule,
    learning_rate: f32,
    seed: u64,
    callbacks: Vec<Box<dyn Callback + 'b>>,
    stop: bool,
    predictions: Vec<f32>,
    /// How each sample was seen, where that is kept.
    trajectories: Option<Trajectories>,
    /// The weights after the last epoch in which all was finite, or those of the beginning.
    safe: Snapshot,
    /// How often the model had been compiled when the training began.
    compiled: u64,
}

impl Fit<'_, '_> {
    fn run(&mut self, initial_epoch: u64, epochs: u64) -> Result<History, ModelError> {
        let training = callbacks::Training {
            epochs,
            initial_epoch,
            steps: self.batches.steps() as u64,
            samples: self.batches.count(),
            validation_samples: self.validation.as_ref().map(Batches::count),
            batch_size: self.batches.batch_size(),
            threads: self.threads,
        };
        self.call(|callback, control| callback.on_train_begin(&training, control))?;
        let mut last = initial_epoch.saturating_sub(1);
        for epoch in initial_epoch..epochs {
            if self.stop || (self.done >= self.steps && epoch > initial_epoch) {
                break;
            }
            self.call(|callback, control| callback.on_epoch_begin(epoch, control))?;
            let values = self.epoch(epoch)?;
            last = epoch;
            self.model.history.push(epoch, values.iter().map(|(name, value)| (name.as_str(), *value)));
            self.model.record.end_epoch(&values, self.samples.images);
            self.call(|callback, control| callback.on_epoch_end(&EpochEnd { epoch, values: &values }, control))?;
            self.back_up(epoch)?;
        }
        if self.average.as_mut().is_some_and(|average| average.finish(self.model)) {
            self.measure_statistics(epochs, last)?;
        }
        let history = self.model.history.clone();
        self.call(|callback, control| callback.on_train_end(&history, control))?;
        Ok(history)
    }

    /// Writes what is needed to go on after this epoch.
    fn back_up(&self, epoch: u64) -> Result<(), ModelError> {
        let Some((path, arguments)) = &self.backup else { return Ok(()) };
        let progress = TrainingProgress {
            next_epoch: epoch + 1,
            iterations: self.iterations(),
            steps: self.done,
            stop: self.stop || self.done >= self.steps,
            schedule: self.schedule.clone(),
            learning_rate: self.learning_rate,
        };
        backup::write(path, self.model, arguments, progress, self.average.as_ref(), self.trajectories.as_ref())
    }

    /// Trains for an epoch and validates: gives what was measured.
    fn epoch(&mut self, epoch: u64) -> Result<Vec<(String, f64)>, ModelError> {
        let started = Instant::now();
        let mut mean = Mean::new();
        self.metrics.iter_mut().for_each(|metric| metric.reset());
        let named = self.metrics.iter().map(|metric| (metric.name(), 0.0));
        let mut values: Vec<(String, f64)> = [("loss".to_owned(), 0.0)].into_iter().chain(named).collect();
        let (mut step, mut samples) = (0, 0);
        if self.making.changes(self.model, epoch) {
            self.training = self.making.make(self.model, &self.loss, self.batches.batch_size(), epoch)?;
        }
        if let Some(average) = &mut self.average {
            average.before_epoch(self.model);
        }
        let batches_in_epoch = self.batches.steps();
        match self.making.size(epoch) {
            Some(size) => self.batches.start_epoch_at(epoch, size),
            None => self.batches.start_epoch(epoch),
        }
        if let Some(trajectories) = &mut self.trajectories {
            trajectories.begin_epoch(epoch);
        }
        while let Some(batch) = self.batches.next_batch()? {
            step += 1;
            samples += batch.samples();
            let at = Step { epoch, step, iteration: self.model.compiled.as_ref().map_or(0, |c| c.iterations) };
            self.learning_rate = self.schedule.at(at.iteration);
            let (part, parts) = part_of(step as usize - 1, self.accumulate, batches_in_epoch);
            let learning_rate = self.learning_rate;
            let scalars = Scalars { step: at.iteration + 1, seed: self.seed, learning_rate, part, parts };
            let moved = part + 1 == parts;
            let predictions = &mut self.predictions;
            let loss = run_step(self.model, &mut self.training, self.threads, &batch, &scalars, moved, predictions);
            let loss =
                loss?.map_err(|loss| not_finite("loss", loss, self.model, &self.safe, at, self.learning_rate))?;
            if moved {
                self.done += 1;
                if let Some(average) = &mut self.average {
                    average.after_step(self.model, self.done, self.steps);
                }
            }
            mean.update(loss, batch.samples() as f64);
            let predictions = &predictions[..batch.samples() * self.model.outputs()];
            if let Some(trajectories) = &mut self.trajectories {
                trajectories.record(batch.indices, batch.labels, predictions);
            }
            for (metric, value) in self.metrics.iter_mut().zip(&mut values[1..]) {
                metric.update(predictions, batch.labels, None);
                value.1 = metric.value();
            }
            values[0].1 = mean.value();
            self.call(|callback, control| {
                callback.on_batch_end(&BatchEnd { epoch, step, samples, values: &values }, control)
            })?;
            if self.stop || self.done >= self.steps {
                break;
            }
        }
        if let Some(average) = &mut self.average {
            let (epoch, epochs) = self.making.counted(epoch);
            average.after_epoch(self.model, epoch, epochs);
        }
        let mut spoiled = self.model.first_not_finite().map(|value| ("weights", value));
        if let (None, Some(validation)) = (spoiled, &mut self.validation) {
            let loss =
                self.model.validate(validation, &self.loss, self.measuring.as_mut(), &mut self.metrics, &mut values)?;
            spoiled = (!loss.is_finite()).then_some(("validation loss", loss as f32));
        }
        if spoiled.is_none() {
            // Finite weights may be too large to compute with, and without validation nothing else tells.
            let (_, outputs) = self.model.golden_outputs()?;
            spoiled = outputs.into_iter().find(|output| !output.is_finite()).map(|output| ("outputs", output));
        }
        if let Some((what, value)) = spoiled {
            let at = Step { epoch, step, iteration: 0 };
            return Err(not_finite(what, value, self.model, &self.safe, at, self.learning_rate));
        }
        self.model.snapshot_into(&mut self.safe);
        values.push(("learning_rate".into(), shortest(self.learning_rate)));
        values.push((SECONDS.into(), started.elapsed().as_secs_f64()));
        Ok(values)
    }

    /// One more epoch in which nothing learns, so that moving statistics follow the weights as they are now. What was frozen in the epoch that
    /// `learned` last still is.
    fn measure_statistics(&mut self, epoch: u64, learned: u64) -> Result<(), ModelError> {
        if self.making.resizing.take().is_some() {
            // Of whole images, as they are tested.
            self.training = self.making.make(self.model, &self.loss, self.batches.batch_size(), learned)?;
        }
        self.batches.start_epoch(epoch);
        let mut step = self.iterations();
        while let Some(batch) = self.batches.next_batch()? {
            step += 1;
            let scalars = Scalars { step, seed: self.seed, ..Scalars::default() };
            let loss =
                run_step(self.model, &mut self.training, self.threads, &batch, &scalars, false, &mut self.predictions);
            if let Err(loss) = loss? {
                let at = Step { epoch, step, iteration: step };
                return Err(not_finite("loss", loss, self.model, &self.safe, at, 0.0));
            }
        }
        Ok(())
    }

    fn iterations(&self) -> u64 {
        self.model.compiled.as_ref().map_or(0, |compiled| compiled.iterations)
    }

    /// Calls every callback, and does what they ask for.
    fn call(
        &mut self,
        mut call: impl FnMut(&mut dyn Callback, &mut Control<'_>) -> CallbackResult,
    ) -> Result<(), ModelError> {
        let mut control =
            Control { model: self.model, learning_rate: self.learning_rate, new_learning_rate: None, stop: self.stop };
        for callback in &mut self.callbacks {
            call(&mut **callback, &mut control).map_err(ModelError::Callback)?;
        }
        self.stop = control.stop;
        if let Some(learning_rate) = control.new_learning_rate {
            self.learning_rate = learning_rate;
            self.schedule = learning_rate.into();
        }
        if self.model.compile_count != self.compiled {
            return Err(ModelError::argument("a callback compiled the model while it was training"));
        }
        Ok(())
    }
}

/// What the training's plan is made of.
struct Making<'a> {
    optimizer: Optimizer,
    images: DType,
    level: Level,
    /// Where layers that do not learn were computed before.
    cut: Option<Cut>,
    groups: Groups,
    distillation: Option<Distillation<'a>>,
    /// How images grow, to which size.
    resizing: Option<(ProgressiveResizing, [usize; 2])>,
    /// The epochs that shares of the training are of.
    counted: Range<u64>,
    threads: usize,
    profile: bool,
}

impl Making<'_> {
    fn make(&self, model: &Model, loss: &Loss, batch: usize, epoch: u64) -> Result<Training, ModelError> {
        let learning = model.learning(&self.groups, epoch);
        let (size, inputs) = (self.size(epoch), (self.images, batch, self.level));
        let network = size.map(|size| model.network_at(size)).transpose()?;
        let basis = Basis { network: network.as_ref(), cut: self.cut.as_ref() };
        let distillation = self.distillation.as_ref();
        let (plan, total, predictions) =
            model.training_plan(&self.optimizer, loss, inputs, basis, &learning, distillation)?;
        let teacher = distillation.map(|distillation| distillation.teacher(size, inputs, self.threads)).transpose()?;
        let mut runner = Runner::new(plan, self.threads);
        runner.set_profile(self.profile);
        Ok(Training { runner, total, predictions, teacher })
    }

    /// The images' size in an epoch, where it changes over the training.
    fn size(&self, epoch: u64) -> Option<[usize; 2]> {
        let (epoch, epochs) = self.counted(epoch);
        self.resizing.map(|(resizing, whole)| resizing.size(whole, epoch, epochs))
    }

    /// An epoch among those that shares of the training are of, and their number.
    fn counted(&self, epoch: u64) -> (u64, u64) {
        let Range { start, end } = self.counted;
        (epoch.saturating_sub(start), end.saturating_sub(start))
    }

    /// Whether images are of another size, or some parameter learns otherwise, than in the epoch before.
    fn changes(&self, model: &Model, epoch: u64) -> bool {
        if epoch > 0 && self.size(epoch) != self.size(epoch - 1) {
            return true;
        }
        epoch > 0
            && self.groups.end_before(epoch)
            && model.learning(&self.groups, epoch) != model.learning(&self.groups, epoch - 1)
    }
}

/// Where a training stands.
#[derive(Clone, Copy)]
struct Step {
    epoch: u64,
    step: u64,
    iteration: u64,
}

/// Which part of a step a batch of an epoch is, and of how many: the last step of an epoch has what remains.
fn part_of(batch: usize, accumulate: usize, batches: usize) -> (usize, usize) {
    let first = batch / accumulate * accumulate;
    (batch - first, accumulate.min(batches.max(batch + 1) - first))
}

/// Runs a batch, with which the weights are `moved` or not yet: gives the loss, or as an error the loss that was not finite; fills in the predictions.
fn run_step(
    model: &mut Model,
    training: &mut Training,
    threads: usize,
    batch: &Batch<'_>,
    scalars: &Scalars,
    moved: bool,
    predictions: &mut [f32],
) -> Result<Result<f64, f32>, ModelError> {
    let penalty = model.penalty();
    let outputs = model.outputs();
    let pool = model.engine.pool();
    if pool.threads() > threads {
        return Err(ModelError::argument("a callback changed the number of threads while the model was training"));
    }
    let Training { runner, total, teacher, .. } = training;
    let [images, targets, weights] = batch.inputs();
    let samples = batch.samples();
    let outcome = match teacher {
        None => runner.run(pool, &mut model.parameters, &[images, targets, weights], samples, scalars),
        Some(teacher) => {
            let taught = Input::F32(teacher.teach(pool, images, samples));
            runner.run(pool, &mut model.parameters, &[images, targets, weights, taught], samples, scalars)
        }
    };
    let loss = runner.sum(*total)[0];
    if outcome == Outcome::NotFinite {
        return Ok(Err(loss));
    }
    training.runner.read(training.predictions, &mut predictions[..batch.samples() * outputs]);
    if let (true, Some(compiled)) = (moved, &mut model.compiled) {
        compiled.iterations += 1;
    }
    let total = f64::from(loss) + penalty;
    Ok(if total.is_finite() { Ok(total) } else { Err(total as f32) })
}

/// The error of a value that is not finite: the model goes back to good weights, without the memory of how it left them.
fn not_finite(
    what: &'static str,
    value: f32,
    model: &mut Model,
    safe: &Snapshot,
    at: Step,
    learning_rate: f32,
) -> ModelError {
    model.restore(safe);
    model.reset_optimizer();
    ModelError::NotFinite { what, epoch: at.epoch + 1, step: at.step, loss: value, learning_rate }
}

/// The number with the fewest digits that is this one in single precision: 0.001, not 0.0010000000474974513.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
