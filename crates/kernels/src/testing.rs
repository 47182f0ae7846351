//! What kernel tests share: sizes at the edges of vectors, values, guarded outputs, comparison in epsilons, and
//! gradients by central differences.

/// Lengths around the lanes of every level, their multiples, and primes.
pub(crate) const LENGTHS: [usize; 24] =
    [0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 61, 63, 64, 65, 97, 127, 257, 1031];

/// Channel counts around the lanes, the blocks and the chunk of columns, and primes.
pub(crate) const CHANNELS: [usize; 20] =
    [1, 2, 3, 5, 7, 8, 10, 16, 17, 24, 31, 33, 40, 64, 65, 127, 511, 512, 513, 1031];

/// Values in (-3, 3), none within 1e-3 of zero, the same for the same seed.
pub(crate) fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let v = (state >> 40) as f32 / (1u64 << 24) as f32 * 6.0 - 3.0;
        if v.abs() < 1e-3 { v + 0.01 } else { v }
    };
    // The first values still show the seed.
    (0..len + 16).map(|_| next()).skip(16).collect()
}

pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// The output of a kernel that is handed `len` values between guards, full of what it must overwrite.
pub(crate) fn output<T: Copy + PartialEq + std::fmt::Debug>(
    len: usize,
    stale: T,
    kernel: impl FnOnce(&mut [T]),
) -> Vec<T> {
    const GUARD: usize = 33;
    let mut memory = vec![stale; len + 2 * GUARD];
    kernel(&mut memory[GUARD..GUARD + len]);
    // A guard may be NaN: what matters is that nothing was written, and nothing writes just that value.
    let outside = memory[..GUARD].iter().chain(&memory[GUARD + len..]);
    assert!(outside.copied().all(|v| v == stale), "written outside the output of {len} values");
    memory[GUARD..GUARD + len].to_vec()
}

/// A value that no kernel here computes.
pub(crate) const STALE: f32 = 12_345.678;

/// Checks `|got - want| <= epsilons * ε * max(|want|, floor)` for every value.
#[track_caller]
pub(crate) fn close(what: impl std::fmt::Debug, got: &[f32], want: &[f64], epsilons: f64, floor: f64) {
    assert_eq!(got.len(), want.len(), "{what:?}");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(g) - w).abs() / (f64::from(f32::EPSILON) * w.abs().max(floor).max(1e-30));
        assert!(error <= epsilons, "{what:?} at {i}: {g} instead of {w}, {error:.1} epsilons off");
    }
}

/// The gradient of `f` by central differences in double precision; good to about 1e-8 of `f`'s scale.
pub(crate) fn gradient(f: impl Fn(&[f64]) -> f64, at: &[f64]) -> Vec<f64> {
    const H: f64 = 1e-5;
    let mut x = at.to_vec();
    (0..at.len())
        .map(|i| {
            x[i] = at[i] + H;
            let right = f(&x);
            x[i] = at[i] - H;
            let left = f(&x);
            x[i] = at[i];
            (right - left) / (2.0 * H)
        })
        .collect()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The error function by its series of positive terms (Abramowitz and Stegun, 7.1.6).
pub(crate) fn erf(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    if x.abs() > 6.0 { x.signum() } else { 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum }
}
