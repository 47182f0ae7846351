//! Image classification.
#![forbid(unsafe_code)]

pub mod data;
pub mod random;
