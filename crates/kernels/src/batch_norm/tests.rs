//! Against the formulas in double precision.

use super::*;
use crate::bf16;
use crate::testing::{CHANNELS, STALE, close, dot, gradient, output, values, wide};

const EPSILON: f32 = 1e-3;

/// Mean, variance and output of the whole batch.
fn exact(channels: usize, x: &[f64], gamma: &[f64], beta: &[f64]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let rows = x.len() / channels;
    let column = |c: usize| (0..rows).map(move |r| x[r * channels + c]);
    let mean: Vec<f64> = (0..channels).map(|c| column(c).sum::<f64>() / rows as f64).collect();
    let variance: Vec<f64> =
        (0..channels).map(|c| column(c).map(|x| (x - mean[c]).powi(2)).sum::<f64>() / rows as f64).collect();
    let y = (0..x.len())
        .map(|i| {
            let c = i % channels;
            gamma[c] * (x[i] - mean[c]) / (variance[c] + f64::from(EPSILON)).sqrt() + beta[c]
        })
        .collect();
    (mean, variance, y)
}

#[test]
fn forward_and_backward_match_the_formulas() {
    for level in Level::available() {
        for channels in CHANNELS {
            for rows in [2, 7, 33, 131] {
                check(level, channels, rows);
            }
        }
    }
}

fn check(level: Level, channels: usize, rows: usize) {
    let (len, what, count) = (rows * channels, (level, channels, rows), rows as f32);
    let x: Vec<f32> = values(len, 1).iter().enumerate().map(|(i, v)| v + (i % channels) as f32 * 0.01).collect();
    let (dy, gamma, beta, shift) = (values(len, 2), values(channels, 3), values(channels, 4), values(channels, 5));
    let (want_mean, want_variance, want_y) = exact(channels, &wide(&x), &wide(&gamma), &wide(&beta));
    // In two parts, as two workers would.
    let cut = rows / 2 * channels;
    let sums = output(2 * channels, STALE, |sums| {
        moments(level, channels, (&x[..cut]).into(), &shift, sums, false);
        moments(level, channels, (&x[cut..]).into(), &shift, sums, true);
    });
    let (mut mean, mut variance) = (vec![0.0; channels], vec![0.0; channels]);
    finish(&sums, &shift, count, &mut mean, &mut variance);
    close(what, &mean, &want_mean, 6.0, 8.0);
    // With a shift as far off as this one, up to 13, the squares are that much larger.
    close(what, &variance, &want_variance, 24.0, 200.0);

    let plain = Norm {
        mean: &mean,
        variance: &variance,
        gamma: &gamma,
        beta: &beta,
        epsilon: EPSILON,
        epilogue: Epilogue::Linear,
    };
    let shortcut = values(len, 6);
    for epilogue in [Epilogue::Linear, Epilogue::Relu, Epilogue::Relu6] {
        let norm = Norm { epilogue, ..plain };
        for added in [None, Some(&shortcut[..])] {
            let y = output(len, STALE, |y| normalize(level, &norm, (&x).into(), added.map(Into::into), y.into()));
            let want = want_y.iter().zip(&shortcut).map(|(&y, &s)| y + added.map_or(0.0, |_| f64::from(s)));
            let want: Vec<f64> = want.map(|y| rectify(epilogue, y)).collect();
            // A channel of two rows that nearly agree magnifies the error of the variance.
            close(what, &y, &want, if rows > 2 { 400.0 } else { 1e5 }, 3.0);
            rectified_gradients_are_the_plain_ones_of_what_passes(level, &norm, &x, added, &y, &dy);
        }
    }

    let (dbeta, dgamma) = two(channels, |dbeta, dgamma| {
        backward_sums(level, &plain, (&x[..cut]).into(), (&dy[..cut]).into(), dbeta, dgamma, false);
        backward_sums(level, &plain, (&x[cut..]).into(), (&dy[cut..]).into(), dbeta, dgamma, true);
    });
    let dx =
        output(len, STALE, |dx| backward(level, &plain, count, (&x).into(), (&dy).into(), &dbeta, &dgamma, dx.into()));
    // Each channel stands alone, so that its gradient can be taken alone; a few of them are enough.
    for c in (0..channels).step_by(channels.div_ceil(3)).filter(|_| rows > 2 && rows < 100) {
        let column = |v: &[f32]| (0..rows).map(|r| f64::from(v[r * channels + c])).collect::<Vec<_>>();
        let (x, dy) = (column(&x), column(&dy));
        let (g, b) = (f64::from(gamma[c]), f64::from(beta[c]));
        let loss = |x: &[f64], g: f64, b: f64| dot(&exact(1, x, &[g], &[b]).2, &dy);
        let want = gradient(|x| loss(x, g, b), &x);
        let got: Vec<f32> = (0..rows).map(|r| dx[r * channels + c]).collect();
        close((what, c), &got, &want, 1000.0, 3.0);
        let want = gradient(|p| loss(&x, p[0], p[1]), &[g, b]);
        close((what, c), &[dgamma[c], dbeta[c]], &want, 200.0, (rows as f64).sqrt());
    }
}

fn rectify(epilogue: Epilogue, y: f64) -> f64 {
    match epilogue {
        Epilogue::Linear => y,
        Epilogue::Relu => y.max(0.0),
        Epilogue::Relu6 => y.clamp(0.0, 6.0),
    }
}

fn two(channels: usize, kernel: impl FnOnce(&mut [f32], &mut [f32])) -> (Vec<f32>, Vec<f32>) {
    let mut second = Vec::new();
    let first = output(channels, STALE, |first| second = output(channels, STALE, |second| kernel(first, second)));
    (first, second)
}

/// With a rectifier every bit is what it is without, for the gradient of the places that it let pass.
fn rectified_gradients_are_the_plain_ones_of_what_passes(
    level: Level,
    norm: &Norm<'_>,
    x: &[f32],
    shortcut: Option<&[f32]>,
    y: &[f32],
    dy: &[f32],
) {
    let (channels, len, what) = (norm.mean.len(), x.len(), (level, norm.epilogue, norm.mean.len(), x.len()));
    let plain = Norm { epilogue: Epilogue::Linear, ..*norm };
    let other = values(len, 7);
    let passes = |y: f32| match norm.epilogue {
        Epilogue::Linear => true,
        Epilogue::Relu => y > 0.0,
        Epilogue::Relu6 => y > 0.0 && y < 6.0,
    };
    let (x, y_values, dy_values) = (x.into(), y.into(), dy.into());
    for second in [None, Some(&other[..])] {
        let sum = |i: usize| if second.is_some() { dy[i] + other[i] } else { dy[i] };
        let want: Vec<f32> = (0..len).map(|i| if passes(y[i]) { sum(i) } else { 0.0 }).collect();
        let plain_sums = two(channels, |a, b| backward_sums(level, &plain, x, (&want).into(), a, b, false));
        let mut sums = (Vec::new(), Vec::new());
        let g = output(len, STALE, |g| {
            sums = two(channels, |a, b| {
                let terms = (dy_values, second.map(Into::into));
                backward_sums_and_gradient(level, norm, x, y_values, terms, g.into(), a, b, false);
            });
        });
        assert_eq!(g, want, "{what:?}");
        assert_eq!(sums, plain_sums, "{what:?}");
        if second.is_none() && shortcut.is_none() {
            let sums = two(channels, |a, b| backward_sums(level, norm, x, dy_values, a, b, false));
            assert_eq!(sums, plain_sums, "{what:?}");
            let (a, b) = &sums;
            let dx = output(len, STALE, |dx| backward(level, norm, 9.0, x, dy_values, a, b, dx.into()));
            let want = output(len, STALE, |dx| backward(level, &plain, 9.0, x, (&want).into(), a, b, dx.into()));
            assert_eq!(dx, want, "{what:?}");
        }
    }
}

#[test]
fn a_large_mean_does_not_drown_the_variance() {
    let x: Vec<f32> = values(40_000, 1).iter().map(|v| 1000.0 + v * 0.1).collect();
    let (mean, variance, _) = exact(4, &wide(&x), &[1.0; 4], &[0.0; 4]);
    for level in Level::available() {
        let shift = &x[..4];
        let sums = output(8, STALE, |sums| moments(level, 4, (&x).into(), shift, sums, false));
        let (mut m, mut v) = ([0.0; 4], [0.0; 4]);
        finish(&sums, shift, 1e4, &mut m, &mut v);
        close(level, &m, &mean, 1.0, 0.0);
        close(level, &v, &variance, 100.0, 0.0);
    }
}

/// Arrays of bf16 values, in any mixture with others, give the bits that the same numbers in single precision give.
#[test]
fn bf16_arrays_are_read_and_written_exactly() {
    for level in Level::available_and_emulated() {
        for (channels, rows) in CHANNELS.into_iter().flat_map(|channels| [(channels, 2), (channels, 35)]) {
            for epilogue in [Epilogue::Linear, Epilogue::Relu, Epilogue::Relu6] {
                check_bf16(level, channels, rows, epilogue);
            }
        }
    }
}

fn check_bf16(level: Level, channels: usize, rows: usize, epilogue: Epilogue) {
    let (len, what) = (rows * channels, (level, channels, rows, epilogue));
    let halves = |seed: u64| values(len, seed).iter().map(|&v| bf16::round(v)).collect::<Vec<u16>>();
    let rounded = |values: &[f32]| values.iter().map(|&v| bf16::round(v)).collect::<Vec<u16>>();
    let half: [Vec<u16>; 4] = std::array::from_fn(|n| halves(n as u64 + 1));
    let single = half.each_ref().map(|half| half.iter().map(|&v| bf16::widen(v)).collect::<Vec<f32>>());
    let (gamma, beta, mean) = (values(channels, 5), values(channels, 6), values(channels, 7));
    let variance: Vec<f32> = values(channels, 8).iter().map(|v| v.abs() + 0.5).collect();
    let norm = Norm { mean: &mean, variance: &variance, gamma: &gamma, beta: &beta, epsilon: EPSILON, epilogue };
    // Which of the arrays are bf16.
    for mask in 0..16 {
        let pick = |n: usize| match mask >> n & 1 {
            0 => Values::from(&single[n]),
            _ => Values::Bf16(&half[n]),
        };
        let wide = |n: usize| Values::from(&single[n]);
        let [x, y, a, b] = [0, 1, 2, 3].map(pick);
        let [wide_x, wide_y, wide_a, wide_b] = [0, 1, 2, 3].map(wide);
        let narrow = |f: &dyn Fn(ValuesMut<'_>)| output(len, 0x7777, |y| f(ValuesMut::Bf16(y)));
        let singles = |f: &dyn Fn(ValuesMut<'_>)| output(len, STALE, |y| f(ValuesMut::F32(y)));

        let sums = |x| output(2 * channels, STALE, |sums| moments(level, channels, x, &mean, sums, false));
        assert_eq!(sums(x), sums(wide_x), "{what:?}");
        for (shortcut, wide_shortcut) in [(None, None), (Some(a), Some(wide_a))] {
            let want = singles(&|y| normalize(level, &norm, wide_x, wide_shortcut, y));
            assert_eq!(singles(&|y| normalize(level, &norm, x, shortcut, y)), want, "{what:?}");
            assert_eq!(narrow(&|y| normalize(level, &norm, x, shortcut, y)), rounded(&want), "{what:?}");
        }
        let sums = |x, dy| two(channels, |p, q| backward_sums(level, &norm, x, dy, p, q, false));
        let want = sums(wide_x, wide_a);
        assert_eq!(sums(x, a), want, "{what:?}");
        let (p, q) = &want;
        let want = singles(&|dx| backward(level, &norm, 9.0, wide_x, wide_a, p, q, dx));
        assert_eq!(singles(&|dx| backward(level, &norm, 9.0, x, a, p, q, dx)), want, "{what:?}");
        assert_eq!(narrow(&|dx| backward(level, &norm, 9.0, x, a, p, q, dx)), rounded(&want), "{what:?}");
        for (terms, wide_terms) in [((a, None), (wide_a, None)), ((a, Some(b)), (wide_a, Some(wide_b)))] {
            let mut want_sums = (Vec::new(), Vec::new());
            let want = output(len, STALE, |g| {
                want_sums = two(channels, |p, q| {
                    let g = ValuesMut::F32(g);
                    backward_sums_and_gradient(level, &norm, wide_x, wide_y, wide_terms, g, p, q, false);
                });
            });
            let mut sums = (Vec::new(), Vec::new());
            let g = output(len, 0x7777, |g| {
                sums = two(channels, |p, q| {
                    let g = ValuesMut::Bf16(g);
                    backward_sums_and_gradient(level, &norm, x, y, terms, g, p, q, false);
                });
            });
            assert_eq!(g, rounded(&want), "{what:?}");
            assert_eq!(sums, want_sums, "{what:?}");
        }
    }
}
