//! Rewriting neighbours into one operation, before gradients are added.
//!
//! | written | becomes |
//! |---|---|
//! | zeros around an image, then convolution | the same with them as its padding |
//! | convolution or dense, then ReLU (or ReLU6) | the same with it as epilogue |
//! | convolution with bias, optional ReLU, then max-pool whose windows do not overlap | `PooledConv2d` |
//! | batch normalisation, then addition of a value that is known by then | the same with a shortcut |
//! | that, or batch normalisation, then ReLU or ReLU6 | the same with it as epilogue |
//! | for training: batch normalisation without a shortcut, optional zeros around it, then depthwise convolution | `NormalizedDepthwise` |
//! | that or a convolution, then sums for batch normalisation | the same that sums what it gives |
//! | addition of two values, then ReLU or ReLU6 | `AddRectified` |
//! | softmax, then categorical cross-entropy | `SoftmaxCrossEntropy` |
//! | sigmoid, then binary cross-entropy | `SigmoidBinaryCrossEntropy` |
//! | for inference: convolution or dense, then batch normalisation by moving averages | the same with other weights |
//!
//! A value that is read elsewhere, or kept, is left as it is. The graph that was not fused is the reference that the fused
//! one is tested against.

use crate::graph::Source;
use crate::op::Op;
use crate::ops::{
    Activate, Activation, Add, AddRectified, BatchNorm, BinaryCrossEntropy, CategoricalCrossEntropy, Conv2d, Dense,
    Epilogue, FoldBatchNorm, MaxPool2d, MeasuredConv2d, Moments, NormalizedDepthwise, PooledConv2d,
    SigmoidBinaryCrossEntropy, Softmax, SoftmaxCrossEntropy, ZeroPad2d,
};
use crate::{Graph, GraphError, Node, Value};
use std::sync::Arc;

/// A rewritten graph, and where the old values are in it.
#[derive(Clone, Debug)]
pub struct Fused {
    /// The new graph. Updates, moving averages and clipping are not carried over: they are added after gradients.
    pub graph: Graph,
    pub(crate) map: Vec<Option<Value>>,
}

impl Fused {
    /// The value in the new graph; `None` where fusion made it disappear. Kept values never do.
    pub fn value(&self, old: Value) -> Option<Value> {
        self.map[old.index()]
    }
}

/// Rewrites the graph. `kept` are the values that will be fetched or differentiated.
///
/// # Errors
/// None that a checked graph can have; they are passed on all the same.
pub fn fuse(graph: &Graph, kept: &[Value]) -> Result<Fused, GraphError> {
    rewrite(graph, kept, Fold::Never)
}

/// As [`fuse`], for a training in which only `learned` parameters change: batch normalisation by moving averages disappears in the
/// weights before it where none of both is learned. No gradient can be taken of what then is computed from the others.
///
/// # Errors
/// As for [`fuse`].
pub fn fuse_for_training(graph: &Graph, kept: &[Value], learned: &[Value]) -> Result<Fused, GraphError> {
    let mut changing = vec![false; graph.values.len()];
    learned.iter().for_each(|value| changing[value.index()] = true);
    // What is computed from a parameter alone, such as its other shape, changes with it.
    for node in &graph.nodes {
        if node.inputs.iter().any(|value| changing[value.index()]) {
            node.outputs.iter().for_each(|value| changing[value.index()] = true);
        }
    }
    rewrite(graph, kept, Fold::Unless(changing))
}

/// Rewrites a graph that no gradient is taken of, so that batch normalisation can disappear in the weights before it.
///
/// # Errors
/// As for [`fuse`].
pub fn fuse_for_inference(graph: &Graph, kept: &[Value]) -> Result<Fused, GraphError> {
    rewrite(graph, kept, Fold::Always)
}

fn rewrite(graph: &Graph, kept: &[Value], fold: Fold) -> Result<Fused, GraphError> {
    let mut fuser = Fuser::new(graph, kept, fold);
    for index in 0..graph.nodes.len() {
        if !fuser.done[index] {
            fuser.copy(index)?;
        }
    }
    Ok(Fused { graph: fuser.new, map: fuser.map })
}

struct Fuser<'a> {
    old: &'a Graph,
    new: Graph,
    map: Vec<Option<Value>>,
    /// For each value the nodes that read it; a kept value has one reader more than any pattern allows.
    readers: Vec<Vec<usize>>,
    kept: Vec<bool>,
    done: Vec<bool>,
    /// Whether batch normalisation may be folded into weights.
    fold: Fold,
}

/// Where batch normalisation may be folded into weights.
enum Fold {
    Never,
    Always,
    /// Where none of the values involved is marked.
    Unless(Vec<bool>),
}

/// A node with what is joined to it: one operation that does the work of all up to the last.
struct Joined {
    op: Arc<dyn Op>,
    /// The batch normalisation whose part the weights take over.
    norm: Option<usize>,
    /// The value that is read besides: added to a batch normalisation's result, or the kernel of the convolution behind it.
    besides: Option<Value>,
    last: usize,
}

impl<'a> Fuser<'a> {
    fn new(old: &'a Graph, kept: &[Value], fold: Fold) -> Self {
        let mut new = Graph::new();
        let mut map = vec![None; old.values.len()];
        let mut readers = vec![Vec::new(); old.values.len()];
        for (i, node) in old.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| readers[v.index()].push(i));
        }
        for (i, info) in old.values.iter().enumerate() {
            map[i] = match info.source {
                Source::Input(_) => Some(new.input(&info.spec.shape, info.spec.dtype)),
                Source::Parameter(id) => Some(new.parameter(id, &info.spec.shape)),
                Source::Node(_) => None,
            };
        }
        let mut is_kept = vec![false; old.values.len()];
        kept.iter().for_each(|v| is_kept[v.index()] = true);
        Fuser { old, new, map, readers, kept: is_kept, done: vec![false; old.nodes.len()], fold }
    }

    fn copy(&mut self, index: usize) -> Result<(), GraphError> {
        let node = &self.old.nodes[index];
        if self.waits_for_loss(node) || self.waits_for_convolution(index) {
            return Ok(());
        }
        let joined = self.with_followers(index);
        let (op, inputs) = self.with_predecessor(node, joined.op);
        self.new.set_place(node.place.clone());
        let mut inputs = self.mapped(&inputs)?;
        inputs.extend(self.mapped(joined.besides.as_slice())?);
        if let Some(norm) = joined.norm {
            inputs = self.folded(norm, &inputs)?;
        }
        let measured = self.measured(&*op, self.old.nodes[joined.last].outputs[0]);
        let (op, moments) = match measured {
            Some((moments, shift, op)) => {
                inputs.push(shift);
                self.done[moments] = true;
                (op, Some(moments))
            }
            None => (op, None),
        };
        let outputs = self.new.add_node(op, &inputs)?;
        self.done[index] = true;
        for (&old, &new) in self.old.nodes[joined.last].outputs.iter().zip(&outputs) {
            self.map[old.index()] = Some(new);
        }
        if let Some(moments) = moments {
            self.map[self.old.nodes[moments].outputs[0].index()] = Some(outputs[1]);
        }
        if let Some(loss_input) = self.loss_input(node) {
            // The loss gives the probabilities, too, now.
            self.map[loss_input.outputs[0].index()] = outputs.get(1).copied();
        }
        Ok(())
    }

    /// Where the values are in the new graph; constants are copied when they are first needed.
    fn mapped(&mut self, values: &[Value]) -> Result<Vec<Value>, GraphError> {
        for value in values {
            if let (None, Source::Node(index)) = (self.map[value.index()], self.old.values[value.index()].source) {
                self.copy(index)?;
            }
        }
        Ok(values.iter().map(|v| self.map[v.index()].expect("a node's inputs are copied before it")).collect())
    }

    /// The inputs of a convolution whose weights take over the batch normalisation behind it.
    fn folded(&mut self, norm: usize, inputs: &[Value]) -> Result<Vec<Value>, GraphError> {
        let norm = &self.old.nodes[norm];
        let epsilon = norm.op.is::<BatchNorm>().map_or(0.0, |norm| norm.epsilon);
        let statistics = self.mapped(&norm.inputs[1..])?;
        let weights: Vec<Value> = [&inputs[1..2], &statistics, &inputs[2..]].concat();
        let folded = self.new.add_all(FoldBatchNorm { epsilon }, &weights)?;
        Ok(vec![inputs[0], folded[0], folded[1]])
    }

    /// The only node that reads the value, unless the value is kept.
    fn only_reader(&self, value: Value) -> Option<usize> {
        match self.readers[value.index()][..] {
            [reader] if !self.kept[value.index()] => Some(reader),
            _ => None,
        }
    }

    fn with_followers(&mut self, index: usize) -> Joined {
        let node = &self.old.nodes[index];
        let op = self.with_padding(node).map_or_else(|| Arc::clone(&node.op), |(op, _)| op);
        let mut joined = Joined { op, norm: None, besides: None, last: index };
        if let Some(next) = self.only_reader(node.outputs[0])
            && self.foldable(node, &self.old.nodes[next])
        {
            self.done[next] = true;
            joined = Joined { norm: Some(next), last: next, ..joined };
        }
        if let Some(next) = self.only_reader(node.outputs[0])
            && let Some(shortcut) = self.shortcut(node, &self.old.nodes[next])
        {
            self.done[next] = true;
            joined = Joined { besides: Some(shortcut), last: next, ..joined };
        }
        if let Some(next) = self.only_reader(self.old.nodes[joined.last].outputs[0])
            && let Some(op) = activated(&*joined.op, node.inputs.len(), &*self.old.nodes[next].op)
        {
            self.done[next] = true;
            joined = Joined { op, last: next, ..joined };
        }
        if let Some((op, next)) = self.depthwise(&joined, node) {
            self.done[next] = true;
            joined = Joined { op: Arc::new(op), besides: Some(self.old.nodes[next].inputs[1]), last: next, ..joined };
        }
        let biased = node.inputs.len() == 3 || joined.norm.is_some();
        if biased
            && let Some(next) = self.only_reader(self.old.nodes[joined.last].outputs[0])
            && self.positions_unread(next)
            && let Some(op) = pooled(&*joined.op, &*self.old.nodes[next].op)
        {
            self.done[next] = true;
            joined = Joined { op, last: next, ..joined };
        }
        joined
    }

    /// Whether a batch normalisation can disappear in the weights of the node before it.
    fn foldable(&self, node: &Node, next: &Node) -> bool {
        let linear = node.op.is::<Conv2d>().is_some_and(|conv| conv.epilogue == Epilogue::Linear)
            || node.op.is::<Dense>().is_some_and(|dense| dense.epilogue == Epilogue::Linear);
        let norm =
            next.op.is::<BatchNorm>().is_some_and(|norm| !norm.batch_statistics && norm.epilogue == Epilogue::Linear);
        // What the statistics are must be known before any sample is: parameters or constants.
        let known = |v: &Value| match self.old.values[v.index()].source {
            Source::Node(index) => self.old.nodes[index].inputs.is_empty(),
            _ => true,
        };
        // Either may be an operation without inputs: a constant.
        let weights = || node.inputs.iter().skip(1).chain(next.inputs.iter().skip(1));
        let allowed = match &self.fold {
            Fold::Never => false,
            Fold::Always => true,
            Fold::Unless(learned) => !weights().any(|v| learned[v.index()]),
        };
        allowed && linear && norm && next.inputs[0] == node.outputs[0] && next.inputs[1..].iter().all(known)
    }

    /// What is added to this batch normalisation's result, where it is computed before it.
    fn shortcut(&self, node: &Node, next: &Node) -> Option<Value> {
        let bare = node.op.is::<BatchNorm>()?.epilogue == Epilogue::Linear && node.inputs.len() == 5;
        let [a, b] = next.inputs[..] else { return None };
        let other = if a == node.outputs[0] { b } else { a };
        let known = other != node.outputs[0] && self.map[other.index()].is_some();
        (bare && known && next.op.is::<Add>().is_some()).then_some(other)
    }

    /// A batch normalisation and the depthwise convolution behind it as one, and the number of the latter.
    fn depthwise(&self, joined: &Joined, node: &Node) -> Option<(NormalizedDepthwise, usize)> {
        let norm = joined.op.is::<BatchNorm>()?.clone();
        let normalized = self.old.nodes[joined.last].outputs[0];
        let mut index = self.only_reader(normalized)?;
        if self.waits_for_convolution(index) {
            index = self.only_reader(self.old.nodes[index].outputs[0])?;
        }
        let next = &self.old.nodes[index];
        let (op, image) = self.with_padding(next).unwrap_or_else(|| (Arc::clone(&next.op), next.inputs[0]));
        let conv = op.is::<Conv2d>()?.clone();
        let [_, kernel] = next.inputs[..] else { return None };
        let bare = joined.besides.is_none() && image == normalized && conv.epilogue == Epilogue::Linear;
        // What disappears in the weights is better.
        let folds = self.only_reader(next.outputs[0]).is_some_and(|after| self.foldable(next, &self.old.nodes[after]));
        let suits = NormalizedDepthwise::suits(&conv, self.old.spec(node.inputs[0]), self.old.spec(kernel));
        let learns = !matches!(self.fold, Fold::Always);
        (bare && suits && learns && !folds).then_some((NormalizedDepthwise { norm, conv, measured: false }, index))
    }

    /// The sums for batch normalisation that are taken of what this convolution gives, where the shift is in the new graph, and the convolution
    /// that gives them, too.
    fn measured(&self, op: &dyn Op, output: Value) -> Option<(usize, Value, Arc<dyn Op>)> {
        let is_moments = |&&reader: &&usize| self.old.nodes[reader].op.is::<Moments>().is_some();
        let &moments = self.readers[output.index()].iter().find(is_moments)?;
        let shift = self.map[self.old.nodes[moments].inputs[1].index()]?;
        let op: Arc<dyn Op> = match (op.is::<Conv2d>(), op.is::<NormalizedDepthwise>()) {
            (Some(conv), _) if conv.epilogue == Epilogue::Linear => Arc::new(MeasuredConv2d(conv.clone())),
            (_, Some(both)) => Arc::new(NormalizedDepthwise { measured: true, ..both.clone() }),
            _ => return None,
        };
        Some((moments, shift, op))
    }

    fn positions_unread(&self, index: usize) -> bool {
        self.old.nodes[index]
            .outputs
            .get(1)
            .is_some_and(|v| self.readers[v.index()].is_empty() && !self.kept[v.index()])
    }

    /// Whether the node is a softmax or sigmoid that its loss will take in.
    fn waits_for_loss(&self, node: &Node) -> bool {
        match self.readers[node.outputs[0].index()][..] {
            [reader] => {
                let loss = &self.old.nodes[reader];
                loss.inputs[0] == node.outputs[0] && from_logits(&*node.op, &*loss.op).is_some()
            }
            _ => false,
        }
    }

    /// The softmax or sigmoid that this loss takes in.
    fn loss_input(&self, node: &Node) -> Option<&'a Node> {
        let Source::Node(index) = self.old.values[node.inputs.first()?.index()].source else { return None };
        let before = &self.old.nodes[index];
        (from_logits(&*before.op, &*node.op).is_some() && self.waits_for_loss(before)).then_some(before)
    }

    /// Whether the node is padding that a convolution will take over.
    fn waits_for_convolution(&self, index: usize) -> bool {
        let value = self.old.nodes[index].outputs[0];
        let takes = |reader: usize| {
            let reader = &self.old.nodes[reader];
            reader.inputs[0] == value && self.with_padding(reader).is_some()
        };
        self.only_reader(value).is_some_and(takes)
    }

    /// A convolution that takes over the zeros before it, and the image without them.
    fn with_padding(&self, node: &Node) -> Option<(Arc<dyn Op>, Value)> {
        let conv = node.op.is::<Conv2d>()?;
        let Source::Node(index) = self.old.values[node.inputs[0].index()].source else { return None };
        let zeros = self.old.nodes[index].op.is::<ZeroPad2d>()?;
        self.only_reader(node.inputs[0])?;
        let padding = std::array::from_fn(|side| conv.padding[side] + zeros.padding[side]);
        Some((Arc::new(Conv2d { padding, ..conv.clone() }), self.old.nodes[index].inputs[0]))
    }

    fn with_predecessor(&self, node: &'a Node, op: Arc<dyn Op>) -> (Arc<dyn Op>, Vec<Value>) {
        let mut inputs = node.inputs.clone();
        if let Some((_, image)) = self.with_padding(node) {
            inputs[0] = image;
        }
        let Some(before) = self.loss_input(node) else { return (op, inputs) };
        inputs[0] = before.inputs[0];
        (from_logits(&*before.op, &*node.op).expect("loss_input has found the pattern"), inputs)
    }
}

fn activated(op: &dyn Op, inputs: usize, next: &dyn Op) -> Option<Arc<dyn Op>> {
    let epilogue = match next.is::<Activate>()?.0 {
        Activation::Relu => Epilogue::Relu,
        Activation::Relu6 => Epilogue::Relu6,
        _ => return None,
    };
    if let Some(conv) = op.is::<Conv2d>()
        && conv.epilogue == Epilogue::Linear
    {
        return Some(Arc::new(Conv2d { epilogue, ..conv.clone() }));
    }
    if let Some(dense) = op.is::<Dense>()
        && dense.epilogue == Epilogue::Linear
    {
        return Some(Arc::new(Dense { epilogue }));
    }
    if let Some(norm) = op.is::<BatchNorm>()
        && norm.epilogue == Epilogue::Linear
    {
        return Some(Arc::new(BatchNorm { epilogue, ..norm.clone() }));
    }
    if let Some(Add) = op.is::<Add>()
        && inputs == 2
    {
        return Some(Arc::new(AddRectified(epilogue)));
    }
    None
}

fn pooled(op: &dyn Op, next: &dyn Op) -> Option<Arc<dyn Op>> {
    let (conv, pool) = (op.is::<Conv2d>()?, next.is::<MaxPool2d>()?);
    let apart = pool.size == pool.strides && pool.padding == [0; 4];
    let simple = conv.epilogue != Epilogue::Relu6 && pool.size[0] * pool.size[1] < 255;
    (apart && simple).then(|| Arc::new(PooledConv2d { conv: conv.clone(), pool: pool.size }) as Arc<dyn Op>)
}

fn from_logits(before: &dyn Op, loss: &dyn Op) -> Option<Arc<dyn Op>> {
    if let (Some(Softmax), Some(loss)) = (before.is::<Softmax>(), loss.is::<CategoricalCrossEntropy>()) {
        return Some(Arc::new(SoftmaxCrossEntropy { label_smoothing: loss.label_smoothing }));
    }
    if let (Some(Activate(Activation::Sigmoid)), Some(loss)) = (before.is(), loss.is::<BinaryCrossEntropy>()) {
        return Some(Arc::new(SigmoidBinaryCrossEntropy { label_smoothing: loss.label_smoothing }));
    }
    None
}
