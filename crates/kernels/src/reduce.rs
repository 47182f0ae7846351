//! Sums over rows, over everything, and over parts; always in an order that the shapes and the level alone decide.

use crate::columns::{self, ChannelSum};
use crate::isa::{Isa, Kernel, Level};
use crate::pool::{Disjoint, Pool};

/// `sums[c] = Σ over rows of x[row][c]`, added to `sums` where `accumulate`. The gradient of a bias.
///
/// The error is at most about `(35 + 512 / columns) ε Σ|x|`, whatever the number of rows.
pub fn column_sums(level: Level, columns: usize, x: &[f32], sums: &mut [f32], accumulate: bool) {
    columns::sums(level, columns, Plain, [x.into()], [sums], accumulate);
}

/// `sums[c] = Σ over rows of a[row][c] * b[row][c]`, added to `sums` where `accumulate`. Accurate as [`column_sums`].
pub fn column_products(level: Level, columns: usize, a: &[f32], b: &[f32], sums: &mut [f32], accumulate: bool) {
    columns::sums(level, columns, Product, [a.into(), b.into()], [sums], accumulate);
}

#[derive(Clone, Copy)]
struct Plain;
impl ChannelSum<1, 0, 1> for Plain {
    #[inline(always)]
    fn values(&self, _: usize) -> [f32; 0] {
        []
    }
    #[inline(always)]
    fn add<I: Isa>(&self, isa: I, [x]: [I::F32; 1], _: [I::F32; 0], [sum]: [I::F32; 1]) -> [I::F32; 1] {
        [isa.add(sum, x)]
    }
}

#[derive(Clone, Copy)]
struct Product;
impl ChannelSum<2, 0, 1> for Product {
    #[inline(always)]
    fn values(&self, _: usize) -> [f32; 0] {
        []
    }
    #[inline(always)]
    fn add<I: Isa>(&self, isa: I, [a, b]: [I::F32; 2], _: [I::F32; 0], [sum]: [I::F32; 1]) -> [I::F32; 1] {
        [isa.mul_add(a, b, sum)]
    }
}

/// The sum of all values. Accurate as [`column_sums`].
pub fn total(level: Level, x: &[f32]) -> f32 {
    let mut sum = [0.0];
    column_sums(level, 1, x, &mut sum, false);
    sum[0]
}

/// `y = parts[0] + parts[1] + …`, in that order; zero where there are no parts.
pub fn sum_parts(level: Level, parts: &[&[f32]], y: &mut [f32]) {
    for part in parts {
        assert_eq!(part.len(), y.len());
    }
    level.dispatch(SumParts { parts, first: 0, y, accumulate: false });
}

/// `sum = parts[0] + parts[1] + …`, in that order, added to what `sum` holds where `accumulate`; by all of the pool's threads, whose
/// number changes no bit.
pub fn gather(pool: &mut Pool, level: Level, parts: &[&[f32]], sum: &mut [f32], accumulate: bool) {
    let len = sum.len();
    for part in parts {
        assert_eq!(part.len(), len);
    }
    let to = Disjoint(sum.as_mut_ptr());
    pool.run(len.div_ceil(PIECE), &|_, index| {
        let (first, end) = (index * PIECE, ((index + 1) * PIECE).min(len));
        // SAFETY: pieces lie in the slice, do not overlap, and each is run once.
        let y = unsafe { to.range(first, end) };
        level.dispatch(SumParts { parts, first, y, accumulate });
    });
}

/// Values that one worker gathers at a time.
const PIECE: usize = 8 << 10;

/// Sums of the parts' values from `first` on.
struct SumParts<'a> {
    parts: &'a [&'a [f32]],
    first: usize,
    y: &'a mut [f32],
    accumulate: bool,
}

impl Kernel for SumParts<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let len = self.y.len();
        let mut i = 0;
        while i < len {
            let count = (len - i).min(4 * I::LANES);
            let sum = parts_sum(isa, self.parts, self.first + i, count);
            for (v, &sum) in sum.iter().enumerate() {
                let at = v * I::LANES;
                if at < count {
                    let mask = isa.first(count - at);
                    // SAFETY: the mask ends at `i + count <= len`.
                    unsafe {
                        let to = self.y.as_mut_ptr().add(i + at);
                        let sum = if self.accumulate { isa.add(isa.load_masked(mask, to), sum) } else { sum };
                        isa.store_masked(mask, to, sum);
                    }
                }
            }
            i += count;
        }
    }
}

/// The sum of the parts' values `i..i + count`, at most four vectors of them, in the order of the parts.
#[inline(always)]
pub(crate) fn parts_sum<I: Isa>(isa: I, parts: &[&[f32]], i: usize, count: usize) -> [I::F32; 4] {
    let mut sum = [isa.zero(); 4];
    let Some((first, rest)) = parts.split_first() else { return sum };
    if count >= 4 * I::LANES {
        assert!(i + 4 * I::LANES <= first.len());
        for v in 0..4 {
            // SAFETY: just checked; and below for the other parts.
            sum[v] = unsafe { isa.load(first.as_ptr().add(i + v * I::LANES)) };
        }
        for part in rest {
            assert!(i + 4 * I::LANES <= part.len());
            for v in 0..4 {
                // SAFETY: just checked.
                sum[v] = isa.add(sum[v], unsafe { isa.load(part.as_ptr().add(i + v * I::LANES)) });
            }
        }
    } else {
        for (k, part) in parts.iter().enumerate() {
            assert!(i + count <= part.len());
            for v in 0..4 {
                let at = v * I::LANES;
                if at < count {
                    // SAFETY: the mask ends at `i + count`, which was just checked.
                    let x = unsafe { isa.load_masked(isa.first(count - at), part.as_ptr().add(i + at)) };
                    sum[v] = if k == 0 { x } else { isa.add(sum[v], x) };
                }
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CHANNELS, LENGTHS, STALE, close, output, values, wide};

    #[test]
    fn columns_are_summed() {
        for level in Level::available() {
            for columns in CHANNELS {
                for rows in [0, 1, 2, 7, 31, 33, 131, 300] {
                    let len = rows * columns;
                    let (a, b) = (values(len, 1), values(len, 2));
                    let (mut sum, mut product) = (vec![0.0; columns], vec![0.0; columns]);
                    for i in 0..len {
                        sum[i % columns] += f64::from(a[i]);
                        product[i % columns] += f64::from(a[i]) * f64::from(b[i]);
                    }
                    let what = (level, columns, rows);
                    // Typical errors grow with the root of the terms.
                    let floor = 3.0 * (rows as f64).sqrt() + 1.0;
                    let got = output(columns, STALE, |y| column_sums(level, columns, &a, y, false));
                    close(what, &got, &sum, 8.0, floor);
                    let got = output(columns, STALE, |y| column_products(level, columns, &a, &b, y, false));
                    close(what, &got, &product, 8.0, 3.0 * floor);
                    sum.iter_mut().for_each(|s| *s += f64::from(STALE));
                    let got = output(columns, STALE, |y| column_sums(level, columns, &a, y, true));
                    close(what, &got, &sum, 2.0, f64::from(STALE));
                }
            }
        }
    }

    #[test]
    fn long_sums_stay_accurate() {
        // One after another in single precision, a million times 0.1 is 1 % off.
        let x = vec![0.1f32; 1_000_000];
        for level in Level::available() {
            let total = total(level, &x);
            close(level, &[total], &[f64::from(0.1f32) * 1e6], 12.0, 0.0);
        }
    }

    #[test]
    fn threads_gather_the_same_bits() {
        let len = 3 * PIECE + 37;
        let parts: Vec<Vec<f32>> = (0..5).map(|k| values(len, k)).collect();
        let slices: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
        for level in Level::available() {
            for accumulate in [false, true] {
                let gathered =
                    |threads| output(len, STALE, |y| gather(&mut Pool::new(threads), level, &slices, y, accumulate));
                let want = gathered(1);
                let alone = output(len, STALE, |y| sum_parts(level, &slices, y));
                let before = if accumulate { STALE } else { 0.0 };
                assert!(want.iter().zip(&alone).all(|(&got, &sum)| got == before + sum), "{level:?}");
                assert!(gathered(2) == want && gathered(4) == want, "{level:?}");
            }
        }
    }

    #[test]
    fn parts_are_summed_in_order() {
        for level in Level::available() {
            for len in LENGTHS {
                for count in [0usize, 1, 2, 5] {
                    let parts: Vec<Vec<f32>> = (0..count).map(|k| values(len, k as u64)).collect();
                    let slices: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
                    let want: Vec<f32> =
                        (0..len).map(|i| parts.iter().map(|p| p[i]).reduce(|a, b| a + b).unwrap_or(0.0)).collect();
                    let got = output(len, STALE, |y| sum_parts(level, &slices, y));
                    close((level, len, count), &got, &wide(&want), 0.0, 0.0);
                    let got = output(len, STALE, |y| gather(&mut Pool::new(2), level, &slices, y, false));
                    close((level, len, count), &got, &wide(&want), 0.0, 0.0);
                    let want: Vec<f32> = want.iter().map(|w| STALE + w).collect();
                    let got = output(len, STALE, |y| gather(&mut Pool::new(2), level, &slices, y, true));
                    close((level, len, count), &got, &wide(&want), 0.0, 0.0);
                }
            }
        }
    }
}
