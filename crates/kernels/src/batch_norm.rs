//! Batch normalisation over `[rows][channels]` (Ioffe and Szegedy, arXiv:1502.03167), with what stands behind it: a
//! shortcut that is added, and a rectifier.
//!
//! Each array of rows may hold bf16 values ([`Values`]); arithmetic and sums are single precision. Statistics are sums, so that parts of a batch can be summed apart and added: [`moments`], or [`MomentSums`] as a kernel makes the rows, then [`finish`]; and
//! [`backward_sums`] then [`backward`].

mod moment_sums;

pub use moment_sums::MomentSums;

use crate::columns::{self, ChannelMap, ChannelSum};
use crate::conv::Epilogue;
use crate::isa::{Isa, Level};
use crate::rectifier::{Rectifier, rectified};
use crate::{Values, ValuesMut};
use std::marker::PhantomData;

/// `sums = [Σ(x - shift), Σ(x - shift)²]`, each `[channels]`, over all rows; added to `sums` where `accumulate`.
///
/// A `shift` near the mean (a running mean, or the first row) keeps the variance accurate where the mean is much larger
/// than the deviation. Each sum errs by at most about `(35 + 512 / channels) ε Σ|term|`, whatever the number of rows.
pub fn moments(level: Level, channels: usize, x: Values<'_>, shift: &[f32], sums: &mut [f32], accumulate: bool) {
    assert!(shift.len() == channels && sums.len() == 2 * channels);
    let (first, second) = sums.split_at_mut(channels);
    columns::sums(level, channels, Moments { shift }, [x], [first, second], accumulate);
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

/// What a channel's values are normalised with, each `[channels]`; and the rectifier behind it.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Of x.
    pub mean: &'a [f32],
    /// Of x, biased.
    pub variance: &'a [f32],
    /// Scale.
    pub gamma: &'a [f32],
    /// Offset.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
    /// Applied to the result.
    pub epilogue: Epilogue,
}

impl Norm<'_> {
    fn channels(&self) -> usize {
        for values in [self.variance, self.gamma, self.beta] {
            assert_eq!(values.len(), self.mean.len(), "a value for each channel");
        }
        self.mean.len()
    }

    #[inline(always)]
    fn inverse(&self, c: usize) -> f32 {
        1.0 / (self.variance[c] + self.epsilon).sqrt()
    }

    /// `[mean, scale, beta]`: what forward normalises with, and backward to find again where the rectifier let pass.
    #[inline(always)]
    fn line(&self, c: usize) -> [f32; 3] {
        [self.mean[c], self.gamma[c] / (self.variance[c] + self.epsilon).sqrt(), self.beta[c]]
    }
}

/// `gamma (x - mean) / sqrt(variance + epsilon) + beta`, the same bits wherever it is computed.
#[inline(always)]
fn normalized<I: Isa>(isa: I, x: I::F32, [mean, scale, beta]: [I::F32; 3]) -> I::F32 {
    isa.mul_add(isa.sub(x, mean), scale, beta)
}

/// `y = f(gamma (x - mean) / sqrt(variance + epsilon) + beta + shortcut)`, with `f` the epilogue.
pub fn normalize(level: Level, norm: &Norm<'_>, x: Values<'_>, shortcut: Option<Values<'_>>, y: ValuesMut<'_>) {
    let channels = norm.channels();
    rectified!(norm.epilogue, R => match shortcut {
        None => columns::map(level, channels, Forward::<R>(norm, PhantomData), [x], y),
        Some(shortcut) => columns::map(level, channels, Forward::<R>(norm, PhantomData), [x, shortcut], y),
    });
}

#[derive(Clone, Copy)]
struct Forward<'a, R>(&'a Norm<'a>, PhantomData<R>);

impl<R: Rectifier> ChannelMap<1, 3> for Forward<'_, R> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 3] {
        self.0.line(c)
    }
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, [x]: [I::F32; 1], line: [I::F32; 3]) -> I::F32 {
        R::apply(isa, normalized(isa, x, line))
    }
}

impl<R: Rectifier> ChannelMap<2, 3> for Forward<'_, R> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 3] {
        self.0.line(c)
    }
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, [x, shortcut]: [I::F32; 2], line: [I::F32; 3]) -> I::F32 {
        R::apply(isa, isa.add(normalized(isa, x, line), shortcut))
    }
}

/// `[dbeta, dgamma] = [Σ g, Σ g x̂]`, with `x̂ = (x - mean) / sqrt(variance + epsilon)` and `g` the gradient `dy` where the
/// rectifier let pass (found again from x; there must have been no shortcut). Each `[channels]`, added to what they hold
/// where `accumulate`. Accurate as [`moments`] is.
pub fn backward_sums(
    level: Level,
    norm: &Norm<'_>,
    x: Values<'_>,
    dy: Values<'_>,
    dbeta: &mut [f32],
    dgamma: &mut [f32],
    accumulate: bool,
) {
    let (channels, sums) = (norm.channels(), [dbeta, dgamma]);
    match norm.epilogue {
        // Without a rectifier there is less to load for each channel.
        Epilogue::Linear => columns::sums(level, channels, LinearSums(norm), [x, dy], sums, accumulate),
        _ => rectified!(norm.epilogue, R => {
            columns::sums(level, channels, RectifiedSums::<R>(norm, PhantomData), [x, dy], sums, accumulate);
        }),
    }
}

/// The two sums with a row's terms added.
#[inline(always)]
fn add_terms<I: Isa>(
    isa: I,
    x: I::F32,
    g: I::F32,
    [mean, inverse]: [I::F32; 2],
    [dbeta, dgamma]: [I::F32; 2],
) -> [I::F32; 2] {
    let normalized = isa.mul(isa.sub(x, mean), inverse);
    [isa.add(dbeta, g), isa.mul_add(g, normalized, dgamma)]
}

#[derive(Clone, Copy)]
struct LinearSums<'a>(&'a Norm<'a>);

impl ChannelSum<2, 2, 2> for LinearSums<'_> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 2] {
        [self.0.mean[c], self.0.inverse(c)]
    }
    #[inline(always)]
    fn add<I: Isa>(&self, isa: I, [x, dy]: [I::F32; 2], values: [I::F32; 2], sums: [I::F32; 2]) -> [I::F32; 2] {
        add_terms(isa, x, dy, values, sums)
    }
}

#[derive(Clone, Copy)]
struct RectifiedSums<'a, R>(&'a Norm<'a>, PhantomData<R>);

impl<R: Rectifier> ChannelSum<2, 4, 2> for RectifiedSums<'_, R> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 4] {
        let [mean, scale, beta] = self.0.line(c);
        [mean, scale, beta, self.0.inverse(c)]
    }
    #[inline(always)]
    fn add<I: Isa>(
        &self,
        isa: I,
        [x, dy]: [I::F32; 2],
        [mean, scale, beta, inverse]: [I::F32; 4],
        sums: [I::F32; 2],
    ) -> [I::F32; 2] {
        let g = R::pass(isa, normalized(isa, x, [mean, scale, beta]), dy);
        add_terms(isa, x, g, [mean, inverse], sums)
    }
}

/// [`backward_sums`] where the gradient is a sum of one or two terms, or a shortcut was added, and `g` is needed as such:
/// it is written in the same pass. `y` is what [`normalize`] gave; it is not read, and may be empty, without a rectifier.
#[allow(clippy::too_many_arguments, reason = "two inputs, a gradient, and three outputs")]
pub fn backward_sums_and_gradient(
    level: Level,
    norm: &Norm<'_>,
    x: Values<'_>,
    y: Values<'_>,
    dy: (Values<'_>, Option<Values<'_>>),
    g: ValuesMut<'_>,
    dbeta: &mut [f32],
    dgamma: &mut [f32],
    accumulate: bool,
) {
    let (channels, sums) = (norm.channels(), [dbeta, dgamma]);
    match (norm.epilogue, dy) {
        (Epilogue::Linear, (dy, None)) => {
            columns::map_and_sums(level, channels, MapSums(norm), [x, dy], g, sums, accumulate);
        }
        (Epilogue::Linear, (a, Some(b))) => {
            columns::map_and_sums(level, channels, MapSums(norm), [x, a, b], g, sums, accumulate);
        }
        (_, (dy, None)) => rectified!(norm.epilogue, R => {
            let f = MaskedSums::<R>(norm, PhantomData);
            columns::map_and_sums(level, channels, f, [x, y, dy], g, sums, accumulate);
        }),
        (_, (a, Some(b))) => rectified!(norm.epilogue, R => {
            let f = MaskedSums::<R>(norm, PhantomData);
            columns::map_and_sums(level, channels, f, [x, y, a, b], g, sums, accumulate);
        }),
    }
}

/// Implements a sum that is a map, too, by the gradient `g` that is stored and summed.
macro_rules! sums_of_gradient {
    ($name:ty $(, $R:ident)?; $n:literal, |$isa:ident, $x:pat_param| $g:expr) => {
        impl<$($R: Rectifier)?> ChannelSum<$n, 2, 2> for $name {
            #[inline(always)]
            fn values(&self, c: usize) -> [f32; 2] {
                [self.0.mean[c], self.0.inverse(c)]
            }
            #[inline(always)]
            fn map<I: Isa>(&self, $isa: I, $x: [I::F32; $n], _values: [I::F32; 2]) -> I::F32 {
                $g
            }
            #[inline(always)]
            fn add<I: Isa>(&self, isa: I, x: [I::F32; $n], values: [I::F32; 2], sums: [I::F32; 2]) -> [I::F32; 2] {
                let g = self.map(isa, x, values);
                add_terms(isa, x[0], g, values, sums)
            }
        }
    };
}

#[derive(Clone, Copy)]
struct MapSums<'a>(&'a Norm<'a>);
sums_of_gradient!(MapSums<'_>; 2, |_isa, [_, dy]| dy);
sums_of_gradient!(MapSums<'_>; 3, |isa, [_, a, b]| isa.add(a, b));

#[derive(Clone, Copy)]
struct MaskedSums<'a, R>(&'a Norm<'a>, PhantomData<R>);
sums_of_gradient!(MaskedSums<'_, R>, R; 3, |isa, [_, y, dy]| R::pass(isa, y, dy));
sums_of_gradient!(MaskedSums<'_, R>, R; 4, |isa, [_, y, a, b]| R::pass(isa, y, isa.add(a, b)));

/// `dx = gamma / sqrt(variance + epsilon) (g - dbeta / count - x̂ dgamma / count)`, with the sums of [`backward_sums`] over
/// all `count` rows of the batch, of which `x` and `dy` may be a part. `g` is as there; where it was written, pass it as
/// `dy` and no epilogue.
#[allow(clippy::too_many_arguments, reason = "the symbols of the formula")]
pub fn backward(
    level: Level,
    norm: &Norm<'_>,
    count: f32,
    x: Values<'_>,
    dy: Values<'_>,
    dbeta: &[f32],
    dgamma: &[f32],
    dx: ValuesMut<'_>,
) {
    let channels = norm.channels();
    assert!(dbeta.len() == channels && dgamma.len() == channels);
    let sums = Backward { norm, count, dbeta, dgamma };
    match norm.epilogue {
        Epilogue::Linear => columns::map(level, channels, sums, [x, dy], dx),
        _ => rectified!(norm.epilogue, R => {
            columns::map(level, channels, RectifiedBackward::<R>(sums, PhantomData), [x, dy], dx);
        }),
    }
}

#[derive(Clone, Copy)]
struct Backward<'a> {
    norm: &'a Norm<'a>,
    count: f32,
    dbeta: &'a [f32],
    dgamma: &'a [f32],
}

impl ChannelMap<2, 4> for Backward<'_> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 4] {
        let inverse = self.norm.inverse(c);
        let scale = self.norm.gamma[c] * inverse;
        [self.norm.mean[c], scale, -scale * inverse * self.dgamma[c] / self.count, -scale * self.dbeta[c] / self.count]
    }
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, [x, g]: [I::F32; 2], [mean, scale, slope, offset]: [I::F32; 4]) -> I::F32 {
        isa.mul_add(g, scale, isa.mul_add(isa.sub(x, mean), slope, offset))
    }
}

#[derive(Clone, Copy)]
struct RectifiedBackward<'a, R>(Backward<'a>, PhantomData<R>);

impl<R: Rectifier> ChannelMap<2, 6> for RectifiedBackward<'_, R> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 6] {
        let ([_, forward, beta], [mean, scale, slope, offset]) = (self.0.norm.line(c), self.0.values(c));
        [mean, scale, slope, offset, forward, beta]
    }
    #[inline(always)]
    fn apply<I: Isa>(
        &self,
        isa: I,
        [x, dy]: [I::F32; 2],
        [mean, scale, slope, offset, forward, beta]: [I::F32; 6],
    ) -> I::F32 {
        let g = R::pass(isa, normalized(isa, x, [mean, forward, beta]), dy);
        self.0.apply(isa, [x, g], [mean, scale, slope, offset])
    }
}

#[cfg(test)]
mod tests;
