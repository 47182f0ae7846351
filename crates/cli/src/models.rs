//! Models by name or from a TOML file, and `ocellus models`, which lists them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ocellus::model::{Architecture, Model};
use ocellus::models::{ALL, Recipe, find};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::arguments::{List, Precision};
use crate::failure::usage;
use crate::output::{print, print_json, quoted, shape, table, thousands};

/// The model that is trained where none is named.
pub(crate) const DEFAULT: &str = ALL[0].name;

/// What models are listed and summarised for, where no data says it: Fashion-MNIST.
pub(crate) const EXAMPLE_SHAPE: [usize; 3] = [28, 28, 1];
pub(crate) const EXAMPLE_CLASSES: usize = 10;

pub(crate) fn run(arguments: List) -> Result<()> {
    let mut entries = Vec::new();
    for Recipe { name, description, .. } in &ALL {
        let parameters = Plan::find(name)?.build(EXAMPLE_SHAPE, EXAMPLE_CLASSES, 0)?.parameter_count();
        entries.push(Entry { name, description, parameters, default: *name == DEFAULT });
    }
    if arguments.json {
        return print_json(&entries);
    }
    let row = |entry: &Entry| vec![entry.name.into(), thousands(entry.parameters as u64), entry.description.into()];
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    print(format_args!(
        "{}\nParameters are for images of {} and {EXAMPLE_CLASSES} classes. `ocellus summary NAME` shows the layers; \
         --model FILE.toml takes others.\n",
        table(&["name", "parameters", "what it is"], &rows, &[1]),
        shape(&EXAMPLE_SHAPE)
    ))
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    description: &'a str,
    parameters: usize,
    default: bool,
}

/// How a model is to be built, once the images and classes are known.
pub(crate) struct Plan {
    /// What the model is called.
    name: String,
    layers: Layers,
}

enum Layers {
    Known(Recipe),
    File(PathBuf, Table),
}

impl Plan {
    /// What a name or a file stands for.
    pub(crate) fn find(name: &str) -> Result<Self> {
        if let Some(recipe) = find(name) {
            return Ok(Self { name: name.into(), layers: Layers::Known(recipe) });
        }
        let path = Path::new(name);
        if path.extension().is_none_or(|end| end != "toml") {
            let names: Vec<&str> = ALL.iter().map(|recipe| recipe.name).collect();
            let similar = nearest(name, &names).map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
            return Err(usage(format!(
                "{name}: no model of this name{similar}; expected {} or the path of an architecture in TOML (FILE.toml)",
                names.join(", ")
            )));
        }
        let text = fs::read_to_string(path).map_err(|error| usage(format!("{name}: {error}")))?;
        let layers = text.parse().map_err(|error: toml::de::Error| of_file(path, error.to_string().trim_end()))?;
        let stem = path.file_stem().map_or_else(|| name.into(), |stem| stem.to_string_lossy().into_owned());
        Ok(Self { name: stem, layers: Layers::File(path.to_owned(), layers) })
    }

    /// The model's name, without folder and ending where it is a file's.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The model for images of this shape and so many classes, its weights drawn with this seed.
    pub(crate) fn build(&self, image_shape: [usize; 3], classes: usize, seed: u64) -> Result<Model> {
        match &self.layers {
            Layers::Known(recipe) => {
                let mut model = recipe.build(image_shape, classes)?;
                model.initialize(seed);
                Ok(model)
            }
            Layers::File(path, layers) => {
                let architecture = architecture(layers.clone(), image_shape, classes);
                let architecture = architecture.map_err(|problem| of_file(path, &problem))?;
                Model::from_architecture(architecture, seed).with_context(|| path.display().to_string())
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
    let likeness = |name: &str| strsim::jaro_winkler(&typed, name);
    names.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|name| likeness(name) > 0.8)
}

fn of_file(path: &Path, problem: &str) -> anyhow::Error {
    usage(format!("{}: {problem}", path.display()))
}

/// The architecture in a TOML document, with what may be left out: the images' shape is the data's; a layer without
/// `inputs` takes what the one before gives, and one without `name` is called by its class; and `units = "classes"` is
/// the number of classes.
fn architecture(mut document: Table, image_shape: [usize; 3], classes: usize) -> Result<Architecture, String> {
    let number = |number: usize| Value::Integer(number as i64);
    document.entry("input_shape").or_insert_with(|| Value::Array(image_shape.map(number).into()));
    let layers = document.get_mut("layers").and_then(Value::as_array_mut);
    let layers =
        layers.ok_or("expected layers: [[layers]] with class = \"Conv2D\", filters = 32, kernel_size = 3 …")?;
    let mut before = "input".to_owned();
    let mut names = std::collections::HashMap::new();
    for layer in layers {
        let layer = layer.as_table_mut().ok_or("expected each of the layers to be a table: [[layers]]")?;
        let class = layer.get("class").and_then(Value::as_str).ok_or("a layer needs a class, such as \"Conv2D\"")?;
        let class = class.to_lowercase();
        if !layer.contains_key("name") {
            let count: &mut usize = names.entry(class.clone()).or_default();
            let name = if *count == 0 { class.clone() } else { format!("{class}_{count}") };
            *count += 1;
            layer.insert("name".into(), name.into());
        }
        let name = layer.get("name").and_then(Value::as_str).ok_or("a layer's name must be text")?.to_owned();
        let inputs = std::mem::replace(&mut before, name);
        layer.entry("inputs").or_insert_with(|| Value::Array(vec![inputs.into()]));
        if let Some(units) = layer.get_mut("units").filter(|units| units.as_str() == Some("classes")) {
            *units = number(classes);
        }
    }
    Architecture::deserialize(document).map_err(|error| error.to_string().trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str) -> Result<Model, String> {
        let plan = Plan { name: "test.toml".into(), layers: Layers::File("test.toml".into(), text.parse().unwrap()) };
        plan.build([28, 28, 1], 10, 0).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_file_can_leave_out_what_is_clear() {
        let text = r#"
            [[layers]]
            class = "Conv2D"
            filters = 32
            kernel_size = 3
            activation = "relu"
            [[layers]]
            class = "MaxPooling2D"
            pool_size = 2
            [[layers]]
            class = "Conv2D"
            filters = 64
            kernel_size = [3, 3]
            activation = "relu"
            [[layers]]
            class = "MaxPooling2D"
            pool_size = 2
            [[layers]]
            class = "Flatten"
            [[layers]]
            class = "Dense"
            units = 64
            activation = "relu"
            [[layers]]
            class = "Dense"
            units = "classes"
            activation = "softmax"
        "#;
        let (named, from_file) = (ALL[0].build([28, 28, 1], 10).unwrap(), build(text).unwrap());
        assert_eq!(from_file.parameter_count(), named.parameter_count());
        assert_eq!(from_file.output_shape(), [10]);
        let written = toml::to_string(named.architecture()).unwrap();
        assert_eq!(build(&written).unwrap().architecture(), named.architecture());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told() {
        for (text, message) in [
            ("", "expected layers"),
            ("layers = 3", "expected layers"),
            ("layers = [3]", "to be a table"),
            ("[[layers]]\nunits = 3", "needs a class"),
            ("[[layers]]\nclass = 'Dance'\nunits = 3", "Dance"),
            ("[[layers]]\nclass = 'Dense'\nunits = 3\ncolour = 'red'", "colour"),
            ("[[layers]]\nclass = 'Conv2D'\nfilters = 3\nkernel_size = 50", "the kernel covers 50x50"),
        ] {
            let error = build(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
