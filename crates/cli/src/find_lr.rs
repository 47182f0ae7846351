//! `ocellus find-lr`: which learning rate suits a model and its data.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use ocellus::durable::write_atomically;
use ocellus::metrics::Accuracy;
use ocellus::model::{FitOptions, RangeTest};
use ocellus::report::range_test_svg;
use serde::Serialize;

use crate::arguments::positive;
use crate::failure::usage;
use crate::fine_tuning::Pretrained;
use crate::loading::Loading;
use crate::models;
use crate::output::{lossy, note, print, print_json, table};
use crate::recipes;
use crate::settings::{Settings, learning_rate};
use crate::train;

#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct FindLr {
    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    loading: Loading,

    /// The settings of a recipe: a carried one's name (airbench94) or a TOML file; what is typed counts more.
    #[arg(long, value_name = "NAME|FILE.toml")]
    recipe: Option<String>,

    /// The lowest learning rate.
    #[arg(long, value_name = "RATE", default_value = "1e-6", value_parser = learning_rate, allow_negative_numbers = true)]
    lowest: f32,

    /// The highest learning rate.
    #[arg(long, value_name = "RATE", default_value = "10", value_parser = learning_rate, allow_negative_numbers = true)]
    highest: f32,

    /// How many steps, each with a higher rate.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive, allow_negative_numbers = true)]
    steps: usize,

    /// Where the picture goes.
    #[arg(long, value_name = "FILE.svg", default_value = "find-lr.svg")]
    svg: PathBuf,

    /// Print the results as one JSON object.
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Trains for some steps with rising learning rates and keeps nothing of it. The suggestion is the rate at which the loss falls
fastest; what rises soon after it is too high. The options are those of `ocellus train`.";

pub(crate) fn run(arguments: FindLr) -> Result<()> {
    let recipe = arguments.recipe.as_deref().map(recipes::find).transpose()?;
    let of_recipe = recipe.map(Settings::of_recipe).unwrap_or_default();
    let mut settings = arguments.settings.over(of_recipe);
    let pretrained = Pretrained::open(&mut settings)?;
    let settings = settings.resolve();
    let recipe = settings.recipe.clone().unwrap_or_default();
    settings.distillation.check().map_err(usage)?;
    let teacher = settings.distillation.open(settings.precision)?;
    let plan = models::Plan::find(&settings.model)?;
    let data = train::open(&settings, arguments.loading.cache(), pretrained.as_ref())?;
    let mut model = plan.build(data.train.image_shape(), data.train.class_count(), settings.seed)?;
    if let Some(pretrained) = &pretrained {
        model = pretrained.load_into(model, &settings.fine_tuning)?;
    }
    let groups = settings.fine_tuning.groups(&model)?;
    model.set_threads(settings.threads);
    model.set_precision(settings.precision.precision())?;
    let outputs = model.output_shape().iter().product();
    model.compile(settings.highest_optimizer(), recipe.loss(outputs), [Accuracy::new()])?;
    if pretrained.is_none() {
        recipe.initialize(&mut model, &data.train)?;
    }
    let (steps, batch_size, seed) = (arguments.steps as u64, settings.batch_size, settings.seed);
    let length = recipe.steps(data.train.len(), batch_size, settings.epochs.0);
    let mut options = recipe.options(FitOptions::new().batch_size(batch_size).seed(seed).groups(groups), length);
    options.distillation = settings.distillation.distillation(teacher.as_ref());
    note(format_args!(
        "{}: {steps} steps of {batch_size} images, {:?} to {:?}",
        plan.name(),
        arguments.lowest,
        arguments.highest
    ));
    let test = model.find_learning_rate(&data.train, options, (arguments.lowest, arguments.highest), steps)?;
    write_atomically(&arguments.svg, range_test_svg(&test))?;
    let found = Found { suggestion: test.suggestion(), svg: &arguments.svg, test: &test };
    if arguments.json {
        return print_json(&found);
    }
    let Some(suggestion) = found.suggestion else {
        bail!(
            "the loss fell at no learning rate: try others (--lowest, --highest) or more steps; see {}",
            arguments.svg.display()
        );
    };
    print(format_args!("{}\n{}", found.table(), found.conclusion(suggestion)))
}

#[derive(Serialize)]
struct Found<'a> {
    suggestion: Option<f64>,
    #[serde(serialize_with = "lossy")]
    svg: &'a Path,
    #[serde(flatten)]
    test: &'a RangeTest,
}

impl Found<'_> {
    /// Some of the steps, evenly spaced.
    fn table(&self) -> String {
        const ROWS: usize = 12;
        let RangeTest { rates, smoothed, .. } = self.test;
        let step = rates.len().div_ceil(ROWS).max(1);
        let rows = rates.iter().zip(smoothed).step_by(step);
        let rows: Vec<Vec<String>> =
            rows.map(|(rate, loss)| vec![format!("{rate:.1e}"), format!("{loss:.4}")]).collect();
        table(&["learning rate", "loss, smoothed"], &rows, &[0, 1])
    }

    fn conclusion(&self, suggestion: f64) -> String {
        let end = if self.test.diverged { "; the loss rose far, so it ended there" } else { "" };
        let last = self.test.rates.last().copied().unwrap_or_default();
        let svg = self.svg.display();
        format!(
            "{} steps up to {last:.1e}{end}. Curve: {svg}\n\nSuggested: --learning-rate {suggestion:.1e}\n",
            self.test.rates.len()
        )
    }
}
