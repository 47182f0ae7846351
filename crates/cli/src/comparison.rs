//! `ocellus benchmark --compare FILE`: this run's figures beside those of an earlier run's `--json`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What makes two runs comparable.
const SAME: [&str; 6] = ["model", "image_shape", "instruction_set", "threads", "batch_size", "precision"];
/// The figures, and whether more is better.
const FIGURES: [(&str, &str, bool); 4] = [
    ("train_samples_s", "training, images/s", true),
    ("infer_samples_s", "prediction, images/s", true),
    ("latency_us", "one image, µs", false),
    ("peak_gflops", "peak, GFLOP/s", true),
];
/// A smaller change is no change: every figure is shown to the tenth of a percent, but none repeats to that.
const NO_CHANGE: f64 = 0.005;
/// The tables of operations, and what to call theirs.
const TABLES: [(&str, &str); 3] = [("steps", ""), ("infer_steps", "prediction: "), ("latency_steps", "one image: ")];
/// Operations listed: those whose time changed most.
const MOST_STEPS: usize = 12;

/// The figures of an earlier run.
#[derive(Debug)]
pub(crate) struct Earlier {
    file: String,
    figures: Value,
}

impl Earlier {
    /// Reads what `ocellus benchmark --json` has printed.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
        let figures: Value = match serde_json::from_str(&text) {
            Ok(figures) => figures,
            Err(error) => bail!("{file}: {error}; expected what `ocellus benchmark --json` has printed"),
        };
        if !figures["model"].is_string() || !FIGURES.iter().any(|(name, ..)| figures[name].is_number()) {
            bail!("{file}: no figures in it; expected what `ocellus benchmark --json` has printed");
        }
        Ok(Earlier { file, figures })
    }

    /// The earlier figures, these, and by how much they differ.
    pub(crate) fn compared_with(&self, now: &Value) -> String {
        let mut text = format!("\nCompared with {}:\n", self.file);
        for name in SAME {
            let (before, now) = (&self.figures[name], &now[name]);
            if before != now && !(before.is_null() || now.is_null()) {
                text += &format!("  note: {name} was {before}, is {now}\n");
            }
        }
        text += &format!("{:<50} {:>10} {:>10} {:>8}\n", "", "before", "now", "change");
        for (name, title, more_is_better) in FIGURES {
            if let (Some(before), Some(after)) = (self.figures[name].as_f64(), now[name].as_f64()) {
                let verdict = match after / before - 1.0 {
                    change if change.abs() < NO_CHANGE => "the same",
                    change if (change > 0.0) == more_is_better => "better",
                    _ => "worse",
                };
                text += &format!("{title:<50} {before:>10.1} {after:>10.1} {} {verdict}\n", change(before, after));
            }
        }
        let mut steps = self.steps(now);
        steps.sort_by(|a, b| f64::total_cmp(&(b.2 - b.1).abs(), &(a.2 - a.1).abs()));
        for (step, before, after) in steps.iter().take(MOST_STEPS) {
            text += &format!("{step:<50} {before:>10.2} {after:>10.2} {} µs\n", change(*before, *after));
        }
        text
    }

    /// The operations that both runs have, with their times.
    fn steps(&self, now: &Value) -> Vec<(String, f64, f64)> {
        TABLES.iter().flat_map(|(table, of)| self.steps_of(table, of, now)).collect()
    }

    fn steps_of(&self, table: &str, of: &str, now: &Value) -> Vec<(String, f64, f64)> {
        let name = |step: &Value| {
            let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
            format!("{of}{} {}", text("layer"), text("operation"))
        };
        let list = |figures: &Value| figures[table].as_array().cloned().unwrap_or_default();
        let earlier = list(&self.figures);
        let mut found = Vec::new();
        for step in list(now) {
            let step_name = name(&step);
            let before = earlier.iter().find(|earlier| name(earlier) == step_name).and_then(|e| e["us"].as_f64());
            if let (Some(before), Some(after)) = (before, step["us"].as_f64()) {
                found.push((step_name, before, after));
            }
        }
        found
    }
}

/// The change in percent, with its sign.
fn change(before: f64, after: f64) -> String {
    match before {
        0.0 => format!("{:>8}", ""),
        before => format!("{:>+7.1}%", 100.0 * (after / before - 1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(train: f64, conv: f64) -> Value {
        json!({"model": "a", "threads": 2, "train_samples_s": train, "latency_us": 10.0,
            "steps": [{"layer": "conv2d", "operation": "Conv2d", "us": conv}, {"layer": "x", "operation": "Add", "us": 1.0}],
            "latency_steps": [{"layer": "conv2d", "operation": "Conv2d", "us": 2.0 * conv}]})
    }

    #[test]
    fn tells_what_changed_and_what_cannot_be_compared() {
        let mut earlier = Earlier { file: "old.json".into(), figures: run(1000.0, 8.0) };
        let text = earlier.compared_with(&run(1100.0, 4.0));
        for part in [
            "old.json",
            "1000.0     1100.0   +10.0% better",
            "conv2d Conv2d",
            "8.00       4.00   -50.0% µs",
            "one image: conv2d Conv2d",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains("note:"), "{text}");
        assert!(text.contains("10.0       10.0    +0.0% the same"), "{text}");
        earlier.figures["threads"] = json!(1);
        assert!(earlier.compared_with(&run(1.0, 1.0)).contains("note: threads was 1, is 2"));
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.json");
        for (content, problem) in [("{}", "no figures in it"), ("not json", "expected what"), ("[1]", "no figures")] {
            std::fs::write(&path, content).unwrap();
            let error = Earlier::read(&path).unwrap_err().to_string();
            assert!(error.contains("other.json: ") && error.contains(problem), "{error}");
        }
        assert!(Earlier::read(&folder.path().join("none")).unwrap_err().to_string().contains("cannot read"));
    }
}
