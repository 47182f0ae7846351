//! A perceptual hash: 128 bits that stay the same when an image is compressed anew, resized or recoloured a little, and
//! that of slightly cropped windows beside it, so that a cropped copy is found, too.
//!
//! The bits say which of the lowest 128 frequencies of a cosine transform of the 32 x 32 grey image lie above the median
//! of the data set. Fixed thresholds would leave many bits of similar images (digits, X-rays) alike and the index crowded.

/// Side of the grey image that is hashed.
pub(super) const SIDE: usize = 32;

/// Windows of an image that have a hash of their own; the first is the whole.
pub(super) const WINDOWS: usize = 11;

/// Bits of a hash.
pub(super) const BITS: usize = 128;

/// The hashes of an image's windows.
pub(super) type Hashes = [u128; WINDOWS];

/// Frequencies along one side that any of the bits needs, rounded up to whole vectors.
const FREQUENCIES: usize = 16;

/// Standard deviation of grey values, on a scale of 255, below which there is nothing to tell images apart by.
const LEAST_CONTRAST: f32 = 3.0;

/// How much of a side a window leaves out.
const CUTS: [f32; 2] = [0.06, 0.10];

/// For each pixel along a side, the weight of each frequency.
type Basis = [[f32; FREQUENCIES]; SIDE];

/// What makes hashes: cosines of each window, and the threshold of each bit.
pub(super) struct Hasher {
    bases: Vec<Basis>,
    /// For each window, which basis is its vertical one and which its horizontal.
    windows: [(usize, usize); WINDOWS],
    /// Vertical and horizontal frequency of each bit.
    bits: Vec<(usize, usize)>,
    thresholds: [f32; BITS],
}

impl Hasher {
    /// A hasher whose thresholds are the medians over some typical images, each of [`SIDE`] x [`SIDE`] grey pixels.
    pub(super) fn new<'a>(typical: impl Iterator<Item = &'a [u8]>) -> Self {
        // One basis for the whole side, then for each cut those that leave it out at the end, on both sides, at the start.
        let cut = |cut: f32| [0.0, 0.5, 1.0].map(|start| basis(start * cut, (1.0 - start) * cut));
        let bases = std::iter::once(basis(0.0, 0.0)).chain(CUTS.into_iter().flat_map(cut)).collect();
        let mut windows = [(0, 0); WINDOWS];
        for (window, (cut, (row, column))) in windows[1..]
            .iter_mut()
            .zip((0..CUTS.len()).flat_map(|cut| [(1, 1), (0, 0), (0, 2), (2, 0), (2, 2)].map(|at| (cut, at))))
        {
            *window = (1 + 3 * cut + row, 1 + 3 * cut + column);
        }
        let mut bits: Vec<(usize, usize)> = (1..FREQUENCIES * FREQUENCIES).map(|at| (at / 16, at % 16)).collect();
        bits.sort_by_key(|&(row, column)| (row * row + column * column, row));
        bits.truncate(BITS);
        let mut hasher = Self { bases, windows, bits, thresholds: [0.0; BITS] };
        let typical: Vec<_> = typical.filter_map(|grey| Some(hasher.coefficients(&hasher.rows(grey)?, 0))).collect();
        for bit in 0..BITS {
            let mut values: Vec<f32> = typical.iter().map(|coefficients| coefficients[bit]).collect();
            values.sort_unstable_by(f32::total_cmp);
            hasher.thresholds[bit] = values.get(values.len() / 2).copied().unwrap_or(0.0);
        }
        hasher
    }

    /// The hashes of [`SIDE`] x [`SIDE`] grey pixels; none where they are all but one grey.
    pub(super) fn hashes(&self, grey: &[u8]) -> Option<Hashes> {
        let rows = self.rows(grey)?;
        let mut hashes = [0; WINDOWS];
        for (window, hash) in hashes.iter_mut().enumerate() {
            for (bit, (value, threshold)) in self.coefficients(&rows, window).iter().zip(&self.thresholds).enumerate() {
                *hash |= u128::from(value > threshold) << bit;
            }
        }
        Some(hashes)
    }

    /// For each horizontal basis the transform of every row.
    fn rows(&self, grey: &[u8]) -> Option<Vec<Basis>> {
        let count = (SIDE * SIDE) as f32;
        let mean = grey.iter().map(|&value| f32::from(value)).sum::<f32>() / count;
        let variance = grey.iter().map(|&value| (f32::from(value) - mean).powi(2)).sum::<f32>() / count;
        if grey.len() != SIDE * SIDE || variance < LEAST_CONTRAST * LEAST_CONTRAST {
            return None;
        }
        let transform = |basis: &Basis| {
            let mut rows = [[0.0; FREQUENCIES]; SIDE];
            for (row, pixels) in rows.iter_mut().zip(grey.chunks_exact(SIDE)) {
                for (&pixel, weights) in pixels.iter().zip(basis) {
                    add_scaled(row, f32::from(pixel) - mean, weights);
                }
            }
            rows
        };
        Some(self.bases.iter().map(transform).collect())
    }

    /// The coefficients of a window, of length 1 together.
    fn coefficients(&self, rows: &[Basis], window: usize) -> [f32; BITS] {
        let (vertical, horizontal) = self.windows[window];
        let mut sums = [[0.0; FREQUENCIES]; FREQUENCIES];
        for (row, weights) in rows[horizontal].iter().zip(&self.bases[vertical]) {
            for (sum, &weight) in sums.iter_mut().zip(weights) {
                add_scaled(sum, weight, row);
            }
        }
        let mut coefficients = [0.0; BITS];
        for (value, &(row, column)) in coefficients.iter_mut().zip(&self.bits) {
            *value = sums[row][column];
        }
        let length = coefficients.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-6);
        coefficients.map(|value| value / length)
    }
}

fn add_scaled(sums: &mut [f32; FREQUENCIES], by: f32, values: &[f32; FREQUENCIES]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += by * value;
    }
}

/// Cosines over the side without these shares of it at its start and end; of a pixel that the window cuts, its part counts.
fn basis(start: f32, end: f32) -> Basis {
    let side = SIDE as f32;
    let (from, to) = (start * side, (1.0 - end) * side);
    let mut basis = [[0.0; FREQUENCIES]; SIDE];
    for (pixel, weights) in basis.iter_mut().enumerate() {
        let (low, high) = ((pixel as f32).max(from), (pixel as f32 + 1.0).min(to));
        let inside = (high - low).max(0.0);
        let middle = (0.5 * (low + high) - from) / (to - from);
        for (frequency, weight) in weights.iter_mut().enumerate() {
            let scale = if frequency == 0 { 0.5f32.sqrt() } else { 1.0 };
            *weight = inside * scale * (std::f32::consts::PI * frequency as f32 * middle).cos();
        }
    }
    basis
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(seed: u32, shift: f32, scale: f32) -> Vec<u8> {
        let wave = |x: f32, y: f32| {
            (0..12u32).map(move |k| {
                let key = seed.wrapping_mul(31).wrapping_add(k).wrapping_mul(2_654_435_761) >> 8;
                let (u, v) = ((key % 7) as f32, (key / 7 % 7) as f32);
                (0.2 * (u * x + v * y) + (key / 49 % 6) as f32).sin()
            })
        };
        let pixel = |at: usize| {
            let (y, x) = ((at / SIDE) as f32 * scale + shift, (at % SIDE) as f32 * scale + shift);
            (128.0 + 25.0 * wave(x, y).sum::<f32>()).clamp(0.0, 255.0) as u8
        };
        (0..SIDE * SIDE).map(pixel).collect()
    }

    #[test]
    fn copies_are_close_and_others_are_not() {
        let images: Vec<_> = (0..20).map(|seed| image(seed, 0.0, 1.0)).collect();
        let hasher = Hasher::new(images.iter().map(Vec::as_slice));
        let hash = |grey: &[u8]| hasher.hashes(grey).unwrap();
        let closest = |a: &Hashes, b: u128| a.iter().map(|hash| (hash ^ b).count_ones()).min().unwrap();
        for (seed, grey) in images.iter().enumerate() {
            let hashes = hash(grey);
            let brighter: Vec<u8> = grey.iter().map(|&value| (f32::from(value) * 0.7 + 60.0) as u8).collect();
            assert!((hashes[0] ^ hash(&brighter)[0]).count_ones() <= 10);
            // The middle 94%.
            let cropped = image(seed as u32, 0.03 * 32.0, 0.94);
            assert!(closest(&hashes, hash(&cropped)[0]) <= 20, "{}", closest(&hashes, hash(&cropped)[0]));
            let other = hash(&images[(seed + 1) % images.len()])[0];
            assert!(closest(&hashes, other) > 30, "{}", closest(&hashes, other));
        }
        assert!(hasher.hashes(&[9; SIDE * SIDE]).is_none());
    }
}
