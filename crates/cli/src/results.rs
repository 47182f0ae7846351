//! Data sets and evaluations as people read them.

use ocellus::data::Dataset;
use ocellus::metrics::Evaluation;
use ocellus::report;

use crate::output::{note, thousands};

/// What a person should know of a data set: which files were left out, and how it was understood.
pub(crate) fn tell_about(dataset: &Dataset) {
    const MOST: usize = 10;
    for text in dataset.notes() {
        note(format_args!("note: {text}"));
    }
    let skipped = dataset.skipped();
    for file in skipped.iter().take(MOST) {
        note(format_args!(
            "warning: {}; skipped",
            report::printable(&format!("{}: {}", file.path.display(), file.reason))
        ));
    }
    match skipped.len() {
        0 => {}
        count @ 1..=MOST => {
            note(format_args!("warning: {count} damaged images were skipped (--strict makes them an error)"))
        }
        count => note(format_args!(
            "warning: … and {} more; {count} damaged images were skipped (--strict makes them an error)",
            count - MOST
        )),
    }
}

/// What was measured, in full: `name` is what the accuracy is called.
pub(crate) fn results(name: &str, evaluation: &Evaluation) -> String {
    let matrix = &evaluation.confusion_matrix;
    let (classes, confusion) = (report::class_table(matrix), report::confusion_table(matrix));
    format!("{name}: {}\n\n{classes}\n{confusion}", in_a_line(evaluation))
}

/// What was measured, in a line.
pub(crate) fn in_a_line(evaluation: &Evaluation) -> String {
    let interval = evaluation.accuracy_interval;
    let mut text = format!(
        "{} (95% interval {} to {})",
        report::percent(evaluation.accuracy),
        report::percent(interval.low),
        report::percent(interval.high),
    );
    if let Some(top_k) = evaluation.top_k {
        text += &format!(", top-{} {}", top_k.k, report::percent(top_k.accuracy));
    }
    format!("{text}, loss {:.4}, {} images", evaluation.loss, thousands(evaluation.samples))
}
