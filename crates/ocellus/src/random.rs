//! Random numbers that are looked up, not drawn: every stream is named by (seed, purpose, epoch, sample).
//!
//! A stream never depends on what other streams were asked for, so any point of a run can be reached again, in any order
//! and on any number of threads.
//!
//! ```
//! use ocellus::random::{Purpose, Random};
//! let mut order: Vec<u32> = (0..10).collect();
//! Random::new(42, Purpose::Shuffle, 3, 0).shuffle(&mut order);
//! let mut again: Vec<u32> = (0..10).collect();
//! Random::new(42, Purpose::Shuffle, 3, 0).shuffle(&mut again);
//! assert_eq!(order, again);
//! ```

/// What random numbers are for. Streams of different purposes have nothing in common.
///
/// The numbers are part of the promise "same seed, same bits": they are never reassigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// Initial weights; keyed by the parameter's position.
    Initialise = 1,
    /// The order of an epoch.
    Shuffle = 2,
    /// Division of samples into training and validation.
    Split = 3,
    /// Masks of dropout layers.
    Dropout = 4,
    /// Random changes to training images.
    Augment = 5,
    /// Choice of some samples among many, such as golden images.
    Sample = 6,
    /// Pairs of images that are mixed.
    Mix = 8,
    /// Anything a test needs.
    Test = 7,
}

/// One stream of random numbers: a counter, hashed with the stream's key.
///
/// The n-th number is `mix(key + n * gamma)`, which is SplitMix64 begun at `key`
/// (Steele, Lea, Flood: *Fast splittable pseudorandom number generators*, OOPSLA 2014). Not for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    key: u64,
    counter: u64,
}

/// 2^64 divided by the golden ratio, made odd: successive multiples are spread evenly.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of 64 bits in which every input bit affects every output bit (SplitMix64's finaliser, Stafford's variant 13).
#[inline]
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Random {
    /// The stream of `seed` for `purpose`, further keyed by two numbers, most often epoch (or layer) and sample; 0 where
    /// one has no meaning.
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose, epoch: u64, sample: u64) -> Self {
        let key = [purpose as u64, epoch, sample].into_iter().fold(mix(seed.wrapping_add(GAMMA)), |key, part| {
            mix(key.wrapping_mul(GAMMA) ^ mix(part.wrapping_add(GAMMA)))
        });
        Self { key, counter: 0 }
    }

    /// The next 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        mix(self.key.wrapping_add(self.counter.wrapping_mul(GAMMA)))
    }

    /// A number in `[0, 1)`, one of 2^24 equally spaced ones.
    #[inline]
    pub fn uniform(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// A number in `[low, high)`; rounding may give `high` itself where the two are far apart.
    #[inline]
    pub fn uniform_in(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// A whole number in `0..bound`, without bias. Returns 0 for a bound of 0.
    ///
    /// Lemire: *Fast random integer generation in an interval*, 2019.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        let mut product = u128::from(self.next_u64()) * u128::from(bound);
        if (product as u64) < bound {
            let threshold = bound.wrapping_neg() % bound;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(bound);
            }
        }
        (product >> 64) as u64
    }

    /// A number from the normal distribution with mean 0 and standard deviation 1 (Box and Muller, 1958).
    #[inline]
    pub fn normal(&mut self) -> f32 {
        // 1 - u keeps the logarithm finite; f64 keeps the tail exact out to 8 deviations.
        let radius = (-2.0 * (1.0 - self.uniform_f64()).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.uniform_f64();
        (radius * angle.cos()) as f32
    }

    /// A normal number redrawn until it lies within two standard deviations, as Keras' `TruncatedNormal`.
    ///
    /// Its own standard deviation is 0.8796, so scale by `deviation / 0.87962566` where that matters.
    #[inline]
    pub fn truncated_normal(&mut self) -> f32 {
        loop {
            let value = self.normal();
            if value.abs() <= 2.0 {
                return value;
            }
        }
    }

    /// A number from the gamma distribution with this shape and scale 1. A shape that is not above 0 gives 0.
    ///
    /// Marsaglia and Tsang, *A simple method for generating gamma variables*, 2000.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if !(shape > 0.0 && shape.is_finite()) {
            return 0.0;
        }
        if shape < 1.0 {
            let root = (1.0 - self.uniform_f64()).powf(1.0 / shape);
            return self.gamma(shape + 1.0) * root;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = f64::from(self.normal());
            let v = (1.0 + c * x).powi(3);
            let u = 1.0 - self.uniform_f64();
            if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }

    /// A number in `[0, 1]` from the beta distribution with these shapes.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (x, y) = (self.gamma(a), self.gamma(b));
        if x + y > 0.0 { x / (x + y) } else { 0.5 }
    }

    /// Put the items into random order (Fisher and Yates); every order is equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// A number in `[0, 1)` with 53 random bits.
    #[inline]
    fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(sample: u64) -> Random {
        Random::new(7, Purpose::Test, 1, sample)
    }

    /// Mean and standard deviation of `count` numbers.
    fn moments(count: u64, mut draw: impl FnMut() -> f32) -> (f64, f64) {
        let values: Vec<f64> = (0..count).map(|_| f64::from(draw())).collect();
        let mean = values.iter().sum::<f64>() / count as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count as f64;
        (mean, variance.sqrt())
    }

    #[test]
    fn numbers_are_pinned() {
        // Stored seeds would mean something else if these changed.
        let mut random = Random::new(42, Purpose::Shuffle, 1, 2);
        assert_eq!([random.next_u64(), random.next_u64()], [9_562_598_089_528_131_867, 5_716_527_293_803_095_836]);
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let first = |seed, purpose, epoch, sample| Random::new(seed, purpose, epoch, sample).next_u64();
        let mut seen: Vec<u64> = Vec::new();
        for seed in 0..8 {
            for purpose in [Purpose::Initialise, Purpose::Shuffle, Purpose::Split] {
                for epoch in 0..8 {
                    seen.extend((0..8).map(|sample| first(seed, purpose, epoch, sample)));
                }
            }
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn distributions_have_their_moments() {
        // Bounds are six standard errors of 40,000 draws.
        let mut random = stream(0);
        for (name, (mean, deviation), (expected_mean, expected_deviation)) in [
            ("uniform", moments(40_000, || random.uniform()), (0.5, 0.288_675)),
            ("uniform_in", moments(40_000, || stream(1).uniform_in(-3.0, -3.0)), (-3.0, 0.0)),
            ("normal", moments(40_000, || random.normal()), (0.0, 1.0)),
            ("gamma", moments(40_000, || random.gamma(0.5) as f32), (0.5, 0.5f64.sqrt())),
            ("gamma", moments(40_000, || random.gamma(4.0) as f32), (4.0, 2.0)),
            ("beta", moments(40_000, || random.beta(0.2, 0.2) as f32), (0.5, 0.422_577)),
            ("beta", moments(40_000, || random.beta(1.0, 3.0) as f32), (0.25, 0.193_649)),
            ("truncated", moments(40_000, || random.truncated_normal()), (0.0, 0.879_626)),
        ] {
            assert!((mean - expected_mean).abs() < 0.03 * expected_mean.max(1.0), "{name}: mean {mean}");
            assert!(
                (deviation - expected_deviation).abs() < 0.03 * expected_deviation.max(1.0),
                "{name}: deviation {deviation}"
            );
        }
    }

    #[test]
    fn below_is_even_and_bounded() {
        let mut random = stream(2);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7) as usize] += 1;
        }
        assert!(counts.iter().all(|&c| (9_400..10_600).contains(&c)), "{counts:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
        assert!((0..100).all(|_| random.below(u64::MAX) < u64::MAX));
    }

    #[test]
    fn shuffle_reaches_every_order_equally() {
        let mut counts = std::collections::HashMap::new();
        for sample in 0..12_000 {
            let mut items = [0, 1, 2, 3];
            stream(sample).shuffle(&mut items);
            *counts.entry(items).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 24);
        assert!(counts.values().all(|c| (350..650).contains(c)), "{counts:?}");
        stream(0).shuffle::<u8>(&mut []);
    }
}
