//! What is computed in pieces is the same to the bit as the whole.

use super::tests::{SHAPES, convolved, dirty, noise};
use super::*;
use crate::{Level, Packing, Pool, Precision, ValuesMut, bf16};
use std::ops::Range;

/// Every way to cut `len` values into pieces of whole units that is worth a test.
pub(super) fn cuts(len: usize, unit: usize) -> Vec<Vec<Range<usize>>> {
    let units = len.div_ceil(unit);
    let cut = |each: usize| {
        let first = (0..units).step_by(each);
        first.map(|first| first * unit..((first + each) * unit).min(len)).collect()
    };
    [1, 2, 5, units.div_ceil(3), units.div_ceil(2), units].into_iter().map(cut).collect()
}

#[test]
fn pieces_of_a_convolution() {
    for &shape in SHAPES {
        for level in Level::available() {
            let forward = Forward::new(shape, level, Precision::F32);
            let (x, w) = (noise(1, shape.input_len()), noise(2, shape.weights_len()));
            let bias = noise(3, shape.filters);
            let mut packed = dirty(forward.packed_len());
            forward.pack(&mut Pool::new(1), &w, &mut packed);
            let weights = ConvWeights { packed: &packed, bias: Some(&bias), epilogue: Epilogue::Relu };
            let y = convolved(&forward, &shape, 1, &x, weights);
            if y.is_empty() {
                continue;
            }
            for pieces in cuts(y.len(), forward.unit()) {
                let mut cut = dirty(y.len());
                for part in pieces {
                    let mut scratch = dirty(forward.scratch_len(1));
                    let sums = Sums::New((&mut cut[part.clone()]).into());
                    forward.run(Extent::Piece(part), &x, weights, sums, &mut scratch);
                }
                assert_eq!(cut, y, "{shape:?} on {level:?}");
            }
        }
    }
}

#[test]
fn samples_together_or_alone() {
    for &shape in SHAPES {
        for level in Level::available() {
            let forward = Forward::new(shape, level, Precision::F32);
            let samples = 7;
            let (x, w) = (noise(1, samples * shape.input_len()), noise(2, shape.weights_len()));
            let mut packed = dirty(forward.packed_len());
            forward.pack(&mut Pool::new(1), &w, &mut packed);
            let weights = ConvWeights { packed: &packed, bias: None, epilogue: Epilogue::Linear };
            let run = |each: usize| {
                let images = x.chunks(each * shape.input_len());
                let y = images.map(|x| convolved(&forward, &shape, x.len() / shape.input_len(), x, weights));
                y.collect::<Vec<_>>().concat()
            };
            let together = run(samples);
            assert_eq!(together, run(1), "{shape:?} on {level:?}");
            assert_eq!(together, run(3), "{shape:?} on {level:?}");
        }
    }
}

#[test]
fn pieces_of_a_pooled_convolution() {
    for (&conv, pool) in SHAPES.iter().flat_map(|conv| [(conv, [2, 2]), (conv, [1, 2])]) {
        let shape = PooledShape { conv, pool };
        for level in Level::available() {
            let forward = PooledForward::new(shape, level, Precision::F32);
            let (x, w) = (noise(1, conv.input_len()), noise(2, conv.weights_len()));
            let mut packed = dirty(forward.packed_len());
            forward.pack(&mut Pool::new(1), &w, &mut packed);
            let (mut y, mut argmax) = (dirty(shape.output_len()), vec![9; shape.output_len()]);
            let mut scratch = dirty(forward.scratch_len(1));
            forward.run(1, &x, &packed, None, true, &mut y, &mut argmax, &mut scratch);
            if y.is_empty() || forward.unit() == 0 {
                continue;
            }
            for pieces in cuts(y.len(), forward.unit()) {
                let (mut cut, mut cut_argmax) = (dirty(y.len()), vec![9; y.len()]);
                for part in pieces {
                    let mut scratch = dirty(forward.scratch_len(1));
                    let (y, argmax) = (&mut cut[part.clone()], &mut cut_argmax[part.clone()]);
                    forward.run_piece(part, &x, &packed, None, true, y, argmax, &mut scratch);
                }
                assert_eq!((&cut, &cut_argmax), (&y, &argmax), "{shape:?} on {level:?}");
            }
        }
    }
}

#[test]
fn outputs_in_bf16_are_the_rounded_ones() {
    let mut tested = 0;
    for &shape in SHAPES {
        for level in Level::available_and_emulated() {
            let rounded = |values: &[f32]| values.iter().map(|&v| bf16::round(v)).collect::<Vec<u16>>();
            let samples = 3;
            let w = noise(2, shape.weights_len());
            if shape.writes_bf16() {
                let kernel = Forward::new(shape, level, Precision::Bf16);
                let (x, bias) = (noise(1, samples * shape.input_len()), noise(3, shape.filters));
                let (mut packed, mut scratch) = (dirty(kernel.packed_len()), dirty(kernel.scratch_len(samples)));
                kernel.pack(&mut Pool::new(1), &w, &mut packed);
                let weights = ConvWeights { packed: &packed, bias: Some(&bias), epilogue: Epilogue::Relu };
                let y = convolved(&kernel, &shape, samples, &x, weights);
                let mut halves = vec![0x7777; y.len()];
                let sums = Sums::New(ValuesMut::Bf16(&mut halves));
                kernel.run(Extent::Samples(samples), &x, weights, sums, &mut scratch);
                assert_eq!(halves, rounded(&y), "{shape:?} on {level:?}");
                tested += 1;
            }
            if shape.writes_bf16_data() {
                let kernel = BackwardData::new(shape, level, Precision::Bf16);
                let dy = noise(1, samples * shape.output_len());
                let (mut packed, mut scratch) = (dirty(kernel.packed_len()), dirty(kernel.scratch_len(samples)));
                kernel.pack(&mut Pool::new(1), &w, &mut packed);
                let mut dx = dirty(samples * shape.input_len());
                let mut halves = vec![0x7777; dx.len()];
                kernel.run(samples, &dy, &packed, (&mut dx).into(), &mut scratch);
                kernel.run(samples, &dy, &packed, ValuesMut::Bf16(&mut halves), &mut scratch);
                assert_eq!(halves, rounded(&dx), "{shape:?} on {level:?}");
                tested += 1;
            }
        }
    }
    assert!(tested > 0, "some shapes have outputs in bf16");
}
