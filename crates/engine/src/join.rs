//! Rewriting a fused inference graph once more, into operations that have no gradient and no 8-bit form.
//!
//! | written | becomes |
//! |---|---|
//! | convolution with bias, then addition of an earlier value, optional ReLU or ReLU6 | `InferenceConv2d` with a shortcut |
//! | in single precision: 1x1 convolution with bias whose image comes from batch normalisation | `InferenceConv2d` that knows it |
//! | in single precision: 1x1 convolution, then depthwise convolution, with much between them | `ExpandedDepthwise` |
//! | zeros around an image that has no negative number, then max-pool | max-pool with them as its padding |

use crate::fuse::Fused;
use crate::graph::Source;
use crate::ops::{
    Activate, AdaptiveAveragePool2d, Add, AddRectified, AveragePool2d, BatchNorm, Concat, Conv2d, Epilogue,
    ExpandedDepthwise, FoldBatchNorm, InferenceConv2d, MaxPool2d, PooledConv2d, ZeroPad2d,
};
use crate::{Graph, GraphError, Node, Op, Precision, Spec, Value};
use std::sync::Arc;

/// Rewrites the graph, which [`fuse_for_inference`](crate::fuse_for_inference) has fused. `kept` are the values that will be fetched.
///
/// # Errors
/// None that a checked graph can have; they are passed on all the same.
pub fn join_for_inference(graph: &Graph, kept: &[Value], precision: Precision) -> Result<Fused, GraphError> {
    let joiner = Joiner::new(graph, kept, precision);
    let mut new = Graph::new();
    let mut map: Vec<Option<Value>> = Vec::with_capacity(graph.values.len());
    for info in &graph.values {
        map.push(match info.source {
            Source::Input(_) => Some(new.input(&info.spec.shape, info.spec.dtype)),
            Source::Parameter(id) => Some(new.parameter(id, &info.spec.shape)),
            Source::Node(_) => None,
        });
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        let Some(rewritten) = joiner.rewritten(index) else { continue };
        let inputs: Vec<Value> =
            rewritten.inputs.iter().map(|v| map[v.index()].expect("a node's inputs are copied before it")).collect();
        new.set_place(node.place.clone());
        let outputs = new.add_node(rewritten.op, &inputs)?;
        for (old, new) in rewritten.outputs.iter().zip(outputs) {
            map[old.index()] = Some(new);
        }
    }
    Ok(Fused { graph: new, map })
}

struct Joiner<'a> {
    graph: &'a Graph,
    precision: Precision,
    readers: Vec<Vec<usize>>,
    kept: Vec<bool>,
    /// For each convolution the addition behind it that it takes in, and the other way round.
    absorbs: Vec<Option<usize>>,
    absorbed: Vec<bool>,
    /// For each value whether it is of about unit size, since it comes from batch normalisation.
    normalized: Vec<bool>,
}

impl<'a> Joiner<'a> {
    fn new(graph: &'a Graph, kept: &[Value], precision: Precision) -> Self {
        let mut readers = vec![Vec::new(); graph.values.len()];
        for (i, node) in graph.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| readers[v.index()].push(i));
        }
        let mut is_kept = vec![false; graph.values.len()];
        kept.iter().for_each(|v| is_kept[v.index()] = true);
        let nodes = graph.nodes.len();
        let mut joiner = Joiner {
            graph,
            precision,
            readers,
            kept: is_kept,
            absorbs: vec![None; nodes],
            absorbed: vec![false; nodes],
            normalized: vec![false; graph.values.len()],
        };
        for node in &graph.nodes {
            joiner.normalized[node.outputs[0].index()] = joiner.is_normalized(node);
        }
        for index in 0..nodes {
            if let Some(conv) = joiner.convolution(index) {
                joiner.absorbs[conv] = Some(index);
                joiner.absorbed[index] = true;
            } else if joiner.pool_behind(index).is_some() || joiner.depthwise_behind(index).is_some() {
                joiner.absorbed[index] = true;
            }
        }
        joiner
    }

    /// The node in the new graph, if it is there.
    fn rewritten(&self, index: usize) -> Option<Node> {
        let node = &self.graph.nodes[index];
        if self.absorbed[index] {
            return None;
        }
        if let Some(add) = self.absorbs[index] {
            let add = &self.graph.nodes[add];
            let conv = node.op.is::<Conv2d>()?.clone();
            let epilogue = added(&*add.op)?;
            let normalized = self.multiplies_normalized(node);
            let op = Arc::new(InferenceConv2d { conv: Conv2d { epilogue, ..conv }, shortcut: true, normalized });
            let inputs = [&node.inputs[..], &[other(add, node.outputs[0])]].concat();
            return Some(Node { op, inputs, outputs: add.outputs.clone(), place: node.place.clone() });
        }
        // Constants have no inputs.
        let before = node.inputs.first().and_then(|&input| self.made_by(input));
        if let (Some(pool), Some(before)) = (node.op.is::<MaxPool2d>(), before)
            && self.pool_behind(before) == Some(index)
        {
            let zeros = &self.graph.nodes[before];
            let padding = zeros.op.is::<ZeroPad2d>()?.padding;
            let op = Arc::new(MaxPool2d { padding, ..pool.clone() });
            return Some(Node { op, inputs: zeros.inputs.clone(), ..node.clone() });
        }
        if let Some(before) = before
            && let Some((reader, op)) = self.depthwise_behind(before)
            && reader == index
        {
            let inputs = [&self.graph.nodes[before].inputs[..], &node.inputs[1..]].concat();
            return Some(Node { op: Arc::new(op), inputs, ..node.clone() });
        }
        if let Some(conv) = node.op.is::<Conv2d>()
            && self.multiplies_normalized(node)
        {
            let op = Arc::new(InferenceConv2d { conv: conv.clone(), shortcut: false, normalized: true });
            return Some(Node { op, ..node.clone() });
        }
        Some(node.clone())
    }

    /// Whether the node is a 1x1 convolution with bias of a normalised image, in single precision.
    fn multiplies_normalized(&self, node: &Node) -> bool {
        let inputs: Vec<&Spec> = node.inputs.iter().map(|&v| self.graph.spec(v)).collect();
        let pointwise = node.op.is::<Conv2d>().is_some() && node.op.is_pixelwise(&inputs) && inputs.len() == 3;
        pointwise && self.precision == Precision::F32 && self.normalized[node.inputs[0].index()]
    }

    /// Whether what the node gives is normalised, if what it reads is known to be or not.
    fn is_normalized(&self, node: &Node) -> bool {
        let op = &*node.op;
        if op.is::<Conv2d>().is_some() || op.is::<PooledConv2d>().is_some() {
            let kernel = self.made_by(node.inputs[1]);
            return kernel.is_some_and(|kernel| self.graph.nodes[kernel].op.is::<FoldBatchNorm>().is_some());
        }
        if op.is::<BatchNorm>().is_some() {
            // Its own five inputs, and perhaps what is added to the result.
            return node.inputs[5..].iter().all(|v| self.normalized[v.index()]);
        }
        let passes = op.is::<Add>().is_some()
            || op.is::<AddRectified>().is_some()
            || op.is::<Activate>().is_some()
            || op.is::<Concat>().is_some()
            || op.is::<MaxPool2d>().is_some()
            || op.is::<AveragePool2d>().is_some()
            || op.is::<AdaptiveAveragePool2d>().is_some()
            || op.is::<ZeroPad2d>().is_some();
        passes && node.inputs.iter().all(|v| self.normalized[v.index()])
    }

    /// The depthwise convolution that can take in this 1x1 convolution, and both as one.
    fn depthwise_behind(&self, index: usize) -> Option<(usize, ExpandedDepthwise)> {
        let node = &self.graph.nodes[index];
        let expand = node.op.is::<Conv2d>()?.clone();
        let reader = self.only_reader(node.outputs[0])?;
        let next = &self.graph.nodes[reader];
        let depthwise = next.op.is::<Conv2d>()?.clone();
        let biased = node.inputs.len() == 3 && next.inputs.len() == 3 && next.inputs[0] == node.outputs[0];
        let op = ExpandedDepthwise { expand, depthwise };
        let inputs = [&node.inputs[..], &next.inputs[1..]].concat();
        let specs: Vec<&Spec> = inputs.iter().map(|&v| self.graph.spec(v)).collect();
        (self.precision == Precision::F32 && biased && op.suits(&specs)).then_some((reader, op))
    }

    fn made_by(&self, value: Value) -> Option<usize> {
        match self.graph.values[value.index()].source {
            Source::Node(index) => Some(index),
            _ => None,
        }
    }

    /// The only node that reads the value, unless the value is kept.
    fn only_reader(&self, value: Value) -> Option<usize> {
        match self.readers[value.index()][..] {
            [reader] if !self.kept[value.index()] => Some(reader),
            _ => None,
        }
    }

    /// The convolution that can take in this addition: the one that makes its later input.
    fn convolution(&self, index: usize) -> Option<usize> {
        let add = &self.graph.nodes[index];
        added(&*add.op)?;
        let [a, b] = add.inputs[..] else { return None };
        let later = if self.made_by(a) > self.made_by(b) { a } else { b };
        let conv = self.made_by(later)?;
        let node = &self.graph.nodes[conv];
        let op = node.op.is::<Conv2d>()?;
        let suits = op.epilogue == Epilogue::Linear && op.groups == 1 && node.inputs.len() == 3;
        (a != b && suits && self.only_reader(later) == Some(index)).then_some(conv)
    }

    /// The max-pool that can take in these zeros.
    fn pool_behind(&self, index: usize) -> Option<usize> {
        let node = &self.graph.nodes[index];
        let zeros = node.op.is::<ZeroPad2d>()?;
        let before = &self.graph.nodes[self.made_by(node.inputs[0])?];
        // Then zeros are never greater than what is in a window besides.
        let rectified = before.op.is::<Conv2d>().is_some_and(|conv| conv.epilogue != Epilogue::Linear);
        let reader = self.only_reader(node.outputs[0])?;
        let pool = self.graph.nodes[reader].op.is::<MaxPool2d>()?;
        let [top, bottom, left, right] = zeros.padding;
        let inside = top.max(bottom) < pool.size[0] && left.max(right) < pool.size[1];
        let positions = self.graph.nodes[reader].outputs[1];
        let unread = self.readers[positions.index()].is_empty() && !self.kept[positions.index()];
        (rectified && unread && inside && pool.padding == [0; 4]).then_some(reader)
    }
}

/// What is applied to the sum of two values, where the operation is one.
fn added(op: &dyn Op) -> Option<Epilogue> {
    op.is::<Add>().map(|_| Epilogue::Linear).or_else(|| op.is::<AddRectified>().map(|add| add.0))
}

fn other(add: &Node, value: Value) -> Value {
    if add.inputs[0] == value { add.inputs[1] } else { add.inputs[0] }
}
