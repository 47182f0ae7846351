//! A model as a TOML file: layers with Keras' names and arguments, blocks that are repeated, branches that join again. Every error has
//! its line.
//!
//! What may be left out: the images' shape is the data's; a layer without `inputs` takes what the one before gives; one without
//! `name` is called by its class; and `units = "classes"` is the number of classes.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ocellus::model::{Architecture, LayerConfig, LayerError, Model};
use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use crate::failure::usage;
use crate::models::nearest;

/// Most layers that a file may come to, and how deep blocks may lie in one another.
const MOST_LAYERS: usize = 10_000;
const DEEPEST: usize = 16;
/// Most entries of lists and letters of text that it may be written out to: blocks without layers may be repeated, too, and arguments
/// be lists of arguments.
const MOST_WRITTEN: usize = 1 << 24;
/// The name of what a block or the model takes.
const INPUT: &str = "input";

/// A file that was read; what it says is checked when the model is built.
pub(crate) struct ModelFile {
    input_shape: Option<Spot>,
    layers: Vec<Spot>,
    blocks: BTreeMap<String, Spot>,
}

/// A value and its line.
#[derive(Clone, Debug)]
struct Spot {
    line: usize,
    value: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Plain(Value),
    List(Vec<Spot>),
    Table(BTreeMap<String, Spot>),
}

/// What is wrong, and on which line.
#[derive(Debug)]
pub(crate) struct Problem {
    line: usize,
    text: String,
    /// Whether other images might do.
    of_images: bool,
}

impl Problem {
    /// The error for a user: of the usage, or of layers that do not suit the images.
    pub(crate) fn in_file(&self, path: &Path) -> anyhow::Error {
        let text = format!("{}:{}: {}", path.display(), self.line, self.text);
        if self.of_images { anyhow::anyhow!(text) } else { usage(text) }
    }
}

type Result<T> = std::result::Result<T, Problem>;

fn problem<T>(line: usize, text: impl Into<String>) -> Result<T> {
    Err(Problem { line, text: text.into(), of_images: false })
}

impl ModelFile {
    /// Reads a file's text.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let line_of =
            |at: usize| 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count();
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
        let mut expansion = Expansion {
            file: self,
            classes,
            layers: Vec::new(),
            lines: HashMap::new(),
            counts: HashMap::new(),
            written: Cell::new(0),
        };
        let scope = Scope { prefix: String::new(), input: INPUT.into(), arguments: BTreeMap::new(), depth: 0 };
        expansion.sequence(&self.layers, INPUT.into(), &scope)?;
        let Expansion { layers, lines, .. } = expansion;
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

/// What the names and arguments in a list of layers mean.
struct Scope {
    /// What stands before the names of its layers.
    prefix: String,
    /// What `input` means.
    input: String,
    /// What `$name` means.
    arguments: BTreeMap<String, Value>,
    depth: usize,
}

/// Layers as they are written out one by one.
struct Expansion<'a> {
    file: &'a ModelFile,
    classes: usize,
    layers: Vec<LayerConfig>,
    /// Where each layer is written.
    lines: HashMap<String, usize>,
    /// How many layers there are of each default name.
    counts: HashMap<String, usize>,
    /// Entries and letters so far.
    written: Cell<usize>,
}

impl Expansion<'_> {
    /// Adds a list of layers, each taking what the one before gives; gives the name of the last one.
    fn sequence(&mut self, list: &[Spot], input: String, scope: &Scope) -> Result<String> {
        let mut before = input;
        for (at, spot) in list.iter().enumerate() {
            self.write(spot.line, scope.prefix.len() + before.len())?;
            if scope.depth > DEEPEST {
                return problem(
                    spot.line,
                    format!("blocks lie more than {DEEPEST} deep in one another; does one use itself?"),
                );
            }
            let layer = spot.table("each of the layers", "[[layers]]")?;
            before = match () {
                () if layer.contains_key("branches") => self.branches(spot, before, scope)?,
                () if layer.contains_key("block") || layer.contains_key("layers") => self.block(spot, before, scope)?,
                () => self.layer(list, at, before, scope)?,
            };
        }
        Ok(before)
    }

    /// Adds what several branches make of the same input, and the layer that joins them.
    fn branches(&mut self, spot: &Spot, input: String, scope: &Scope) -> Result<String> {
        let table = spot.table("branches", "[[layers]]")?;
        let mut outputs = Vec::new();
        for branch in table["branches"].list("branches")? {
            let layers = match &branch.value {
                Kind::List(layers) => layers.as_slice(),
                Kind::Table(branch) => {
                    allow(branch, &["layers"])?;
                    branch.get("layers").map_or(Ok(&[][..]), |layers| layers.list("layers"))?
                }
                Kind::Plain(_) => return problem(branch.line, "expected a branch to be a list of layers"),
            };
            self.write(
                branch.line,
                scope.prefix.len() + input.len() + scope.arguments.values().map(size).sum::<usize>(),
            )?;
            let inner = Scope {
                depth: scope.depth + 1,
                arguments: scope.arguments.clone(),
                prefix: scope.prefix.clone(),
                input: input.clone(),
            };
            outputs.push(self.sequence(layers, input.clone(), &inner)?);
        }
        if outputs.len() < 2 {
            return problem(table["branches"].line, format!("expected at least two branches, found {}", outputs.len()));
        }
        let class = match table.get("join") {
            None => Value::from("Add"),
            Some(join) => self.substituted(join, scope)?,
        };
        let mut join: BTreeMap<String, Spot> = table.clone();
        join.retain(|key, _| !["branches", "join"].contains(&key.as_str()));
        join.insert("class".into(), Spot { line: spot.line, value: Kind::Plain(class) });
        self.add(spot.line, &join, outputs, scope)
    }

    /// Adds a block, once or several times.
    fn block(&mut self, spot: &Spot, mut before: String, scope: &Scope) -> Result<String> {
        let table = spot.table("a block", "[[layers]]")?;
        let (definition, default) = match table.get("block") {
            None => (table, "group".to_owned()),
            Some(block) => {
                let name = block.text(block.line, "block")?;
                let Some(definition) = self.file.blocks.get(name) else {
                    let known: Vec<&str> = self.file.blocks.keys().map(String::as_str).collect();
                    return problem(block.line, unknown("block", name, &known));
                };
                (definition.table("a block", "[blocks.NAME]")?, name.to_owned())
            }
        };
        let Some(layers) = definition.get("layers") else {
            return problem(spot.line, format!("block {default} has no layers: [[blocks.{default}.layers]]"));
        };
        let layers = layers.list("layers")?;
        let repeat = self.count(table.get("repeat"), "repeat", scope)?.unwrap_or(1);
        let first = match table.get("first") {
            None => &BTreeMap::new(),
            Some(first) => first.table("first", "first = { strides = 2 }")?,
        };
        let mut arguments = scope.arguments.clone();
        for (key, value) in definition.iter().filter(|(key, _)| *key != "layers" && !RESERVED.contains(&key.as_str())) {
            arguments.insert(key.clone(), self.substituted(value, scope)?);
        }
        let parameters: Vec<&str> = definition.keys().map(String::as_str).filter(|key| *key != "layers").collect();
        for (key, value) in table.iter().filter(|(key, _)| !RESERVED.contains(&key.as_str()) && *key != "layers") {
            if table.contains_key("block") && !parameters.contains(&key.as_str()) {
                return problem(value.line, format!("block {default}: {}", unknown("argument", key, &parameters)));
            }
            arguments.insert(key.clone(), self.substituted(value, scope)?);
        }
        let name = match table.get("name") {
            Some(name) => format!("{}{}", scope.prefix, name.text(name.line, "name")?),
            None => self.default_name(&format!("{}{default}", scope.prefix)),
        };
        for number in 0..repeat {
            let mut arguments = arguments.clone();
            if number == 0 {
                for (key, value) in first {
                    if !arguments.contains_key(key) {
                        return problem(value.line, format!("first: {}", unknown("argument", key, &parameters)));
                    }
                    arguments.insert(key.clone(), self.substituted(value, scope)?);
                }
            }
            let prefix = if repeat > 1 { format!("{name}.{number}.") } else { format!("{name}.") };
            self.write(spot.line, prefix.len() + before.len() + arguments.values().map(size).sum::<usize>())?;
            let inner = Scope { prefix, input: before.clone(), arguments, depth: scope.depth + 1 };
            before = self.sequence(layers, before, &inner)?;
        }
        Ok(before)
    }

    /// Adds a layer of a list.
    fn layer(&mut self, list: &[Spot], at: usize, before: String, scope: &Scope) -> Result<String> {
        let table = list[at].table("each of the layers", "[[layers]]")?;
        let inputs = match table.get("inputs") {
            None => vec![before],
            Some(inputs) => {
                let names: Vec<&Spot> = match &inputs.value {
                    Kind::List(names) => names.iter().collect(),
                    _ => vec![inputs],
                };
                let names = names.into_iter().map(|name| {
                    let text = name.text(inputs.line, "inputs")?;
                    self.resolve(text, scope).map_or_else(|| problem(inputs.line, comes_later(list, at, text)), Ok)
                });
                names.collect::<Result<_>>()?
            }
        };
        self.add(list[at].line, table, inputs, scope)
    }

    fn add(
        &mut self,
        line: usize,
        table: &BTreeMap<String, Spot>,
        inputs: Vec<String>,
        scope: &Scope,
    ) -> Result<String> {
        let Some(class) = table.get("class") else {
            let example = "a layer needs a class, such as class = \"Conv2D\", a block, or branches";
            return problem(line, example);
        };
        let class_name = self.substituted(class, scope)?;
        let Some(class_name) = class_name.as_str() else {
            return problem(class.line, "expected a class's name as text");
        };
        let name = match table.get("name") {
            Some(name) => format!("{}{}", scope.prefix, name.text(name.line, "name")?),
            None => self.default_name(&format!("{}{}", scope.prefix, class_name.to_lowercase())),
        };
        if name == INPUT || self.lines.contains_key(&name) {
            let line = table.get("name").map_or(line, |name| name.line);
            return problem(line, format!("the name {name:?} is taken"));
        }
        let mut layer = Table::new();
        for (key, value) in table.iter().filter(|(key, _)| *key != "inputs") {
            layer.insert(key.clone(), self.substituted(value, scope)?);
        }
        layer.insert("name".into(), name.clone().into());
        layer.insert("inputs".into(), Value::Array(inputs.into_iter().map(Value::from).collect()));
        let config = LayerConfig::deserialize(layer).map_err(|error| {
            let text = error.to_string();
            // What the error quotes first is the key or the class; then come those that there are.
            let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
            let (line, text) = match quoted.split_first() {
                Some((found, known)) if text.contains("unknown field") => {
                    (table.get(*found).map_or(line, |spot| spot.line), unknown("argument", found, known))
                }
                Some((found, known)) if text.contains("unknown variant") && *found == class_name => {
                    return Problem { line: class.line, text: unknown("layer", found, known), of_images: false };
                }
                _ => (line, text.trim_end().lines().next().unwrap_or_default().to_owned()),
            };
            Problem { line, text: format!("{name} ({class_name}): {text}"), of_images: false }
        })?;
        if self.layers.len() == MOST_LAYERS {
            return problem(line, format!("the file comes to more than {MOST_LAYERS} layers"));
        }
        self.layers.push(config);
        self.lines.insert(name.clone(), line);
        Ok(name)
    }

    /// The layer that a name means: one of the same block, or of those around it.
    fn resolve(&self, name: &str, scope: &Scope) -> Option<String> {
        if name == INPUT {
            return Some(scope.input.clone());
        }
        let mut prefix = scope.prefix.as_str();
        loop {
            let full = format!("{prefix}{name}");
            if self.lines.contains_key(&full) {
                return Some(full);
            }
            if prefix.is_empty() {
                return None;
            }
            prefix = prefix[..prefix.len() - 1].rfind('.').map_or("", |dot| &prefix[..=dot]);
        }
    }

    /// Counts what the file is written out to, and ends where that is more than any model needs.
    fn write(&self, line: usize, amount: usize) -> Result<()> {
        let written = self.written.get().saturating_add(amount + 1);
        self.written.set(written);
        if written > MOST_WRITTEN {
            return problem(
                line,
                "the file comes to far more than a model: blocks repeat too often, or arguments grow",
            );
        }
        Ok(())
    }

    fn default_name(&mut self, name: &str) -> String {
        loop {
            let count = self.counts.entry(name.to_owned()).or_default();
            let candidate = if *count == 0 { name.to_owned() } else { format!("{name}_{count}") };
            *count += 1;
            if !self.lines.contains_key(&candidate) {
                return candidate;
            }
        }
    }

    fn count(&self, spot: Option<&Spot>, what: &str, scope: &Scope) -> Result<Option<usize>> {
        let Some(spot) = spot else { return Ok(None) };
        let count = self.substituted(spot, scope)?.as_integer().and_then(|count| usize::try_from(count).ok());
        match count {
            Some(count) if (1..=MOST_LAYERS).contains(&count) => Ok(Some(count)),
            _ => problem(spot.line, format!("{what}: expected a whole number from 1 to {MOST_LAYERS}")),
        }
    }

    /// A value with what `$name`, `$name * 4` and `"classes"` stand for.
    fn substituted(&self, spot: &Spot, scope: &Scope) -> Result<Value> {
        Ok(match &spot.value {
            Kind::List(list) => {
                Value::Array(list.iter().map(|spot| self.substituted(spot, scope)).collect::<Result<_>>()?)
            }
            Kind::Table(table) => {
                let entries = table.iter().map(|(key, spot)| Ok((key.clone(), self.substituted(spot, scope)?)));
                Value::Table(entries.collect::<Result<_>>()?)
            }
            Kind::Plain(Value::String(text)) if text == "classes" => Value::Integer(self.classes as i64),
            Kind::Plain(Value::String(text)) if text.starts_with('$') => {
                let (name, factor) = match text[1..].split_once('*') {
                    Some((name, factor)) => (name.trim(), factor.trim().parse::<i64>().ok()),
                    None => (text[1..].trim(), Some(1)),
                };
                let Some(value) = scope.arguments.get(name) else {
                    let known: Vec<&str> = scope.arguments.keys().map(String::as_str).collect();
                    return problem(spot.line, unknown("argument", name, &known));
                };
                self.write(spot.line, size(value))?;
                match (value, factor) {
                    (value, Some(1)) => value.clone(),
                    (Value::Integer(value), Some(factor)) => Value::Integer(value.saturating_mul(factor)),
                    _ => {
                        return problem(
                            spot.line,
                            format!("{text}: expected $NAME or $NAME * NUMBER, of whole numbers"),
                        );
                    }
                }
            }
            Kind::Plain(value) => {
                self.write(spot.line, size(value))?;
                value.clone()
            }
        })
    }
}

/// Entries and letters of a value.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(size).sum::<usize>(),
        Value::Table(entries) => 1 + entries.iter().map(|(key, value)| key.len() + size(value)).sum::<usize>(),
        Value::String(text) => 1 + text.len(),
        _ => 1,
    }
}

/// What a block's use says that is no argument of it.
const RESERVED: [&str; 4] = ["block", "repeat", "first", "name"];

impl Spot {
    fn list(&self, what: &str) -> Result<&[Spot]> {
        match &self.value {
            Kind::List(list) => Ok(list),
            _ => problem(self.line, format!("expected {what} to be a list")),
        }
    }

    fn table(&self, what: &str, how: &str) -> Result<&BTreeMap<String, Spot>> {
        match &self.value {
            Kind::Table(table) => Ok(table),
            _ => problem(self.line, format!("expected {what} to be a table: {how}")),
        }
    }

    fn text(&self, line: usize, what: &str) -> Result<&str> {
        match &self.value {
            Kind::Plain(Value::String(text)) if !text.is_empty() => Ok(text),
            _ => problem(line, format!("{what}: expected text")),
        }
    }

    /// The value without lines.
    fn plain(&self) -> Value {
        match &self.value {
            Kind::Plain(value) => value.clone(),
            Kind::List(list) => Value::Array(list.iter().map(Spot::plain).collect()),
            Kind::Table(table) => Value::Table(table.iter().map(|(key, spot)| (key.clone(), spot.plain())).collect()),
        }
    }
}

fn allow(table: &BTreeMap<String, Spot>, known: &[&str]) -> Result<()> {
    match table.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        Some((key, spot)) => problem(spot.line, unknown("key", key, known)),
        None => Ok(()),
    }
}

fn table_of(table: &DeTable<'_>, line_of: &impl Fn(usize) -> usize) -> BTreeMap<String, Spot> {
    let entries = table.iter().map(|(key, value)| {
        let spot = Spot { line: line_of(key.span().start), ..spot_of(value, line_of) };
        (key.get_ref().to_string(), spot)
    });
    entries.collect()
}

fn spot_of(value: &Spanned<DeValue<'_>>, line_of: &impl Fn(usize) -> usize) -> Spot {
    let kind = match value.get_ref() {
        DeValue::Array(list) => Kind::List(list.iter().map(|value| spot_of(value, line_of)).collect()),
        DeValue::Table(table) => Kind::Table(table_of(table, line_of)),
        DeValue::String(text) => Kind::Plain(Value::String(text.to_string())),
        DeValue::Boolean(value) => Kind::Plain(Value::Boolean(*value)),
        DeValue::Integer(number) => {
            let value = i64::from_str_radix(&number.as_str().replace('_', ""), number.radix());
            Kind::Plain(value.map_or_else(|_| Value::String(number.as_str().to_owned()), Value::Integer))
        }
        DeValue::Float(number) => {
            let value = number.as_str().replace('_', "").parse();
            Kind::Plain(value.map_or_else(|_| Value::String(number.as_str().to_owned()), Value::Float))
        }
        DeValue::Datetime(date) => Kind::Plain(Value::Datetime(*date)),
    };
    Spot { line: line_of(value.span().start), value: kind }
}

/// The error of a name that is not known, with the one that was probably meant.
fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let similar = nearest(name, known).map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
    let known = if known.is_empty() { "there is none".to_owned() } else { format!("expected {}", known.join(", ")) };
    format!("unknown {what} `{name}`{similar}; {known}")
}

/// The error of an input that is no earlier layer: a cycle, where what it names needs the layer itself.
fn comes_later(list: &[Spot], at: usize, name: &str) -> String {
    let named = |spot: &Spot, name: &str| {
        let Kind::Table(table) = &spot.value else { return false };
        table.get("name").is_some_and(|spot| spot.text(0, "name").is_ok_and(|text| text == name))
    };
    let Some(later) = list.iter().position(|spot| named(spot, name)) else {
        return format!("its input `{name}` is not the name of an earlier layer");
    };
    let inputs = |at: usize| -> Vec<usize> {
        let Kind::Table(table) = &list[at].value else { return Vec::new() };
        let Some(inputs) = table.get("inputs") else { return at.checked_sub(1).into_iter().collect() };
        let names: Vec<&Spot> =
            if let Kind::List(names) = &inputs.value { names.iter().collect() } else { vec![inputs] };
        let known = names.iter().filter_map(|name| {
            let name = name.text(0, "inputs").ok()?;
            list.iter().position(|spot| named(spot, name))
        });
        known.collect()
    };
    let (mut waiting, mut seen) = (vec![later], vec![false; list.len()]);
    while let Some(next) = waiting.pop() {
        if next == at {
            return format!(
                "a cycle: the layer takes `{name}` (line {}), which in turn is made from it",
                list[later].line
            );
        }
        if !std::mem::replace(&mut seen[next], true) {
            waiting.extend(inputs(next));
        }
    }
    format!("its input `{name}` comes later (line {}); layers come after their inputs", list[later].line)
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
        let mut text =
            "[[layers]]\nblock = 'b9'\n[[blocks.b0.layers]]\nclass = 'Activation'\nactivation = 'relu'\n".to_owned();
        for n in 1..10 {
            text += &format!("[[blocks.b{n}.layers]]\nblock = 'b{}'\nrepeat = 10000\n", n - 1);
        }
        assert!(build(&text).unwrap_err().contains("more than 10000 layers"));
        // Nothing, again and again.
        let nothing = text.replace("class = 'Activation'\nactivation = 'relu'", "layers = []");
        // Arguments that are lists of themselves.
        let mut growing = "[blocks.b0]\nx = 1\nlayers = []\n".to_owned();
        for n in 1..14 {
            let many = vec!["'$x'"; 50].join(", ");
            growing += &format!("[blocks.b{n}]\nx = 1\nlayers = [{{ block = 'b{}', x = [{many}] }}]\n", n - 1);
        }
        growing = format!("layers = [{{ block = 'b13' }}]\n{growing}");
        let long = "a".repeat(100_000);
        let names = format!(
            "layers = [{{ block = 'b', name = '{long}', repeat = 9000 }}]\n[blocks.b]\nlayers = [{{ class = 'Flatten' }}]\n"
        );
        for text in [nothing, growing, names] {
            let error = build(&text).unwrap_err();
            assert!(error.contains("the file comes to far more than a model"), "{error}");
        }
    }
}
