//! Channels brought to mean 0 and variance 1 by what was measured before training.

use super::window::shape_text;
use super::{Build, Layer};
use crate::data::DataError;
use crate::model::Images;
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

    /// Measures mean and variance of each channel over all images: a data set's, or an array's whose last axis has so many
    /// channels. Bytes are measured as they are, 0 to 255, since that is how they reach this layer.
    ///
    /// # Errors
    /// Where an image can no longer be read.
    ///
    /// # Panics
    /// Where `channels` is 0.
    pub fn adapt<'a>(images: impl Into<Images<'a>>, channels: usize) -> Result<Self, DataError> {
        let images = images.into();
        let mut sums = Sums { sum: vec![0.0; channels], squares: vec![0.0; channels], pixels: 0 };
        match images {
            Images::U8(all) => sums.take(all.iter().map(|&value| f64::from(value))),
            Images::F32(all) => sums.take(all.iter().map(|&value| f64::from(value))),
            Images::Dataset(dataset) => {
                let mut pixels = vec![0; dataset.image_len()];
                for index in 0..dataset.len() {
                    dataset.copy_image(index, &mut pixels)?;
                    sums.take(pixels.iter().map(|&value| f64::from(value)));
                }
            }
        }
        Ok(sums.finish())
    }
}

/// Sums over pixels, for each channel.
struct Sums {
    sum: Vec<f64>,
    squares: Vec<f64>,
    pixels: u64,
}

impl Sums {
    fn take(&mut self, values: impl Iterator<Item = f64>) {
        let channels = self.sum.len();
        let mut channel = 0;
        for value in values {
            self.sum[channel] += value;
            self.squares[channel] += value * value;
            channel += 1;
            if channel == channels {
                channel = 0;
                self.pixels += 1;
            }
        }
    }

    fn finish(self) -> Normalization {
        let pixels = self.pixels.max(1) as f64;
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / pixels).collect();
        let variance = self.squares.iter().zip(&mean).map(|(squares, mean)| (squares / pixels - mean * mean).max(0.0));
        Normalization {
            variance: variance.map(|value| value as f32).collect(),
            mean: mean.iter().map(|&value| value as f32).collect(),
        }
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
    use crate::data::{self, Split};

    #[test]
    fn adapts_to_each_channel() {
        let found = Normalization::adapt(&[0u8, 10, 4, 30], 2).unwrap();
        assert_eq!(found, Normalization::new([2.0, 20.0], [4.0, 100.0]));
        assert_eq!(Normalization::adapt(&[-1.0f32, 1.0], 1).unwrap(), Normalization::new([0.0], [1.0]));
        let train = data::builtin(Split::Train).unwrap();
        let found = Normalization::adapt(&train, 1).unwrap();
        // Fashion-MNIST's mean is 72.9 and its standard deviation 90.
        assert!((found.mean[0] - 72.9).abs() < 1.0 && (found.variance[0].sqrt() - 90.0).abs() < 1.0, "{found:?}");
    }
}
