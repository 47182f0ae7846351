//! Graphs, gradients and plans.
#![forbid(unsafe_code)]
