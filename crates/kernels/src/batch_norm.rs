//! Batch normalisation over `[rows][channels]` (Ioffe and Szegedy, arXiv:1502.03167).
//!
//! Statistics are sums, so that parts of a batch can be summed apart and added: [`moments`] then [`finish`]; and
//! [`backward_sums`] then [`backward`].

use crate::columns::{self, ChannelMap, ChannelSum};
use crate::isa::{Isa, Level};

/// `sums = [Σ(x - shift), Σ(x - shift)²]`, each `[channels]`, over all rows; added to `sums` where `accumulate`.
///
/// A `shift` near the mean (a running mean, or the first row) keeps the variance accurate where the mean is much larger
/// than the deviation. Each sum errs by at most about `(35 + 512 / channels) ε Σ|term|`, whatever the number of rows.
pub fn moments(level: Level, channels: usize, x: &[f32], shift: &[f32], sums: &mut [f32], accumulate: bool) {
    assert_eq!(shift.len(), channels);
    columns::sums(level, channels, Moments { shift }, [x], sums, accumulate);
}

#[derive(Clone, Copy)]
struct Moments<'a> {
    shift: &'a [f32],
}

impl ChannelSum<1, 1, 2> for Moments<'_> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 1] {
        [self.shift[c]]
    }
    #[inline(always)]
    fn add<I: Isa>(&self, isa: I, [x]: [I::F32; 1], [shift]: [I::F32; 1], [first, second]: [I::F32; 2]) -> [I::F32; 2] {
        let d = isa.sub(x, shift);
        [isa.add(first, d), isa.mul_add(d, d, second)]
    }
}

/// Mean and (biased) variance from the sums of [`moments`] over `count` rows.
pub fn finish(sums: &[f32], shift: &[f32], count: f32, mean: &mut [f32], variance: &mut [f32]) {
    let channels = shift.len();
    assert!(sums.len() == 2 * channels && mean.len() == channels && variance.len() == channels);
    let (first, second) = sums.split_at(channels);
    for c in 0..channels {
        let d = f64::from(first[c]) / f64::from(count);
        mean[c] = (f64::from(shift[c]) + d) as f32;
        variance[c] = (f64::from(second[c]) / f64::from(count) - d * d).max(0.0) as f32;
    }
}

/// `y = gamma (x - mean) / sqrt(variance + epsilon) + beta`, and `max(y, 0)` of that where `relu`.
#[allow(clippy::too_many_arguments, reason = "the symbols of the formula")]
pub fn normalize(
    level: Level,
    channels: usize,
    x: &[f32],
    mean: &[f32],
    variance: &[f32],
    gamma: &[f32],
    beta: &[f32],
    epsilon: f32,
    relu: bool,
    y: &mut [f32],
) {
    for values in [mean, variance, gamma, beta] {
        assert_eq!(values.len(), channels);
    }
    if relu {
        columns::map(level, channels, Normalize::<true> { mean, variance, gamma, beta, epsilon }, [x], y);
    } else {
        columns::map(level, channels, Normalize::<false> { mean, variance, gamma, beta, epsilon }, [x], y);
    }
}

#[derive(Clone, Copy)]
struct Normalize<'a, const RELU: bool> {
    mean: &'a [f32],
    variance: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    epsilon: f32,
}

impl<const RELU: bool> ChannelMap<1, 3> for Normalize<'_, RELU> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 3] {
        [self.mean[c], self.gamma[c] / (self.variance[c] + self.epsilon).sqrt(), self.beta[c]]
    }
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, [x]: [I::F32; 1], [mean, scale, beta]: [I::F32; 3]) -> I::F32 {
        let y = isa.mul_add(isa.sub(x, mean), scale, beta);
        if RELU { isa.max(isa.zero(), y) } else { y }
    }
}

/// `sums = [Σ dy, Σ dy x̂]`, each `[channels]`, with `x̂ = (x - mean) / sqrt(variance + epsilon)`: the gradients of beta
/// and gamma; added to `sums` where `accumulate`. Accurate as [`moments`] is.
#[allow(clippy::too_many_arguments, reason = "the symbols of the formula")]
pub fn backward_sums(
    level: Level,
    channels: usize,
    x: &[f32],
    dy: &[f32],
    mean: &[f32],
    variance: &[f32],
    epsilon: f32,
    sums: &mut [f32],
    accumulate: bool,
) {
    assert!(mean.len() == channels && variance.len() == channels);
    columns::sums(level, channels, BackwardSums { mean, variance, epsilon }, [x, dy], sums, accumulate);
}

#[derive(Clone, Copy)]
struct BackwardSums<'a> {
    mean: &'a [f32],
    variance: &'a [f32],
    epsilon: f32,
}

impl ChannelSum<2, 2, 2> for BackwardSums<'_> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 2] {
        [self.mean[c], 1.0 / (self.variance[c] + self.epsilon).sqrt()]
    }
    #[inline(always)]
    fn add<I: Isa>(
        &self,
        isa: I,
        [x, dy]: [I::F32; 2],
        [mean, inverse]: [I::F32; 2],
        [dbeta, dgamma]: [I::F32; 2],
    ) -> [I::F32; 2] {
        let normalized = isa.mul(isa.sub(x, mean), inverse);
        [isa.add(dbeta, dy), isa.mul_add(dy, normalized, dgamma)]
    }
}

/// `dx = gamma / sqrt(variance + epsilon) (dy - Σdy / count - x̂ Σ(dy x̂) / count)`, with the sums of
/// [`backward_sums`] over all `count` rows of the batch, of which `x` and `dy` may be a part.
#[allow(clippy::too_many_arguments, reason = "the symbols of the formula")]
pub fn backward(
    level: Level,
    channels: usize,
    count: f32,
    x: &[f32],
    dy: &[f32],
    mean: &[f32],
    variance: &[f32],
    gamma: &[f32],
    epsilon: f32,
    sums: &[f32],
    dx: &mut [f32],
) {
    for values in [mean, variance, gamma] {
        assert_eq!(values.len(), channels);
    }
    assert_eq!(sums.len(), 2 * channels);
    let (dbeta, dgamma) = sums.split_at(channels);
    columns::map(level, channels, Backward { count, mean, variance, gamma, epsilon, dbeta, dgamma }, [x, dy], dx);
}

#[derive(Clone, Copy)]
struct Backward<'a> {
    count: f32,
    mean: &'a [f32],
    variance: &'a [f32],
    gamma: &'a [f32],
    epsilon: f32,
    dbeta: &'a [f32],
    dgamma: &'a [f32],
}

impl ChannelMap<2, 4> for Backward<'_> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 4] {
        let inverse = 1.0 / (self.variance[c] + self.epsilon).sqrt();
        let scale = self.gamma[c] * inverse;
        [self.mean[c], scale, -scale * inverse * self.dgamma[c] / self.count, -scale * self.dbeta[c] / self.count]
    }
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, [x, dy]: [I::F32; 2], [mean, scale, slope, offset]: [I::F32; 4]) -> I::F32 {
        isa.mul_add(dy, scale, isa.mul_add(isa.sub(x, mean), slope, offset))
    }
}
