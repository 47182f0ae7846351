//! What can go wrong with a model.

use super::file::FileError;
use super::network::LayerError;
use super::weights::WeightsError;
use crate::data::DataError;
use ocellus_engine::{GraphError, UnknownLevel};

/// Why a model could not be trained or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Layers that do not fit together.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// Operations that do not fit together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Training or evaluating before there is a loss.
    #[error("the model has no optimizer and loss yet: call `compile` first")]
    NotCompiled,
    /// An argument that makes no sense.
    #[error("{0}")]
    Argument(String),
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The loss was infinite or not a number, or what follows from it.
    #[error(
        "the {what} became {loss} in epoch {epoch}, step {step}, at learning rate {learning_rate:e}; the weights are the \
         last good ones. Lower the learning rate, clip gradients (global_clipnorm) or look for damaged images"
    )]
    NotFinite {
        /// What it was: the `loss`, the `weights` after a step, or after an epoch the `validation loss` or the `outputs`.
        what: &'static str,
        /// The epoch, 1 for the first.
        epoch: u64,
        /// The step within the epoch, 1 for the first: the last one where it shows only after the epoch.
        step: u64,
        /// The loss, or the value that was not finite.
        loss: f32,
        /// The learning rate of that step.
        learning_rate: f32,
    },
    /// A callback failed.
    #[error("{0}")]
    Callback(Box<dyn std::error::Error + Send + Sync>),
    /// A model file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Pretrained weights.
    #[error(transparent)]
    Weights(Box<WeightsError>),
    /// `OCELLUS_ISA` names an instruction set that this machine lacks.
    #[error("OCELLUS_ISA: {0}; name one of these or unset it")]
    Level(#[from] UnknownLevel),
}

impl ModelError {
    pub(super) fn argument(problem: impl Into<String>) -> Self {
        ModelError::Argument(problem.into())
    }
}

impl From<WeightsError> for ModelError {
    fn from(error: WeightsError) -> Self {
        ModelError::Weights(Box::new(error))
    }
}
