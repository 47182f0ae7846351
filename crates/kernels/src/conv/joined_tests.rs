//! What is joined against its parts: a shortcut added before the epilogue, a 1x1 convolution with the depthwise one behind it, batch
//! normalisation with the depthwise convolution behind it and its gradients.

use super::tests::{SHAPES, convolved, dirty, every_way, noise};
use super::*;
use crate::batch_norm::{self, MomentSums, Norm};
use crate::{Level, Packing, Pool, Precision, Values};

#[test]
fn a_shortcut_is_added_before_the_epilogue() {
    let dense = |shape: &&ConvShape| shape.groups == 1 && shape.output_len() > 0;
    for (&shape, (level, precision)) in
        SHAPES.iter().filter(dense).flat_map(|shape| every_way().map(move |way| (shape, way)))
    {
        let context = (shape, level, precision);
        let forward = Forward::new(shape, level, precision);
        let samples = 3;
        let (x, w) = (noise(1, samples * shape.input_len()), noise(2, shape.weights_len()));
        let (bias, shortcut) = (noise(3, shape.filters), noise(4, samples * shape.output_len()));
        let mut packed = dirty(forward.packed_len());
        forward.pack(&mut Pool::new(1), &w, &mut packed);
        let weights = ConvWeights { packed: &packed, bias: Some(&bias), epilogue: Epilogue::Linear };
        let sums = convolved(&forward, &shape, samples, &x, weights);
        for epilogue in [Epilogue::Linear, Epilogue::Relu, Epilogue::Relu6] {
            let (low, high) = epilogue.bounds();
            let mut y = shortcut.clone();
            let weights = ConvWeights { epilogue, ..weights };
            let mut scratch = dirty(forward.scratch_len(samples));
            forward.run(Extent::Samples(samples), &x, weights, Sums::Onto(&mut y), &mut scratch);
            // Only the order of the sum differs.
            let rounding = f32::EPSILON * (shape.weights_len() / shape.filters + 2) as f32;
            for ((&got, &sum), &shortcut) in y.iter().zip(&sums).zip(&shortcut) {
                let want = (sum + shortcut).clamp(low, high);
                assert!((got - want).abs() <= rounding, "{got} instead of {want}: {context:?}");
            }
            if forward.unit() == 0 {
                continue;
            }
            let (mut cut, unit) = (shortcut.clone(), forward.unit());
            for (n, y) in cut[..shape.output_len()].chunks_mut(2 * unit).enumerate() {
                let part = 2 * n * unit..2 * n * unit + y.len();
                let x = &x[..shape.input_len()];
                let mut scratch = dirty(forward.scratch_len(1));
                forward.run(Extent::Piece(part), x, weights, Sums::Onto(y), &mut scratch);
            }
            assert_eq!(cut[..shape.output_len()], y[..shape.output_len()], "{context:?}");
        }
    }
}

#[test]
fn outputs_are_measured_for_batch_normalization() {
    for (&shape, (level, precision)) in SHAPES.iter().flat_map(|shape| every_way().map(move |way| (shape, way))) {
        let context = (shape, level, precision);
        let forward = Forward::new(shape, level, precision);
        let samples = 3;
        let (x, w) = (noise(1, samples * shape.input_len()), noise(2, shape.weights_len()));
        let (bias, shift) = (noise(3, shape.filters), noise(4, shape.filters));
        let mut packed = dirty(forward.packed_len());
        forward.pack(&mut Pool::new(1), &w, &mut packed);
        let weights = ConvWeights { packed: &packed, bias: Some(&bias), epilogue: Epilogue::Linear };
        let want = convolved(&forward, &shape, samples, &x, weights);
        let mut sums = dirty(MomentSums::scratch_len(level, shape.filters));
        let moments = MomentSums::new(level, &shift, &mut sums);
        let (mut y, mut scratch) = (dirty(want.len()), dirty(forward.scratch_len(samples)));
        forward.run(Extent::Samples(samples), &x, weights, Sums::Measured(&mut y, moments), &mut scratch);
        assert_eq!(y, want, "{context:?}");
        assert_moments(&context, moments, &shift, &want);
    }
}

/// Checks sums of `x - shift` and of its square, written and added.
fn assert_moments(context: &dyn std::fmt::Debug, moments: MomentSums<'_>, shift: &[f32], x: &[f32]) {
    let channels = shift.len();
    for (accumulate, before) in [(false, 0.0), (true, 7.0)] {
        let mut got = vec![7.0; 2 * channels];
        moments.finish(&mut got, accumulate);
        for (i, &got) in got.iter().enumerate() {
            let terms = x.iter().skip(i % channels).step_by(channels).map(|&x| {
                let d = f64::from(x) - f64::from(shift[i % channels]);
                if i < channels { d } else { d * d }
            });
            let (sum, magnitude) = terms.fold((before, before), |(sum, all), term| (sum + term, all + term.abs()));
            let error = (f64::from(got) - sum).abs();
            let most = 40.0 + 512.0 / channels as f64;
            assert!(error <= most * f64::from(f32::EPSILON) * magnitude, "{got} instead of {sum} at {i}: {context:?}");
        }
    }
}

#[test]
fn expansion_and_depthwise_convolution_together() {
    // Image, channels, expanded channels, kernel, stride, padding of the depthwise convolution.
    let cases = [
        ([37, 41], 5, 100, 3, 1, [1, 1, 1, 1]),
        ([38, 41], 16, 100, 3, 2, [0, 1, 0, 1]),
        ([31, 30], 3, 160, 5, 1, [2, 2, 2, 2]),
        ([41, 37], 8, 97, 5, 2, [1, 2, 2, 1]),
        ([200, 43], 4, 16, 3, 1, [0, 0, 0, 0]),
        ([3, 300], 4, 160, 3, 2, [1, 1, 1, 1]),
    ];
    for ([height, width], channels, filters, size, stride, padding) in cases {
        let ones = ConvShape { input: [height, width, channels], ..ConvShape::dense(channels, filters) };
        let depthwise = ConvShape {
            input: ones.output(),
            filters,
            kernel: [size, size],
            strides: [stride, stride],
            padding,
            dilation: [1, 1],
            groups: filters,
        };
        assert!(ExpandedDepthwise::suits(&ones, &depthwise));
        for level in Level::available() {
            let samples = 2;
            let x = noise(1, samples * ones.input_len());
            let (w, b) = (noise(2, ones.weights_len()), noise(3, filters));
            let (w2, b2) = (noise(4, depthwise.weights_len()), noise(5, filters));
            let alone = |shape: ConvShape, x: &[f32], w: &[f32], bias: &[f32], epilogue| {
                let forward = Forward::new(shape, level, Precision::F32);
                let mut packed = dirty(forward.packed_len());
                forward.pack(&mut Pool::new(1), w, &mut packed);
                convolved(&forward, &shape, samples, x, ConvWeights { packed: &packed, bias: Some(bias), epilogue })
            };
            let between = alone(ones, &x, &w, &b, Epilogue::Relu6);
            let want = alone(depthwise, &between, &w2, &b2, Epilogue::Relu);
            let both = ExpandedDepthwise::new(ones, depthwise, level);
            let mut packed = dirty(both.packed_len());
            both.pack(&mut Pool::new(1), &w, &mut packed);
            let first = ConvWeights { packed: &packed, bias: Some(&b), epilogue: Epilogue::Relu6 };
            let second = ConvWeights { packed: &w2, bias: Some(&b2), epilogue: Epilogue::Relu };
            let mut y = dirty(want.len());
            both.run(samples, &x, first, second, &mut y, &mut dirty(both.scratch_len()));
            assert_eq!(y, want, "{ones:?}, then {depthwise:?} on {level:?}");
            for each in [1, 2, 3, 7] {
                let (mut cut, unit) = (dirty(depthwise.output_len()), both.unit());
                for (n, y) in cut.chunks_mut(each * unit).enumerate() {
                    let rows = n * each..n * each + y.len() / unit;
                    both.run_rows(rows, &x[..ones.input_len()], first, second, y, &mut dirty(both.scratch_len()));
                }
                assert_eq!(cut, want[..cut.len()], "{each} rows of {ones:?}, then {depthwise:?} on {level:?}");
            }
        }
    }
}

#[test]
fn normalisation_and_depthwise_convolution_together() {
    // Image, kernel, stride, padding.
    let cases = [
        ([37, 41, 96], 3, 1, [1, 1, 1, 1]),
        ([38, 41, 100], 3, 2, [0, 1, 0, 1]),
        ([39, 41, 100], 3, 2, [1, 1, 1, 1]),
        ([31, 30, 160], 5, 1, [2, 2, 2, 2]),
        ([41, 37, 97], 5, 2, [1, 2, 2, 1]),
        ([200, 43, 16], 3, 1, [0, 0, 0, 0]),
        ([100, 300, 16], 3, 2, [0, 0, 0, 0]),
        ([3, 300, 160], 3, 2, [1, 1, 1, 1]),
        ([1, 1, 7], 3, 1, [1, 1, 1, 1]),
        // Whole bands, and more, of rows that see nothing but zeros.
        ([7, 6, 3], 5, 2, [6, 5, 0, 7]),
        ([9, 41, 300], 3, 1, [40, 45, 1, 0]),
        ([9, 41, 300], 3, 2, [41, 40, 0, 1]),
    ];
    for (input @ [height, width, channels], size, stride, padding) in cases {
        let (kernel, strides) = ([size, size], [stride, stride]);
        let shape =
            ConvShape { input, filters: channels, kernel, strides, padding, dilation: [1, 1], groups: channels };
        assert!(NormalizedDepthwise::suits(&shape));
        let samples = 2;
        let (x, dy) = (noise(1, samples * shape.input_len()), noise(2, samples * shape.output_len()));
        let w = noise(3, shape.weights_len());
        let (mean, gamma, beta) = (noise(4, channels), noise(5, channels), noise(6, channels));
        let variance: Vec<f32> = noise(7, channels).iter().map(|v| v * v + 0.5).collect();
        for (level, epilogue) in Level::available()
            .into_iter()
            .flat_map(|level| [Epilogue::Linear, Epilogue::Relu6].map(|epilogue| (level, epilogue)))
        {
            let context = (shape, level, epilogue);
            let norm = Norm { mean: &mean, variance: &variance, gamma: &gamma, beta: &beta, epsilon: 1e-3, epilogue };
            let mut n = dirty(x.len());
            batch_norm::normalize(level, &norm, Values::F32(&x), None, n.as_mut_slice().into());
            let forward = Forward::new(shape, level, Precision::F32);
            let mut packed = dirty(forward.packed_len());
            forward.pack(&mut Pool::new(1), &w, &mut packed);
            let weights = ConvWeights { packed: &packed, bias: None, epilogue: Epilogue::Linear };
            let want = convolved(&forward, &shape, samples, &n, weights);

            let both = NormalizedDepthwise::new(shape, level);
            let (rows, unit, len) = (shape.output()[0], both.unit(), shape.input_len());
            for each in [1, 2, 3, rows] {
                for (sample, want) in want.chunks(shape.output_len()).enumerate() {
                    let x = Values::F32(&x[sample * len..(sample + 1) * len]);
                    let mut y = dirty(want.len());
                    for (at, y) in (0..rows).step_by(each).zip(y.chunks_mut(each * unit)) {
                        let rows = at..(at + each).min(rows);
                        both.run_rows(rows, x, &norm, &w, Sums::New(y.into()), &mut dirty(both.scratch_len()));
                    }
                    assert_eq!(y, want, "{each} rows of {context:?}");
                }
            }
            let shift = noise(9, channels);
            let mut scratch = dirty(MomentSums::scratch_len(level, channels));
            let moments = MomentSums::new(level, &shift, &mut scratch);
            let mut y = dirty(want.len());
            for (x, y) in x.chunks(len).zip(y.chunks_mut(shape.output_len())) {
                let scratch = &mut dirty(both.scratch_len());
                both.run_rows(0..rows, Values::F32(x), &norm, &w, Sums::Measured(y, moments), scratch);
            }
            assert_eq!(y, want, "measured {context:?}");
            assert_moments(&context, moments, &shift, &want);

            let data = BackwardData::new(shape, level, Precision::F32);
            let mut packed = dirty(data.packed_len());
            data.pack(&mut Pool::new(1), &w, &mut packed);
            let mut want_dn = dirty(x.len());
            data.run(samples, &dy, &packed, want_dn.as_mut_slice().into(), &mut dirty(data.scratch_len(samples)));
            let mut packed = dirty(both.packed_len());
            both.pack(&mut Pool::new(1), &w, &mut packed);
            let weights = BackwardWeights::new(shape, level, Precision::F32);
            // What they hold is added to or written over.
            for accumulate in [false, true] {
                let (mut want_dw, mut sums) = (vec![0.5; w.len()], [vec![0.5; channels], vec![0.5; channels]]);
                weights.run(samples, &n, &dy, &mut want_dw, accumulate, &mut dirty(weights.scratch_len(samples)));
                let [dbeta, dgamma] = &mut sums;
                let (from, dn) = (Values::F32(&x), Values::F32(&want_dn));
                batch_norm::backward_sums(level, &norm, from, dn, dbeta, dgamma, accumulate);
                let (mut dn, mut dw) = (dirty(x.len()), vec![0.5; w.len()]);
                let (mut dbeta, mut dgamma) = (vec![0.5; channels], vec![0.5; channels]);
                let to = NormalizedGradients { dn: &mut dn, dbeta: &mut dbeta, dgamma: &mut dgamma, dw: &mut dw };
                let scratch = &mut dirty(both.backward_scratch_len());
                both.backward(samples, Values::F32(&x), &norm, &packed, &dy, to, accumulate, scratch);
                assert_eq!(dn, want_dn, "{context:?}");
                assert_eq!(dw, want_dw, "{context:?}");
                // Only the order of the sums differs.
                let rounding = 4.0 * f32::EPSILON * (samples * height * width) as f32;
                for (got, want) in [dbeta, dgamma].iter().flatten().zip(sums.iter().flatten()) {
                    assert!((got - want).abs() <= rounding, "{got} instead of {want}: {context:?}");
                }
            }
        }
    }
}
