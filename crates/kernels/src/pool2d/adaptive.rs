//! Average pooling to a given size: windows of nearly equal size that cover the image, as PyTorch's `AdaptiveAvgPool2d`.

use crate::isa::{Isa, Kernel, Level};
use std::ops::Range;

/// The geometry of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdaptiveShape {
    /// Height, width, channels.
    pub input: [usize; 3],
    /// Rows and columns of the output.
    pub output: [usize; 2],
}

impl AdaptiveShape {
    fn len(&self) -> usize {
        self.input.iter().product()
    }

    fn output_len(&self) -> usize {
        self.output[0] * self.output[1] * self.input[2]
    }

    fn check(&self, samples: usize, x: usize, y: usize) {
        assert!(self.input.iter().chain(&self.output).all(|&n| n > 0), "no empty axis");
        assert!(x == samples * self.len() && y == samples * self.output_len(), "whole samples");
    }

    /// The pixels that the window at `n` of an axis covers.
    fn window(&self, axis: usize, n: usize) -> Range<usize> {
        let (from, to) = (self.input[axis], self.output[axis]);
        n * from / to..((n + 1) * from).div_ceil(to)
    }

    /// Every window: its place in the output, and its rows and columns.
    fn windows(&self) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> + '_ {
        (0..self.output[0] * self.output[1]).map(|n| {
            let (row, column) = (n / self.output[1], n % self.output[1]);
            (n, self.window(0, row), self.window(1, column))
        })
    }
}

/// `y = mean over the window`
pub fn adaptive_average_forward(level: Level, shape: &AdaptiveShape, samples: usize, x: &[f32], y: &mut [f32]) {
    shape.check(samples, x.len(), y.len());
    level.dispatch(Forward { shape, x, y });
}

/// `dx = Σ over windows of dy / pixels`
pub fn adaptive_average_backward(level: Level, shape: &AdaptiveShape, samples: usize, dy: &[f32], dx: &mut [f32]) {
    shape.check(samples, dx.len(), dy.len());
    dx.fill(0.0);
    level.dispatch(Backward { shape, dy, dx });
}

struct Forward<'a> {
    shape: &'a AdaptiveShape,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [_, width, channels] = self.shape.input;
        let samples = self.x.chunks_exact(self.shape.len()).zip(self.y.chunks_exact_mut(self.shape.output_len()));
        for (x, y) in samples {
            for (place, rows, columns) in self.shape.windows() {
                let share = isa.splat(1.0 / (rows.len() * columns.len()) as f32);
                for c in (0..channels).step_by(I::LANES) {
                    let mask = isa.first(channels - c);
                    let mut sum = isa.zero();
                    for row in rows.clone() {
                        for column in columns.clone() {
                            let at = (row * width + column) * channels + c;
                            // SAFETY: the window lies in the image, and the lanes of the mask end with the pixel.
                            sum = isa.add(sum, unsafe { isa.load_masked(mask, x.as_ptr().add(at)) });
                        }
                    }
                    // SAFETY: there is a pixel of the output for each window, and the mask ends with it.
                    unsafe {
                        isa.store_masked(mask, y.as_mut_ptr().add(place * channels + c), isa.mul(sum, share));
                    }
                }
            }
        }
    }
}

struct Backward<'a> {
    shape: &'a AdaptiveShape,
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [_, width, channels] = self.shape.input;
        let samples = self.dy.chunks_exact(self.shape.output_len()).zip(self.dx.chunks_exact_mut(self.shape.len()));
        for (dy, dx) in samples {
            for (place, rows, columns) in self.shape.windows() {
                let share = isa.splat(1.0 / (rows.len() * columns.len()) as f32);
                for c in (0..channels).step_by(I::LANES) {
                    let mask = isa.first(channels - c);
                    // SAFETY: as forward.
                    let part = unsafe { isa.load_masked(mask, dy.as_ptr().add(place * channels + c)) };
                    let part = isa.mul(part, share);
                    for row in rows.clone() {
                        for column in columns.clone() {
                            // SAFETY: as forward.
                            unsafe {
                                let at = dx.as_mut_ptr().add((row * width + column) * channels + c);
                                isa.store_masked(mask, at, isa.add(isa.load_masked(mask, at), part));
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{STALE, close, dot, gradient, output, values, wide};

    fn exact(shape: &AdaptiveShape, x: &[f64]) -> Vec<f64> {
        let [_, width, channels] = shape.input;
        let mut y = Vec::new();
        for x in x.chunks(shape.len()) {
            for (_, rows, columns) in shape.windows() {
                for c in 0..channels {
                    let values =
                        rows.clone().flat_map(|r| columns.clone().map(move |k| (r * width + k) * channels + c));
                    y.push(values.clone().map(|i| x[i]).sum::<f64>() / values.count() as f64);
                }
            }
        }
        y
    }

    #[test]
    fn windows_are_pytorchs() {
        let shape = AdaptiveShape { input: [10, 3, 1], output: [7, 7] };
        let rows: Vec<_> = (0..7).map(|n| shape.window(0, n)).collect();
        assert_eq!(rows, [0..2, 1..3, 2..5, 4..6, 5..8, 7..9, 8..10]);
        let columns: Vec<_> = (0..7).map(|n| shape.window(1, n)).collect();
        assert_eq!(columns, [0..1, 0..1, 0..2, 1..2, 1..3, 2..3, 2..3]);
    }

    #[test]
    fn means_and_gradients_are_exact() {
        for level in Level::available() {
            for (input, to) in [([7, 7, 3], [7, 7]), ([10, 3, 17], [7, 7]), ([5, 4, 40], [1, 1]), ([1, 1, 9], [3, 2])] {
                let shape = AdaptiveShape { input, output: to };
                for samples in [0, 1, 2] {
                    let x = values(samples * shape.len(), 1);
                    let dy = values(samples * shape.output_len(), 2);
                    let got = output(dy.len(), STALE, |y| adaptive_average_forward(level, &shape, samples, &x, y));
                    close((level, shape), &got, &exact(&shape, &wide(&x)), 16.0, 3.0);
                    let got = output(x.len(), STALE, |dx| adaptive_average_backward(level, &shape, samples, &dy, dx));
                    let want = gradient(|x| dot(&exact(&shape, x), &wide(&dy)), &wide(&x));
                    close((level, shape), &got, &want, 16.0, 10.0);
                }
            }
        }
    }
}
