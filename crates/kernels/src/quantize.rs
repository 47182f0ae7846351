//! Bytes that stand for numbers: what 8-bit networks pass from one operation to the next.

use crate::isa::{Isa, Kernel, Level};

/// What a byte stands for: `scale * (byte - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Encoding {
    /// From one byte's number to the next one's; positive.
    pub scale: f32,
    /// The byte that stands for zero.
    pub zero_point: u8,
}

impl Encoding {
    /// The encoding of the numbers from `low` to `high`, and of zero, which padding needs exactly.
    pub fn of_range(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = high / 255.0 - low / 255.0;
        if scale < f32::MIN_POSITIVE {
            return Encoding { scale: 1.0, zero_point: 0 };
        }
        Encoding { scale, zero_point: (-low / scale).round() as u8 }
    }

    /// The number that byte zero stands for.
    pub fn offset(self) -> f32 {
        -self.scale * f32::from(self.zero_point)
    }

    /// Bytes in a step of one.
    pub(crate) fn inverse(self) -> f32 {
        1.0 / self.scale
    }
}

/// `y = round(x / scale) + zero_point`, the nearest byte, ties to even.
pub fn to_bytes(level: Level, encoding: Encoding, x: &[f32], y: &mut [u8]) {
    assert_eq!(x.len(), y.len(), "a byte for each number");
    level.dispatch(ToBytes { encoding, x, y });
}

struct ToBytes<'a> {
    encoding: Encoding,
    x: &'a [f32],
    y: &'a mut [u8],
}

impl Kernel for ToBytes<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (inverse, zero) = (isa.splat(self.encoding.inverse()), isa.splat(f32::from(self.encoding.zero_point)));
        let encode = |v| {
            let v = isa.add(isa.mul(v, inverse), zero);
            // NaN becomes byte zero.
            isa.min(isa.max(v, isa.zero()), isa.splat(255.0))
        };
        let (len, x, y) = (self.y.len(), self.x.as_ptr(), self.y.as_mut_ptr());
        let whole = len - len % I::LANES;
        for i in (0..whole).step_by(I::LANES) {
            // SAFETY: `i + LANES <= len`, the length of both.
            unsafe { isa.store_bytes(y.add(i), I::LANES, encode(isa.load(x.add(i)))) };
        }
        let rest = len - whole;
        if rest > 0 {
            // SAFETY: the mask and the count end at the last value of both.
            unsafe { isa.store_bytes(y.add(whole), rest, encode(isa.load_masked(isa.first(rest), x.add(whole)))) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LENGTHS, output, values};

    #[test]
    fn numbers_become_the_nearest_bytes_on_every_level() {
        for encoding in [Encoding::of_range(-1.0, 2.0), Encoding::of_range(0.0, 2.5), Encoding::of_range(-3.0, -1.0)] {
            for len in LENGTHS {
                let mut x = values(len, 5);
                x.iter_mut().step_by(13).for_each(|v| *v = f32::NAN);
                let want: Vec<u8> = x
                    .iter()
                    .map(|&v| (v * (1.0 / encoding.scale) + f32::from(encoding.zero_point)).round_ties_even() as u8)
                    .collect();
                for level in Level::available() {
                    let got = output(len, 7u8, |y| to_bytes(level, encoding, &x, y));
                    assert_eq!(got, want, "{level:?} {encoding:?} {len}");
                }
            }
        }
    }

    #[test]
    fn zero_is_exact_and_the_ends_are_within_half_a_step() {
        for (low, high) in [(0.0, 6.0), (-1.0, 1.0), (-3.0, 0.0), (2.0, 5.0), (-7.0, -2.0), (0.0, 0.0), (-1e-30, 1e30)]
        {
            let encoding = Encoding::of_range(low, high);
            let number = |byte: u8| encoding.scale * (f32::from(byte) - f32::from(encoding.zero_point));
            assert_eq!(number(encoding.zero_point), 0.0);
            assert_eq!(encoding.offset(), number(0));
            assert!(number(0) <= low.min(0.0) + encoding.scale * 0.5001, "{low} {high}");
            assert!(number(255) >= high.max(0.0) - encoding.scale * 0.5001, "{low} {high}");
        }
    }
}
