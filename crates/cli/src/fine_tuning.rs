//! Beginning with weights that others have trained: what can be typed, and what it does to a model.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use ocellus::data::Preprocessing;
use ocellus::model::{LoadedWeights, Model, ParameterGroup, Published, Strictness, WeightFile};
use ocellus::optimizers::Optimizer;
use ocellus::recipe::{Length, Recipe};
use ocellus::schedules::Schedule;
use serde::{Deserialize, Serialize};

use crate::arguments::positive;
use crate::failure::usage;
use crate::models;
use crate::output::{note, thousands};
use crate::settings::Settings;

/// How a training begins with pretrained weights.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FineTuning {
    /// Begin with the weights in this file: safetensors with the names of torchvision or timm, or a model of ocellus. Images are
    /// prepared as was published for them; without --model, the model is the one that they are of.
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weights: Option<PathBuf>,

    /// Take the weights that fit, though others are missing or of another shape.
    #[arg(long, requires = "weights")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) partial_weights: bool,

    /// First train the last layer alone, on what the others give, then all layers at a tenth of the learning rate and less the
    /// earlier they come, by moving averages in place of batch statistics; --epochs counts the latter [default: 5].
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) fine_tune: bool,

    /// Epochs of the last layer alone [default: 15].
    #[arg(long, value_name = "N", value_parser = epochs, allow_negative_numbers = true, requires = "fine_tune")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) head_epochs: Option<u64>,

    /// Leave layers as they are: NAME (and what is below it, NAME.x), NAM*, ..NAME (all up to it), NAME.. (all from it),
    /// backbone (all but the last) or head (the last), or only variables of theirs: NAME/kernel, */beta; may be given several
    /// times.
    #[arg(long, value_name = "PATTERN")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) freeze: Vec<String>,

    /// Let layers learn at this share of the learning rate, and at as much less again with each halving of the image on the way
    /// back to the input; the last layer learns at all of it [default: 1; with --fine-tune 0.7].
    #[arg(long, value_name = "FACTOR", value_parser = share, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) learning_rate_decay: Option<f32>,

    /// Normalise by moving averages in training, too, and leave these as they are.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) fixed_statistics: bool,
}

/// Epochs of all layers, with `--fine-tune`.
pub(crate) const FINE_EPOCHS: f64 = 5.0;
/// Epochs of the last layer alone.
const HEAD_EPOCHS: u64 = 15;
/// How much slower all layers learn than the last one did alone.
const SLOWER: f32 = 0.1;
/// How much slower layers learn the earlier they come, with `--fine-tune`.
const DECAY: f32 = 0.7;
/// The moving averages of batch normalisation.
const STATISTICS: &str = "*/moving_*";

impl FineTuning {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These settings, and the others where these are silent.
    pub(crate) fn over(self, other: Self) -> Self {
        Self {
            weights: self.weights.or(other.weights),
            partial_weights: self.partial_weights || other.partial_weights,
            fine_tune: self.fine_tune || other.fine_tune,
            head_epochs: self.head_epochs.or(other.head_epochs),
            freeze: if self.freeze.is_empty() { other.freeze } else { self.freeze },
            learning_rate_decay: self.learning_rate_decay.or(other.learning_rate_decay),
            fixed_statistics: self.fixed_statistics || other.fixed_statistics,
        }
    }

    /// Holds a file's values to what the command line's are held to.
    pub(crate) fn check(&self) -> Result<(), String> {
        let wrong = |name: &str, expected: &str| Err(format!("{name}: expected {expected}"));
        if self.head_epochs == Some(0) {
            return wrong("head_epochs", "a whole number, at least 1");
        }
        if self.learning_rate_decay.is_some_and(|decay| !(decay > 0.0 && decay <= 1.0)) {
            return wrong("learning_rate_decay", "a number above 0, at most 1");
        }
        Ok(())
    }

    /// Epochs of the last layer alone, before all others.
    pub(crate) fn head_epochs(&self) -> u64 {
        if self.fine_tune { self.head_epochs.unwrap_or(HEAD_EPOCHS) } else { 0 }
    }

    /// The groups that these settings make of a model's parameters, beside a recipe's.
    pub(crate) fn groups(&self, model: &Model) -> Result<Vec<ParameterGroup>> {
        let mut groups = Vec::new();
        for pattern in &self.freeze {
            model.parameters_named(pattern).map_err(|error| usage(format!("--freeze: {error}")))?;
            groups.push(ParameterGroup::new(pattern).frozen());
        }
        // A model may have no statistics.
        if (self.fixed_statistics || self.fine_tune) && model.parameters_named(STATISTICS).is_ok() {
            groups.push(ParameterGroup::new(STATISTICS).frozen());
        }
        if let Some(decay) = self.learning_rate_decay.or(self.fine_tune.then_some(DECAY)) {
            groups.extend(model.groups_by_depth(decay)?);
        }
        Ok(groups)
    }

    /// The optimizer of all layers over a training of this length: with `--fine-tune` slower than the last layer's was, and
    /// down a cosine where the recipe has no schedule.
    pub(crate) fn scheduled(&self, recipe: &Recipe, optimizer: Optimizer, length: Length) -> Optimizer {
        if !self.fine_tune {
            return recipe.scheduled(optimizer, length);
        }
        let rate = SLOWER * optimizer.learning_rate().at(0);
        match recipe.schedule {
            Some(_) => recipe.scheduled(optimizer.with_learning_rate(rate), length),
            None => optimizer.with_learning_rate(Schedule::cosine(rate, length.steps)),
        }
    }
}

fn epochs(text: &str) -> Result<u64, String> {
    positive(text).map(|epochs| epochs as u64)
}

fn share(text: &str) -> Result<f32, String> {
    let share = text.parse::<f32>().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "expected a number above 0, at most 1".into())
}

/// Weights to begin with.
pub(crate) struct Pretrained {
    file: WeightFile,
    /// How others prepare images for them.
    published: Option<Published>,
    /// How the model of ocellus does that they are of.
    preprocessing: Option<Preprocessing>,
}

impl Pretrained {
    /// Opens the file that the settings name, and names the model where they do not.
    pub(crate) fn open(settings: &mut Settings) -> Result<Option<Self>> {
        let Some(path) = &settings.fine_tuning.weights else {
            if settings.fine_tuning.fine_tune {
                return Err(usage("--fine-tune: expected pretrained weights to begin with: --weights FILE"));
            }
            return Ok(None);
        };
        let pretrained = Self::of(WeightFile::open(path)?)?;
        if settings.model.is_none() {
            settings.model = Some(pretrained.model()?);
        }
        Ok(Some(pretrained))
    }

    pub(crate) fn of(file: WeightFile) -> Result<Self> {
        let own = file.is_model().then(|| models::load(file.path())).transpose()?;
        let preprocessing = own.map(|model| model.preprocessing().clone());
        Ok(Self { published: file.published(), preprocessing, file })
    }

    /// The name of the model that the weights are of.
    pub(crate) fn model(&self) -> Result<String> {
        let path = self.file.path();
        if self.file.is_model() {
            return Ok(path.to_string_lossy().into_owned());
        }
        self.file.architecture().map(str::to_owned).ok_or_else(|| {
            let names: Vec<&str> = self.file.names().take(3).collect();
            let (shown, names) = (path.display(), names.join(", "));
            usage(format!("{shown}: of no known model ({names} …); name it with --model, see `ocellus models`"))
        })
    }

    pub(crate) fn classes(&self) -> Option<usize> {
        self.file.classes()
    }

    pub(crate) fn preprocessing(&self) -> Option<Preprocessing> {
        self.preprocessing.clone().or_else(|| self.published.as_ref().map(Published::preprocessing))
    }

    /// The model with these weights, and a layer before it that normalises images as was published.
    pub(crate) fn load_into(&self, model: Model, options: &FineTuning) -> Result<Model> {
        let (model, loaded) = self.loaded(model, options.partial_weights)?;
        tell(self.file.path(), &loaded);
        Ok(model)
    }

    pub(crate) fn loaded(&self, mut model: Model, partial: bool) -> Result<(Model, LoadedWeights)> {
        if let (Some(published), None) = (&self.published, &self.preprocessing) {
            model = model.with_pixels_normalized(published.mean, published.deviation)?;
        }
        let strictness = if partial { Strictness::Partial } else { Strictness::Strict };
        let loaded = model.load_weights_from(&self.file, strictness)?;
        Ok((model, loaded))
    }
}

/// Says what was taken over and what was not.
pub(crate) fn tell(path: &Path, loaded: &LoadedWeights) {
    let (path, count) = (path.display(), thousands(loaded.parameters as u64));
    note(format_args!("{path}: {count} parameters taken over, with the names of {}", loaded.origin));
    if let Some(head) = &loaded.replaced_head {
        note(format_args!(
            "  {} begins anew: it tells {} classes apart, the file's {}",
            head.layer, head.in_model, head.in_file
        ));
    }
    if !loaded.passed_over.is_empty() {
        note(format_args!("  passed over: {}", loaded.passed_over));
    }
}
