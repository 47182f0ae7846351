//! `ocellus suggest`: which images to label next, and what more labels would bring.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use ocellus::data::{Dataset, OpenOptions};
use ocellus::durable::write_atomically;
use ocellus::labels::csv_field;
use ocellus::report::{percent, printable};
use ocellus::suggest::{Candidates, Forecast};
use serde::Serialize;

use crate::arguments::{positive, threads};
use crate::failure::usage;
use crate::loading::Loading;
use crate::models;
use crate::output::{lossy, note, print, print_json, table, thousands};
use crate::progress::Reading;
use crate::train::{self, ClassCurve};

#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct Suggest {
    /// A run's folder, such as runs/photos-reference_cnn, or a model file.
    run: PathBuf,

    /// A folder of images without labels; any layout.
    unlabelled: Option<PathBuf>,

    #[command(flatten)]
    loading: Loading,

    /// Suggest N images.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive, allow_negative_numbers = true)]
    count: usize,

    /// Write all suggestions to this file.
    #[arg(long, value_name = "OUT.csv")]
    output: Option<PathBuf>,

    /// Train anew on parts of the run's data, and tell for each class what more labels would bring.
    #[arg(long)]
    curve: bool,

    /// Key of the choice.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,

    /// Compute with N threads; the result does not depend on it [default: all processors].
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    threads: Option<usize>,

    /// Print the results as one JSON object.
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Images are suggested in the order in which to label them: those that the model is unsure of, each in another way, so that
copies of one image do not come one after another.
With --curve the run's training is repeated on an eighth, a quarter, half and all of its training images, with three seeds each:
it takes several times as long as the run did.";

pub(crate) fn run(arguments: Suggest) -> Result<()> {
    if arguments.unlabelled.is_none() && !arguments.curve {
        return Err(usage("name a folder of unlabelled images, or ask for --curve"));
    }
    let suggested = arguments.unlabelled.as_deref().map(|folder| suggest(&arguments, folder)).transpose()?;
    let curve = if arguments.curve { Some(curve(&arguments)?) } else { None };
    let outcome = Outcome { suggested, curve };
    if arguments.json { print_json(&outcome) } else { print(outcome.text(arguments.count)) }
}

fn suggest(arguments: &Suggest, folder: &Path) -> Result<Vec<Row>> {
    let file = arguments.run.join("model.safetensors");
    let file = if arguments.run.is_dir() { file } else { arguments.run.clone() };
    let mut model = models::load(&file)?;
    model.set_threads(arguments.threads);
    let reading = Reading::stderr();
    let progress = |done, all| reading.update(done, all);
    let options = OpenOptions {
        preprocessing: Some(model.preprocessing().clone()),
        cache: arguments.loading.cache(),
        ..OpenOptions::default()
    };
    let images = Dataset::open_unlabelled(folder, &options, &progress)?;
    let candidates = Candidates::look(&mut model, &images, &progress)?;
    drop(reading);
    images.notes().iter().for_each(|text| note(format_args!("note: {text}")));
    for skipped in images.skipped().iter().take(10) {
        let told = printable(&format!("{}: {}", skipped.path.display(), skipped.reason));
        note(format_args!("warning: {told}; skipped"));
    }
    if images.skipped().len() > 10 {
        note(format_args!("warning: {} files were skipped in all", thousands(images.skipped().len() as u64)));
    }
    let class = |class: usize| model.class_names().get(class).cloned().unwrap_or_else(|| class.to_string());
    let chosen = candidates.choose(arguments.count, arguments.seed).into_iter();
    let rows: Vec<Row> = chosen
        .map(|suggestion| Row {
            file: suggestion.file,
            class: class(suggestion.class),
            probability: suggestion.probability,
            margin: suggestion.margin,
        })
        .collect();
    if let Some(path) = &arguments.output {
        let lines = rows.iter().map(|row| {
            let [file, class] = [&*row.file.to_string_lossy(), &row.class].map(csv_field);
            format!("{file},,{class},{:.4},{:.4}\n", row.probability, row.margin)
        });
        let header = "file_name,label,predicted,probability,margin\n".to_owned();
        write_atomically(path, header + &lines.collect::<String>())?;
        let count = thousands(rows.len() as u64);
        note(format_args!("{}: {count} images; fill in the column label", path.display()));
    }
    Ok(rows)
}

fn curve(arguments: &Suggest) -> Result<Vec<ClassForecast>> {
    let config = arguments.run.join("config.toml");
    if !config.is_file() {
        bail!("{}: --curve needs a run's folder with its config.toml", arguments.run.display());
    }
    let curves = train::learning_curves(&config, arguments.threads, arguments.loading.cache())?;
    Ok(curves.into_iter().map(ClassForecast::new).collect())
}

#[derive(Serialize)]
struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    suggested: Option<Vec<Row>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    curve: Option<Vec<ClassForecast>>,
}

#[derive(Serialize)]
struct Row {
    #[serde(serialize_with = "lossy")]
    file: PathBuf,
    class: String,
    probability: f32,
    margin: f32,
}

/// What more labels of a class would bring.
#[derive(Serialize)]
struct ClassForecast {
    class: String,
    /// Training samples now.
    samples: usize,
    /// The share that is recognised now, and with twice and four times the samples.
    now: Option<Forecast>,
    twice: Option<Forecast>,
    four_times: Option<Forecast>,
    points: Vec<ocellus::suggest::CurvePoint>,
}

impl ClassForecast {
    fn new(curve: ClassCurve) -> Self {
        let samples = curve.points.iter().map(|point| point.samples).max().unwrap_or(0);
        let at = |times: usize| ocellus::suggest::forecast(&curve.points, times * samples);
        Self { samples, now: at(1), twice: at(2), four_times: at(4), class: curve.class, points: curve.points }
    }

    fn cells(&self) -> Vec<String> {
        let forecast = |forecast: &Option<Forecast>| match forecast {
            Some(f) => format!("{} ({} to {})", percent(f.accuracy), percent(f.low), percent(f.high)),
            None => "?".to_owned(),
        };
        let now = self.now.map_or("?".to_owned(), |now| percent(now.accuracy));
        vec![
            printable(&self.class),
            thousands(self.samples as u64),
            now,
            forecast(&self.twice),
            forecast(&self.four_times),
        ]
    }
}

impl Outcome {
    fn text(&self, count: usize) -> String {
        let mut text = String::new();
        if let Some(rows) = &self.suggested {
            let cells: Vec<Vec<String>> = rows
                .iter()
                .take(count)
                .map(|row| {
                    let numbers = [row.probability, row.margin].map(|share| percent(f64::from(share)));
                    let names = [printable(&row.file.to_string_lossy()), printable(&row.class)];
                    names.into_iter().chain(numbers).collect()
                })
                .collect();
            text += &table(&["image", "looks like", "probability", "margin"], &cells, &[2, 3]);
        }
        if let Some(curves) = &self.curve {
            if !text.is_empty() {
                text.push('\n');
            }
            let cells: Vec<Vec<String>> = curves.iter().map(ClassForecast::cells).collect();
            let header = ["class", "images", "recognised", "with twice as many", "with four times as many"];
            text += &table(&header, &cells, &[1, 2, 3, 4]);
            text += "Estimates, with the range that 95% of repetitions would give; what is recognised is measured on the test images.\n";
        }
        text
    }
}
