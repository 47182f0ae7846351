//! Every operation inside a small trained net: its gradient against differences of the loss, and the same results for
//! every way to run it (fused or not, memory shared or not, any slots, groups, threads and instruction sets).

mod harness;

use harness::*;
use ocellus_engine::ops::*;
use ocellus_engine::{
    DType, Graph, GraphError, Input, Level, ParameterId, ParameterKind, Parameters, Plan, PlanOptions, Pool, Precision,
    Role, Runner, Scalars, Spec, Value, fuse, fuse_for_inference,
};

/// The loss along a line through each parameter in turn must change as its gradient says.
fn check_gradient(body: Body<'_>, loss: LossOf) {
    check_gradient_of(plain(), body, loss);
    check_gradient_of(Way { fused: true, recompute: true, slots: Some(2), ..plain() }, body, loss);
}

fn check_gradient_of(way: Way, body: Body<'_>, loss: LossOf) {
    let (net, logits, total) = build(body, loss);
    let results = run(&net, logits, total, way);
    for (n, &(id, _)) in net.weights.iter().enumerate() {
        let len = net.parameters.get(id).values().len();
        let direction = numbers(len, 99);
        let along: f64 = direction.iter().zip(&results.gradients[n]).map(|(&d, &g)| f64::from(d) * f64::from(g)).sum();
        let at = |h: f32| {
            let mut moved = Net {
                graph: net.graph.clone(),
                parameters: net.parameters.clone(),
                weights: net.weights.clone(),
                averages: Vec::new(),
            };
            moved.parameters.values_mut(id).iter_mut().zip(&direction).for_each(|(p, d)| *p += h * d);
            f64::from(run(&moved, logits, total, plain()).total)
        };
        // The smallest of three steps' errors: the larger ones may cross a kink.
        let error = [3e-3f32, 3e-4, 1e-4].map(|h| {
            let slope = (at(h) - at(-h)) / f64::from(2.0 * h);
            (slope - along).abs() / (along.abs() + 0.05)
        });
        let error = error.into_iter().fold(f64::INFINITY, f64::min);
        assert!(error < 2e-2, "parameter {n}: relative error {error} of the gradient {along}");
    }
}

type BodyFn = fn(&mut Net, Value) -> Result<Value, GraphError>;

const BODIES: &[(&str, BodyFn)] = &[
    ("nothing", |_, x| Ok(x)),
    ("conv", |net, x| net.conv(x, 5, 3, 0)),
    ("conv, same", |net, x| net.conv(x, 5, 3, 1)),
    ("conv, strides, asymmetric padding", |net, x| {
        let w = net.weight(&[3, 2, 4, 5], 0.5);
        net.graph.add(Conv2d { strides: [2, 3], padding: [0, 1, 1, 0], ..conv2d(0) }, &[x, w])
    }),
    ("conv, dilation and groups", |net, x| {
        let (w, b) = (net.weight(&[2, 3, 2, 6], 0.5), net.weight(&[6], 0.1));
        net.graph.add(Conv2d { dilation: [2, 2], groups: 2, padding: [1, 1, 2, 2], ..conv2d(0) }, &[x, w, b])
    }),
    ("depthwise, multiplier", |net, x| {
        let w = net.weight(&[3, 3, 1, 8], 0.5);
        net.graph.add(Conv2d { groups: 4, ..conv2d(1) }, &[x, w])
    }),
    ("conv, relu", |net, x| {
        let y = net.conv(x, 5, 3, 0)?;
        activate(net, y, Activation::Relu)
    }),
    ("conv, relu, pool", |net, x| {
        let y = net.conv(x, 20, 3, 0)?;
        let y = activate(net, y, Activation::Relu)?;
        net.graph.add(MaxPool2d { size: [2, 2], strides: [2, 2], padding: [0; 4] }, &[y])
    }),
    ("conv, same, pool", |net, x| {
        let y = net.conv(x, 3, 3, 1)?;
        net.graph.add(MaxPool2d { size: [2, 3], strides: [2, 3], padding: [0; 4] }, &[y])
    }),
    ("zeros, conv, relu, pool", |net, x| {
        let x = net.graph.add(ZeroPad2d { padding: [1, 2, 0, 1] }, &[x])?;
        let y = net.conv(x, 5, 3, 0)?;
        let y = activate(net, y, Activation::Relu)?;
        net.graph.add(MaxPool2d { size: [2, 2], strides: [2, 2], padding: [0; 4] }, &[y])
    }),
    ("zeros, pool", |net, x| {
        let x = net.conv(x, 5, 3, 1)?;
        let x = net.graph.add(ZeroPad2d { padding: [1, 0, 2, 1] }, &[x])?;
        net.graph.add(MaxPool2d { size: [3, 3], strides: [2, 2], padding: [0; 4] }, &[x])
    }),
    ("max pool, overlapping", |net, x| {
        net.graph.add(MaxPool2d { size: [3, 3], strides: [2, 1], padding: [1, 0, 1, 1] }, &[x])
    }),
    ("average pool", |net, x| {
        net.graph.add(AveragePool2d { size: [2, 3], strides: [1, 2], padding: [0, 1, 1, 1] }, &[x])
    }),
    ("padding, depthwise with a kernel of another shape", |net, x| {
        let x = net.graph.add(ZeroPad2d { padding: [1; 4] }, &[x])?;
        let w = net.weight(&[3, 3, 4, 1], 0.5);
        let w = net.graph.add(Reshape { shape: vec![3, 3, 1, 4] }, &[w])?;
        net.graph.add(Conv2d { groups: 4, ..conv2d(0) }, &[x, w])
    }),
    ("global average", |net, x| net.graph.add(GlobalAveragePool2d, &[x])),
    ("global max", |net, x| net.graph.add(GlobalMaxPool2d, &[x])),
    ("relu", |net, x| activate(net, x, Activation::Relu)),
    ("relu6", |net, x| activate(net, x, Activation::Relu6)),
    ("leaky relu", |net, x| activate(net, x, Activation::LeakyRelu { negative_slope: 0.2 })),
    ("elu", |net, x| activate(net, x, Activation::Elu { alpha: 1.0 })),
    ("gelu", |net, x| activate(net, x, Activation::Gelu)),
    ("silu", |net, x| activate(net, x, Activation::Silu)),
    ("sigmoid", |net, x| activate(net, x, Activation::Sigmoid)),
    ("tanh", |net, x| activate(net, x, Activation::Tanh)),
    ("gelu, tanh form", |net, x| activate(net, x, Activation::GeluTanh)),
    ("hard sigmoid", |net, x| activate(net, x, Activation::HardSigmoid)),
    ("hard silu", |net, x| activate(net, x, Activation::HardSilu)),
    ("softmax", |net, x| net.graph.add(Softmax, &[x])),
    ("batch norm", batch_norm),
    ("conv, batch norm, relu, twice", |net, x| {
        let y = net.conv(x, 6, 3, 1)?;
        let y = batch_norm(net, y)?;
        let y = activate(net, y, Activation::Relu)?;
        let y = net.conv(y, 6, 3, 1)?;
        batch_norm(net, y)
    }),
    ("residual block", |net, x| {
        let y = net.conv(x, 4, 3, 1)?;
        let y = batch_norm(net, y)?;
        let y = activate(net, y, Activation::Relu)?;
        let y = net.conv(y, 4, 3, 1)?;
        let y = net.graph.add(Add, &[x, y, x])?;
        activate(net, y, Activation::Relu)
    }),
    ("residual block with batch norm", |net, x| {
        let x = batch_norm(net, x)?;
        let x = activate(net, x, Activation::Relu)?;
        let y = net.conv(x, 4, 3, 1)?;
        let y = batch_norm(net, y)?;
        let y = activate(net, y, Activation::Relu6)?;
        let y = net.conv(y, 4, 3, 1)?;
        let y = batch_norm(net, y)?;
        let y = net.graph.add(Add, &[y, x])?;
        activate(net, y, Activation::Relu)
    }),
    ("residual blocks with projection", |net, x| {
        let y = net.conv(x, 6, 3, 1)?;
        let y = batch_norm(net, y)?;
        let x = net.conv(x, 6, 1, 0)?;
        let x = batch_norm(net, x)?;
        let x = net.graph.add(Add, &[x, y])?;
        let x = activate(net, x, Activation::Relu)?;
        let y = net.conv(x, 6, 3, 1)?;
        let y = batch_norm(net, y)?;
        let y = net.graph.add(Add, &[x, y])?;
        activate(net, y, Activation::Relu6)
    }),
    ("inverted residuals", |net, x| {
        let mut x = batch_norm(net, x)?;
        for _ in 0..2 {
            let y = net.conv(x, 7, 1, 0)?;
            let y = batch_norm(net, y)?;
            let y = activate(net, y, Activation::Relu6)?;
            let w = net.weight(&[3, 3, 1, 7], 0.5);
            let y = net.graph.add(Conv2d { groups: 7, ..conv2d(1) }, &[y, w])?;
            let y = batch_norm(net, y)?;
            let y = activate(net, y, Activation::Relu6)?;
            let y = net.conv(y, 4, 1, 0)?;
            let y = batch_norm(net, y)?;
            x = net.graph.add(Add, &[x, y])?;
        }
        Ok(x)
    }),
    ("depthwise with strides behind batch norms", |net, x| {
        let y = batch_norm(net, x)?;
        let w = net.weight(&[3, 3, 1, 4], 0.5);
        let y = net.graph.add(Conv2d { groups: 4, strides: [2, 2], padding: [0, 1, 1, 0], ..conv2d(0) }, &[y, w])?;
        let y = batch_norm(net, y)?;
        let y = net.graph.add(ZeroPad2d { padding: [1, 2, 2, 3] }, &[y])?;
        let w = net.weight(&[5, 5, 1, 4], 0.5);
        net.graph.add(Conv2d { groups: 4, ..conv2d(0) }, &[y, w])
    }),
    ("batch norm of what is added", |net, x| {
        let y = net.conv(x, 4, 3, 1)?;
        let y = net.graph.add(Add, &[x, y])?;
        batch_norm(net, y)
    }),
    ("batch norm of grouped convolutions without bias", |net, x| {
        let w = net.weight(&[3, 3, 2, 6], 0.5);
        let y = net.graph.add(Conv2d { groups: 2, ..conv2d(1) }, &[x, w])?;
        let y = batch_norm(net, y)?;
        let w = net.weight(&[2, 2, 1, 6], 0.5);
        let y = net.graph.add(Conv2d { groups: 6, strides: [2, 2], ..conv2d(0) }, &[y, w])?;
        batch_norm(net, y)
    }),
    ("addition of two, relu", |net, x| {
        let y = net.conv(x, 4, 3, 1)?;
        let y = net.graph.add(Add, &[y, x])?;
        let y = activate(net, y, Activation::Relu)?;
        net.conv(y, 3, 3, 1)
    }),
    ("concat", |net, x| {
        let y = net.conv(x, 3, 3, 1)?;
        net.graph.add(Concat, &[x, y, x])
    }),
    ("dropout", |net, x| net.graph.add(Dropout { rate: 0.4, key: 5, unit: DropoutUnit::Value }, &[x])),
    ("dense on the last axis", |net, x| {
        let (w, b) = (net.weight(&[4, 5], 0.5), net.weight(&[5], 0.1));
        let y = net.graph.add(Dense { epilogue: Epilogue::Linear }, &[x, w, b])?;
        activate(net, y, Activation::Relu)
    }),
    ("affine", |net, x| net.graph.add(Affine { scale: vec![1.0, 2.0, 0.5, -1.0], offset: vec![0.5] }, &[x])),
    ("layer norm", |net, x| {
        let (gamma, beta) = (net.weight(&[4], 1.0), net.weight(&[4], 0.3));
        net.graph.add(LayerNorm { epsilon: 1e-3 }, &[x, gamma, beta])
    }),
    ("layer scale", |net, x| {
        let scale = net.weight(&[4], 1.0);
        net.graph.add(MultiplyChannels, &[x, scale])
    }),
    ("squeeze and excitation", |net, x| {
        let squeezed = net.graph.add(GlobalAveragePool2d, &[x])?;
        let (w, b) = (net.weight(&[4, 4], 2.0), net.weight(&[4], 0.5));
        let s = net.graph.add(Dense { epilogue: Epilogue::Linear }, &[squeezed, w, b])?;
        let s = activate(net, s, Activation::Sigmoid)?;
        net.graph.add(MultiplyChannels, &[x, s])
    }),
    ("stochastic depth", |net, x| {
        let y = net.conv(x, 4, 3, 1)?;
        let y = net.graph.add(Dropout { rate: 0.4, key: 5, unit: DropoutUnit::Sample }, &[y])?;
        net.graph.add(Add, &[x, y])
    }),
    ("adaptive average pool", |net, x| net.graph.add(AdaptiveAveragePool2d { output: [3, 8] }, &[x])),
    ("attention", |net, x| {
        let x = net.graph.add(Reshape { shape: vec![42, 4] }, &[x])?;
        let (w, b) = (net.weight(&[4, 18], 1.0), net.weight(&[18], 0.1));
        let qkv = net.graph.add(Dense { epilogue: Epilogue::Linear }, &[x, w, b])?;
        net.graph.add(Attention { heads: 2 }, &[qkv])
    }),
    ("class token and positions", |net, x| {
        let x = net.graph.add(Reshape { shape: vec![42, 4] }, &[x])?;
        let (token, positions) = (net.weight(&[4], 1.0), net.weight(&[43, 4], 0.5));
        let x = net.graph.add(PrependRow, &[x, token])?;
        let x = net.graph.add(AddParameter, &[x, positions])?;
        let (w, b) = (net.weight(&[4, 12], 1.0), net.weight(&[12], 0.1));
        let qkv = net.graph.add(Dense { epilogue: Epilogue::Linear }, &[x, w, b])?;
        let y = net.graph.add(Attention { heads: 1 }, &[qkv])?;
        net.graph.add(FirstRow, &[y])
    }),
    ("a parameter used twice", |net, x| {
        let w = net.weight(&[3, 3, 4, 4], 0.3);
        let y = net.graph.add(conv2d(1), &[x, w])?;
        net.graph.add(conv2d(1), &[y, w])
    }),
];

const LOSSES: &[(&str, LossOf)] = &[
    ("softmax cross-entropy", cross_entropy),
    ("cross-entropy on probabilities", |graph, logits, target| {
        let p = graph.add(Softmax, &[logits])?;
        // Read twice, so that it is not fused.
        let doubled = graph.add(Add, &[p, p])?;
        graph.add(CategoricalCrossEntropy::default(), &[doubled, target])
    }),
    ("binary cross-entropy", |graph, logits, target| {
        let p = graph.add(Activate(Activation::Sigmoid), &[logits])?;
        graph.add(BinaryCrossEntropy { label_smoothing: 0.1 }, &[p, target])
    }),
    ("mean squared error", |graph, logits, target| graph.add(MeanSquaredError::default(), &[logits, target])),
];

fn for_all(check: fn(Body<'_>, LossOf)) {
    let cases = BODIES.iter().map(|b| (b.0, b.1, cross_entropy as LossOf));
    for (name, body, loss) in cases.chain(LOSSES.iter().map(|l| (l.0, BODIES[0].1, l.1))) {
        eprintln!("{name}");
        check(&body, loss);
    }
}

#[test]
fn threads_that_share_a_sample_change_no_bit() {
    for (name, body) in BODIES {
        eprintln!("{name}");
        check_shared(body);
    }
}

#[test]
fn gradients_agree_with_differences_of_the_loss() {
    for_all(check_gradient);
}

#[test]
fn every_way_to_run_gives_the_same() {
    for_all(|body, loss| check_ways(body, loss, 1e-4));
}

fn body(name: &str) -> BodyFn {
    BODIES.iter().find(|body| body.0 == name).expect("a body of this name").1
}

#[test]
fn residual_blocks_add_and_rectify_with_their_normalisation() {
    for name in ["residual block with batch norm", "residual blocks with projection", "inverted residuals"] {
        let (net, logits, total) = build(&body(name), cross_entropy);
        let mut fused = fuse(&net.graph, &[logits, total]).unwrap();
        let wrt: Vec<Value> = net.weights.iter().map(|w| fused.value(w.1).unwrap()).collect();
        let total = fused.value(total).unwrap();
        let count =
            |graph: &Graph, names: &[&str]| graph.nodes().iter().filter(|node| names.contains(&node.op.name())).count();
        assert_eq!(count(&fused.graph, &["Add", "AddRectified", "Activate"]), 0, "{name}");
        fused.graph.gradients(total, &wrt).unwrap();
        assert_eq!(count(&fused.graph, &["ActivateBackward"]), 0, "{name}");
    }
}

#[test]
fn batch_norm_is_one_with_the_depthwise_convolution_behind_it() {
    // Those left alone, those together, and the convolutions (one before the body) and zeros besides.
    for (name, want) in
        [("inverted residuals", [5, 2, 5, 0]), ("depthwise with strides behind batch norms", [0, 2, 1, 0])]
    {
        let count = |op: &str| fused_names(name).iter().filter(|name| name.split('+').next() == Some(op)).count();
        assert_eq!(["BatchNorm", "NormalizedDepthwise", "Conv2d", "ZeroPad2d"].map(count), want, "{name}");
    }
}

#[test]
fn convolutions_sum_what_the_batch_norm_behind_them_needs() {
    // Convolutions that do, depthwise ones with the normalisation before them that do, and sums on their own.
    for (name, want) in [
        ("conv, batch norm, relu, twice", [2, 0, 0]),
        ("residual block with batch norm", [3, 0, 0]),
        ("inverted residuals", [5, 2, 0]),
        ("depthwise with strides behind batch norms", [1, 1, 0]),
        ("batch norm of what is added", [0, 0, 1]),
    ] {
        let count = |op: &str| fused_names(name).iter().filter(|name| **name == op).count();
        assert_eq!(["Conv2d+Moments", "NormalizedDepthwise+Moments", "Moments"].map(count), want, "{name}");
    }
}

#[test]
fn the_shift_of_sums_has_no_gradient() {
    let (net, logits, total) = build(&body("batch norm of grouped convolutions without bias"), cross_entropy);
    let shifts = net.graph.nodes().iter().filter(|node| node.op.name() == "Moments").map(|node| node.inputs[1]);
    let mut fused = fuse(&net.graph, &[logits, total]).unwrap();
    let wrt: Vec<Value> = shifts.map(|shift| fused.value(shift).unwrap()).collect();
    let total = fused.value(total).unwrap();
    assert_eq!(fused.graph.gradients(total, &wrt).unwrap(), [None, None]);
}

/// The operations of a body, fused.
fn fused_names(name: &str) -> Vec<&'static str> {
    let (net, logits, total) = build(&body(name), cross_entropy);
    fuse(&net.graph, &[logits, total]).unwrap().graph.nodes().iter().map(|node| node.op.name()).collect()
}

#[test]
fn what_is_computed_again_takes_no_memory() {
    let (net, logits, total) = build(&body("conv, batch norm, relu, twice"), cross_entropy);
    let mut fused = fuse(&net.graph, &[logits, total]).unwrap();
    let wrt: Vec<Value> = net.weights.iter().map(|w| fused.value(w.1).unwrap()).collect();
    let total = fused.value(total).unwrap();
    let gradients = fused.graph.gradients(total, &wrt).unwrap();
    let fetched: Vec<Value> = gradients.into_iter().flatten().chain([total]).collect();
    let memory = |recompute| {
        let options =
            PlanOptions { recompute, slots: Some(1), group: Some(1), ..PlanOptions::new(100, Level::detect()) };
        Plan::new(&fused.graph, &fetched, options).unwrap().memory(1)
    };
    // The pixels and the first normalisation's result: 7x6 pixels of 4 and of 6 channels for each sample.
    assert!(memory(true) + 100 * 42 * (4 + 6) * 4 <= memory(false) + 10_000, "{} and {}", memory(true), memory(false));
}

#[test]
fn images_kept_as_bf16_change_little_and_do_not_depend_on_how_a_plan_runs() {
    let eight: BodyFn = |net, x| {
        let x = net.conv(x, 8, 3, 1)?;
        let x = batch_norm(net, x)?;
        let x = activate(net, x, Activation::Relu)?;
        let y = net.conv(x, 8, 3, 1)?;
        let y = batch_norm(net, y)?;
        let y = activate(net, y, Activation::Relu)?;
        let y = net.conv(y, 8, 3, 1)?;
        let y = batch_norm(net, y)?;
        let y = net.graph.add(Add, &[y, x])?;
        activate(net, y, Activation::Relu)
    };
    for (name, body) in BODIES.iter().copied().chain([("residual block of eight channels", eight)]) {
        eprintln!("{name}");
        check_narrow(&body, cross_entropy, Some(0.05));
    }
}

#[test]
fn images_kept_as_bf16_take_less_memory() {
    let (net, logits, total) = build(&body("conv, batch norm, relu, twice"), cross_entropy);
    let mut fused = fuse(&net.graph, &[logits, total]).unwrap();
    let wrt: Vec<Value> = net.weights.iter().map(|w| fused.value(w.1).unwrap()).collect();
    let total = fused.value(total).unwrap();
    let gradients = fused.graph.gradients(total, &wrt).unwrap();
    let fetched: Vec<Value> = gradients.into_iter().flatten().chain([total]).collect();
    let memory = |narrow| {
        let options = PlanOptions { narrow, slots: Some(1), group: Some(1), ..PlanOptions::new(100, Level::detect()) };
        let options = PlanOptions { precision: Precision::Bf16, ..options };
        Plan::new(&fused.graph, &fetched, options).unwrap().memory(1)
    };
    // Both convolutions' outputs: 7x6 pixels of 6 channels, two bytes less for each.
    assert!(memory(true) + 100 * 42 * 12 * 2 <= memory(false) + 10_000, "{} and {}", memory(true), memory(false));
}

#[test]
fn inference_batch_norm_uses_the_moving_averages() {
    let mut graph = Graph::new();
    let mut parameters = Parameters::new();
    let x = graph.input(&[2, 1, 2], DType::F32);
    let mut add = |name: &str, values: &[f32]| {
        let id = parameters.add(name, &[2], ParameterKind::Statistic, values);
        graph.parameter(id, &[2])
    };
    let (gamma, beta) = (add("gamma", &[2.0, 1.0]), add("beta", &[0.5, 0.0]));
    let (mean, variance) = (add("mean", &[1.0, -1.0]), add("variance", &[4.0, 0.25]));
    let y = batch_norm_inference(&mut graph, x, gamma, beta, mean, variance, 0.0).unwrap();
    let plan = Plan::new(&graph, &[y], PlanOptions::new(1, Level::detect())).unwrap();
    let mut runner = Runner::new(plan, 1);
    let inputs = [Input::F32(&[3.0, 0.0, 1.0, -1.0])];
    runner.run(&mut Pool::new(1), &mut parameters, &inputs, 1, &Scalars::default());
    let mut read = [0.0; 4];
    runner.read(y, &mut read);
    assert_close("y", &read, &[2.5, 2.0, 0.5, 0.0], 1e-6);
}

#[test]
fn folding_batch_norm_into_weights_does_not_change_inference() {
    let relu = |g: &mut Graph, x: Value| g.add(Activate(Activation::Relu), &[x]).unwrap();
    let pool =
        |g: &mut Graph, x: Value| g.add(MaxPool2d { size: [2, 2], strides: [2, 2], padding: [0; 4] }, &[x]).unwrap();
    let residual = |g: &mut Graph, x: Value| {
        let shortcut = g.add(Activate(Activation::Tanh), &[x]).unwrap();
        let y = g.add(Add, &[x, shortcut]).unwrap();
        relu(g, y)
    };
    type Follower<'a> = &'a dyn Fn(&mut Graph, Value) -> Value;
    let followers: [Follower<'_>; 5] =
        [&|_, x| x, &|g, x| relu(g, x), &|g, x| pool(g, x), &|g, x| residual(g, x), &|g, x| {
            let y = relu(g, x);
            pool(g, y)
        }];
    for (bias, centered) in [(false, true), (true, true), (true, false)] {
        for follower in followers {
            let mut graph = Graph::new();
            let mut parameters = Parameters::new();
            let mut add = |graph: &mut Graph, shape: &[usize], low: f32| {
                let values = numbers(shape.iter().product(), 40 + parameters.len() as u32);
                let values: Vec<f32> = values.iter().map(|v| v * 0.5 + low).collect();
                let id = parameters.add(format!("{}", parameters.len()), shape, ParameterKind::Weight, &values);
                graph.parameter(id, shape)
            };
            let x = graph.input(&[6, 5, 3], DType::F32);
            let kernel = add(&mut graph, &[3, 3, 3, 18], 0.0);
            let bias = bias.then(|| add(&mut graph, &[18], 0.0));
            let inputs: Vec<Value> = [x, kernel].into_iter().chain(bias).collect();
            let y = graph.add(conv2d(1), &inputs).unwrap();
            let (mean, variance) = (add(&mut graph, &[18], 0.0), add(&mut graph, &[18], 1.0));
            let gamma = add(&mut graph, &[18], 0.2);
            let beta = match centered {
                true => add(&mut graph, &[18], 0.0),
                false => graph.add(Constant { value: 0.0, shape: vec![18] }, &[]).unwrap(),
            };
            let y = batch_norm_inference(&mut graph, y, gamma, beta, mean, variance, 1e-3).unwrap();
            let y = follower(&mut graph, y);
            let fused = fuse_for_inference(&graph, &[y]).unwrap();
            assert!(fused.graph.nodes().iter().all(|node| node.op.name() != "BatchNorm"));
            let images = numbers(4 * 90, 9);
            let mut infer = |graph: &Graph, y: Value| {
                let plan = Plan::new(graph, &[y], PlanOptions::new(4, Level::detect())).unwrap();
                let mut runner = Runner::new(plan, 1);
                runner.run(&mut Pool::new(1), &mut parameters, &[Input::F32(&images)], 4, &Scalars::default());
                let mut read = vec![0.0; 4 * graph.spec(y).len()];
                runner.read(y, &mut read);
                read
            };
            let want = infer(&graph, y);
            assert_close("folded", &infer(&fused.graph, fused.value(y).unwrap()), &want, 1e-5);
        }
    }
}

#[test]
fn errors_name_the_layer_and_what_was_expected() {
    let mut graph = Graph::new();
    let x = graph.input(&[5, 5, 3], DType::F32);
    let w = graph.parameter(ParameterId(0), &[3, 3, 64, 8]);
    let big = graph.parameter(ParameterId(1), &[7, 3, 3, 8]);
    graph.set_place("conv2");
    let message = |r: Result<Value, GraphError>| r.unwrap_err().to_string();
    assert_eq!(message(graph.add(conv2d(0), &[x, w])), "conv2 (Conv2d): expected 64 input channels, received 3");
    assert!(message(graph.add(conv2d(0), &[x, big])).contains("the kernel's height of 7 is larger than its input's 5"));
    assert!(message(graph.add(Add, &[x])).contains("at least 2 inputs and at most 16, received 1"));
    assert!(message(graph.add(Dropout { rate: 1.0, key: 0, unit: DropoutUnit::Value }, &[x])).contains("received 1"));
    assert_eq!(graph.spec(x), &Spec { role: Role::Sample, shape: vec![5, 5, 3], dtype: DType::F32 });
    assert!(Plan::new(&graph, &[x], PlanOptions::new(1, Level::detect())).is_err());
    assert!(Plan::new(&graph, &[], PlanOptions::new(0, Level::detect())).is_err());
}
