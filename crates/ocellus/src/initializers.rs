//! How weights begin.

use crate::random::{Purpose, Random};
use serde::{Deserialize, Serialize};

/// A rule for the first values of a parameter; definitions and defaults are Keras'.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initializer {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// All the same.
    Constant(f32),
    /// Uniform in `±sqrt(6 / (fan_in + fan_out))`.
    ///
    /// Glorot and Bengio, *Understanding the difficulty of training deep feedforward neural networks*, 2010.
    GlorotUniform,
    /// Truncated normal with variance `2 / (fan_in + fan_out)`.
    GlorotNormal,
    /// Uniform in `±sqrt(6 / fan_in)`.
    ///
    /// He et al., *Delving deep into rectifiers*, 2015.
    HeUniform,
    /// Truncated normal with variance `2 / fan_in`.
    HeNormal,
    /// Normal with mean 0.
    RandomNormal {
        /// Standard deviation; Keras' default is 0.05.
        stddev: f32,
    },
    /// Uniform in `±limit`.
    RandomUniform {
        /// The largest magnitude; Keras' default is 0.05.
        limit: f32,
    },
    /// For kernels of convolutions: the first filters hand on one input channel each, as it is, and the others are uniform in
    /// `±sqrt(1 / fan_in)`. So information passes a deep network from the first step on.
    ///
    /// Zagoruyko and Komodakis, *DiracNets*, 2017; in part as here: Jordan, *94% on CIFAR-10 in 3.29 seconds on a single
    /// GPU*, 2024.
    PartialIdentity,
}

/// The standard deviation of a normal number redrawn until it lies within two standard deviations.
const TRUNCATED_DEVIATION: f32 = 0.879_625_6;

impl Initializer {
    /// The first values of the parameter of this name and shape: always the same ones for the same seed, whatever other
    /// parameters there are.
    pub fn values(&self, shape: &[usize], seed: u64, name: &str) -> Vec<f32> {
        let mut random = Random::new(seed, Purpose::Initialise, name_key(name), 0);
        let (fan_in, fan_out) = fans(shape);
        let (glorot, he) = (2.0 / (fan_in + fan_out), 2.0 / fan_in);
        let mut draw: Box<dyn FnMut() -> f32> = match *self {
            Self::Zeros => Box::new(|| 0.0),
            Self::Ones => Box::new(|| 1.0),
            Self::Constant(value) => Box::new(move || value),
            Self::GlorotUniform => uniform(&mut random, (3.0 * glorot).sqrt()),
            Self::HeUniform => uniform(&mut random, (3.0 * he).sqrt()),
            Self::RandomUniform { limit } => uniform(&mut random, limit),
            Self::GlorotNormal => truncated_normal(&mut random, glorot.sqrt()),
            Self::HeNormal => truncated_normal(&mut random, he.sqrt()),
            Self::RandomNormal { stddev } => Box::new(move || stddev * random.normal()),
            Self::PartialIdentity => uniform(&mut random, fan_in.recip().sqrt()),
        };
        let mut values: Vec<f32> = (0..shape.iter().product()).map(|_| draw()).collect();
        if *self == Self::PartialIdentity {
            drop(draw);
            identify(shape, &mut values);
        }
        values
    }
}

/// Makes the first filters of a kernel (height, width, inputs, filters) the identity of one input each.
fn identify(shape: &[usize], values: &mut [f32]) {
    let &[height, width, inputs, filters] = shape else { return };
    let same = inputs.min(filters);
    let middle = height / 2 * width + width / 2;
    for (number, row) in values.chunks_exact_mut(filters).enumerate() {
        row[..same].fill(0.0);
        let input = number % inputs;
        if number / inputs == middle && input < same {
            row[input] = 1.0;
        }
    }
}

fn uniform<'a>(random: &'a mut Random, limit: f32) -> Box<dyn FnMut() -> f32 + 'a> {
    Box::new(move || random.uniform_in(-limit, limit))
}

fn truncated_normal<'a>(random: &'a mut Random, deviation: f32) -> Box<dyn FnMut() -> f32 + 'a> {
    Box::new(move || deviation / TRUNCATED_DEVIATION * random.truncated_normal())
}

/// How many inputs feed an output and how many outputs an input feeds: the last two axes times the window.
fn fans(shape: &[usize]) -> (f32, f32) {
    let at_least_one = |n: usize| n.max(1) as f32;
    match *shape {
        [] => (1.0, 1.0),
        [n] => (at_least_one(n), at_least_one(n)),
        [ref window @ .., inputs, outputs] => {
            let window: usize = window.iter().product();
            (at_least_one(window * inputs), at_least_one(window * outputs))
        }
    }
}

/// A name as a number (FNV-1a), to key randomness by it.
pub(crate) fn name_key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean, deviation and largest magnitude.
    fn moments(values: &[f32]) -> (f64, f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt(), values.iter().fold(0.0, |max: f64, v| max.max(f64::from(v.abs()))))
    }

    #[test]
    fn distributions_are_keras() {
        // A kernel of 3x3x32x64: 288 inputs, 576 outputs.
        let shape = [3, 3, 32, 64];
        for (initializer, deviation, largest) in [
            (Initializer::Zeros, 0.0, 0.0),
            (Initializer::Ones, 0.0, 1.0),
            (Initializer::Constant(0.5), 0.0, 0.5),
            (Initializer::GlorotUniform, (2.0 / 864.0f64).sqrt(), (6.0 / 864.0f64).sqrt()),
            (Initializer::GlorotNormal, (2.0 / 864.0f64).sqrt(), 2.0 * (2.0 / 864.0f64).sqrt() / 0.8796),
            (Initializer::HeUniform, (2.0 / 288.0f64).sqrt(), (6.0 / 288.0f64).sqrt()),
            (Initializer::HeNormal, (2.0 / 288.0f64).sqrt(), 2.0 * (2.0 / 288.0f64).sqrt() / 0.8796),
            (Initializer::RandomNormal { stddev: 0.05 }, 0.05, 0.3),
            (Initializer::RandomUniform { limit: 0.05 }, 0.05 / 3.0f64.sqrt(), 0.05),
        ] {
            let (_, found, max) = moments(&initializer.values(&shape, 1, "conv2d/kernel"));
            assert!(
                (found - deviation).abs() <= 0.02 * deviation,
                "{initializer:?}: deviation {found}, not {deviation}"
            );
            assert!(max <= largest * 1.0001, "{initializer:?}: {max} above {largest}");
        }
    }

    #[test]
    fn a_partial_identity_hands_channels_on() {
        let values = Initializer::PartialIdentity.values(&[3, 2, 2, 3], 1, "conv2d/kernel");
        let filter = |n: usize| values.iter().skip(n).step_by(3).copied().collect::<Vec<_>>();
        // Rows, columns, channels; the middle of three rows and two columns is (1, 1).
        assert_eq!(filter(0), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(filter(1), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(filter(2).iter().all(|v| *v != 0.0 && v.abs() <= (1.0f32 / 12.0).sqrt()));
        let values = Initializer::PartialIdentity.values(&[1, 1, 3, 2], 1, "conv2d/kernel");
        assert_eq!(values, [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn keyed_by_seed_and_name_only() {
        let draw = |seed, name| Initializer::GlorotUniform.values(&[4, 4], seed, name);
        assert_eq!(draw(1, "dense/kernel"), draw(1, "dense/kernel"));
        assert_ne!(draw(1, "dense/kernel"), draw(2, "dense/kernel"));
        assert_ne!(draw(1, "dense/kernel"), draw(1, "dense_1/kernel"));
    }

    #[test]
    fn fans_follow_keras() {
        assert_eq!(fans(&[3, 3, 32, 64]), (288.0, 576.0));
        assert_eq!(fans(&[100, 10]), (100.0, 10.0));
        assert_eq!(fans(&[7]), (7.0, 7.0));
        assert_eq!(fans(&[]), (1.0, 1.0));
    }
}
