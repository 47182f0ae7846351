//! `ocellus predict`: what images show.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Result, bail};
use ocellus::data::{Limits, Preprocessing};
use ocellus::model::{Model, Predictions};
use ocellus::report;
use serde::Serialize;

use crate::arguments::Predict;
use crate::failure::Partly;
use crate::models;
use crate::output::{lossy, note, print, print_json};

/// Images that are read, predicted and told together.
const BATCH: usize = 64;

pub(crate) fn run(arguments: Predict) -> Result<()> {
    let mut model = models::load(&arguments.model)?;
    model.set_threads(arguments.threads);
    model.set_views(arguments.views);
    models::set_precision(&mut model, &arguments.model, arguments.precision)?;
    if model.input_shape() != model.preprocessing().image_shape() {
        bail!("{}: the model takes no images", arguments.model.display());
    }
    let threads = arguments.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get));
    let columns = arguments.images.iter().map(|path| path.to_string_lossy().chars().count()).max().unwrap_or(0).min(60);
    let mut failed = false;
    for paths in arguments.images.chunks(BATCH) {
        let images = prepare_all(model.preprocessing(), paths, threads);
        let pixels: Vec<u8> = images.iter().flatten().flatten().copied().collect();
        let predictions = model.predict(&pixels)?;
        let mut at = 0;
        for (path, image) in paths.iter().zip(images) {
            match image {
                Ok(_) => {
                    let answers = answers(&model, &predictions, at, arguments.top);
                    at += 1;
                    tell(path, &answers, &arguments, columns)?;
                }
                Err(error) => {
                    failed = true;
                    note(format_args!("error: {error}"));
                    if arguments.json {
                        print_json(&Failure { image: path, error: error.to_string() })?;
                    }
                }
            }
        }
    }
    if failed { Err(Partly.into()) } else { Ok(()) }
}

/// The images of these files, in their order, read by several threads.
fn prepare_all(preprocessing: &Preprocessing, paths: &[PathBuf], threads: usize) -> Vec<Result<Vec<u8>>> {
    let share = paths.len().div_ceil(threads.max(1)).max(1);
    let prepare_part = &|part: &[PathBuf]| part.iter().map(|path| prepare(preprocessing, path)).collect::<Vec<_>>();
    thread::scope(|scope| {
        let mut parts = paths.chunks(share);
        let own = parts.next().unwrap_or_default();
        let others: Vec<_> = parts.map(|part| (part, scope.spawn(|| prepare_part(part)))).collect();
        let mut images = prepare_part(own);
        for (part, other) in others {
            // Decoders' panics are caught where they are called; should a thread end otherwise, its part is read here.
            images.extend(other.join().unwrap_or_else(|_| prepare_part(part)));
        }
        images
    })
}

fn prepare(preprocessing: &Preprocessing, path: &Path) -> Result<Vec<u8>> {
    if path.is_dir() {
        bail!("{}: is a folder; name image files, such as {}", path.display(), path.join("*").display());
    }
    let mut pixels = vec![0; preprocessing.image_len()];
    preprocessing.prepare_file(path, &Limits::default(), &mut pixels)?;
    Ok(pixels)
}

/// A class and how probable it is.
#[derive(Clone, Serialize)]
struct Answer {
    class: String,
    probability: f32,
}

#[derive(Serialize)]
struct Answers<'a> {
    #[serde(serialize_with = "lossy")]
    image: &'a PathBuf,
    #[serde(flatten)]
    best: Option<&'a Answer>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    top: &'a [Answer],
}

#[derive(Serialize)]
struct Failure<'a> {
    #[serde(serialize_with = "lossy")]
    image: &'a PathBuf,
    error: String,
}

fn answers(model: &Model, predictions: &Predictions, image: usize, count: usize) -> Vec<Answer> {
    let name = |class: usize| model.class_names().get(class).cloned().unwrap_or_else(|| class.to_string());
    let top = predictions.top(image, count).into_iter();
    top.map(|(class, probability)| Answer { class: name(class), probability }).collect()
}

fn tell(path: &PathBuf, answers: &[Answer], arguments: &Predict, columns: usize) -> Result<()> {
    if arguments.json {
        let top = if arguments.top > 1 { answers } else { &[] };
        return print_json(&Answers { image: path, best: answers.first(), top });
    }
    let classes = answers.iter().map(|answer| {
        format!("{} {}", report::printable(&answer.class), report::percent(f64::from(answer.probability)))
    });
    let name = report::printable(&path.to_string_lossy());
    print(format_args!("{name:<columns$}  {}\n", classes.collect::<Vec<_>>().join("  ")))
}
