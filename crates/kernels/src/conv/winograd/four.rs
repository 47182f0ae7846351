//! The transforms of F(4x4, 3x3): 36 multiplications for 4x4 outputs instead of 144.
//!
//! The polynomials are evaluated at 0, ±5/8, ±3/2 and infinity. All constants of the patches' and the outputs' transforms are exact
//! in single precision, and none is large, which keeps the rounding near that of the direct way: about twice as much, where
//! the points 0, ±1, ±2 of the literature give more than four times as much (256 channels, rectified normal inputs: the test below).

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use crate::conv::pack::Place;
use crate::isa::{Isa, Kernel};

/// Matrices: one for each pixel of a transformed patch.
pub(super) const PARTS: usize = 36;

const A: f32 = 0.625;
const B: f32 = 1.5;

/// One axis of a patch, `B^T d`.
#[inline(always)]
fn patch<I: Isa>(isa: I, d: [I::F32; 6]) -> [I::F32; 6] {
    let (a, b) = (isa.splat(A), isa.splat(B));
    let (minus_a, minus_b) = (isa.splat(-A), isa.splat(-B));
    let (minus_a2, minus_b2) = (isa.splat(-A * A), isa.splat(-B * B));
    let (both, minus_sum) = (isa.splat(A * A * B * B), isa.splat(-A * A - B * B));
    let near = [isa.mul_add(minus_b2, d[1], d[3]), isa.mul_add(minus_b2, d[2], d[4])];
    let far = [isa.mul_add(minus_a2, d[1], d[3]), isa.mul_add(minus_a2, d[2], d[4])];
    [
        isa.mul_add(both, d[0], isa.mul_add(minus_sum, d[2], d[4])),
        isa.mul_add(a, near[0], near[1]),
        isa.mul_add(minus_a, near[0], near[1]),
        isa.mul_add(b, far[0], far[1]),
        isa.mul_add(minus_b, far[0], far[1]),
        isa.mul_add(both, d[1], isa.mul_add(minus_sum, d[3], d[5])),
    ]
}

/// One axis of the outputs, `A^T m`.
#[inline(always)]
fn outputs<I: Isa>(isa: I, m: [I::F32; 6]) -> [I::F32; 4] {
    let (near, near_odd) = (isa.add(m[1], m[2]), isa.sub(m[1], m[2]));
    let (far, far_odd) = (isa.add(m[3], m[4]), isa.sub(m[3], m[4]));
    [
        isa.add(m[0], isa.add(near, far)),
        isa.mul_add(isa.splat(B), far_odd, isa.mul(isa.splat(A), near_odd)),
        isa.mul_add(isa.splat(B * B), far, isa.mul(isa.splat(A * A), near)),
        isa.mul_add(isa.splat(B * B * B), far_odd, isa.mul_add(isa.splat(A * A * A), near_odd, m[5])),
    ]
}

/// One axis of a kernel, `G g`.
#[inline(always)]
fn kernel<I: Isa>(isa: I, g: [I::F32; 3]) -> [I::F32; 6] {
    const NEAR: f32 = 1.0 / (2.0 * A * A * (A * A - B * B));
    const FAR: f32 = 1.0 / (2.0 * B * B * (B * B - A * A));
    let near = isa.mul(isa.splat(NEAR), isa.mul_add(isa.splat(A * A), g[2], g[0]));
    let far = isa.mul(isa.splat(FAR), isa.mul_add(isa.splat(B * B), g[2], g[0]));
    let (near_odd, far_odd) = (isa.mul(isa.splat(A * NEAR), g[1]), isa.mul(isa.splat(B * FAR), g[1]));
    [
        isa.mul(isa.splat(1.0 / (A * A * B * B)), g[0]),
        isa.add(near, near_odd),
        isa.sub(near, near_odd),
        isa.add(far, far_odd),
        isa.sub(far, far_odd),
        g[2],
    ]
}

/// Transforms one vector of channels of a patch of 6x6 pixels at `from`, `B^T d B`, to 36 vectors `part` values apart.
///
/// # Safety
/// Of every pixel, `left` channels, at most a vector, are readable; the vectors are writable.
#[inline(always)]
pub(super) unsafe fn transform_patch<I: Isa>(
    isa: I,
    from: *const f32,
    pitch: usize,
    channels: usize,
    left: usize,
    to: *mut f32,
    part: usize,
) {
    let mask = isa.first(left);
    let mut rows = [[isa.zero(); 6]; 6];
    for column in 0..6 {
        let mut pixels = [isa.zero(); 6];
        for row in 0..6 {
            // SAFETY: the caller's promise.
            unsafe {
                let from = from.add(row * pitch + column * channels);
                pixels[row] = if left >= I::LANES { isa.load(from) } else { isa.load_masked(mask, from) };
            }
        }
        let transformed = patch(isa, pixels);
        for row in 0..6 {
            rows[row][column] = transformed[row];
        }
    }
    for row in 0..6 {
        let transformed = patch(isa, rows[row]);
        for column in 0..6 {
            // SAFETY: the caller's promise.
            unsafe { isa.store(to.add((6 * row + column) * part), transformed[column]) };
        }
    }
}

/// One vector of filters of 4x4 outputs, `A^T m A`, from the vectors of products `part` values apart.
///
/// # Safety
/// The 36 vectors are readable.
#[inline(always)]
pub(super) unsafe fn restore<I: Isa>(isa: I, from: *const f32, part: usize) -> [[I::F32; 4]; 4] {
    let mut rows = [[isa.zero(); 6]; 4];
    for column in 0..6 {
        let mut products = [isa.zero(); 6];
        for row in 0..6 {
            // SAFETY: the caller's promise.
            products[row] = unsafe { isa.load(from.add((6 * row + column) * part)) };
        }
        let restored = outputs(isa, products);
        for row in 0..4 {
            rows[row][column] = restored[row];
        }
    }
    // No closures: they are compiled apart, without the level's instructions.
    let mut all = [[isa.zero(); 4]; 4];
    for row in 0..4 {
        all[row] = outputs(isa, rows[row]);
    }
    all
}

/// Turns nine taps, which lie in the panel's last nine parts, into the 36 parts, vector by vector in place.
pub(super) struct TransformWeights(pub(super) Place);

impl Kernel for TransformWeights {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Place { panel, part, .. } = self.0;
        for at in self.0.vectors(I::LANES) {
            // SAFETY: the place has a vector there, in each part.
            unsafe {
                let panel = panel.0.add(at);
                let mut rows = [[isa.zero(); 3]; 6];
                for column in 0..3 {
                    let mut taps = [isa.zero(); 3];
                    for row in 0..3 {
                        taps[row] = isa.load(panel.add((PARTS - 9 + 3 * row + column) * part));
                    }
                    let transformed = kernel(isa, taps);
                    for row in 0..6 {
                        rows[row][column] = transformed[row];
                    }
                }
                for row in 0..6 {
                    let transformed = kernel(isa, rows[row]);
                    for column in 0..6 {
                        isa.store(panel.add((6 * row + column) * part), transformed[column]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{A, B};

    /// Numbers that look normally distributed: sums of twelve that are evenly distributed.
    fn normal(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        move || (0..12).map(|_| next()).sum::<f32>() - 6.0
    }

    /// The three transforms of one axis for the points 0, ±a, ±b and infinity, rounded as those above are.
    struct Axis {
        a: f32,
        b: f32,
    }

    impl Axis {
        fn patch(&self, d: [f32; 6]) -> [f32; 6] {
            let Axis { a, b } = *self;
            let near = [1, 2].map(|n| (-b * b).mul_add(d[n], d[n + 2]));
            let far = [1, 2].map(|n| (-a * a).mul_add(d[n], d[n + 2]));
            let end = |n: usize| (a * a * b * b).mul_add(d[n], (-a * a - b * b).mul_add(d[n + 2], d[n + 4]));
            [
                end(0),
                a.mul_add(near[0], near[1]),
                (-a).mul_add(near[0], near[1]),
                b.mul_add(far[0], far[1]),
                (-b).mul_add(far[0], far[1]),
                end(1),
            ]
        }

        fn outputs(&self, m: [f32; 6]) -> [f32; 4] {
            let Axis { a, b } = *self;
            let (near, near_odd, far, far_odd) = (m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]);
            [
                m[0] + (near + far),
                b.mul_add(far_odd, a * near_odd),
                (b * b).mul_add(far, a * a * near),
                (b * b * b).mul_add(far_odd, (a * a * a).mul_add(near_odd, m[5])),
            ]
        }

        fn kernel(&self, g: [f32; 3]) -> [f32; 6] {
            let Axis { a, b } = *self;
            let (of_near, of_far) = (0.5 / (a * a * (a * a - b * b)), 0.5 / (b * b * (b * b - a * a)));
            let (near, near_odd) = (of_near * (a * a).mul_add(g[2], g[0]), a * of_near * g[1]);
            let (far, far_odd) = (of_far * (b * b).mul_add(g[2], g[0]), b * of_far * g[1]);
            [g[0] / (a * a * b * b), near + near_odd, near - near_odd, far + far_odd, far - far_odd, g[2]]
        }
    }

    /// Both axes, one after the other.
    fn both<const N: usize, const M: usize>(x: [[f32; N]; N], f: impl Fn([f32; N]) -> [f32; M]) -> [[f32; M]; M] {
        let columns: [[f32; M]; N] = std::array::from_fn(|j| f(std::array::from_fn(|i| x[i][j])));
        std::array::from_fn(|i| f(std::array::from_fn(|j| columns[j][i])))
    }

    /// The root mean square errors of tiles over so many channels relative to that of the outputs: the direct way, and for each of
    /// the axes.
    fn errors(channels: usize, axes: &[Axis]) -> Vec<f64> {
        let (mut input, mut weight) = (normal(1), normal(2));
        let mut squares = vec![0.0; axes.len() + 1];
        let mut of_outputs = 0.0;
        for _ in 0..24 {
            let mut want = [[0.0f64; 4]; 4];
            let mut direct = [[0.0f32; 4]; 4];
            let mut products = vec![[[0.0f32; 6]; 6]; axes.len()];
            for _ in 0..channels {
                let d: [[f32; 6]; 6] = std::array::from_fn(|_| std::array::from_fn(|_| input().max(0.0)));
                let g: [[f32; 3]; 3] = std::array::from_fn(|_| std::array::from_fn(|_| weight()));
                for (i, j, u, v) in (0..144).map(|n| (n / 36, n / 9 % 4, n / 3 % 3, n % 3)) {
                    want[i][j] += f64::from(d[i + u][j + v]) * f64::from(g[u][v]);
                    direct[i][j] = d[i + u][j + v].mul_add(g[u][v], direct[i][j]);
                }
                for (axis, products) in axes.iter().zip(&mut products) {
                    let (d, g) = (both(d, |d| axis.patch(d)), both(g, |g| axis.kernel(g)));
                    for (i, j) in (0..36).map(|n| (n / 6, n % 6)) {
                        products[i][j] = d[i][j].mul_add(g[i][j], products[i][j]);
                    }
                }
            }
            let ways = axes.iter().zip(products).map(|(axis, products)| both(products, |m| axis.outputs(m)));
            for (square, got) in squares.iter_mut().zip([direct].into_iter().chain(ways)) {
                let differences = want.as_flattened().iter().zip(got.as_flattened());
                *square += differences.map(|(want, &got)| (f64::from(got) - want).powi(2)).sum::<f64>();
            }
            of_outputs += want.as_flattened().iter().map(|want| want * want).sum::<f64>();
        }
        squares.into_iter().map(|square| (square / of_outputs).sqrt()).collect()
    }

    #[test]
    fn these_points_round_less_than_those_of_the_literature() {
        let errors = errors(256, &[Axis { a: A, b: B }, Axis { a: 1.0, b: 2.0 }]);
        eprintln!("errors: directly, 0 ±{A} ±{B}, 0 ±1 ±2: {errors:?}");
        let [direct, ours, literature] = errors[..] else { unreachable!("three ways") };
        assert!(direct < 1e-6 && ours < 2.5 * direct && literature > 2.0 * ours, "{errors:?}");
    }
}
