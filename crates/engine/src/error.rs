//! What can be wrong with a graph.

use thiserror::Error;

/// A graph that cannot be built, with the place and what was expected there.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GraphError {
    /// Inputs that an operation cannot take.
    #[error("{place} ({op}): {problem}")]
    Shape {
        /// The layer, as the builder named it.
        place: String,
        /// The operation.
        op: &'static str,
        /// What was expected and what was received.
        problem: String,
    },
    /// A gradient through an operation that has none.
    #[error("{place} ({op}) has no gradient, but the loss depends on a parameter through it")]
    NoGradient {
        /// The layer, as the builder named it.
        place: String,
        /// The operation.
        op: &'static str,
    },
    /// A batch or a plan option that makes no plan.
    #[error("{0}")]
    Plan(String),
}
