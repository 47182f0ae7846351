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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CHANNELS, STALE, close, dot, gradient, output, values, wide};

    const EPSILON: f32 = 1e-3;

    /// Mean, variance and output of the whole batch.
    fn exact(channels: usize, x: &[f64], gamma: &[f64], beta: &[f64]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let rows = x.len() / channels;
        let column = |c: usize| (0..rows).map(move |r| x[r * channels + c]);
        let mean: Vec<f64> = (0..channels).map(|c| column(c).sum::<f64>() / rows as f64).collect();
        let variance: Vec<f64> =
            (0..channels).map(|c| column(c).map(|x| (x - mean[c]).powi(2)).sum::<f64>() / rows as f64).collect();
        let y = (0..x.len())
            .map(|i| {
                let c = i % channels;
                gamma[c] * (x[i] - mean[c]) / (variance[c] + f64::from(EPSILON)).sqrt() + beta[c]
            })
            .collect();
        (mean, variance, y)
    }

    #[test]
    fn forward_and_backward_match_the_formulas() {
        for level in Level::available() {
            for channels in CHANNELS {
                for rows in [2, 7, 33, 131] {
                    check(level, channels, rows);
                }
            }
        }
    }

    fn check(level: Level, channels: usize, rows: usize) {
        let (len, what, count) = (rows * channels, (level, channels, rows), rows as f32);
        let x: Vec<f32> = values(len, 1).iter().enumerate().map(|(i, v)| v + (i % channels) as f32 * 0.01).collect();
        let (dy, gamma, beta, shift) = (values(len, 2), values(channels, 3), values(channels, 4), values(channels, 5));
        let (want_mean, want_variance, want_y) = exact(channels, &wide(&x), &wide(&gamma), &wide(&beta));
        // In two parts, as two workers would.
        let cut = rows / 2 * channels;
        let sums = output(2 * channels, STALE, |sums| {
            moments(level, channels, &x[..cut], &shift, sums, false);
            moments(level, channels, &x[cut..], &shift, sums, true);
        });
        let (mut mean, mut variance) = (vec![0.0; channels], vec![0.0; channels]);
        finish(&sums, &shift, count, &mut mean, &mut variance);
        close(what, &mean, &want_mean, 6.0, 8.0);
        // With a shift as far off as this one, up to 13, the squares are that much larger.
        close(what, &variance, &want_variance, 24.0, 200.0);

        for relu in [false, true] {
            let y = output(len, STALE, |y| {
                normalize(level, channels, &x, &mean, &variance, &gamma, &beta, EPSILON, relu, y);
            });
            let want: Vec<f64> = want_y.iter().map(|&y| if relu { y.max(0.0) } else { y }).collect();
            // A channel of two rows that nearly agree magnifies the error of the variance.
            close(what, &y, &want, if rows > 2 { 400.0 } else { 1e5 }, 3.0);
        }

        let sums = output(2 * channels, STALE, |sums| {
            backward_sums(level, channels, &x[..cut], &dy[..cut], &mean, &variance, EPSILON, sums, false);
            backward_sums(level, channels, &x[cut..], &dy[cut..], &mean, &variance, EPSILON, sums, true);
        });
        let dx = output(len, STALE, |dx| {
            backward(level, channels, count, &x, &dy, &mean, &variance, &gamma, EPSILON, &sums, dx);
        });
        // Each channel stands alone, so that its gradient can be taken alone; a few of them are enough.
        for c in (0..channels).step_by(channels.div_ceil(3)).filter(|_| rows > 2 && rows < 100) {
            let column = |v: &[f32]| (0..rows).map(|r| f64::from(v[r * channels + c])).collect::<Vec<_>>();
            let (x, dy) = (column(&x), column(&dy));
            let (g, b) = (f64::from(gamma[c]), f64::from(beta[c]));
            let loss = |x: &[f64], g: f64, b: f64| dot(&exact(1, x, &[g], &[b]).2, &dy);
            let want = gradient(|x| loss(x, g, b), &x);
            let got: Vec<f32> = (0..rows).map(|r| dx[r * channels + c]).collect();
            close((what, c), &got, &want, 1000.0, 3.0);
            let want = gradient(|p| loss(&x, p[0], p[1]), &[g, b]);
            close((what, c), &[sums[channels + c], sums[c]], &want, 200.0, (rows as f64).sqrt());
        }
    }

    #[test]
    fn a_large_mean_does_not_drown_the_variance() {
        let x: Vec<f32> = values(40_000, 1).iter().map(|v| 1000.0 + v * 0.1).collect();
        let (mean, variance, _) = exact(4, &wide(&x), &[1.0; 4], &[0.0; 4]);
        for level in Level::available() {
            let shift = &x[..4];
            let sums = output(8, STALE, |sums| moments(level, 4, &x, shift, sums, false));
            let (mut m, mut v) = ([0.0; 4], [0.0; 4]);
            finish(&sums, shift, 1e4, &mut m, &mut v);
            close(level, &m, &mean, 1.0, 0.0);
            close(level, &v, &variance, 100.0, 0.0);
        }
    }
}
