//! Writes down what each epoch measured.

use super::{Callback, CallbackResult, Control, EpochEnd, Training};
use crate::history::History;
use std::path::PathBuf;

/// Writes a CSV file with a line for each epoch, anew after each one and whole or not at all.
#[derive(Clone, Debug)]
pub struct CsvLogger {
    path: PathBuf,
    history: History,
}

impl CsvLogger {
    /// Writes to this file, over what was there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        CsvLogger { path: path.into(), history: History::new() }
    }
}

impl Callback for CsvLogger {
    fn on_train_begin(&mut self, _training: &Training, control: &mut Control<'_>) -> CallbackResult {
        // Not empty where a training goes on.
        self.history = control.model().history().clone();
        Ok(())
    }

    fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, _control: &mut Control<'_>) -> CallbackResult {
        self.history.push(epoch.epoch, epoch.values.iter().map(|(name, value)| (name.as_str(), *value)));
        Ok(self.history.write_csv(&self.path)?)
    }
}
