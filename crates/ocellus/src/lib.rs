//! Image classification.
#![forbid(unsafe_code)]

pub mod data;
pub mod durable;
pub mod history;
pub mod metrics;
pub mod random;
pub mod report;
