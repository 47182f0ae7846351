//! Whether a measured value has become better.

use crate::history::{History, lower_is_better};

/// Which values are better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Higher ones for accuracies and their like, lower ones otherwise.
    #[default]
    Auto,
    /// Lower ones.
    Min,
    /// Higher ones.
    Max,
}

/// A value watched for becoming better.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    pub(super) name: String,
    pub(super) mode: Mode,
    pub(super) min_delta: f64,
    pub(super) best: Option<f64>,
}

impl Monitor {
    pub(super) fn new(name: impl Into<String>, min_delta: f64) -> Self {
        Monitor { name: name.into(), mode: Mode::Auto, min_delta, best: None }
    }

    /// The value in the epochs of a training that goes on, with their numbers.
    pub(super) fn known(&self, history: &History) -> Vec<(u64, f64)> {
        let values = history.get(&self.name).unwrap_or(&[]);
        history.epochs().iter().copied().zip(values.iter().copied()).collect()
    }

    /// Takes a value in and says whether it is better than the best so far by more than `min_delta`. NaN never is.
    pub(super) fn improves(&mut self, value: f64) -> bool {
        let lower = match self.mode {
            Mode::Min => true,
            Mode::Max => false,
            Mode::Auto => lower_is_better(&self.name),
        };
        let better = match self.best {
            None => !value.is_nan(),
            Some(best) if lower => value < best - self.min_delta,
            Some(best) => value > best + self.min_delta,
        };
        if better {
            self.best = Some(value);
        }
        better
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_is_lower_for_losses_and_higher_for_accuracies() {
        for (name, mode, values, expected) in [
            ("val_loss", Mode::Auto, [1.0, 0.9, 0.95, 0.89, f64::NAN], [true, true, false, false, false]),
            ("val_accuracy", Mode::Auto, [0.5, 0.7, 0.72, 0.6, 0.8], [true, true, false, false, true]),
            ("val_accuracy", Mode::Min, [f64::NAN, 0.5, 0.7, 0.4, 0.3], [false, true, false, true, true]),
        ] {
            let mut monitor = Monitor { mode, ..Monitor::new(name, 0.05) };
            assert_eq!(values.map(|value| monitor.improves(value)), expected, "{name} {mode:?}");
        }
    }
}
