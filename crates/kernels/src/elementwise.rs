//! Sums, products and copies of whole arrays.

use crate::columns::{self, ChannelMap};
use crate::isa::{Isa, Kernel, Level};
use crate::map::{Map, map};
use crate::reduce;

/// `y = a + b`
pub fn add(level: Level, a: &[f32], b: &[f32], y: &mut [f32]) {
    map(level, Add, [a, b], y);
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
    columns::map(level, channels, Affine { scale, offset }, [x], y);
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
            for j in 0..chunk {
                scale[j] = if j < self.channels { self.scale[j] } else { scale[j - self.channels] };
                offset[j] = if j < self.channels { self.offset[j] } else { offset[j - self.channels] };
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
        columns::map(level, channels, MultiplyChannels { scale }, [x], y);
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
