//! What to label next, and what it would bring: unlabelled images that a model is unsure of, each in a way of its own, and
//! learning curves.

mod candidates;
mod learning_curve;

pub use candidates::{Candidates, Suggestion};
pub use learning_curve::{CurvePoint, Forecast, forecast};
