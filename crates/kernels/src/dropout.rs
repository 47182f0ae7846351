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
