//! `ocellus quantize`: a model prepared for prediction in 8 bits, and what that changes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use ocellus::data::{Dataset, Split};
use ocellus::metrics::{Accuracy, Metric};
use ocellus::model::{Model, Precision, Predictions};
use ocellus::report;
use serde::Serialize;

use crate::arguments::Quantize;
use crate::output::{lossy, note, print, print_json, quoted, thousands};
use crate::{evaluate, models};

/// Images of one measurement of the speed, and the seconds that it is to take.
const SPEED_IMAGES: usize = 256;
const SPEED_SECONDS: f64 = 1.0;

pub(crate) fn run(arguments: Quantize) -> Result<()> {
    let mut model = models::load(&arguments.model)?;
    model.set_threads(arguments.threads);
    let splits = [Split::Train, Split::Validation, Split::Test];
    let (train, _) = evaluate::open_first(&model, &arguments.data, &splits, arguments.strict, &arguments.loading)?;
    let test = evaluate::open(&model, &arguments.data, arguments.strict, &arguments.loading)?;
    let images = train.len().min(arguments.images);
    // Evenly spread: a folder's images lie class by class.
    let chosen = train.subset((0..images).map(|index| index * train.len() / images));
    note(format_args!("measuring ranges on {} of {} images", thousands(images as u64), thousands(train.len() as u64)));
    model.calibrate(&chosen)?;

    let (f32, before) = measure(&mut model, Precision::F32, &test)?;
    let (int8, after) = measure(&mut model, Precision::Int8, &test)?;
    let agreeing = before.classes().iter().zip(after.classes()).filter(|(a, b)| **a == *b).count();
    let output = arguments.output.as_ref().unwrap_or(&arguments.model);
    model.save(output)?;
    let outcome = Outcome {
        model: &arguments.model,
        data: &arguments.data,
        output,
        calibration_images: images,
        test_images: test.len(),
        accuracy_difference: int8.accuracy - f32.accuracy,
        same_class: agreeing as f64 / test.len().max(1) as f64,
        speedup: int8.images_s / f32.images_s,
        f32,
        int8,
    };
    if arguments.json { print_json(&outcome) } else { print(outcome.text()) }
}

/// How good and how fast the model is in one precision.
#[derive(Serialize)]
struct Measured {
    accuracy: f64,
    /// Images per second.
    images_s: f64,
}

fn measure(model: &mut Model, precision: Precision, test: &Dataset) -> Result<(Measured, Predictions)> {
    model.set_precision(precision)?;
    let predictions = model.predict(test)?;
    let mut accuracy = Accuracy::new();
    accuracy.update(predictions.values(), test.labels(), None);
    let some = test.subset((0..SPEED_IMAGES).map(|index| index % test.len()));
    let (began, mut best) = (Instant::now(), 0.0f64);
    while best == 0.0 || began.elapsed().as_secs_f64() < SPEED_SECONDS {
        let began = Instant::now();
        model.predict(&some)?;
        best = best.max(SPEED_IMAGES as f64 / began.elapsed().as_secs_f64().max(1e-9));
    }
    Ok((Measured { accuracy: accuracy.value(), images_s: best.round() }, predictions))
}

#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(serialize_with = "lossy")]
    model: &'a Path,
    #[serde(serialize_with = "lossy")]
    data: &'a Path,
    #[serde(serialize_with = "lossy")]
    output: &'a PathBuf,
    calibration_images: usize,
    test_images: usize,
    f32: Measured,
    int8: Measured,
    /// Of int8 over f32.
    accuracy_difference: f64,
    /// The share of test images for which both name the same class.
    same_class: f64,
    speedup: f64,
}

impl Outcome<'_> {
    fn text(&self) -> String {
        let row = |name: &str, measured: &Measured| {
            let speed = thousands(measured.images_s as u64);
            format!("{name:<6} accuracy {:>7}  {speed:>10} images/s\n", report::percent(measured.accuracy))
        };
        format!(
            "{}{}int8 differs by {:+.2} points and is {:.1} times as fast; both name the same class for {} of {} images.\n\n\
             {} holds the ranges now. Compute in 8 bits with\n  ocellus predict {} IMAGE --precision int8\n",
            row("f32", &self.f32),
            row("int8", &self.int8),
            100.0 * self.accuracy_difference,
            self.speedup,
            report::percent(self.same_class),
            thousands(self.test_images as u64),
            self.output.display(),
            quoted(self.output),
        )
    }
}
