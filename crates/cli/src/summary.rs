//! `ocellus summary`: a model's layers, shapes and parameters, and what is known of its training.

use std::path::Path;

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
    let model = if is_plan {
        let plan = models::Plan::find(&named)?;
        plan.build(models::EXAMPLE_SHAPE, models::EXAMPLE_CLASSES, 0)?
    } else {
        models::load(&arguments.model)?
    };
    if arguments.json {
        return print_json(&Description::of(&model, &arguments.model));
    }
    print(model.summary())?;
    if is_plan { Ok(()) } else { print(origin(&model)) }
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
    class_names: &'a [String],
    preprocessing: &'a Preprocessing,
    #[serde(flatten)]
    architecture: &'a Architecture,
    training: &'a TrainingRecord,
    evaluation: Option<&'a Evaluation>,
}

impl<'a> Description<'a> {
    fn of(model: &'a Model, path: &'a Path) -> Self {
        Self {
            model: path,
            parameters: model.parameter_count(),
            class_names: model.class_names(),
            preprocessing: model.preprocessing(),
            architecture: model.architecture(),
            training: model.training_record(),
            evaluation: model.evaluation(),
        }
    }
}
