//! The `ocellus` binary: what was typed, what it means, do it, report.

mod arguments;
mod benchmark;
mod budget;
mod check;
mod comparison;
mod datasets;
mod distillation;
mod evaluate;
mod failure;
mod find_lr;
mod fine_tuning;
mod import;
mod labels;
mod loading;
mod model_file;
mod models;
mod output;
mod predict;
mod progress;
mod quantize;
mod recipes;
mod results;
mod settings;
mod suggest;
mod summary;
mod train;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return failure::of_arguments(&error),
    };
    let done = match arguments.command {
        Command::Train(arguments) => train::run(*arguments),
        Command::FindLr(arguments) => find_lr::run(*arguments),
        Command::Evaluate(arguments) => evaluate::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Predict(arguments) => predict::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Labels(arguments) => labels::run(arguments),
        Command::Quantize(arguments) => quantize::run(arguments),
        Command::Suggest(arguments) => suggest::run(arguments),
        Command::Summary(arguments) => summary::run(arguments),
        Command::Models(arguments) => models::run(arguments),
        Command::Datasets(arguments) => datasets::run(arguments),
        Command::Benchmark(arguments) => benchmark::run(arguments),
    };
    done.map_or_else(|error| failure::report(&error), |()| ExitCode::SUCCESS)
}
