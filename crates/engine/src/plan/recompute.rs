//! Computing a cheap value once more in a later stage, where keeping it would mean writing it to memory and reading it
//! back: what it is made of is kept anyway. So of batch normalisation only its input is kept.

use crate::graph::{Source, ValueInfo};
use crate::{DType, Graph, Node, Role, Value};
use std::collections::HashMap;

/// What is known of a graph before its memory is planned.
pub(super) struct Known<'a> {
    pub(super) graph: &'a Graph,
    /// The nodes that lead to something.
    pub(super) needed: &'a [bool],
    /// The values that must outlast the run.
    pub(super) kept: &'a [Value],
    pub(super) node_stage: &'a [usize],
    pub(super) value_stage: &'a [usize],
    /// For each value the last stage that touches it.
    pub(super) last_stage: &'a [usize],
}

/// The graph with copies of cheap nodes, and for each node the stage that it must not run before. Values keep their numbers.
pub(super) fn recomputed(known: &Known<'_>) -> (Graph, Vec<usize>) {
    let mut graph = known.graph.clone();
    graph.nodes.clear();
    let mut least = Vec::new();
    let mut copies: HashMap<(usize, usize), Value> = HashMap::new();
    for (index, node) in known.graph.nodes.iter().enumerate() {
        let mut node = node.clone();
        if known.needed[index] {
            let stage = known.node_stage[index];
            for input in &mut node.inputs {
                let Some(cheap) = known.cheap(*input, stage) else { continue };
                *input = *copies.entry((cheap, stage)).or_insert_with(|| {
                    let copy = copy_of(&mut graph, &known.graph.nodes[cheap]);
                    least.push(stage);
                    copy
                });
            }
        }
        let place = graph.nodes.len();
        node.outputs.iter().for_each(|v| graph.values[v.index()].source = Source::Node(place));
        graph.nodes.push(node);
        least.push(0);
    }
    (graph, least)
}

fn copy_of(graph: &mut Graph, node: &Node) -> Value {
    let output = Value(graph.values.len() as u32);
    let spec = graph.spec(node.outputs[0]).clone();
    graph.values.push(ValueInfo { spec, source: Source::Node(graph.nodes.len()) });
    graph.nodes.push(Node { outputs: vec![output], ..node.clone() });
    output
}

impl Known<'_> {
    /// The node to compute once more for a reader in this stage, rather than to keep its value.
    fn cheap(&self, value: Value, stage: usize) -> Option<usize> {
        let Source::Node(index) = self.graph.values[value.index()].source else { return None };
        let node = &self.graph.nodes[index];
        let crosses = self.graph.spec(value).role == Role::Sample && self.value_stage[value.index()] < stage;
        let mut samples = node.inputs.iter().filter(|v| self.graph.spec(**v).role == Role::Sample);
        let (Some(&from), None) = (samples.next(), samples.next()) else { return None };
        // Bytes, as pixels are, are fewer than what is made of them; and the caller keeps the batch.
        let there = match self.graph.values[from.index()].source {
            Source::Input(_) => self.graph.spec(from).dtype == DType::U8,
            Source::Node(_) => self.last_stage[from.index()] >= stage && !self.is_cheap(from),
            Source::Parameter(_) => false,
        };
        (crosses && there && self.is_cheap(value) && !self.kept.contains(&value)).then_some(index)
    }

    fn is_cheap(&self, value: Value) -> bool {
        match self.graph.values[value.index()].source {
            Source::Node(index) => self.graph.nodes[index].op.is_cheap() && self.graph.nodes[index].outputs.len() == 1,
            _ => false,
        }
    }
}
