//! How a model was trained: what its file tells about it.

use super::Precision;
use super::batches::Batches;
use super::{FitOptions, Images};
use crate::history::SECONDS;
use crate::losses::Loss;
use crate::optimizers::Optimizer;
use ocellus_engine::Level;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a model was trained, the last time it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingRecord {
    /// The version of ocellus.
    pub version: String,
    /// The instruction set that was computed with.
    pub instruction_set: String,
    /// What convolutions and dense layers rounded the factors of their products to: `f32`, which is not at all, or `bf16`.
    pub precision: String,
    /// Key of everything random.
    pub seed: u64,
    /// A hash of the data set that was learnt from, where there was one.
    pub data_fingerprint: Option<String>,
    /// The share of the data that `fit` held back for validation, chosen by the seed; the hash is of the rest.
    pub validation_split: Option<f64>,
    /// Samples in an epoch.
    pub samples: usize,
    /// Samples in a step.
    pub batch_size: usize,
    /// Epochs gone through.
    pub epochs: u64,
    /// How the weights moved.
    pub optimizer: Option<Optimizer>,
    /// What was made small.
    pub loss: Option<Loss>,
    /// What the last epoch measured; null where that is no finite number. Not the time it took: the same training makes
    /// the same file.
    pub metrics: BTreeMap<String, Option<f64>>,
}

impl TrainingRecord {
    pub(super) fn begin(
        &mut self,
        options: &FitOptions<'_>,
        batches: &Batches<'_>,
        optimizer: &Optimizer,
        loss: &Loss,
        (level, precision): (Level, Precision),
    ) {
        *self = TrainingRecord {
            version: env!("CARGO_PKG_VERSION").into(),
            instruction_set: level.name().into(),
            precision: precision.name().into(),
            seed: options.seed,
            data_fingerprint: None,
            validation_split: options.validation_split,
            samples: batches.count(),
            batch_size: options.batch_size,
            epochs: options.initial_epoch,
            optimizer: Some(optimizer.clone()),
            loss: Some(*loss),
            metrics: BTreeMap::new(),
        };
    }

    pub(super) fn end_epoch(&mut self, values: &[(String, f64)], images: Images<'_>) {
        if let (Images::Dataset(dataset), None) = (images, &self.data_fingerprint) {
            // An image that can no longer be read would have ended the epoch.
            self.data_fingerprint = dataset.fingerprint().ok();
        }
        self.epochs += 1;
        let finite = |value: f64| value.is_finite().then_some(value);
        let measured = values.iter().filter(|(name, _)| name != SECONDS);
        self.metrics = measured.map(|(name, value)| (name.clone(), finite(*value))).collect();
    }
}
