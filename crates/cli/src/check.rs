//! `ocellus check`: what is wrong with data, told, shown and listed.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use ocellus::check::{CheckOptions, Cleaning, Report, Weight, check, html};
use ocellus::data::Catalog;
use ocellus::durable::write_atomically;
use ocellus::report;

use crate::arguments::threads;
use crate::failure::Partly;
use crate::output::{note, print, print_json, quoted, thousands};
use crate::progress::Reading;

#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct Check {
    /// Labelled images: a folder, a file or the name of a data set.
    data: PathBuf,

    /// Write a page with pictures of everything that was found.
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,

    /// Write a manifest of the images that are good to use; nothing is changed or deleted.
    #[arg(long, value_name = "OUT.csv")]
    fix: Option<PathBuf>,

    /// Write the list of the images to leave out, for `ocellus train DATA --drop-labels OUT.csv`.
    #[arg(long, value_name = "OUT.csv")]
    drops: Option<PathBuf>,

    /// End with exit code 1 from findings of this weight on.
    #[arg(long, value_name = "WEIGHT", default_value = "error")]
    fail_on: FailOn,

    /// Do not look for near-duplicates, only for exact ones.
    #[arg(long)]
    no_near_duplicates: bool,

    /// Look with N threads; the result does not depend on it [default: all processors].
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    threads: Option<usize>,

    /// Print everything that was found as one JSON object.
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Errors are what makes results wrong or loses images: damaged files, copies in several splits, copies with different labels,
classes without images. Warnings are to be looked at, notes are good to know. Exit code: 0 nothing of weight, 1 findings of the
weight that --fail-on names or graver, 2 wrong usage.";

/// Findings that make the exit code 1.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Error,
    Warning,
    Note,
    Never,
}

pub(crate) fn run(arguments: Check) -> Result<()> {
    let catalog = Catalog::open(&arguments.data)?;
    let options = CheckOptions {
        near_duplicates: !arguments.no_near_duplicates,
        threads: arguments.threads,
        ..CheckOptions::default()
    };
    let reading = Reading::stderr();
    let found = check(&catalog, &options, &|done, all| reading.update(done, all));
    drop(reading);
    write_files(&arguments, &catalog, &options, &found)?;
    if arguments.json {
        print_json(&found)?
    } else {
        print(found.text())?
    }
    let limit = match arguments.fail_on {
        FailOn::Error => Some(Weight::Error),
        FailOn::Warning => Some(Weight::Warning),
        FailOn::Note => Some(Weight::Note),
        FailOn::Never => None,
    };
    // The findings are the message.
    let grave = limit.is_some_and(|limit| found.weight().is_some_and(|weight| weight <= limit));
    if grave { Err(Partly.into()) } else { Ok(()) }
}

fn write_files(arguments: &Check, catalog: &Catalog, options: &CheckOptions, found: &Report) -> Result<()> {
    if let Some(path) = &arguments.html {
        write_atomically(path, html(found, catalog, &options.limits))?;
        note(format_args!("{}: everything that was found, with pictures", path.display()));
    }
    let cleaning = Cleaning::of(found, catalog);
    let kept = thousands((catalog.len() - cleaning.len()) as u64);
    let dropped = thousands(cleaning.len() as u64);
    if let Some(path) = &arguments.fix {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(".".as_ref());
        let Some(manifest) = cleaning.manifest(catalog, folder) else {
            bail!(
                "{}: its images are not files of their own, so no manifest can name them; use --drops instead of --fix",
                report::printable(&arguments.data.display().to_string())
            );
        };
        write_atomically(path, manifest)?;
        note(format_args!("{}: {kept} images that are good to use, without {dropped} others", path.display()));
    }
    if let Some(path) = &arguments.drops {
        write_atomically(path, cleaning.drops(catalog))?;
        note(format_args!(
            "{}: {dropped} images to leave out: ocellus train {} --drop-labels {}",
            path.display(),
            quoted(&arguments.data),
            quoted(path)
        ));
    }
    Ok(())
}
