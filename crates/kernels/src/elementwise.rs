//! Sums, products and copies of whole arrays.

use crate::columns::{self, ChannelMap};
use crate::conv::Epilogue;
use crate::isa::{Isa, Kernel, Level};
use crate::map::{Map, map};
use crate::rectifier::{Rectifier, rectified};
use crate::reduce;
use std::marker::PhantomData;

/// `y = a + b`
pub fn add(level: Level, a: &[f32], b: &[f32], y: &mut [f32]) {
    map(level, Add, [a, b], y);
}

/// `y = f(a + b)` with `f` a rectifier.
pub fn add_rectified(level: Level, epilogue: Epilogue, a: &[f32], b: &[f32], y: &mut [f32]) {
    rectified!(epilogue, R => map(level, AddRectified::<R>(PhantomData), [a, b], y));
}

/// `y = a * b`, value by value.
pub fn multiply(level: Level, a: &[f32], b: &[f32], y: &mut [f32]) {
    map(level, Multiply, [a, b], y);
}

/// `y = factor * x`
pub fn scale(level: Level, factor: f32, x: &[f32], y: &mut [f32]) {
    map(level, Scale(factor), [x], y);
}

/// `y[i] = factor[i / per_sample] * x[i]`
pub fn scale_samples(level: Level, per_sample: usize, factor: &[f32], x: &[f32], y: &mut [f32]) {
    assert!(x.len() == factor.len() * per_sample && y.len() == x.len());
    if per_sample > 0 {
        for ((x, y), &factor) in x.chunks_exact(per_sample).zip(y.chunks_exact_mut(per_sample)).zip(factor) {
            scale(level, factor, x, y);
        }
    }
}

#[derive(Clone, Copy)]
struct Add;
impl Map<2> for Add {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, [a, b]: [I::F32; 2]) -> I::F32 {
        isa.add(a, b)
    }
}

#[derive(Clone, Copy)]
struct AddRectified<R>(PhantomData<R>);
impl<R: Rectifier> Map<2> for AddRectified<R> {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, [a, b]: [I::F32; 2]) -> I::F32 {
        R::apply(isa, isa.add(a, b))
    }
}

#[derive(Clone, Copy)]
struct Multiply;
impl Map<2> for Multiply {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, [a, b]: [I::F32; 2]) -> I::F32 {
        isa.mul(a, b)
    }
}

#[derive(Clone, Copy)]
struct Scale(f32);
impl Map<1> for Scale {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        isa.mul(isa.splat(self.0), x)
    }
}

/// `y[row][c] = x[row][c] * scale[c] + offset[c]`
pub fn affine(level: Level, channels: usize, x: &[f32], scale: &[f32], offset: &[f32], y: &mut [f32]) {
    assert!(scale.len() == channels && offset.len() == channels);
    columns::map(level, channels, Affine { scale, offset }, [x.into()], y.into());
}

#[derive(Clone, Copy)]
struct Affine<'a> {
    scale: &'a [f32],
    offset: &'a [f32],
}

impl ChannelMap<1, 2> for Affine<'_> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 2] {
        [self.scale[c], self.offset[c]]
    }
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, [x]: [I::F32; 1], [scale, offset]: [I::F32; 2]) -> I::F32 {
        isa.mul_add(x, scale, offset)
    }
}

/// `y[row][c] = x[row][c] * scale[c] + offset[c]` for bytes: pixels become numbers here.
pub fn affine_u8(level: Level, channels: usize, x: &[u8], scale: &[f32], offset: &[f32], y: &mut [f32]) {
    assert!(scale.len() == channels && offset.len() == channels && x.len() == y.len());
    assert!(channels > 0 && x.len().is_multiple_of(channels));
    level.dispatch(AffineBytes { channels, x, scale, offset, y });
}

struct AffineBytes<'a> {
    channels: usize,
    x: &'a [u8],
    scale: &'a [f32],
    offset: &'a [f32],
    y: &'a mut [f32],
}

/// Values converted at once by [`affine_u8`].
const BYTES: usize = 512;

impl Kernel for AffineBytes<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // Whole rows at once, as many as fit; a row that is longer goes alone.
        let chunk = if self.channels <= BYTES { BYTES - BYTES % self.channels } else { self.channels };
        let chunk = chunk.min(self.x.len().max(1));
        let (mut scale, mut offset) = ([0.0f32; BYTES], [0.0f32; BYTES]);
        let patterned = self.channels <= BYTES;
        if patterned {
            for (pattern, values) in [(&mut scale, self.scale), (&mut offset, self.offset)] {
                pattern[..self.channels].copy_from_slice(values);
                columns::repeat(&mut pattern[..chunk.next_multiple_of(self.channels).min(BYTES)], self.channels);
            }
        }
        for (x, y) in self.x.chunks(chunk).zip(self.y.chunks_mut(chunk)) {
            if patterned {
                bytes(isa, x, &scale, &offset, y);
            } else {
                bytes(isa, x, self.scale, self.offset, y);
            }
        }
    }
}

/// A plain loop: the compiler has the conversions from bytes that [`Isa`] lacks.
#[inline(always)]
fn bytes<I: Isa>(_: I, x: &[u8], scale: &[f32], offset: &[f32], y: &mut [f32]) {
    let len = y.len();
    let (x, scale, offset) = (&x[..len], &scale[..len], &offset[..len]);
    for i in 0..len {
        y[i] = f32::from(x[i]) * scale[i] + offset[i];
    }
}

/// Copies `width` columns of each of `rows` rows: `y[row][y_start..][..width] = x[row][x_start..][..width]`.
/// Concatenation and its gradient, slicing.
#[allow(clippy::too_many_arguments, reason = "two places and a size")]
pub fn copy_columns(
    rows: usize,
    x: &[f32],
    x_width: usize,
    x_start: usize,
    y: &mut [f32],
    y_width: usize,
    y_start: usize,
    width: usize,
) {
    assert!(x.len() == rows * x_width && y.len() == rows * y_width);
    assert!(x_start + width <= x_width && y_start + width <= y_width);
    for row in 0..rows {
        let from = row * x_width + x_start;
        y[row * y_width + y_start..][..width].copy_from_slice(&x[from..from + width]);
    }
}

/// `y[sample][pixel][c] = x[sample][pixel][c] * s[sample][c]`; also the gradient by `x`, of `dy`.
pub fn multiply_channels(level: Level, pixels: usize, channels: usize, x: &[f32], s: &[f32], y: &mut [f32]) {
    let size = pixels * channels;
    assert!(size > 0 && x.len() == y.len() && x.len().is_multiple_of(size) && s.len() * pixels == x.len());
    for ((x, y), scale) in x.chunks_exact(size).zip(y.chunks_exact_mut(size)).zip(s.chunks_exact(channels)) {
        columns::map(level, channels, MultiplyChannels { scale }, [x.into()], y.into());
    }
}

#[derive(Clone, Copy)]
struct MultiplyChannels<'a> {
    scale: &'a [f32],
}

impl ChannelMap<1, 1> for MultiplyChannels<'_> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 1] {
        [self.scale[c]]
    }
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, [x]: [I::F32; 1], [scale]: [I::F32; 1]) -> I::F32 {
        isa.mul(x, scale)
    }
}

/// `ds[sample][c] = Σ over pixels of dy x`, the gradient of [`multiply_channels`] by `s`.
pub fn multiply_channels_backward(level: Level, pixels: usize, channels: usize, x: &[f32], dy: &[f32], ds: &mut [f32]) {
    let size = pixels * channels;
    assert!(size > 0 && x.len() == dy.len() && x.len().is_multiple_of(size) && ds.len() * pixels == x.len());
    for ((x, dy), ds) in x.chunks_exact(size).zip(dy.chunks_exact(size)).zip(ds.chunks_exact_mut(channels)) {
        reduce::column_products(level, channels, x, dy, ds, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CHANNELS, LENGTHS, STALE, close, output, values, wide};

    #[test]
    fn maps_match_scalar_arithmetic() {
        for level in Level::available() {
            for len in LENGTHS {
                let (a, b) = (values(len, 1), values(len, 2));
                let zip = |f: fn(f64, f64) -> f64| -> Vec<f64> {
                    wide(&a).iter().zip(&wide(&b)).map(|(&a, &b)| f(a, b)).collect()
                };
                close((level, len), &output(len, STALE, |y| add(level, &a, &b, y)), &zip(|a, b| a + b), 1.0, 1.0);
                let y = output(len, STALE, |y| add_rectified(level, Epilogue::Relu, &a, &b, y));
                close((level, len), &y, &zip(|a, b| (a + b).max(0.0)), 1.0, 1.0);
                let y = output(len, STALE, |y| add_rectified(level, Epilogue::Relu6, &a, &b, y));
                close((level, len), &y, &zip(|a, b| (a + b).clamp(0.0, 6.0)), 1.0, 1.0);
                close((level, len), &output(len, STALE, |y| multiply(level, &a, &b, y)), &zip(|a, b| a * b), 1.0, 0.0);
                close((level, len), &output(len, STALE, |y| scale(level, 0.5, &a, y)), &zip(|a, _| a * 0.5), 0.0, 0.0);
                let factor = values(3, 3);
                let x = values(3 * len, 4);
                let want: Vec<f64> =
                    x.iter().enumerate().map(|(i, &x)| f64::from(x) * f64::from(factor[i / len.max(1)])).collect();
                let y = output(3 * len, STALE, |y| scale_samples(level, len, &factor, &x, y));
                close((level, len), &y, &want, 1.0, 0.0);
            }
        }
    }

    #[test]
    fn values_per_channel_reach_their_channels() {
        for level in Level::available() {
            for channels in CHANNELS {
                for rows in [0, 1, 2, 7, 33, 131] {
                    let len = rows * channels;
                    let (s, o, x) = (values(channels, 1), values(channels, 2), values(len, 3));
                    let what = (level, channels, rows);
                    let want: Vec<f64> = (0..len)
                        .map(|i| f64::from(x[i]) * f64::from(s[i % channels]) + f64::from(o[i % channels]))
                        .collect();
                    close(what, &output(len, STALE, |y| affine(level, channels, &x, &s, &o, y)), &want, 1.5, 6.0);
                    let bytes: Vec<u8> = (0..len).map(|i| (i * 37 % 256) as u8).collect();
                    let want: Vec<f64> = (0..len)
                        .map(|i| f64::from(bytes[i]) * f64::from(s[i % channels]) + f64::from(o[i % channels]))
                        .collect();
                    close(
                        what,
                        &output(len, STALE, |y| affine_u8(level, channels, &bytes, &s, &o, y)),
                        &want,
                        1.5,
                        6.0,
                    );
                }
            }
        }
    }

    #[test]
    fn channels_are_scaled_by_sample() {
        for level in Level::available() {
            for (pixels, channels) in [(1, 1), (5, 3), (49, 16), (9, 33)] {
                let len = 2 * pixels * channels;
                let (x, dy, s) = (values(len, 1), values(len, 2), values(2 * channels, 3));
                let of = |i: usize| i / (pixels * channels) * channels + i % channels;
                let want: Vec<f64> = (0..len).map(|i| f64::from(x[i]) * f64::from(s[of(i)])).collect();
                let y = output(len, STALE, |y| multiply_channels(level, pixels, channels, &x, &s, y));
                close((level, pixels, channels), &y, &want, 1.0, 0.0);
                let mut want = vec![0.0; 2 * channels];
                (0..len).for_each(|i| want[of(i)] += f64::from(x[i]) * f64::from(dy[i]));
                let ds =
                    output(2 * channels, STALE, |ds| multiply_channels_backward(level, pixels, channels, &x, &dy, ds));
                close((level, pixels, channels), &ds, &want, 20.0, 20.0);
            }
        }
    }

    #[test]
    fn columns_are_copied_and_the_others_left() {
        let x: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let mut y = vec![-1.0; 15];
        copy_columns(3, &x, 4, 1, &mut y, 5, 3, 2);
        assert_eq!(y, [-1., -1., -1., 1., 2., -1., -1., -1., 5., 6., -1., -1., -1., 9., 10.]);
    }
}
