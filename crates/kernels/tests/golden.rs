//! Optimizer steps, losses and their gradients against numbers that Keras computed: see reference/golden.py.

use ocellus_kernels::update::{self, Rule, Step};
use ocellus_kernels::{Level, Pool, loss};

struct Golden(Vec<(&'static str, Vec<f32>)>);

impl Golden {
    fn read() -> Self {
        let parse = |line: &'static str| {
            let (name, numbers) = line.split_once(' ').expect("a name and numbers");
            (name, numbers.split(' ').map(|n| n.parse().expect("a number")).collect())
        };
        Golden(include_str!("reference/golden.txt").lines().map(parse).collect())
    }

    fn get(&self, name: &str) -> &[f32] {
        &self.0.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no {name} in golden.txt")).1
    }
}

#[track_caller]
fn close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * w.abs().max(1.0), "{what} at {i}: {g} instead of {w}");
    }
}

#[test]
fn optimizers_step_as_keras_does() {
    let adam = Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, weight_decay: 0.0, amsgrad: false };
    let sgd = Rule::Sgd { momentum: 0.0, nesterov: false };
    let rules = [
        ("sgd", 0.1, sgd),
        ("momentum", 0.1, Rule::Sgd { momentum: 0.9, nesterov: false }),
        ("nesterov", 0.1, Rule::Sgd { momentum: 0.9, nesterov: true }),
        ("rmsprop", 0.01, Rule::RmsProp { rho: 0.9, momentum: 0.0, epsilon: 1e-7, centered: false }),
        ("rmsprop_all", 0.01, Rule::RmsProp { rho: 0.8, momentum: 0.5, epsilon: 1e-3, centered: true }),
        ("adagrad", 0.01, Rule::Adagrad { epsilon: 1e-7 }),
        ("adam", 0.01, adam),
        (
            "adam_amsgrad",
            0.01,
            Rule::Adam { beta_1: 0.8, beta_2: 0.6, epsilon: 1e-3, weight_decay: 0.0, amsgrad: true },
        ),
        ("adamw", 0.01, Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, weight_decay: 0.1, amsgrad: false }),
        ("sgd_clipvalue", 0.1, sgd),
        ("sgd_clipnorm", 0.1, sgd),
    ];
    let golden = Golden::read();
    let mut pool = Pool::new(1);
    for level in Level::available() {
        for (name, learning_rate, rule) in rules {
            let mut parameter = golden.get("start").to_vec();
            let mut state: Vec<Vec<f32>> =
                (0..rule.state_count()).map(|k| vec![rule.state_initial(k); parameter.len()]).collect();
            for number in 0..5u64 {
                let gradient = golden.get(&format!("gradient{number}"));
                let clip_value = (name == "sgd_clipvalue").then_some(0.5);
                let mut step = Step {
                    learning_rate,
                    step: number + 1,
                    gradient_scale: 1.0,
                    clip_value,
                    l1: 0.0,
                    l2: 0.0,
                    decay: 0.0,
                };
                if name == "sgd_clipnorm" {
                    let sum = update::gradient_square_sum(&mut pool, level, &step, &[gradient], &parameter);
                    step.gradient_scale = (0.5 / sum.sqrt().max(0.5)) as f32;
                }
                let mut arrays = state.iter_mut().map(Vec::as_mut_slice);
                let arrays = [arrays.next(), arrays.next(), arrays.next()];
                update::apply(
                    &mut pool,
                    level,
                    rule,
                    &step,
                    &[gradient],
                    &mut parameter,
                    arrays,
                    &mut [],
                    Default::default(),
                );
                close(&format!("{level:?} {name}{number}"), &parameter, golden.get(&format!("{name}{number}")), 2e-6);
            }
        }
    }
}

/// Writes losses, probabilities (where the loss makes them) and gradients.
type Run<'a> = &'a mut dyn FnMut(&mut [f32], &mut [f32], &mut [f32]);

#[test]
fn losses_and_gradients_are_those_of_keras() {
    let golden = Golden::read();
    let (logits, probabilities) = (golden.get("logits"), golden.get("probabilities"));
    let (target, seed) = (golden.get("target"), golden.get("seed"));
    let samples = seed.len();
    let classes = target.len() / samples;
    let (mut values, mut p, mut gradient) = (vec![0.0; samples], vec![0.0; target.len()], vec![0.0; target.len()]);
    for level in Level::available() {
        for (smoothing, label) in [(0.0, "0.0"), (0.1, "0.1")] {
            let mut check = |name: &str, run: Run<'_>, samples: usize| {
                run(&mut values, &mut p, &mut gradient);
                let want = |what: &str| golden.get(&format!("{name}/{label}/{what}"));
                close(&format!("{level:?} {name}"), &values, want("loss"), 4e-6);
                let count = samples * classes;
                // Where clipped probabilities are near zero, gradients are large.
                close(&format!("{level:?} {name} gradient"), &gradient[..count], &want("gradient")[..count], 4e-6);
            };
            // TensorFlow's gradient of this one takes every target to sum to 1; those of the last two samples do not.
            check(
                "softmax_cross_entropy",
                &mut |values, p, gradient| {
                    loss::softmax_cross_entropy(level, classes, smoothing, logits, target, p, values);
                    loss::softmax_cross_entropy_backward(level, classes, smoothing, p, target, seed, gradient);
                },
                samples - 2,
            );
            check(
                "categorical_cross_entropy",
                &mut |values, _, gradient| {
                    loss::categorical_cross_entropy(level, classes, smoothing, probabilities, target, values);
                    loss::categorical_cross_entropy_backward(
                        level,
                        classes,
                        smoothing,
                        probabilities,
                        target,
                        seed,
                        gradient,
                    );
                },
                samples,
            );
            check(
                "sigmoid_binary_cross_entropy",
                &mut |values, p, gradient| {
                    loss::sigmoid_binary_cross_entropy(level, classes, smoothing, logits, target, p, values);
                    loss::sigmoid_binary_cross_entropy_backward(level, classes, smoothing, p, target, seed, gradient);
                },
                samples,
            );
            check(
                "binary_cross_entropy",
                &mut |values, _, gradient| {
                    loss::binary_cross_entropy(level, classes, smoothing, probabilities, target, values);
                    loss::binary_cross_entropy_backward(
                        level,
                        classes,
                        smoothing,
                        probabilities,
                        target,
                        seed,
                        gradient,
                    );
                },
                samples,
            );
            check(
                "mean_squared_error",
                &mut |values, _, gradient| {
                    loss::mean_squared_error(level, classes, logits, target, values);
                    loss::mean_squared_error_backward(level, classes, logits, target, seed, gradient);
                },
                samples,
            );
        }
    }
}
