//! Times a training step of the reference net, step by step: `cargo run --release -p ocellus-engine --example step_lab [batch] [threads] [level] [slots]`.

#![allow(clippy::print_stdout, reason = "a program that prints what it measures")]

use ocellus_engine::ops::*;
use ocellus_engine::{
    DType, Graph, Input, Level, ParameterKind, Parameters, Plan, PlanOptions, Pool, Rule, Runner, Scalars, Update,
    Value, fuse,
};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (batch, threads) = (number(0, 32), number(1, 2));
    let level = args.get(2).map_or(Ok(Level::detect()), |name| Level::named(name))?;

    let mut parameters = Parameters::new();
    let mut graph = Graph::new();
    let mut weights = Vec::new();
    let mut weight = |graph: &mut Graph, shape: &[usize]| -> Value {
        let len: usize = shape.iter().product();
        let fan = (len / shape[shape.len() - 1]).max(1) as f32;
        let values: Vec<f32> = (0..len).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) / fan.sqrt()).collect();
        let name = format!("w{}", parameters.len());
        let id = parameters.add(
            name,
            shape,
            ParameterKind::Weight,
            if shape.len() == 1 { vec![0.0; len] } else { values }.as_slice(),
        );
        let value = graph.parameter(id, shape);
        weights.push((id, value));
        value
    };
    let image = graph.input(&[28, 28, 1], DType::U8);
    let target = graph.input(&[10], DType::F32);
    let sample_weight = graph.input(&[1], DType::F32);
    let mut x = graph.add(Affine { scale: vec![1.0 / 255.0], offset: vec![0.0] }, &[image])?;
    for (channels, filters) in [(1, 32), (32, 64)] {
        let (w, b) = (weight(&mut graph, &[3, 3, channels, filters]), weight(&mut graph, &[filters]));
        let conv = Conv2d { strides: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1, epilogue: Epilogue::Linear };
        x = graph.add(conv, &[x, w, b])?;
        x = graph.add(Activate(Activation::Relu), &[x])?;
        x = graph.add(MaxPool2d { size: [2, 2], strides: [2, 2], padding: [0; 4] }, &[x])?;
    }
    x = graph.add(Reshape { shape: vec![1600] }, &[x])?;
    let (w, b) = (weight(&mut graph, &[1600, 64]), weight(&mut graph, &[64]));
    x = graph.add(Dense { epilogue: Epilogue::Linear }, &[x, w, b])?;
    x = graph.add(Activate(Activation::Relu), &[x])?;
    let (w, b) = (weight(&mut graph, &[64, 10]), weight(&mut graph, &[10]));
    x = graph.add(Dense { epilogue: Epilogue::Linear }, &[x, w, b])?;
    let p = graph.add(Softmax, &[x])?;
    let loss = graph.add(CategoricalCrossEntropy::default(), &[p, target])?;
    let total = graph.weighted_mean(loss, sample_weight)?;

    let fused = fuse(&graph, &[p, total])?;
    let mut graph = fused.graph.clone();
    let of = |v: Value| fused.value(v).expect("kept");
    let (p, total) = (of(p), of(total));
    let wrt: Vec<Value> = weights.iter().map(|w| of(w.1)).collect();
    let gradients = graph.gradients(total, &wrt)?;
    let rule = Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, weight_decay: 0.0, amsgrad: false };
    for (&(parameter, _), gradient) in weights.iter().zip(gradients) {
        let shape = parameters.get(parameter).shape.clone();
        let zeros = vec![0.0; shape.iter().product()];
        let state = (0..2)
            .map(|i| parameters.add(format!("{parameter:?}/{i}"), &shape, ParameterKind::OptimizerState, &zeros))
            .collect();
        graph.update(Update { parameter, gradient: gradient.expect("it depends"), rule, state, l1: 0.0, l2: 0.0 });
    }
    let plan = Plan::new(
        &graph,
        &[total, p],
        PlanOptions {
            guard: Some(total),
            slots: args.get(3).and_then(|a| a.parse().ok()),
            ..PlanOptions::new(batch, level)
        },
    )?;
    println!("{plan}");
    let mut pool = Pool::new(threads);
    let mut runner = Runner::new(plan, pool.threads());
    let pixels: Vec<u8> = (0..batch * 784).map(|i| ((i * 2_654_435_761) >> 13) as u8).collect();
    let targets: Vec<f32> = (0..batch * 10).map(|i| if i % 10 == i / 10 * 7 % 10 { 1.0 } else { 0.0 }).collect();
    let ones = vec![1.0; batch];
    let inputs = [Input::U8(&pixels), Input::F32(&targets), Input::F32(&ones)];
    let mut times = Vec::new();
    let steps = 20_000 / batch;
    for step in 1..=steps as u64 {
        if step == steps as u64 / 2 {
            runner.set_profile(true);
        }
        let start = Instant::now();
        runner.run(&mut pool, &mut parameters, &inputs, batch, &Scalars { step, seed: 1, learning_rate: 1e-3 });
        times.push(start.elapsed().as_secs_f64());
    }
    let profiled = steps - steps / 2 + 1;
    for time in runner.profile() {
        let us = time.time.as_secs_f64() * 1e6 / (profiled * batch) as f64;
        println!("{:<28} {us:8.2} us/sample {:8.1} GFLOP/s", time.op, time.flops as f64 / us / 1e3);
    }
    let half = &mut times[steps / 4..steps / 2];
    half.sort_by(f64::total_cmp);
    println!(
        "loss {:.4}, median step {:.1} us, {:.0} samples/s",
        runner.sum(total)[0],
        half[half.len() / 2] * 1e6,
        batch as f64 / half[half.len() / 2]
    );
    Ok(())
}
