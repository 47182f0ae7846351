//! Pooling over all pixels: `[samples][pixels][channels]` to `[samples][channels]`.

use crate::columns::{self, ChannelMap};
use crate::isa::{Isa, Kernel, Level};
use crate::reduce;

fn check(pixels: usize, channels: usize, samples: usize, x: usize, y: usize) {
    assert!(pixels > 0 && channels > 0);
    assert_eq!(x, samples * pixels * channels);
    assert_eq!(y, samples * channels);
}

/// `y = mean over pixels of x`
pub fn global_average_forward(level: Level, pixels: usize, channels: usize, samples: usize, x: &[f32], y: &mut [f32]) {
    check(pixels, channels, samples, x.len(), y.len());
    for (x, y) in x.chunks_exact(pixels * channels).zip(y.chunks_exact_mut(channels)) {
        reduce::column_sums(level, channels, x, y, false);
        y.iter_mut().for_each(|sum| *sum /= pixels as f32);
    }
}

/// `dx = dy / pixels` at every pixel
pub fn global_average_backward(
    level: Level,
    pixels: usize,
    channels: usize,
    samples: usize,
    dy: &[f32],
    dx: &mut [f32],
) {
    check(pixels, channels, samples, dx.len(), dy.len());
    for (dx, dy) in dx.chunks_exact_mut(pixels * channels).zip(dy.chunks_exact(channels)) {
        columns::map(level, channels, Share { dy, share: 1.0 / pixels as f32 }, [], dx.into());
    }
}

#[derive(Clone, Copy)]
struct Share<'a> {
    dy: &'a [f32],
    share: f32,
}

impl ChannelMap<0, 1> for Share<'_> {
    #[inline(always)]
    fn values(&self, c: usize) -> [f32; 1] {
        [self.dy[c] * self.share]
    }
    #[inline(always)]
    fn apply<I: Isa>(&self, _: I, []: [I::F32; 0], [part]: [I::F32; 1]) -> I::F32 {
        part
    }
}

/// `y = max over pixels of x`, the first of equals; `argmax` is that pixel's index, a whole number as `f32`.
///
/// `argmax` may be empty where no gradient is wanted. There are at most 2^24 pixels, so that every index is exact.
pub fn global_max_forward(
    level: Level,
    pixels: usize,
    channels: usize,
    samples: usize,
    x: &[f32],
    y: &mut [f32],
    argmax: &mut [f32],
) {
    check(pixels, channels, samples, x.len(), y.len());
    assert!(argmax.is_empty() || argmax.len() == y.len());
    assert!(pixels <= 1 << 24, "{pixels} pixels");
    level.dispatch(MaxForward { pixels, channels, x, y, argmax });
}

struct MaxForward<'a> {
    pixels: usize,
    channels: usize,
    x: &'a [f32],
    y: &'a mut [f32],
    argmax: &'a mut [f32],
}

impl Kernel for MaxForward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let MaxForward { pixels, channels, x, y, argmax } = self;
        let samples = x.chunks_exact(pixels * channels).zip(y.chunks_exact_mut(channels));
        for (sample, (x, y)) in samples.enumerate() {
            for c in (0..channels).step_by(I::LANES) {
                let mask = isa.first(channels - c);
                let (mut best, mut position) = (isa.zero(), isa.zero());
                for pixel in 0..pixels {
                    // SAFETY: the lanes of the mask end at `channels`, the end of this pixel.
                    let v = unsafe { isa.load_masked(mask, x.as_ptr().add(pixel * channels + c)) };
                    if pixel == 0 {
                        best = v;
                    }
                    let better = isa.greater(v, best);
                    position = isa.select(better, isa.splat(pixel as f32), position);
                    best = isa.select(better, v, best);
                }
                // SAFETY: the lanes of the mask end at `channels`, the length of `y` and of this part of `argmax`.
                unsafe {
                    isa.store_masked(mask, y.as_mut_ptr().add(c), best);
                    if !argmax.is_empty() {
                        let argmax = &mut argmax[sample * channels..][..channels];
                        isa.store_masked(mask, argmax.as_mut_ptr().add(c), position);
                    }
                }
            }
        }
    }
}

/// `dx = dy` at the pixel of the maximum, zero elsewhere.
///
/// # Panics
/// Where `argmax` holds no index of a pixel.
pub fn global_max_backward(
    _level: Level,
    pixels: usize,
    channels: usize,
    samples: usize,
    dy: &[f32],
    argmax: &[f32],
    dx: &mut [f32],
) {
    check(pixels, channels, samples, dx.len(), dy.len());
    assert_eq!(argmax.len(), dy.len());
    // One value in each column: writing zeros is all the work there is.
    dx.fill(0.0);
    let samples = dx.chunks_exact_mut(pixels * channels);
    for ((dx, dy), argmax) in samples.zip(dy.chunks_exact(channels)).zip(argmax.chunks_exact(channels)) {
        for c in 0..channels {
            dx[argmax[c] as usize * channels + c] = dy[c];
        }
    }
}
