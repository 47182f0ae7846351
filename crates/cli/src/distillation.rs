//! Learning from another model: what can be typed, and the model that it names.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use ocellus::model::{Distillation, Model};
use ocellus::recipe::Teaching;
use serde::{Deserialize, Serialize};

use crate::models;
use crate::settings::TrainingPrecision;

/// What a model learns from another.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Teacher {
    /// Also learn what this model makes of the same images: a model of ocellus for images of the same size and the same classes.
    #[arg(long, value_name = "MODEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) teacher: Option<PathBuf>,

    /// What both models' logits are divided by where they are compared [default: 4].
    #[arg(long, value_name = "T", value_parser = temperature, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f32>,

    /// The share of the loss that compares the two models; the rest compares with the classes [default: 0.7].
    #[arg(long, value_name = "SHARE", value_parser = weight, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) teacher_weight: Option<f32>,
}

impl Teacher {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a recipe says.
    pub(crate) fn of(teaching: Teaching) -> Self {
        let Teaching { teacher, temperature, weight } = teaching;
        Self { teacher: Some(teacher), temperature: Some(temperature), teacher_weight: Some(weight) }
    }

    /// These settings, and the others where these are silent.
    pub(crate) fn over(self, other: Self) -> Self {
        Self {
            teacher: self.teacher.or(other.teacher),
            temperature: self.temperature.or(other.temperature),
            teacher_weight: self.teacher_weight.or(other.teacher_weight),
        }
    }

    /// Holds the values to what a recipe's are held to; without a teacher there are to be none.
    pub(crate) fn check(&self) -> Result<(), String> {
        let silent = self.temperature.is_none() && self.teacher_weight.is_none();
        if self.teacher.is_none() && !silent {
            return Err("--temperature and --teacher-weight: expected a model to learn from: --teacher MODEL".into());
        }
        let teaching = self.teaching(PathBuf::new());
        teaching.problem().map_or(Ok(()), Err)
    }

    fn teaching(&self, teacher: PathBuf) -> Teaching {
        let usual = Teaching::new(teacher);
        Teaching {
            temperature: self.temperature.unwrap_or(usual.temperature),
            weight: self.teacher_weight.unwrap_or(usual.weight),
            ..usual
        }
    }

    /// The model to learn from, in this precision.
    pub(crate) fn open(&self, precision: TrainingPrecision) -> Result<Option<Model>> {
        let Some(path) = &self.teacher else { return Ok(None) };
        let mut model = models::load(path)?;
        model.set_precision(precision.precision())?;
        Ok(Some(model))
    }

    pub(crate) fn distillation<'a>(&self, model: Option<&'a Model>) -> Option<Distillation<'a>> {
        let Teaching { temperature, weight, .. } = self.teaching(PathBuf::new());
        model.map(|model| Distillation::new(model).temperature(temperature).weight(weight))
    }
}

fn temperature(text: &str) -> Result<f32, String> {
    let temperature = text.parse::<f32>().ok().filter(|temperature| *temperature > 0.0 && temperature.is_finite());
    temperature.ok_or_else(|| "expected a number above 0".into())
}

fn weight(text: &str) -> Result<f32, String> {
    let weight = text.parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight));
    weight.ok_or_else(|| "expected a number from 0 to 1".into())
}
