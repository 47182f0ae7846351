//! Momentum that is made orthogonal.

use super::Clipping;
use crate::schedules::Schedule;
use ocellus_engine::Rule;
use serde::{Deserialize, Serialize};

/// The kernels of convolutions (not of depthwise ones) and dense layers but the last move along their momentum, made orthogonal, so that no direction of a
/// matrix is learnt faster than another; all else moves as [`AdamW`](super::AdamW) has it, at a share of the learning rate.
///
/// A kernel is taken as a matrix of filters or units against all that each of them reads, and its steps are longer by
/// `sqrt(max(1, outputs / inputs))`.
///
/// Jordan et al., *Muon: an optimizer for hidden layers in neural networks*, 2024.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Muon {
    /// The size of the steps.
    pub learning_rate: Schedule,
    /// What the mean gradient keeps of itself at each step.
    pub momentum: f32,
    /// Whether the gradient looks ahead along the momentum.
    pub nesterov: bool,
    /// What a weight loses at each step, times the learning rate.
    pub weight_decay: f32,
    /// The learning rate of all that is no such kernel, as a share of the kernels'.
    pub rest: f32,
    /// For the rest, what the mean gradient keeps of itself at each step.
    pub beta_1: f32,
    /// For the rest, what the mean square keeps of itself at each step.
    pub beta_2: f32,
    /// For the rest, added to the root.
    pub epsilon: f32,
    /// Bounds on gradients.
    #[serde(flatten)]
    pub clipping: Clipping,
}

impl Default for Muon {
    fn default() -> Self {
        Muon {
            learning_rate: 0.02.into(),
            momentum: 0.95,
            nesterov: true,
            weight_decay: 0.0,
            rest: 0.015,
            beta_1: 0.9,
            beta_2: 0.95,
            epsilon: 1e-10,
            clipping: Clipping::default(),
        }
    }
}

impl Muon {
    /// What the mean gradient keeps of itself at each step. 0.95 by default.
    pub fn momentum(self, momentum: f32) -> Self {
        Muon { momentum, ..self }
    }

    /// Whether the gradient looks ahead along the momentum. It does by default.
    pub fn nesterov(self, nesterov: bool) -> Self {
        Muon { nesterov, ..self }
    }

    /// What a weight loses at each step, times the learning rate. 0 by default.
    pub fn weight_decay(self, weight_decay: f32) -> Self {
        Muon { weight_decay, ..self }
    }

    /// The learning rate of all that is no hidden kernel, as a share of the kernels'. 0.015 by default.
    pub fn rest(self, rest: f32) -> Self {
        Muon { rest, ..self }
    }

    /// For what is no hidden kernel.
    pub(super) fn rule(&self) -> Rule {
        let Muon { beta_1, beta_2, epsilon, weight_decay, .. } = *self;
        Rule::Adam { beta_1, beta_2, epsilon, weight_decay, amsgrad: false }
    }

    /// For a hidden kernel of this shape, the outputs last.
    pub(super) fn matrix_rule(&self, shape: &[usize]) -> Rule {
        let Muon { momentum, nesterov, weight_decay, .. } = *self;
        let outputs = shape.last().copied().unwrap_or(1);
        let inputs = shape.iter().product::<usize>() / outputs.max(1);
        Rule::Muon { momentum, nesterov, weight_decay, inputs, outputs }
    }
}
