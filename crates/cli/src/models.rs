//! Models by name or from a TOML file, and `ocellus models`, which lists them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ocellus::model::{Architecture, LayerCosts, Model};
use ocellus::models::{ALL, NamedModel, find};
use serde::Serialize;

use crate::arguments::{List, Precision};
use crate::failure::usage;
use crate::model_file::ModelFile;
use crate::output::{print, print_json, quoted, shape, table, thousands};

/// The model that is trained where none is named.
pub(crate) const DEFAULT: &str = ALL[0].name;

/// What models are listed and summarised for, where no data says it: Fashion-MNIST.
pub(crate) const EXAMPLE_SHAPE: [usize; 3] = [28, 28, 1];
pub(crate) const EXAMPLE_CLASSES: usize = 10;

pub(crate) fn run(arguments: List) -> Result<()> {
    let mut entries = Vec::new();
    for model in &ALL {
        let costs = model.architecture(model.image_shape, model.classes)?.costs()?;
        entries.push(Entry {
            name: model.name,
            description: model.description,
            image_shape: model.image_shape,
            classes: model.classes,
            parameters: costs.iter().map(LayerCosts::parameters).sum(),
            multiply_adds: costs.iter().map(|layer| layer.multiply_adds).sum(),
            default: model.name == DEFAULT,
        });
    }
    if arguments.json {
        return print_json(&entries);
    }
    let row = |entry: &Entry| {
        let (images, millions) = (shape(&entry.image_shape), entry.multiply_adds as f64 / 1e6);
        let (parameters, work) = (thousands(entry.parameters), format!("{millions:.1}"));
        vec![entry.name.into(), images, thousands(entry.classes as u64), parameters, work, entry.description.into()]
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    print(format_args!(
        "{}\nMMACs are millions of multiply-adds for an image, half of what others call FLOPs. `ocellus summary NAME` shows the \
         layers; --model FILE.toml takes others.\n",
        table(&["name", "images", "classes", "parameters", "MMACs", "what it is"], &rows, &[2, 3, 4])
    ))
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    description: &'a str,
    image_shape: [usize; 3],
    classes: usize,
    parameters: u64,
    multiply_adds: u64,
    default: bool,
}

/// How a model is to be built, once the images and classes are known.
pub(crate) struct Plan {
    /// What the model is called.
    name: String,
    layers: Layers,
}

enum Layers {
    Known(NamedModel),
    /// Those of a model file.
    Model(PathBuf, Architecture),
    File(PathBuf, ModelFile),
}

impl Plan {
    /// What a name or a file stands for.
    pub(crate) fn find(name: &str) -> Result<Self> {
        if let Some(model) = find(name) {
            return Ok(Self { name: name.into(), layers: Layers::Known(model) });
        }
        let path = Path::new(name);
        if path.extension().is_some_and(|end| end == "safetensors") && path.is_file() {
            let layers = Layers::Model(path.to_owned(), load(path)?.architecture().clone());
            let folder = path.parent().and_then(Path::file_name).filter(|_| path.file_stem() == Some("model".as_ref()));
            let name =
                folder.or(path.file_stem()).map_or_else(|| name.into(), |name| name.to_string_lossy().into_owned());
            return Ok(Self { name, layers });
        }
        if path.extension().is_none_or(|end| end != "toml") {
            let names: Vec<&str> = ALL.iter().map(|model| model.name).collect();
            let similar = nearest(name, &names).map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
            return Err(usage(format!(
                "{name}: no model of this name{similar}; expected {} or the path of an architecture in TOML (FILE.toml)",
                names.join(", ")
            )));
        }
        let text = fs::read_to_string(path).map_err(|error| usage(format!("{name}: {error}")))?;
        let layers = ModelFile::parse(&text).map_err(|problem| problem.in_file(path))?;
        let stem = path.file_stem().map_or_else(|| name.into(), |stem| stem.to_string_lossy().into_owned());
        Ok(Self { name: stem, layers: Layers::File(path.to_owned(), layers) })
    }

    /// The images and the number of classes that it was published for, or where that is not known, those of Fashion-MNIST.
    pub(crate) fn published_for(&self) -> ([usize; 3], usize) {
        match &self.layers {
            Layers::Known(model) => (model.image_shape, model.classes),
            _ => (EXAMPLE_SHAPE, EXAMPLE_CLASSES),
        }
    }

    /// The model's name, without folder and ending where it is a file's.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The model for images of this shape and so many classes, its weights drawn with this seed.
    pub(crate) fn build(&self, image_shape: [usize; 3], classes: usize, seed: u64) -> Result<Model> {
        match &self.layers {
            Layers::Known(known) => {
                let mut model = known.build(image_shape, classes)?;
                model.initialize(seed);
                Ok(model)
            }
            Layers::Model(path, layers) => {
                let architecture = Architecture { input_shape: image_shape.into(), ..layers.clone() };
                let architecture = architecture.with_classes(classes);
                Model::from_architecture(architecture, seed).with_context(|| path.display().to_string())
            }
            Layers::File(path, layers) => {
                layers.build(image_shape, classes, seed).map_err(|problem| problem.in_file(path))
            }
        }
    }
}

/// The model in a file.
pub(crate) fn load(path: &Path) -> Result<Model> {
    let inside = path.join("model.safetensors");
    if path.is_dir() && inside.is_file() {
        bail!("{}: is a run's folder; name the model file in it: {}", path.display(), quoted(&inside));
    }
    if path.is_dir() {
        bail!("{}: is a folder; expected a model file, such as runs/NAME/model.safetensors", path.display());
    }
    Ok(Model::load(path)?)
}

/// Makes the model predict in this precision.
pub(crate) fn set_precision(model: &mut Model, path: &Path, precision: Precision) -> Result<()> {
    if precision == Precision::Int8 && model.calibration().is_none() {
        let (shown, typed) = (path.display(), quoted(path));
        bail!("{shown}: was not prepared for int8; run `ocellus quantize {typed} DATA` first");
    }
    Ok(model.set_precision(precision.into())?)
}

/// The one of these names that was probably meant.
pub(crate) fn nearest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    let typed = typed.to_lowercase().replace('-', "_");
    let likeness = |name: &str| strsim::jaro_winkler(&typed, &name.to_lowercase());
    names.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) > 0.8)
}
