//! Everything optional around a training: stopping, keeping the best, changing the learning rate, writing down, showing.
//!
//! ```no_run
//! use ocellus::callbacks::{Callback, Closure, EarlyStopping, ModelCheckpoint};
//! # use ocellus::{data::Dataset, model::{FitOptions, Model, ModelError}};
//! # fn train(model: &mut Model, train: &Dataset) -> Result<(), ModelError> {
//! let mut stopping = EarlyStopping::new("val_loss").patience(3).restore_best_weights(true);
//! let options = FitOptions::new()
//!     .epochs(50)
//!     .validation_split(0.1)
//!     .callback(&mut stopping)
//!     .callback(ModelCheckpoint::new("best.safetensors").save_best_only(true))
//!     .callback(Closure::on_epoch_end(|epoch, control| {
//!         if epoch.get("accuracy") > Some(0.99) {
//!             control.stop();
//!         }
//!     }));
//! model.fit(train, options)?;
//! # Ok(())
//! # }
//! ```

mod closure;
mod csv_logger;
mod early_stopping;
mod learning_rate_scheduler;
mod model_checkpoint;
mod monitor;
mod progress;
mod reduce_lr_on_plateau;

pub use closure::Closure;
pub use csv_logger::CsvLogger;
pub use early_stopping::EarlyStopping;
pub use learning_rate_scheduler::LearningRateScheduler;
pub use model_checkpoint::ModelCheckpoint;
pub use monitor::Mode;
pub use progress::Progress;
pub use reduce_lr_on_plateau::ReduceLrOnPlateau;

use crate::history::History;
use crate::model::Model;

/// What a callback gives back; an error ends the training.
pub type CallbackResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Something done around the epochs and steps of a training.
pub trait Callback {
    /// Before the first epoch.
    ///
    /// # Errors
    /// What ends the training.
    fn on_train_begin(&mut self, _training: &Training, _control: &mut Control<'_>) -> CallbackResult {
        Ok(())
    }

    /// Before an epoch, 0 for the first.
    ///
    /// # Errors
    /// What ends the training.
    fn on_epoch_begin(&mut self, _epoch: u64, _control: &mut Control<'_>) -> CallbackResult {
        Ok(())
    }

    /// After a step.
    ///
    /// # Errors
    /// What ends the training.
    fn on_batch_end(&mut self, _batch: &BatchEnd<'_>, _control: &mut Control<'_>) -> CallbackResult {
        Ok(())
    }

    /// After an epoch and its validation.
    ///
    /// # Errors
    /// What ends the training.
    fn on_epoch_end(&mut self, _epoch: &EpochEnd<'_>, _control: &mut Control<'_>) -> CallbackResult {
        Ok(())
    }

    /// After the last epoch.
    ///
    /// # Errors
    /// What is reported instead of the history.
    fn on_train_end(&mut self, _history: &History, _control: &mut Control<'_>) -> CallbackResult {
        Ok(())
    }
}

/// What is known of a training before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Training {
    /// Epochs in all.
    pub epochs: u64,
    /// The first epoch's number.
    pub initial_epoch: u64,
    /// Steps in an epoch.
    pub steps: u64,
    /// Samples in an epoch.
    pub samples: usize,
    /// Samples that are measured on after each epoch.
    pub validation_samples: Option<usize>,
    /// Samples in a step.
    pub batch_size: usize,
    /// Threads that compute.
    pub threads: usize,
}

/// Where an epoch stands after a step.
#[derive(Clone, Debug)]
pub struct BatchEnd<'a> {
    /// The epoch, 0 for the first.
    pub epoch: u64,
    /// Steps done in this epoch.
    pub step: u64,
    /// Samples done in this epoch.
    pub samples: usize,
    /// Loss and metrics over the epoch so far.
    pub values: &'a [(String, f64)],
}

/// What an epoch measured.
#[derive(Clone, Debug)]
pub struct EpochEnd<'a> {
    /// The epoch, 0 for the first.
    pub epoch: u64,
    /// `loss`, the metrics, the same with `val_` where there is validation data, `learning_rate` and `seconds`.
    pub values: &'a [(String, f64)],
}

impl EpochEnd<'_> {
    /// A value by its name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }

    /// A value by its name, or an error that says which there are.
    fn monitored(&self, name: &str) -> Result<f64, String> {
        self.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.values.iter().map(|(name, _)| name.as_str()).collect();
            let hint = if name.starts_with("val_") { "; give validation data" } else { "" };
            format!("nothing named {name:?} is measured to monitor{hint}; there is {}", known.join(", "))
        })
    }
}

/// What a callback can change.
pub struct Control<'a> {
    pub(crate) model: &'a mut Model,
    pub(crate) learning_rate: f32,
    pub(crate) new_learning_rate: Option<f32>,
    pub(crate) stop: bool,
}

impl Control<'_> {
    /// The model in training.
    pub fn model(&self) -> &Model {
        self.model
    }

    /// The model in training, to save it or to change its weights.
    pub fn model_mut(&mut self) -> &mut Model {
        self.model
    }

    /// Ends the training after this step.
    pub fn stop(&mut self) {
        self.stop = true;
    }

    /// Whether the training will end.
    pub fn stopped(&self) -> bool {
        self.stop
    }

    /// The learning rate of the last step, or the one set since.
    pub fn learning_rate(&self) -> f32 {
        self.new_learning_rate.unwrap_or(self.learning_rate)
    }

    /// Sets the learning rate from now on; a schedule no longer counts.
    pub fn set_learning_rate(&mut self, learning_rate: f32) {
        self.new_learning_rate = Some(learning_rate);
    }
}

impl<C: Callback + ?Sized> Callback for &mut C {
    fn on_train_begin(&mut self, training: &Training, control: &mut Control<'_>) -> CallbackResult {
        (**self).on_train_begin(training, control)
    }

    fn on_epoch_begin(&mut self, epoch: u64, control: &mut Control<'_>) -> CallbackResult {
        (**self).on_epoch_begin(epoch, control)
    }

    fn on_batch_end(&mut self, batch: &BatchEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        (**self).on_batch_end(batch, control)
    }

    fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        (**self).on_epoch_end(epoch, control)
    }

    fn on_train_end(&mut self, history: &History, control: &mut Control<'_>) -> CallbackResult {
        (**self).on_train_end(history, control)
    }
}
