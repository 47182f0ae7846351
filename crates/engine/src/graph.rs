//! The graph: operations in the order they were added, checked one by one.

use crate::ops::SampleMean;
use crate::update::{Clip, Update};
use crate::{DType, GraphError, Op, ParameterId, Role, Spec, Value};
use std::sync::Arc;

/// A directed acyclic graph of operations. A node's inputs exist before it, so the order of adding is an order of running.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) values: Vec<ValueInfo>,
    pub(crate) updates: Vec<Update>,
    pub(crate) moving_averages: Vec<MovingAverage>,
    pub(crate) clip: Clip,
    place: String,
}

/// One operation at its place in the graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is computed.
    pub op: Arc<dyn Op>,
    /// What it is computed from.
    pub inputs: Vec<Value>,
    /// The results.
    pub outputs: Vec<Value>,
    /// The layer it belongs to.
    pub place: String,
}

#[derive(Clone, Debug)]
pub(crate) struct ValueInfo {
    pub(crate) spec: Spec,
    pub(crate) source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The caller's n-th input.
    Input(usize),
    Parameter(ParameterId),
    Node(usize),
}

/// `parameter = momentum * parameter + (1 - momentum) * value`, after the step's other work.
#[derive(Clone, Debug)]
pub(crate) struct MovingAverage {
    pub(crate) parameter: ParameterId,
    pub(crate) value: Value,
    pub(crate) momentum: f32,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Graph::default()
    }

    /// Names the layer that the nodes added from now on belong to; errors and profiles show it.
    pub fn set_place(&mut self, place: impl Into<String>) {
        self.place = place.into();
    }

    /// A value that the caller gives for each sample. Inputs are numbered in the order they are added.
    pub fn input(&mut self, shape: &[usize], dtype: DType) -> Value {
        let number = self.values.iter().filter(|v| matches!(v.source, Source::Input(_))).count();
        self.push(Spec { role: Role::Sample, shape: shape.to_vec(), dtype }, Source::Input(number))
    }

    /// A parameter of the given shape; asking again for the same one gives the same value.
    pub fn parameter(&mut self, id: ParameterId, shape: &[usize]) -> Value {
        let known = self.values.iter().position(|v| v.source == Source::Parameter(id));
        known.map_or_else(|| self.push(Spec::shared(shape), Source::Parameter(id)), |i| Value(i as u32))
    }

    /// Adds an operation with one result.
    ///
    /// # Errors
    /// Where the operation cannot take these inputs.
    pub fn add(&mut self, op: impl Op + 'static, inputs: &[Value]) -> Result<Value, GraphError> {
        Ok(self.add_node(Arc::new(op), inputs)?[0])
    }

    /// Adds an operation and gives all its results.
    ///
    /// # Errors
    /// Where the operation cannot take these inputs.
    pub fn add_all(&mut self, op: impl Op + 'static, inputs: &[Value]) -> Result<Vec<Value>, GraphError> {
        self.add_node(Arc::new(op), inputs)
    }

    pub(crate) fn add_node(&mut self, op: Arc<dyn Op>, inputs: &[Value]) -> Result<Vec<Value>, GraphError> {
        let specs: Vec<&Spec> = inputs.iter().map(|&v| self.spec(v)).collect();
        let outputs = op.outputs(&specs).map_err(|problem| GraphError::Shape {
            place: self.place.clone(),
            op: op.name(),
            problem,
        })?;
        let node = self.nodes.len();
        let outputs: Vec<Value> = outputs.into_iter().map(|spec| self.push(spec, Source::Node(node))).collect();
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: outputs.clone(), place: self.place.clone() });
        Ok(outputs)
    }

    fn push(&mut self, spec: Spec, source: Source) -> Value {
        self.values.push(ValueInfo { spec, source });
        Value(self.values.len() as u32 - 1)
    }

    /// Role, shape and type of a value.
    pub fn spec(&self, value: Value) -> &Spec {
        &self.values[value.index()].spec
    }

    /// Shape of a value, without the batch.
    pub fn shape(&self, value: Value) -> &[usize] {
        &self.spec(value).shape
    }

    /// The nodes in running order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The mean over the batch of a scalar for each sample, each multiplied by its weight: the total loss.
    ///
    /// # Errors
    /// Where either is no scalar for each sample.
    pub fn weighted_mean(&mut self, value: Value, weight: Value) -> Result<Value, GraphError> {
        self.add(SampleMean, &[value, weight])
    }

    /// After each step, move the parameter against its gradient.
    pub fn update(&mut self, update: Update) {
        self.updates.push(update);
    }

    /// How gradients are clipped before the updates.
    pub fn set_clip(&mut self, clip: Clip) {
        self.clip = clip;
    }

    /// After each step, `parameter = momentum * parameter + (1 - momentum) * value`, with `value` shared by all samples.
    pub fn moving_average(&mut self, parameter: ParameterId, value: Value, momentum: f32) {
        self.moving_averages.push(MovingAverage { parameter, value, momentum });
    }
}
