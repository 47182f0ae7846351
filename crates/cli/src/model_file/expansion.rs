//! Blocks and branches written out to layers one by one.

use std::collections::{BTreeMap, HashMap};

use ocellus::model::LayerConfig;
use serde::Deserialize;
use toml::{Table, Value};

use super::ModelFile;
use super::spot::{Kind, Problem, Result, Spot, problem, unknown};

/// Most layers and blocks that a file may come to, and how deep blocks may lie in one another.
const MOST_LAYERS: usize = 10_000;
const MOST_BLOCKS: usize = 100_000;
const DEEPEST: usize = 16;
/// Bytes of the longest name, with the names of the blocks around it.
const LONGEST_NAME: usize = 1_000;
/// The name of what a block or the model takes.
const INPUT: &str = "input";

/// A file's layers one by one, for so many classes, and the line on which each is written.
pub(super) fn expand(file: &ModelFile, classes: usize) -> Result<(Vec<LayerConfig>, HashMap<String, usize>)> {
    let mut expansion =
        Expansion { file, classes, layers: Vec::new(), lines: HashMap::new(), counts: HashMap::new(), blocks: 0 };
    let scope = Scope { prefix: String::new(), input: INPUT.into(), arguments: BTreeMap::new(), depth: 0 };
    expansion.sequence(&file.layers, INPUT.into(), &scope)?;
    Ok((expansion.layers, expansion.lines))
}

/// About how many numbers a value has.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(size).sum::<usize>(),
        Value::Table(table) => 1 + table.iter().map(|(_, value)| size(value)).sum::<usize>(),
        Value::String(text) => 1 + text.len() / 8,
        _ => 1,
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
    /// How often a block or a branch was written out, with layers or without.
    blocks: usize,
}

impl Expansion<'_> {
    /// Adds a list of layers, each taking what the one before gives; gives the name of the last one.
    fn sequence(&mut self, list: &[Spot], input: String, scope: &Scope) -> Result<String> {
        let mut before = input;
        for (at, spot) in list.iter().enumerate() {
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
        no_inputs(table)?;
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
            self.weigh(spot.line, &scope.arguments)?;
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

    /// Counts a block or a branch. Each has its arguments for itself, so long ones count as more blocks.
    fn weigh(&mut self, line: usize, arguments: &BTreeMap<String, Value>) -> Result<()> {
        self.blocks += 1 + arguments.values().map(size).sum::<usize>() / 64;
        if self.blocks > MOST_BLOCKS {
            return problem(line, format!("the file comes to more than {MOST_BLOCKS} blocks"));
        }
        Ok(())
    }

    /// Adds a block, once or several times.
    fn block(&mut self, spot: &Spot, mut before: String, scope: &Scope) -> Result<String> {
        let table = spot.table("a block", "[[layers]]")?;
        no_inputs(table)?;
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
        within_length(spot.line, &name)?;
        for number in 0..repeat {
            self.weigh(spot.line, &arguments)?;
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
        within_length(line, &name)?;
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
            Kind::List(list) => Value::Array(list.iter().map(|spot| self.part(spot, scope)).collect::<Result<_>>()?),
            Kind::Table(table) => {
                let entries = table.iter().map(|(key, spot)| Ok((key.clone(), self.part(spot, scope)?)));
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
            Kind::Plain(value) => value.clone(),
        })
    }

    /// A value in a list or a table. No argument that is itself a list can stand there: through blocks in blocks, lists of lists
    /// would grow beyond all memory.
    fn part(&self, spot: &Spot, scope: &Scope) -> Result<Value> {
        match (&spot.value, self.substituted(spot, scope)?) {
            (Kind::Plain(written), Value::Array(_) | Value::Table(_)) => {
                problem(spot.line, format!("{written}: expected a number or text within a list, found a list"))
            }
            (_, value) => Ok(value),
        }
    }
}

/// What a block's use says that is no argument of it.
const RESERVED: [&str; 4] = ["block", "repeat", "first", "name"];

/// Refuses `inputs` where they would have no meaning.
fn no_inputs(table: &BTreeMap<String, Spot>) -> Result<()> {
    match table.get("inputs") {
        Some(spot) => {
            problem(spot.line, "inputs: blocks and branches take what the one before gives; only a layer has inputs")
        }
        None => Ok(()),
    }
}

fn within_length(line: usize, name: &str) -> Result<()> {
    if name.len() <= LONGEST_NAME {
        return Ok(());
    }
    let start: String = name.chars().take(30).collect();
    problem(line, format!("the name \"{start}…\" is longer than {LONGEST_NAME} bytes"))
}

fn allow(table: &BTreeMap<String, Spot>, known: &[&str]) -> Result<()> {
    match table.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        Some((key, spot)) => problem(spot.line, unknown("key", key, known)),
        None => Ok(()),
    }
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
