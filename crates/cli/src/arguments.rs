//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ocellus::model::{self, Views};

use crate::budget::duration;
use crate::find_lr::FindLr;
use crate::loading::Loading;
use crate::settings::Settings;

/// Image classification: labelled images in; a trained, evaluated, usable classifier out.
#[derive(Parser)]
#[command(name = "ocellus", version, arg_required_else_help = true, after_help = EXAMPLES, infer_subcommands = false)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ocellus train                               train on the images that ocellus carries
  ocellus train photos --epochs 20            train on a folder with a folder of images per class
  ocellus evaluate runs/photos/model.safetensors photos
  ocellus predict runs/photos/model.safetensors new.jpg
  ocellus import efficientnet_lite0.safetensors   make a model of weights that others have trained

Results go to stdout, progress to stderr. Exit code: 0 done, 1 the work failed, 2 wrong usage.";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Train a classifier on labelled images, then measure it on images kept apart.
    Train(Box<Train>),
    /// Look for what is damaged, doubled, leaked or odd in labelled images.
    Check(crate::check::Check),
    /// Find the learning rate that suits a model and its data.
    FindLr(Box<FindLr>),
    /// Measure a model on labelled images.
    Evaluate(Evaluate),
    /// Name what images show.
    Predict(Predict),
    /// Make a model file of weights that others have trained.
    Import(crate::import::Import),
    /// List the likeliest label errors among a run's training images.
    Labels(crate::labels::Labels),
    /// Tell which unlabelled images to label next, and what more labels would bring.
    Suggest(crate::suggest::Suggest),
    /// Prepare a model for prediction in 8 bits, and tell what that changes.
    Quantize(Quantize),
    /// Show a model's layers, shapes and parameters.
    Summary(Summary),
    /// List the models that can be trained by name.
    Models(List),
    /// List the data sets that can be used by name.
    Datasets(List),
    /// Measure how fast a model trains and predicts on this machine.
    Benchmark(Benchmark),
}

#[derive(Args)]
#[command(after_help = TRAIN_HELP)]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) settings: Settings,

    #[command(flatten)]
    pub(crate) loading: Loading,

    /// Take settings from a TOML file, such as an earlier run's config.toml; what is typed counts more.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,

    /// Start without the short check of the data.
    #[arg(long)]
    pub(crate) no_check: bool,

    /// Train by a recipe: a carried one's name (airbench94) or a TOML file; what is typed counts more.
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub(crate) recipe: Option<String>,

    /// Train for about this long, such as 10m or 1h30m: a few steps are timed, and the epochs follow from it.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "epochs", allow_negative_numbers = true)]
    pub(crate) time: Option<Duration>,

    /// Go on with a run that was ended before it was done, such as runs/photos-reference_cnn, by the settings that it was begun with.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "recipe", "time"])]
    pub(crate) resume: Option<PathBuf>,

    /// Print the results as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

const TRAIN_HELP: &str = "\
DATA may be:
  a folder with a folder of images per class: photos/cat/1.jpg, photos/dog/2.png …
  a folder divided into train, val and test:  photos/train/cat/1.jpg …
  a manifest, .csv or .jsonl: file_name,label and perhaps split,group
  a folder with MNIST's IDX files or CIFAR's binary files
  an archive: .zip of class folders, .npz as MedMNIST's, .parquet as Hugging Face's, WebDataset's .tar or .tar.gz
  several of them: 'shard-{000..009}.tar', or their folder
  the name of a data set: see `ocellus datasets`

Without test images the validation images measure the result; without these, too, a fifth of the training images of
each class is kept apart for it.
The run's folder receives config.toml, history.csv, model.safetensors, confusion_matrix.svg, learning_curves.svg and
samples.safetensors, by which `ocellus labels` lists the likeliest label errors. Until the run is done it also holds
backup.safetensors, with which `ocellus train --resume RUN` goes on after the last whole epoch.";

#[derive(Args)]
pub(crate) struct Evaluate {
    /// A model file.
    pub(crate) model: PathBuf,

    /// Labelled images: a folder, a file or the name of a data set. Of its parts, the test images are used.
    pub(crate) data: PathBuf,

    #[command(flatten)]
    pub(crate) loading: Loading,

    /// Compute in this precision; int8 needs a model that `ocellus quantize` has prepared.
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    pub(crate) precision: Precision,

    /// Average over views of each image: mirror, or mirror_translate, which is six times the work.
    #[arg(long, value_name = "VIEWS", default_value = "one", value_parser = views)]
    pub(crate) views: Views,

    /// Make damaged images an error instead of skipping them.
    #[arg(long)]
    pub(crate) strict: bool,

    /// Compute with N threads; the result does not depend on it [default: all processors].
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    pub(crate) threads: Option<usize>,

    /// Print the results as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Predict {
    /// A model file.
    pub(crate) model: PathBuf,

    /// Image files; any size, PNG, JPEG, WebP, GIF, BMP or TIFF.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,

    /// Compute in this precision; int8 needs a model that `ocellus quantize` has prepared.
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    pub(crate) precision: Precision,

    /// Average over views of each image: mirror, or mirror_translate, which is six times the work.
    #[arg(long, value_name = "VIEWS", default_value = "one", value_parser = views)]
    pub(crate) views: Views,

    /// Name the N most probable classes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) top: usize,

    /// Compute with N threads; the result does not depend on it [default: all processors].
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    pub(crate) threads: Option<usize>,

    /// Print one JSON object per image, each on its line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
#[command(after_help = QUANTIZE_HELP)]
pub(crate) struct Quantize {
    /// A model file.
    pub(crate) model: PathBuf,

    /// Labelled images: a folder or the name of a data set. Ranges are measured on the training images, the accuracies on
    /// the test images.
    pub(crate) data: PathBuf,

    #[command(flatten)]
    pub(crate) loading: Loading,

    /// Write the model with the ranges to this file [default: MODEL itself, which gains them].
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Measure ranges on N training images.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) images: usize,

    /// Make damaged images an error instead of skipping them.
    #[arg(long)]
    pub(crate) strict: bool,

    /// Compute with N threads; the result does not depend on it [default: all processors].
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    pub(crate) threads: Option<usize>,

    /// Print the results as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

const QUANTIZE_HELP: &str = "\
The weights stay as they are: the file gains the ranges of what layers read, and predicts in single precision as before.
`ocellus predict MODEL IMAGE --precision int8` computes in 8 bits.";

/// What layers compute in.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    F32,
    Bf16,
    Int8,
}

impl From<Precision> for model::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => model::Precision::F32,
            Precision::Bf16 => model::Precision::Bf16,
            Precision::Int8 => model::Precision::Int8,
        }
    }
}

#[derive(Args)]
pub(crate) struct Summary {
    /// A model file, an architecture in TOML, or the name of a model.
    pub(crate) model: PathBuf,

    /// Print the summary as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct List {
    /// Print the list as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Benchmark {
    /// A model's name or an architecture in TOML.
    #[arg(long, value_name = "NAME|FILE.toml", default_value = crate::models::DEFAULT)]
    pub(crate) model: String,

    /// Shape of the images; the carried images are used at 28x28x1, else random ones.
    #[arg(long, value_name = "HEIGHTxWIDTHxCHANNELS", default_value = "28x28x1", value_parser = image_shape)]
    pub(crate) image_shape: [usize; 3],

    /// Compute in this precision; with int8, training is in single precision.
    #[arg(long, value_name = "PRECISION", default_value = "f32")]
    pub(crate) precision: Precision,

    /// Images per training step.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) batch_size: usize,

    /// Classes that images of noise have.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) classes: usize,

    /// Measure only this [default: everything].
    #[arg(long, value_enum)]
    pub(crate) what: Option<What>,

    /// Compute with N threads [default: all processors].
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    pub(crate) threads: Option<usize>,

    /// Print the figures beside those of an earlier run, which `--json` had printed to this file.
    #[arg(long, value_name = "FILE.json", conflicts_with = "json")]
    pub(crate) compare: Option<PathBuf>,

    /// Print the results as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A part of a benchmark.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum What {
    /// Training steps.
    Train,
    /// Predictions of batches.
    Infer,
    /// Predictions of one image.
    Latency,
}

/// A whole number from 1.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "expected a whole number, at least 1".into())
}

/// Height, width and channels of an image.
pub(crate) fn image_shape(text: &str) -> Result<[usize; 3], String> {
    let sizes: Option<Vec<usize>> = text.split('x').map(|size| size.parse().ok()).collect();
    let shape: Option<[usize; 3]> = sizes.and_then(|sizes| sizes.try_into().ok());
    let fits = |shape: &[usize; 3]| shape.iter().all(|size| (1..=MOST_PIXELS).contains(size));
    shape.filter(fits).ok_or_else(|| format!("expected three numbers from 1 to {MOST_PIXELS}, such as 224x224x3"))
}

/// A way to average over views.
fn views(text: &str) -> Result<Views, String> {
    let known = || Views::ALL.map(Views::name).join(", ");
    Views::ALL.into_iter().find(|views| views.name() == text).ok_or_else(|| format!("expected one of {}", known()))
}

/// A number of threads: more than any machine has would only use up its memory.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|number| (1..=MOST_THREADS).contains(number));
    number.ok_or_else(|| format!("expected a whole number from 1 to {MOST_THREADS}"))
}

/// Largest side of an image in a benchmark.
const MOST_PIXELS: usize = 4096;

pub(crate) const MOST_THREADS: usize = 1024;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds() {
        super::Arguments::command().debug_assert();
    }
}
