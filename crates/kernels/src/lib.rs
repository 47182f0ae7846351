//! The arithmetic of ocellus: slices in, slices out.
//!
//! Everything that touches SIMD, raw pointers or threads is in this crate, and nothing here knows graphs, layers or files.
//! Kernels take the instruction set ([`Level`]) that they run on, check the lengths of their slices, and allocate nothing.
#![deny(missing_docs)]

mod buffer;
pub mod conv;
mod isa;
mod peak;
mod pool;

pub use buffer::Buffer;
pub use isa::{Level, UnknownLevel};
pub use peak::multiply_add_peak;
pub use pool::Pool;
