//! A model as a TOML file: layers with Keras' names and arguments, blocks that are repeated, branches that join again. Every error has
//! its line.
//!
//! What may be left out: the images' shape is the data's; a layer without `inputs` takes what the one before gives; one without
//! `name` is called by its class; and `units = "classes"` is the number of classes.

mod expansion;
mod spot;

use std::collections::BTreeMap;

use ocellus::model::{Architecture, LayerError, Model};
use serde::Deserialize;
use toml::de::DeTable;

use spot::{Kind, Result, Spot, problem, table_of, unknown};

pub(crate) use spot::Problem;

/// A file that was read; what it says is checked when the model is built.
pub(crate) struct ModelFile {
    input_shape: Option<Spot>,
    layers: Vec<Spot>,
    blocks: BTreeMap<String, Spot>,
}

impl ModelFile {
    /// Reads a file's text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let line_of = |at: usize| 1 + ends.partition_point(|&end| end < at);
        let document = DeTable::parse(text).map_err(|error| Problem {
            line: error.span().map_or(1, |span| line_of(span.start)),
            text: error.message().trim_end().to_owned(),
            of_images: false,
        })?;
        let mut document = table_of(document.get_ref(), &line_of);
        let layers = document.remove("layers").ok_or(Problem {
            line: 1,
            text: "expected layers: [[layers]] with class = \"Conv2D\", filters = 32, kernel_size = 3 …".into(),
            of_images: false,
        })?;
        let blocks = match document.remove("blocks") {
            None => BTreeMap::new(),
            Some(Spot { value: Kind::Table(blocks), .. }) => blocks,
            Some(other) => return problem(other.line, "expected blocks to be tables: [blocks.NAME]"),
        };
        let input_shape = document.remove("input_shape");
        if let Some((name, spot)) = document.first_key_value() {
            return problem(spot.line, unknown("key", name, &["input_shape", "layers", "blocks"]));
        }
        Ok(Self { input_shape, layers: layers.list("layers")?.to_vec(), blocks })
    }

    /// The model for images of this shape and so many classes, its weights drawn with this seed.
    pub(crate) fn build(&self, image_shape: [usize; 3], classes: usize, seed: u64) -> Result<Model> {
        let input_shape = match &self.input_shape {
            None => image_shape.to_vec(),
            Some(spot) => Vec::<usize>::deserialize(spot.plain()).map_err(|error| Problem {
                line: spot.line,
                text: format!("input_shape: {}", error.to_string().trim_end()),
                of_images: false,
            })?,
        };
        let (layers, lines) = expansion::expand(self, classes)?;
        if layers.is_empty() {
            return problem(1, "expected at least one layer");
        }
        let names: Vec<(String, Vec<String>)> =
            layers.iter().map(|layer| (layer.name.clone(), layer.inputs.clone())).collect();
        Model::from_architecture(Architecture { input_shape, layers }, seed).map_err(|error| {
            let LayerError::Layer { name, .. } = &error else {
                return Problem { line: 1, text: error.to_string(), of_images: true };
            };
            let inputs = names.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, inputs)| inputs);
            // Where several things meet, it helps to know where each comes from.
            let from = inputs.iter().filter_map(|name| Some(format!("{name} (line {})", lines.get(name)?)));
            let from: Vec<String> = if inputs.len() > 1 { from.collect() } else { Vec::new() };
            let from = if from.is_empty() { String::new() } else { format!("; its inputs are {}", from.join(" and ")) };
            Problem { line: lines.get(name).copied().unwrap_or(1), text: format!("{error}{from}"), of_images: true }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocellus::models::ALL;

    fn build(text: &str) -> std::result::Result<Model, String> {
        let model = ModelFile::parse(text).and_then(|file| file.build([28, 28, 1], 10, 0));
        model.map_err(|problem| format!("{}: {}", problem.line, problem.text))
    }

    fn names(model: &Model) -> Vec<&str> {
        model.architecture().layers.iter().map(|layer| layer.name.as_str()).collect()
    }

    #[test]
    fn a_file_can_leave_out_what_is_clear() {
        let text = r#"
            layers = [
                { class = "Conv2D", filters = 32, kernel_size = 3, activation = "relu" },
                { class = "MaxPooling2D", pool_size = 2 },
                { class = "Conv2D", filters = 64, kernel_size = [3, 3], activation = "relu" },
                { class = "MaxPooling2D", pool_size = 2 },
                { class = "Flatten" },
                { class = "Dense", units = 64, activation = "relu" },
                { class = "Dense", units = "classes", activation = "softmax" },
            ]
        "#;
        let (named, from_file) = (ALL[0].build([28, 28, 1], 10).unwrap(), build(text).unwrap());
        assert_eq!(from_file.parameter_count(), named.parameter_count());
        assert_eq!(from_file.output_shape(), [10]);
        let written = toml::to_string(named.architecture()).unwrap();
        assert_eq!(build(&written).unwrap().architecture(), named.architecture());
    }

    const RESIDUAL: &str = r#"
[[layers]]
class = "Conv2D"
name = "stem"
filters = 8
kernel_size = 3
padding = "same"

[blocks.residual]
filters = 8
[[blocks.residual.layers]]
[[blocks.residual.layers.branches]]
[[blocks.residual.layers.branches.layers]]
class = "Conv2D"
name = "conv1"
filters = "$filters * 2"
kernel_size = 3
padding = "same"
activation = "relu"
[[blocks.residual.layers.branches.layers]]
class = "Conv2D"
filters = "$filters"
kernel_size = 1
[[blocks.residual.layers.branches]]
[[blocks.residual.layers]]
class = "Activation"
activation = "relu"

[[layers]]
block = "residual"
name = "stage"
repeat = 2

[[layers]]
class = "GlobalAveragePooling2D"
[[layers]]
class = "Dense"
units = "classes"
activation = "softmax"
"#;

    #[test]
    fn blocks_repeat_and_branches_join() {
        let model = build(RESIDUAL).unwrap();
        let block = |n: usize| ["conv1", "conv2d", "add", "activation"].map(|name| format!("stage.{n}.{name}"));
        let expected = [vec!["stem".to_owned()], block(0).to_vec(), block(1).to_vec()].concat();
        assert_eq!(names(&model)[..9], expected);
        let layers = &model.architecture().layers;
        assert_eq!(layers[3].inputs, ["stage.0.conv2d", "stem"]);
        assert_eq!(layers[7].inputs, ["stage.1.conv2d", "stage.0.activation"]);
        let kernel = model.weights().find(|(name, ..)| *name == "stage.1.conv1/kernel").unwrap();
        assert_eq!(kernel.1, [3, 3, 8, 16]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let conv = "[[layers]]\nclass = 'Conv2D'\nname = 'a'\nfilters = 4\nkernel_size = 3\n";
        let residual = |from: &str, to: &str| {
            assert!(RESIDUAL.contains(from));
            RESIDUAL.replacen(from, to, 1)
        };
        let mut wrong = Vec::new();
        for (text, message) in [
            (String::new(), "1: expected layers"),
            ("layers = 3".into(), "1: expected layers to be a list"),
            ("layers = [3]".into(), "1: expected each of the layers to be a table"),
            ("layers = []".into(), "1: expected at least one layer"),
            ("x = 1\n[[layers]]\nclass = 'Flatten'".into(), "1: unknown key `x`"),
            (format!("{conv}[[layers]]\nunits = 3"), "6: a layer needs a class"),
            (format!("{conv}[[layers]]\nclass = 'dens'\nunits = 3"), "7: unknown layer `dens` (did you mean Dense?)"),
            (
                format!("{conv}[[layers]]\nclass = 'Dense'\nunits = 3\nactivaton = 'relu'"),
                "9: dense (Dense): unknown argument `activaton` (did you mean activation?)",
            ),
            (format!("{conv}[[layers]]\nclass = 'Dense'"), "6: dense (Dense): missing field `units`"),
            (format!("{conv}[[layers]]\nclass = 'Dense'\nunits = 'many'"), "6: dense (Dense): invalid type"),
            (
                format!("{conv}[[layers]]\nclass = 'Conv2D'\nfilters = 3\nkernel_size = 50"),
                "6: conv2d (Conv2d): the kernel covers 50x50",
            ),
            (format!("{conv}[[layers]]\nclass = 'Flatten'\nname = 'a'"), "8: the name \"a\" is taken"),
            (
                format!("{conv}[[layers]]\nclass = 'Flatten'\ninputs = 'b'"),
                "8: its input `b` is not the name of an earlier layer",
            ),
            (
                format!("{conv}inputs = 'b'\n[[layers]]\nclass = 'Flatten'\nname = 'b'"),
                "6: a cycle: the layer takes `b` (line 7), which in turn is made from it",
            ),
            (
                format!("{conv}inputs = 'b'\n[[layers]]\nclass = 'Flatten'\nname = 'b'\ninputs = 'input'"),
                "6: its input `b` comes later (line 7)",
            ),
            (
                format!("{conv}[[layers]]\nbranches = [[], [{{ class = 'MaxPooling2D', pool_size = 2 }}]]"),
                "6: add (Add): expected inputs of the same shape, received 26x26x4 and 13x13x4; its inputs are a (line 1) and maxpooling2d (line 7)",
            ),
            (format!("{conv}[[layers]]\nbranches = [[]]"), "7: expected at least two branches, found 1"),
            (
                residual("block = \"residual\"", "block = \"residul\""),
                "30: unknown block `residul` (did you mean residual?)",
            ),
            (residual("repeat = 2", "repeat = 0"), "32: repeat: expected a whole number from 1"),
            (
                residual("repeat = 2", "filter = 2"),
                "32: block residual: unknown argument `filter` (did you mean filters?)",
            ),
            (residual("repeat = 2", "filters = 16"), "expected inputs of the same shape"),
            (residual("\"$filters\"", "\"$filtres\""), "22: unknown argument `filtres` (did you mean filters?)"),
            (
                residual("class = \"Activation\"\nactivation = \"relu\"", "block = \"residual\""),
                "more than 16 deep in one another",
            ),
            ("[[layers]]\nclass = 'Conv2D'\nfilters = 3\nfilters = 4".into(), "4: duplicate key"),
            ("[[layers]]\nclass = ".into(), "2: "),
            (format!("{conv}[[layers]]\ninputs = 'a'\nbranches = [[], []]"), "7: inputs: blocks and branches take"),
            (residual("repeat = 2", "inputs = 'stem'"), "32: inputs: blocks and branches take"),
            (format!("{conv}[[layers]]\nclass = 'Flatten'\nname = '{}'", "n".repeat(1001)), "6: the name \"nnn"),
        ] {
            let error = build(&text).map(|_| ()).unwrap_err();
            let fits = if message.starts_with(char::is_numeric) {
                error.starts_with(message)
            } else {
                error.contains(message)
            };
            if !fits {
                wrong.push(format!("{text}\n{error:?} instead of {message:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    }

    #[test]
    fn no_file_takes_all_memory() {
        let deep = |innermost: &str, use_of: &str| {
            let mut text = format!("[[layers]]\nblock = 'b9'\n[blocks.b0]\nx = [1]\nlayers = {innermost}\n");
            for n in 1..10 {
                text += &format!("[blocks.b{n}]\nx = [1]\n[[blocks.b{n}.layers]]\nblock = 'b{}'\n{use_of}\n", n - 1);
            }
            build(&text).map(|_| ()).unwrap_err()
        };
        let error = deep("[{ class = 'Activation', activation = 'relu' }]", "repeat = 10000");
        assert!(error.contains("more than 10000 layers"), "{error}");
        // It has an end without any layer, too.
        let error = deep("[]", "repeat = 10000");
        assert!(error.contains("more than 100000 blocks"), "{error}");
        let list = "1, ".repeat(10_000);
        let long = format!("[blocks.a]\nx = [{list}]\nlayers = []\n[[layers]]\nblock = 'a'\nrepeat = 10000");
        let error = build(&long).map(|_| ()).unwrap_err();
        assert!(error.contains("more than 100000 blocks"), "{error}");
        let error = deep("[]", "x = ['$x', '$x', '$x']");
        assert!(error.contains("\"$x\": expected a number or text within a list"), "{error}");
    }
}
