//! Keeping images from stage to stage as bf16, where products are made of bf16 values anyway: they are written to memory and
//! read back, which takes longer than most of what is done with them, and half the bytes take half as long.
//!
//! A value that all its readers take as bf16, and its operation can write so, is nothing else. Any other is rounded by an
//! operation of its own behind the one that makes it, for the later stages, and widened in the cache for the operations
//! there that read single precision only. Whatever the batch is summed to, parameters and rows of logits are never rounded.

use super::recompute::Known;
use crate::graph::{Source, ValueInfo};
use crate::ops::Convert;
use crate::{DType, Graph, Node, Role, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// How a value is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// As it is.
    Same,
    /// It is bf16 itself.
    Narrow,
    /// A copy is bf16, which later stages read.
    Copy,
}

/// The graph with such values, and for each node the stage that it must not run before. Values keep their numbers.
pub(super) fn narrowed(known: &Known<'_>, least_stage: &[usize]) -> (Graph, Vec<usize>) {
    let kept: Vec<Kept> = (0..known.graph.values.len()).map(|v| known.kept_as(Value(v as u32))).collect();
    let mut to = Narrowed { graph: known.graph.clone(), least: Vec::new(), wide: HashMap::new() };
    to.graph.nodes.clear();
    for (value, _) in kept.iter().enumerate().filter(|(_, kept)| **kept == Kept::Narrow) {
        to.graph.values[value].spec.dtype = DType::Bf16;
    }
    let mut copies: HashMap<Value, Value> = HashMap::new();
    for (index, node) in known.graph.nodes.iter().enumerate() {
        let (mut node, stage) = (node.clone(), known.node_stage[index]);
        if known.needed[index] {
            for (n, input) in node.inputs.iter_mut().enumerate() {
                let narrow = match kept[input.index()] {
                    Kept::Narrow => *input,
                    Kept::Copy if known.value_stage[input.index()] < stage => copies[input],
                    _ => continue,
                };
                *input = if node.op.reads_bf16(n) { narrow } else { to.widened(narrow, stage, &node.place) };
            }
        }
        let (outputs, place) = (node.outputs.clone(), node.place.clone());
        to.push(node, least_stage.get(index).copied().unwrap_or(0));
        for value in outputs.into_iter().filter(|v| kept[v.index()] == Kept::Copy) {
            let copy = to.converted(value, DType::Bf16, stage, &place);
            copies.insert(value, copy);
        }
    }
    (to.graph, to.least)
}

struct Narrowed {
    graph: Graph,
    least: Vec<usize>,
    /// What was widened in which stage already.
    wide: HashMap<(Value, usize), Value>,
}

impl Narrowed {
    fn widened(&mut self, value: Value, stage: usize, place: &str) -> Value {
        if let Some(&wide) = self.wide.get(&(value, stage)) {
            return wide;
        }
        let wide = self.converted(value, DType::F32, stage, place);
        self.wide.insert((value, stage), wide);
        wide
    }

    fn converted(&mut self, value: Value, dtype: DType, stage: usize, place: &str) -> Value {
        let output = Value(self.graph.values.len() as u32);
        let spec = crate::Spec { dtype, ..self.graph.spec(value).clone() };
        self.graph.values.push(ValueInfo { spec, source: Source::Node(self.graph.nodes.len()) });
        let op = Arc::new(Convert(dtype));
        self.push(Node { op, inputs: vec![value], outputs: vec![output], place: place.to_owned() }, stage);
        output
    }

    fn push(&mut self, node: Node, least: usize) {
        let place = self.graph.nodes.len();
        node.outputs.iter().for_each(|v| self.graph.values[v.index()].source = Source::Node(place));
        self.graph.nodes.push(node);
        self.least.push(least);
    }
}

impl Known<'_> {
    fn kept_as(&self, value: Value) -> Kept {
        let Source::Node(index) = self.graph.values[value.index()].source else { return Kept::Same };
        let (spec, node) = (self.graph.spec(value), &self.graph.nodes[index]);
        let (stage, last) = (self.value_stage[value.index()], self.last_stage[value.index()]);
        let image = spec.role == Role::Sample && spec.dtype == DType::F32 && spec.shape.len() == 3;
        // Also after the run the caller reads single precision.
        let crosses = self.needed[index] && stage < last && last != super::build::FOREVER;
        if !image || !crosses || node.op.is_view() || self.readers(value).any(|(_, reader, _)| reader.op.is_view()) {
            return Kept::Same;
        }
        let output = node.outputs.iter().position(|&v| v == value).unwrap_or(0);
        let mut here = self.readers(value).filter(|&(index, ..)| self.node_stage[index] == stage);
        let inputs: Vec<_> = node.inputs.iter().map(|&v| self.graph.spec(v)).collect();
        match node.op.writes_bf16(&inputs, output) && here.all(|(_, reader, input)| reader.op.reads_bf16(input)) {
            true => Kept::Narrow,
            false => Kept::Copy,
        }
    }

    /// The nodes that read the value, and as which input: their numbers, too.
    fn readers(&self, value: Value) -> impl Iterator<Item = (usize, &Node, usize)> + '_ {
        let nodes = self.graph.nodes.iter().enumerate().filter(|&(index, _)| self.needed[index]);
        nodes.flat_map(move |(index, node)| {
            let inputs = node.inputs.iter().enumerate().filter(move |(_, v)| **v == value);
            inputs.map(move |(n, _)| (index, node, n))
        })
    }
}
