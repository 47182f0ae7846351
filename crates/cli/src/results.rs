//! Data sets and evaluations as people read them.

use ocellus::data::{Dataset, Skipped};
use ocellus::metrics::Evaluation;
use ocellus::report;

use crate::output::{note, thousands};

/// What a person should know of data sets: which files were left out, and how they were understood. Parts of one data set
/// have that in common, and it is told once.
pub(crate) fn tell_about(datasets: &[&Dataset]) {
    for (at, dataset) in datasets.iter().enumerate() {
        let before = &datasets[..at];
        let new = |text: &&String| !before.iter().any(|told| told.notes().contains(text));
        for text in dataset.notes().iter().filter(new) {
            note(format_args!("note: {text}"));
        }
        if !before.iter().any(|told| told.skipped() == dataset.skipped()) {
            tell_skipped(dataset.skipped());
        }
    }
}

fn tell_skipped(skipped: &[Skipped]) {
    const MOST: usize = 10;
    for Skipped { path, reason } in skipped.iter().take(MOST) {
        note(format_args!("warning: {}; skipped", report::printable(&format!("{}: {reason}", path.display()))));
    }
    let more = if skipped.len() > MOST { format!("… and {} more; ", skipped.len() - MOST) } else { String::new() };
    match skipped.len() {
        0 => {}
        1 => note("warning: 1 damaged image was skipped (--strict makes it an error)"),
        count => {
            note(format_args!("warning: {more}{count} damaged images were skipped (--strict makes them an error)"))
        }
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
