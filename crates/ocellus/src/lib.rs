//! Image classification.
#![forbid(unsafe_code)]

pub mod durable;
pub mod history;
pub mod metrics;
pub mod report;
