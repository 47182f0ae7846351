//! What bf16 arithmetic is: rounding, and products of pairs summed in single precision, exactly as AVX512_BF16 does them.
//!
//! A bf16 number is the upper half of a single-precision one: 8 bits of exponent, 8 significant bits. Values between
//! operations are single precision, but for those that the engine keeps as bf16 ([`Values`](crate::Values)); kernels round both factors of their products to bf16 and sum in single
//! precision. `VDPBF16PS` adds the product of the odd elements of two pairs, then that of the even ones, each as a
//! fused multiply-add that rounds to nearest; denormal numbers count as zero in factors, sums and results, whatever the
//! control register says. The vector levels without that instruction compute the same bits, so results of a
//! matrix tile don't depend on the processor having it. The tile instructions of AMX, a level of its own, sum in another order
//! (`isa::amx`).

/// What the factors of products are rounded to in convolutions and dense layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Single precision: not rounded.
    #[default]
    F32,
    /// bf16, where a kernel for it is faster (see [`conv`](crate::conv)); sums are single precision.
    Bf16,
}

impl Precision {
    /// Its name: `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// To nearest, ties to even; denormal numbers become zero, and NaN stays NaN.
#[inline(always)]
pub(crate) fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = match (bits >> 23 & 0xff, bits & 0x7f_ffff) {
        (0, _) => bits & 0x8000_0000,
        (0xff, 1..) => bits | 0x40_0000,
        _ => bits.wrapping_add(0x7fff + (bits >> 16 & 1)),
    };
    (rounded >> 16) as u16
}

#[cfg(test)]
pub(crate) fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Two values in the bits of one: `even` in the lower half.
#[inline(always)]
pub(crate) fn pair(even: f32, odd: f32) -> f32 {
    f32::from_bits(u32::from(round(even)) | u32::from(round(odd)) << 16)
}

/// The even and the odd value of a pair.
#[inline(always)]
pub(crate) fn split(pair: f32) -> (f32, f32) {
    (f32::from_bits(pair.to_bits() << 16), f32::from_bits(pair.to_bits() & 0xffff_0000))
}

/// `a * b + c`, rounded once, for factors that are bf16 values.
///
/// The product is exact in double precision. Where the sum is not, one of its terms is so much smaller than the other that it
/// can't move it across the middle between two single-precision numbers, so that rounding twice is rounding once.
#[inline(always)]
pub(crate) fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    // Results that round to less than the least normal number, if exponents had no end, are zero.
    const LEAST: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 1.0 / (1u64 << 25) as f64);
    let c = if c.abs() < f32::MIN_POSITIVE { 0.0f32.copysign(c) } else { c };
    let sum = f64::from(a) * f64::from(b) + f64::from(c);
    if sum.abs() < LEAST { 0.0f64.copysign(sum) as f32 } else { sum as f32 }
}

/// `sum + odd(a) * odd(b) + even(a) * even(b)`, in this order.
#[inline(always)]
pub(crate) fn add_products(a: f32, b: f32, sum: f32) -> f32 {
    let ((a_even, a_odd), (b_even, b_odd)) = (split(a), split(b));
    multiply_add(a_even, b_even, multiply_add(a_odd, b_odd, sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::isa::{Isa, Kernel};

    /// Pairs made of two arrays, their products with themselves reversed added to a third, and the first stored as bf16.
    struct Everything<'a> {
        even: &'a [f32],
        odd: &'a [f32],
        sums: &'a [f32],
    }

    impl Kernel for Everything<'_> {
        type Output = [Vec<u32>; 3];
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> [Vec<u32>; 3] {
            let len = self.even.len();
            let mut results = [vec![0.0f32; len], vec![0.0; len], vec![0.0; len / 2]];
            for at in (0..len).step_by(I::LANES) {
                // SAFETY: the arrays have whole vectors of any level.
                unsafe {
                    let load = |from: &[f32]| isa.load(from.as_ptr().add(at));
                    let pairs = isa.pair(load(self.even), load(self.odd));
                    let others = isa.pair(load(self.odd), load(self.sums));
                    isa.store(results[0].as_mut_ptr().add(at), pairs);
                    isa.store(results[1].as_mut_ptr().add(at), isa.add_products(pairs, others, load(self.sums)));
                    isa.store_bf16(results[2].as_mut_ptr().add(at / 2), load(self.even));
                }
            }
            results.map(|values| values.into_iter().map(f32::to_bits).collect())
        }
    }

    fn same(a: u32, b: u32) -> bool {
        let nan = |v: u32| f32::from_bits(v).is_nan();
        a == b || nan(a) && nan(b)
    }

    /// Numbers whose exponents lie in a range, with special values strewn in.
    fn numbers(exponents: std::ops::RangeInclusive<u32>, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let specials = [0x0000_0000, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x7f80_0001, 0xffff_ffff];
        let edges = [0x0000_0001, 0x007f_ffff, 0x0080_0000, 0x8080_0000, 0x7f7f_ffff, 0x3f80_8000, 0x3f81_8000];
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let exponent = exponents.start() + (state >> 8) as u32 % (exponents.end() - exponents.start() + 1);
            let bits = (state >> 32) as u32 & 0x807f_ffff | exponent << 23;
            match state % 40 {
                0 => specials[(state >> 16) as usize % specials.len()],
                1 => edges[(state >> 16) as usize % edges.len()],
                _ => bits,
            }
        };
        (0..1 << 14).map(|_| f32::from_bits(next())).collect()
    }

    #[test]
    fn every_level_computes_the_bits_of_the_definition() {
        // Factors, and what their products are added to: of any size, like each other, huge, and about the least.
        let ranges =
            [(0..=255, 0..=255), (120..=134, 110..=140), (188..=193, 250..=254), (60..=68, 0..=8), (0..=6, 120..=132)];
        for (seed, (factors, sums)) in ranges.into_iter().enumerate() {
            let even = numbers(factors.clone(), 3 * seed as u64 + 1);
            let odd = numbers(factors, 3 * seed as u64 + 2);
            let sums = numbers(sums, 3 * seed as u64 + 3);
            for level in Level::available_and_emulated() {
                let everything = Everything { even: &even, odd: &odd, sums: &sums };
                let [pairs, products, stored] = level.dispatch_bf16(everything);
                for i in 0..even.len() {
                    let want = pair(even[i], odd[i]);
                    assert_eq!(pairs[i], want.to_bits(), "{level:?}: {} and {}", even[i], odd[i]);
                    let product = add_products(want, pair(odd[i], sums[i]), sums[i]).to_bits();
                    assert!(
                        same(products[i], product),
                        "{level:?}: {:#x} instead of {product:#x} for {:e}, {:e}, {:e}",
                        products[i],
                        even[i],
                        odd[i],
                        sums[i]
                    );
                    let half = stored[i / 2] >> (i % 2 * 16) & 0xffff;
                    assert_eq!(half, u32::from(round(even[i])), "{level:?}: {} stored", even[i]);
                }
            }
        }
    }

    #[test]
    fn rounds_to_the_nearest_and_to_even() {
        let cases = [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
            (-1.0 - 1.5 / 256.0, -1.0 - 2.0 / 256.0),
            (f32::MAX, f32::INFINITY),
            (f32::MIN_POSITIVE, f32::MIN_POSITIVE),
            (f32::from_bits(0x007f_ffff), 0.0),
        ];
        for (value, want) in cases {
            assert_eq!(widen(round(value)), want, "{value}");
        }
        assert!(widen(round(f32::from_bits(0x7f80_0001))).is_nan());
    }
}
