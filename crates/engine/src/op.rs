//! What an operation is: how its shapes follow, how its gradient is added to the graph, and how it runs.

use crate::graph::Source;
use crate::ops::Add;
use crate::{DType, Graph, GraphError, Inputs, Spec, Value};
use ocellus_kernels::{Buffer, Level, Packing, Precision, ValuesMut};
use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;

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

    /// The input of the first output's shape that the output may be written over, if nothing reads it afterwards; then
    /// [`Inputs::is_overwritten`].
    fn overwrites(&self) -> Option<usize> {
        None
    }

    /// Whether each pixel of the outputs, sums apart, follows from the same pixel of the inputs alone, so that bands of an
    /// image's rows may be computed one after another as if they were images.
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        false
    }

    /// Whether the n-th input may hold bf16 values.
    fn reads_bf16(&self, _input: usize) -> bool {
        false
    }

    /// Whether the n-th output may be written as bf16 values where the precision is bf16.
    fn writes_bf16(&self, _inputs: &[&Spec], _output: usize) -> bool {
        false
    }

    /// Whether computing the output once more takes less time than writing it to memory and reading it back.
    fn is_cheap(&self) -> bool {
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

    /// The shared input that is read in a packed form, and what brings it into that whenever it changes.
    fn packing(&self) -> Option<(usize, &dyn Packing)> {
        None
    }

    /// Values in the smallest piece that a sample's outputs, all of one length, can be cut into, so that several workers
    /// share a large sample; 0 where they cannot be cut.
    fn unit(&self) -> usize {
        0
    }

    /// Computes a piece of the outputs for one sample, the same to the bit as [`run`](Self::run) computes it. The piece
    /// begins at a multiple of [`unit`](Self::unit) and ends at one or with the outputs; other workers compute others.
    fn run_piece(&self, _inputs: &Inputs<'_>, _piece: &mut Piece<'_>, _scratch: &mut [f32], _at: &At<'_>) {
        unreachable!("it has no pieces")
    }

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
    /// Which of the step's batches this is, from 0.
    pub part: usize,
    /// Batches that move the parameters together, by the mean of their gradients: only the last of them updates.
    pub parts: usize,
}

impl Default for Scalars {
    fn default() -> Self {
        Scalars { step: 1, seed: 0, learning_rate: 0.0, part: 0, parts: 1 }
    }
}

/// Memory that a call writes.
#[derive(Debug, Default)]
pub struct Output {
    pub(crate) buffer: Buffer,
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) dtype: DType,
}

impl Output {
    /// The values to write, of the type that the plan gave them.
    pub fn values(&mut self) -> ValuesMut<'_> {
        match self.dtype {
            DType::Bf16 => ValuesMut::Bf16(&mut self.buffer.bf16_mut()[self.start..][..self.len]),
            _ => ValuesMut::F32(self.f32()),
        }
    }

    /// The values to write.
    pub fn f32(&mut self) -> &mut [f32] {
        &mut self.buffer.f32_mut()[self.start..][..self.len]
    }

    /// The bytes to write.
    pub fn u8(&mut self) -> &mut [u8] {
        &mut self.buffer.u8_mut()[self.start..][..self.len]
    }
}

/// Most outputs that an operation with pieces can have.
pub(crate) const MOST_PARTS: usize = 2;

/// A run of values of a sample's outputs: what one of several workers writes.
#[derive(Debug, Default)]
pub struct Piece<'a> {
    pub(crate) values: Range<usize>,
    pub(crate) parts: [Part<'a>; MOST_PARTS],
}

/// A piece of one output.
#[derive(Debug, Default)]
pub(crate) enum Part<'a> {
    #[default]
    None,
    F32(&'a mut [f32]),
    U8(&'a mut [u8]),
}

impl Piece<'_> {
    /// Which values of the outputs it is.
    pub fn values(&self) -> Range<usize> {
        self.values.clone()
    }

    /// The values of the first output to write.
    pub fn f32(&mut self) -> &mut [f32] {
        match &mut self.parts[0] {
            Part::F32(values) => values,
            _ => unreachable!("the first output of an operation with pieces holds single-precision values"),
        }
    }

    /// The values of the first output to write, and the bytes of the second.
    pub fn f32_and_u8(&mut self) -> (&mut [f32], &mut [u8]) {
        match &mut self.parts {
            [Part::F32(values), Part::U8(bytes)] => (values, bytes),
            _ => unreachable!("the operation has such outputs"),
        }
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

    /// One or two values whose sum is the gradient of the first output: two where an addition did nothing but join what
    /// two readers gave, which an operation that can add in its own pass saves.
    ///
    /// # Panics
    /// As [`gradient`](Self::gradient).
    pub fn gradient_terms(&self) -> Vec<Value> {
        let gradient = self.gradient();
        match self.graph.values[gradient.index()].source {
            Source::Node(index) => match &self.graph.nodes[index] {
                node if node.op.is::<Add>().is_some() && node.inputs.len() == 2 => node.inputs.clone(),
                _ => vec![gradient],
            },
            _ => vec![gradient],
        }
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
