//! Steps of a training: updates, and several batches that move the parameters together.

#[allow(dead_code, reason = "the rest of it is for the other tests")]
mod harness;

use harness::{
    BATCH, Body, CLASSES, Net, activate, assert_close, batch_inputs, batch_norm, build, conv2d, cross_entropy,
};
use ocellus_engine::ops::*;
use ocellus_engine::{
    Clip, DType, Graph, GraphError, Input, Level, Outcome, ParameterKind, Parameters, Plan, PlanOptions, Pool,
    Precision, Rule, Runner, Scalars, Update, Value, fuse_for_training,
};

const ADAM: Rule = Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, weight_decay: 0.0, amsgrad: false };
const SGD: Rule = Rule::Sgd { momentum: 0.0, nesterov: false };

/// A convolution, ReLU and a max-pool.
fn convolution(net: &mut Net, x: Value) -> Result<Value, GraphError> {
    let y = net.conv(x, 20, 3, 0)?;
    let y = activate(net, y, Activation::Relu)?;
    net.graph.add(MaxPool2d { size: [2, 2], strides: [2, 2], padding: [0; 4] }, &[y])
}

/// A net whose weights all learn by this rule, and its total loss.
fn learner(body: Body<'_>, rule: Rule, clip: Clip) -> (Net, Value) {
    let (mut net, _, total) = build(body, cross_entropy);
    teach(&mut net, total, rule, |_| true);
    net.graph.set_clip(clip);
    (net, total)
}

/// Lets those of the net's weights learn.
fn teach(net: &mut Net, total: Value, rule: Rule, learns: impl Fn(usize) -> bool) {
    let taught: Vec<_> = (0..net.weights.len()).filter(|&n| learns(n)).map(|n| net.weights[n]).collect();
    let wrt: Vec<Value> = taught.iter().map(|w| w.1).collect();
    let gradients = net.graph.gradients(total, &wrt).unwrap();
    for (&(parameter, _), gradient) in taught.iter().zip(gradients) {
        let shape = net.parameters.get(parameter).shape.clone();
        let zeros = vec![0.0; shape.iter().product()];
        let state = (0..rule.state_count()).map(|i| {
            let name = format!("{parameter:?}/{i}");
            net.parameters.add(name, &shape, ParameterKind::OptimizerState, &zeros)
        });
        let state = state.collect();
        net.graph.update(Update {
            parameter,
            gradient: gradient.unwrap(),
            rule,
            state,
            l1: 1e-4,
            l2: 1e-4,
            learning_rate: 1.0,
            decay: 0.0,
        });
    }
}

fn runner(net: &Net, total: Value, threads: usize) -> Runner {
    let options = PlanOptions { guard: Some(total), slots: Some(3), ..PlanOptions::new(BATCH, Level::detect()) };
    Runner::new(Plan::new(&net.graph, &[total], options).unwrap(), threads)
}

fn all_values(parameters: &Parameters) -> Vec<Vec<f32>> {
    parameters.iter().map(|(_, p)| p.values().to_vec()).collect()
}

const CLIPS: [Clip; 4] = {
    let none = Clip { value: None, norm: None, global_norm: None };
    [
        none,
        Clip { value: Some(0.05), ..none },
        Clip { norm: Some(0.1), ..none },
        Clip { global_norm: Some(0.1), ..none },
    ]
};

#[test]
fn updates_lower_the_loss_and_do_not_depend_on_threads() {
    let train = |threads: usize, clip: Clip| {
        let (mut net, total) = learner(&convolution, ADAM, clip);
        let (mut pool, mut runner) = (Pool::new(threads), runner(&net, total, threads));
        let (pixels, targets, weights) = batch_inputs();
        let inputs = [Input::U8(&pixels), Input::F32(&targets), Input::F32(&weights)];
        let mut losses = Vec::new();
        for step in 1..=30 {
            let scalars = Scalars { step, seed: 7, learning_rate: 0.01, ..Scalars::default() };
            assert_eq!(runner.run(&mut pool, &mut net.parameters, &inputs, BATCH, &scalars), Outcome::Done);
            losses.push(runner.sum(total)[0]);
        }
        (losses, all_values(&net.parameters))
    };
    for clip in CLIPS {
        let (losses, weights) = train(1, clip);
        assert!(losses[29] < losses[0] * 0.7, "{clip:?}: {losses:?}");
        for threads in 2..=4 {
            let (_, others) = train(threads, clip);
            assert!(weights == others, "{clip:?}: {threads} threads");
        }
    }
}

#[test]
fn batches_that_move_the_parameters_together_are_one_large_batch() {
    let (pixels, targets, weights) = batch_inputs();
    let image = pixels.len() / BATCH;
    let train = |threads: usize, clip: Clip, parts: usize| {
        let (mut net, total) = learner(&convolution, SGD, clip);
        let (mut pool, mut runner) = (Pool::new(threads), runner(&net, total, threads));
        let each = BATCH / parts;
        for step in 1..=4 {
            for part in 0..parts {
                let samples = part * each..(part + 1) * each;
                let inputs = [
                    Input::U8(&pixels[samples.start * image..samples.end * image]),
                    Input::F32(&targets[samples.start * CLASSES..samples.end * CLASSES]),
                    Input::F32(&weights[samples]),
                ];
                let before = all_values(&net.parameters);
                let scalars = Scalars { step, learning_rate: 0.1, part, parts, ..Scalars::default() };
                assert_eq!(runner.run(&mut pool, &mut net.parameters, &inputs, each, &scalars), Outcome::Done);
                let moved = all_values(&net.parameters) != before;
                assert_eq!(moved, part + 1 == parts, "{clip:?}: part {part} of {parts}");
            }
        }
        all_values(&net.parameters)
    };
    for clip in CLIPS {
        let want = train(1, clip, 1);
        for parts in [2, 3, 6] {
            let got = train(1, clip, parts);
            for (got, want) in got.iter().zip(&want) {
                assert_close(&format!("{clip:?}: {parts} parts"), got, want, 1e-5);
            }
            assert!(train(3, clip, parts) == got, "{clip:?}: {parts} parts on 3 threads");
        }
    }
}

#[test]
fn each_part_of_a_step_leaves_out_other_values_and_samples() {
    let samples = 64;
    let ones = vec![1.0; samples];
    for unit in [DropoutUnit::Value, DropoutUnit::Sample] {
        let mut graph = Graph::new();
        let x = graph.input(&[1], DType::F32);
        let y = graph.add(Dropout { rate: 0.5, key: 3, unit }, &[x]).unwrap();
        let plan = Plan::new(&graph, &[y], PlanOptions::new(samples, Level::detect())).unwrap();
        let mut runner = Runner::new(plan, 1);
        let mut mask = |step, part, parts| {
            let scalars = Scalars { step, part, parts, ..Scalars::default() };
            runner.run(&mut Pool::new(1), &mut Parameters::new(), &[Input::F32(&ones)], samples, &scalars);
            let mut mask = vec![0.0; samples];
            runner.read(y, &mut mask);
            mask
        };
        let masks = [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)].map(|(step, part)| mask(step, part, 3));
        for (n, a) in masks.iter().enumerate() {
            for b in &masks[n + 1..] {
                let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
                // Six standard deviations.
                assert!(same.abs_diff(samples / 2) <= 24, "{same} of {samples} are the same in two parts");
            }
        }
        assert_eq!(mask(1, 0, 1), masks[0], "the first part is as a step without parts");
    }
}

#[test]
fn a_loss_that_is_not_finite_changes_nothing() {
    let (mut net, total) = learner(&convolution, SGD, Clip::default());
    let mut runner = runner(&net, total, 1);
    let (pixels, targets, mut weights) = batch_inputs();
    weights[3] = f32::NAN;
    let inputs = [Input::U8(&pixels), Input::F32(&targets), Input::F32(&weights)];
    let before = all_values(&net.parameters);
    let scalars = Scalars { learning_rate: 0.1, ..Scalars::default() };
    let outcome = runner.run(&mut Pool::new(1), &mut net.parameters, &inputs, BATCH, &scalars);
    assert_eq!(outcome, Outcome::NotFinite);
    assert_eq!(all_values(&net.parameters), before);
}

/// Weights that are packed by parts of their rows, or as a whole, or too small for more than one thread.
fn filtered(net: &mut Net, x: Value) -> Result<Value, GraphError> {
    let y = net.conv(x, 40, 1, 0)?;
    let y = batch_norm(net, y)?;
    let y = activate(net, y, Activation::Relu)?;
    let y = net.conv(y, 48, 3, 1)?;
    let y = activate(net, y, Activation::Tanh)?;
    let depthwise = net.weight(&[3, 3, 1, 48], 0.5);
    let y = net.graph.add(Conv2d { groups: 48, ..conv2d(1) }, &[y, depthwise])?;
    let y = net.conv(y, 50, 3, 1)?;
    let y = activate(net, y, Activation::Relu)?;
    net.graph.add(MaxPool2d { size: [2, 2], strides: [2, 2], padding: [0; 4] }, &[y])
}

/// One kernel read by more convolutions than an update packs for.
fn repeated(net: &mut Net, x: Value) -> Result<Value, GraphError> {
    let mut y = net.conv(x, 40, 1, 0)?;
    let kernel = net.weight(&[3, 3, 40, 40], 0.05);
    for _ in 0..3 {
        y = net.graph.add(conv2d(1), &[y, kernel])?;
        y = activate(net, y, Activation::Tanh)?;
    }
    let pointwise = net.graph.add(Reshape { shape: vec![1, 1, 120, 120] }, &[kernel])?;
    let y = net.graph.add(Concat, &[y, y, y])?;
    net.graph.add(conv2d(0), &[y, pointwise])
}

/// Kernels that are not learned: one that follows the batches' means, and one that is computed from parameters.
fn followed(net: &mut Net, x: Value) -> Result<Value, GraphError> {
    let (id, mean) = net.statistic(4, 0.1);
    let (_, variance) = net.statistic(4, 1.0);
    let (gamma, beta) = (net.statistic(4, 0.9).1, net.statistic(4, 0.2).1);
    let kernel = net.statistic(9 * 4 * 4, 0.05).1;
    let kernel = net.graph.add(Reshape { shape: vec![3, 3, 4, 4] }, &[kernel])?;
    let y = net.graph.add(conv2d(1), &[x, kernel])?;
    let y = batch_norm_inference(&mut net.graph, y, gamma, beta, mean, variance, 1e-3)?;
    let (z, batch_mean, _) = batch_norm_training(&mut net.graph, x, gamma, beta, mean, 1e-3)?;
    net.average(id, batch_mean);
    let kernel = net.graph.add(Reshape { shape: vec![1, 1, 4, 1] }, &[mean])?;
    let z = net.graph.add(conv2d(0), &[z, kernel])?;
    let y = net.graph.add(Concat, &[x, y, z])?;
    net.conv(y, 300, 1, 0)
}

/// A training: what is trained, and how.
#[derive(Clone, Copy)]
struct Training<'a> {
    body: Body<'a>,
    learns: fn(usize) -> bool,
    rule: Rule,
    precision: Precision,
    threads: usize,
    /// Batches for a step.
    parts: usize,
}

/// Six steps, between some of which there is all that may come between: parameters that others change, runs of another plan, a loss that is not finite. Losses and
/// parameters after each; with a runner that has packed nothing yet for each step, or one for all.
fn train(training: Training<'_>, anew: bool) -> Vec<Vec<f32>> {
    let Training { body, learns, rule, precision, threads, parts } = training;
    let (mut net, _, total) = build(body, cross_entropy);
    let learned: Vec<Value> = net.weights.iter().enumerate().filter(|&(n, _)| learns(n)).map(|(_, w)| w.1).collect();
    let kept: Vec<Value> = net.averages.iter().map(|average| average.1).chain([total]).collect();
    let fused = fuse_for_training(&net.graph, &kept, &learned).unwrap();
    net.graph = fused.graph.clone();
    net.averages.iter().for_each(|&(id, value)| net.graph.moving_average(id, fused.value(value).unwrap(), 0.5));
    net.weights.iter_mut().for_each(|weight| weight.1 = fused.value(weight.1).unwrap_or(weight.1));
    let total = fused.value(total).unwrap();
    let evaluated = net.graph.clone();
    teach(&mut net, total, rule, learns);
    let new_runner = |graph: &Graph| {
        let level = Level::detect();
        let options = PlanOptions { guard: Some(total), slots: Some(3), precision, ..PlanOptions::new(BATCH, level) };
        Runner::new(Plan::new(graph, &[total], options).unwrap(), threads)
    };
    let (mut runner, mut evaluation) = (new_runner(&net.graph), new_runner(&evaluated));
    let (pixels, targets, weights) = batch_inputs();
    let (mut pool, mut results) = (Pool::new(threads), Vec::new());
    for step in 1..=6 {
        if anew {
            (runner, evaluation) = (new_runner(&net.graph), new_runner(&evaluated));
        }
        for part in 0..parts {
            let scalars = Scalars { step, learning_rate: 0.01, part, parts, ..Scalars::default() };
            let inputs = [Input::U8(&pixels), Input::F32(&targets), Input::F32(&weights)];
            assert_eq!(runner.run(&mut pool, &mut net.parameters, &inputs, BATCH, &scalars), Outcome::Done);
            results.push(runner.sum(total).to_vec());
        }
        match step {
            1 => {
                let (id, _) = net.weights[net.weights.len() / 2];
                net.parameters.values_mut(id).iter_mut().for_each(|v| *v *= 0.75);
            }
            2 => {
                let bad = [Input::U8(&pixels), Input::F32(&targets), Input::F32(&[f32::NAN; BATCH])];
                let outcome = runner.run(&mut pool, &mut net.parameters, &bad, BATCH, &Scalars::default());
                assert_eq!(outcome, Outcome::NotFinite);
            }
            _ => {}
        }
        if step == 2 || step == 3 {
            let inputs = [Input::U8(&pixels), Input::F32(&targets), Input::F32(&weights)];
            evaluation.run(&mut pool, &mut net.parameters, &inputs, BATCH, &Scalars::default());
            results.push(evaluation.sum(total).to_vec());
        }
        results.extend(all_values(&net.parameters));
    }
    results
}

#[test]
fn what_updates_have_packed_is_what_is_packed_anew() {
    let lamb = Rule::Lamb { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, weight_decay: 0.01 };
    let bodies: [(&str, Body<'_>); 4] =
        [("convolution", &convolution), ("filtered", &filtered), ("repeated", &repeated), ("followed", &followed)];
    let learns: [fn(usize) -> bool; 2] = [|_| true, |n| n % 3 != 2];
    for (name, body) in bodies {
        let plain = Training { body, learns: learns[0], rule: ADAM, precision: Precision::F32, threads: 1, parts: 1 };
        let ways = [
            plain,
            Training { rule: lamb, ..plain },
            Training { precision: Precision::Bf16, ..plain },
            Training { learns: learns[1], parts: 2, ..plain },
        ];
        for (n, way) in ways.into_iter().enumerate() {
            let want = train(way, true);
            for threads in 1..=3 {
                let got = train(Training { threads, ..way }, false);
                assert!(got == want, "{name}, way {n}, {threads} threads");
            }
        }
    }
}
