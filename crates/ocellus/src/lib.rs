//! Image classification.
#![forbid(unsafe_code)]
