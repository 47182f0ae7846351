//! `Mixing`: images and targets of a batch mixed in pairs.

use crate::random::{Purpose, Random};
use serde::{Deserialize, Serialize};

/// Each image of a batch is mixed with another one of it, and so are their targets. Where both ways are given, one is drawn for each
/// pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mixing {
    /// The images lie over each other; the share of each is from Beta(α, α). 0 is never; 0.2 to 0.8 are usual.
    ///
    /// Zhang et al., *mixup: beyond empirical risk minimization*, 2018.
    pub mixup: f32,
    /// A rectangle is exchanged; the share of the area that stays is from Beta(α, α). 0 is never; 1 is usual.
    ///
    /// Yun et al., *CutMix: regularization strategy to train strong classifiers with localizable features*, 2019.
    pub cutmix: f32,
    /// How probable it is that a pair is mixed at all; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f32>,
}

/// A batch to be mixed.
pub(crate) struct Mixed<'a> {
    /// (samples, height, width, channels)
    pub(crate) pixels: &'a mut [u8],
    pub(crate) shape: [usize; 3],
    /// (samples, outputs)
    pub(crate) targets: &'a mut [f32],
    /// The class of each sample, which becomes that of the larger part.
    pub(crate) labels: &'a mut [u32],
    /// How much each counts.
    pub(crate) weights: &'a mut [f32],
    /// The number of each in the data.
    pub(crate) indices: &'a [u32],
}

impl Mixing {
    /// Whether nothing is mixed.
    pub fn is_none(&self) -> bool {
        (self.mixup, self.cutmix) == (0.0, 0.0) || self.probability == Some(0.0)
    }

    /// What is wrong with the arguments.
    pub fn problem(&self) -> Option<String> {
        for (name, alpha) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            if !(alpha >= 0.0 && alpha.is_finite()) {
                return Some(format!("mixing: {name}: expected a number of at least 0, received {alpha}"));
            }
        }
        let share = self.probability.unwrap_or(1.0);
        (!(0.0..=1.0).contains(&share)).then(|| format!("mixing: probability: expected 0 to 1, received {share}"))
    }

    /// Mixes the first sample with the last, the second with the last but one and so on; a shuffled batch has no better pairs. A single
    /// one in the middle stays as it is.
    pub(crate) fn apply(&self, mut batch: Mixed<'_>, seed: u64, epoch: u64) {
        let samples = batch.labels.len();
        for first in 0..samples / 2 {
            let second = samples - 1 - first;
            let mut random = Random::new(seed, Purpose::Mix, epoch, u64::from(batch.indices[first]));
            if random.uniform() >= self.probability.unwrap_or(1.0) {
                continue;
            }
            let over = match (self.mixup > 0.0, self.cutmix > 0.0) {
                (true, true) => random.below(2) == 0,
                (over, _) => over,
            };
            let alpha = f64::from(if over { self.mixup } else { self.cutmix });
            let kept = random.beta(alpha, alpha) as f32;
            let values = batch.pixels.len() / samples;
            let (head, tail) = batch.pixels.split_at_mut(second * values);
            let (a, b) = (&mut head[first * values..][..values], &mut tail[..values]);
            let kept = if over { lay_over(a, b, kept) } else { exchange(a, b, batch.shape, kept, &mut random) };
            batch.mix_targets(first, second, kept);
        }
    }
}

impl Mixed<'_> {
    fn mix_targets(&mut self, first: usize, second: usize, kept: f32) {
        let outputs = self.targets.len() / self.labels.len();
        let (head, tail) = self.targets.split_at_mut(second * outputs);
        let pairs = head[first * outputs..][..outputs].iter_mut().zip(&mut tail[..outputs]);
        pairs.for_each(|(a, b)| (*a, *b) = mix(*a, *b, kept));
        let (a, b) = (self.weights[first], self.weights[second]);
        (self.weights[first], self.weights[second]) = mix(a, b, kept);
        if kept < 0.5 {
            self.labels.swap(first, second);
        }
    }
}

/// Each of two values with a share of the other.
fn mix(a: f32, b: f32, kept: f32) -> (f32, f32) {
    (kept * a + (1.0 - kept) * b, kept * b + (1.0 - kept) * a)
}

fn lay_over(a: &mut [u8], b: &mut [u8], kept: f32) -> f32 {
    for (a, b) in a.iter_mut().zip(b) {
        let (one, two) = mix(f32::from(*a), f32::from(*b), kept);
        (*a, *b) = ((one + 0.5) as u8, (two + 0.5) as u8);
    }
    kept
}

/// Exchanges a rectangle around a random place, cut at the edges; gives the share that stays.
fn exchange(a: &mut [u8], b: &mut [u8], [height, width, channels]: [usize; 3], kept: f32, random: &mut Random) -> f32 {
    let side = (1.0 - kept).max(0.0).sqrt();
    let mut span = |size: usize| {
        let (middle, side) = (random.below(size as u64) as usize, (side * size as f32) as usize);
        [middle.saturating_sub(side / 2), (middle + side - side / 2).min(size)]
    };
    let ([top, bottom], [left, right]) = (span(height), span(width));
    let stride = width * channels;
    for y in top..bottom {
        let range = y * stride + left * channels..y * stride + right * channels;
        a[range.clone()].swap_with_slice(&mut b[range]);
    }
    1.0 - ((bottom - top) * (right - left)) as f32 / (height * width) as f32
}
