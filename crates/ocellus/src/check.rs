//! Looking at data before it is learnt from: what is damaged, doubled, leaked, mislabelled or odd.
//!
//! [`check`] reads every sample once and gives a [`Report`] of [`Finding`]s: each of a [`Kind`], with a [`Weight`], and for every
//! sample it is about the evidence. [`Report::text`] is for people, the report itself serialises for programs, [`html`] is a
//! page with pictures, and [`Cleaning`] says which samples to leave out. Nothing is ever changed or deleted. [`glance`] is what
//! can be found out about opened data in no time, before every training.
//!
//! ```no_run
//! use ocellus::check::{CheckOptions, check};
//! use ocellus::data::Catalog;
//! let catalog = Catalog::open("photos")?;
//! let report = check(&catalog, &CheckOptions::default(), &|_, _| {});
//! print!("{}", report.text());
//! # Ok::<(), ocellus::data::DataError>(())
//! ```
//!
//! What is looked for, how, and how well it is found: docs/checking.md.

mod alignment;
mod appearance;
mod classes;
mod cleaning;
mod defects;
mod duplicates;
mod facts;
mod glance;
mod html;
mod index;
mod jpeg;
mod perceptual;
mod report;
mod shapes;
mod strays;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

pub use cleaning::{Cleaning, csv_field};
pub use glance::glance;
pub use html::html;
pub use report::{ClassCount, Finding, Kind, Mention, Report, Weight};

use crate::data::{Catalog, Limits};
use facts::Scratch;
use perceptual::Hasher;

/// How data is checked.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Whether to look for near-duplicates, too; copies that are exact are always looked for.
    pub near_duplicates: bool,
    /// How many threads look; as many as the machine has by default. The report does not depend on it.
    pub threads: Option<usize>,
    /// How much a file may ask for.
    pub limits: Limits,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { near_duplicates: true, threads: None, limits: Limits::default() }
    }
}

/// Told how many of how many samples have been looked at; called from several threads.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Samples that the thresholds of the perceptual hash are made from.
const TYPICAL: usize = 512;

/// A property that this share of all samples has is the data's nature, no oddity.
const COMMON: f64 = 0.05;

/// Look at every sample of some data.
#[must_use]
pub fn check(catalog: &Catalog, options: &CheckOptions, progress: Progress) -> Report {
    let limits = &options.limits;
    let threads = options.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    let about = Surroundings { catalog, limits, threads };
    let hasher = options.near_duplicates.then(|| {
        let step = catalog.len().div_ceil(TYPICAL).max(1);
        let typical = in_parallel(catalog.len().div_ceil(step), threads, |at, scratch| {
            facts::typical(catalog, at * step, limits, scratch)
        });
        Hasher::new(typical.iter().flatten().map(Vec::as_slice))
    });
    let done = AtomicUsize::new(0);
    let facts = in_parallel(catalog.len(), threads, |index, scratch| {
        let facts = facts::examine(catalog, index, hasher.as_ref(), limits, scratch);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, catalog.len());
        facts
    });
    let mut findings = defects::findings(&about, &facts);
    findings.extend(strays::findings(catalog));
    findings.extend(duplicates::findings(&about, &facts));
    findings.extend(classes::findings(&about, &facts));
    findings.extend(appearance::findings(&about, &facts));
    findings.extend(shapes::findings(&about, &facts));
    let usable = facts.iter().filter(|facts| facts.image.is_ok()).count();
    Report::new(catalog, usable, findings)
}

/// What findings are made from, besides facts.
struct Surroundings<'a> {
    catalog: &'a Catalog,
    limits: &'a Limits,
    threads: usize,
}

/// A finding of a list of samples, each with its evidence; none of no samples.
fn list(about: &Surroundings<'_>, kind: Kind, samples: impl IntoIterator<Item = (usize, String)>) -> Option<Finding> {
    let mentions = samples.into_iter().map(|(index, evidence)| Mention::of(about.catalog, index, evidence));
    Finding::of(kind, mentions.collect())
}

/// As [`list`], of oddities: what many samples have in common is told in a line.
fn list_odd(about: &Surroundings<'_>, kind: Kind, samples: Vec<(usize, String)>) -> Option<Finding> {
    let count = samples.len();
    if count as f64 <= (COMMON * about.catalog.len() as f64).max(1.0) {
        return list(about, kind, samples);
    }
    let mut finding = list(about, kind, samples.into_iter().take(8))?;
    finding.weight = Weight::Note;
    let share = 100.0 * count as f64 / about.catalog.len() as f64;
    finding.message =
        format!("{count} images ({share:.0}%), so many that it seems to be their nature; some of them follow");
    Some(finding)
}

/// The results of some work for each number below `count`, in order.
fn in_parallel<T: Send>(count: usize, threads: usize, work: impl Fn(usize, &mut Scratch) -> T + Sync) -> Vec<T> {
    let stretch = (count / (threads * 8)).clamp(1, 64);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let worker = || {
        let mut scratch = Scratch::default();
        loop {
            let start = next.fetch_add(stretch, Ordering::Relaxed);
            if start >= count {
                break;
            }
            let results: Vec<T> =
                (start..(start + stretch).min(count)).map(|index| work(index, &mut scratch)).collect();
            done.lock().unwrap_or_else(PoisonError::into_inner).push((start, results));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(worker);
        }
        worker();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|&(start, _)| start);
    done.into_iter().flat_map(|(_, results)| results).collect()
}
