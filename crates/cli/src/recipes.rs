//! Recipes by name or from a TOML file.

use std::fs;
use std::path::Path;

use anyhow::Result;
use ocellus::recipe::Recipe;
use toml::{Table, Value};

use crate::failure::usage;

/// One line for each recipe that the program carries.
macro_rules! carried {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../../recipes/", $name, ".toml")))),*]
    };
}

const CARRIED: [(&str, &str); 4] = carried!["airbench94", "resnet20", "fashion-mnist", "mnist"];

/// The recipe of a name, or in a file.
pub(crate) fn find(name: &str) -> Result<Recipe> {
    if let Some((_, text)) = CARRIED.iter().find(|(known, _)| *known == name) {
        return parse(text).map_err(|problem| usage(format!("--recipe {name}: {problem}")));
    }
    if Path::new(name).extension().is_none_or(|end| end != "toml") {
        let names: Vec<&str> = CARRIED.iter().map(|(name, _)| *name).collect();
        let hint = near(name, &names);
        let known = names.join(", ");
        return Err(usage(format!(
            "--recipe {name}: no recipe of this name{hint}; expected {known} or the path of one in TOML (FILE.toml)"
        )));
    }
    let text = fs::read_to_string(name).map_err(|error| usage(format!("--recipe {name}: {error}")))?;
    parse(&text).map_err(|problem| usage(format!("--recipe {name}: {problem}")))
}

fn parse(text: &str) -> Result<Recipe, String> {
    let recipe: Recipe = toml::from_str(text).map_err(|error| explained(text, &error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    check_optimizer(&recipe, &table).map_err(|problem| explained(text, &problem))?;
    match recipe.problem() {
        Some(problem) => Err(problem),
        None => Ok(recipe),
    }
}

/// Optimizers take bounds on gradients beside their own keys, so that reading one passes over what it does not know.
fn check_optimizer(recipe: &Recipe, table: &Table) -> Result<(), String> {
    let (Some(optimizer), Some(Value::Table(given))) = (&recipe.optimizer, table.get("optimizer")) else {
        return Ok(());
    };
    let known = Table::try_from(optimizer).map_err(|error| error.to_string())?;
    let bounds = ["clipvalue", "clipnorm", "global_clipnorm", "weight_decay"];
    let known: Vec<&str> = known.keys().map(String::as_str).chain(bounds).collect();
    match given.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => {
            let known: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
            Err(format!("unknown field `{key}`, expected one of {}", known.join(", ")))
        }
        None => Ok(()),
    }
}

/// What is wrong with a file: an unknown key with its line and the one that was probably meant, all else as it was told.
pub(crate) fn explained(text: &str, problem: &str) -> String {
    let told = problem.trim_end();
    let Some((kind, rest)) = ["field", "variant"]
        .into_iter()
        .find_map(|kind| Some((kind, told.split_once(&format!("unknown {kind} `"))?.1)))
    else {
        return told.to_owned();
    };
    let mut quoted = rest.split('`');
    let Some(unknown) = quoted.next() else { return told.to_owned() };
    // After the unknown one, what stands between two of the marks.
    let known: Vec<&str> = quoted.skip(1).step_by(2).collect();
    let holds = |line: &str| {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let key = key.trim().trim_matches(['[', ']', '"', '\'']);
        if kind == "field" {
            key == unknown || key.rsplit('.').next() == Some(unknown) || value.contains(&format!("{unknown} ="))
        } else {
            value.contains(unknown)
        }
    };
    let line = text.lines().position(|line| !line.trim_start().starts_with('#') && holds(line));
    let line = line.map_or_else(String::new, |line| format!("line {}: ", line + 1));
    let what = if kind == "field" { "unknown key" } else { "unknown name" };
    let mut expected = known.clone();
    expected.sort_unstable();
    expected.dedup();
    format!("{line}{what} {unknown:?}{}; expected one of {}", near(unknown, &known), expected.join(", "))
}

fn near(typed: &str, names: &[&str]) -> String {
    crate::models::nearest(typed, names).map_or_else(String::new, |near| format!(" (did you mean {near}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carried_recipes_are_sound() {
        for (name, text) in CARRIED {
            let recipe = parse(text).unwrap_or_else(|problem| panic!("{name}: {problem}"));
            let written = toml::to_string(&recipe).unwrap();
            assert_eq!(parse(&written).unwrap(), recipe, "{name}");
        }
    }

    #[test]
    fn unknown_keys_are_told_with_line_and_likeness() {
        for (text, message) in [
            (
                "epochs = 3\nbatchsize = 3",
                "line 2: unknown key \"batchsize\" (did you mean batch_size?); expected one of",
            ),
            (
                "# lerning_rate\n[[groups]]\nparameters = 'a'\nlerning_rate = 3.0",
                "line 4: unknown key \"lerning_rate\" (did you mean learning_rate?)",
            ),
            ("[optimizer]\nclass = 'SGD'\nmomentun = 0.9", "line 3: unknown key \"momentun\" (did you mean momentum?)"),
            (
                "[[augment]]\nclass = 'Translat'\npixels = 2",
                "line 2: unknown name \"Translat\" (did you mean Translate?)",
            ),
            ("[[augment]]\nclass = 'Translate'\npixel = 2", "line 3: unknown key \"pixel\" (did you mean pixels?)"),
            ("[schedule]\nclass = 'Cosine'\nwarmup = 0.1", "line 3: unknown key \"warmup\" (did you mean warm_up?)"),
            ("optimiser = { class = 'SGD' }", "line 1: unknown key \"optimiser\" (did you mean optimizer?)"),
            ("epochs = 'three'", "invalid type"),
            ("epochs = 0", "epochs: expected a number above 0"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.contains(message), "{text}: {found}");
        }
        let error = find("airbench95").unwrap_err().to_string();
        assert!(error.contains("did you mean airbench94?"), "{error}");
    }
}
