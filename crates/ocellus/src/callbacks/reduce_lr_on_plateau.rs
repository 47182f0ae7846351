//! Lowers the learning rate where a value no longer becomes better.

use super::monitor::Monitor;
use super::{Callback, CallbackResult, Control, EpochEnd, Mode, Training};

/// Multiplies the learning rate by a factor when a value has not become better for some epochs.
#[derive(Clone, Debug)]
pub struct ReduceLrOnPlateau {
    monitor: Monitor,
    factor: f32,
    patience: u64,
    cooldown: u64,
    min_lr: f32,
    waited: u64,
    cooling: u64,
}

impl ReduceLrOnPlateau {
    /// Watches this value, for example `val_loss`.
    pub fn new(monitor: impl Into<String>) -> Self {
        ReduceLrOnPlateau {
            monitor: Monitor::new(monitor, 1e-4),
            factor: 0.1,
            patience: 10,
            cooldown: 0,
            min_lr: 0.0,
            waited: 0,
            cooling: 0,
        }
    }

    /// What the learning rate is multiplied by; 0.1 by default.
    pub fn factor(self, factor: f32) -> Self {
        ReduceLrOnPlateau { factor, ..self }
    }

    /// Epochs to wait for an improvement; 10 by default.
    pub fn patience(self, patience: u64) -> Self {
        ReduceLrOnPlateau { patience, ..self }
    }

    /// What counts as an improvement; 0.0001 by default.
    pub fn min_delta(mut self, min_delta: f64) -> Self {
        self.monitor.min_delta = min_delta.abs();
        self
    }

    /// Which values are better.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.monitor.mode = mode;
        self
    }

    /// Epochs after a change in which nothing is counted; 0 by default.
    pub fn cooldown(self, cooldown: u64) -> Self {
        ReduceLrOnPlateau { cooldown, ..self }
    }

    /// The lowest learning rate; 0 by default.
    pub fn min_lr(self, min_lr: f32) -> Self {
        ReduceLrOnPlateau { min_lr, ..self }
    }
}

impl ReduceLrOnPlateau {
    /// Takes an epoch's value in, and its learning rate; says whether that is to become lower.
    fn watch(&mut self, value: f64, learning_rate: f32) -> bool {
        if self.cooling > 0 {
            self.cooling -= 1;
            self.waited = 0;
        }
        if self.monitor.improves(value) {
            self.waited = 0;
        } else if self.cooling == 0 {
            self.waited += 1;
            if self.waited >= self.patience && learning_rate > self.min_lr {
                (self.cooling, self.waited) = (self.cooldown, 0);
                return true;
            }
        }
        false
    }
}

impl Callback for ReduceLrOnPlateau {
    fn on_train_begin(&mut self, _training: &Training, control: &mut Control<'_>) -> CallbackResult {
        (self.monitor.best, self.waited, self.cooling) = (None, 0, 0);
        // Of a training that goes on, whose rates are known.
        let history = control.model().history();
        let rates = history.get("learning_rate").unwrap_or(&[]);
        for ((_, value), &rate) in self.monitor.known(history).into_iter().zip(rates) {
            self.watch(value, rate as f32);
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        let value = epoch.monitored(&self.monitor.name)?;
        if self.watch(value, control.learning_rate()) {
            control.set_learning_rate((control.learning_rate() * self.factor).max(self.min_lr));
        }
        Ok(())
    }
}
