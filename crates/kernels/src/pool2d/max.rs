//! Max pooling, with the position of the maximum for backward.

use super::PoolShape;
use crate::isa::{Isa, Kernel, Level};
use std::ops::Range;

/// `y = max over the window`, the first of equals; `argmax` is its position in the window, row-major.
///
/// `argmax` may be empty where no gradient is wanted; else the window has at most 255 positions.
pub fn max_forward(level: Level, shape: &PoolShape, samples: usize, x: &[f32], y: &mut [f32], argmax: &mut [u8]) {
    shape.check(samples, x.len(), y.len());
    if argmax.is_empty() {
        level.dispatch(Forward::<false> { shape, samples, x, y, argmax });
    } else {
        assert!(argmax.len() == y.len() && shape.size[0] * shape.size[1] <= 255);
        level.dispatch(Forward::<true> { shape, samples, x, y, argmax });
    }
}

/// `dx = dy` at each window's maximum, summed where windows overlap, zero elsewhere.
pub fn max_backward(level: Level, shape: &PoolShape, samples: usize, dy: &[f32], argmax: &[u8], dx: &mut [f32]) {
    shape.check(samples, dx.len(), dy.len());
    assert_eq!(argmax.len(), dy.len());
    if shape.is_partition() {
        level.dispatch(Backward::<false> { shape, samples, dy, argmax, dx });
    } else {
        dx.fill(0.0);
        level.dispatch(Backward::<true> { shape, samples, dy, argmax, dx });
    }
}

struct Forward<'a, const ARGMAX: bool> {
    shape: &'a PoolShape,
    samples: usize,
    x: &'a [f32],
    y: &'a mut [f32],
    argmax: &'a mut [u8],
}

/// The part of a window that lies in the image.
struct Window {
    rows: Range<usize>,
    columns: Range<usize>,
    /// The position in the window of its first value in the image.
    first: usize,
}

impl Window {
    #[inline(always)]
    fn new(shape: &PoolShape, oy: usize, ox: usize) -> Self {
        let ((rows, row), (columns, column)) = (shape.rows(oy), shape.columns(ox));
        Window { rows, columns, first: row * shape.size[1] + column }
    }
}

impl<const ARGMAX: bool> Kernel for Forward<'_, ARGMAX> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [out_height, out_width, channels] = self.shape.output();
        let mut out = 0;
        for sample in 0..self.samples {
            for oy in 0..out_height {
                for ox in 0..out_width {
                    let window = Window::new(self.shape, oy, ox);
                    let mut c = 0;
                    while c + 2 * I::LANES <= channels {
                        self.window::<I, 2>(isa, &window, sample, c, I::LANES, out + c);
                        c += 2 * I::LANES;
                    }
                    while c < channels {
                        self.window::<I, 1>(isa, &window, sample, c, channels - c, out + c);
                        c += I::LANES;
                    }
                    out += channels;
                }
            }
        }
    }
}

impl<const ARGMAX: bool> Forward<'_, ARGMAX> {
    /// The maxima of `V` vectors of channels from `c` on, written from `out` on; a single one may have fewer `lanes`.
    #[inline(always)]
    fn window<I: Isa, const V: usize>(
        &mut self,
        isa: I,
        window: &Window,
        sample: usize,
        c: usize,
        lanes: usize,
        out: usize,
    ) {
        let [_, in_width, channels] = self.shape.input;
        let x = &self.x[sample * self.shape.input_len()..][..self.shape.input_len()];
        let whole = lanes >= I::LANES;
        let (mask, last) = (isa.first(lanes), lanes.min(I::LANES));
        let mut best = [isa.splat(f32::NEG_INFINITY); V];
        let mut position = [isa.position(window.first as u8); V];
        for (ky, row) in window.rows.clone().enumerate() {
            for (kx, column) in window.columns.clone().enumerate() {
                // At most 254.
                let here = isa.position((window.first + ky * self.shape.size[1] + kx) as u8);
                for v in 0..V {
                    // SAFETY: row and column lie in the image, and the vector's lanes in its channels.
                    let value = unsafe {
                        let at = x.as_ptr().add((row * in_width + column) * channels + c + v * I::LANES);
                        if whole { isa.load(at) } else { isa.load_masked(mask, at) }
                    };
                    if ARGMAX {
                        position[v] = isa.select_position(isa.greater(value, best[v]), here, position[v]);
                    }
                    // In this order a window of nothing but NaN gives NaN.
                    best[v] = isa.max(best[v], value);
                }
            }
        }
        for v in 0..V {
            let range = out + v * I::LANES..out + v * I::LANES + last;
            // SAFETY: the slices have `last` values, as the mask has lanes.
            unsafe {
                isa.store_masked(mask, self.y[range.clone()].as_mut_ptr(), best[v]);
                if ARGMAX {
                    isa.store_positions(self.argmax[range].as_mut_ptr(), last, position[v]);
                }
            }
        }
    }
}

struct Backward<'a, const ADD: bool> {
    shape: &'a PoolShape,
    samples: usize,
    dy: &'a [f32],
    argmax: &'a [u8],
    dx: &'a mut [f32],
}

impl<const ADD: bool> Kernel for Backward<'_, ADD> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let [out_height, out_width, channels] = self.shape.output();
        let mut out = 0;
        for sample in 0..self.samples {
            for oy in 0..out_height {
                for ox in 0..out_width {
                    let window = Window::new(self.shape, oy, ox);
                    let mut c = 0;
                    while c + 2 * I::LANES <= channels {
                        self.window::<I, 2>(isa, &window, sample, c, I::LANES, out + c);
                        c += 2 * I::LANES;
                    }
                    while c < channels {
                        self.window::<I, 1>(isa, &window, sample, c, channels - c, out + c);
                        c += I::LANES;
                    }
                    out += channels;
                }
            }
        }
    }
}

impl<const ADD: bool> Backward<'_, ADD> {
    /// Sends the gradients from `out` on back to `V` vectors of channels from `c` on.
    #[inline(always)]
    fn window<I: Isa, const V: usize>(
        &mut self,
        isa: I,
        window: &Window,
        sample: usize,
        c: usize,
        lanes: usize,
        out: usize,
    ) {
        let [_, in_width, channels] = self.shape.input;
        let dx = &mut self.dx[sample * self.shape.input_len()..][..self.shape.input_len()];
        let whole = lanes >= I::LANES;
        let (mask, last) = (isa.first(lanes), lanes.min(I::LANES));
        let (mut position, mut dy) = ([isa.zero(); V], [isa.zero(); V]);
        for v in 0..V {
            let range = out + v * I::LANES..out + v * I::LANES + last;
            // SAFETY: both slices have `last` values, as the mask has lanes.
            unsafe {
                position[v] = isa.load_bytes(self.argmax[range.clone()].as_ptr(), last);
                dy[v] = isa.load_masked(mask, self.dy[range].as_ptr());
            }
        }
        for (ky, row) in window.rows.clone().enumerate() {
            for (kx, column) in window.columns.clone().enumerate() {
                let here = isa.splat((window.first + ky * self.shape.size[1] + kx) as f32);
                for v in 0..V {
                    let mut d = isa.select(isa.equal(position[v], here), dy[v], isa.zero());
                    // SAFETY: row and column lie in the image, and the vector's lanes in its channels.
                    unsafe {
                        let at = dx.as_mut_ptr().add((row * in_width + column) * channels + c + v * I::LANES);
                        if whole {
                            if ADD {
                                d = isa.add(d, isa.load(at));
                            }
                            isa.store(at, d);
                        } else {
                            if ADD {
                                d = isa.add(d, isa.load_masked(mask, at));
                            }
                            isa.store_masked(mask, at, d);
                        }
                    }
                }
            }
        }
    }
}
