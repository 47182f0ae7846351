//! `ocellus summary`: a model's layers, shapes and parameters, and what is known of its training.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use ocellus::data::Preprocessing;
use ocellus::metrics::Evaluation;
use ocellus::model::{Architecture, Model, TrainingRecord};
use ocellus::report;
use serde::Serialize;

use crate::arguments::Summary;
use crate::models;
use crate::output::{lossy, print, print_json, shape, thousands};
use crate::results::in_a_line;

pub(crate) fn run(arguments: Summary) -> Result<()> {
    let named = arguments.model.to_string_lossy();
    // What is no file may be a name, and if it is none either, the error says which there are.
    let is_plan = arguments.model.extension().is_some_and(|end| end == "toml") || !arguments.model.exists();
    let mut model = if is_plan {
        let plan = models::Plan::find(&named)?;
        let (shape, classes) = plan.published_for();
        plan.build(shape, classes, 0)?
    } else {
        models::load(&arguments.model)?
    };
    let latency = latency(&mut model)?;
    if arguments.json {
        return print_json(&Description::of(&model, &arguments.model, latency));
    }
    print(model.summary())?;
    print(format_args!(
        " Latency: {:.3} ms for one image (measured: median of {} predictions on this machine)\n",
        1e3 * latency.seconds,
        latency.predictions
    ))?;
    if is_plan { Ok(()) } else { print(origin(&model)) }
}

/// How long one image takes.
#[derive(Clone, Copy, Serialize)]
struct Latency {
    seconds: f64,
    predictions: usize,
}

/// Predictions that are measured, unless they take longer than this many seconds together.
const PREDICTIONS: usize = 21;
const LONGEST: f64 = 0.5;

/// Measures it on an image of noise; the first prediction, which makes everything ready, does not count.
fn latency(model: &mut Model) -> Result<Latency> {
    let length = model.input_shape().iter().product::<usize>();
    let pixels: Vec<u8> = (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    model.predict(&pixels)?;
    let began = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || (times.len() < PREDICTIONS && began.elapsed().as_secs_f64() < LONGEST) {
        let start = Instant::now();
        model.predict(&pixels)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(Latency { seconds: times[times.len() / 2], predictions: times.len() })
}

/// What a model file tells besides the layers.
fn origin(model: &Model) -> String {
    let record = model.training_record();
    let classes = model.class_names();
    let mut text = format!("Images: {}\n", shape(&model.preprocessing().image_shape()));
    if !classes.is_empty() {
        let names: Vec<String> = classes.iter().take(12).map(|name| report::printable(name)).collect();
        let more = if classes.len() > names.len() { ", …" } else { "" };
        text += &format!("Classes: {} ({}{more})\n", classes.len(), names.join(", "));
    }
    if record.epochs > 0 {
        text += &format!(
            "Trained: {} epochs on {} images, batch size {}, seed {}, by ocellus {} ({})\n",
            record.epochs,
            thousands(record.samples as u64),
            record.batch_size,
            record.seed,
            record.version,
            record.instruction_set
        );
    }
    if let Some(evaluation) = model.evaluation() {
        text += &format!("Test accuracy: {}\n", in_a_line(evaluation));
    }
    text
}

#[derive(Serialize)]
struct Description<'a> {
    #[serde(serialize_with = "lossy")]
    model: &'a Path,
    parameters: usize,
    multiply_adds: u64,
    /// Bytes of all layers' outputs for an image.
    activation_bytes: u64,
    latency: Latency,
    class_names: &'a [String],
    preprocessing: &'a Preprocessing,
    #[serde(flatten)]
    architecture: &'a Architecture,
    training: &'a TrainingRecord,
    evaluation: Option<&'a Evaluation>,
}

impl<'a> Description<'a> {
    fn of(model: &'a Model, path: &'a Path, latency: Latency) -> Self {
        Self {
            model: path,
            parameters: model.parameter_count(),
            multiply_adds: model.multiply_adds(),
            activation_bytes: 4 * model.costs().iter().map(|layer| layer.values()).sum::<u64>(),
            latency,
            class_names: model.class_names(),
            preprocessing: model.preprocessing(),
            architecture: model.architecture(),
            training: model.training_record(),
            evaluation: model.evaluation(),
        }
    }
}
