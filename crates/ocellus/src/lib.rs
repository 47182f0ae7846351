//! Image classification.
#![forbid(unsafe_code)]

pub mod callbacks;
pub mod data;
pub mod durable;
#[cfg(test)]
mod golden;
pub mod history;
pub mod initializers;
pub mod layers;
pub mod losses;
pub mod metrics;
pub mod model;
pub mod models;
pub mod optimizers;
pub mod random;
pub mod regularizers;
pub mod report;
pub mod schedules;
