//! Saves the model while it trains.

use super::monitor::Monitor;
use super::{Callback, CallbackResult, Control, EpochEnd, Mode, Training};
use std::path::PathBuf;

/// Saves the model after each epoch, or after those in which a value became better.
#[derive(Clone, Debug)]
pub struct ModelCheckpoint {
    path: String,
    monitor: Monitor,
    save_best_only: bool,
}

impl ModelCheckpoint {
    /// Saves to this file; `{epoch}` in the name becomes the epoch's number, 1 for the first.
    pub fn new(path: impl Into<String>) -> Self {
        ModelCheckpoint { path: path.into(), monitor: Monitor::new("val_loss", 0.0), save_best_only: false }
    }

    /// The value that tells which epoch is best; `val_loss` by default.
    pub fn monitor(mut self, name: impl Into<String>) -> Self {
        self.monitor.name = name.into();
        self
    }

    /// Which values are better.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.monitor.mode = mode;
        self
    }

    /// Whether only those epochs are saved in which the value became better; all are by default.
    pub fn save_best_only(self, save_best_only: bool) -> Self {
        ModelCheckpoint { save_best_only, ..self }
    }

    fn path(&self, epoch: u64) -> PathBuf {
        self.path.replace("{epoch}", &(epoch + 1).to_string()).into()
    }
}

impl Callback for ModelCheckpoint {
    fn on_train_begin(&mut self, _training: &Training, control: &mut Control<'_>) -> CallbackResult {
        self.monitor.best = None;
        for (_, value) in self.monitor.known(control.model().history()) {
            self.monitor.improves(value);
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        if self.save_best_only && !self.monitor.improves(epoch.monitored(&self.monitor.name)?) {
            return Ok(());
        }
        Ok(control.model_mut().save(self.path(epoch.epoch))?)
    }
}
