//! `ocellus benchmark`: how fast a model trains and predicts on this machine.

use std::time::Instant;

use anyhow::Result;
use ocellus::data::{Dataset, Split, builtin};
use ocellus::losses::Loss;
use ocellus::metrics::Accuracy;
use ocellus::model::{FitOptions, Model};
use ocellus::optimizers::Adam;
use ocellus::random::{Purpose, Random};
use ocellus::{Level, StepTime, peak};
use serde::Serialize;

use crate::arguments::Benchmark;
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

/// Images of noise, where the carried ones do not have the shape that is asked for.
const NOISE: usize = 64;

/// Time for measuring the peak.
const PEAK_MILLIS: u64 = 30;

#[derive(Serialize)]
struct Figures {
    version: &'static str,
    model: String,
    parameters: usize,
    instruction_set: String,
    precision: String,
    threads: usize,
    batch_size: usize,
    /// Images per second through training steps.
    train_samples_s: u64,
    /// Images per second through predictions of many.
    infer_samples_s: u64,
    /// Microseconds for the prediction of one image.
    latency_us: f64,
    /// Fused multiply-add on one core, billions of operations per second, measured in this run.
    peak_gflops: f64,
    /// Where a training step's time goes, in running order.
    steps: Vec<Step>,
}

/// One operation of a training step.
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
    let images = images(arguments.image_shape)?;
    let earlier = arguments.compare.as_deref().map(Earlier::read).transpose()?;
    let plan = models::Plan::find(&arguments.model)?;
    let mut model = plan.build(images.image_shape(), images.class_count(), 0)?;
    model.set_threads(arguments.threads);
    model.set_precision(arguments.precision.precision());
    model.compile(Adam::new(), Loss::for_outputs(images.class_count()), [Accuracy::new()])?;
    note(format_args!("{}: {} parameters", plan.name(), thousands(model.parameter_count() as u64)));

    let train = train_rate(&mut model, &images, arguments.batch_size, arguments.threads)?;
    let infer = infer_rate(&mut model, &images)?;
    let latency = latency(&mut model, &images)?;
    let peak = peak::fma_gflops(Level::named(&model.training_record().instruction_set)?, PEAK_MILLIS);
    let steps = steps(&mut model, &images, &arguments, train, peak)?;
    let figures = Figures {
        version: env!("CARGO_PKG_VERSION"),
        model: plan.name().into(),
        parameters: model.parameter_count(),
        instruction_set: model.training_record().instruction_set.clone(),
        precision: model.training_record().precision.clone(),
        threads: arguments.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get())),
        batch_size: arguments.batch_size,
        train_samples_s: train as u64,
        infer_samples_s: infer as u64,
        latency_us: (latency * 1e7).round() / 10.0,
        peak_gflops: rounded(peak),
        steps,
    };
    if arguments.json {
        return print_json(&figures);
    }
    let compared = earlier.map(|earlier| Ok(earlier.compared_with(&serde_json::to_value(&figures)?)));
    print(figures.text() + &compared.unwrap_or_else(|| anyhow::Ok(String::new()))?)
}

impl Figures {
    fn text(&self) -> String {
        let mut text = format!(
            "{} on {} threads, {}, {}\n  training    {:>10} images/s (batch size {})\n  prediction  {:>10} images/s\n  \
             one image   {:>10} µs\n",
            self.model,
            self.threads,
            self.instruction_set,
            self.precision,
            thousands(self.train_samples_s),
            self.batch_size,
            thousands(self.infer_samples_s),
            self.latency_us
        );
        text += &format!(
            "\nA training step, microseconds of one thread for each image, against {} GFLOP/s:\n",
            self.peak_gflops
        );
        text += "layer                   operation                        µs  GFLOP/s     GB/s  % of peak\n";
        for step in &self.steps {
            text += &format!(
                "{:<23} {:<26} {:>8.2} {:>8.1} {:>8.1} {:>9.0}%\n",
                step.layer, step.operation, step.us, step.gflops, step.gbs, step.percent_of_peak
            );
        }
        text
    }
}

/// The carried images where they have that shape; else images of noise, which take as long.
fn images(shape: [usize; 3]) -> Result<Dataset> {
    let carried = builtin(Split::Train)?;
    if shape == carried.image_shape() {
        return Ok(carried);
    }
    let labels: Vec<u32> = (0..NOISE as u32).map(|i| i % carried.class_count() as u32).collect();
    let mut random = Random::new(0, Purpose::Sample, 0, 0);
    let pixels = (0..NOISE * shape.iter().product::<usize>()).map(|_| random.next_u64() as u8).collect();
    Ok(Dataset::from_pixels(pixels, shape, labels, carried.class_names().to_vec())?)
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
fn steps(model: &mut Model, images: &Dataset, arguments: &Benchmark, rate: f64, peak: f64) -> Result<Vec<Step>> {
    let batches = (rate * SECONDS / arguments.batch_size as f64) as usize;
    let samples = arguments.batch_size * batches.max(FEWEST_STEPS);
    let mut options = FitOptions::new().batch_size(arguments.batch_size);
    (options.threads, options.profile) = (arguments.threads, true);
    model.fit(&repeated(images, samples), options)?;
    let step = |time: &StepTime| {
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
    };
    Ok(model.step_times().iter().map(step).collect())
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn infer_rate(model: &mut Model, images: &Dataset) -> Result<f64> {
    let mut rate = |samples: usize| -> Result<f64> {
        let part = repeated(images, samples);
        let began = Instant::now();
        model.predict(&part)?;
        Ok(samples as f64 / began.elapsed().as_secs_f64().max(1e-9))
    };
    rate(256)?;
    let samples = (rate(256)? * SECONDS) as usize;
    (0..REPEATS).try_fold(0.0, |best: f64, _| Ok(best.max(rate(samples.clamp(256, 1 << 18))?)))
}

fn latency(model: &mut Model, images: &Dataset) -> Result<f64> {
    let mut pixels = vec![0; images.image_len()];
    images.copy_image(0, &mut pixels)?;
    let mut times = Vec::with_capacity(SINGLES);
    for _ in 0..SINGLES {
        let began = Instant::now();
        model.predict(&pixels)?;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[SINGLES / 2])
}

/// So many images, the same ones again where there are too few.
fn repeated(images: &Dataset, samples: usize) -> Dataset {
    images.subset((0..samples).map(|index| index % images.len()))
}
