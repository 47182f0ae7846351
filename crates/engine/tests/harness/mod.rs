//! A small trained net around any operations, and every way to run it.

use ocellus_engine::ops::*;
use ocellus_engine::{
    DType, Graph, GraphError, Input, Level, Outcome, ParameterId, ParameterKind, Parameters, Plan, PlanOptions, Pool,
    Precision, Runner, Scalars, Value, fuse,
};

pub(crate) const BATCH: usize = 6;
pub(crate) const CLASSES: usize = 3;
const IMAGE: [usize; 3] = [7, 6, 4];

/// Numbers in `-1..1` that look random and are the same everywhere.
pub(crate) fn numbers(count: usize, key: u32) -> Vec<f32> {
    let hash = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(key.wrapping_mul(0x9e37_79b9));
    let scramble = |h: u32| (h ^ h >> 15).wrapping_mul(0x2c1b_3c6d) ^ h >> 13;
    (0..count).map(|i| (scramble(hash(i + 1)) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A net under construction.
pub(crate) struct Net {
    pub(crate) graph: Graph,
    pub(crate) parameters: Parameters,
    pub(crate) weights: Vec<(ParameterId, Value)>,
    /// Statistics that follow a value.
    pub(crate) averages: Vec<(ParameterId, Value)>,
}

impl Net {
    pub(crate) fn weight(&mut self, shape: &[usize], scale: f32) -> Value {
        let key = self.parameters.len() as u32;
        let values: Vec<f32> = numbers(shape.iter().product(), 17 + key).iter().map(|v| v * scale).collect();
        let id = self.parameters.add(format!("w{key}"), shape, ParameterKind::Weight, &values);
        let value = self.graph.parameter(id, shape);
        self.weights.push((id, value));
        value
    }

    pub(crate) fn statistic(&mut self, channels: usize, value: f32) -> (ParameterId, Value) {
        let name = format!("s{}", self.parameters.len());
        let id = self.parameters.add(name, &[channels], ParameterKind::Statistic, &vec![value; channels]);
        (id, self.graph.parameter(id, &[channels]))
    }

    pub(crate) fn average(&mut self, statistic: ParameterId, value: Value) {
        self.graph.moving_average(statistic, value, 0.99);
        self.averages.push((statistic, value));
    }

    pub(crate) fn conv(
        &mut self,
        x: Value,
        filters: usize,
        kernel: usize,
        padding: usize,
    ) -> Result<Value, GraphError> {
        let channels = self.graph.spec(x).channels();
        let fan_in = (kernel * kernel * channels) as f32;
        let w = self.weight(&[kernel, kernel, channels, filters], 2.0 / fan_in.sqrt());
        let b = self.weight(&[filters], 0.2);
        self.graph.add(conv2d(padding), &[x, w, b])
    }
}

pub(crate) fn conv2d(padding: usize) -> Conv2d {
    Conv2d { strides: [1, 1], padding: [padding; 4], dilation: [1, 1], groups: 1, epilogue: Epilogue::Linear }
}

pub(crate) type Body<'a> = &'a dyn Fn(&mut Net, Value) -> Result<Value, GraphError>;
pub(crate) type LossOf = fn(&mut Graph, Value, Value) -> Result<Value, GraphError>;

pub(crate) fn cross_entropy(graph: &mut Graph, logits: Value, target: Value) -> Result<Value, GraphError> {
    let probabilities = graph.add(Softmax, &[logits])?;
    graph.add(CategoricalCrossEntropy { label_smoothing: 0.1 }, &[probabilities, target])
}

/// The image goes through a 1x1 convolution with weights (so that the body's own data gradient is needed), the body, and
/// a dense layer into the loss.
pub(crate) fn build(body: Body<'_>, loss: LossOf) -> (Net, Value, Value) {
    let mut net = Net { graph: Graph::new(), parameters: Parameters::new(), weights: Vec::new(), averages: Vec::new() };
    let image = net.graph.input(&IMAGE, DType::U8);
    let target = net.graph.input(&[CLASSES], DType::F32);
    let weight = net.graph.input(&[1], DType::F32);
    let x = net.graph.add(Affine { scale: vec![1.0 / 128.0], offset: vec![-1.0] }, &[image]).unwrap();
    let x = net.conv(x, 4, 1, 0).unwrap();
    let y = body(&mut net, x).unwrap();
    let features = net.graph.spec(y).len();
    let flat = net.graph.add(Reshape { shape: vec![features] }, &[y]).unwrap();
    let w = net.weight(&[features, CLASSES], 2.0 / (features as f32).sqrt());
    let b = net.weight(&[CLASSES], 0.1);
    let logits = net.graph.add(Dense { epilogue: Epilogue::Linear }, &[flat, w, b]).unwrap();
    let losses = loss(&mut net.graph, logits, target).unwrap();
    let total = net.graph.weighted_mean(losses, weight).unwrap();
    (net, logits, total)
}

/// One way to run a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) level: Level,
    pub(crate) fused: bool,
    pub(crate) share_memory: bool,
    pub(crate) recompute: bool,
    pub(crate) group_bytes: usize,
    pub(crate) slots: Option<usize>,
    pub(crate) group: Option<usize>,
    pub(crate) threads: usize,
    pub(crate) precision: Precision,
    pub(crate) narrow: bool,
}

pub(crate) struct Results {
    pub(crate) total: f32,
    pub(crate) logits: Vec<f32>,
    pub(crate) gradients: Vec<Vec<f32>>,
}

pub(crate) fn batch_inputs() -> (Vec<u8>, Vec<f32>, Vec<f32>) {
    let pixels =
        numbers(BATCH * IMAGE.iter().product::<usize>(), 3).iter().map(|v| (v * 127.0 + 128.0) as u8).collect();
    let targets = (0..BATCH * CLASSES).map(|i| if i % CLASSES == i / CLASSES % CLASSES { 1.0 } else { 0.0 }).collect();
    let weights = (0..BATCH).map(|i| 0.5 + 0.25 * i as f32).collect();
    (pixels, targets, weights)
}

pub(crate) fn run(net: &Net, logits: Value, total: Value, way: Way) -> Results {
    let wrt: Vec<Value> = net.weights.iter().map(|w| w.1).collect();
    let (mut graph, logits, total, wrt) = if way.fused {
        let fused = fuse(&net.graph, &[logits, total]).unwrap();
        let of = |v: Value| fused.value(v).unwrap();
        let wrt: Vec<Value> = wrt.into_iter().map(of).collect();
        (fused.graph.clone(), of(logits), of(total), wrt)
    } else {
        (net.graph.clone(), logits, total, wrt)
    };
    let gradients: Vec<Value> = graph.gradients(total, &wrt).unwrap().into_iter().flatten().collect();
    let fetched: Vec<Value> = [logits, total].into_iter().chain(gradients.iter().copied()).collect();
    let options = PlanOptions {
        slots: way.slots,
        group: way.group,
        share_memory: way.share_memory,
        recompute: way.recompute,
        group_bytes: way.group_bytes,
        precision: way.precision,
        narrow: way.narrow,
        ..PlanOptions::new(BATCH + 2, way.level)
    };
    let plan = Plan::new(&graph, &fetched, options).unwrap();
    let mut pool = Pool::new(way.threads);
    let mut runner = Runner::new(plan, pool.threads());
    let mut parameters = net.parameters.clone();
    let (pixels, targets, weights) = batch_inputs();
    let inputs = [Input::U8(&pixels), Input::F32(&targets), Input::F32(&weights)];
    let mut results = None;
    // Twice, so that nothing left in memory by the first run may matter.
    for _ in 0..2 {
        let outcome = runner.run(&mut pool, &mut parameters, &inputs, BATCH, &Scalars::default());
        assert_eq!(outcome, Outcome::Done);
        let mut read = vec![0.0; BATCH * CLASSES];
        runner.read(logits, &mut read);
        let gradients = gradients.iter().map(|&g| runner.sum(g).to_vec()).collect();
        results = Some(Results { total: runner.sum(total)[0], logits: read, gradients });
    }
    results.unwrap()
}

pub(crate) fn plain() -> Way {
    Way {
        level: Level::detect(),
        fused: false,
        share_memory: false,
        recompute: false,
        group_bytes: 1 << 20,
        slots: Some(1),
        group: None,
        threads: 1,
        precision: Precision::F32,
        narrow: true,
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

pub(crate) fn assert_close(name: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_close_to(name, got, want, tolerance, 1e-2);
}

/// `least` is the scale of values that are zero but for rounding, as a bias' gradient before batch normalisation.
fn assert_close_to(name: &str, got: &[f32], want: &[f32], tolerance: f32, least: f32) {
    assert_eq!(got.len(), want.len(), "{name}");
    let scale = largest(want).max(least);
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "{name}[{i}]: {g} instead of {w}");
    }
}

/// Runs the net in every way. `rounding` is how far gradients may differ, relative to the largest of a parameter.
pub(crate) fn check_ways(body: Body<'_>, loss: LossOf, rounding: f32) {
    let (net, logits, total) = build(body, loss);
    let reference = run(&net, logits, total, plain());
    let least = 100.0 * rounding * reference.gradients.iter().map(|g| largest(g)).fold(1.0, f32::max);
    for level in Level::available() {
        let base = Way { level, ..plain() };
        let ways = [
            base,
            Way { share_memory: true, ..base },
            Way { fused: true, share_memory: true, ..base },
            Way { recompute: true, group: Some(2), ..base },
            Way { fused: true, recompute: true, share_memory: true, slots: Some(2), ..base },
            // So little that single samples are cut into bands.
            Way { fused: true, recompute: true, share_memory: true, group_bytes: 1 << 10, ..base },
            Way { slots: Some(3), group: Some(1), share_memory: true, ..base },
            Way { slots: Some(4), fused: true, share_memory: true, threads: 3, ..base },
        ];
        for way in ways {
            let results = run(&net, logits, total, way);
            let name = format!("{way:?}");
            assert_close(&name, &[results.total], &[reference.total], 2e-5);
            assert_close(&name, &results.logits, &reference.logits, 2e-5);
            for (got, want) in results.gradients.iter().zip(&reference.gradients) {
                assert_close_to(&name, got, want, rounding, least);
            }
            let again = run(&net, logits, total, Way { threads: way.threads % 4 + 1, ..way });
            assert_eq!(results.logits, again.logits, "{name}: another number of threads");
            assert_eq!(results.gradients, again.gradients, "{name}: another number of threads");
        }
    }
}

/// In bf16, keeping images as that changes results by little more than rounding factors does; where images lie in memory,
/// and threads, change nothing. `rounding` is how far values may differ at least, relative to the largest; `None` of deep nets, which
/// amplify rounding without bound.
pub(crate) fn check_narrow(body: Body<'_>, loss: LossOf, rounding: Option<f32>) {
    let (net, logits, total) = build(body, loss);
    for level in Level::available() {
        let way = Way { level, fused: true, recompute: true, slots: Some(2), precision: Precision::Bf16, ..plain() };
        let single = run(&net, logits, total, Way { precision: Precision::F32, ..way });
        let wide = run(&net, logits, total, Way { narrow: false, ..way });
        let results = run(&net, logits, total, way);
        let name = format!("{way:?}");
        let near = |got: &Results, want: &Results| {
            let Some(rounding) = rounding else { return };
            let all = [(&got.logits, &want.logits, &single.logits, &wide.logits)].into_iter();
            let gradients = (0..got.gradients.len())
                .map(|n| (&got.gradients[n], &want.gradients[n], &single.gradients[n], &wide.gradients[n]));
            let least = wide.gradients.iter().map(|g| largest(g)).fold(1e-6, f32::max);
            for (got, want, single, wide) in all.chain(gradients) {
                let rounded: Vec<f32> = wide.iter().zip(single).map(|(a, b)| a - b).collect();
                let most = rounding * largest(want).max(least) + 5.0 * largest(&rounded);
                for (i, (g, w)) in got.iter().zip(want).enumerate() {
                    assert!((g - w).abs() <= most, "{name}[{i}]: {g} instead of {w}, within {most}");
                }
            }
        };
        near(&results, &wide);
        for other in [Way { share_memory: true, ..way }, Way { threads: 3, share_memory: true, ..way }] {
            let other = run(&net, logits, total, other);
            assert_eq!(results.logits, other.logits, "{name}");
            assert_eq!(results.gradients, other.gradients, "{name}");
        }
        // Bands and groups of other sizes add in another order.
        for (group_bytes, group) in [(1 << 10, Some(1)), (way.group_bytes, Some(2))] {
            let other = Way { group_bytes, group, ..way };
            let apart = run(&net, logits, total, other);
            near(&apart, &results);
            let shared = run(&net, logits, total, Way { share_memory: true, ..other });
            assert_eq!(apart.logits, shared.logits, "{other:?}");
            assert_eq!(apart.gradients, shared.gradients, "{other:?}");
        }
    }
}

pub(crate) fn batch_norm(net: &mut Net, x: Value) -> Result<Value, GraphError> {
    let channels = net.graph.spec(x).channels();
    let (gamma, beta) = (net.weight(&[channels], 1.0), net.weight(&[channels], 0.3));
    let (mean_id, mean) = net.statistic(channels, 0.1);
    let (variance_id, _) = net.statistic(channels, 1.0);
    let (y, batch_mean, batch_variance) = batch_norm_training(&mut net.graph, x, gamma, beta, mean, 1e-3)?;
    net.average(mean_id, batch_mean);
    net.average(variance_id, batch_variance);
    Ok(y)
}

pub(crate) fn activate(net: &mut Net, x: Value, activation: Activation) -> Result<Value, GraphError> {
    net.graph.add(Activate(activation), &[x])
}

/// The logits of a batch of some samples without loss and gradients, in a plan for so many threads that shares even the
/// shortest step.
fn infer(net: &Net, logits: Value, samples: usize, threads: usize, slots: Option<usize>) -> Vec<f32> {
    let options = PlanOptions { threads, slots, share_above: 0, ..PlanOptions::new(samples, Level::detect()) };
    let fused = fuse(&net.graph, &[logits]).unwrap();
    let logits = fused.value(logits).unwrap();
    let plan = Plan::new(&fused.graph, &[logits], options).unwrap();
    let mut pool = Pool::new(threads);
    let mut runner = Runner::new(plan, threads);
    let (pixels, targets, weights) = batch_inputs();
    let image: usize = IMAGE.iter().product();
    let pixels = pixels.repeat(2);
    let (targets, weights) = (targets.repeat(2), weights.repeat(2));
    let inputs = [
        Input::U8(&pixels[..samples * image]),
        Input::F32(&targets[..samples * CLASSES]),
        Input::F32(&weights[..samples]),
    ];
    let mut read = vec![0.0; samples * CLASSES];
    for _ in 0..2 {
        runner.run(&mut pool, &mut net.parameters.clone(), &inputs, samples, &Scalars::default());
        runner.read(logits, &mut read);
    }
    read
}

/// Threads, and how an inference plan is cut for them, change no bit. Operations that sum over the batch need a fixed cut.
pub(crate) fn check_shared(body: Body<'_>) {
    let (net, logits, _) = build(body, cross_entropy);
    let sums = net.graph.nodes().iter().any(|node| node.op.name() == "Moments");
    for samples in [1, 2, 3, 7] {
        let slots = |n: Option<usize>| if sums { Some(1) } else { n };
        let want = infer(&net, logits, samples, 1, Some(1));
        for threads in 1..=5 {
            for slots in [slots(None), slots(Some(2))] {
                let got = infer(&net, logits, samples, threads, slots);
                let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&got), bits(&want), "{samples} samples, {threads} threads, {slots:?} slots");
            }
        }
    }
}
