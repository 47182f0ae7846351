//! A learning rate for each epoch.

use super::{Callback, CallbackResult, Control};

/// Sets the learning rate before each epoch to what a function of epoch (0 for the first) and present rate gives.
pub struct LearningRateScheduler<F> {
    schedule: F,
}

impl<F: FnMut(u64, f32) -> f32> LearningRateScheduler<F> {
    /// Asks this function.
    pub fn new(schedule: F) -> Self {
        LearningRateScheduler { schedule }
    }
}

impl<F: FnMut(u64, f32) -> f32> Callback for LearningRateScheduler<F> {
    fn on_epoch_begin(&mut self, epoch: u64, control: &mut Control<'_>) -> CallbackResult {
        let learning_rate = (self.schedule)(epoch, control.learning_rate());
        control.set_learning_rate(learning_rate);
        Ok(())
    }
}
