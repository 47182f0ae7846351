//! Losses, one for each sample: targets and predictions are `[samples][classes]`, losses and seeds `[samples]`.
//!
//! A seed is the derivative of the total by that sample's loss (its weight over the sum of weights, for a weighted
//! mean). Definitions, label smoothing and clipping are Keras'.

use crate::isa::{Isa, Kernel, Level};
use crate::math;
use crate::softmax;

/// Keras' `epsilon`: probabilities are clipped to `[EPSILON, 1 - EPSILON]` before their logarithm is taken.
const EPSILON: f32 = 1e-7;

fn check(classes: usize, values: &[&[f32]], per_sample: usize) {
    for values in values {
        softmax::check(classes, values.len());
        assert_eq!(values.len() / classes, per_sample, "one loss or seed for each sample");
    }
}

/// The target after smoothing towards `centre`.
#[derive(Clone, Copy)]
struct Smoothing {
    keep: f32,
    add: f32,
}

impl Smoothing {
    /// Towards the uniform distribution.
    fn categorical(label_smoothing: f32, classes: usize) -> Self {
        Smoothing { keep: 1.0 - label_smoothing, add: label_smoothing / classes as f32 }
    }
    /// Towards one half.
    fn binary(label_smoothing: f32) -> Self {
        Smoothing { keep: 1.0 - label_smoothing, add: 0.5 * label_smoothing }
    }
    #[inline(always)]
    fn of(self, target: f32) -> f32 {
        target * self.keep + self.add
    }
}

/// `loss = Σ t (log Σ e^x - x)`, the cross-entropy of the softmax of the logits, which is written to `probabilities`.
pub fn softmax_cross_entropy(
    level: Level,
    classes: usize,
    label_smoothing: f32,
    logits: &[f32],
    target: &[f32],
    probabilities: &mut [f32],
    loss: &mut [f32],
) {
    check(classes, &[logits, target, probabilities], loss.len());
    let smoothing = Smoothing::categorical(label_smoothing, classes);
    level.dispatch(SoftmaxCrossEntropy { classes, smoothing, logits, target, probabilities, loss });
}

struct SoftmaxCrossEntropy<'a> {
    classes: usize,
    smoothing: Smoothing,
    logits: &'a [f32],
    target: &'a [f32],
    probabilities: &'a mut [f32],
    loss: &'a mut [f32],
}

impl Kernel for SoftmaxCrossEntropy<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (i, loss) in self.loss.iter_mut().enumerate() {
            let range = i * self.classes..(i + 1) * self.classes;
            let logits = &self.logits[range.clone()];
            let (largest, sum) = softmax::sample(isa, logits, &mut self.probabilities[range.clone()]);
            let log_sum = sum.ln();
            let mut total = 0.0f32;
            for (&x, &t) in logits.iter().zip(&self.target[range]) {
                // Differences first: a large common offset of the logits then cancels exactly.
                total += self.smoothing.of(t) * (log_sum - (x - largest));
            }
            *loss = total;
        }
    }
}

/// `dlogits = seed (p Σt - t)`
pub fn softmax_cross_entropy_backward(
    level: Level,
    classes: usize,
    label_smoothing: f32,
    probabilities: &[f32],
    target: &[f32],
    seed: &[f32],
    dlogits: &mut [f32],
) {
    check(classes, &[probabilities, target, dlogits], seed.len());
    let smoothing = Smoothing::categorical(label_smoothing, classes);
    level.dispatch(Rows(
        |i: usize, d: &mut [f32]| {
            let range = i * classes..(i + 1) * classes;
            let (p, t) = (&probabilities[range.clone()], &target[range]);
            let sum: f32 = t.iter().map(|&t| smoothing.of(t)).sum();
            for ((d, &p), &t) in d.iter_mut().zip(p).zip(t) {
                *d = seed[i] * (sum * p - smoothing.of(t));
            }
        },
        dlogits,
        classes,
    ));
}

/// A plain loop over samples, compiled for the level.
struct Rows<'a, F: FnMut(usize, &mut [f32])>(F, &'a mut [f32], usize);

impl<F: FnMut(usize, &mut [f32])> Kernel for Rows<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, _: I) {
        for (i, row) in self.1.chunks_exact_mut(self.2).enumerate() {
            (self.0)(i, row);
        }
    }
}

/// `loss = -Σ t log q`, where `q` is `probabilities` over their sum, clipped.
pub fn categorical_cross_entropy(
    level: Level,
    classes: usize,
    label_smoothing: f32,
    probabilities: &[f32],
    target: &[f32],
    loss: &mut [f32],
) {
    check(classes, &[probabilities, target], loss.len());
    let smoothing = Smoothing::categorical(label_smoothing, classes);
    level.dispatch(Rows(
        |i: usize, loss: &mut [f32]| {
            let range = i * classes..(i + 1) * classes;
            let (p, t) = (&probabilities[range.clone()], &target[range]);
            let sum: f32 = p.iter().sum();
            let mut total = 0.0f32;
            for (&p, &t) in p.iter().zip(t) {
                total -= smoothing.of(t) * (p / sum).clamp(EPSILON, 1.0 - EPSILON).ln();
            }
            loss[0] = total;
        },
        loss,
        1,
    ));
}

/// The gradient of [`categorical_cross_entropy`] by the probabilities; none flows through what was clipped.
pub fn categorical_cross_entropy_backward(
    level: Level,
    classes: usize,
    label_smoothing: f32,
    probabilities: &[f32],
    target: &[f32],
    seed: &[f32],
    dprobabilities: &mut [f32],
) {
    check(classes, &[probabilities, target, dprobabilities], seed.len());
    let smoothing = Smoothing::categorical(label_smoothing, classes);
    level.dispatch(Rows(
        |i: usize, d: &mut [f32]| {
            let range = i * classes..(i + 1) * classes;
            let (p, t) = (&probabilities[range.clone()], &target[range]);
            let sum: f32 = p.iter().sum();
            // By q first, then through q = p / Σp: dp = (dq - Σ q dq) / Σp.
            let mut dot = 0.0f32;
            for ((d, &p), &t) in d.iter_mut().zip(p).zip(t) {
                let q = p / sum;
                *d = if (EPSILON..=1.0 - EPSILON).contains(&q) { -smoothing.of(t) / q } else { 0.0 };
                dot += q * *d;
            }
            for d in d {
                *d = seed[i] * (*d - dot) / sum;
            }
        },
        dprobabilities,
        classes,
    ));
}

/// `loss = mean over classes of -t log p - (1 - t) log(1 - p)` with `p = sigmoid(logits)`, written to `probabilities`.
pub fn sigmoid_binary_cross_entropy(
    level: Level,
    classes: usize,
    label_smoothing: f32,
    logits: &[f32],
    target: &[f32],
    probabilities: &mut [f32],
    loss: &mut [f32],
) {
    check(classes, &[logits, target, probabilities], loss.len());
    let smoothing = Smoothing::binary(label_smoothing);
    crate::map::map(level, Sigmoid, [logits], probabilities);
    level.dispatch(Rows(
        |i: usize, loss: &mut [f32]| {
            let range = i * classes..(i + 1) * classes;
            let mut total = 0.0f32;
            for (&x, &t) in logits[range.clone()].iter().zip(&target[range]) {
                // max(x, 0) - x t + log(1 + e^-|x|), which neither overflows nor cancels.
                total += x.max(0.0) - x * smoothing.of(t) + (-x.abs()).exp().ln_1p();
            }
            loss[0] = total / classes as f32;
        },
        loss,
        1,
    ));
}

#[derive(Clone, Copy)]
struct Sigmoid;

impl crate::map::Map<1> for Sigmoid {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        math::sigmoid(isa, x)
    }
}

/// `dlogits = seed (p - t) / classes`
pub fn sigmoid_binary_cross_entropy_backward(
    level: Level,
    classes: usize,
    label_smoothing: f32,
    probabilities: &[f32],
    target: &[f32],
    seed: &[f32],
    dlogits: &mut [f32],
) {
    check(classes, &[probabilities, target, dlogits], seed.len());
    let smoothing = Smoothing::binary(label_smoothing);
    level.dispatch(Rows(
        |i: usize, d: &mut [f32]| {
            let range = i * classes..(i + 1) * classes;
            let scale = seed[i] / classes as f32;
            for ((d, &p), &t) in d.iter_mut().zip(&probabilities[range.clone()]).zip(&target[range]) {
                *d = scale * (p - smoothing.of(t));
            }
        },
        dlogits,
        classes,
    ));
}

/// `loss = mean over classes of -t log p - (1 - t) log(1 - p)`, with `p` clipped.
pub fn binary_cross_entropy(
    level: Level,
    classes: usize,
    label_smoothing: f32,
    probabilities: &[f32],
    target: &[f32],
    loss: &mut [f32],
) {
    check(classes, &[probabilities, target], loss.len());
    let smoothing = Smoothing::binary(label_smoothing);
    level.dispatch(Rows(
        |i: usize, loss: &mut [f32]| {
            let range = i * classes..(i + 1) * classes;
            let mut total = 0.0f32;
            for (&p, &t) in probabilities[range.clone()].iter().zip(&target[range]) {
                let (p, t) = (p.clamp(EPSILON, 1.0 - EPSILON), smoothing.of(t));
                total -= t * p.ln() + (1.0 - t) * (1.0 - p).ln();
            }
            loss[0] = total / classes as f32;
        },
        loss,
        1,
    ));
}

/// The gradient of [`binary_cross_entropy`] by the probabilities; none flows through what was clipped.
pub fn binary_cross_entropy_backward(
    level: Level,
    classes: usize,
    label_smoothing: f32,
    probabilities: &[f32],
    target: &[f32],
    seed: &[f32],
    dprobabilities: &mut [f32],
) {
    check(classes, &[probabilities, target, dprobabilities], seed.len());
    let smoothing = Smoothing::binary(label_smoothing);
    level.dispatch(Rows(
        |i: usize, d: &mut [f32]| {
            let range = i * classes..(i + 1) * classes;
            let scale = seed[i] / classes as f32;
            for ((d, &p), &t) in d.iter_mut().zip(&probabilities[range.clone()]).zip(&target[range]) {
                let inside = (EPSILON..=1.0 - EPSILON).contains(&p);
                *d = if inside { scale * (p - smoothing.of(t)) / (p * (1.0 - p)) } else { 0.0 };
            }
        },
        dprobabilities,
        classes,
    ));
}

/// `loss = mean over classes of (prediction - target)²`
pub fn mean_squared_error(level: Level, classes: usize, prediction: &[f32], target: &[f32], loss: &mut [f32]) {
    check(classes, &[prediction, target], loss.len());
    level.dispatch(Rows(
        |i: usize, loss: &mut [f32]| {
            let range = i * classes..(i + 1) * classes;
            let mut total = 0.0f32;
            for (&y, &t) in prediction[range.clone()].iter().zip(&target[range]) {
                total += (y - t) * (y - t);
            }
            loss[0] = total / classes as f32;
        },
        loss,
        1,
    ));
}

/// `dprediction = 2 seed (prediction - target) / classes`
pub fn mean_squared_error_backward(
    level: Level,
    classes: usize,
    prediction: &[f32],
    target: &[f32],
    seed: &[f32],
    dprediction: &mut [f32],
) {
    check(classes, &[prediction, target, dprediction], seed.len());
    level.dispatch(Rows(
        |i: usize, d: &mut [f32]| {
            let range = i * classes..(i + 1) * classes;
            let scale = 2.0 * seed[i] / classes as f32;
            for ((d, &y), &t) in d.iter_mut().zip(&prediction[range.clone()]).zip(&target[range]) {
                *d = scale * (y - t);
            }
        },
        dprediction,
        classes,
    ));
}

#[cfg(test)]
mod tests;
