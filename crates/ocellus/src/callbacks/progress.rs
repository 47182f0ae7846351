//! Shows how a training goes, as Keras does: a line for each epoch, and on a terminal a bar that moves.

use super::{BatchEnd, Callback, CallbackResult, Control, EpochEnd, Training};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the bar moves.
const INTERVAL: Duration = Duration::from_millis(100);
/// Characters of the bar.
const WIDTH: u64 = 20;

/// Writes progress where it is told to.
pub struct Progress<W> {
    to: W,
    bar: bool,
    training: Option<Training>,
    started: Instant,
    shown: Option<Instant>,
    line: String,
}

impl Progress<std::io::Stderr> {
    /// Writes to standard error: a line for each epoch, and where that is a terminal and it is wanted, a bar.
    pub fn stderr(bar: bool) -> Self {
        let to = std::io::stderr();
        let bar = bar && to.is_terminal();
        Progress::new(to, bar)
    }
}

impl<W: Write> Progress<W> {
    /// Writes there; with a bar, lines are overwritten by means of a carriage return.
    pub fn new(to: W, bar: bool) -> Self {
        Progress { to, bar, training: None, started: Instant::now(), shown: None, line: String::new() }
    }

    fn show(&mut self, epoch: &BatchEnd<'_>) -> std::fmt::Result {
        let Some(training) = &self.training else { return Ok(()) };
        let done = WIDTH * epoch.step / training.steps.max(1);
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = epoch.samples as f64 / seconds.max(1e-9);
        let left = (training.samples - epoch.samples.min(training.samples)) as f64 / rate.max(1e-9);
        let line = &mut self.line;
        line.clear();
        write!(line, "\r{}/{} [", epoch.step, training.steps)?;
        (0..WIDTH).for_each(|at| line.push(if at < done { '=' } else { '.' }));
        write!(line, "] {left:.0}s left, {rate:.0}/s")?;
        epoch.values.iter().try_for_each(|(name, value)| write!(line, " - {name}: {value:.4}"))?;
        line.push_str("\x1b[K");
        Ok(())
    }
}

impl<W: Write> Callback for Progress<W> {
    fn on_train_begin(&mut self, training: &Training, _control: &mut Control<'_>) -> CallbackResult {
        self.training = Some(training.clone());
        Ok(())
    }

    fn on_epoch_begin(&mut self, _epoch: u64, _control: &mut Control<'_>) -> CallbackResult {
        self.started = Instant::now();
        self.shown = None;
        Ok(())
    }

    fn on_batch_end(&mut self, batch: &BatchEnd<'_>, _control: &mut Control<'_>) -> CallbackResult {
        let now = Instant::now();
        if self.bar && self.shown.is_none_or(|shown| now - shown >= INTERVAL) {
            self.shown = Some(now);
            self.show(batch)?;
            self.to.write_all(self.line.as_bytes())?;
            self.to.flush()?;
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, epoch: &EpochEnd<'_>, _control: &mut Control<'_>) -> CallbackResult {
        let epochs = self.training.as_ref().map_or(0, |training| training.epochs);
        let line = &mut self.line;
        line.clear();
        line.push_str(if self.bar { "\r\x1b[K" } else { "" });
        write!(line, "Epoch {}/{epochs}", epoch.epoch + 1)?;
        for (name, value) in epoch.values {
            match name.as_str() {
                "seconds" => write!(line, " - {value:.1}s")?,
                "learning_rate" => write!(line, " - {name}: {value:.2e}")?,
                _ => write!(line, " - {name}: {value:.4}")?,
            }
        }
        line.push('\n');
        self.to.write_all(line.as_bytes())?;
        Ok(self.to.flush()?)
    }
}
