//! Graphs rewritten for 8-bit arithmetic against the same graphs in single precision: close to them, the same for any number
//! of threads, and in bytes wherever they can be.

use ocellus_engine::ops::*;
use ocellus_engine::{
    DType, Graph, GraphError, Input, Level, ParameterKind, Parameters, Plan, PlanOptions, Pool, Range, Runner, Scalars,
    Value, fuse_for_inference, quantizable, quantize,
};
use std::collections::HashMap;

const BATCH: usize = 11;
const IMAGE: [usize; 3] = [9, 8, 3];

/// Numbers in `-1..1` that look random and are the same everywhere.
fn numbers(count: usize, key: u32) -> Vec<f32> {
    let hash = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(key.wrapping_mul(0x9e37_79b9));
    let scramble = |h: u32| (h ^ h >> 15).wrapping_mul(0x2c1b_3c6d) ^ h >> 13;
    (0..count).map(|i| (scramble(hash(i + 1)) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A net under construction; each layer has a place of its own.
struct Net {
    graph: Graph,
    parameters: Parameters,
    layers: usize,
}

impl Net {
    fn place(&mut self) {
        self.layers += 1;
        self.graph.set_place(format!("layer{}", self.layers));
    }

    fn weight(&mut self, shape: &[usize], scale: f32) -> Value {
        let key = self.parameters.len() as u32;
        let values: Vec<f32> = numbers(shape.iter().product(), 17 + key).iter().map(|v| v * scale).collect();
        let id = self.parameters.add(format!("w{key}"), shape, ParameterKind::Weight, &values);
        self.graph.parameter(id, shape)
    }

    /// A convolution with bias: filters, kernel size, and what differs from a plain one.
    fn conv(&mut self, x: Value, filters: usize, kernel: usize, conv: Conv2d) -> Result<Value, GraphError> {
        self.place();
        let channels = self.graph.spec(x).channels() / conv.groups;
        let w = self.weight(&[kernel, kernel, channels, filters], 2.0 / ((kernel * kernel * channels) as f32).sqrt());
        let b = self.weight(&[filters], 0.2);
        self.graph.add(conv, &[x, w, b])
    }

    fn dense(&mut self, x: Value, units: usize) -> Result<Value, GraphError> {
        self.place();
        let features = self.graph.spec(x).channels();
        let (w, b) = (self.weight(&[features, units], 2.0 / (features as f32).sqrt()), self.weight(&[units], 0.1));
        self.graph.add(Dense { epilogue: Epilogue::Linear }, &[x, w, b])
    }

    fn relu(&mut self, x: Value) -> Result<Value, GraphError> {
        self.graph.add(Activate(Activation::Relu), &[x])
    }

    fn pool(&mut self, x: Value, size: usize, strides: usize) -> Result<Value, GraphError> {
        self.graph.add(MaxPool2d { size: [size; 2], strides: [strides; 2], padding: [0; 4] }, &[x])
    }

    fn flat(&mut self, x: Value) -> Result<Value, GraphError> {
        let shape = vec![self.graph.spec(x).len()];
        self.graph.add(Reshape { shape }, &[x])
    }
}

fn same(padding: usize) -> Conv2d {
    Conv2d { strides: [1, 1], padding: [padding; 4], dilation: [1, 1], groups: 1, epilogue: Epilogue::Linear }
}

/// Pixels scaled by one number.
fn unit(net: &mut Net, pixels: Value) -> Result<Value, GraphError> {
    net.graph.add(Affine { scale: vec![1.0 / 255.0], offset: vec![0.0] }, &[pixels])
}

type Body = fn(&mut Net, Value) -> Result<Value, GraphError>;

/// What is in the net, how it is built, and the operations that are left of it.
const NETS: &[(&str, Body, &[&str])] = &[
    (
        "convolutions, pools and dense layers stay in bytes",
        |net, pixels| {
            let x = unit(net, pixels)?;
            let y = net.conv(x, 8, 3, same(1))?;
            let y = net.relu(y)?;
            let y = net.pool(y, 2, 2)?;
            let y = net.conv(y, 17, 3, same(0))?;
            let y = net.relu(y)?;
            let y = net.flat(y)?;
            let y = net.dense(y, 20)?;
            let y = net.relu(y)?;
            net.dense(y, 5)
        },
        &["QuantizedConv2d+MaxPool2d", "QuantizedConv2d", "Reshape", "QuantizedDense", "QuantizedDense"],
    ),
    (
        "pixels scaled channel by channel, twice, with a zero",
        |net, pixels| {
            let x = unit(net, pixels)?;
            let x = net.graph.add(Affine { scale: vec![4.4, 4.5, 4.3], offset: vec![-2.1, -2.0, -1.8] }, &[x])?;
            let y = net.conv(x, 8, 3, same(1))?;
            net.flat(y)
        },
        &["QuantizedConv2d", "Reshape"],
    ),
    (
        "padding of pixels that have no zero",
        |net, pixels| {
            let x = net.graph.add(Affine { scale: vec![0.01], offset: vec![0.5] }, &[pixels])?;
            let y = net.conv(x, 8, 3, same(1))?;
            net.flat(y)
        },
        &["Affine", "Quantize", "QuantizedConv2d", "Reshape"],
    ),
    (
        "pixels without zero but also without padding",
        |net, pixels| {
            let x = net.graph.add(Affine { scale: vec![0.01], offset: vec![0.5] }, &[pixels])?;
            let y = net.conv(x, 8, 3, same(0))?;
            net.flat(y)
        },
        &["QuantizedConv2d", "Reshape"],
    ),
    (
        "a residual block, identity and projection",
        |net, pixels| {
            let x = unit(net, pixels)?;
            let x = net.conv(x, 8, 3, same(1))?;
            let x = net.relu(x)?;
            let y = net.conv(x, 8, 3, same(1))?;
            let y = net.relu(y)?;
            let y = net.conv(y, 8, 3, same(1))?;
            let y = net.graph.add(Add, &[y, x])?;
            let x = net.relu(y)?;
            let short = net.conv(x, 12, 1, Conv2d { strides: [2, 2], ..same(0) })?;
            let y = net.conv(x, 12, 3, Conv2d { strides: [2, 2], ..same(1) })?;
            let y = net.graph.add(Add, &[short, y])?;
            let y = net.relu(y)?;
            net.graph.add(GlobalAveragePool2d, &[y])
        },
        &[
            "QuantizedConv2d",
            "QuantizedConv2d",
            "QuantizedConv2d+Add",
            "QuantizedConv2d",
            "QuantizedConv2d+Add",
            "GlobalAveragePool2d",
        ],
    ),
    (
        "a value read as bytes and as numbers, signed, and an addition of three",
        |net, pixels| {
            let x = unit(net, pixels)?;
            let x = net.conv(x, 8, 3, same(1))?;
            let y = net.conv(x, 8, 3, same(1))?;
            let y = net.graph.add(Add, &[y, x, x])?;
            let y = net.graph.add(Activate(Activation::Silu), &[y])?;
            net.graph.add(GlobalAveragePool2d, &[y])
        },
        &["QuantizedConv2d", "Quantize", "QuantizedConv2d", "Add", "Activate", "GlobalAveragePool2d"],
    ),
    (
        "groups, a depthwise convolution that stays as it is, overlapping pools",
        |net, pixels| {
            let x = unit(net, pixels)?;
            let x = net.conv(x, 16, 3, same(1))?;
            let x = net.graph.add(Activate(Activation::Relu6), &[x])?;
            let x = net.conv(x, 16, 3, Conv2d { groups: 16, ..same(1) })?;
            let x = net.relu(x)?;
            let x = net.conv(x, 8, 3, Conv2d { groups: 2, ..same(1) })?;
            let x = net.pool(x, 3, 2)?;
            net.flat(x)
        },
        &["QuantizedConv2d", "Conv2d", "Quantize", "QuantizedConv2d", "MaxPool2d", "Reshape"],
    ),
    (
        "a scaling of numbers, and a dense layer over pixels",
        |net, pixels| {
            let x = unit(net, pixels)?;
            let y = net.dense(x, 8)?;
            let y = net.graph.add(Affine { scale: vec![2.0], offset: vec![1.0] }, &[y])?;
            let y = net.dense(y, 6)?;
            net.flat(y)
        },
        &["QuantizedDense", "Affine", "Quantize", "QuantizedDense", "Reshape"],
    ),
];

fn run(graph: &Graph, net: &Net, fetched: &[Value], level: Level, threads: usize, slots: usize) -> Vec<Vec<f32>> {
    let options = PlanOptions { slots: Some(slots), ..PlanOptions::new(BATCH, level) };
    let mut pool = Pool::new(threads);
    let mut runner = Runner::new(Plan::new(graph, fetched, options).unwrap(), pool.threads());
    let pixels: Vec<u8> =
        numbers(BATCH * IMAGE.iter().product::<usize>(), 3).iter().map(|v| (v * 127.0 + 128.0) as u8).collect();
    runner.run(&mut pool, &mut net.parameters.clone(), &[Input::U8(&pixels)], BATCH, &Scalars::default());
    let read = |&value: &Value| {
        let mut values = vec![0.0; BATCH * graph.spec(value).len()];
        runner.read(value, &mut values);
        values
    };
    fetched.iter().map(read).collect()
}

/// The operations that the output needs.
fn needed(graph: &Graph, output: Value) -> Vec<&'static str> {
    let mut wanted = vec![output];
    let mut names = Vec::new();
    for node in graph.nodes().iter().rev() {
        if node.outputs.iter().any(|v| wanted.contains(v)) {
            wanted.extend(&node.inputs);
            names.push(node.op.name());
        }
    }
    names.reverse();
    names
}

#[test]
fn eight_bits_are_close_to_single_precision() {
    for &(what, body, operations) in NETS {
        let mut net = Net { graph: Graph::new(), parameters: Parameters::new(), layers: 0 };
        let pixels = net.graph.input(&IMAGE, DType::U8);
        let output = body(&mut net, pixels).unwrap();
        let fused = fuse_for_inference(&net.graph, &[output]).unwrap();
        let (graph, output) = (&fused.graph, fused.value(output).unwrap());
        let inputs: Vec<(&str, Value)> = quantizable(graph)
            .into_iter()
            .filter(|(_, v)| graph.nodes().iter().any(|n| n.outputs.contains(v)))
            .collect();
        let values: Vec<Value> = inputs.iter().map(|&(_, value)| value).collect();
        let seen = run(graph, &net, &values, Level::detect(), 1, 1);
        let range = |values: &Vec<f32>| values.iter().fold([0.0f32; 2], |[low, high], &v| [low.min(v), high.max(v)]);
        let ranges: HashMap<&str, Range> = inputs.iter().map(|&(place, _)| place).zip(seen.iter().map(range)).collect();

        let unchanged = quantize(graph, &[output], |_| None).unwrap();
        assert_eq!(needed(&unchanged.graph, unchanged.value(output).unwrap()), needed(graph, output), "{what}");
        let quantized = quantize(graph, &[output], |place| ranges.get(place).copied()).unwrap();
        let in_bytes = quantized.value(output).unwrap();
        assert_eq!(needed(&quantized.graph, in_bytes), operations, "{what}");
        for level in Level::available() {
            let want = &run(graph, &net, &[output], level, 1, 1)[0];
            let got = &run(&quantized.graph, &net, &[in_bytes], level, 1, 1)[0];
            // A step of 1/255 of the range in each layer's input, of 1/127 in its weights: the root mean square of the errors is
            // within 2% of the outputs'.
            let square = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>();
            let error = square(&mut got.iter().zip(want).map(|(g, w)| g - w)) / square(&mut want.iter().copied());
            assert!(error.sqrt() < 0.02, "{what} on {level:?}: relative error {}", error.sqrt());
            assert!(error > 0.0, "{what} on {level:?}: nothing was rounded");
            for (threads, slots) in [(1, 4), (3, 4), (2, 11)] {
                let again = &run(&quantized.graph, &net, &[in_bytes], level, threads, slots)[0];
                assert_eq!(got, again, "{what} on {level:?}, {threads} threads");
            }
        }
    }
}
