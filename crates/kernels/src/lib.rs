//! The arithmetic of ocellus: slices in, slices out.
//!
//! Everything that touches SIMD, raw pointers or threads is in this crate, and nothing here knows graphs, layers or files.
//! Kernels take the instruction set ([`Level`]) that they run on, check the lengths of their slices, and allocate nothing.
#![deny(missing_docs)]
#![allow(clippy::needless_range_loop, reason = "kernels index several arrays with one index")]

pub mod activation;
pub mod attention;
pub mod batch_norm;
mod bf16;
mod buffer;
mod columns;
pub mod conv;
pub mod dropout;
pub mod elementwise;
mod isa;
pub mod layer_norm;
pub mod loss;
mod map;
mod math;
mod packing;
pub mod peak;
mod pool;
pub mod pool2d;
pub mod quantize;
mod rectifier;
pub mod reduce;
pub mod softmax;
#[cfg(test)]
mod testing;
pub mod update;
mod values;

pub use bf16::Precision;
pub use buffer::Buffer;
pub use isa::{Level, UnknownLevel};
pub use packing::{Cut, Packed, Packing, WeightRows};
pub use pool::Pool;
pub use values::{Values, ValuesMut, convert};
