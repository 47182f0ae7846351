//! `ocellus import`: a model file of weights that others have trained.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use ocellus::data::Preprocessing;
use ocellus::durable::create_folder;
use ocellus::model::WeightFile;
use serde::Serialize;

use crate::failure::usage;
use crate::fine_tuning::{Pretrained, tell};
use crate::models::Plan;
use crate::output::{lossy, note, print, print_json, quoted, shape, thousands};

#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct Import {
    /// The weights: a safetensors file with the names of torchvision, timm or efficientnet_pytorch.
    pub(crate) weights: PathBuf,

    /// The model that the weights are of: a name (see `ocellus models`) or an architecture in TOML [default: recognised by
    /// the tensors' names].
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub(crate) model: Option<String>,

    /// The names of the classes, one on each line [default: the text file beside the weights that has as many lines].
    #[arg(long, value_name = "FILE")]
    pub(crate) class_names: Option<PathBuf>,

    /// Take the weights that fit, though others are missing or of another shape.
    #[arg(long)]
    pub(crate) partial_weights: bool,

    /// The model file to write [default: runs/NAME/model.safetensors].
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Print the results as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

const HELP: &str = "\
The model predicts as it is: `ocellus predict MODEL IMAGE`. Images are prepared as was published for the weights, or as timm's
config.json beside the file says. To train it further on images of your own: `ocellus train DATA --weights FILE`.";

/// Bytes of the longest list of names that is read.
const LONGEST: u64 = 16 << 20;

pub(crate) fn run(arguments: Import) -> Result<()> {
    let file = WeightFile::open(&arguments.weights)?;
    if file.is_model() {
        return Err(usage(format!("{}: is a model of ocellus already", arguments.weights.display())));
    }
    let pretrained = Pretrained::of(file)?;
    let name = arguments.model.clone().map_or_else(|| pretrained.model(), Ok)?;
    let plan = Plan::find(&name)?;
    let output =
        arguments.output.clone().unwrap_or_else(|| Path::new("runs").join(plan.name()).join("model.safetensors"));
    if fs::canonicalize(&output).ok().is_some_and(|path| fs::canonicalize(&arguments.weights).ok() == Some(path)) {
        return Err(usage(format!("{}: would be written over; name another --output", output.display())));
    }
    let classes = pretrained.classes().unwrap_or(1000);
    let (names, names_file) = class_names(&arguments, classes)?;

    let preprocessing = pretrained.preprocessing().unwrap_or_else(|| Preprocessing {
        image_size: [224, 224],
        channels: 3,
        ..Preprocessing::default()
    });
    let model = plan.build(preprocessing.image_shape(), classes, 0)?;
    let (mut model, loaded) = pretrained.loaded(model, arguments.partial_weights)?;
    tell(&arguments.weights, &loaded);
    model.set_preprocessing(preprocessing);
    match &names_file {
        Some(path) => note(format_args!("{}: {} class names", path.display(), thousands(classes as u64))),
        None => note("note: the classes have no names but numbers; --class-names FILE gives them names"),
    }
    if !names.is_empty() {
        model.set_class_names(names)?;
    }
    if let Some(folder) = output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create_folder(folder)?;
    }
    model.save(&output)?;
    let outcome = Outcome {
        model: &output,
        architecture: plan.name(),
        origin: &loaded.origin,
        parameters: model.parameter_count(),
        classes,
        preprocessing: model.preprocessing(),
    };
    if arguments.json { print_json(&outcome) } else { print(outcome.text()) }
}

/// The classes' names, and the file that they are from.
fn class_names(arguments: &Import, classes: usize) -> Result<(Vec<String>, Option<PathBuf>)> {
    if let Some(path) = &arguments.class_names {
        let names = lines(path).with_context(|| format!("--class-names {}", path.display()))?;
        if names.len() != classes {
            bail!(
                "--class-names {}: {} names, but the weights tell {classes} classes apart",
                path.display(),
                names.len()
            );
        }
        return Ok((names, Some(path.clone())));
    }
    let folder = arguments.weights.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten().flatten();
    let texts = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "txt"));
    let mut fitting: Vec<(Vec<String>, PathBuf)> =
        texts.filter_map(|path| Some((lines(&path).ok()?, path))).filter(|(names, _)| names.len() == classes).collect();
    // Of two that fit, which is meant cannot be known.
    Ok(match fitting.pop() {
        Some((names, path)) if fitting.is_empty() => (names, Some(path)),
        _ => (Vec::new(), None),
    })
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        bail!("expected a text file with a class's name on each line");
    }
    let text = fs::read_to_string(path)?;
    Ok(text.lines().map(|line| line.trim().trim_end_matches(',').to_owned()).filter(|line| !line.is_empty()).collect())
}

#[derive(Serialize)]
struct Outcome<'a> {
    #[serde(serialize_with = "lossy")]
    model: &'a Path,
    architecture: &'a str,
    origin: &'a str,
    parameters: usize,
    classes: usize,
    preprocessing: &'a Preprocessing,
}

impl Outcome<'_> {
    fn text(&self) -> String {
        let model = quoted(self.model);
        format!(
            "{}: {} with {} parameters, {} classes, images of {}\n\nNext:\n  ocellus predict {model} IMAGE --top 5\n",
            self.model.display(),
            self.architecture,
            thousands(self.parameters as u64),
            thousands(self.classes as u64),
            shape(&self.preprocessing.image_shape()),
        )
    }
}
