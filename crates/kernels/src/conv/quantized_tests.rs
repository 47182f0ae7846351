//! The convolution of bytes, on every level, against whole-number sums of its definition; and against the convolution of
//! the numbers that the bytes stand for.

use super::reference::{products, window_pixel};
use super::tests::convolved;
use super::*;
use crate::quantize::Encoding;
use crate::{Level, Packing, Pool, Precision};

/// Bytes that depend only on `seed`.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as u8
    };
    std::iter::repeat_with(next).skip(8).take(len).collect()
}

/// Values in `-1..1`, some of them at the ends.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    bytes(seed, len)
        .iter()
        .zip(bytes(seed + 100, len))
        .map(|(&a, b)| f32::from(a) / 127.5 - 1.0 + f32::from(b) / 4e4)
        .collect()
}

/// What is expected of one kernel, computed loop by loop.
struct Expected {
    /// The weights as bytes, and each filter's scale.
    weights: Vec<i64>,
    scale: Vec<f32>,
    /// What the offsets of the input add.
    constant: Vec<f32>,
    sums: Vec<i64>,
}

fn expected(shape: &ConvShape, samples: usize, x: &[u8], w: &[f32], scale: &[f32], offset: &[f32]) -> Expected {
    let (filters, channels) = (shape.filters, shape.group_channels());
    let channel = |i: usize| i % filters / shape.group_filters() * channels + i / filters % channels;
    let mut scales = vec![0.0f32; filters];
    for (i, w) in w.iter().enumerate() {
        scales[i % filters] = scales[i % filters].max((w * scale[channel(i)]).abs());
    }
    scales.iter_mut().for_each(|s| *s /= 127.0);
    let byte = |(i, w): (usize, &f32)| {
        let inverse = if scales[i % filters] > 0.0 { 1.0 / scales[i % filters] } else { 0.0 };
        (w * scale[channel(i)] * inverse).round_ties_even() as i64
    };
    let weights: Vec<i64> = w.iter().enumerate().map(byte).collect();
    let mut constant = vec![0.0f64; filters];
    for (i, &w) in weights.iter().enumerate() {
        constant[i % filters] += f64::from(offset[channel(i)]) / f64::from(scale[channel(i)]) * w as f64;
    }
    // What lies in the padding: the byte nearest to zero.
    let zero: Vec<i64> = scale.iter().zip(offset).map(|(s, o)| i64::from((-o / s).round() as u8)).collect();
    let mut sums = vec![0i64; samples * shape.output_len()];
    for (i, sum) in sums.iter_mut().enumerate() {
        let filter = i % filters;
        let mine = (0..weights.len()).filter(|k| k % filters == filter);
        *sum = mine.map(|k| zero[channel(k)] * weights[k]).sum();
    }
    products(shape, samples, |ix, iw, iy| {
        sums[iy] += (i64::from(x[ix]) - zero[ix % shape.input[2]]) * weights[iw];
    });
    let constant = constant.iter().zip(&scales).map(|(&sum, &scale)| (sum * f64::from(scale)) as f32).collect();
    Expected { weights, scale: scales, constant, sums }
}

fn check(shape: PooledShape, samples: usize) {
    let conv = shape.conv;
    let x = bytes(1, samples * conv.input_len());
    let w = noise(2, conv.weights_len());
    let bias = noise(3, conv.filters);
    // Signed inputs whose zero is byte 40; and pixels scaled channel by channel, as behind a normalisation.
    let channels = conv.input[2];
    let uniform = (vec![0.013; channels], vec![-0.013 * 40.0; channels]);
    let normalised: (Vec<f32>, Vec<f32>) =
        (0..channels).map(|c| (0.01 + 0.002 * (c % 3) as f32, -1.1 - 0.1 * (c % 4) as f32)).unzip();
    for (scale, offset) in [uniform, normalised] {
        let want = expected(&conv, samples, &x, &w, &scale, &offset);
        assert!(want.weights.iter().all(|w| w.abs() <= 127));
        let best =
            |pooled: usize| (0..shape.window()).map(|p| want.sums[window_pixel(&shape, pooled, p)]).max().unwrap();
        let maxima: Vec<i64> = (0..samples * shape.output_len()).map(best).collect();
        let unpooled = shape.window() == 1;
        let (added, added_bytes) = (noise(4, maxima.len()), bytes(5, maxima.len()));
        let addend_encoding = Encoding { scale: 0.02, zero_point: 31 };
        let addends = [None, Some(Addend::Numbers(&added)), Some(Addend::Bytes(addend_encoding, &added_bytes))];
        for level in Level::available() {
            let best = QuantizedForward::new(shape, &scale, &offset, level);
            for kernel in [best.clone(), best.common()] {
                let mut packed = vec![f32::NAN; kernel.packed_len()];
                kernel.pack(&mut Pool::new(2), &w, &mut packed);
                for (epilogue, bias) in [Epilogue::Linear, Epilogue::Relu, Epilogue::Relu6]
                    .into_iter()
                    .flat_map(|epilogue| [(epilogue, None), (epilogue, Some(&bias[..]))])
                {
                    for addend in addends.into_iter().filter(|addend| unpooled || addend.is_none()) {
                        let context = (level, samples, shape, epilogue, addend.is_some());
                        let mut scratch = vec![f32::NAN; kernel.scratch_len(samples)];
                        let mut y = vec![f32::NAN; maxima.len()];
                        kernel.run(
                            samples,
                            &x,
                            &packed,
                            bias,
                            addend,
                            epilogue,
                            Destination::Numbers(&mut y),
                            &mut scratch,
                        );
                        let number = |i: usize, one: f32, zero: f32| {
                            let filter = i % conv.filters;
                            let added = match addend {
                                None => (0.0, 0.0),
                                Some(Addend::Numbers(x)) => (x[i] * one, 0.0),
                                Some(Addend::Bytes(encoding, x)) => {
                                    let factor = encoding.scale * one;
                                    (f32::from(x[i]) * factor, -factor * f32::from(encoding.zero_point))
                                }
                            };
                            let bias = bias.map_or(0.0, |bias| bias[filter]);
                            let term = (want.constant[filter] + bias) * one + (zero + added.1);
                            let value = maxima[i] as i32 as f32 * (want.scale[filter] * one) + term;
                            if addend.is_some() { value + added.0 } else { value }
                        };
                        let (low, high) = epilogue.bounds();
                        for (i, &y) in y.iter().enumerate() {
                            assert_eq!(y, number(i, 1.0, 0.0).max(low).min(high), "y[{i}] in {context:?}");
                        }
                        for encoding in
                            [Encoding { scale: 0.05, zero_point: 0 }, Encoding { scale: 0.03, zero_point: 100 }]
                        {
                            let mut y = vec![7u8; maxima.len() + 2];
                            let to = Destination::Bytes(encoding, &mut y[1..maxima.len() + 1]);
                            scratch.fill(f32::NAN);
                            kernel.run(samples, &x, &packed, bias, addend, epilogue, to, &mut scratch);
                            assert_eq!((y[0], y[maxima.len() + 1]), (7, 7), "written outside in {context:?}");
                            let (one, zero) = (1.0 / encoding.scale, f32::from(encoding.zero_point));
                            for (i, &y) in y[1..=maxima.len()].iter().enumerate() {
                                let bound = |v: f32| (v * one + zero).clamp(0.0, 255.0);
                                let value = number(i, one, zero).max(bound(low)).min(bound(high));
                                assert_eq!(y, value.round_ties_even() as u8, "byte {i} in {context:?}");
                            }
                        }
                    }
                }
            }
        }
    }
}

fn conv(input: [usize; 3], filters: usize, kernel: [usize; 2]) -> ConvShape {
    ConvShape { input, filters, kernel, strides: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 }
}

#[test]
fn sums_are_exact_at_the_edges_of_tiles() {
    let single = |conv| PooledShape { conv, pool: [1, 1] };
    for (shape, samples) in [
        (single(ConvShape::dense(1, 1)), 1),
        (single(ConvShape::dense(4, 16)), 13),
        (single(ConvShape::dense(67, 33)), 8),
        (single(ConvShape::dense(64, 10)), 25),
        (single(conv([5, 6, 1], 32, [3, 3])), 2),
        (single(conv([5, 6, 2], 17, [3, 2])), 1),
        (single(ConvShape { padding: [1; 4], ..conv([6, 5, 3], 8, [3, 3]) }), 2),
        (single(ConvShape { padding: [0, 2, 1, 0], strides: [2, 3], ..conv([9, 8, 4], 31, [3, 3]) }), 2),
        (single(ConvShape { padding: [2; 4], dilation: [2, 1], ..conv([7, 7, 8], 5, [3, 3]) }), 1),
        (single(ConvShape { groups: 2, padding: [1; 4], ..conv([4, 5, 6], 34, [3, 3]) }), 2),
        (single(ConvShape { groups: 3, strides: [2, 2], ..conv([5, 5, 12], 9, [1, 1]) }), 3),
        (single(ConvShape { strides: [2, 2], ..conv([6, 6, 16], 32, [1, 1]) }), 1),
        (single(conv([2, 2, 1], 3, [3, 3])), 1),
    ] {
        check(shape, samples);
    }
}

#[test]
fn maxima_of_sums_are_exact() {
    let same = |input, filters| ConvShape { padding: [1; 4], ..conv(input, filters, [3, 3]) };
    for (conv, pool, samples) in [
        (conv([8, 8, 1], 32, [3, 3]), [2, 2], 3),
        (conv([7, 6, 4], 33, [3, 3]), [2, 2], 1),
        (same([5, 6, 3], 16), [2, 2], 2),
        (same([6, 6, 4], 40), [3, 3], 2),
        (same([4, 6, 5], 7), [1, 2], 2),
        (same([6, 4, 2], 20), [2, 3], 1),
        (ConvShape { groups: 2, ..same([4, 4, 8], 6) }, [4, 1], 2),
        (conv([3, 3, 4], 8, [3, 3]), [2, 2], 1),
    ] {
        check(PooledShape { conv, pool }, samples);
    }
}

#[test]
fn the_largest_sums_fit() {
    // Every byte and weight at its end, in the longest reduction that is allowed.
    let inputs = i32::MAX as usize / (255 * 127);
    let shape = PooledShape { conv: ConvShape::dense(inputs, 2), pool: [1, 1] };
    assert!(QuantizedForward::suits(&shape.conv) && !QuantizedForward::suits(&ConvShape::dense(inputs + 1, 2)));
    for level in Level::available() {
        let best = QuantizedForward::new(shape, &vec![1.0; inputs], &vec![0.0; inputs], level);
        for kernel in [best.clone(), best.common()] {
            let mut packed = vec![0.0; kernel.packed_len()];
            let weights: Vec<f32> = (0..2 * inputs).map(|i| if i % 2 == 0 { 127.0 } else { -127.0 }).collect();
            kernel.pack(&mut Pool::new(1), &weights, &mut packed);
            let (mut y, mut scratch) = ([0.0; 2], vec![0.0; kernel.scratch_len(1)]);
            let to = Destination::Numbers(&mut y);
            kernel.run(1, &vec![255; inputs], &packed, None, None, Epilogue::Linear, to, &mut scratch);
            let most = (inputs * 255 * 127) as f32;
            assert_eq!(y, [most, -most], "{level:?}");
        }
    }
}

#[test]
fn bytes_give_nearly_what_their_numbers_give() {
    let shape = ConvShape { padding: [1; 4], ..conv([9, 9, 12], 24, [3, 3]) };
    let (x, w, bias) = (bytes(1, shape.input_len()), noise(2, shape.weights_len()), noise(3, shape.filters));
    let encoding = Encoding::of_range(-1.0, 3.0);
    let numbers: Vec<f32> = x.iter().map(|&b| encoding.scale * f32::from(b) + encoding.offset()).collect();
    let level = Level::detect();
    let forward = Forward::new(shape, level, Precision::F32);
    let mut packed = vec![0.0; forward.packed_len()];
    forward.pack(&mut Pool::new(1), &w, &mut packed);
    let weights = ConvWeights { packed: &packed, bias: Some(&bias), epilogue: Epilogue::Linear };
    let want = convolved(&forward, &shape, 1, &numbers, weights);
    let scale = [encoding.scale; 12];
    let kernel =
        QuantizedForward::new(PooledShape { conv: shape, pool: [1, 1] }, &scale, &[encoding.offset(); 12], level);
    let (mut packed, mut scratch) = (vec![0.0; kernel.packed_len()], vec![0.0; kernel.scratch_len(1)]);
    kernel.pack(&mut Pool::new(1), &w, &mut packed);
    let mut y = vec![0.0; shape.output_len()];
    let to = Destination::Numbers(&mut y);
    kernel.run(1, &x, &packed, Some(&bias), None, Epilogue::Linear, to, &mut scratch);
    // Only the weights were rounded, each by at most half of 1/127, the numbers being at most 3.
    let bound = 0.5 / 127.0 * 3.0 * 108.0;
    for (y, want) in y.iter().zip(&want) {
        assert!((y - want).abs() < bound, "{y} instead of {want}");
    }
    let error = y.iter().zip(&want).map(|(y, w)| f64::from(y - w).powi(2)).sum::<f64>() / y.len() as f64;
    assert!(error.sqrt() < 0.05, "root mean square error {}", error.sqrt());
}
