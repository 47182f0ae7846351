//! How a training goes, on stderr: a line that stays for each epoch and, on a terminal, a bar that moves.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ocellus::callbacks::{BatchEnd, Callback, CallbackResult, Control, EpochEnd, Training};

use crate::output::{note, thousands};

/// How often the bar is drawn anew: more often is not seen.
const INTERVAL: Duration = Duration::from_millis(80);

/// Narrow enough for the message to be whole on 80 columns, with two digits of epochs and four of steps.
const BAR: &str = "{prefix} {bar:8} {pos}/{len} {wide_msg}";

/// Shows a training's epochs and steps.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    training: Option<Training>,
    epoch_began: Instant,
    drawn: Instant,
    /// Seconds that the epoch's steps took, validation not among them.
    trained: f64,
}

impl Progress {
    /// Shows it on stderr; without a terminal there, as lines only.
    pub(crate) fn stderr() -> Self {
        let now = Instant::now();
        Self {
            bar: io::stderr().is_terminal().then(hidden),
            training: None,
            epoch_began: now,
            drawn: now,
            trained: 0.0,
        }
    }

    /// Takes the bar away, whatever became of the training.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Callback for Progress {
    fn on_train_begin(&mut self, training: &Training, _control: &mut Control<'_>) -> CallbackResult {
        self.training = Some(training.clone());
        Ok(())
    }

    fn on_epoch_begin(&mut self, epoch: u64, _control: &mut Control<'_>) -> CallbackResult {
        self.epoch_began = Instant::now();
        self.drawn = self.epoch_began;
        if let (Some(bar), Some(training)) = (&mut self.bar, &self.training) {
            *bar = ProgressBar::with_draw_target(Some(training.steps), ProgressDrawTarget::stderr_with_hz(20));
            bar.set_style(style(BAR));
            bar.set_prefix(format!("epoch {}", count_of(epoch + 1, training.epochs)));
        }
        Ok(())
    }

    fn on_batch_end(&mut self, batch: &BatchEnd<'_>, _control: &mut Control<'_>) -> CallbackResult {
        let Some(training) = &self.training else { return Ok(()) };
        let now = Instant::now();
        self.trained = (now - self.epoch_began).as_secs_f64();
        let Some(bar) = &self.bar else { return Ok(()) };
        let last = batch.step == training.steps;
        if now - self.drawn < INTERVAL && !last {
            return Ok(());
        }
        self.drawn = now;
        let rate = batch.samples as f64 / self.trained;
        let left = training.samples.saturating_sub(batch.samples) as f64 / rate;
        let values: String = batch.values.iter().map(|(name, value)| format!("{name} {value:.4} ")).collect();
        let rest = match training.validation_samples {
            Some(_) if last => "validating".to_owned(),
            _ => format!("{} left", seconds(left)),
        };
        bar.set_position(batch.step);
        bar.set_message(format!("{values}{}/s {rest}", thousands(rate as u64)));
        Ok(())
    }

    fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, _control: &mut Control<'_>) -> CallbackResult {
        self.clear();
        let Some(training) = &self.training else { return Ok(()) };
        let mut line = format!("epoch {}", count_of(epoch.epoch + 1, training.epochs));
        for name in ["loss", "accuracy", "val_loss", "val_accuracy"] {
            if let Some(value) = epoch.get(name) {
                line += &format!("  {name} {value:.4}");
            }
        }
        let rate = training.samples as f64 / self.trained.max(1e-9);
        let took = self.epoch_began.elapsed().as_secs_f64();
        line += &format!("  {}/s  {}", thousands(rate as u64), seconds(took));
        note(line);
        Ok(())
    }
}

/// Shows how many of a folder's images have been read, on a terminal and where it takes a while.
pub(crate) struct Reading {
    bar: ProgressBar,
    began: Instant,
    shown: AtomicBool,
}

impl Reading {
    pub(crate) fn stderr() -> Self {
        Self { bar: hidden(), began: Instant::now(), shown: AtomicBool::new(false) }
    }

    /// So many of so many were read; called from several threads.
    pub(crate) fn update(&self, done: usize, all: usize) {
        let late = self.began.elapsed() > Duration::from_millis(300);
        if late && io::stderr().is_terminal() && !self.shown.swap(true, Ordering::Relaxed) {
            self.bar.set_style(style("reading images {bar:24} {pos}/{len}  {per_sec}  {eta} left"));
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
        if self.shown.load(Ordering::Relaxed) {
            self.bar.set_length(all as u64);
            self.bar.set_position(done as u64);
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn hidden() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
}

fn style(template: &str) -> ProgressStyle {
    // The templates are above; one that was wrong would show as the default bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

/// ` 3/10`, as wide for each epoch.
fn count_of(number: u64, all: u64) -> String {
    let width = all.to_string().len();
    format!("{number:>width$}/{all}")
}

/// A time as people say it.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "?".into(),
        s if s < 9.95 => format!("{s:.1}s"),
        s if s < 99.5 => format!("{s:.0}s"),
        s if s < 5970.0 => format!("{:.0}m{:02.0}s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0}h{:02.0}m", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let texts = [0.04, 9.96, 59.6, 125.0, 3599.0, 7384.0, f64::NAN].map(seconds);
        assert_eq!(texts, ["0.0s", "10s", "60s", "2m05s", "59m59s", "2h03m", "?"]);
        assert_eq!([count_of(3, 10), count_of(10, 10)], [" 3/10", "10/10"]);
    }
}
