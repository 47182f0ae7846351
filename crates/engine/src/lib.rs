//! From operations to a plan that cannot fail: shapes, graphs, gradients, memory planning and running.
//!
//! A [`Graph`] holds operations over per-sample shapes and is checked while it is built. [`Graph::gradients`] adds the
//! nodes that compute gradients, [`fuse`](fuse()) rewrites neighbours into one operation, and a [`Plan`] fixes order, stages and
//! memory for one batch size. A [`Runner`] owns that memory and runs the plan: nothing is allocated, nothing can fail.
//!
//! This crate knows no layers, data sets or files; arithmetic is `ocellus-kernels`'.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod error;
mod fuse;
mod gradient;
mod graph;
mod inputs;
mod join;
mod memory;
mod op;
pub mod ops;
mod parameters;
mod plan;
mod quantize;
mod runner;
mod update;
mod value;

pub use error::GraphError;
pub use fuse::{Fused, fuse, fuse_for_inference, fuse_for_training};
pub use graph::{Graph, Node};
pub use inputs::{Input, Inputs};
pub use join::join_for_inference;
pub use op::{At, Backward, Op, Output, Piece, Run, Scalars, Target};
pub use parameters::{Parameter, ParameterId, ParameterKind, Parameters};
pub use plan::{Plan, PlanOptions};
pub use quantize::{Range, quantizable, quantize};
pub use runner::{Outcome, Runner, StepTime};
pub use update::{Clip, Update};
pub use value::{DType, Role, Spec, Value};

pub use ocellus_kernels::peak;
pub use ocellus_kernels::update::Rule;
pub use ocellus_kernels::{Buffer, Level, Packing, Pool, Precision, UnknownLevel};

/// Values in a cache line: what elementwise operations are cut into.
pub(crate) const LINE: usize = 16;
