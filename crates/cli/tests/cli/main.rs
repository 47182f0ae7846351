//! The command line through the real binary, in temporary folders.

mod bad_input;
mod check;
mod harness;
mod pretrained;
mod quantize;
mod results;
mod sources;
mod training;
mod usage;
