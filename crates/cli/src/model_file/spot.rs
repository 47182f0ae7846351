//! Values of a TOML file with their lines, and errors that name these.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Value};

use crate::failure::usage;
use crate::models::nearest;

/// A value and its line.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) line: usize,
    pub(super) value: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Plain(Value),
    List(Vec<Spot>),
    Table(BTreeMap<String, Spot>),
}

/// What is wrong, and on which line.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(super) line: usize,
    pub(super) text: String,
    /// Whether other images might do.
    pub(super) of_images: bool,
}

impl Problem {
    /// The error for a user: of the usage, or of layers that do not suit the images.
    pub(crate) fn in_file(&self, path: &Path) -> anyhow::Error {
        let text = format!("{}:{}: {}", path.display(), self.line, self.text);
        if self.of_images { anyhow::anyhow!(text) } else { usage(text) }
    }
}

pub(super) type Result<T> = std::result::Result<T, Problem>;

pub(super) fn problem<T>(line: usize, text: impl Into<String>) -> Result<T> {
    Err(Problem { line, text: text.into(), of_images: false })
}

impl Spot {
    pub(super) fn list(&self, what: &str) -> Result<&[Spot]> {
        match &self.value {
            Kind::List(list) => Ok(list),
            _ => problem(self.line, format!("expected {what} to be a list")),
        }
    }

    pub(super) fn table(&self, what: &str, how: &str) -> Result<&BTreeMap<String, Spot>> {
        match &self.value {
            Kind::Table(table) => Ok(table),
            _ => problem(self.line, format!("expected {what} to be a table: {how}")),
        }
    }

    pub(super) fn text(&self, line: usize, what: &str) -> Result<&str> {
        match &self.value {
            Kind::Plain(Value::String(text)) if !text.is_empty() => Ok(text),
            _ => problem(line, format!("{what}: expected text")),
        }
    }

    /// The value without lines.
    pub(super) fn plain(&self) -> Value {
        match &self.value {
            Kind::Plain(value) => value.clone(),
            Kind::List(list) => Value::Array(list.iter().map(Spot::plain).collect()),
            Kind::Table(table) => Value::Table(table.iter().map(|(key, spot)| (key.clone(), spot.plain())).collect()),
        }
    }
}

pub(super) fn table_of(table: &DeTable<'_>, line_of: &impl Fn(usize) -> usize) -> BTreeMap<String, Spot> {
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
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let similar = nearest(name, known).map_or_else(String::new, |near| format!(" (did you mean {near}?)"));
    let known = if known.is_empty() { "there is none".to_owned() } else { format!("expected {}", known.join(", ")) };
    format!("unknown {what} `{name}`{similar}; {known}")
}
