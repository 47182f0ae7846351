//! What is joined for inference gives what its parts give, for any threads, slots and groups, whether memory is shared or not.

use ocellus_engine::ops::*;
use ocellus_engine::{
    DType, Graph, Input, Level, ParameterKind, Parameters, Plan, PlanOptions, Pool, Precision, Runner, Scalars, Value,
    fuse_for_inference, join_for_inference,
};

/// Numbers in `-1..1` that look random and are the same everywhere.
fn numbers(count: usize, key: u32) -> Vec<f32> {
    let hash = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(key.wrapping_mul(0x9e37_79b9));
    let scramble = |h: u32| (h ^ h >> 15).wrapping_mul(0x2c1b_3c6d) ^ h >> 13;
    (0..count).map(|i| (scramble(hash(i + 1)) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

#[track_caller]
fn assert_close(name: &str, got: &[f32], want: &[f32], tolerance: f32) {
    let scale = want.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "{name}[{i}]: {g} instead of {w}");
    }
}

fn conv2d(padding: usize) -> Conv2d {
    Conv2d { strides: [1, 1], padding: [padding; 4], dilation: [1, 1], groups: 1, epilogue: Epilogue::Linear }
}

/// A graph under construction.
struct Net {
    graph: Graph,
    parameters: Parameters,
}

impl Net {
    fn weight(&mut self, shape: &[usize], scale: f32) -> Value {
        let values = numbers(shape.iter().product(), 7 + self.parameters.len() as u32);
        let values: Vec<f32> = values.iter().map(|v| v * scale).collect();
        let id = self.parameters.add(format!("{}", self.parameters.len()), shape, ParameterKind::Weight, &values);
        self.graph.parameter(id, shape)
    }

    fn conv(&mut self, x: Value, filters: usize, size: usize, op: Conv2d) -> Value {
        let channels = self.graph.spec(x).channels() / op.groups;
        let w = self.weight(&[size, size, channels, filters], 1.0 / (size as f32 * (channels as f32).sqrt()));
        let b = self.weight(&[filters], 0.2);
        self.graph.add(op, &[x, w, b]).unwrap()
    }

    fn activate(&mut self, x: Value, activation: Activation) -> Value {
        self.graph.add(Activate(activation), &[x]).unwrap()
    }
}

type Body = fn(&mut Net, Value) -> Value;

/// Name, image, body, the joined operations.
const CASES: &[(&str, [usize; 3], Body, &[&str])] = &[
    (
        "shortcut written over",
        [9, 8, 16],
        |net, x| {
            let x = net.conv(x, 16, 1, conv2d(0));
            let y = net.conv(x, 16, 3, conv2d(1));
            let y = net.activate(y, Activation::Relu);
            let y = net.conv(y, 16, 3, conv2d(1));
            let y = net.graph.add(Add, &[y, x]).unwrap();
            let y = net.activate(y, Activation::Relu);
            net.conv(y, 4, 1, conv2d(0))
        },
        &["ResidualConv2d"],
    ),
    (
        "shortcut read later",
        [9, 8, 16],
        |net, x| {
            let x = net.conv(x, 16, 1, conv2d(0));
            let y = net.conv(x, 16, 1, conv2d(0));
            let y = net.graph.add(Add, &[x, y]).unwrap();
            let y = net.graph.add(Add, &[y, x]).unwrap();
            net.conv(y, 4, 1, conv2d(0))
        },
        &["ResidualConv2d"],
    ),
    (
        "shortcut that is the input, and one that is kept",
        [6, 5, 3],
        |net, x| {
            let y = net.conv(x, 3, 3, conv2d(1));
            let y = net.graph.add(Add, &[y, x]).unwrap();
            let z = net.conv(y, 3, 1, conv2d(0));
            net.graph.add(Add, &[z, y]).unwrap()
        },
        &["ResidualConv2d"],
    ),
    (
        "constants among the inputs",
        [6, 5, 3],
        |net, x| {
            let w = net.weight(&[1, 1, 3, 3], 0.5);
            let b = net.graph.add(Constant { value: 0.25, shape: vec![3] }, &[]).unwrap();
            let y = net.graph.add(conv2d(0), &[x, w, b]).unwrap();
            net.conv(y, 4, 1, conv2d(0))
        },
        &[],
    ),
    (
        "shortcut under another name",
        [6, 5, 3],
        |net, x| {
            let x = net.conv(x, 3, 1, conv2d(0));
            let name = net.graph.add(Reshape { shape: vec![6, 5, 3] }, &[x]).unwrap();
            let y = net.conv(x, 3, 3, conv2d(1));
            let y = net.graph.add(Add, &[y, name]).unwrap();
            net.graph.add(Concat, &[x, y]).unwrap()
        },
        &["ResidualConv2d"],
    ),
    (
        "zeros before a max-pool",
        [9, 9, 3],
        |net, x| {
            let x = net.conv(x, 8, 3, conv2d(1));
            let x = net.activate(x, Activation::Relu);
            let x = net.graph.add(ZeroPad2d { padding: [1, 1, 1, 1] }, &[x]).unwrap();
            net.graph.add(MaxPool2d { size: [3, 3], strides: [2, 2], padding: [0; 4] }, &[x]).unwrap()
        },
        &[],
    ),
    (
        "zeros above negative numbers",
        [9, 9, 3],
        |net, x| {
            let x = net.conv(x, 8, 3, conv2d(1));
            let x = net.graph.add(ZeroPad2d { padding: [1, 1, 1, 1] }, &[x]).unwrap();
            net.graph.add(MaxPool2d { size: [3, 3], strides: [2, 2], padding: [0; 4] }, &[x]).unwrap()
        },
        &["ZeroPad2d"],
    ),
    (
        "inverted residual",
        [40, 36, 8],
        |net, x| {
            let y = net.conv(x, 96, 1, conv2d(0));
            let y = net.activate(y, Activation::Relu6);
            let y = net.conv(y, 96, 3, Conv2d { groups: 96, ..conv2d(1) });
            let y = net.activate(y, Activation::Relu6);
            net.conv(y, 8, 1, conv2d(0))
        },
        &["ExpandedDepthwise"],
    ),
];

#[test]
fn joining_does_not_change_inference() {
    let samples = 5;
    for &(name, image, body, joined_ops) in CASES {
        let mut net = Net { graph: Graph::new(), parameters: Parameters::new() };
        let x = net.graph.input(&image, DType::F32);
        let y = body(&mut net, x);
        let Net { graph, mut parameters } = net;
        let fused = fuse_for_inference(&graph, &[y]).unwrap();
        let y = fused.value(y).unwrap();
        let joined = join_for_inference(&fused.graph, &[y], Precision::F32).unwrap();
        let names: Vec<&str> = joined.graph.nodes().iter().map(|node| node.op.name()).collect();
        assert!(joined_ops.iter().all(|op| names.contains(op)), "{name}: {names:?}");
        assert!(joined_ops.contains(&"ZeroPad2d") || !names.contains(&"ZeroPad2d"), "{name}: {names:?}");
        let images = numbers(samples * image.iter().product::<usize>(), 9);
        let mut infer = |graph: &Graph, y: Value, options: PlanOptions| {
            let mut pool = Pool::new(options.threads);
            let mut runner = Runner::new(Plan::new(graph, &[y], options).unwrap(), pool.threads());
            let mut read = vec![0.0; samples * graph.spec(y).len()];
            for _ in 0..2 {
                runner.run(&mut pool, &mut parameters, &[Input::F32(&images)], samples, &Scalars::default());
                runner.read(y, &mut read);
            }
            read
        };
        let options = PlanOptions::new(samples, Level::detect());
        let want = infer(&fused.graph, y, options.clone());
        let y = joined.value(y).unwrap();
        let got = infer(&joined.graph, y, options.clone());
        assert_close(name, &got, &want, 1e-5);
        for (threads, slots, group, share_memory) in [
            (1, Some(1), None, false),
            (2, Some(2), Some(2), true),
            (3, None, None, true),
            (1, Some(5), Some(1), false),
        ] {
            let share_above = 0;
            let options = PlanOptions { threads, slots, group, share_memory, share_above, ..options.clone() };
            assert_eq!(infer(&joined.graph, y, options), got, "{name}: {threads} threads, {slots:?} slots");
        }
    }
}
