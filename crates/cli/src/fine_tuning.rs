//! Beginning with weights that others have trained: what can be typed, and what it does to a model.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use ocellus::data::Preprocessing;
use ocellus::model::{LoadedWeights, Model, Published, Strictness, WeightFile};
use serde::{Deserialize, Serialize};

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
}

impl FineTuning {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These settings, and the others where these are silent.
    pub(crate) fn over(self, other: Self) -> Self {
        Self { weights: self.weights.or(other.weights), partial_weights: self.partial_weights || other.partial_weights }
    }
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
        let Some(path) = &settings.fine_tuning.weights else { return Ok(None) };
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
