//! How a training is to run: what was typed, over what a file says, over the defaults.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use clap::{Args, ValueEnum};
use ocellus::data::Known;
use ocellus::model::Precision;
use ocellus::optimizers::{Adagrad, Adam, AdamW, Lamb, Lion, Muon, Nadam, Optimizer, RmsProp, Sgd};
use ocellus::recipe::Recipe;
use serde::{Deserialize, Serialize};

use crate::arguments::{MOST_THREADS, positive, threads};
use crate::distillation::Teacher;
use crate::failure::usage;
use crate::fine_tuning::{FINE_EPOCHS, FineTuning};
use crate::loading::Fold;

/// What can be set for a training, on the command line or in a TOML file; nothing needs to be.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Labelled images: a folder, a file or the name of a data set [default: Fashion-MNIST, of which ocellus carries a part].
    pub(crate) data: Option<PathBuf>,

    /// A model's name (see `ocellus models`) or an architecture in TOML [default: reference_cnn].
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub(crate) model: Option<String>,

    /// How often to go through the training images [default: 10].
    #[arg(long, value_name = "N", value_parser = epochs, allow_negative_numbers = true)]
    pub(crate) epochs: Option<Epochs>,

    /// Images per step [default: 32].
    #[arg(long, value_name = "N", value_parser = positive, allow_negative_numbers = true)]
    pub(crate) batch_size: Option<usize>,

    /// How weights move along their gradients [default: adam].
    #[arg(long, value_name = "NAME")]
    pub(crate) optimizer: Option<OptimizerName>,

    /// How far they move in a step [default: the optimizer's, 0.001; sgd 0.01].
    #[arg(long, value_name = "RATE", value_parser = learning_rate, allow_negative_numbers = true)]
    pub(crate) learning_rate: Option<f32>,

    /// Images to measure on after each epoch: a folder, a data set's name, or the fraction of the training images of each
    /// class to keep apart [default: the data's validation images, or else its test images, which decide nothing].
    #[arg(long, value_name = "DATA|FRACTION", allow_negative_numbers = true)]
    pub(crate) validation: Option<Validation>,

    /// Keep part K of N equal parts of the training images apart and measure on it after each epoch; the data's groups stay
    /// together. For cross-validation, with K from 1 to N.
    #[arg(long, value_name = "K/N", conflicts_with = "validation")]
    pub(crate) fold: Option<Fold>,

    /// Show each class equally often in training, however many images it has.
    #[arg(long)]
    #[serde(default)]
    pub(crate) balanced: bool,

    /// Key of everything random; the same seed gives the same model [default: 0].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,

    /// Compute with N threads; the model does not depend on it [default: all processors].
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true)]
    pub(crate) threads: Option<usize>,

    /// What convolutions and dense layers round the factors of their products to [default: f32, which is not at all].
    #[arg(long, value_name = "NAME")]
    pub(crate) precision: Option<TrainingPrecision>,

    /// The run's folder [default: runs/DATA-MODEL, numbered where it exists].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,

    /// Leave out the images that a CSV file names, as `ocellus labels` and `ocellus check --drops` write it.
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) drop_labels: Option<PathBuf>,

    /// Give the images that a CSV file names the labels in its column new_label.
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) relabel: Option<PathBuf>,

    /// Make damaged images an error instead of skipping them.
    #[arg(long)]
    #[serde(default)]
    pub(crate) strict: bool,

    #[command(flatten)]
    #[serde(default)]
    pub(crate) fine_tuning: FineTuning,

    #[command(flatten)]
    #[serde(default)]
    pub(crate) distillation: Teacher,

    /// All else that a recipe says.
    #[arg(skip)]
    pub(crate) recipe: Option<Recipe>,
}

/// A number of epochs, whole or not.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Epochs(pub(crate) f64);

impl Serialize for Epochs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 { serializer.serialize_u64(self.0 as u64) } else { serializer.serialize_f64(self.0) }
    }
}

/// An optimizer's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub(crate) enum OptimizerName {
    Adam,
    AdamW,
    Sgd,
    RmsProp,
    Adagrad,
    Nadam,
    Lion,
    Lamb,
    Muon,
}

impl OptimizerName {
    /// The name of an optimizer.
    pub(crate) fn of(optimizer: &Optimizer) -> Self {
        match optimizer {
            Optimizer::Adam(_) => Self::Adam,
            Optimizer::AdamW(_) => Self::AdamW,
            Optimizer::Sgd(_) => Self::Sgd,
            Optimizer::RmsProp(_) => Self::RmsProp,
            Optimizer::Adagrad(_) => Self::Adagrad,
            Optimizer::Nadam(_) => Self::Nadam,
            Optimizer::Lion(_) => Self::Lion,
            Optimizer::Lamb(_) => Self::Lamb,
            Optimizer::Muon(_) => Self::Muon,
        }
    }

    /// The optimizer with Keras' defaults, save for the learning rate where one is given.
    pub(crate) fn optimizer(self, learning_rate: Option<f32>) -> Optimizer {
        macro_rules! with_rate {
            ($optimizer:expr) => {
                match learning_rate {
                    Some(rate) => $optimizer.learning_rate(rate).into(),
                    None => $optimizer.into(),
                }
            };
        }
        match self {
            Self::Adam => with_rate!(Adam::new()),
            Self::AdamW => with_rate!(AdamW::new()),
            Self::Sgd => with_rate!(Sgd::new()),
            Self::RmsProp => with_rate!(RmsProp::new()),
            Self::Adagrad => with_rate!(Adagrad::new()),
            Self::Nadam => with_rate!(Nadam::new()),
            Self::Lion => with_rate!(Lion::new()),
            Self::Lamb => with_rate!(Lamb::new()),
            Self::Muon => with_rate!(Muon::new()),
        }
    }
}

/// What a training can compute in; predictions can in 8 bits, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub(crate) enum TrainingPrecision {
    /// Single precision.
    #[default]
    F32,
    /// Factors rounded to bf16, sums in single precision; fast on processors with AVX512_BF16 or AMX.
    Bf16,
}

impl TrainingPrecision {
    pub(crate) fn precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
        }
    }
}

/// What is measured on after each epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Validation {
    /// This share of the training images.
    Fraction(f64),
    /// Other images.
    Data(PathBuf),
}

impl FromStr for Validation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(fraction) => Self::Fraction(fraction).checked(),
            Err(_) => Ok(Self::Data(text.into())),
        }
    }
}

impl Validation {
    fn checked(self) -> Result<Self, String> {
        match self {
            Self::Fraction(fraction) if !(fraction > 0.0 && fraction < 1.0) => {
                Err(format!("expected a fraction between 0 and 1, a folder or a data set's name, received {fraction}"))
            }
            validation => Ok(validation),
        }
    }
}

/// How a training runs, everything decided; written to the run's folder as config.toml.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Resolved {
    #[serde(serialize_with = "crate::output::lossy")]
    pub(crate) data: PathBuf,
    pub(crate) model: String,
    pub(crate) epochs: Epochs,
    pub(crate) batch_size: usize,
    pub(crate) optimizer: OptimizerName,
    pub(crate) learning_rate: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) validation: Option<Validation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fold: Option<Fold>,
    pub(crate) balanced: bool,
    pub(crate) seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threads: Option<usize>,
    pub(crate) precision: TrainingPrecision,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) drop_labels: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) relabel: Option<PathBuf>,
    pub(crate) strict: bool,
    /// Left out of the file, so that running it again does not write over this run.
    #[serde(skip)]
    pub(crate) output: Option<PathBuf>,
    #[serde(skip_serializing_if = "FineTuning::is_empty")]
    pub(crate) fine_tuning: FineTuning,
    #[serde(skip_serializing_if = "Teacher::is_empty")]
    pub(crate) distillation: Teacher,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipe: Option<Recipe>,
}

impl Settings {
    /// The settings in a TOML file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| usage(format!("--config {}: {error}", path.display())))?;
        let parse = || -> Result<Self, String> {
            let settings: Self =
                toml::from_str(&text).map_err(|error| crate::recipes::explained(&text, &error.to_string()))?;
            settings.checked()
        };
        parse().map_err(|problem| usage(format!("--config {}: {problem}", path.display())))
    }

    /// These settings, and the others where these are silent.
    pub(crate) fn over(self, other: Self) -> Self {
        Self {
            data: self.data.or(other.data),
            model: self.model.or(other.model),
            epochs: self.epochs.or(other.epochs),
            batch_size: self.batch_size.or(other.batch_size),
            optimizer: self.optimizer.or(other.optimizer),
            learning_rate: self.learning_rate.or(other.learning_rate),
            // What is typed of the two counts, whatever the file has of the other.
            fold: self.fold.or(other.fold.filter(|_| self.validation.is_none())),
            validation: self.validation.or(other.validation.filter(|_| self.fold.is_none())),
            balanced: self.balanced || other.balanced,
            seed: self.seed.or(other.seed),
            threads: self.threads.or(other.threads),
            precision: self.precision.or(other.precision),
            output: self.output.or(other.output),
            drop_labels: self.drop_labels.or(other.drop_labels),
            relabel: self.relabel.or(other.relabel),
            strict: self.strict || other.strict,
            fine_tuning: self.fine_tuning.over(other.fine_tuning),
            distillation: self.distillation.over(other.distillation),
            recipe: self.recipe.or(other.recipe),
        }
    }

    /// The settings, and the defaults where they are silent.
    pub(crate) fn resolve(self) -> Resolved {
        let of_recipe = self.recipe.as_ref().and_then(|recipe| recipe.optimizer.as_ref());
        let optimizer = self.optimizer.or(of_recipe.map(OptimizerName::of)).unwrap_or(OptimizerName::Adam);
        let usual = || {
            let of_recipe = of_recipe.filter(|known| OptimizerName::of(known) == optimizer).cloned();
            of_recipe.unwrap_or_else(|| optimizer.optimizer(None)).learning_rate().at(0)
        };
        let learning_rate = self.learning_rate.unwrap_or_else(usual);
        Resolved {
            data: self.data.unwrap_or_else(|| Known::default_name().into()),
            model: self.model.unwrap_or_else(|| crate::models::DEFAULT.into()),
            epochs: self.epochs.unwrap_or(Epochs(if self.fine_tuning.fine_tune { FINE_EPOCHS } else { 10.0 })),
            batch_size: self.batch_size.unwrap_or(32),
            optimizer,
            learning_rate,
            validation: self.validation,
            fold: self.fold,
            balanced: self.balanced,
            seed: self.seed.unwrap_or(0),
            threads: self.threads,
            precision: self.precision.unwrap_or_default(),
            output: self.output,
            drop_labels: self.drop_labels,
            relabel: self.relabel,
            strict: self.strict,
            fine_tuning: self.fine_tuning,
            distillation: self.distillation,
            recipe: self.recipe,
        }
    }

    /// Holds a file's values to what the command line's are held to.
    fn checked(self) -> Result<Self, String> {
        let named =
            |name: &str, wrong: bool, expected: &str| if wrong { Err(format!("{name}: {expected}")) } else { Ok(()) };
        named(
            "epochs",
            self.epochs.is_some_and(|Epochs(epochs)| !(epochs > 0.0 && epochs.is_finite())),
            "expected a number above 0",
        )?;
        named("batch_size", self.batch_size == Some(0), "expected a whole number, at least 1")?;
        let threads = self.threads.unwrap_or(1);
        named("threads", !(1..=MOST_THREADS).contains(&threads), &format!("expected 1 to {MOST_THREADS}"))?;
        let rate = self.learning_rate.unwrap_or(1.0);
        named("learning_rate", !(rate > 0.0 && rate.is_finite()), "expected a number above 0")?;
        let validation = self.validation.clone().map(Validation::checked).transpose();
        validation.map_err(|problem| format!("validation: {problem}"))?;
        if let Some(problem) = self.recipe.as_ref().and_then(Recipe::problem) {
            return Err(format!("recipe: {problem}"));
        }
        let both = self.validation.is_some() && self.fold.is_some();
        named("fold", both, "expected no validation beside it")?;
        self.fine_tuning.check()?;
        self.distillation.check()?;
        Ok(self)
    }
}

impl Settings {
    /// What a recipe says of these settings, and the recipe.
    pub(crate) fn of_recipe(recipe: Recipe) -> Self {
        let precision = recipe.precision.map(|precision| match precision {
            Precision::Bf16 => TrainingPrecision::Bf16,
            _ => TrainingPrecision::F32,
        });
        Settings {
            model: recipe.model.clone(),
            epochs: recipe.epochs.map(Epochs),
            batch_size: recipe.batch_size,
            precision,
            distillation: recipe.distillation.clone().map(Teacher::of).unwrap_or_default(),
            recipe: Some(recipe),
            ..Settings::default()
        }
    }
}

impl Resolved {
    /// The optimizer with its highest learning rate: the recipe's, where it is of that name.
    pub(crate) fn highest_optimizer(&self) -> Optimizer {
        let of_recipe = self.recipe.as_ref().and_then(|recipe| recipe.optimizer.clone());
        match of_recipe.filter(|known| OptimizerName::of(known) == self.optimizer) {
            Some(optimizer) => optimizer.with_learning_rate(self.learning_rate),
            None => self.optimizer.optimizer(Some(self.learning_rate)),
        }
    }

    /// The settings as a file that [`Settings::read`] reads.
    pub(crate) fn to_toml(&self) -> Result<String> {
        let settings = toml::to_string(self).map_err(|error| usage(format!("the settings cannot be kept: {error}")))?;
        let version = env!("CARGO_PKG_VERSION");
        Ok(format!("# Written by ocellus {version}. To run it again: ocellus train --config THIS_FILE\n\n{settings}"))
    }
}

fn epochs(text: &str) -> Result<Epochs, String> {
    let epochs = text.parse::<f64>().ok().filter(|epochs| *epochs > 0.0 && epochs.is_finite());
    epochs.map(Epochs).ok_or_else(|| "expected a number above 0, such as 10 or 9.5".into())
}

pub(crate) fn learning_rate(text: &str) -> Result<f32, String> {
    let rate = text.parse::<f32>().ok().filter(|rate| *rate > 0.0 && rate.is_finite());
    rate.ok_or_else(|| "expected a number above 0".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        toml::from_str::<Settings>(text).map_err(|error| error.to_string())?.checked()
    }

    #[test]
    fn what_is_typed_counts_more() {
        let file = parse("data = 'a'\nepochs = 3\nvalidation = 0.25\noptimizer = 'sgd'\nstrict = true").unwrap();
        let typed = Settings {
            epochs: Some(Epochs(5.0)),
            validation: Some(Validation::Data("b".into())),
            ..Settings::default()
        };
        let resolved = typed.over(file).resolve();
        assert_eq!((resolved.data, resolved.epochs, resolved.strict), ("a".into(), Epochs(5.0), true));
        assert_eq!(resolved.validation, Some(Validation::Data("b".into())));
        assert_eq!((resolved.learning_rate, resolved.batch_size), (0.01, 32));
    }

    #[test]
    fn a_run_s_settings_can_be_read_again() {
        let settings =
            Settings { validation: Some(Validation::Fraction(0.1)), threads: Some(2), ..Settings::default() };
        let folded = Settings { fold: "2/5".parse().ok(), balanced: true, ..Settings::default() };
        for settings in [settings, folded] {
            let resolved = settings.resolve();
            let written = resolved.to_toml().unwrap();
            assert_eq!(parse(&written).unwrap().resolve(), resolved);
        }
    }

    #[test]
    fn files_are_held_to_the_same() {
        for (text, message) in [
            ("epochs = 0", "epochs: expected a number above 0"),
            ("batch_size = 0", "batch_size: expected"),
            ("threads = 0", "threads: expected 1 to 1024"),
            ("learning_rate = -1.0", "learning_rate: expected a number above 0"),
            ("learning_rate = nan", "learning_rate: expected a number above 0"),
            ("validation = 1.5", "validation: expected a fraction between 0 and 1"),
            ("fold = '6/5'", "expected K/N"),
            ("fold = '1/5'\nvalidation = 0.1", "fold: expected no validation beside it"),
            ("optimizer = 'adamant'", "adamw"),
            ("epoch = 3", "unknown field `epoch`"),
            ("epochs = 'three'", "invalid type"),
            ("epochs = ", "TOML parse error"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
