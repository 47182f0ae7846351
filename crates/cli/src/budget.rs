//! `--time`: how many epochs fit into a time, by what a few steps take.

use std::time::{Duration, Instant};

use anyhow::Result;
use ocellus::data::Dataset;
use ocellus::model::{FitOptions, Model, ParameterGroup, Precision};
use ocellus::recipe::Recipe;

use crate::output::note;
use crate::progress::seconds;
use crate::settings::{Epochs, Resolved};

/// The share of the time that is planned with: other programs run, too, and results have to be written.
const PLANNED: f64 = 0.95;
/// Images that prediction is timed on.
const PREDICTED: usize = 512;

/// The number of epochs for which a training and its measurements take about this long, counted from `began`.
pub(crate) fn epochs(
    model: &mut Model,
    [train, validation, test]: [&Dataset; 3],
    settings: &Resolved,
    (recipe, groups, teacher): (&Recipe, Vec<ParameterGroup>, Option<&Model>),
    time: Duration,
    began: Instant,
) -> Result<Epochs> {
    let batch_size = settings.batch_size;
    let each = recipe.steps(train.len(), batch_size, 1.0);
    let mut options = recipe.options(FitOptions::new().batch_size(batch_size).seed(settings.seed).groups(groups), each);
    options.distillation = settings.distillation.distillation(teacher);
    let trial = Duration::from_secs_f64((time.as_secs_f64() * 0.02).clamp(0.2, 10.0));
    let step = model.time_step(train, options, trial)?;
    // The test is in single precision, which is what the model's file is used in; validation is not slower.
    model.set_precision(Precision::F32)?;
    let images = validation.take(PREDICTED);
    model.evaluate(&images)?;
    let predicting = Instant::now();
    model.evaluate(&images)?;
    let image = predicting.elapsed().as_secs_f64() / images.len() as f64;
    let views = match recipe.views.count() {
        1 => 1,
        count => count + 1,
    };
    let left = time.as_secs_f64() * PLANNED - began.elapsed().as_secs_f64() - image * (test.len() * views) as f64;
    let epoch = step * each.steps as f64 + image * validation.len() as f64;
    // At least one step.
    let epochs = (left / epoch).max(1.0 / each.steps as f64);
    // Whole steps, as a short number.
    let epochs = ((epochs * 100.0).floor() / 100.0).max(0.01);
    note(format_args!(
        "a step takes {:.0} ms, an epoch with its validation {}: {epochs} epochs in {}",
        step * 1e3,
        seconds(epoch),
        seconds(time.as_secs_f64())
    ));
    Ok(Epochs(epochs))
}

/// A time such as `90s`, `10m` or `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time such as 90s, 10m or 1h30m".to_owned();
    let (mut whole, mut number) = (0.0, String::new());
    for c in text.chars() {
        let unit = match c {
            '0'..='9' | '.' => {
                number.push(c);
                continue;
            }
            's' => 1.0,
            'm' => 60.0,
            'h' => 3600.0,
            _ => return Err(wrong()),
        };
        whole += number.parse::<f64>().map_err(|_| wrong())? * unit;
        number.clear();
    }
    let sensible = number.is_empty() && whole > 0.0 && whole <= 3600.0 * 24.0 * 365.0;
    if sensible { Ok(Duration::from_secs_f64(whole)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, expected) in [("90s", 90.0), ("10m", 600.0), ("1h30m", 5400.0), ("0.5m", 30.0), ("1m1m", 120.0)] {
            assert_eq!(duration(text).unwrap().as_secs_f64(), expected, "{text}");
        }
        for text in ["", "10", "0s", "-1s", "m", "1d", "1e3s", "1..2s", "99999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
