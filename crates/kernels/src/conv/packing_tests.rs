//! Weights packed in the pass that moves them, and some rows at a time: the same bits as packed as a whole.

use super::tests::{dirty, every_way, noise};
use super::*;
use crate::packing::{Packed, Packing, WeightRows};
use crate::pool::Disjoint;
use crate::update::{self, MOST_PACKED, Rule, Step};
use crate::{Level, Pool, Precision};

const ADAM: Rule = Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, weight_decay: 0.0, amsgrad: false };
const LAMB: Rule = Rule::Lamb { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, weight_decay: 0.0 };
const STEP: Step =
    Step { learning_rate: 0.1, step: 3, gradient_scale: 1.0, clip_value: None, l1: 0.01, l2: 0.0, decay: 0.0 };

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn whole(form: &dyn Packing, weights: &[f32]) -> Vec<f32> {
    let mut packed = dirty(form.packed_len());
    form.pack(&mut Pool::new(2), weights, &mut packed);
    packed
}

/// So many rows at a time, from the last ones on.
fn rows_apart(form: &dyn Packing, cut: Cut, weights: &[f32], units: usize) -> Vec<f32> {
    let (mut weights, mut packed) = (weights.to_vec(), dirty(form.packed_len()));
    let (from, to) = (Disjoint(weights.as_mut_ptr()), Disjoint(packed.as_mut_ptr()));
    let count = units * cut.unit;
    for first in (0..cut.rows).step_by(count).rev() {
        // SAFETY: `weights` is the parameter and `packed` its form; nothing else touches either.
        unsafe { form.pack_rows(&WeightRows::new(from, cut, first..(first + count).min(cut.rows), to)) };
    }
    packed
}

/// A step with these forms, and what it leaves in them.
fn step(
    rule: Rule,
    level: Level,
    threads: usize,
    forms: &[&dyn Packing],
    weights: &[f32],
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let len = weights.len();
    let (mut weights, gradients) = (weights.to_vec(), [noise(8, len), noise(9, len)]);
    let mut state: [Vec<f32>; 3] = std::array::from_fn(|k| noise(10 + k as u64, len).iter().map(|v| v.abs()).collect());
    let mut packed: Vec<_> = forms.iter().map(|form| dirty(form.packed_len())).collect();
    let mut to: [Option<Packed<'_>>; MOST_PACKED] = Default::default();
    for ((to, packing), packed) in to.iter_mut().zip(forms).zip(&mut packed) {
        *to = Some(Packed { packing: *packing, to: packed });
    }
    let mut count = 0;
    let state = state.each_mut().map(|state| {
        count += 1;
        (count <= rule.state_count()).then_some(&mut state[..])
    });
    let gradients = [&gradients[0][..], &gradients[1]];
    update::apply(&mut Pool::new(threads), level, rule, &STEP, &gradients, &mut weights, state, &mut [], to);
    (weights, packed)
}

fn check(context: &dyn std::fmt::Debug, level: Level, forms: &[&dyn Packing], len: usize) {
    let weights = noise(7, len);
    for (n, form) in forms.iter().enumerate() {
        let Some(cut) = form.cut() else { continue };
        let want = bits(&whole(*form, &weights));
        for units in [1, 2, cut.rows] {
            let got = bits(&rows_apart(*form, cut, &weights, units));
            assert!(got == want, "form {n}, {units} units at a time, {context:?}");
        }
    }
    for rule in [ADAM, LAMB] {
        let (want, _) = step(rule, level, 1, &[], &weights);
        for threads in 1..=3 {
            let (moved, packed) = step(rule, level, threads, forms, &weights);
            assert!(bits(&moved) == bits(&want), "the parameter, {rule:?}, {threads} threads, {context:?}");
            for (n, (form, packed)) in forms.iter().zip(packed).enumerate() {
                let same = bits(&packed) == bits(&whole(*form, &want));
                assert!(same, "form {n}, {rule:?}, {threads} threads, {context:?}");
            }
        }
    }
}

fn convolution(size: usize, channels: usize, filters: usize, kernel: usize, stride: usize, groups: usize) -> ConvShape {
    ConvShape {
        input: [size, size, channels],
        filters,
        kernel: [kernel; 2],
        strides: [stride; 2],
        padding: [kernel / 2; 4],
        dilation: [1, 1],
        groups,
    }
}

#[test]
fn weights_are_packed_as_they_are_moved() {
    let shapes = [
        // Tiles of 2x2, and of 4x4 in the forward pass.
        convolution(6, 8, 8, 3, 1, 1),
        convolution(6, 33, 70, 3, 1, 1),
        convolution(16, 49, 50, 3, 1, 1),
        // First layers, few channels and filters, no more rows than a vector has.
        convolution(9, 1, 32, 3, 1, 1),
        convolution(9, 3, 20, 5, 2, 1),
        convolution(6, 7, 1, 3, 1, 1),
        // Phases, some without taps.
        convolution(9, 40, 72, 3, 2, 1),
        convolution(9, 100, 65, 1, 2, 1),
        convolution(5, 64, 256, 1, 1, 1),
        ConvShape::dense(1601, 11),
        ConvShape::dense(97, 257),
        ConvShape::dense(9001, 1),
        // What is packed as a whole.
        convolution(6, 64, 512, 3, 1, 2),
        convolution(6, 40, 40, 3, 1, 40),
    ];
    for ((level, precision), shape) in every_way().flat_map(|way| shapes.map(|shape| (way, shape))) {
        let (forward, data) = (Forward::new(shape, level, precision), BackwardData::new(shape, level, precision));
        let apart = [forward.cut().is_some(), data.cut().is_some()];
        match precision {
            Precision::F32 => assert_eq!(apart, [shape.groups == 1; 2], "{level:?}, {shape:?}"),
            Precision::Bf16 => assert!(shape.groups == 1 || apart == [false; 2], "{level:?}, {shape:?}"),
        }
        check(&(level, precision, shape), level, &[&forward, &data], shape.weights_len());
    }
}

#[test]
fn weights_of_pooled_convolutions_are_packed_as_they_are_moved() {
    let shapes = [
        (convolution(8, 33, 70, 3, 1, 1), [2, 2]),
        (convolution(8, 48, 64, 3, 1, 1), [2, 2]),
        (convolution(9, 1, 32, 3, 1, 1), [2, 2]),
        (convolution(9, 41, 20, 5, 2, 1), [2, 2]),
        // Windows for which there is no sparse way.
        (convolution(12, 20, 67, 3, 1, 1), [5, 5]),
        (convolution(6, 64, 512, 3, 1, 2), [2, 2]),
    ];
    for ((level, precision), (conv, pool)) in every_way().flat_map(|way| shapes.map(|shape| (way, shape))) {
        let shape = PooledShape { conv, pool };
        let forward = PooledForward::new(shape, level, precision);
        let data = PooledBackwardData::new(shape, level, precision);
        if precision == Precision::F32 {
            assert_eq!([forward.cut().is_some(), data.cut().is_some()], [conv.groups == 1; 2], "{level:?}, {shape:?}");
        }
        check(&(level, precision, shape), level, &[&forward, &data], conv.weights_len());
    }
}

#[test]
fn several_kernels_read_one_parameter() {
    let conv = convolution(8, 33, 40, 3, 1, 1);
    let shape = PooledShape { conv, pool: [2, 2] };
    for level in Level::available() {
        let (forward, data) =
            (Forward::new(conv, level, Precision::F32), BackwardData::new(conv, level, Precision::F32));
        let pooled = PooledForward::new(shape, level, Precision::F32);
        let pooled_data = PooledBackwardData::new(shape, level, Precision::F32);
        check(&(level, shape), level, &[&forward, &data, &pooled, &pooled_data], conv.weights_len());
        // The same values under another shape, whose rows are others.
        let dense = Forward::new(ConvShape::dense(9 * 33, 40), level, Precision::F32);
        check(&(level, "two shapes"), level, &[&data, &dense], conv.weights_len());
        // One of which is rounded.
        let rounded = Forward::new(conv, level, Precision::Bf16);
        check(&(level, "two precisions"), level, &[&data, &rounded], conv.weights_len());
    }
}
