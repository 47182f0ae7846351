//! Rewriting a fused inference graph for 8-bit arithmetic.
//!
//! Convolutions and dense layers read bytes and multiply them with weights rounded to bytes. What the bytes stand for follows
//! from the range that their input was seen in. Between two of them values stay bytes; elsewhere they are numbers:
//!
//! | written | becomes |
//! |---|---|
//! | pixels, scaled, then a convolution | the convolution of the pixels; the scale goes into its weights |
//! | convolution (with pool) or dense, all of whose readers take bytes | the same from bytes to bytes |
//! | convolution, then the addition of an earlier value, optional ReLU | one operation |
//! | any other number that is read as bytes | `Quantize` |
//! | bytes that are read as numbers | `Affine` |

use crate::fuse::Fused;
use crate::graph::Source;
use crate::ops::{
    Activate, Activation, Add, Affine, Bytes, Conv2d, Dense, Epilogue, Kind, PooledConv2d, Quantize, Quantized,
};
use crate::{DType, Graph, GraphError, Node, Value};
use ocellus_kernels::quantize::Encoding;

/// The least and the greatest of the numbers that a layer's input was seen to have.
pub type Range = [f32; 2];

/// The convolutional and dense layers of a fused inference graph, each with its input: those whose ranges are to be seen.
/// (Depthwise convolutions are among them, though they are not computed in 8 bits yet.)
pub fn quantizable(graph: &Graph) -> Vec<(&str, Value)> {
    let suitable = graph.nodes.iter().filter(|node| kind(node).is_some());
    let read = suitable.map(|node| (node.place.as_str(), node.inputs[0]));
    read.filter(|&(_, input)| graph.spec(input).dtype == DType::F32).collect()
}

/// Rewrites the graph, which [`fuse_for_inference`](crate::fuse_for_inference) has fused. `range` gives the range of a layer's
/// input; a layer without one stays as it is. `kept` are the values that will be fetched.
///
/// # Errors
/// None that a checked graph can have; they are passed on all the same.
pub fn quantize(graph: &Graph, kept: &[Value], range: impl Fn(&str) -> Option<Range>) -> Result<Fused, GraphError> {
    let mut quantizer = Quantizer::new(graph, kept, &range);
    for index in 0..graph.nodes.len() {
        if !quantizer.done[index] {
            quantizer.copy(index)?;
        }
    }
    // What is fetched is fetched as numbers.
    for &value in kept {
        quantizer.numbers(value)?;
    }
    Ok(Fused { graph: quantizer.new, map: quantizer.numbers })
}

/// The product that a node computes, and its epilogue.
fn kind(node: &Node) -> Option<(Kind, Epilogue)> {
    if let Some(conv) = node.op.is::<Conv2d>() {
        return Some((Kind::Conv2d(conv.clone(), [1, 1]), conv.epilogue));
    }
    if let Some(pooled) = node.op.is::<PooledConv2d>() {
        return Some((Kind::Conv2d(pooled.conv.clone(), pooled.pool), pooled.conv.epilogue));
    }
    node.op.is::<Dense>().map(|dense| (Kind::Dense, dense.epilogue))
}

/// The same, where it can be computed on bytes.
fn product(graph: &Graph, node: &Node) -> Option<(Kind, Epilogue)> {
    let (kind, epilogue) = kind(node)?;
    let (x, kernel) = (graph.spec(node.inputs[0]), graph.spec(node.inputs[1]));
    (x.dtype == DType::F32 && kind.suits(x, kernel)).then_some((kind, epilogue))
}

struct Quantizer<'a> {
    old: &'a Graph,
    new: Graph,
    range: &'a dyn Fn(&str) -> Option<Range>,
    /// Each old value in the new graph, as numbers and as bytes, where it is there.
    numbers: Vec<Option<Value>>,
    bytes: Vec<Option<(Value, Meaning)>>,
    readers: Vec<Vec<usize>>,
    kept: Vec<bool>,
    done: Vec<bool>,
    /// For each addition the convolution that takes it in, and for each convolution the addition.
    absorbed_by: Vec<Option<usize>>,
    absorbs: Vec<Option<usize>>,
}

/// What bytes in the new graph stand for.
#[derive(Clone)]
enum Meaning {
    Encoded(Encoding),
    /// The caller's pixels, scaled for each channel.
    Pixels(Bytes),
}

impl Meaning {
    fn bytes(&self) -> Bytes {
        match self {
            Meaning::Encoded(encoding) => (*encoding).into(),
            Meaning::Pixels(bytes) => bytes.clone(),
        }
    }
}

impl<'a> Quantizer<'a> {
    fn new(old: &'a Graph, kept: &[Value], range: &'a dyn Fn(&str) -> Option<Range>) -> Self {
        let mut new = Graph::new();
        let numbers = old.values.iter().map(|info| match info.source {
            Source::Input(_) => Some(new.input(&info.spec.shape, info.spec.dtype)),
            Source::Parameter(id) => Some(new.parameter(id, &info.spec.shape)),
            Source::Node(_) => None,
        });
        let numbers = numbers.collect();
        let mut readers = vec![Vec::new(); old.values.len()];
        for (i, node) in old.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| readers[v.index()].push(i));
        }
        let mut is_kept = vec![false; old.values.len()];
        kept.iter().for_each(|v| is_kept[v.index()] = true);
        let nodes = old.nodes.len();
        let mut quantizer = Quantizer {
            old,
            new,
            range,
            numbers,
            bytes: vec![None; old.values.len()],
            readers,
            kept: is_kept,
            done: vec![false; nodes],
            absorbed_by: vec![None; nodes],
            absorbs: vec![None; nodes],
        };
        quantizer.find_absorbed();
        quantizer
    }

    /// The node as a product of bytes and the range of its input, if it becomes one.
    fn product(&self, index: usize) -> Option<(Kind, Epilogue, Range)> {
        let node = &self.old.nodes[index];
        let range = (self.range)(&node.place)?;
        let unread = |v: &Value| self.readers[v.index()].is_empty() && !self.kept[v.index()];
        let (kind, epilogue) = product(self.old, node)?;
        node.outputs[1..].iter().all(unread).then_some((kind, epilogue, range))
    }

    /// The only node that reads the value, unless the value is kept.
    fn only_reader(&self, value: Value) -> Option<usize> {
        match self.readers[value.index()][..] {
            [reader] if !self.kept[value.index()] => Some(reader),
            _ => None,
        }
    }

    /// Additions of two values become part of the convolution that makes the later one.
    fn find_absorbed(&mut self) {
        for (index, node) in self.old.nodes.iter().enumerate() {
            let [a, b] = node.inputs[..] else { continue };
            if node.op.is::<Add>().is_none() || a == b {
                continue;
            }
            let made = |v: Value| match self.old.values[v.index()].source {
                Source::Node(index) => Some(index),
                _ => None,
            };
            let later = if made(a) > made(b) { a } else { b };
            let Some(conv) = made(later) else { continue };
            let linear = matches!(self.product(conv), Some((Kind::Conv2d(_, [1, 1]), Epilogue::Linear, _)));
            if linear && self.only_reader(later) == Some(index) {
                (self.absorbed_by[index], self.absorbs[conv]) = (Some(conv), Some(index));
            }
        }
    }

    fn copy(&mut self, index: usize) -> Result<(), GraphError> {
        let node = &self.old.nodes[index];
        self.done[index] = true;
        self.new.set_place(node.place.clone());
        if let Some((kind, epilogue, range)) = self.product(index) {
            return self.copy_product(index, kind, epilogue, range);
        }
        if let Some(affine) = node.op.is::<Affine>()
            && let Some(pixels) = self.scaled_pixels(node.inputs[0], affine)
        {
            // As numbers it follows when it is read as such.
            self.bytes[node.outputs[0].index()] = Some(pixels);
            return Ok(());
        }
        let input = node.inputs.first().map_or(0, |v| v.index());
        if node.op.is_view()
            && let Some((value, Meaning::Encoded(encoding))) = self.bytes[input].clone()
            && (self.numbers[input].is_none() || self.wanted_as_bytes(node.outputs[0]).is_some())
        {
            let view = self.new.add_node(node.op.clone(), &[value])?[0];
            self.bytes[node.outputs[0].index()] = Some((view, Meaning::Encoded(encoding)));
            return Ok(());
        }
        let inputs = node.inputs.iter().map(|&v| self.numbers(v)).collect::<Result<Vec<Value>, _>>()?;
        self.new.set_place(node.place.clone());
        let outputs = self.new.add_node(node.op.clone(), &inputs)?;
        for (old, new) in node.outputs.iter().zip(outputs) {
            self.numbers[old.index()] = Some(new);
        }
        Ok(())
    }

    fn copy_product(&mut self, index: usize, kind: Kind, epilogue: Epilogue, range: Range) -> Result<(), GraphError> {
        let node = &self.old.nodes[index];
        let (image, meaning) = self.bytes(node.inputs[0], &kind, range)?;
        let mut inputs = vec![image];
        for &value in &node.inputs[1..] {
            inputs.push(self.numbers(value)?);
        }
        let (mut output, mut epilogue, mut shortcut) = (node.outputs[0], epilogue, None);
        if let Some(add) = self.absorbs[index] {
            let add = &self.old.nodes[add];
            let other = if add.inputs[0] == output { add.inputs[1] } else { add.inputs[0] };
            let (value, encoding) = match self.bytes[other.index()].clone() {
                Some((value, Meaning::Encoded(encoding))) => (value, Some(encoding)),
                _ => (self.numbers(other)?, None),
            };
            shortcut = Some(encoding);
            inputs.push(value);
            self.done[self.absorbs[index].unwrap_or(index)] = true;
            output = add.outputs[0];
            if let Some(next) = self.only_reader(output)
                && let Some(activation) = self.old.nodes[next].op.is::<Activate>()
                && let Some(rectifier) = rectifier(activation.0)
            {
                self.done[next] = true;
                (epilogue, output) = (rectifier, self.old.nodes[next].outputs[0]);
            }
        }
        let encoding = self.wanted_as_bytes(output).map(|[low, high]| Encoding::of_range(low, high));
        let bias = node.inputs.len() == 3;
        let op = Quantized { kind, epilogue, input: meaning.bytes(), output: encoding, bias, shortcut };
        self.new.set_place(node.place.clone());
        let result = self.new.add(op, &inputs)?;
        match encoding {
            Some(encoding) => self.bytes[output.index()] = Some((result, Meaning::Encoded(encoding))),
            None => self.numbers[output.index()] = Some(result),
        }
        Ok(())
    }

    /// The range in which all readers of the value take it as bytes; `None` where one of them needs numbers.
    fn wanted_as_bytes(&self, value: Value) -> Option<Range> {
        if self.kept[value.index()] {
            return None;
        }
        let mut wanted: Option<Range> = None;
        for &reader in &self.readers[value.index()] {
            let node = &self.old.nodes[reader];
            let range = if let Some((_, _, range)) = self.product(reader) {
                if node.inputs[0] == value { range } else { return None }
            } else if node.op.is_view() {
                self.wanted_as_bytes(node.outputs[0])?
            } else if self.absorbed_by[reader].is_some() {
                // It takes both.
                continue;
            } else {
                return None;
            };
            wanted = Some(wanted.map_or(range, |[low, high]| [low.min(range[0]), high.max(range[1])]));
        }
        wanted
    }

    /// The value as numbers.
    fn numbers(&mut self, value: Value) -> Result<Value, GraphError> {
        if let Some(known) = self.numbers[value.index()] {
            return Ok(known);
        }
        if self.bytes[value.index()].is_none()
            && let Source::Node(index) = self.old.values[value.index()].source
        {
            self.copy(index)?;
            return self.numbers(value);
        }
        let (bytes, meaning) = self.bytes[value.index()].clone().expect("a node's inputs are copied before it");
        let Bytes { scale, offset } = meaning.bytes();
        let numbers = self.new.add(Affine { scale, offset }, &[bytes])?;
        self.numbers[value.index()] = Some(numbers);
        Ok(numbers)
    }

    /// The value as bytes that this product can take.
    fn bytes(&mut self, value: Value, kind: &Kind, range: Range) -> Result<(Value, Meaning), GraphError> {
        let suits = |meaning: &Meaning| match (meaning, kind) {
            (Meaning::Encoded(_), _) => true,
            (Meaning::Pixels(bytes), Kind::Conv2d(conv, _)) => conv.padding == [0; 4] || has_zero(bytes),
            (Meaning::Pixels(_), Kind::Dense) => true,
        };
        if let Some((known, meaning)) = &self.bytes[value.index()]
            && suits(meaning)
        {
            return Ok((*known, meaning.clone()));
        }
        let numbers = self.numbers(value)?;
        let encoding = Encoding::of_range(range[0], range[1]);
        let made = (self.new.add(Quantize(encoding), &[numbers])?, Meaning::Encoded(encoding));
        self.bytes[value.index()] = Some(made.clone());
        Ok(made)
    }

    /// The pixels behind a scaling, or behind two, where it can be undone.
    fn scaled_pixels(&self, input: Value, affine: &Affine) -> Option<(Value, Meaning)> {
        let (pixels, before) = match &self.bytes[input.index()] {
            Some((pixels, Meaning::Pixels(before))) => (*pixels, before.clone()),
            _ if self.old.spec(input).dtype == DType::U8 => {
                (self.numbers[input.index()]?, Bytes { scale: vec![1.0], offset: vec![0.0] })
            }
            _ => return None,
        };
        let channels = self.old.spec(input).channels();
        let of = |v: &[f32], c: usize| v[if v.len() == 1 { 0 } else { c }];
        let count = [&before.scale, &before.offset, &affine.scale, &affine.offset].iter().map(|v| v.len()).max()?;
        let count = if count == 1 { 1 } else { channels };
        let scale: Vec<f32> = (0..count).map(|c| of(&before.scale, c) * of(&affine.scale, c)).collect();
        let offset: Vec<f32> =
            (0..count).map(|c| of(&before.offset, c) * of(&affine.scale, c) + of(&affine.offset, c)).collect();
        let usable = scale.iter().all(|s| s.is_normal()) && offset.iter().all(|o| o.is_finite());
        usable.then_some((pixels, Meaning::Pixels(Bytes { scale, offset })))
    }
}

/// Whether some byte stands for zero, or nearly, in every channel: what padding is made of.
fn has_zero(bytes: &Bytes) -> bool {
    let of = |v: &[f32], c: usize| v[if v.len() == 1 { 0 } else { c }];
    let channels = bytes.scale.len().max(bytes.offset.len());
    (0..channels).all(|c| (-0.5..=255.5).contains(&(-of(&bytes.offset, c) / of(&bytes.scale, c))))
}

fn rectifier(activation: Activation) -> Option<Epilogue> {
    match activation {
        Activation::Relu => Some(Epilogue::Relu),
        Activation::Relu6 => Some(Epilogue::Relu6),
        _ => None,
    }
}
