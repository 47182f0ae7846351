//! Which learning rate suits a model: some steps, each with a higher one, and what the loss does.
//!
//! Smith, *Cyclical learning rates for training neural networks*, 2017.

use super::{FitOptions, Model, ModelError, Samples};
use crate::callbacks::{BatchEnd, Callback, CallbackResult, Control};
use crate::schedules::Schedule;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What a range test measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RangeTest {
    /// The learning rate of each step, ascending.
    pub rates: Vec<f64>,
    /// The loss of each step.
    pub losses: Vec<f64>,
    /// The losses smoothed over some steps.
    pub smoothed: Vec<f64>,
    /// Where the smoothed loss falls fastest; none where it never falls.
    pub steepest: Option<f64>,
    /// A tenth of the rate with the least smoothed loss.
    pub tenth_of_least: Option<f64>,
    /// Whether the test ended early, because the loss rose far above its least.
    pub diverged: bool,
}

/// The test ends where the smoothed loss is so many times its least.
const DIVERGED: f64 = 4.0;
/// What the smoothed loss keeps of itself at each step.
const KEPT: f64 = 0.9;
/// Steps at the beginning that nothing is concluded from.
const WARM: usize = 5;

impl RangeTest {
    /// The rate to train with: where the loss falls fastest.
    pub fn suggestion(&self) -> Option<f64> {
        self.steepest
    }

    fn of(rates: Vec<f64>, losses: Vec<f64>, diverged: bool) -> Self {
        let smoothed = smoothed(&losses);
        let least = (WARM.min(smoothed.len())..smoothed.len()).min_by(|&a, &b| smoothed[a].total_cmp(&smoothed[b]));
        // Slopes between steps three to each side; rates are spaced evenly in their logarithm.
        let end = least.map_or(0, |least| least + 1);
        let slope = |at: usize| smoothed[at + 3] - smoothed[at - 3];
        let places = WARM.max(3)..end.saturating_sub(3).max(WARM.max(3));
        let steepest = places.filter(|&at| at + 3 < smoothed.len()).min_by(|&a, &b| slope(a).total_cmp(&slope(b)));
        RangeTest {
            steepest: steepest.filter(|&at| slope(at) < 0.0).map(|at| rates[at]),
            tenth_of_least: least.map(|at| rates[at] / 10.0),
            rates,
            losses,
            smoothed,
            diverged,
        }
    }
}

/// A moving average without the bias of its beginning.
fn smoothed(losses: &[f64]) -> Vec<f64> {
    let (mut mean, mut kept) = (0.0, 1.0);
    let smooth = losses.iter().map(|loss| {
        mean = KEPT * mean + (1.0 - KEPT) * loss;
        kept *= KEPT;
        mean / (1.0 - kept)
    });
    smooth.collect()
}

impl Model {
    /// Trains for some steps with learning rates from `lowest` to `highest`, evenly spaced in their logarithm, and then takes the weights
    /// back; the optimizer begins anew. It ends early where the loss rises far.
    ///
    /// # Errors
    /// As for [`fit`](Self::fit), save that a loss that is no longer finite ends the test and is no error.
    pub fn find_learning_rate<'a>(
        &mut self,
        samples: impl Into<Samples<'a>>,
        options: FitOptions<'a>,
        (lowest, highest): (f32, f32),
        steps: u64,
    ) -> Result<RangeTest, ModelError> {
        if !(lowest > 0.0 && lowest < highest && highest.is_finite()) || steps < 2 {
            return Err(ModelError::Argument(format!(
                "expected two rates above 0, the first one lower, and two or more steps; received {lowest}, {highest}, {steps}"
            )));
        }
        let schedule = Schedule::exponential(lowest, steps - 1, highest / lowest);
        let mut recorder = Recorder::default();
        let result = self.try_training(samples.into(), options, &schedule, steps, &mut recorder);
        let diverged = recorder.diverged || matches!(result, Err(ModelError::NotFinite { .. }));
        match result {
            Ok(()) | Err(ModelError::NotFinite { .. }) => {}
            Err(error) => return Err(error),
        }
        let rates = (0..recorder.losses.len() as u64).map(|step| f64::from(schedule.at(step))).collect();
        Ok(RangeTest::of(rates, recorder.losses, diverged))
    }

    /// Seconds that a step of training takes: the median of those that a trial of about this time has room for, at least three. The
    /// weights are as before; the optimizer begins anew.
    ///
    /// # Errors
    /// As for [`fit`](Self::fit).
    pub fn time_step<'a>(
        &mut self,
        samples: impl Into<Samples<'a>>,
        options: FitOptions<'a>,
        trial: Duration,
    ) -> Result<f64, ModelError> {
        let mut clock = Clock { last: Instant::now(), seconds: Vec::new(), trial: trial.as_secs_f64() };
        // So small that the loss stays finite whatever the optimizer does.
        let result = self.try_training(samples.into(), options, &1e-9.into(), u64::MAX, &mut clock);
        result?;
        // The first one finds nothing in the caches.
        let seconds = if clock.seconds.len() > 1 { &mut clock.seconds[1..] } else { &mut clock.seconds[..] };
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }

    /// Trains for at most so many steps and takes everything back: weights, record, history.
    fn try_training(
        &mut self,
        samples: Samples<'_>,
        options: FitOptions<'_>,
        schedule: &Schedule,
        steps: u64,
        callback: &mut impl Callback,
    ) -> Result<(), ModelError> {
        let Some(compiled) = &self.compiled else { return Err(ModelError::NotCompiled) };
        let optimizer = compiled.optimizer.clone();
        let (weights, record, history) = (self.snapshot(), self.record.clone(), self.history.clone());
        self.set_optimizer(optimizer.clone().with_learning_rate(schedule.clone()));
        let options = FitOptions {
            epochs: u64::MAX,
            steps: Some(steps),
            validation_data: None,
            validation_split: None,
            averaging: None,
            // Of whole images, which take the longest.
            resizing: None,
            ..options
        };
        let result = self.fit(samples, options.callback(callback));
        self.restore(&weights);
        (self.record, self.history) = (record, history);
        self.set_optimizer(optimizer);
        result.map(|_| ())
    }

    /// Puts another optimizer in the place of the one that the model was compiled with; it begins anew.
    fn set_optimizer(&mut self, optimizer: crate::optimizers::Optimizer) {
        if let Some(compiled) = &mut self.compiled {
            compiled.optimizer = optimizer;
        }
        self.reset_optimizer();
    }
}

/// Times steps until a trial is over.
struct Clock {
    last: Instant,
    seconds: Vec<f64>,
    trial: f64,
}

impl Callback for Clock {
    fn on_epoch_begin(&mut self, _epoch: u64, _control: &mut Control<'_>) -> CallbackResult {
        self.last = Instant::now();
        Ok(())
    }

    fn on_batch_end(&mut self, _batch: &BatchEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        self.seconds.push(self.last.elapsed().as_secs_f64());
        self.last = Instant::now();
        if self.seconds.len() > 3 && self.seconds.iter().sum::<f64>() > self.trial {
            control.stop();
        }
        Ok(())
    }
}

/// Keeps the loss of each step.
#[derive(Default)]
struct Recorder {
    losses: Vec<f64>,
    /// The epoch's sum of losses so far, and its samples.
    sum: f64,
    samples: usize,
    diverged: bool,
}

impl Callback for Recorder {
    fn on_epoch_begin(&mut self, _epoch: u64, _control: &mut Control<'_>) -> CallbackResult {
        (self.sum, self.samples) = (0.0, 0);
        Ok(())
    }

    fn on_batch_end(&mut self, batch: &BatchEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        // What is told is the mean over the epoch so far.
        let mean = batch.values.first().map_or(f64::NAN, |(_, value)| *value);
        let sum = mean * batch.samples as f64;
        self.losses.push((sum - self.sum) / (batch.samples - self.samples).max(1) as f64);
        (self.sum, self.samples) = (sum, batch.samples);
        let smoothed = smoothed(&self.losses);
        let least = smoothed.iter().copied().fold(f64::INFINITY, f64::min);
        if smoothed.len() > WARM && smoothed.last().is_some_and(|&last| last > DIVERGED * least.max(1e-3)) {
            self.diverged = true;
            control.stop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{self, Split};
    use crate::layers::{Activation, Conv2d, Dense, Flatten};
    use crate::losses::Loss;
    use crate::model::Sequential;
    use crate::optimizers::Sgd;

    #[test]
    fn the_steepest_fall_is_suggested() {
        // Flat, a fall around the 40th of 100 steps, and a rise from the 70th on.
        let losses: Vec<f64> = (0..100)
            .map(|step| {
                let fall = 2.0 / (1.0 + (-(f64::from(step) - 40.0) / 3.0).exp());
                3.0 - fall + if step > 70 { f64::from(step - 70) * 0.2 } else { 0.0 }
            })
            .collect();
        let rates: Vec<f64> = (0..100).map(|step| 1e-4 * 1.1f64.powi(step)).collect();
        let test = RangeTest::of(rates.clone(), losses, false);
        // Smoothing comes some steps late.
        let at = rates.iter().position(|rate| Some(*rate) == test.suggestion()).unwrap();
        assert!((38..50).contains(&at), "{at}");
        assert!(test.tenth_of_least.unwrap() > rates[40]);
        let rising = RangeTest::of(rates, (0..100).map(f64::from).collect(), true);
        assert_eq!(rising.suggestion(), None);
    }

    #[test]
    fn weights_and_optimizer_are_as_before() {
        let train = data::builtin(Split::Train).unwrap().take(320);
        let mut model = Sequential::new([28, 28, 1])
            .add(Conv2d::new(4, 5).strides(3).activation(Activation::Relu))
            .add(Flatten::new())
            .add(Dense::new(10).activation(Activation::Softmax))
            .build()
            .unwrap();
        model.compile(Sgd::new().momentum(0.9), Loss::categorical_cross_entropy(), ()).unwrap();
        let before = model.snapshot();
        let test = model.find_learning_rate(&train, FitOptions::new(), (1e-5, 1e3), 60).unwrap();
        assert!(test.diverged && test.rates.len() < 60, "{test:?}");
        assert!((1e-4..1.0).contains(&test.suggestion().unwrap()), "{test:?}");
        assert!(model.snapshot() == before);
        let mut fresh = Sequential::new([28, 28, 1])
            .add(Conv2d::new(4, 5).strides(3).activation(Activation::Relu))
            .add(Flatten::new())
            .add(Dense::new(10).activation(Activation::Softmax))
            .build()
            .unwrap();
        fresh.compile(Sgd::new().momentum(0.9), Loss::categorical_cross_entropy(), ()).unwrap();
        for model in [&mut model, &mut fresh] {
            model.fit(&train, FitOptions::new()).unwrap();
        }
        assert!(model.snapshot() == fresh.snapshot(), "trains as if nothing had been");
        assert!(model.find_learning_rate(&train, FitOptions::new(), (1.0, 0.1), 60).is_err());
        let before = model.snapshot();
        let seconds = model.time_step(&train, FitOptions::new(), Duration::from_millis(5)).unwrap();
        assert!(seconds > 0.0 && seconds < 5.0 && model.snapshot() == before, "{seconds}");
    }
}
