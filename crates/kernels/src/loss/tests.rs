//! Every loss against its formula in double precision, its gradient against central differences.

use super::*;
use crate::testing::{STALE, close, dot, gradient, output, values, wide};

/// Level, classes, smoothing, prediction, target, loss.
type Forward = fn(Level, usize, f32, &[f32], &[f32], &mut [f32]);
/// Level, classes, smoothing, prediction, target, seed, gradient.
type Backward = fn(Level, usize, f32, &[f32], &[f32], &[f32], &mut [f32]);

/// One loss: how it is computed, and what it should be for one sample.
struct Case {
    name: &'static str,
    /// Whether predictions are probabilities (in 0.02..1) or any numbers.
    probabilities: bool,
    forward: Forward,
    backward: Backward,
    exact: fn(f64, &[f64], &[f64]) -> f64,
}

/// The probabilities that the forward pass of a fused loss writes.
fn softmax_of(level: Level, classes: usize, smoothing: f32, x: &[f32], t: &[f32]) -> Vec<f32> {
    let mut loss = vec![STALE; x.len() / classes];
    output(x.len(), STALE, |p| softmax_cross_entropy(level, classes, smoothing, x, t, p, &mut loss))
}

fn sigmoid_of(level: Level, classes: usize, smoothing: f32, x: &[f32], t: &[f32]) -> Vec<f32> {
    let mut loss = vec![STALE; x.len() / classes];
    output(x.len(), STALE, |p| sigmoid_binary_cross_entropy(level, classes, smoothing, x, t, p, &mut loss))
}

fn categorical(smoothing: f64, q: &[f64], t: &[f64]) -> f64 {
    let n = q.len() as f64;
    let sum: f64 = q.iter().sum();
    q.iter()
        .zip(t)
        .map(|(q, t)| -(t * (1.0 - smoothing) + smoothing / n) * (q / sum).clamp(1e-7, 1.0 - 1e-7).ln())
        .sum()
}

fn binary(smoothing: f64, p: &[f64], t: &[f64]) -> f64 {
    let one = |p: f64, t: f64| {
        let (p, t) = (p.clamp(1e-7, 1.0 - 1e-7), t * (1.0 - smoothing) + smoothing / 2.0);
        -t * p.ln() - (1.0 - t) * (1.0 - p).ln()
    };
    p.iter().zip(t).map(|(&p, &t)| one(p, t)).sum::<f64>() / p.len() as f64
}

const CASES: [Case; 5] = [
    Case {
        name: "softmax_cross_entropy",
        probabilities: false,
        forward: |level, classes, s, x, t, loss| {
            let mut p = vec![STALE; x.len()];
            softmax_cross_entropy(level, classes, s, x, t, &mut p, loss);
        },
        backward: |level, classes, s, x, t, seed, dx| {
            softmax_cross_entropy_backward(level, classes, s, &softmax_of(level, classes, s, x, t), t, seed, dx);
        },
        exact: |s, x, t| categorical(s, &crate::softmax::tests::exact(x), t),
    },
    Case {
        name: "categorical_cross_entropy",
        probabilities: true,
        forward: categorical_cross_entropy,
        backward: categorical_cross_entropy_backward,
        exact: categorical,
    },
    Case {
        name: "sigmoid_binary_cross_entropy",
        probabilities: false,
        forward: |level, classes, s, x, t, loss| {
            let mut p = vec![STALE; x.len()];
            sigmoid_binary_cross_entropy(level, classes, s, x, t, &mut p, loss);
        },
        backward: |level, classes, s, x, t, seed, dx| {
            sigmoid_binary_cross_entropy_backward(level, classes, s, &sigmoid_of(level, classes, s, x, t), t, seed, dx);
        },
        exact: |s, x, t| binary(s, &x.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect::<Vec<_>>(), t),
    },
    Case {
        name: "binary_cross_entropy",
        probabilities: true,
        forward: binary_cross_entropy,
        backward: binary_cross_entropy_backward,
        exact: binary,
    },
    Case {
        name: "mean_squared_error",
        probabilities: false,
        forward: |level, classes, _, x, t, loss| mean_squared_error(level, classes, x, t, loss),
        backward: |level, classes, _, x, t, seed, dx| mean_squared_error_backward(level, classes, x, t, seed, dx),
        exact: |_, x, t| x.iter().zip(t).map(|(x, t)| (x - t).powi(2)).sum::<f64>() / x.len() as f64,
    },
];

#[test]
fn losses_and_gradients_match_the_formulas() {
    const SAMPLES: usize = 4;
    for level in Level::available() {
        for classes in [1usize, 2, 3, 7, 8, 10, 15, 16, 17, 33, 100] {
            for smoothing in [0.0f32, 0.2] {
                for Case { name, probabilities, forward, backward, exact } in &CASES {
                    let len = SAMPLES * classes;
                    let what = (level, name, classes, smoothing);
                    let mut x = values(len, 1);
                    if *probabilities {
                        x.iter_mut().for_each(|x| *x = (*x + 3.2) / 6.5);
                    }
                    // Samples 0 and 1 are one-hot, the others mixed, none of which need sum to 1.
                    let mut t: Vec<f32> = values(len, 2).iter().map(|t| (t + 3.0) / 7.0).collect();
                    for i in 0..2 * classes {
                        t[i] = f32::from(u8::from(i == 0 || i == 2 * classes - 1));
                    }
                    let seed = values(SAMPLES, 3);
                    let samples = || x.chunks(classes).zip(t.chunks(classes));
                    let want: Vec<f64> =
                        samples().map(|(x, t)| exact(f64::from(smoothing), &wide(x), &wide(t))).collect();
                    let loss = output(SAMPLES, STALE, |loss| forward(level, classes, smoothing, &x, &t, loss));
                    close(what, &loss, &want, 40.0, 1.0);
                    let want: Vec<f64> = samples()
                        .zip(&seed)
                        .flat_map(|((x, t), &seed)| {
                            gradient(|x| dot(&[exact(f64::from(smoothing), x, &wide(t))], &[f64::from(seed)]), &wide(x))
                        })
                        .collect();
                    let dx = output(len, STALE, |dx| backward(level, classes, smoothing, &x, &t, &seed, dx));
                    close(what, &dx, &want, 40.0, 1.0);
                }
            }
        }
    }
}

#[test]
fn certain_predictions_give_finite_losses() {
    for level in Level::available() {
        let (wrong, right) = ([0.0f32, 1.0], [1.0f32, 0.0]);
        let target = [1.0f32, 0.0];
        for p in [wrong, right] {
            for Case { name, forward, backward, .. } in &CASES {
                let x = if name.starts_with('s') { p.map(|p| (p - 0.5) * 2000.0) } else { p };
                let loss = output(1, STALE, |loss| forward(level, 2, 0.0, &x, &target, loss));
                let dx = output(2, STALE, |dx| backward(level, 2, 0.0, &x, &target, &[1.0], dx));
                assert!(
                    loss[0].is_finite() && loss[0] >= 0.0 && dx.iter().all(|d| d.is_finite()),
                    "{name} {loss:?} {dx:?}"
                );
            }
        }
    }
}
