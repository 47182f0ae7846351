//! How much rounding the factors of minimal filtering can move its results: the filtering of the magnitudes, in double precision.
//!
//! Each product of a transformed patch with a transformed kernel is off by at most its own magnitude times the factors' rounding. What
//! reaches a result is their sum through the inverse transform; with the magnitudes of all matrices it bounds every case.

use super::ConvShape;

/// The magnitudes of `B^T`, `G` and `A^T` of F(2x2, 3x3).
const PATCH: [[f64; 4]; 4] = [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]];
const KERNEL: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.0, 0.0, 1.0]];
const RESULT: [[f64; 4]; 2] = [[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]];

fn transposed<const R: usize, const C: usize>(m: &[[f64; C]; R]) -> [[f64; R]; C] {
    std::array::from_fn(|i| std::array::from_fn(|j| m[j][i]))
}

/// `m x m^T`.
fn around<const R: usize, const C: usize>(m: &[[f64; C]; R], x: &[[f64; C]; C]) -> [[f64; R]; R] {
    std::array::from_fn(|i| {
        std::array::from_fn(|j| {
            let terms = (0..C).flat_map(|k| (0..C).map(move |l| (k, l)));
            terms.map(|(k, l)| m[i][k] * x[k][l] * m[j][l]).sum()
        })
    })
}

/// Images `[sample][row][column][channel]`, zero outside.
struct Images<'a> {
    values: &'a [f32],
    size: [usize; 3],
}

impl Images<'_> {
    /// `N` by `N` magnitudes of a channel from that row and column on.
    fn square<const N: usize>(&self, sample: usize, [row, column]: [isize; 2], channel: usize) -> [[f64; N]; N] {
        let [height, width, channels] = self.size;
        let inside = |at: isize, size: usize| usize::try_from(at).ok().filter(|&at| at < size);
        std::array::from_fn(|i| {
            std::array::from_fn(|j| {
                let at = inside(row + i as isize, height).zip(inside(column + j as isize, width));
                at.map_or(0.0, |(row, column)| {
                    let at = ((sample * height + row) * width + column) * channels + channel;
                    f64::from(self.values[at].abs())
                })
            })
        })
    }
}

/// For every pixel and filter of a convolution of images padded by `before`, whose kernel has the weight `weight(tap, channel, filter)`.
fn convolution(
    samples: usize,
    images: &Images<'_>,
    before: [isize; 2],
    [height, width, filters]: [usize; 3],
    weight: impl Fn(usize, usize, usize) -> f32,
) -> Vec<f64> {
    let channels = images.size[2];
    let kernel = |channel, filter| -> [[f64; 3]; 3] {
        std::array::from_fn(|i| std::array::from_fn(|j| f64::from(weight(3 * i + j, channel, filter).abs())))
    };
    let kernels: Vec<[[f64; 4]; 4]> =
        (0..filters * channels).map(|i| around(&KERNEL, &kernel(i % channels, i / channels))).collect();
    let mut results = vec![0.0; samples * height * width * filters];
    for (sample, row, column) in tiles(samples, [height, width]) {
        let corner = [row as isize - before[0], column as isize - before[1]];
        let patches: Vec<_> = (0..channels).map(|c| around(&PATCH, &images.square::<4>(sample, corner, c))).collect();
        for filter in 0..filters {
            let mut sums = [[0.0; 4]; 4];
            for (patch, kernel) in patches.iter().zip(&kernels[filter * channels..]) {
                add_products(&mut sums, patch, kernel);
            }
            let outputs = around(&RESULT, &sums);
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                if row + i < height && column + j < width {
                    results[((sample * height + row + i) * width + column + j) * filters + filter] = outputs[i][j];
                }
            }
        }
    }
    results
}

fn add_products(sums: &mut [[f64; 4]; 4], a: &[[f64; 4]; 4], b: &[[f64; 4]; 4]) {
    for i in 0..4 {
        for j in 0..4 {
            sums[i][j] += a[i][j] * b[i][j];
        }
    }
}

fn tiles(samples: usize, [height, width]: [usize; 2]) -> impl Iterator<Item = (usize, usize, usize)> {
    let (down, across) = (height.div_ceil(2), width.div_ceil(2));
    (0..samples * down * across).map(move |t| (t / (down * across), t / across % down * 2, t % across * 2))
}

/// The magnitudes of a 3x3 convolution with unit strides, of its data gradient and of its weight gradient.
pub(super) fn magnitudes(shape: &ConvShape, samples: usize, x: &[f32], w: &[f32], dy: &[f32]) -> [Vec<f64>; 3] {
    let ([height, width, filters], channels) = (shape.output(), shape.input[2]);
    let before = [shape.padding[0] as isize, shape.padding[2] as isize];
    let images = Images { values: x, size: shape.input };
    let gradients = Images { values: dy, size: shape.output() };
    let y = convolution(samples, &images, before, shape.output(), |tap, c, f| w[(tap * channels + c) * filters + f]);
    let turned = before.map(|n| 2 - n);
    let dx =
        convolution(samples, &gradients, turned, shape.input, |tap, f, c| w[((8 - tap) * channels + c) * filters + f]);
    let mut sums = vec![[[0.0; 4]; 4]; channels * filters];
    for (sample, row, column) in tiles(samples, [height, width]) {
        let corner = [row as isize - before[0], column as isize - before[1]];
        let at = [row as isize, column as isize];
        let patches: Vec<_> = (0..channels).map(|c| around(&PATCH, &images.square::<4>(sample, corner, c))).collect();
        let back = transposed(&RESULT);
        let gradients: Vec<_> = (0..filters).map(|f| around(&back, &gradients.square::<2>(sample, at, f))).collect();
        for (i, sums) in sums.iter_mut().enumerate() {
            add_products(sums, &patches[i / filters], &gradients[i % filters]);
        }
    }
    let taps: Vec<_> = sums.iter().map(|sums| around(&transposed(&KERNEL), sums)).collect();
    let dw = (0..9).flat_map(|tap| taps.iter().map(move |taps| taps[tap / 3][tap % 3])).collect();
    [y, dx, dw]
}
