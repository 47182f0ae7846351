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

    /// A convolution and a batch normalisation by moving averages.
    fn normalized(&mut self, x: Value, filters: usize, size: usize, op: Conv2d) -> Value {
        let x = self.conv(x, filters, size, op);
        let [gamma, beta, mean, variance] = [1.0, 0.5, 0.1, 0.5].map(|scale| self.weight(&[filters], scale));
        // Random variances are negative, too.
        batch_norm_inference(&mut self.graph, x, gamma, beta, mean, variance, 1.0).unwrap()
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
        "normalized images",
        [9, 8, 64],
        |net, x| {
            let x = net.normalized(x, 64, 1, conv2d(0));
            let y = net.activate(x, Activation::Relu6);
            let y = net.normalized(y, 96, 1, conv2d(0));
            let y = net.normalized(y, 64, 1, conv2d(0));
            let y = net.graph.add(Add, &[y, x]).unwrap();
            net.conv(y, 33, 1, conv2d(0))
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

/// A graph fused for inference, and what it computes.
struct Fused {
    graph: Graph,
    y: Value,
}

/// The net of a body, fused, and that with its operations joined.
fn both(body: Body, image: [usize; 3], precision: Precision) -> (Parameters, [Fused; 2]) {
    let mut net = Net { graph: Graph::new(), parameters: Parameters::new() };
    let x = net.graph.input(&image, DType::F32);
    let y = body(&mut net, x);
    let fused = fuse_for_inference(&net.graph, &[y]).unwrap();
    let y = fused.value(y).unwrap();
    let joined = join_for_inference(&fused.graph, &[y], precision).unwrap();
    let of_joined = joined.value(y).unwrap();
    (net.parameters, [Fused { graph: fused.graph, y }, Fused { graph: joined.graph, y: of_joined }])
}

/// What comes out for so many images that look random, run twice.
fn infer(fused: &Fused, parameters: &mut Parameters, images: &[f32], options: PlanOptions) -> Vec<f32> {
    let (mut pool, samples) = (Pool::new(options.threads), options.batch);
    let mut runner = Runner::new(Plan::new(&fused.graph, &[fused.y], options).unwrap(), pool.threads());
    let mut read = vec![0.0; samples * fused.graph.spec(fused.y).len()];
    for _ in 0..2 {
        runner.run(&mut pool, parameters, &[Input::F32(images)], samples, &Scalars::default());
        runner.read(fused.y, &mut read);
    }
    read
}

#[test]
fn joining_does_not_change_inference() {
    let samples = 5;
    for (&(name, image, body, joined_ops), precision) in
        CASES.iter().flat_map(|case| [(case, Precision::F32), (case, Precision::Bf16)])
    {
        let (mut parameters, [fused, joined]) = both(body, image, precision);
        let names: Vec<&str> = joined.graph.nodes().iter().map(|node| node.op.name()).collect();
        let mut expected = joined_ops.iter().filter(|op| precision == Precision::F32 || **op != "ExpandedDepthwise");
        assert!(expected.all(|op| names.contains(op)), "{name}: {names:?}");
        assert!(joined_ops.contains(&"ZeroPad2d") || !names.contains(&"ZeroPad2d"), "{name}: {names:?}");
        let images = numbers(samples * image.iter().product::<usize>(), 9);
        let options = PlanOptions { precision, ..PlanOptions::new(samples, Level::detect()) };
        let want = infer(&fused, &mut parameters, &images, options.clone());
        let got = infer(&joined, &mut parameters, &images, options.clone());
        // In bf16, the last bit of a sum may decide how it is rounded for the next product.
        let tolerance = if precision == Precision::F32 { 1e-5 } else { 1e-2 };
        assert_close(&format!("{name} in {precision:?}"), &got, &want, tolerance);
        for (threads, slots, group, share_memory, late_above) in [
            (1, Some(1), None, false, usize::MAX),
            (2, Some(2), Some(2), true, 0),
            (3, None, None, true, 0),
            (1, None, None, true, 256),
            (1, Some(5), Some(1), false, 0),
        ] {
            let share_above = 0;
            let options =
                PlanOptions { threads, slots, group, share_memory, share_above, late_above, ..options.clone() };
            let other = infer(&joined, &mut parameters, &images, options);
            assert_eq!(other, got, "{name} in {precision:?}: {threads} threads, {slots:?} slots");
        }
    }
}

#[test]
fn convolutions_know_that_their_images_are_normalized() {
    let body: Body = |net, x| {
        // The input may be anything, and so may what comes from it without normalisation.
        let a = net.conv(x, 64, 1, conv2d(0));
        let b = net.normalized(a, 64, 1, conv2d(0));
        let c = net.activate(b, Activation::Relu);
        let d = net.normalized(c, 64, 1, conv2d(0));
        let sum = net.graph.add(Add, &[d, c]).unwrap();
        let e = net.normalized(sum, 64, 1, conv2d(0));
        let sum = net.graph.add(Add, &[e, a]).unwrap();
        let g = net.normalized(sum, 64, 1, conv2d(0));
        let g = net.graph.add(MaxPool2d { size: [1, 1], strides: [1, 1], padding: [0; 4] }, &[g]).unwrap();
        let vectors = [1.0, 0.5, 0.1, 0.5].map(|scale| net.weight(&[64], scale));
        let [gamma, beta, mean, variance] = vectors;
        // A normalisation that is not folded takes in what is added to it.
        let g = batch_norm_inference(&mut net.graph, g, gamma, beta, mean, variance, 1.0).unwrap();
        let g = net.graph.add(Add, &[g, a]).unwrap();
        let sum = net.normalized(g, 64, 1, conv2d(0));
        // Larger kernels have a way of their own.
        let f = net.normalized(sum, 64, 3, conv2d(1));
        net.normalized(f, 64, 3, conv2d(1))
    };
    let known = |precision| {
        let (_, [_, joined]) = both(body, [5, 4, 64], precision);
        let convolutions = joined.graph.nodes().iter().filter(|node| node.op.name().contains("Conv2d"));
        convolutions.map(|node| format!("{:?}", node.op).contains("normalized: true")).collect::<Vec<_>>()
    };
    assert_eq!(known(Precision::F32), [false, false, true, true, false, false, false, false]);
    assert!(!known(Precision::Bf16).contains(&true), "pairs are multiplied");
}

#[test]
fn writing_over_the_shortcut_saves_an_image() {
    for precision in [Precision::F32, Precision::Bf16] {
        let memory = |case: usize| {
            let (_, image, body, _) = CASES[case];
            both(body, image, precision).1.map(|Fused { graph, y }| {
                let options =
                    PlanOptions { precision, slots: Some(1), group: Some(1), ..PlanOptions::new(1, Level::detect()) };
                Plan::new(&graph, &[y], options).unwrap().memory(1)
            })
        };
        let image = 9 * 8 * 16 * 4;
        let [apart, joined] = memory(0);
        assert_eq!(joined + image, apart, "{precision:?}");
    }
}

#[test]
fn a_shortcut_that_a_later_stage_reads_is_not_written_over() {
    // The normalisation comes first in the graph, but waits for the whole batch.
    let body: Body = |net, x| {
        let x = net.conv(x, 8, 1, conv2d(0));
        let vectors = [0.1, 1.0, 0.5].map(|scale| net.weight(&[8], scale));
        let [shift, gamma, beta] = vectors;
        let (normalized, _, _) = batch_norm_training(&mut net.graph, x, gamma, beta, shift, 1e-3).unwrap();
        let y = net.conv(x, 8, 3, conv2d(1));
        let y = net.graph.add(Add, &[y, x]).unwrap();
        net.graph.add(Concat, &[y, normalized]).unwrap()
    };
    let (samples, image) = (6, [5, 4, 3]);
    let images = numbers(samples * image.iter().product::<usize>(), 9);
    let (mut parameters, [fused, joined]) = both(body, image, Precision::F32);
    assert!(joined.graph.nodes().iter().any(|node| node.op.name() == "ResidualConv2d"));
    for (slots, group) in [(1, None), (1, Some(2)), (3, Some(1))] {
        let options = PlanOptions { slots: Some(slots), group, ..PlanOptions::new(samples, Level::detect()) };
        let want = infer(&fused, &mut parameters, &images, options.clone());
        let got = infer(&joined, &mut parameters, &images, options.clone());
        assert_close(&format!("{slots} slots, groups of {group:?}"), &got, &want, 1e-5);
        let apart = PlanOptions { share_memory: false, ..options };
        assert_eq!(infer(&joined, &mut parameters, &images, apart), got, "{slots} slots, groups of {group:?}");
    }
}

#[test]
fn the_last_layers_take_several_samples_together() {
    // Two layers of large images and few weights, then one of which the opposite is true; a shortcut passes into it.
    let body: Body = |net, x| {
        let x = net.conv(x, 8, 3, conv2d(1));
        let y = net.conv(x, 8, 3, conv2d(1));
        let y = net.graph.add(Add, &[y, x]).unwrap();
        net.conv(y, 64, 16, conv2d(0))
    };
    let (samples, image) = (16, [16, 16, 8]);
    let images = numbers(samples * image.iter().product::<usize>(), 9);
    let (mut parameters, [fused, joined]) = both(body, image, Precision::F32);
    for (threads, groups) in [(1, [1, 8]), (3, [1, 6]), (16, [1, 1])] {
        let options = PlanOptions {
            threads,
            group_bytes: 12 << 10,
            late_above: usize::MAX,
            ..PlanOptions::new(samples, Level::detect())
        };
        let late = PlanOptions { late_above: 64 << 10, ..options.clone() };
        for net in [&fused, &joined] {
            let plan = Plan::new(&net.graph, &[net.y], options.clone()).unwrap().to_string();
            assert_eq!(plan.matches("in groups of").count(), 1, "{threads} threads:\n{plan}");
            let plan = Plan::new(&net.graph, &[net.y], late.clone()).unwrap().to_string();
            let found: Vec<&str> = plan.lines().filter(|line| line.contains("in groups of")).collect();
            let stages = if groups == [1, 1] { 1 } else { 2 };
            assert_eq!(found.len(), stages, "{threads} threads:\n{plan}");
            for (line, group) in found.iter().zip(groups) {
                assert!(line.ends_with(&format!("in groups of {group}")), "{threads} threads: {group} in\n{plan}");
            }
            let want = infer(net, &mut parameters, &images, options.clone());
            assert_eq!(infer(net, &mut parameters, &images, late.clone()), want, "{threads} threads");
        }
    }
}
