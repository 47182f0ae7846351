//! The nets of `reference/`, held against PyTorch and Keras: outputs, every gradient, ten losses, moving statistics.

use super::graph::{Basis, Forward, add_loss};
use super::{Architecture, FitOptions, Model};
use crate::golden::Golden;
use crate::losses::Loss;
use crate::optimizers::Optimizer;
use ocellus_engine::{DType, Input, Level, Plan, PlanOptions, Pool, Runner, Scalars, Value, fuse};
use serde::Deserialize;
use std::collections::HashMap;

const BATCH: usize = 8;
const STRIDE: usize = 37;
/// Relative to a tensor's largest magnitude.
const TOLERANCE: f64 = 1e-4;
/// A loss changes little in a step, so that a mistake in the updates shows only in small differences.
const LOSS_TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Net {
    #[serde(flatten)]
    architecture: Architecture,
    parameters: HashMap<String, Formula>,
    optimizers: HashMap<String, Optimizer>,
}

#[derive(Deserialize)]
struct Formula {
    index: u32,
    shape: Vec<usize>,
    offset: f64,
    scale: f64,
}

/// Wellons' lowbias32.
fn hash32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

fn bits(key: u32, i: u32) -> u32 {
    hash32(i.wrapping_add(hash32(key)))
}

impl Formula {
    fn values(&self) -> Vec<f32> {
        let unit = |i: u32| f64::from(bits(self.index, i)) / 4_294_967_296.0 * 2.0 - 1.0;
        (0..self.shape.iter().product::<usize>() as u32).map(|i| (self.offset + self.scale * unit(i)) as f32).collect()
    }
}

struct Case {
    golden: Golden,
    net: Net,
    name: String,
}

impl Case {
    fn read(name: &str) -> Self {
        let golden = Golden::read(name);
        Case { net: golden.metadata("net"), golden, name: name.into() }
    }

    fn model(&self) -> Model {
        let mut model = Model::from_architecture(self.net.architecture.clone(), 0).unwrap();
        for (name, formula) in &self.net.parameters {
            model.set_weight(name, &formula.values()).unwrap();
        }
        model
    }

    fn images(&self) -> Vec<f32> {
        let length = BATCH * self.net.architecture.input_shape.iter().product::<usize>();
        (0..length as u32).map(|i| (bits(1000, i) >> 24) as f32 / 255.0).collect()
    }

    fn labels(&self) -> Vec<u32> {
        (0..BATCH as u32).map(|n| (7 * n + 3) % 10).collect()
    }

    /// Compares a tensor with the golden one, which is whole or sampled.
    fn compare(&self, what: &str, found: &[f32]) {
        let close = |found: f64, expected: f64, scale: f64, of: &str| {
            let difference = (found - expected).abs() / scale.max(1e-30);
            let name = &self.name;
            assert!(difference <= TOLERANCE, "{name}: {what}{of}: {found}, not {expected} ({difference:.1e})");
        };
        let compare_all = |found: &mut dyn Iterator<Item = f32>, expected: &[f32], of: &str| {
            let scale = expected.iter().fold(0.0f64, |max, v| max.max(f64::from(v.abs())));
            for &expected in expected {
                let found = found.next().expect("as many values as the golden file has");
                close(f64::from(found), f64::from(expected), scale, of);
            }
            assert!(found.next().is_none(), "{what}: more values than expected");
        };
        if let Some(expected) = self.golden.find(what) {
            return compare_all(&mut found.iter().copied(), expected, "");
        }
        let sampled = self.golden.tensor(&format!("{what}/sample"));
        compare_all(&mut found.iter().copied().step_by(STRIDE), &sampled, "/sample");
        let expected = |of: &str| f64::from(self.golden.tensor(&format!("{what}/{of}"))[0]);
        let squares = found.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        close(squares, expected("sum_of_squares"), expected("sum_of_squares"), "/sum_of_squares");
        let sum = found.iter().map(|&v| f64::from(v)).sum::<f64>();
        let scale = (found.len() as f64 * expected("sum_of_squares")).sqrt();
        close(sum, expected("sum"), scale, "/sum");
    }

    /// One step in training: loss, every layer's output, every gradient. Where fused, only what stays.
    fn step(&self, fused: bool) {
        let model = self.model();
        let Forward { mut graph, input, outputs, parameters, .. } = {
            let learning = model.learning(&model.groups(&[]).unwrap(), 0);
            model.forward_of(Basis::default(), DType::F32, Some(&learning)).unwrap()
        };
        let loss = Loss::categorical_cross_entropy();
        let (losses, predictions, weight) = add_loss(&mut graph, &loss, outputs[outputs.len() - 1]).unwrap();
        let total = graph.weighted_mean(losses, weight).unwrap();
        let names = parameters.iter().map(|(id, _)| model.parameters.get(*id).name.clone());
        let wrt: Vec<(String, Value)> = names
            .zip(parameters.iter().map(|p| p.1))
            .filter(|(name, _)| !name.contains("/moving_"))
            .chain([("input".to_owned(), input)])
            .collect();
        let mut of: Box<dyn Fn(Value) -> Option<Value>> = Box::new(Some);
        if fused {
            let kept: Vec<Value> = wrt.iter().map(|w| w.1).chain([total, predictions]).collect();
            let rewritten = fuse(&graph, &kept).unwrap();
            graph = rewritten.graph.clone();
            of = Box::new(move |value| rewritten.value(value));
        }
        let values: Vec<Value> = wrt.iter().map(|(_, value)| of(*value).unwrap()).collect();
        let (total, predictions) = (of(total).unwrap(), of(predictions).unwrap());
        let gradients: Vec<Value> = graph.gradients(total, &values).unwrap().into_iter().map(Option::unwrap).collect();
        let layers: Vec<(&str, Value)> = (self.net.architecture.layers.iter().zip(&outputs))
            .filter_map(|(config, &value)| Some((config.name.as_str(), of(value)?)))
            .filter(|_| !fused)
            .collect();
        let fetched =
            [total, predictions].into_iter().chain(gradients.iter().copied()).chain(layers.iter().map(|l| l.1));
        let plan = Plan::new(&graph, &fetched.collect::<Vec<_>>(), PlanOptions::new(BATCH, Level::detect())).unwrap();
        let mut runner = Runner::new(plan, 1);
        let (images, labels) = (self.images(), self.labels());
        self.compare("input", &images);
        let mut targets = vec![0.0; BATCH * 10];
        labels.iter().enumerate().for_each(|(n, &label)| targets[10 * n + label as usize] = 1.0);
        let inputs = [Input::F32(&images), Input::F32(&targets), Input::F32(&[1.0; BATCH])];
        let mut store = model.parameters.clone();
        runner.run(&mut Pool::new(1), &mut store, &inputs, BATCH, &Scalars::default());
        let read = |value: Value, graph: &ocellus_engine::Graph| {
            let mut values = vec![0.0; BATCH * graph.spec(value).len()];
            runner.read(value, &mut values);
            values
        };
        self.compare("loss", runner.sum(total));
        self.compare("probabilities", &read(predictions, &graph));
        for ((name, _), &gradient) in wrt.iter().zip(&gradients) {
            let what = format!("gradient/{name}");
            if name == "input" {
                self.compare(&what, &read(gradient, &graph));
            } else {
                self.compare(&what, runner.sum(gradient));
            }
        }
        for (name, value) in layers {
            self.compare(&format!("output/{name}"), &read(value, &graph));
        }
    }

    /// Ten steps on the same batch, through `fit`.
    fn train(&self, optimizer: &str) {
        let mut model = self.model();
        let (images, labels) = (self.images(), self.labels());
        model.compile(self.net.optimizers[optimizer].clone(), Loss::categorical_cross_entropy(), ()).unwrap();
        let options = FitOptions::new().epochs(10).batch_size(BATCH).shuffle(false).threads(2);
        let history = model.fit((&images, &labels), options).unwrap();
        let expected = self.golden.tensor(&format!("{optimizer}/losses"));
        for (step, (&found, expected)) in history.get("loss").unwrap().iter().zip(expected).enumerate() {
            let difference = (found / f64::from(expected) - 1.0).abs();
            let name = &self.name;
            assert!(difference <= LOSS_TOLERANCE, "{name}: {optimizer}, loss {step}: {found}, not {expected}");
        }
        let probabilities = model.predict(&images).unwrap();
        self.compare(&format!("{optimizer}/inference/probabilities"), probabilities.values());
        for (name, _, values) in model.weights().filter(|(name, _, _)| name.contains("/moving_")) {
            self.compare(&format!("{optimizer}/{name}"), values);
        }
    }
}

fn check(name: &str) {
    for framework in ["torch", "keras"] {
        let case = Case::read(&format!("{name}_{framework}"));
        case.compare("inference/probabilities", case.model().predict(&case.images()).unwrap().values());
        case.step(false);
        case.step(true);
        case.train("sgd");
        case.train("adam");
    }
}

#[test]
fn the_reference_net() {
    check("reference");
}

#[test]
fn a_net_with_strides_same_padding_dilation_and_groups() {
    check("varied");
}

#[test]
fn a_residual_net_with_batch_normalisation() {
    check("residual");
}
