//! Layer normalisation (Ba, Kiros and Hinton, 2016): each row brought to mean 0 and variance 1, then scaled and shifted for
//! each channel.

use crate::isa::{Isa, Kernel, Level};

/// What normalises a row of channels.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// Scale of each channel.
    pub gamma: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

/// `y = gamma (x - mean) / sqrt(variance + epsilon) + beta`, with mean and variance of the row.
pub fn forward(level: Level, norm: &LayerNorm<'_>, beta: &[f32], x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "an output as long as the input");
    assert_eq!(norm.gamma.len(), beta.len());
    check(norm, x.len());
    level.dispatch(Forward { norm, beta, x, y });
}

/// `dx = inverse (g - mean(g) - x̂ mean(g x̂))` with `g = gamma dy`, and the sums over rows `dgamma = Σ dy x̂` and
/// `dbeta = Σ dy`, which are added to what is there where `accumulate`.
#[allow(clippy::too_many_arguments, reason = "the symbols of the formula")]
pub fn backward(
    level: Level,
    norm: &LayerNorm<'_>,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    accumulate: bool,
) {
    assert!(x.len() == dy.len() && x.len() == dx.len(), "arrays of one length");
    assert!(norm.gamma.len() == dgamma.len() && norm.gamma.len() == dbeta.len(), "a sum for each channel");
    check(norm, x.len());
    if !accumulate {
        dgamma.fill(0.0);
        dbeta.fill(0.0);
    }
    level.dispatch(Backward { norm, x, dy, dx, dgamma, dbeta });
}

fn check(norm: &LayerNorm<'_>, len: usize) {
    let channels = norm.gamma.len();
    assert!(channels > 0 && len.is_multiple_of(channels), "{len} values are no whole rows of {channels} channels");
}

/// Calls `f` with the position of each vector of a row and the mask of its lanes.
#[inline(always)]
fn vectors<I: Isa>(isa: I, channels: usize, mut f: impl FnMut(usize, I::Mask)) {
    let mut c = 0;
    while c < channels {
        f(c, isa.first(channels - c));
        c += I::LANES;
    }
}

/// Mean of the row and `1 / sqrt(variance + epsilon)`.
#[inline(always)]
fn statistics<I: Isa>(isa: I, x: &[f32], epsilon: f32) -> (f32, f32) {
    let count = x.len() as f32;
    let mut sum = isa.zero();
    vectors(isa, x.len(), |c, mask| {
        // SAFETY: the lanes of the mask end with the row.
        sum = isa.add(sum, unsafe { isa.load_masked(mask, x.as_ptr().add(c)) });
    });
    let mean = isa.sum(sum) / count;
    let (shift, mut squares) = (isa.splat(mean), isa.zero());
    vectors(isa, x.len(), |c, mask| {
        // SAFETY: as above.
        let v = isa.sub(unsafe { isa.load_masked(mask, x.as_ptr().add(c)) }, shift);
        let v = isa.select(mask, v, isa.zero());
        squares = isa.mul_add(v, v, squares);
    });
    (mean, 1.0 / (isa.sum(squares) / count + epsilon).sqrt())
}

struct Forward<'a> {
    norm: &'a LayerNorm<'a>,
    beta: &'a [f32],
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let channels = self.norm.gamma.len();
        let (gamma, beta) = (self.norm.gamma.as_ptr(), self.beta.as_ptr());
        for (x, y) in self.x.chunks_exact(channels).zip(self.y.chunks_exact_mut(channels)) {
            let (mean, inverse) = statistics(isa, x, self.norm.epsilon);
            let (mean, inverse) = (isa.splat(mean), isa.splat(inverse));
            // SAFETY: the lanes of the mask end with the row; parameters are as long as a row.
            vectors(isa, channels, |c, mask| unsafe {
                let v = isa.sub(isa.load_masked(mask, x.as_ptr().add(c)), mean);
                let scale = isa.mul(isa.load_masked(mask, gamma.add(c)), inverse);
                let v = isa.mul_add(v, scale, isa.load_masked(mask, beta.add(c)));
                isa.store_masked(mask, y.as_mut_ptr().add(c), v);
            });
        }
    }
}

struct Backward<'a> {
    norm: &'a LayerNorm<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
    dgamma: &'a mut [f32],
    dbeta: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let channels = self.norm.gamma.len();
        let gamma = self.norm.gamma.as_ptr();
        let (dgamma, dbeta) = (self.dgamma.as_mut_ptr(), self.dbeta.as_mut_ptr());
        let rows = self.x.chunks_exact(channels).zip(self.dy.chunks_exact(channels));
        for ((x, dy), dx) in rows.zip(self.dx.chunks_exact_mut(channels)) {
            let (mean, inverse) = statistics(isa, x, self.norm.epsilon);
            let (mean, scale) = (isa.splat(mean), isa.splat(inverse));
            let (mut sum, mut products) = (isa.zero(), isa.zero());
            // SAFETY: in both passes the lanes of the mask end with the row; parameters and sums are as long as a row.
            vectors(isa, channels, |c, mask| unsafe {
                let normal = isa.mul(isa.sub(isa.load_masked(mask, x.as_ptr().add(c)), mean), scale);
                let dy = isa.load_masked(mask, dy.as_ptr().add(c));
                let g = isa.mul(dy, isa.load_masked(mask, gamma.add(c)));
                sum = isa.add(sum, g);
                // Where there are no lanes g is zero.
                products = isa.mul_add(g, normal, products);
                let at = dgamma.add(c);
                isa.store_masked(mask, at, isa.mul_add(dy, normal, isa.load_masked(mask, at)));
                let at = dbeta.add(c);
                isa.store_masked(mask, at, isa.add(dy, isa.load_masked(mask, at)));
            });
            let share = 1.0 / channels as f32;
            let (sum, products) = (isa.splat(isa.sum(sum) * share), isa.splat(isa.sum(products) * share));
            // SAFETY: as above.
            vectors(isa, channels, |c, mask| unsafe {
                let normal = isa.mul(isa.sub(isa.load_masked(mask, x.as_ptr().add(c)), mean), scale);
                let g = isa.mul(isa.load_masked(mask, dy.as_ptr().add(c)), isa.load_masked(mask, gamma.add(c)));
                let v = isa.sub(isa.sub(g, sum), isa.mul(normal, products));
                isa.store_masked(mask, dx.as_mut_ptr().add(c), isa.mul(v, scale));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CHANNELS, STALE, close, gradient, output, values, wide};

    const EPSILON: f32 = 1e-3;

    fn exact(x: &[f64], gamma: &[f64], beta: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let inverse = 1.0 / (variance + f64::from(EPSILON)).sqrt();
        x.iter().zip(gamma).zip(beta).map(|((v, g), b)| (v - mean) * inverse * g + b).collect()
    }

    #[test]
    fn rows_are_normalised() {
        for level in Level::available() {
            for channels in CHANNELS {
                for rows in [0, 1, 5] {
                    let (x, gamma, beta) = (values(rows * channels, 1), values(channels, 2), values(channels, 3));
                    let norm = LayerNorm { gamma: &gamma, epsilon: EPSILON };
                    let y = output(x.len(), STALE, |y| forward(level, &norm, &beta, &x, y));
                    let want: Vec<f64> =
                        x.chunks(channels).flat_map(|x| exact(&wide(x), &wide(&gamma), &wide(&beta))).collect();
                    close((level, channels, rows), &y, &want, 32.0, 3.0);
                }
            }
        }
    }

    #[test]
    fn gradients_match_differences() {
        for level in Level::available() {
            for channels in [1, 2, 3, 7, 16, 17, 40, 65] {
                let rows = 3;
                let (x, dy) = (values(rows * channels, 1), values(rows * channels, 4));
                let (gamma, beta) = (values(channels, 2), values(channels, 3));
                let loss = |x: &[f64], gamma: &[f64], beta: &[f64]| -> f64 {
                    let y = x.chunks(channels).flat_map(|x| exact(x, gamma, beta));
                    y.zip(&dy).map(|(y, &dy)| y * f64::from(dy)).sum()
                };
                let (wx, wg, wb) = (wide(&x), wide(&gamma), wide(&beta));
                let want = [
                    gradient(|x| loss(x, &wg, &wb), &wx),
                    gradient(|g| loss(&wx, g, &wb), &wg),
                    gradient(|b| loss(&wx, &wg, b), &wb),
                ];
                let norm = LayerNorm { gamma: &gamma, epsilon: EPSILON };
                for accumulate in [false, true] {
                    let (mut dgamma, mut dbeta) = (vec![STALE; channels], vec![STALE; channels]);
                    let dx = output(x.len(), STALE, |dx| {
                        backward(level, &norm, &x, &dy, dx, &mut dgamma, &mut dbeta, accumulate);
                    });
                    let before = if accumulate { f64::from(STALE) } else { 0.0 };
                    let what = (level, channels, accumulate);
                    // Differences of a normalisation are good to about 1e-7 of the largest gradient.
                    close(what, &dx, &want[0], 64.0, 40.0);
                    for (got, want) in [(dgamma, &want[1]), (dbeta, &want[2])] {
                        let want: Vec<f64> = want.iter().map(|w| w + before).collect();
                        close(what, &got, &want, 32.0, 10.0);
                    }
                }
            }
        }
    }
}
