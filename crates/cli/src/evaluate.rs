//! `ocellus evaluate`: how good a model is on labelled images.

use std::path::Path;

use anyhow::Result;
use ocellus::data::{Dataset, OpenOptions, Split, splits_of};
use ocellus::losses::Loss;
use ocellus::metrics::{Accuracy, Evaluation};
use ocellus::model::Model;
use ocellus::optimizers::Adam;
use serde::Serialize;

use crate::arguments::Evaluate;
use crate::loading::Loading;
use crate::models;
use crate::output::{lossy, note, print, print_json};
use crate::progress::Reading;
use crate::results::{results, tell_about};
use crate::train::TEST_FRACTION;

pub(crate) fn run(arguments: Evaluate) -> Result<()> {
    let mut model = models::load(&arguments.model)?;
    model.set_threads(arguments.threads);
    model.set_views(arguments.views);
    models::set_precision(&mut model, &arguments.model, arguments.precision)?;
    let loss = model.training_record().loss;
    let outputs = model.output_shape().iter().product();
    model.compile(Adam::new(), loss.unwrap_or_else(|| Loss::for_outputs(outputs)), [Accuracy::new()])?;
    let dataset = open(&model, &arguments.data, arguments.strict, &arguments.loading)?;
    let evaluation = model.evaluate(&dataset)?;
    if arguments.json {
        print_json(&Outcome { model: &arguments.model, data: &arguments.data, evaluation: &evaluation })
    } else {
        print(results("Accuracy", &evaluation))
    }
}

#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(serialize_with = "lossy")]
    model: &'a Path,
    #[serde(serialize_with = "lossy")]
    data: &'a Path,
    #[serde(flatten)]
    evaluation: &'a Evaluation,
}

/// The images to measure on: the data's test images; where it has none, those that training kept apart, if the model was
/// trained on this very data; else all.
pub(crate) fn open(model: &Model, path: &Path, strict: bool, loading: &Loading) -> Result<Dataset> {
    let (dataset, split) = open_first(model, path, &[Split::Test, Split::Validation], strict, loading)?;
    if split.is_some() {
        return Ok(dataset);
    }
    let record = model.training_record();
    let (mut train, test) = dataset.split_stratified(TEST_FRACTION, record.seed)?;
    if let Some(share) = record.validation_split {
        (train, _) = train.split_stratified(share, record.seed)?;
    }
    if record.data_fingerprint.is_some() && train.fingerprint().ok() == record.data_fingerprint {
        note(format_args!("note: the model was trained on this data: measured on the images that were kept apart"));
        return Ok(test);
    }
    note(format_args!(
        "note: {} has no test images: measured on all; where the model was trained on some of them, this flatters it",
        path.display()
    ));
    Ok(dataset)
}

/// The first of these splits that the data has, as the model sees it; all images and no split where it has none of them.
pub(crate) fn open_first(
    model: &Model,
    path: &Path,
    splits: &[Split],
    strict: bool,
    loading: &Loading,
) -> Result<(Dataset, Option<Split>)> {
    let present = splits_of(path)?;
    let split = splits.iter().copied().find(|split| present.contains(split));
    let classes = model.class_names();
    let options = OpenOptions {
        split: split.unwrap_or(Split::Train),
        classes: (!classes.is_empty()).then(|| classes.to_vec()),
        preprocessing: Some(model.preprocessing().clone()),
        strict,
        cache: loading.cache(),
        ..OpenOptions::default()
    };
    let reading = Reading::stderr();
    let dataset = Dataset::open_with(path, &options, &|done, all| reading.update(done, all))?;
    drop(reading);
    tell_about(&[&dataset]);
    Ok((dataset, split))
}
