//! A function as a callback.

use super::{BatchEnd, Callback, CallbackResult, Control, EpochEnd};

type OnEpoch<'a> = Box<dyn FnMut(&EpochEnd<'_>, &mut Control<'_>) + 'a>;
type OnBatch<'a> = Box<dyn FnMut(&BatchEnd<'_>, &mut Control<'_>) + 'a>;

/// Calls functions after steps or epochs.
#[derive(Default)]
pub struct Closure<'a> {
    epoch: Option<OnEpoch<'a>>,
    batch: Option<OnBatch<'a>>,
}

impl<'a> Closure<'a> {
    /// Calls this after each epoch.
    pub fn on_epoch_end(f: impl FnMut(&EpochEnd<'_>, &mut Control<'_>) + 'a) -> Self {
        Closure { epoch: Some(Box::new(f)), batch: None }
    }

    /// Calls this after each step.
    pub fn on_batch_end(f: impl FnMut(&BatchEnd<'_>, &mut Control<'_>) + 'a) -> Self {
        Closure { epoch: None, batch: Some(Box::new(f)) }
    }
}

impl Callback for Closure<'_> {
    fn on_batch_end(&mut self, batch: &BatchEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        if let Some(f) = &mut self.batch {
            f(batch, control);
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        if let Some(f) = &mut self.epoch {
            f(epoch, control);
        }
        Ok(())
    }
}
