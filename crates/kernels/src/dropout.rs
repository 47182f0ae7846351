//! Dropout whose mask is a hash of (seed, position), so that it need not be kept.

use crate::isa::{Isa, Kernel, Level};

/// Sets each value to zero with probability `rate` and multiplies the others by `1 / (1 - rate)`.
///
/// `first` is the position of `x[0]` among the values of the whole batch: whether a value is kept depends on `seed` and
/// on its position alone. Backward is the same function, of `dy`, with the same seed.
pub fn forward(level: Level, rate: f32, seed: u64, first: u64, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    assert!((0.0..=1.0).contains(&rate), "a rate between 0 and 1");
    // `as` saturates: a rate of 1 drops all but one value in 2^32, which the factor zero covers.
    let threshold = (f64::from(rate) * 2f64.powi(32)) as u32;
    let factor = if rate < 1.0 { (1.0 / (1.0 - f64::from(rate))) as f32 } else { 0.0 };
    level.dispatch(Dropout { threshold, factor, seed, first, x, y });
}

/// What all values of one sample are multiplied by where it is left out as a whole with probability `rate`: zero, or
/// `1 / (1 - rate)`. It depends on `seed` and on the sample's position in the batch alone.
pub fn sample_factor(rate: f32, seed: u64, sample: u64) -> f32 {
    let uniform = (mix(seed ^ mix(sample)) >> 40) as f32 / (1u64 << 24) as f32;
    if uniform < rate { 0.0 } else { (1.0 / (1.0 - f64::from(rate))) as f32 }
}

struct Dropout<'a> {
    threshold: u32,
    factor: f32,
    seed: u64,
    first: u64,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Dropout<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        // A plain loop: the compiler has the integer vectors that `Isa` lacks.
        let (mut x, mut y, mut position) = (self.x, self.y, self.first);
        while !y.is_empty() {
            // One key for all positions that share their upper half.
            let key = mix(self.seed ^ mix(position >> 32));
            let low = position as u32;
            let count = y.len().min((1usize << 32) - low as usize);
            let (here, there) = std::mem::take(&mut y).split_at_mut(count);
            for (i, (y, &x)) in here.iter_mut().zip(&x[..count]).enumerate() {
                let keep = hash(low.wrapping_add(i as u32), key as u32, (key >> 32) as u32) >= self.threshold;
                *y = if keep { x * self.factor } else { 0.0 };
            }
            x = &x[count..];
            y = there;
            position += count as u64;
        }
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Two rounds of a 32-bit mixer, each with a key of its own.
#[inline(always)]
fn hash(position: u32, first_key: u32, second_key: u32) -> u32 {
    round(round(position ^ first_key).wrapping_add(second_key))
}

/// Wellons' `lowbias32`.
#[inline(always)]
fn round(x: u32) -> u32 {
    let x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
    let x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
    x ^ x >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LENGTHS, STALE, output, values};

    #[test]
    fn every_cut_and_level_gives_the_same_mask() {
        let x = values(1031, 1);
        // Around 2^32, where the upper half of the position changes.
        for first in [0, (1u64 << 32) - 500, 7 << 32] {
            let whole = output(x.len(), STALE, |y| forward(Level::available()[0], 0.4, 5, first, &x, y));
            for level in Level::available() {
                for cut in LENGTHS {
                    let mut y = vec![STALE; x.len()];
                    let (a, b) = y.split_at_mut(cut);
                    forward(level, 0.4, 5, first, &x[..cut], a);
                    forward(level, 0.4, 5, first + cut as u64, &x[cut..], b);
                    assert!(y == whole, "{level:?} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn keeps_the_share_and_the_mean() {
        let n = 200_000;
        let x = vec![1.0f32; n];
        for rate in [0.0f32, 0.1, 0.25, 0.5, 0.9, 1.0] {
            let y = output(n, STALE, |y| forward(Level::detect(), rate, 3, 0, &x, y));
            let kept = y.iter().filter(|&&v| v != 0.0).count() as f64;
            // Five standard deviations of the binomial distribution.
            let (p, n) = (1.0 - f64::from(rate), n as f64);
            assert!((kept - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt(), "rate {rate}: kept {kept} of {n}");
            assert!(y.iter().all(|&v| v == 0.0 || (f64::from(v) * p - 1.0).abs() < 1e-6));
        }
    }

    #[test]
    fn whole_samples_are_left_out_as_often_as_asked() {
        for rate in [0.0f32, 0.1, 0.5, 0.9] {
            let factors: Vec<f32> = (0..50_000).map(|sample| sample_factor(rate, 3, sample)).collect();
            let kept = factors.iter().filter(|&&factor| factor != 0.0).count() as f64 / 50_000.0;
            assert!((kept - f64::from(1.0 - rate)).abs() < 0.012, "rate {rate}: kept {kept}");
            assert!(factors.iter().all(|&f| f == 0.0 || (f * (1.0 - rate) - 1.0).abs() < 1e-6));
        }
        let other = (0..1000).filter(|&n| sample_factor(0.5, 3, n) == sample_factor(0.5, 4, n)).count();
        assert!((400..600).contains(&other), "{other} of 1000 the same for another seed");
    }

    #[test]
    fn masks_of_other_seeds_and_positions_are_unrelated() {
        let n = 100_000;
        let x = vec![1.0f32; n];
        let mask = |seed, first| output(n, STALE, |y| forward(Level::detect(), 0.5, seed, first, &x, y));
        let base = mask(1, 0);
        for other in [mask(2, 0), mask(3, 0), mask(1, 1), mask(1, 2), mask(1, 16), mask(1, 1 << 32), mask(1 << 40, 0)] {
            let same = base.iter().zip(&other).filter(|(a, b)| a == b).count() as f64 / n as f64;
            assert!((same - 0.5).abs() < 0.01, "{same} of the mask is the same");
        }
    }
}
