//! Channels brought to mean 0 and variance 1 by what was measured before training.

use super::window::shape_text;
use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// `(x - mean) / sqrt(variance)` for each channel. Takes pixels as bytes or numbers.
///
/// Mean and variance are given, or measured with [`adapt`](Self::adapt).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// The mean of each channel.
    pub mean: Vec<f32>,
    /// The variance of each channel.
    pub variance: Vec<f32>,
}

/// The least standard deviation that is divided by, as in Keras.
const EPSILON: f32 = 1e-7;

impl Normalization {
    /// With this mean and variance for each channel.
    pub fn new(mean: impl Into<Vec<f32>>, variance: impl Into<Vec<f32>>) -> Self {
        Normalization { mean: mean.into(), variance: variance.into() }
    }

    /// Measures mean and variance of each channel over all images, whose values are given pixel by pixel, the channels of
    /// a pixel side by side.
    ///
    /// # Panics
    /// Where `channels` is 0.
    pub fn adapt<T: Copy + Into<f64>>(images: &[T], channels: usize) -> Self {
        let pixels = (images.len() / channels).max(1) as f64;
        let mut mean = vec![0.0f64; channels];
        for pixel in images.chunks_exact(channels) {
            mean.iter_mut().zip(pixel).for_each(|(mean, &value)| *mean += value.into() / pixels);
        }
        let mut variance = vec![0.0f64; channels];
        for pixel in images.chunks_exact(channels) {
            for ((variance, mean), &value) in variance.iter_mut().zip(&mean).zip(pixel) {
                *variance += (value.into() - mean).powi(2) / pixels;
            }
        }
        let round = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<_>>();
        Normalization { mean: round(mean), variance: round(variance) }
    }
}

impl Layer for Normalization {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn takes_pixels(&self) -> bool {
        true
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let channels = inputs[0].last().copied().unwrap_or(0);
        if self.mean.len() != channels || self.variance.len() != channels {
            return Err(format!(
                "expected mean and variance for each of the {channels} channels of {}, received {} and {}; adapt it to \
                 the training data",
                shape_text(inputs[0]),
                self.mean.len(),
                self.variance.len()
            ));
        }
        let valid = self.mean.iter().all(|m| m.is_finite()) && self.variance.iter().all(|v| v.is_finite() && *v >= 0.0);
        if !valid {
            return Err("expected finite means and variances of at least 0".into());
        }
        Ok(inputs[0].to_vec())
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let scale: Vec<f32> = self.variance.iter().map(|v| 1.0 / v.sqrt().max(EPSILON)).collect();
        let offset = self.mean.iter().zip(&scale).map(|(mean, scale)| -mean * scale).collect();
        at.graph.add(ops::Affine { scale, offset }, &[at.input()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapts_to_each_channel() {
        let found = Normalization::adapt(&[0u8, 10, 4, 30], 2);
        assert_eq!(found, Normalization::new([2.0, 20.0], [4.0, 100.0]));
        assert_eq!(Normalization::adapt::<f32>(&[], 1), Normalization::new([0.0], [0.0]));
    }
}
