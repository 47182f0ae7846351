//! `ocellus labels`: the likeliest label errors of a run.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use ocellus::durable::write_atomically;
use ocellus::labels::{SampleRecord, Suspect, suspects};
use ocellus::report::{percent, printable};
use serde::Serialize;

use crate::arguments::positive;
use crate::output::{lossy, note, print, print_json, quoted, table, thousands};

/// What a run's folder keeps its training samples' trajectories in.
pub(crate) const FILE: &str = "samples.safetensors";

/// Suspects that are shown.
const SHOWN: usize = 20;

#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct Labels {
    /// A run's folder, such as runs/photos-reference_cnn.
    run: PathBuf,

    /// List the N likeliest [default: those that are more likely wrong than right].
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    count: Option<usize>,

    /// Write the list to this file [default: label_errors.csv in the run's folder].
    #[arg(long, value_name = "OUT.csv")]
    output: Option<PathBuf>,

    /// Print the list as one JSON object.
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
A label is suspect when training took its image for another class in most epochs. The list is for a person to look through:
delete the rows whose labels are right, correct new_label where the suggestion is wrong, and train again:
  ocellus train DATA --relabel OUT.csv       gives those images their new labels
  ocellus train DATA --drop-labels OUT.csv   leaves those images out";

pub(crate) fn run(arguments: Labels) -> Result<()> {
    let inside = arguments.run.join(FILE);
    let path = if arguments.run.is_dir() { inside } else { arguments.run.clone() };
    let record = SampleRecord::load(&path)?;
    let all = suspects(&record);
    let likely = all.iter().filter(|suspect| suspect.confidence > 0.5).count();
    let listed = &all[..arguments.count.unwrap_or(likely).min(all.len())];
    let output = arguments.output.unwrap_or_else(|| path.with_file_name("label_errors.csv"));
    write_atomically(&output, csv(&record, listed))?;
    let rows: Vec<Row> = listed.iter().map(|suspect| Row::new(&record, suspect)).collect();
    if arguments.json {
        return print_json(&Outcome { samples: all.len(), likely_wrong: likely, output: &output, suspects: rows });
    }
    let expected: f32 = all.iter().map(|suspect| suspect.confidence).sum();
    let header = ["image", "label", "suggested", "confidence", "margin"];
    let shown: Vec<Vec<String>> = rows.iter().take(SHOWN).map(Row::cells).collect();
    let more = listed.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("… and {} more\n", thousands(more as u64)) } else { String::new() };
    print(format_args!(
        "{} of {} labels are more likely wrong than right; about {:.0} wrong ones are expected in all\n\n{}{more}",
        thousands(likely as u64),
        thousands(all.len() as u64),
        expected,
        table(&header, &shown, &[3, 4])
    ))?;
    note(format_args!(
        "{}: {} labels to look through, then ocellus train DATA --relabel {} (or --drop-labels)",
        output.display(),
        thousands(listed.len() as u64),
        quoted(&output)
    ));
    Ok(())
}

#[derive(Serialize)]
struct Outcome<'a> {
    samples: usize,
    likely_wrong: usize,
    #[serde(serialize_with = "lossy")]
    output: &'a PathBuf,
    suspects: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    label: &'a str,
    suggested: &'a str,
    confidence: f32,
    margin: f32,
}

impl<'a> Row<'a> {
    fn new(record: &'a SampleRecord, suspect: &Suspect) -> Self {
        let class = |label: u32| record.class_names.get(label as usize).map_or("", String::as_str);
        Self {
            name: &record.names[suspect.sample],
            label: class(record.trajectories.labels()[suspect.sample]),
            suggested: class(suspect.suggested),
            confidence: suspect.confidence,
            margin: suspect.margin,
        }
    }

    fn cells(&self) -> Vec<String> {
        let texts = [self.name, self.label, self.suggested].map(printable);
        let numbers = [percent(f64::from(self.confidence)), format!("{:.2}", self.margin)];
        texts.into_iter().chain(numbers).collect()
    }
}

/// The list as [`Corrections`](ocellus::labels::Corrections) read it.
fn csv(record: &SampleRecord, suspects: &[Suspect]) -> String {
    let mut csv = String::from("name,label,new_label,confidence,margin\n");
    for suspect in suspects {
        let row = Row::new(record, suspect);
        let fields = [row.name, row.label, row.suggested].map(ocellus::labels::csv_field);
        csv += &format!("{},{:.3},{:.3}\n", fields.join(","), row.confidence, row.margin);
    }
    csv
}
