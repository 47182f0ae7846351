//! Max pooling, with the position of the maximum for backward.

use super::PoolShape;
use crate::isa::{Isa, Kernel, Level};

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

/// The lanes of the widest vector.
const LANES: usize = 16;

impl<const ARGMAX: bool> Kernel for Forward<'_, ARGMAX> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [_, in_width, channels] = self.shape.input;
        let [out_height, out_width, _] = self.shape.output();
        let mut out = 0;
        for sample in 0..self.samples {
            let x = &self.x[sample * self.shape.input_len()..][..self.shape.input_len()];
            for oy in 0..out_height {
                let (rows, first_row) = self.shape.rows(oy);
                for ox in 0..out_width {
                    let (columns, first_column) = self.shape.columns(ox);
                    let mut c = 0;
                    while c < channels {
                        let count = (channels - c).min(I::LANES);
                        let mask = isa.first(count);
                        // SAFETY: rows and columns lie in the image and `c + count <= channels`.
                        let load = |row: usize, column: usize| unsafe {
                            let at = x.as_ptr().add((row * in_width + column) * channels + c);
                            if count == I::LANES { isa.load(at) } else { isa.load_masked(mask, at) }
                        };
                        let mut best = load(rows.start, columns.start);
                        let mut position = isa.splat((first_row * self.shape.size[1] + first_column) as f32);
                        for (ky, row) in rows.clone().enumerate() {
                            let start = (first_row + ky) * self.shape.size[1] + first_column;
                            for (kx, column) in columns.clone().enumerate() {
                                let v = load(row, column);
                                if ARGMAX {
                                    let better = isa.greater(v, best);
                                    position = isa.select(better, isa.splat((start + kx) as f32), position);
                                    best = isa.select(better, v, best);
                                } else {
                                    best = isa.max(v, best);
                                }
                            }
                        }
                        // SAFETY: `out + count` is at most the output's length.
                        unsafe { isa.store_masked(mask, self.y[out..out + count].as_mut_ptr(), best) };
                        if ARGMAX {
                            let mut lanes = [0.0f32; LANES];
                            // SAFETY: no vector has more than `LANES` lanes.
                            unsafe { isa.store(lanes.as_mut_ptr(), position) };
                            for (to, &lane) in self.argmax[out..out + count].iter_mut().zip(&lanes) {
                                // SAFETY: positions are at most 254.
                                *to = unsafe { lane.to_int_unchecked::<i32>() } as u8;
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
    fn run<I: Isa>(self, isa: I) {
        let [_, in_width, channels] = self.shape.input;
        let [out_height, out_width, _] = self.shape.output();
        let mut out = 0;
        for sample in 0..self.samples {
            let dx = &mut self.dx[sample * self.shape.input_len()..][..self.shape.input_len()];
            for oy in 0..out_height {
                let (rows, first_row) = self.shape.rows(oy);
                for ox in 0..out_width {
                    let (columns, first_column) = self.shape.columns(ox);
                    let mut c = 0;
                    while c < channels {
                        let count = (channels - c).min(I::LANES);
                        let mask = isa.first(count);
                        let mut lanes = [0.0f32; LANES];
                        for (lane, &position) in lanes.iter_mut().zip(&self.argmax[out..out + count]) {
                            *lane = f32::from(position);
                        }
                        // SAFETY: no vector has more than `LANES` lanes; the mask has `count`, the slice's length.
                        let (position, dy) = unsafe {
                            (isa.load(lanes.as_ptr()), isa.load_masked(mask, self.dy[out..out + count].as_ptr()))
                        };
                        for (ky, row) in rows.clone().enumerate() {
                            let start = (first_row + ky) * self.shape.size[1] + first_column;
                            for (kx, column) in columns.clone().enumerate() {
                                let here = isa.equal(position, isa.splat((start + kx) as f32));
                                let mut d = isa.select(here, dy, isa.zero());
                                // SAFETY: rows and columns lie in the image and `c + count <= channels`.
                                unsafe {
                                    let at = dx.as_mut_ptr().add((row * in_width + column) * channels + c);
                                    if ADD {
                                        d = isa.add(d, isa.load_masked(mask, at));
                                    }
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
