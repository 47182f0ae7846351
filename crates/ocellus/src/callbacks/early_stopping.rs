//! Ends a training that no longer becomes better.

use super::monitor::Monitor;
use super::{Callback, CallbackResult, Control, EpochEnd, Mode, Training};
use crate::history::History;
use crate::model::Snapshot;

/// Ends the training when a value has not become better for some epochs.
#[derive(Clone, Debug)]
pub struct EarlyStopping {
    monitor: Monitor,
    patience: u64,
    start_from_epoch: u64,
    restore_best_weights: bool,
    waited: u64,
    best_epoch: u64,
    best_weights: Option<Snapshot>,
    stopped_epoch: Option<u64>,
}

impl EarlyStopping {
    /// Watches this value, for example `val_loss`.
    pub fn new(monitor: impl Into<String>) -> Self {
        EarlyStopping {
            monitor: Monitor::new(monitor, 0.0),
            patience: 0,
            start_from_epoch: 0,
            restore_best_weights: false,
            waited: 0,
            best_epoch: 0,
            best_weights: None,
            stopped_epoch: None,
        }
    }

    /// Epochs to wait for an improvement; 0 by default.
    pub fn patience(self, patience: u64) -> Self {
        EarlyStopping { patience, ..self }
    }

    /// What counts as an improvement; anything by default.
    pub fn min_delta(mut self, min_delta: f64) -> Self {
        self.monitor.min_delta = min_delta.abs();
        self
    }

    /// Which values are better.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.monitor.mode = mode;
        self
    }

    /// Whether the weights of the best epoch are put back at the end; they are not by default.
    pub fn restore_best_weights(self, restore_best_weights: bool) -> Self {
        EarlyStopping { restore_best_weights, ..self }
    }

    /// The first epoch to watch; 0 by default.
    pub fn start_from_epoch(self, start_from_epoch: u64) -> Self {
        EarlyStopping { start_from_epoch, ..self }
    }

    /// The epoch after which the training was stopped.
    pub fn stopped_epoch(&self) -> Option<u64> {
        self.stopped_epoch
    }

    /// The epoch whose value was best.
    pub fn best_epoch(&self) -> u64 {
        self.best_epoch
    }
}

impl EarlyStopping {
    /// Takes an epoch's value in and says whether it is the best so far.
    fn watch(&mut self, epoch: u64, value: f64) -> bool {
        if epoch < self.start_from_epoch {
            return false;
        }
        let better = self.monitor.improves(value);
        if better {
            (self.waited, self.best_epoch) = (0, epoch);
        } else {
            self.waited += 1;
        }
        better
    }
}

impl Callback for EarlyStopping {
    fn on_train_begin(&mut self, _training: &Training, control: &mut Control<'_>) -> CallbackResult {
        (self.waited, self.best_epoch, self.stopped_epoch) = (0, 0, None);
        (self.monitor.best, self.best_weights) = (None, None);
        // Without the weights of an earlier epoch that could be put back, the best is one from here on.
        if !self.restore_best_weights {
            for (epoch, value) in self.monitor.known(control.model().history()) {
                self.watch(epoch, value);
            }
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        let value = epoch.monitored(&self.monitor.name)?;
        if self.watch(epoch.epoch, value) && self.restore_best_weights {
            self.best_weights = Some(control.model().snapshot());
        }
        if self.waited >= self.patience.max(1) {
            self.stopped_epoch = Some(epoch.epoch);
            control.stop();
        }
        Ok(())
    }

    fn on_train_end(&mut self, _history: &History, control: &mut Control<'_>) -> CallbackResult {
        if let Some(best) = self.best_weights.take() {
            control.model_mut().restore(&best);
        }
        Ok(())
    }
}
