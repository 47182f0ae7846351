//! Measures the forward pass of deep nets' convolutions for one large image, against the multiply-add peak found in the same run.
//!
//! Rates count the operations of the definition, so minimal filtering can exceed the peak.
//!
//! `cargo bench -p ocellus-kernels --bench forward_lab -- [part of a name [samples [threads]]]`; with `CROSSED=1` in the environment 1x1
//! convolutions have crossed factors where they gain, on any level.
#![allow(clippy::print_stdout, reason = "a lab prints its table")]

mod lab;

use lab::noise;
use ocellus_kernels::conv::*;
use ocellus_kernels::{Buffer, Packing, Pool, Precision, peak};
use std::time::{Duration, Instant};

/// The best of several timings in seconds. Activations are warm as after the layer before, the weights are cold if they are
/// larger than what a run leaves in the cache: `packed` holds copies that take turns.
fn time(mut f: impl FnMut(usize)) -> f64 {
    f(0);
    let mut best = f64::MAX;
    let begin = Instant::now();
    let mut turn = 0;
    while begin.elapsed() < Duration::from_millis(60) {
        turn += 1;
        let start = Instant::now();
        f(turn);
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

const fn square(size: usize, channels: usize, filters: usize, kernel: usize, stride: usize) -> ConvShape {
    ConvShape {
        input: [size, size, channels],
        filters,
        kernel: [kernel, kernel],
        strides: [stride, stride],
        padding: [kernel / 2; 4],
        dilation: [1, 1],
        groups: 1,
    }
}

/// The name of a layer, how often the net has it, and its shape.
const LAYERS: &[(&str, usize, ConvShape)] = &[
    ("resnet50 stem 7x7/2", 1, square(224, 3, 64, 7, 2)),
    ("resnet50 56 64-64", 1, square(56, 64, 64, 1, 1)),
    ("resnet50 56 64-64 3x3", 3, square(56, 64, 64, 3, 1)),
    ("resnet50 56 64-256", 4, square(56, 64, 256, 1, 1)),
    ("resnet50 56 256-64", 2, square(56, 256, 64, 1, 1)),
    ("resnet50 56 256-128", 1, square(56, 256, 128, 1, 1)),
    ("resnet50 56 128-128 3x3/2", 1, square(56, 128, 128, 3, 2)),
    ("resnet50 56 256-512 /2", 1, square(56, 256, 512, 1, 2)),
    ("resnet50 28 128-512", 4, square(28, 128, 512, 1, 1)),
    ("resnet50 28 512-128", 3, square(28, 512, 128, 1, 1)),
    ("resnet50 28 128-128 3x3", 3, square(28, 128, 128, 3, 1)),
    ("resnet50 28 512-256", 1, square(28, 512, 256, 1, 1)),
    ("resnet50 28 256-256 3x3/2", 1, square(28, 256, 256, 3, 2)),
    ("resnet50 28 512-1024 /2", 1, square(28, 512, 1024, 1, 2)),
    ("resnet50 14 256-1024", 6, square(14, 256, 1024, 1, 1)),
    ("resnet50 14 1024-256", 5, square(14, 1024, 256, 1, 1)),
    ("resnet50 14 256-256 3x3", 5, square(14, 256, 256, 3, 1)),
    ("resnet50 14 1024-512", 1, square(14, 1024, 512, 1, 1)),
    ("resnet50 14 512-512 3x3/2", 1, square(14, 512, 512, 3, 2)),
    ("resnet50 14 1024-2048 /2", 1, square(14, 1024, 2048, 1, 2)),
    ("resnet50 7 512-2048", 3, square(7, 512, 2048, 1, 1)),
    ("resnet50 7 2048-512", 2, square(7, 2048, 512, 1, 1)),
    ("resnet50 7 512-512 3x3", 2, square(7, 512, 512, 3, 1)),
    ("resnet50 dense 2048-1000", 1, square(1, 2048, 1000, 1, 1)),
    ("mobilenet 112 32-16", 1, square(112, 32, 16, 1, 1)),
    ("mobilenet 112 16-96", 1, square(112, 16, 96, 1, 1)),
    ("mobilenet 56 96-24", 1, square(56, 96, 24, 1, 1)),
    ("mobilenet 56 24-144", 2, square(56, 24, 144, 1, 1)),
    ("mobilenet 56 144-24", 1, square(56, 144, 24, 1, 1)),
    ("mobilenet 28 144-32", 1, square(28, 144, 32, 1, 1)),
    ("mobilenet 28 32-192", 3, square(28, 32, 192, 1, 1)),
    ("mobilenet 28 192-32", 2, square(28, 192, 32, 1, 1)),
    ("mobilenet 14 192-64", 1, square(14, 192, 64, 1, 1)),
    ("mobilenet 14 64-384", 4, square(14, 64, 384, 1, 1)),
    ("mobilenet 14 384-64", 3, square(14, 384, 64, 1, 1)),
    ("mobilenet 14 384-96", 1, square(14, 384, 96, 1, 1)),
    ("mobilenet 14 96-576", 3, square(14, 96, 576, 1, 1)),
    ("mobilenet 14 576-96", 2, square(14, 576, 96, 1, 1)),
    ("mobilenet 7 576-160", 1, square(7, 576, 160, 1, 1)),
    ("mobilenet 7 160-960", 3, square(7, 160, 960, 1, 1)),
    ("mobilenet 7 960-160", 2, square(7, 960, 160, 1, 1)),
    ("mobilenet 7 960-320", 1, square(7, 960, 320, 1, 1)),
    ("mobilenet 7 320-1280", 1, square(7, 320, 1280, 1, 1)),
    ("mobilenet dense 1280-1000", 1, square(1, 1280, 1000, 1, 1)),
];

/// Bytes of weights, all copies together, that no cache holds.
const COLD: usize = 96 << 20;

fn main() {
    if !lab::measures() {
        return;
    }
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let only = arguments.next().unwrap_or_default();
    let mut number = || arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (samples, threads): (usize, usize) = (number(), number());
    let level = lab::level();
    let peak = peak::fma_gflops(level, 20) * 1e9;
    println!("{level:?}, {samples} samples, {threads} threads, multiply-add peak of one {:.1} GFLOP/s", peak * 1e-9);
    let crossed = std::env::var_os("CROSSED").is_some();
    let mut pool = Pool::new(threads);
    let peak = peak * threads as f64;
    let (mut sum, mut ideal) = (0.0, 0.0);
    for &(name, times, shape) in LAYERS.iter().filter(|layer| layer.0.contains(&only)) {
        let forward = Forward::new(shape, level, Precision::F32);
        let forward = if crossed { forward.crossed() } else { forward };
        let x = noise(1, samples * shape.input_len());
        let w = noise(3, shape.weights_len());
        let bias = noise(4, shape.filters);
        let mut y = Buffer::new(samples * shape.output_len());
        let len = forward.packed_len().next_multiple_of(16);
        let copies = (COLD / 4 / len).clamp(1, 64);
        let mut packed = Buffer::new(len * copies);
        for copy in packed.f32_mut().chunks_exact_mut(len) {
            forward.pack(&mut pool, w.f32(), &mut copy[..forward.packed_len()]);
        }
        let mut scratch: Vec<Buffer> = (0..threads).map(|_| Buffer::new(forward.scratch_len(samples))).collect();
        let seconds = time(|turn| {
            let packed = &packed.f32()[turn % copies * len..][..forward.packed_len()];
            let weights = ConvWeights { packed, bias: Some(bias.f32()), epilogue: Epilogue::Relu };
            let (x, y) = (x.f32(), y.f32_mut());
            if threads == 1 {
                return forward.run(Extent::Samples(samples), x, weights, Sums::New(y.into()), scratch[0].f32_mut());
            }
            // As a plan shares one sample: each thread has a piece.
            let len = (y.len() / forward.unit()).div_ceil(threads).max(1) * forward.unit();
            let mut pieces: Vec<&mut [f32]> = y.chunks_mut(len).collect();
            pool.for_each(&mut scratch, &mut pieces, |scratch, i, y| {
                let part = i * len..i * len + y.len();
                forward.run(Extent::Piece(part), x, weights, Sums::New((&mut **y).into()), scratch.f32_mut());
            });
        });
        let flops = (shape.flops() * samples as u64) as f64;
        sum += seconds * times as f64;
        ideal += flops / peak * times as f64;
        println!(
            "{name:<26} x{times} {:>9.1} us {:>8.1} GFLOP/s {:>6.1}%",
            seconds * 1e6 / samples as f64,
            flops / seconds * 1e-9,
            100.0 * flops / seconds / peak
        );
    }
    println!("all: {:.2} ms for each image, {:.1}%", sum * 1e3 / samples as f64, 100.0 * ideal / sum);
}
