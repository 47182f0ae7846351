//! Softmax over the classes of each sample, `[samples][classes]`.

use crate::isa::{Isa, Kernel, Level};
use crate::math;

/// `y = e^x / Σ e^x` for each sample, without overflow.
pub fn forward(level: Level, classes: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    check(classes, x.len());
    level.dispatch(Forward { classes, x, y });
}

/// `dx = y (dy - Σ y dy)` for each sample.
pub fn backward(level: Level, classes: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(y.len() == dx.len() && dy.len() == dx.len());
    check(classes, y.len());
    level.dispatch(Backward { classes, y, dy, dx });
}

pub(crate) fn check(classes: usize, len: usize) {
    assert!(classes > 0 && len.is_multiple_of(classes), "{len} values are no whole samples of {classes} classes");
}

struct Forward<'a> {
    classes: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (x, y) in self.x.chunks_exact(self.classes).zip(self.y.chunks_exact_mut(self.classes)) {
            sample(isa, x, y);
        }
    }
}

/// Writes the softmax of one sample and returns its largest logit and the sum of `e^(x - largest)`.
#[inline(always)]
pub(crate) fn sample<I: Isa>(isa: I, x: &[f32], y: &mut [f32]) -> (f32, f32) {
    let len = x.len();
    assert_eq!(len, y.len());
    let whole = len - len % I::LANES;
    let tail = isa.first(len - whole);
    // The lanes that are not there must not be the largest.
    let mut largest = isa.splat(f32::NEG_INFINITY);
    let mut sum = isa.zero();
    // SAFETY: whole vectors end at `whole <= len`, the mask at `len`; both slices have `len` values.
    unsafe {
        for i in (0..whole).step_by(I::LANES) {
            largest = isa.max(largest, isa.load(x.as_ptr().add(i)));
        }
        if whole < len {
            let v = isa.load_masked(tail, x.as_ptr().add(whole));
            largest = isa.max(largest, isa.select(tail, v, largest));
        }
        let largest = isa.largest(largest);
        let shift = isa.splat(largest);
        for i in (0..whole).step_by(I::LANES) {
            let e = math::exp(isa, isa.sub(isa.load(x.as_ptr().add(i)), shift));
            isa.store(y.as_mut_ptr().add(i), e);
            sum = isa.add(sum, e);
        }
        if whole < len {
            let e = math::exp(isa, isa.sub(isa.load_masked(tail, x.as_ptr().add(whole)), shift));
            isa.store_masked(tail, y.as_mut_ptr().add(whole), e);
            sum = isa.add(sum, isa.select(tail, e, isa.zero()));
        }
        let sum = isa.sum(sum);
        let factor = isa.splat(1.0 / sum);
        for i in (0..whole).step_by(I::LANES) {
            let at = y.as_mut_ptr().add(i);
            isa.store(at, isa.mul(isa.load(at), factor));
        }
        if whole < len {
            let at = y.as_mut_ptr().add(whole);
            isa.store_masked(tail, at, isa.mul(isa.load_masked(tail, at), factor));
        }
        (largest, sum)
    }
}

struct Backward<'a> {
    classes: usize,
    y: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let len = self.classes;
        let whole = len - len % I::LANES;
        let tail = isa.first(len - whole);
        let samples = self.y.chunks_exact(len).zip(self.dy.chunks_exact(len)).zip(self.dx.chunks_exact_mut(len));
        for ((y, dy), dx) in samples {
            let mut sum = isa.zero();
            // SAFETY: whole vectors end at `whole <= len`, the mask at `len`; each slice has `len` values.
            unsafe {
                for i in (0..whole).step_by(I::LANES) {
                    sum = isa.mul_add(isa.load(y.as_ptr().add(i)), isa.load(dy.as_ptr().add(i)), sum);
                }
                if whole < len {
                    let y = isa.load_masked(tail, y.as_ptr().add(whole));
                    sum = isa.mul_add(y, isa.load_masked(tail, dy.as_ptr().add(whole)), sum);
                }
                let sum = isa.splat(isa.sum(sum));
                for i in (0..whole).step_by(I::LANES) {
                    let d = isa.sub(isa.load(dy.as_ptr().add(i)), sum);
                    isa.store(dx.as_mut_ptr().add(i), isa.mul(isa.load(y.as_ptr().add(i)), d));
                }
                if whole < len {
                    let d = isa.sub(isa.load_masked(tail, dy.as_ptr().add(whole)), sum);
                    let d = isa.mul(isa.load_masked(tail, y.as_ptr().add(whole)), d);
                    isa.store_masked(tail, dx.as_mut_ptr().add(whole), d);
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{CHANNELS, STALE, close, dot, gradient, output, values, wide};

    pub(crate) fn exact(x: &[f64]) -> Vec<f64> {
        let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - largest).exp()).sum();
        x.iter().map(|x| (x - largest).exp() / sum).collect()
    }

    #[test]
    fn forward_and_backward_match_the_formulas() {
        for level in Level::available() {
            for classes in CHANNELS {
                let len = 3 * classes;
                let (x, dy) = (values(len, 1), values(len, 2));
                let y = output(len, STALE, |y| forward(level, classes, &x, y));
                let want: Vec<f64> = x.chunks(classes).flat_map(|x| exact(&wide(x))).collect();
                close((level, classes), &y, &want, 12.0, 0.0);
                let dx = output(len, STALE, |dx| backward(level, classes, &y, &dy, dx));
                if classes <= 65 {
                    let f = |x: &[f64], dy: &[f32]| dot(&exact(x), &wide(dy));
                    let want: Vec<f64> = x
                        .chunks(classes)
                        .zip(dy.chunks(classes))
                        .flat_map(|(x, dy)| gradient(|x| f(x, dy), &wide(x)))
                        .collect();
                    close((level, classes), &dx, &want, 12.0, 0.3);
                }
            }
        }
    }

    #[test]
    fn large_and_impossible_logits_do_no_harm() {
        for level in Level::available() {
            let y = output(3, STALE, |y| forward(level, 3, &[1000.0, 1000.0, f32::NEG_INFINITY], y));
            assert_eq!(y, [0.5, 0.5, 0.0]);
            // The zeros beyond a tail must not count as logits.
            let y = output(3, STALE, |y| forward(level, 3, &[-1000.0, -1000.0, -2000.0], y));
            assert_eq!(y, [0.5, 0.5, 0.0]);
        }
    }
}
