//! Crossed factors against the definition in double precision, within a bound that grows with what is added and subtracted again.

use super::piece_tests::cuts;
use super::tests::{convolved, dirty, noise};
use super::*;
use crate::{Level, Packing, Pool, Precision};

/// Image, filters and samples: whole and partial vectors, tiles, strips and periods.
const CASES: [([usize; 3], usize, usize); 10] = [
    ([1, 2, 64], 32, 1),
    ([5, 5, 64], 33, 3),
    ([7, 7, 68], 64, 2),
    ([5, 5, 32], 40, 2),
    ([4, 2, 36], 33, 3),
    ([3, 2, 76], 40, 5),
    ([7, 13, 80], 100, 1),
    ([2, 3, 132], 48, 7),
    // Copies of pixels that would drive each other out of the cache.
    ([4, 3, 1024], 130, 2),
    // The same, some pixels at a time.
    ([13, 11, 1024], 130, 1),
];

/// What a sum should be, and what its rounding may come to.
struct Sum {
    value: f64,
    tolerance: f64,
}

/// The sums of one pixel `a` with one column `b`.
fn sum(a: &[f32], b: &[f32], bias: f32) -> Sum {
    let (a, b): (Vec<f64>, Vec<f64>) = a.iter().zip(b).map(|(&a, &b)| (f64::from(a), f64::from(b))).unzip();
    let mean_square = b.iter().map(|b| b * b).sum::<f64>() / b.len() as f64;
    let scale = if mean_square > 0.0 { (-mean_square.log2() / 2.0).round().exp2() } else { 1.0 };
    let (mut value, mut magnitude) = (f64::from(bias), f64::from(bias).abs());
    for (a, b) in a.chunks(4).zip(b.chunks(4)) {
        value += a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let [a, b]: [Vec<f64>; 2] = [a, b].map(|values| values.iter().map(|v| v.abs()).collect());
        let crossed = (a[0] / scale + b[1]) * (a[1] + b[0] * scale);
        magnitude += crossed + a[0] * a[1] / scale + b[0] * b[1] * scale + a[2] * b[2] + a[3] * b[3];
    }
    Sum { value, tolerance: f64::from(f32::EPSILON) * magnitude * (2.0 + (b.len() as f64).sqrt() / 2.0) }
}

#[test]
fn crossed_factors_agree_with_the_definition() {
    for (input, filters, samples) in CASES {
        let shape = ConvShape { input, ..ConvShape::dense(input[2], filters) };
        let (pixels, channels) = (samples * input[0] * input[1], input[2]);
        for size in [1.0, 1.0 / 32.0, 32.0] {
            let x: Vec<f32> = noise(1, samples * shape.input_len()).iter().map(|x| x * size).collect();
            // Columns of very different size, and one of zeros.
            let mut w = noise(2, shape.weights_len());
            for (i, w) in w.iter_mut().enumerate() {
                *w *= if i % filters == 5 { 0.0 } else { ((i % filters % 17) as f32 - 12.0).exp2() };
            }
            let bias = noise(3, filters);
            let columns: Vec<Vec<f32>> =
                (0..filters).map(|o| w.iter().skip(o).step_by(filters).copied().collect()).collect();
            let want: Vec<Sum> = (0..pixels * filters)
                .map(|i| {
                    let a = &x[i / filters * channels..][..channels];
                    sum(a, &columns[i % filters], bias[i % filters])
                })
                .collect();
            for level in Level::available() {
                let forward = Forward::new(shape, level, Precision::F32).crossed();
                assert!(forward.crossed && forward.gathered.is_some() == (channels == 1024), "{shape:?}");
                let mut packed = dirty(forward.packed_len());
                forward.pack(&mut Pool::new(3), &w, &mut packed);
                let near = |y: &[f32], shortcut: Option<&[f32]>, [low, high]: [f64; 2]| {
                    for (i, (&y, want)) in y.iter().zip(&want).enumerate() {
                        let before = shortcut.map_or(0.0, |shortcut| f64::from(shortcut[i]));
                        let value = (want.value + before).clamp(low, high);
                        let tolerance = want.tolerance + f64::from(f32::EPSILON) * before.abs();
                        let error = (f64::from(y) - value).abs();
                        assert!(error <= tolerance, "{y} instead of {value} at {i}: {shape:?} on {level:?}, {size}");
                    }
                };
                for epilogue in [Epilogue::Linear, Epilogue::Relu, Epilogue::Relu6] {
                    let (low, high) = epilogue.bounds();
                    let bounds = [f64::from(low), f64::from(high)];
                    let weights = ConvWeights { packed: &packed, bias: Some(&bias), epilogue };
                    let y = convolved(&forward, &shape, samples, &x, weights);
                    near(&y, None, bounds);
                    let shortcut = noise(4, y.len());
                    let mut sums = shortcut.clone();
                    let mut scratch = dirty(forward.scratch_len(samples));
                    forward.run(Extent::Samples(samples), &x, weights, Sums::Onto(&mut sums), &mut scratch);
                    near(&sums, Some(&shortcut), bounds);
                    // Pieces and single samples are the same to the bit.
                    for pieces in cuts(shape.output_len(), forward.unit()) {
                        let mut cut = dirty(shape.output_len());
                        for part in pieces {
                            let sums = Sums::New((&mut cut[part.clone()]).into());
                            let mut scratch = dirty(forward.scratch_len(1));
                            forward.run(Extent::Piece(part), &x[..shape.input_len()], weights, sums, &mut scratch);
                        }
                        assert_eq!(cut, y[..cut.len()], "{shape:?} on {level:?}");
                    }
                }
                let unbiased = ConvWeights { packed: &packed, bias: None, epilogue: Epilogue::Linear };
                let y = convolved(&forward, &shape, samples, &x, unbiased);
                let biases: Vec<f32> = bias.iter().map(|b| -b).cycle().take(y.len()).collect();
                near(&y, Some(&biases), [f64::NEG_INFINITY, f64::INFINITY]);
            }
        }
    }
}

#[test]
fn bands_of_rows_are_computed_as_the_whole() {
    for width in [1, 2, 5] {
        let whole = ConvShape { input: [6, width, 64], ..ConvShape::dense(64, 40) };
        let (x, w) = (noise(1, whole.input_len()), noise(2, whole.weights_len()));
        for level in Level::available() {
            let run = |rows: usize| {
                let shape = ConvShape { input: [rows, width, 64], ..whole };
                let forward = Forward::new(shape, level, Precision::F32).crossed();
                let mut packed = dirty(forward.packed_len());
                forward.pack(&mut Pool::new(1), &w, &mut packed);
                let weights = ConvWeights { packed: &packed, bias: None, epilogue: Epilogue::Linear };
                let bands = x.chunks(shape.input_len());
                bands.map(|x| convolved(&forward, &shape, 1, x, weights)).collect::<Vec<_>>().concat()
            };
            assert_eq!(run(1), run(6), "{width} columns on {level:?}");
            assert_eq!(run(2), run(6), "{width} columns on {level:?}");
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_pixel() {
    let shape = ConvShape { input: [3, 3, 64], ..ConvShape::dense(64, 32) };
    for level in Level::available() {
        let forward = Forward::new(shape, level, Precision::F32).crossed();
        let mut packed = dirty(forward.packed_len());
        forward.pack(&mut Pool::new(1), &noise(2, shape.weights_len()), &mut packed);
        for channel in 0..64 {
            let mut x = noise(1, shape.input_len());
            x[4 * 64 + channel] = f32::NAN;
            for epilogue in [Epilogue::Linear, Epilogue::Relu, Epilogue::Relu6] {
                let y = convolved(&forward, &shape, 1, &x, ConvWeights { packed: &packed, bias: None, epilogue });
                for (i, y) in y.iter().enumerate() {
                    assert_eq!(y.is_nan(), i / 32 == 4, "pixel {} on {level:?}", i / 32);
                }
            }
        }
    }
}
