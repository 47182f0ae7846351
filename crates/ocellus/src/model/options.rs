//! How a training runs.

use super::{Averaging, Backup, Distillation, ParameterGroup, ProgressiveResizing, Samples};
use crate::callbacks::Callback;
use crate::data::augment::Mixing;
use crate::data::{Augment, Sampler};
use std::path::PathBuf;

/// The arguments of [`Model::fit`](super::Model::fit), with Keras' names and defaults.
///
/// ```no_run
/// # use ocellus::{callbacks::EarlyStopping, data::Dataset, model::{FitOptions, Model, ModelError}};
/// # fn train(model: &mut Model, train: &Dataset, test: &Dataset) -> Result<(), ModelError> {
/// let options = FitOptions::new()
///     .batch_size(32)
///     .epochs(10)
///     .validation_data(test)
///     .callback(EarlyStopping::new("val_loss").patience(3))
///     .verbose(1);
/// let history = model.fit(train, options)?;
/// # Ok(())
/// # }
/// ```
pub struct FitOptions<'a> {
    /// Samples for each step; 32 by default. The last step of an epoch has what remains.
    pub batch_size: usize,
    /// How often the data is gone through; 1 by default.
    pub epochs: u64,
    /// The epoch to begin with, 0 for the first, to go on with an earlier training.
    pub initial_epoch: u64,
    /// Epochs of another training that came before, such as the last layer's alone: the shares of the epochs over which images grow
    /// and weights are averaged count without them. 0 by default.
    pub epochs_before: u64,
    /// Whether each epoch has an order of its own; it has by default.
    pub shuffle: bool,
    /// Samples to measure on after each epoch.
    pub validation_data: Option<Samples<'a>>,
    /// The share of the training samples to hold back and measure on: of a data set, this share of each class; of arrays,
    /// the last ones.
    pub validation_split: Option<f64>,
    /// For each class, how much its samples count in the loss; each counts 1 by default.
    pub class_weight: Option<Vec<f32>>,
    /// Which samples an epoch shows; each once by default. The class of a sample whose targets are numbers is that of the largest.
    pub sampler: Sampler,
    /// What is told on standard error; nothing by default.
    pub verbose: Verbose,
    /// What is done around epochs and steps, in this order.
    pub callbacks: Vec<Box<dyn Callback + 'a>>,
    /// Key of everything random in the training: order and dropout.
    pub seed: u64,
    /// How many threads compute; as many as the machine has by default. Results do not depend on it.
    pub threads: Option<usize>,
    /// Whether what frozen layers give is computed once for all epochs where it fits into a gibibyte; it is by default.
    pub cache_features: bool,
    /// Random changes to the training images, which are bytes; none by default.
    pub augment: Augment,
    /// How images and targets of a batch are mixed; not at all by default.
    pub mixing: Mixing,
    /// Whether samples that do not fill a last batch are left out of an epoch; they are not by default.
    pub drop_last: bool,
    /// The size of training images over the epochs; whole by default.
    pub resizing: Option<ProgressiveResizing>,
    /// How many batches move the weights together, by the mean of their gradients; 1 by default. A step is then so many batches.
    pub accumulate: usize,
    /// The number of steps after which training ends, in the middle of an epoch if need be.
    pub steps: Option<u64>,
    /// Parameters that learn in their own way; none by default. Frozen ones are such a group, too.
    pub groups: Vec<ParameterGroup>,
    /// A model to learn from, beside the targets.
    pub distillation: Option<Distillation<'a>>,
    /// Which average of the weights the training ends with, instead of the last ones.
    pub averaging: Option<Averaging>,
    /// Whether each operation is timed, for [`Model::step_times`](super::Model::step_times); it is not by default.
    pub profile: bool,
    /// Whether each sample's loss and margin are kept, epoch by epoch, for [`Model::trajectories`](super::Model::trajectories); they are
    /// not by default.
    pub record_samples: bool,
    /// The file to which each epoch writes what is needed to go on after it; none by default.
    pub backup: Option<PathBuf>,
    /// The backup to go on with, instead of beginning with the initial epoch. The other arguments, the model and the samples must be those
    /// that it was made with; threads and callbacks may differ.
    pub resume: Option<Backup>,
}

/// What a training tells on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbose {
    /// Nothing: Keras' 0.
    #[default]
    Silent,
    /// A line for each epoch, and on a terminal a moving bar: Keras' 1.
    Bar,
    /// A line for each epoch: Keras' 2.
    Lines,
}

impl From<u8> for Verbose {
    /// Keras' numbers; above 2 is 2.
    fn from(number: u8) -> Self {
        match number {
            0 => Verbose::Silent,
            1 => Verbose::Bar,
            _ => Verbose::Lines,
        }
    }
}

impl Default for FitOptions<'_> {
    fn default() -> Self {
        FitOptions {
            batch_size: 32,
            epochs: 1,
            initial_epoch: 0,
            epochs_before: 0,
            shuffle: true,
            validation_data: None,
            validation_split: None,
            class_weight: None,
            sampler: Sampler::Uniform,
            verbose: Verbose::Silent,
            callbacks: Vec::new(),
            seed: 0,
            threads: None,
            cache_features: true,
            augment: Augment::new(),
            mixing: Mixing::default(),
            drop_last: false,
            resizing: None,
            accumulate: 1,
            steps: None,
            groups: Vec::new(),
            distillation: None,
            averaging: None,
            profile: false,
            record_samples: false,
            backup: None,
            resume: None,
        }
    }
}

impl std::fmt::Debug for FitOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FitOptions")
            .field("batch_size", &self.batch_size)
            .field("epochs", &self.epochs)
            .field("shuffle", &self.shuffle)
            .field("callbacks", &self.callbacks.len())
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl<'a> FitOptions<'a> {
    /// Keras' defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Samples for each step.
    pub fn batch_size(self, batch_size: usize) -> Self {
        FitOptions { batch_size, ..self }
    }

    /// How often the data is gone through.
    pub fn epochs(self, epochs: u64) -> Self {
        FitOptions { epochs, ..self }
    }

    /// The epoch to begin with.
    pub fn initial_epoch(self, initial_epoch: u64) -> Self {
        FitOptions { initial_epoch, ..self }
    }

    /// Epochs of another training that came before.
    pub fn epochs_before(self, epochs_before: u64) -> Self {
        FitOptions { epochs_before, ..self }
    }

    /// Whether each epoch has an order of its own.
    pub fn shuffle(self, shuffle: bool) -> Self {
        FitOptions { shuffle, ..self }
    }

    /// Samples to measure on after each epoch.
    pub fn validation_data(self, samples: impl Into<Samples<'a>>) -> Self {
        FitOptions { validation_data: Some(samples.into()), ..self }
    }

    /// The share of the training samples to hold back and measure on.
    pub fn validation_split(self, share: f64) -> Self {
        FitOptions { validation_split: Some(share), ..self }
    }

    /// How much the samples of each class count in the loss.
    pub fn class_weight(self, weights: impl Into<Vec<f32>>) -> Self {
        FitOptions { class_weight: Some(weights.into()), ..self }
    }

    /// Which samples an epoch shows.
    pub fn sampler(self, sampler: Sampler) -> Self {
        FitOptions { sampler, ..self }
    }

    /// What is told on standard error: 0 nothing, 1 a bar, 2 a line for each epoch.
    pub fn verbose(self, verbose: impl Into<Verbose>) -> Self {
        FitOptions { verbose: verbose.into(), ..self }
    }

    /// Adds a callback; `&mut callback` leaves it with the caller.
    pub fn callback(mut self, callback: impl Callback + 'a) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Whether each sample's loss and margin are kept, epoch by epoch.
    pub fn record_samples(self, record_samples: bool) -> Self {
        FitOptions { record_samples, ..self }
    }

    /// Key of everything random in the training.
    pub fn seed(self, seed: u64) -> Self {
        FitOptions { seed, ..self }
    }

    /// Whether what frozen layers give is computed once for all epochs.
    pub fn cache_features(self, cache_features: bool) -> Self {
        FitOptions { cache_features, ..self }
    }

    /// Random changes to the training images.
    pub fn augment(self, augment: Augment) -> Self {
        FitOptions { augment, ..self }
    }

    /// How images and targets of a batch are mixed.
    pub fn mixing(self, mixing: Mixing) -> Self {
        FitOptions { mixing, ..self }
    }

    /// Leaves samples that do not fill a last batch out of an epoch.
    pub fn drop_last(self, drop_last: bool) -> Self {
        FitOptions { drop_last, ..self }
    }

    /// The size of training images over the epochs.
    pub fn resizing(self, resizing: ProgressiveResizing) -> Self {
        FitOptions { resizing: Some(resizing), ..self }
    }

    /// How many batches move the weights together.
    pub fn accumulate(self, accumulate: usize) -> Self {
        FitOptions { accumulate, ..self }
    }

    /// Ends training after so many steps, if the epochs do not end before.
    pub fn steps(self, steps: u64) -> Self {
        FitOptions { steps: Some(steps), ..self }
    }

    /// Adds parameters that learn in their own way.
    pub fn group(mut self, group: ParameterGroup) -> Self {
        self.groups.push(group);
        self
    }

    /// Adds groups of parameters that learn in their own way.
    pub fn groups(mut self, groups: impl IntoIterator<Item = ParameterGroup>) -> Self {
        self.groups.extend(groups);
        self
    }

    /// The model to learn from, beside the targets.
    pub fn distillation(self, distillation: Distillation<'a>) -> Self {
        FitOptions { distillation: Some(distillation), ..self }
    }

    /// Which average of the weights the training ends with.
    pub fn averaging(self, averaging: Averaging) -> Self {
        FitOptions { averaging: Some(averaging), ..self }
    }

    /// The file to which each epoch writes what is needed to go on after it.
    pub fn backup(self, path: impl Into<PathBuf>) -> Self {
        FitOptions { backup: Some(path.into()), ..self }
    }

    /// The backup to go on with; with `None` the training begins anew.
    pub fn resume(self, backup: impl Into<Option<Backup>>) -> Self {
        FitOptions { resume: backup.into(), ..self }
    }

    /// How many threads compute.
    pub fn threads(self, threads: usize) -> Self {
        FitOptions { threads: Some(threads), ..self }
    }
}
