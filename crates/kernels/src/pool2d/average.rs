//! Average pooling.

use super::PoolShape;
use crate::isa::{Isa, Kernel, Level};

/// `y = mean over the window's values that lie in the image`
pub fn average_forward(level: Level, shape: &PoolShape, samples: usize, x: &[f32], y: &mut [f32]) {
    shape.check(samples, x.len(), y.len());
    level.dispatch(Forward { shape, samples, x, y });
}

/// `dx = Σ over windows of dy / count`
pub fn average_backward(level: Level, shape: &PoolShape, samples: usize, dy: &[f32], dx: &mut [f32]) {
    shape.check(samples, dx.len(), dy.len());
    if shape.is_partition() {
        level.dispatch(Backward::<false> { shape, samples, dy, dx });
    } else {
        dx.fill(0.0);
        level.dispatch(Backward::<true> { shape, samples, dy, dx });
    }
}

struct Forward<'a> {
    shape: &'a PoolShape,
    samples: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [_, in_width, channels] = self.shape.input;
        let [out_height, out_width, _] = self.shape.output();
        let mut out = 0;
        for sample in 0..self.samples {
            let x = &self.x[sample * self.shape.input_len()..][..self.shape.input_len()];
            for oy in 0..out_height {
                let (rows, _) = self.shape.rows(oy);
                for ox in 0..out_width {
                    let (columns, _) = self.shape.columns(ox);
                    let share = isa.splat(1.0 / (rows.len() * columns.len()) as f32);
                    let mut c = 0;
                    while c < channels {
                        let count = (channels - c).min(I::LANES);
                        let mask = isa.first(count);
                        let mut sum = isa.zero();
                        for row in rows.clone() {
                            for column in columns.clone() {
                                // SAFETY: rows and columns lie in the image and `c + count <= channels`.
                                let v = unsafe {
                                    isa.load_masked(mask, x.as_ptr().add((row * in_width + column) * channels + c))
                                };
                                sum = isa.add(sum, v);
                            }
                        }
                        let to = self.y[out..out + count].as_mut_ptr();
                        // SAFETY: the mask has `count` lanes, the slice's length.
                        unsafe { isa.store_masked(mask, to, isa.mul(sum, share)) };
                        out += count;
                        c += count;
                    }
                }
            }
        }
    }
}

struct Backward<'a, const ADD: bool> {
    shape: &'a PoolShape,
    samples: usize,
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl<const ADD: bool> Kernel for Backward<'_, ADD> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [_, in_width, channels] = self.shape.input;
        let [out_height, out_width, _] = self.shape.output();
        let mut out = 0;
        for sample in 0..self.samples {
            let dx = &mut self.dx[sample * self.shape.input_len()..][..self.shape.input_len()];
            for oy in 0..out_height {
                let (rows, _) = self.shape.rows(oy);
                for ox in 0..out_width {
                    let (columns, _) = self.shape.columns(ox);
                    let share = isa.splat(1.0 / (rows.len() * columns.len()) as f32);
                    let mut c = 0;
                    while c < channels {
                        let count = (channels - c).min(I::LANES);
                        let mask = isa.first(count);
                        // SAFETY: the mask has `count` lanes, the slice's length.
                        let dy = unsafe { isa.load_masked(mask, self.dy[out..out + count].as_ptr()) };
                        let part = isa.mul(dy, share);
                        for row in rows.clone() {
                            for column in columns.clone() {
                                // SAFETY: rows and columns lie in the image and `c + count <= channels`.
                                unsafe {
                                    let at = dx.as_mut_ptr().add((row * in_width + column) * channels + c);
                                    let d = if ADD { isa.add(part, isa.load_masked(mask, at)) } else { part };
                                    isa.store_masked(mask, at, d);
                                }
                            }
                        }
                        out += count;
                        c += count;
                    }
                }
            }
        }
    }
}
