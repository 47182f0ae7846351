//! Every operation, on every level, against the double-precision definitions.

use super::filtered_magnitude::magnitudes;
use super::reference::{products, unpooled, window_pixel};
use super::*;
use crate::{Level, Packing, Pool, Precision};
use proptest::prelude::*;

/// Values in `-1..1` that depend only on `seed`.
pub(super) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Scratch memory holding what an earlier operation may have left there.
pub(super) fn dirty(len: usize) -> Vec<f32> {
    vec![f32::NAN; len]
}

/// A sum in double precision: its value, the sum of its terms' magnitudes, and how many there are.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    magnitude: f64,
    terms: usize,
    /// The magnitudes of the terms that are products, whose factors may be rounded.
    products: f64,
}

impl Sum {
    fn add(&mut self, term: f64) {
        self.value += term;
        self.magnitude += term.abs();
        self.terms += 1;
    }

    fn add_product(&mut self, term: f64) {
        self.add(term);
        self.products += term.abs();
    }

    /// Rounding errors of a sum grow as the root of its length, in units of its terms' magnitudes. Rounding both factors of a
    /// product to bf16 (8 significant bits), each by at most 2^-8 of itself, moves it by at most 2 · 2^-8 + 2^-16 of its magnitude.
    fn tolerance(&self, precision: Precision) -> f64 {
        let sum = f64::from(f32::EPSILON) * self.magnitude * (2.0 + (self.terms as f64).sqrt());
        match precision {
            Precision::F32 => sum,
            Precision::Bf16 => sum + (0.5f64.powi(7) + 0.5f64.powi(16)) * self.products,
        }
    }
}

/// What each value may be off by besides its own rounding, in so many epsilons: minimal filtering adds and subtracts whole tiles, so
/// that even a value with few terms of its own has the rounding of its neighbours' terms.
fn neighbours(shape: &ConvShape, epsilons: f64, want: &[Sum]) -> f64 {
    let greatest = want.iter().map(|sum| sum.magnitude).fold(0.0, f64::max);
    if may_be_filtered(shape) { epsilons * f64::from(f32::EPSILON) * greatest } else { 0.0 }
}

/// Epsilons for the convolution itself: tiles of 4x4 outputs add larger multiples of more pixels than such of 2x2 do.
fn slack_of_forward(shape: &ConvShape, precision: Precision) -> f64 {
    let [height, width, filters] = shape.output();
    let suits = winograd::suits(shape, [height, width]);
    if suits && winograd::suits_four([height, width], shape.input[2], filters, precision) { 4.0 } else { 1.0 }
}

fn may_be_filtered(shape: &ConvShape) -> bool {
    shape.kernel == [3, 3] && shape.strides == [1, 1] && shape.dilation == [1, 1] && shape.groups == 1
}

/// What a test ran: the level and the precision, and the rest.
type Context<'a> = (Level, Precision, &'a dyn std::fmt::Debug);

#[track_caller]
fn assert_near(what: &str, shape: &ConvShape, context: Context<'_>, got: &[f32], want: &[Sum]) {
    assert_within(1.0, what, shape, context, got, want);
}

#[track_caller]
fn assert_within(epsilons: f64, what: &str, shape: &ConvShape, context: Context<'_>, got: &[f32], want: &[Sum]) {
    assert_eq!(got.len(), want.len(), "{what} of {context:?}");
    let slack = neighbours(shape, epsilons, want);
    for (i, (&got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want.value).abs();
        assert!(error <= want.tolerance(context.1) + slack, "{what}[{i}] is {got}, not {}, in {context:?}", want.value);
    }
}

/// What the convolution of so many samples gives.
pub(super) fn convolved(
    forward: &Forward,
    shape: &ConvShape,
    samples: usize,
    x: &[f32],
    weights: ConvWeights<'_>,
) -> Vec<f32> {
    let (mut y, mut scratch) = (dirty(samples * shape.output_len()), dirty(forward.scratch_len(samples)));
    forward.run(Extent::Samples(samples), x, weights, Sums::New((&mut y).into()), &mut scratch);
    y
}

struct Case {
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    dy: Vec<f32>,
    /// What gradients are accumulated over.
    before: Vec<f32>,
    y: Vec<Sum>,
    dx: Vec<Sum>,
    dw: Vec<Sum>,
}

impl Case {
    fn new(shape: &ConvShape, samples: usize) -> Self {
        let x = noise(1, samples * shape.input_len());
        let w = noise(2, shape.weights_len());
        let bias = noise(3, shape.filters);
        let dy = noise(4, samples * shape.output_len());
        let before = noise(5, shape.weights_len());
        let (x64, w64, dy64) = (double(&x), double(&w), double(&dy));
        let mut y = vec![Sum::default(); dy.len()];
        let mut dx = vec![Sum::default(); x.len()];
        let mut dw = vec![Sum::default(); w.len()];
        for (i, y) in y.iter_mut().enumerate() {
            y.add(f64::from(bias[i % shape.filters]));
        }
        products(shape, samples, |ix, iw, iy| {
            y[iy].add_product(x64[ix] * w64[iw]);
            dx[ix].add_product(dy64[iy] * w64[iw]);
            dw[iw].add_product(dy64[iy] * x64[ix]);
        });
        if may_be_filtered(shape) {
            let [of_y, of_dx, of_dw] = magnitudes(shape, samples, &x, &w, &dy);
            for (sums, magnitudes) in [(&mut y, of_y), (&mut dx, of_dx), (&mut dw, of_dw)] {
                sums.iter_mut().zip(magnitudes).for_each(|(sum, products)| sum.products = sum.products.max(products));
            }
        }
        Case { x, w, bias, dy, before, y, dx, dw }
    }
}

fn double(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// `sums` added to what was there `before`.
fn over(before: &[f32], sums: &[Sum]) -> Vec<Sum> {
    let mut sums = sums.to_vec();
    sums.iter_mut().zip(before).for_each(|(sum, &before)| sum.add(f64::from(before)));
    sums
}

/// Every level in both precisions; for bf16 also without the instructions for it.
pub(super) fn every_way() -> impl Iterator<Item = (Level, Precision)> {
    let single = Level::available().into_iter().map(|level| (level, Precision::F32));
    single.chain(Level::available_and_emulated().into_iter().map(|level| (level, Precision::Bf16)))
}

fn check(shape: ConvShape, samples: usize) {
    check_ways(every_way(), shape, samples);
}

fn check_ways(ways: impl Iterator<Item = (Level, Precision)>, shape: ConvShape, samples: usize) {
    let case = Case::new(&shape, samples);
    for (level, precision) in ways {
        let context: Context<'_> = (level, precision, &(samples, shape));
        let mut pool = Pool::new(1);

        let forward = Forward::new(shape, level, precision);
        let mut packed = dirty(forward.packed_len());
        forward.pack(&mut pool, &case.w, &mut packed);
        let slack = slack_of_forward(&shape, precision);
        for epilogue in [Epilogue::Linear, Epilogue::Relu, Epilogue::Relu6] {
            let weights = ConvWeights { packed: &packed, bias: Some(&case.bias), epilogue };
            let y = convolved(&forward, &shape, samples, &case.x, weights);
            let apply = |v: f64| match epilogue {
                Epilogue::Linear => v,
                Epilogue::Relu => v.max(0.0),
                Epilogue::Relu6 => v.clamp(0.0, 6.0),
            };
            let want: Vec<_> = case.y.iter().map(|&sum| Sum { value: apply(sum.value), ..sum }).collect();
            assert_within(slack, "y", &shape, context, &y, &want);
        }
        let weights = ConvWeights { packed: &packed, bias: None, epilogue: Epilogue::Linear };
        let y = convolved(&forward, &shape, samples, &case.x, weights);
        let unbiased: Vec<f32> = case.bias.iter().map(|b| -b).cycle().take(y.len()).collect();
        assert_within(slack, "y without bias", &shape, context, &y, &over(&unbiased, &case.y));

        let data = BackwardData::new(shape, level, precision);
        let mut packed = dirty(data.packed_len());
        data.pack(&mut pool, &case.w, &mut packed);
        let mut dx = dirty(case.dx.len());
        data.run(samples, &case.dy, &packed, (&mut dx).into(), &mut dirty(data.scratch_len(samples)));
        assert_near("dx", &shape, context, &dx, &case.dx);

        let weights = BackwardWeights::new(shape, level, precision);
        let mut dw = dirty(case.dw.len());
        let mut scratch = dirty(weights.scratch_len(samples));
        weights.run(samples, &case.x, &case.dy, &mut dw, false, &mut scratch);
        assert_near("dw", &shape, context, &dw, &case.dw);
        let mut dw = case.before.clone();
        weights.run(samples, &case.x, &case.dy, &mut dw, true, &mut dirty(weights.scratch_len(samples)));
        assert_near("accumulated dw", &shape, context, &dw, &over(&case.before, &case.dw));
    }
}

fn check_pooled(shape: PooledShape, samples: usize) {
    check_pooled_ways(every_way(), shape, samples);
}

fn check_pooled_ways(ways: impl Iterator<Item = (Level, Precision)>, shape: PooledShape, samples: usize) {
    let conv = shape.conv;
    let case = Case::new(&conv, samples);
    let dy = noise(6, samples * shape.output_len());
    for ((level, precision), relu) in ways.flat_map(|way| [(way, true), (way, false)]) {
        let context: Context<'_> = (level, precision, &(relu, samples, shape));
        let mut pool = Pool::new(1);

        let forward = PooledForward::new(shape, level, precision);
        let mut packed = dirty(forward.packed_len());
        forward.pack(&mut pool, &case.w, &mut packed);
        let mut y = dirty(dy.len());
        let mut argmax = vec![77; dy.len()];
        let mut scratch = dirty(forward.scratch_len(samples));
        forward.run(samples, &case.x, &packed, Some(&case.bias), relu, &mut y, &mut argmax, &mut scratch);
        let window = shape.pool[0] * shape.pool[1];
        let slack = neighbours(&conv, 1.0, &case.y);
        for (i, (&y, &position)) in y.iter().zip(&argmax).enumerate() {
            let pixels = (0..window).map(|position| case.y[window_pixel(&shape, i, position)]);
            let best = pixels.clone().reduce(|a, b| if b.value > a.value { b } else { a }).unwrap_or_default();
            let want = if relu { best.value.max(0.0) } else { best.value };
            assert!(
                (f64::from(y) - want).abs() <= best.tolerance(precision) + slack,
                "y[{i}] is {y}, not {want}, in {context:?}"
            );
            if position == CLOSED {
                assert!(
                    relu && y == 0.0 && best.value <= best.tolerance(precision) + slack,
                    "argmax[{i}] is closed in {context:?}"
                );
                continue;
            }
            assert!(usize::from(position) < window, "argmax[{i}] is {position} in {context:?}");
            assert!(!relu || y > 0.0, "argmax[{i}] should be closed in {context:?}");
            let chosen = case.y[window_pixel(&shape, i, usize::from(position))];
            let error = best.value - chosen.value;
            assert!(
                error <= best.tolerance(precision) + chosen.tolerance(precision) + 2.0 * slack,
                "argmax[{i}] is {position} in {context:?}"
            );
        }

        let full = unpooled(&shape, samples, &double(&dy), &argmax);
        let (x64, w64) = (double(&case.x), double(&case.w));
        let mut want_dx = vec![Sum::default(); case.x.len()];
        let mut want_dw = vec![Sum::default(); case.w.len()];
        let mut want_db = vec![Sum::default(); conv.filters];
        products(&conv, samples, |ix, iw, iy| {
            want_dx[ix].add_product(full[iy] * w64[iw]);
            want_dw[iw].add_product(full[iy] * x64[ix]);
        });
        if may_be_filtered(&conv) {
            let full: Vec<f32> = full.iter().map(|&g| g as f32).collect();
            let [_, of_dx, of_dw] = magnitudes(&conv, samples, &case.x, &case.w, &full);
            for (sums, magnitudes) in [(&mut want_dx, of_dx), (&mut want_dw, of_dw)] {
                sums.iter_mut().zip(magnitudes).for_each(|(sum, products)| sum.products = sum.products.max(products));
            }
        }
        full.iter().enumerate().for_each(|(i, &g)| want_db[i % conv.filters].add(g));

        let data = PooledBackwardData::new(shape, level, precision);
        let mut packed = dirty(data.packed_len());
        data.pack(&mut pool, &case.w, &mut packed);
        let mut dx = dirty(case.x.len());
        data.run(samples, &dy, &argmax, &packed, &mut dx, &mut dirty(data.scratch_len(samples)));
        assert_near("dx", &conv, context, &dx, &want_dx);

        let weights = PooledBackwardWeights::new(shape, level, precision);
        let (mut dw, mut db) = (dirty(case.w.len()), dirty(conv.filters));
        let mut scratch = dirty(weights.scratch_len(samples));
        weights.run(samples, &case.x, &dy, &argmax, &mut dw, &mut db, false, &mut scratch);
        assert_near("dw", &conv, context, &dw, &want_dw);
        assert_near("db", &conv, context, &db, &want_db);
        let (mut dw, mut db) = (case.before.clone(), case.bias.clone());
        let mut scratch = dirty(weights.scratch_len(samples));
        weights.run(samples, &case.x, &dy, &argmax, &mut dw, &mut db, true, &mut scratch);
        assert_near("accumulated dw", &conv, context, &dw, &over(&case.before, &want_dw));
        assert_near("accumulated db", &conv, context, &db, &over(&case.bias, &want_db));
    }
}

/// A convolution with unit strides and dilation, one group and no padding.
const fn plain(input: [usize; 3], filters: usize, kernel: [usize; 2]) -> ConvShape {
    ConvShape { input, filters, kernel, strides: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 }
}

const fn padded(input: [usize; 3], filters: usize, kernel: [usize; 2], padding: [usize; 4]) -> ConvShape {
    ConvShape { padding, ..plain(input, filters, kernel) }
}

const fn strided(input: [usize; 3], filters: usize, kernel: [usize; 2], strides: [usize; 2]) -> ConvShape {
    ConvShape { strides, ..plain(input, filters, kernel) }
}

const fn dilated(input: [usize; 3], filters: usize, kernel: [usize; 2], dilation: [usize; 2]) -> ConvShape {
    ConvShape { dilation, ..plain(input, filters, kernel) }
}

const fn grouped(input: [usize; 3], filters: usize, kernel: [usize; 2], groups: usize) -> ConvShape {
    ConvShape { groups, ..plain(input, filters, kernel) }
}

const fn depthwise(input: [usize; 3], kernel: usize, stride: usize, padding: [usize; 4]) -> ConvShape {
    let channels = input[2];
    ConvShape { strides: [stride, stride], padding, ..grouped(input, channels, [kernel, kernel], channels) }
}

pub(super) const SHAPES: &[ConvShape] = &[
    // Dense layers: one pixel, widths around a vector and a panel.
    plain([1, 1, 1], 1, [1, 1]),
    plain([1, 1, 13], 10, [1, 1]),
    plain([1, 1, 17], 16, [1, 1]),
    plain([1, 1, 64], 31, [1, 1]),
    plain([1, 1, 100], 33, [1, 1]),
    // One filter, one vector less and more one, panels.
    plain([5, 6, 3], 1, [3, 3]),
    plain([5, 6, 2], 15, [3, 3]),
    plain([6, 5, 4], 17, [2, 3]),
    plain([7, 7, 5], 32, [3, 3]),
    plain([4, 4, 7], 65, [3, 3]),
    plain([8, 8, 1], 32, [3, 3]),
    // As many pixels as a tile has rows, one less and one more; the kernel as large as the input.
    plain([1, 11, 3], 8, [1, 1]),
    plain([3, 4, 3], 8, [1, 1]),
    plain([1, 13, 3], 8, [1, 1]),
    plain([5, 5, 6], 9, [5, 5]),
    plain([5, 4, 6], 9, [5, 1]),
    // Padding, even and odd, wider than the kernel reaches.
    padded([5, 7, 3], 8, [3, 3], [1, 1, 1, 1]),
    padded([6, 5, 4], 7, [4, 2], [1, 2, 0, 1]),
    padded([4, 4, 2], 5, [3, 3], [2, 2, 2, 2]),
    padded([3, 2, 2], 3, [1, 1], [2, 1, 3, 0]),
    padded([3, 3, 2], 3, [2, 2], [3, 0, 0, 4]),
    padded([1, 1, 4], 6, [3, 3], [1, 1, 1, 1]),
    padded([2, 3, 4], 6, [7, 7], [3, 3, 3, 3]),
    // Strides.
    strided([7, 8, 3], 8, [3, 3], [2, 2]),
    strided([9, 9, 2], 17, [3, 3], [3, 2]),
    strided([8, 8, 4], 6, [1, 1], [2, 2]),
    // A vector and a half of columns, of even and of odd numbers of pixels; with few and with many weights.
    plain([9, 7, 20], 24, [1, 1]),
    plain([4, 11, 130], 56, [1, 1]),
    plain([5, 6, 24], 40, [1, 1]),
    plain([5, 3, 20], 14, [1, 1]),
    strided([10, 7, 2], 5, [2, 2], [3, 3]),
    ConvShape { padding: [1, 1, 1, 1], ..strided([8, 8, 5], 16, [3, 3], [2, 2]) },
    ConvShape { padding: [3, 2, 3, 2], ..strided([11, 10, 3], 8, [7, 7], [2, 2]) },
    ConvShape { padding: [0, 1, 0, 1], ..strided([6, 7, 3], 8, [3, 3], [2, 2]) },
    // Dilation, alone and with all else.
    dilated([9, 8, 3], 8, [3, 3], [2, 2]),
    dilated([7, 7, 3], 8, [2, 3], [3, 1]),
    ConvShape { padding: [2, 2, 2, 2], ..dilated([6, 6, 4], 8, [3, 3], [2, 2]) },
    ConvShape { padding: [4, 1, 2, 3], strides: [2, 3], ..dilated([9, 10, 3], 7, [3, 2], [2, 3]) },
    ConvShape { padding: [1, 2, 2, 1], strides: [3, 2], ..dilated([11, 9, 2], 5, [3, 3], [3, 2]) },
    // Groups, and depthwise with multiplier 1 and 2.
    grouped([5, 5, 6], 8, [3, 3], 2),
    grouped([4, 5, 34], 36, [1, 1], 2),
    grouped([5, 5, 8], 8, [3, 3], 8),
    grouped([6, 5, 17], 17, [3, 3], 17),
    grouped([5, 5, 5], 10, [3, 3], 5),
    ConvShape { padding: [1, 1, 1, 1], strides: [2, 2], ..grouped([7, 7, 16], 16, [3, 3], 16) },
    ConvShape { padding: [2, 2, 2, 2], ..grouped([6, 7, 33], 33, [5, 5], 33) },
    // Depthwise tiles: wide, narrow and both, whole and not, one row; padding of every kind, and windows that see only zeros.
    depthwise([14, 14, 16], 3, 1, [1, 1, 1, 1]),
    depthwise([7, 7, 48], 3, 1, [1, 1, 1, 1]),
    depthwise([1, 1, 9], 3, 1, [1, 1, 1, 1]),
    depthwise([3, 8, 17], 3, 1, [1, 1, 1, 1]),
    depthwise([2, 13, 31], 3, 1, [0, 1, 1, 0]),
    depthwise([5, 19, 2], 3, 1, [3, 0, 0, 4]),
    depthwise([4, 33, 5], 3, 1, [0, 0, 0, 0]),
    depthwise([14, 14, 16], 3, 2, [1, 1, 1, 1]),
    depthwise([14, 14, 33], 3, 2, [0, 1, 0, 1]),
    depthwise([13, 17, 20], 3, 2, [1, 1, 1, 1]),
    depthwise([3, 1, 8], 3, 2, [1, 1, 1, 1]),
    depthwise([1, 10, 8], 3, 2, [1, 1, 1, 1]),
    depthwise([6, 9, 7], 3, 2, [4, 3, 1, 5]),
    depthwise([9, 16, 15], 3, 2, [0, 0, 0, 0]),
    depthwise([9, 15, 17], 5, 1, [2, 2, 2, 2]),
    depthwise([5, 6, 16], 5, 1, [0, 0, 3, 5]),
    depthwise([14, 15, 17], 5, 2, [2, 2, 2, 2]),
    depthwise([8, 8, 16], 5, 2, [1, 2, 1, 2]),
    depthwise([2, 3, 4], 5, 2, [2, 2, 2, 2]),
    depthwise([7, 6, 3], 5, 2, [6, 5, 0, 7]),
    ConvShape { padding: [1, 1, 1, 1], strides: [2, 1], dilation: [1, 2], ..grouped([7, 8, 12], 8, [3, 3], 4) },
    // Few channels: strips of every length, the last of them at the image's end, a kernel of two rows, strides and dilation down alone.
    plain([5, 36, 3], 17, [3, 3]),
    plain([4, 31, 3], 33, [2, 3]),
    padded([3, 22, 1], 40, [3, 3], [1, 1, 1, 1]),
    padded([5, 14, 1], 16, [3, 3], [1, 1, 2, 3]),
    ConvShape { padding: [1, 1, 1, 1], ..strided([7, 41, 3], 20, [3, 3], [2, 2]) },
    ConvShape { strides: [3, 2], ..dilated([9, 30, 1], 32, [3, 3], [2, 1]) },
    ConvShape { strides: [1, 2], ..padded([6, 27, 3], 35, [4, 3], [2, 0, 0, 1]) },
    strided([8, 20, 1], 9, [3, 3], [2, 1]),
    // Primes, and layers of real nets in small.
    plain([11, 13, 7], 19, [5, 3]),
    plain([13, 13, 32], 64, [3, 3]),
    padded([8, 8, 16], 48, [3, 3], [1, 1, 1, 1]),
    // 3x3 kernels with enough channels for minimal filtering: odd sizes, parts of vectors, padding that is cropped.
    plain([10, 11, 8], 8, [3, 3]),
    padded([9, 8, 13], 19, [3, 3], [1, 1, 1, 1]),
    padded([7, 6, 9], 33, [3, 3], [2, 2, 2, 2]),
    padded([6, 7, 17], 12, [3, 3], [3, 4, 0, 5]),
    padded([3, 4, 40], 70, [3, 3], [1, 1, 1, 1]),
    // Pixels enough to filter weight gradients along rows alone.
    padded([13, 11, 9], 20, [3, 3], [2, 0, 0, 3]),
    padded([12, 13, 17], 33, [3, 3], [0, 3, 4, 1]),
    // More than a block of pixels or a band of tiles.
    strided([65, 66, 33], 9, [3, 3], [2, 2]),
    plain([16, 17, 600], 3, [1, 1]),
    padded([3, 5, 130], 35, [3, 4], [1, 1, 1, 1]),
    // Pixels a multiple of 4 KiB apart, which are copied.
    plain([3, 5, 1024], 130, [1, 1]),
    strided([5, 4, 512], 128, [1, 1], [2, 2]),
    plain([15, 10, 1024], 129, [1, 1]),
    padded([31, 67, 41], 9, [3, 3], [1, 1, 1, 1]),
    // Larger than its input: no output, and the input has no gradient.
    plain([2, 2, 3], 4, [3, 3]),
];

#[test]
fn agrees_with_the_definition() {
    for &shape in SHAPES {
        for samples in [0, 1, 2, 5] {
            check(shape, samples);
        }
    }
}

#[test]
fn large_shapes_agree_with_the_definition() {
    // More sums of minimal filtering than are kept at once, from one block of tiles and from two.
    for (shape, samples) in [(padded([3, 4, 200], 170, [3, 3], [1; 4]), 3), (plain([19, 18, 33], 1000, [3, 3]), 2)] {
        check(shape, samples);
    }
    // Weight gradients over few pixels: with what is multiplied in registers, in one part and in two, and in tiles.
    for samples in [7, 8, 9, 16, 17] {
        check(ConvShape::dense(70, 35), samples);
    }
    check(strided([4, 4, 29], 40, [1, 1], [2, 2]), 4);
    check(padded([2, 3, 13], 33, [3, 1], [1, 1, 0, 0]), 8);
    // Over many pixels: in blocks that end within a row of pixels, and with copies of two blocks of pixels, rows and columns.
    check(strided([25, 23, 3], 10, [3, 3], [2, 2]), 2);
    check(strided([19, 17, 13], 135, [3, 3], [2, 2]), 4);
    check(grouped([5, 5, 192], 192, [1, 1], 2), 2);
    // Depthwise tiles inside the image, and beside all of its borders.
    for (kernel, padding) in [(3, [1; 4]), (5, [2; 4])] {
        for stride in [1, 2] {
            check(depthwise([17, 29, 9], kernel, stride, padding), 1);
        }
    }
}

/// What tiles multiply in each of their ways, and how many samples.
const TILED: &[(ConvShape, usize)] = &[
    // Parts of tiles: rows, columns and slots; a chunk of 12 slots, one of 10, and one of none, since 7 are too few.
    (padded([6, 7, 16], 19, [3, 3], [1, 1, 1, 1]), 3),
    (padded([5, 5, 40], 33, [1, 1], [0, 0, 0, 0]), 2),
    (padded([5, 5, 20], 14, [1, 1], [0, 0, 0, 0]), 2),
    (plain([1, 1, 64], 31, [1, 1]), 9),
    // Every padding, dilation, strides: gradients of pixels that no window sees.
    (padded([6, 7, 17], 32, [3, 3], [3, 4, 0, 5]), 2),
    (ConvShape { padding: [2, 1, 0, 3], ..dilated([7, 9, 16], 16, [3, 3], [2, 3]) }, 2),
    (ConvShape { padding: [1, 1, 1, 1], ..strided([8, 9, 16], 32, [3, 3], [2, 2]) }, 3),
    (strided([8, 8, 32], 64, [1, 1], [2, 2]), 3),
    // Sums that are put aside between chunks and between blocks of samples, and such that are too large for that.
    (padded([20, 20, 64], 16, [3, 3], [1, 1, 1, 1]), 5),
    (padded([3, 4, 128], 128, [3, 3], [1, 1, 1, 1]), 2),
];

#[test]
fn tiles_agree_with_the_definition() {
    let ways = || every_way().chain(Level::with_emulated_tiles().map(|level| (level, Precision::Bf16)));
    for &(shape, samples) in TILED {
        check_ways(ways(), shape, samples);
    }
    // Windows that fill a block of rows, and such that do not.
    let conv = padded([9, 10, 16], 35, [3, 3], [1, 1, 1, 1]);
    for pool in [[2, 2], [3, 3], [1, 5]] {
        check_pooled_ways(ways(), PooledShape { conv, pool }, 3);
    }
}

#[test]
fn pooled_agrees_with_the_definition() {
    for &conv in SHAPES {
        for pool in [[2, 2], [1, 2], [3, 3], [4, 5]] {
            check_pooled(PooledShape { conv, pool }, 2);
        }
    }
    let first = plain([28, 28, 1], 32, [3, 3]);
    let second = plain([13, 13, 32], 64, [3, 3]);
    for conv in [first, second, padded([9, 9, 3], 20, [5, 5], [2, 2, 2, 2]), plain([12, 10, 16], 24, [3, 3])] {
        for samples in [0, 1, 3] {
            check_pooled(PooledShape { conv, pool: [2, 2] }, samples);
        }
    }
}

#[test]
fn the_first_of_equal_maxima_wins() {
    let conv = plain([4, 4, 1], 3, [1, 1]);
    let shape = PooledShape { conv, pool: [2, 2] };
    #[rustfmt::skip]
    let x = [
        1.0, 2.0, 5.0, 5.0,
        2.0, 2.0, 5.0, 5.0,
        0.0, 0.0, 1.0, 3.0,
        0.0, 4.0, 3.0, 3.0,
    ];
    // The weights turn the input over, keep it, and drop it.
    let weights = [-1.0, 1.0, 0.0];
    for level in Level::available() {
        let forward = PooledForward::new(shape, level, Precision::F32);
        let mut packed = dirty(forward.packed_len());
        forward.pack(&mut Pool::new(1), &weights, &mut packed);
        let run = |relu: bool| {
            let (mut y, mut argmax) = (dirty(12), vec![9; 12]);
            let mut scratch = dirty(forward.scratch_len(1));
            forward.run(1, &x, &packed, None, relu, &mut y, &mut argmax, &mut scratch);
            (y, argmax)
        };
        let (y, argmax) = run(false);
        assert_eq!(y, [-1.0, 2.0, 0.0, -5.0, 5.0, 0.0, 0.0, 4.0, 0.0, -1.0, 3.0, 0.0], "{level:?}");
        assert_eq!(argmax, [0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 1, 0], "{level:?}");
        let (y, argmax) = run(true);
        assert_eq!(y, [0.0, 2.0, 0.0, 0.0, 5.0, 0.0, 0.0, 4.0, 0.0, 0.0, 3.0, 0.0], "{level:?}");
        let no = CLOSED;
        assert_eq!(argmax, [no, 1, no, no, 0, no, no, 3, no, no, 1, no], "{level:?}");
    }
}

#[test]
fn pixels_of_a_flat_image_are_equal_to_the_bit() {
    let shape = PooledShape { conv: plain([8, 6, 16], 24, [3, 3]), pool: [2, 2] };
    let (x, w) = (noise(1, 16).repeat(48), noise(2, shape.conv.weights_len()));
    for level in Level::available() {
        let forward = PooledForward::new(shape, level, Precision::F32);
        let mut packed = dirty(forward.packed_len());
        forward.pack(&mut Pool::new(1), &w, &mut packed);
        let (mut y, mut argmax) = (dirty(shape.output_len()), vec![9; shape.output_len()]);
        forward.run(1, &x, &packed, None, false, &mut y, &mut argmax, &mut dirty(forward.scratch_len(1)));
        assert!(argmax.iter().all(|&position| position == 0), "{level:?}: {argmax:?}");
    }
}

#[test]
fn packing_does_not_depend_on_the_threads() {
    for (&shape, precision) in SHAPES.iter().flat_map(|shape| [(shape, Precision::F32), (shape, Precision::Bf16)]) {
        let w = noise(2, shape.weights_len());
        let pooled = PooledShape { conv: shape, pool: [2, 2] };
        let pack = |threads: usize| {
            let (mut pool, level) = (Pool::new(threads), Level::detect());
            let (forward, data) = (Forward::new(shape, level, precision), BackwardData::new(shape, level, precision));
            let pooled_data = PooledBackwardData::new(pooled, level, precision);
            let mut packed = [forward.packed_len(), data.packed_len(), pooled_data.packed_len()].map(dirty);
            forward.pack(&mut pool, &w, &mut packed[0]);
            data.pack(&mut pool, &w, &mut packed[1]);
            pooled_data.pack(&mut pool, &w, &mut packed[2]);
            packed
        };
        let packed = pack(1);
        assert!(packed.iter().flatten().all(|v| v.is_finite()), "all of it is written for {shape:?}");
        assert_eq!(packed, pack(3), "{shape:?}");
    }
}

#[test]
fn not_a_number_stays_one() {
    let shape = plain([3, 3, 1], 4, [2, 2]);
    for level in Level::available() {
        let forward = Forward::new(shape, level, Precision::F32);
        let mut packed = dirty(forward.packed_len());
        forward.pack(&mut Pool::new(1), &[1.0; 16], &mut packed);
        for epilogue in [Epilogue::Linear, Epilogue::Relu, Epilogue::Relu6] {
            let y =
                convolved(&forward, &shape, 1, &[f32::NAN; 9], ConvWeights { packed: &packed, bias: None, epilogue });
            assert!(y.iter().all(|v| v.is_nan()), "{epilogue:?} on {level:?}");
        }
    }
}

fn any_shape() -> impl Strategy<Value = ConvShape> {
    let image = (1..=9usize, 1..=9usize, 1..=3usize, 1..=10usize, 1..=20usize);
    let window = ((1..=4usize, 1..=4usize), (1..=3usize, 1..=3usize), (1..=2usize, 1..=2usize));
    let padding = [0..=3usize, 0..=3, 0..=3, 0..=3];
    (image, window, padding).prop_map(
        |((height, width, groups, channels, filters), (kernel, strides, dilation), padding)| ConvShape {
            input: [height, width, groups * channels],
            filters: groups * filters,
            kernel: kernel.into(),
            strides: strides.into(),
            padding,
            dilation: dilation.into(),
            groups,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_shape_agrees_with_the_definition(shape in any_shape(), samples in 1..=3usize) {
        check(shape, samples);
    }

    #[test]
    fn any_pooled_shape_agrees_with_the_definition(
        conv in any_shape(), pool in (1..=3usize, 1..=3usize), samples in 1..=3usize
    ) {
        check_pooled(PooledShape { conv, pool: pool.into() }, samples);
    }
}
