//! The command line through the real binary, in temporary folders.

mod bad_input;
mod harness;
mod quantize;
mod results;
mod sources;
mod training;
mod usage;
