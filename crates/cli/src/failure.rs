//! How the program ends when something went wrong: `error: …` on stderr, and 1 where the work failed, 2 where the usage was
//! wrong.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use ocellus::model::ModelError;

use crate::output::shown;

/// The program was told something that makes no sense; another argument is needed, not another machine.
#[derive(Debug)]
pub(crate) struct Usage(String);

/// An error that ends with code 2.
pub(crate) fn usage(problem: impl Into<String>) -> anyhow::Error {
    Usage(problem.into()).into()
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Nobody reads the results any more (`ocellus … | head`), which is no failure.
#[derive(Debug)]
pub(crate) struct NobodyReads;

impl fmt::Display for NobodyReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for NobodyReads {}

/// Some of the work failed, and each failure was reported where it occurred.
#[derive(Debug)]
pub(crate) struct Partly;

impl fmt::Display for Partly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("some of the work failed")
    }
}

impl std::error::Error for Partly {}

/// Prints help, the version, or what is wrong with the arguments.
pub(crate) fn of_arguments(error: &clap::Error) -> ExitCode {
    // Where it cannot be printed, the code still tells.
    let _ = error.print();
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    }
}

/// Tells a failure and gives the exit code it deserves.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<NobodyReads>() {
        return ExitCode::SUCCESS;
    }
    if !error.is::<Partly>() {
        // A closed stderr leaves the exit code.
        let _ = writeln!(io::stderr(), "error: {}", shown(&whole(error)));
    }
    // The environment is typed, too.
    let level = matches!(error.downcast_ref(), Some(ModelError::Level(_)));
    ExitCode::from(if error.is::<Usage>() || level { 2 } else { 1 })
}

/// The error with its causes, without those that it already tells.
fn whole(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match () {
        () if told.is_empty() => cause,
        () if told.contains(&cause) => told,
        () => format!("{told}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_are_told_once() {
        let full = || anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull));
        let cause = full().to_string();
        assert_eq!(whole(&full().context("cannot write x")), format!("cannot write x: {cause}"));
        let told = format!("cannot write x ({cause})");
        assert_eq!(whole(&Err::<(), _>(full()).context(told.clone()).unwrap_err()), told);
    }
}
