//! Image classification.
#![forbid(unsafe_code)]

pub mod data;
pub mod durable;
pub mod history;
pub mod initializers;
pub mod layers;
pub mod metrics;
pub mod model;
pub mod random;
pub mod regularizers;
