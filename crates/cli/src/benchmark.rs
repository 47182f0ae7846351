//! `ocellus benchmark`: how fast a model trains and predicts on this machine.

use std::time::Instant;

use anyhow::Result;
use ocellus::data::{Dataset, Split, builtin};
use ocellus::losses::Loss;
use ocellus::metrics::Accuracy;
use ocellus::model::{FitOptions, Model, Precision};
use ocellus::optimizers::Adam;
use ocellus::random::{Purpose, Random};
use ocellus::{StepTime, peak};
use serde::Serialize;

use crate::arguments::{Benchmark, What};
use crate::comparison::Earlier;
use crate::models;
use crate::output::{note, print, print_json, thousands};

/// Of so many measurements the best counts: others ran while the machine did something else, too.
const REPEATS: usize = 3;
/// Seconds that one measurement of training and of prediction is to take, and the fewest steps it has.
const SECONDS: f64 = 1.5;
const FEWEST_STEPS: usize = 4;
/// Single predictions, of which the median counts.
const SINGLES: usize = 300;
/// Those of a large model may be fewer, if they take this many times as long as another measurement.
const SINGLES_SECONDS: f64 = 2.0 * SECONDS;
const FEWEST_SINGLES: usize = 20;

/// Images that the ranges for prediction in 8 bits are measured on.
const CALIBRATION: usize = 64;

/// Images of noise, where the carried ones do not have the shape that is asked for.
const NOISE: usize = 64;

/// Time for measuring the peak.
const PEAK_MILLIS: u64 = 30;

#[derive(Serialize)]
struct Figures {
    version: &'static str,
    model: String,
    parameters: usize,
    /// Height, width and channels.
    image_shape: [usize; 3],
    instruction_set: String,
    threads: usize,
    batch_size: usize,
    /// Images per second through training steps; null, as the others, where that was not asked for.
    train_samples_s: Option<f64>,
    /// What training and predictions were computed in.
    train_precision: &'static str,
    precision: &'static str,
    /// Images per second through predictions of many.
    infer_samples_s: Option<f64>,
    /// Microseconds for the prediction of one image.
    latency_us: Option<f64>,
    /// Fused multiply-add on one core, billions of operations per second, measured in this run.
    peak_gflops: f64,
    /// The same for what predictions were computed in.
    infer_peak_gflops: f64,
    /// Where a training step's time goes, in running order.
    steps: Vec<Step>,
    /// The same of the prediction of a batch, and of one image, where operations that threads share are measured by the clock
    /// and against the peak of all of them.
    infer_steps: Vec<Step>,
    latency_steps: Vec<Step>,
}

/// One operation.
#[derive(Serialize)]
struct Step {
    layer: String,
    operation: &'static str,
    /// Microseconds for each image, of one thread.
    us: f64,
    /// As the operation's definition counts them, so that filtering and sparsity exceed the peak.
    gflops: f64,
    gbs: f64,
    percent_of_peak: f64,
}

pub(crate) fn run(arguments: Benchmark) -> Result<()> {
    let images = images(arguments.image_shape, arguments.classes)?;
    let earlier = arguments.compare.as_deref().map(Earlier::read).transpose()?;
    let plan = models::Plan::find(&arguments.model)?;
    let mut model = plan.build(images.image_shape(), images.class_count(), 0)?;
    model.set_threads(arguments.threads);
    model.compile(Adam::new(), Loss::for_outputs(images.class_count()), [Accuracy::new()])?;
    note(format_args!("{}: {} parameters", plan.name(), thousands(model.parameter_count() as u64)));

    let wants = |what: What| arguments.what.is_none_or(|only| only == what);
    let batch = arguments.batch_size;
    let threads = arguments.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let precision = Precision::from(arguments.precision);
    let in_training = if precision == Precision::Int8 { Precision::F32 } else { precision };
    model.set_precision(in_training)?;
    let train = match wants(What::Train) {
        true => Some(train_rate(&mut model, &images, batch, arguments.threads)?),
        false => None,
    };
    let level = model.level()?;
    let peak = peak::fma_gflops(level, PEAK_MILLIS);
    let steps = match train {
        Some(rate) => train_steps(&mut model, &images, &arguments, rate, peak)?,
        None => Vec::new(),
    };
    // After training, which makes a model forget the ranges.
    let mut infer_peak = peak;
    if precision == Precision::Int8 {
        model.calibrate(&images.take(CALIBRATION))?;
        infer_peak = peak::vnni_gops(level, PEAK_MILLIS);
    }
    model.set_precision(precision)?;
    let infer = if wants(What::Infer) { Some(infer_rate(&mut model, &images, batch)?) } else { None };
    let latency = if wants(What::Latency) { Some(latency(&mut model, &images)?) } else { None };
    let figures = Figures {
        version: env!("CARGO_PKG_VERSION"),
        model: plan.name().into(),
        parameters: model.parameter_count(),
        image_shape: images.image_shape(),
        instruction_set: level.name().into(),
        threads,
        batch_size: batch,
        train_samples_s: train.map(rounded),
        train_precision: in_training.name(),
        precision: precision.name(),
        infer_samples_s: infer.map(rounded),
        latency_us: latency.map(|seconds| (seconds * 1e7).round() / 10.0),
        peak_gflops: rounded(peak),
        infer_peak_gflops: rounded(infer_peak),
        steps,
        infer_steps: match infer {
            Some(rate) => infer_steps(&mut model, &images, batch, rate / batch as f64, infer_peak)?,
            None => Vec::new(),
        },
        latency_steps: match latency {
            Some(seconds) => infer_steps(&mut model, &images, 1, 1.0 / seconds, infer_peak * threads as f64)?,
            None => Vec::new(),
        },
    };
    if arguments.json {
        return print_json(&figures);
    }
    let compared = earlier.map(|earlier| Ok(earlier.compared_with(&serde_json::to_value(&figures)?)));
    print(figures.text() + &compared.unwrap_or_else(|| anyhow::Ok(String::new()))?)
}

impl Figures {
    fn text(&self) -> String {
        let mut text = format!("{} on {} threads, {}\n", self.model, self.threads, self.instruction_set);
        if let Some(rate) = self.train_samples_s {
            let rate = rate_text(rate);
            text += &format!(
                "  training    {rate:>10} images/s (batch size {}, {})\n",
                self.batch_size, self.train_precision
            );
        }
        if let Some(rate) = self.infer_samples_s {
            text += &format!("  prediction  {:>10} images/s ({})\n", rate_text(rate), self.precision);
        }
        if let Some(us) = self.latency_us {
            text += &format!("  one image   {us:>10} µs ({})\n", self.precision);
        }
        let one = |peak: f64| format!("microseconds of one thread for each image, against {peak} GFLOP/s");
        text += &table(&format!("A training step, {}:", one(self.peak_gflops)), &self.steps);
        let peak = self.infer_peak_gflops;
        let one = one(peak);
        text += &table(&format!("Prediction of {} images, {one}:", self.batch_size), &self.infer_steps);
        let title = format!("Prediction of one image, microseconds, against {} times {peak} GFLOP/s:", self.threads);
        text += &table(&title, &self.latency_steps);
        text
    }
}

fn table(title: &str, steps: &[Step]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\n{title}\nlayer                   operation                        µs  GFLOP/s     GB/s  % of peak\n"
    );
    for step in steps.iter().filter(|step| step.us > 0.0) {
        text += &format!(
            "{:<23} {:<26} {:>8.2} {:>8.1} {:>8.1} {:>9.0}%\n",
            step.layer, step.operation, step.us, step.gflops, step.gbs, step.percent_of_peak
        );
    }
    text
}

/// The carried images where they have that shape; else images of noise, which take as long.
fn images(shape: [usize; 3], classes: usize) -> Result<Dataset> {
    let carried = builtin(Split::Train)?;
    if shape == carried.image_shape() && classes == carried.class_count() {
        return Ok(carried);
    }
    let labels: Vec<u32> = (0..NOISE).map(|i| (i % classes) as u32).collect();
    let names = (0..classes).map(|class| format!("class {class}")).collect();
    let mut random = Random::new(0, Purpose::Sample, 0, 0);
    let pixels = (0..NOISE * shape.iter().product::<usize>()).map(|_| random.next_u64() as u8).collect();
    Ok(Dataset::from_pixels(pixels, shape, labels, names)?)
}

fn train_rate(model: &mut Model, images: &Dataset, batch_size: usize, threads: Option<usize>) -> Result<f64> {
    let mut rate = |samples: usize, epochs: u64| -> Result<f64> {
        let part = repeated(images, samples);
        let mut options = FitOptions::new().batch_size(batch_size).epochs(epochs);
        options.threads = threads;
        let history = model.fit(&part, options)?;
        let best = history.get("seconds").unwrap_or_default().iter().copied().fold(f64::INFINITY, f64::min);
        Ok(samples as f64 / best.max(1e-9))
    };
    // What is measured first pays for the plan's memory, and tells how many steps take long enough.
    let first = rate(batch_size * FEWEST_STEPS, 2)?;
    let steps = (first * SECONDS / batch_size as f64) as usize;
    rate(batch_size * steps.max(FEWEST_STEPS), REPEATS as u64)
}

/// Trains once more with a clock in every operation; shorter, since nothing but shares is taken from it.
fn train_steps(model: &mut Model, images: &Dataset, arguments: &Benchmark, rate: f64, peak: f64) -> Result<Vec<Step>> {
    let batches = (rate * SECONDS / arguments.batch_size as f64) as usize;
    let samples = arguments.batch_size * batches.max(FEWEST_STEPS);
    let mut options = FitOptions::new().batch_size(arguments.batch_size);
    (options.threads, options.profile) = (arguments.threads, true);
    model.fit(&repeated(images, samples), options)?;
    Ok(model.step_times().iter().map(|time| Step::new(time, samples, peak)).collect())
}

/// Predicts so many images at once with a clock in every operation, `rate` times a second.
fn infer_steps(model: &mut Model, images: &Dataset, samples: usize, rate: f64, peak: f64) -> Result<Vec<Step>> {
    let repeats = ((rate * SECONDS) as usize).max(FEWEST_STEPS);
    let times = model.time_prediction(&repeated(images, samples), repeats)?;
    Ok(times.iter().map(|time| Step::new(time, samples * repeats, peak)).collect())
}

impl Step {
    fn new(time: &StepTime, samples: usize, peak: f64) -> Self {
        let us = time.time.as_secs_f64() * 1e6 / samples as f64;
        let per_second = |count: u64| count as f64 / us.max(1e-9) / 1e3;
        let gflops = per_second(time.flops);
        Step {
            layer: time.place.clone(),
            operation: time.op,
            us: (us * 1000.0).round() / 1000.0,
            gflops: rounded(gflops),
            gbs: rounded(per_second(time.bytes)),
            percent_of_peak: rounded(100.0 * gflops / peak),
        }
    }
}

/// Images per second, with a decimal where there are few.
fn rate_text(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { thousands(rate as u64) }
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn infer_rate(model: &mut Model, images: &Dataset, batch_size: usize) -> Result<f64> {
    let mut rate = |samples: usize| -> Result<f64> {
        let part = repeated(images, samples);
        let began = Instant::now();
        model.predict(&part)?;
        Ok(samples as f64 / began.elapsed().as_secs_f64().max(1e-9))
    };
    rate(batch_size)?;
    let samples = (rate(batch_size)? * SECONDS) as usize;
    let samples = samples.next_multiple_of(batch_size).min(1 << 18);
    (0..REPEATS).try_fold(0.0, |best: f64, _| Ok(best.max(rate(samples)?)))
}

fn latency(model: &mut Model, images: &Dataset) -> Result<f64> {
    let mut pixels = vec![0; images.image_len()];
    images.copy_image(0, &mut pixels)?;
    let mut times = Vec::with_capacity(SINGLES);
    let start = Instant::now();
    while times.len() < SINGLES && (times.len() < FEWEST_SINGLES || start.elapsed().as_secs_f64() < SINGLES_SECONDS) {
        let began = Instant::now();
        model.predict(&pixels)?;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// So many images, the same ones again where there are too few.
fn repeated(images: &Dataset, samples: usize) -> Dataset {
    images.subset((0..samples).map(|index| index % images.len()))
}
