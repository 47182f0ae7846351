//! What an operation is: how its shapes follow, how its gradient is added to the graph, and how it runs.

use crate::{Graph, GraphError, Inputs, Spec, Value};
use ocellus_kernels::{Buffer, Level, Pool, Precision};
use std::any::Any;
use std::fmt::Debug;

/// One operation of a graph: plain configuration. The arithmetic is in the [`Run`] made from it for a plan.
pub trait Op: Debug + Send + Sync + Any {
    /// The operation's name in errors and profiles.
    fn name(&self) -> &'static str;

    /// What comes out for these inputs, or what is wrong with them: what was expected, what was received.
    ///
    /// # Errors
    /// The problem, without place and name, which the graph adds.
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String>;

    /// The operation made ready for these shapes and this target.
    fn prepare(&self, inputs: &[&Spec], outputs: &[&Spec], target: Target) -> Box<dyn Run>;

    /// Adds the nodes that compute the gradients of the inputs that are wanted.
    ///
    /// # Errors
    /// Where the operation has no gradient.
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        Err(at.no_gradient(self.name()))
    }

    /// Whether the output is the input's memory under another shape, so that nothing needs to run.
    fn is_view(&self) -> bool {
        false
    }

    /// Floating-point operations for one sample.
    fn flops(&self, _inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        0
    }
}

/// What operations are made ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The instruction set.
    pub level: Level,
    /// What the factors of products are rounded to in convolutions and dense layers.
    pub precision: Precision,
}

impl dyn Op {
    /// The operation as its own type, for rewriting.
    pub(crate) fn is<T: Op>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// An operation made ready: it writes its outputs from its inputs and cannot fail.
pub trait Run: Debug + Send + Sync {
    /// Values of scratch memory needed for so many samples at a time.
    fn scratch_len(&self, _samples: usize) -> usize {
        0
    }

    /// The shared input that is read in a packed form, and the length of that form.
    fn packed(&self) -> Option<(usize, usize)> {
        None
    }

    /// Brings the input named by [`packed`](Self::packed) into its packed form; done whenever that input changes.
    fn pack(&self, _pool: &mut Pool, _from: &[f32], _packed: &mut [f32]) {}

    /// Computes the outputs.
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>);
}

/// Which samples a run is for.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Samples in this call.
    pub samples: usize,
    /// Position of the first of them in the batch.
    pub first: usize,
    /// Whether sums add to what earlier samples left; otherwise they are written anew.
    pub accumulate: bool,
    /// Samples in the whole batch.
    pub batch: usize,
    /// The step's numbers.
    pub scalars: &'a Scalars,
}

/// The numbers that change from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalars {
    /// 1 for the first step of a training.
    pub step: u64,
    /// Key of everything random.
    pub seed: u64,
    /// Size of the step.
    pub learning_rate: f32,
}

impl Default for Scalars {
    fn default() -> Self {
        Scalars { step: 1, seed: 0, learning_rate: 0.0 }
    }
}

/// Memory that a call writes.
#[derive(Debug, Default)]
pub struct Output {
    pub(crate) buffer: Buffer,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Output {
    /// The values to write.
    pub fn f32(&mut self) -> &mut [f32] {
        &mut self.buffer.f32_mut()[self.start..][..self.len]
    }

    /// The bytes to write.
    pub fn u8(&mut self) -> &mut [u8] {
        &mut self.buffer.u8_mut()[self.start..][..self.len]
    }
}

/// Where a gradient is being added: the node's values and what is known and wanted of their gradients.
#[derive(Debug)]
pub struct Backward<'a> {
    /// The graph, to add nodes to.
    pub graph: &'a mut Graph,
    /// The node's inputs.
    pub inputs: &'a [Value],
    /// The node's outputs.
    pub outputs: &'a [Value],
    pub(crate) gradients: &'a [Option<Value>],
    pub(crate) wanted: &'a [bool],
    pub(crate) results: Vec<Option<Value>>,
    pub(crate) place: &'a str,
}

impl Backward<'_> {
    /// The gradient of the first output.
    ///
    /// # Panics
    /// Never: a node without any output gradient is not asked.
    pub fn gradient(&self) -> Value {
        self.gradients[0].expect("the first output carries the gradient")
    }

    /// Whether the gradient of the n-th input is wanted.
    pub fn wants(&self, n: usize) -> bool {
        self.wanted.get(n).copied().unwrap_or(false)
    }

    /// Gives the gradient of the n-th input.
    pub fn set(&mut self, n: usize, gradient: Value) {
        self.results[n] = Some(gradient);
    }

    /// Adds an operation with one result.
    ///
    /// # Errors
    /// Where the operation cannot take these inputs.
    pub fn add(&mut self, op: impl Op + 'static, inputs: &[Value]) -> Result<Value, GraphError> {
        self.graph.add(op, inputs)
    }

    pub(crate) fn no_gradient(&self, op: &'static str) -> GraphError {
        GraphError::NoGradient { place: self.place.to_owned(), op }
    }
}
