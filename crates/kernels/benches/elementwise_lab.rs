//! Speed of the kernels between convolutions on one core, in GB/s of what it must read and write, and in percent of what
//! `y = factor * x` reaches over arrays of the same total size, measured in the same run.
//!
//! `cargo bench -p ocellus-kernels --bench elementwise_lab -- [NAME PART] [LEVEL]`
#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use ocellus_kernels::activation::{self, Activation};
use ocellus_kernels::conv::Epilogue;
use ocellus_kernels::layer_norm::{self, LayerNorm};
use ocellus_kernels::pool2d::{self, AdaptiveShape, PoolShape};
use ocellus_kernels::quantize::{self, Encoding};
use ocellus_kernels::update::{self, Rule, Step};
use ocellus_kernels::{
    Buffer, Level, Pool, ValuesMut, batch_norm, convert, dropout, elementwise, loss, peak, reduce, softmax,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Nanoseconds of the fastest call within 15 milliseconds.
fn nanoseconds(mut run: impl FnMut()) -> f64 {
    let until = Instant::now() + Duration::from_millis(15);
    let mut best = f64::INFINITY;
    let mut calls = 1;
    while Instant::now() < until {
        let start = Instant::now();
        (0..calls).for_each(|_| run());
        let each = start.elapsed().as_nanos() as f64 / f64::from(calls);
        best = best.min(each);
        // At least 20 µs between two looks at the clock.
        calls = (20_000.0 / each.max(1.0)) as u32 + 1;
    }
    best
}

/// Arrays of one size, filled with numbers on both sides of zero.
struct Arrays {
    x: Buffer,
    dy: Buffer,
    y: Buffer,
}

struct Lab {
    level: Level,
    filter: String,
    /// Bytes per array, and the GB/s of `scale` over two such.
    bytes: usize,
    peak: f64,
}

impl Lab {
    /// Runs one kernel, which reads and writes `bytes` in all.
    fn row(&self, name: &str, bytes: usize, run: impl FnMut()) {
        if name.contains(&self.filter) {
            let gbs = bytes as f64 / nanoseconds(run);
            println!("{:>9} KB  {name:28} {gbs:7.1} GB/s  {:4.0} %", self.bytes >> 10, 100.0 * gbs / self.peak);
        }
    }
}

fn main() {
    // Only `cargo bench` passes `--bench`; under `cargo test` there is nothing to do.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let filter = arguments.next().unwrap_or_default();
    let level =
        arguments.next().map_or_else(Level::detect, |name| Level::named(&name).expect("a level of this machine"));
    println!("{}: {:.1} GFLOP/s of multiply-add on one core", level.name(), peak::fma_gflops(level, 50));
    // What a worker's part of a small net's batch takes, and what no cache holds.
    for bytes in [100 << 10, 32 << 20] {
        let peak = peak::memory_gbs(level, 2 * bytes, 100);
        println!("\n{:>9} KB  {:28} {peak:7.1} GB/s", bytes >> 10, "scale, the yardstick");
        run(&Lab { level, filter: filter.clone(), bytes, peak });
    }
}

fn run(lab: &Lab) {
    let (level, bytes) = (lab.level, lab.bytes);
    let len = bytes / 4 / 1280 * 1280;
    let fill =
        |k: usize| Buffer::from(&*(0..len).map(|i| ((i * 37 + k) % 101) as f32 * 0.06 - 3.0).collect::<Vec<_>>());
    let Arrays { x, dy, mut y } = Arrays { x: fill(0), dy: fill(5), y: fill(9) };
    let (x, dy, y) = (x.f32(), dy.f32(), y.f32_mut());
    let once = 4 * len;

    lab.row("add", 3 * once, || elementwise::add(level, black_box(x), dy, y));
    for activation in [
        Activation::Relu,
        Activation::LeakyRelu { negative_slope: 0.2 },
        Activation::Elu { alpha: 1.0 },
        Activation::Gelu,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::GeluTanh,
        Activation::HardSigmoid,
        Activation::HardSilu,
    ] {
        let name = format!("{activation:?}");
        let name = name.split([' ', '{']).next().unwrap_or_default();
        lab.row(name, 2 * once, || activation::forward(level, activation, black_box(x), y));
        lab.row(&format!("{name} backward"), 3 * once, || {
            activation::backward(level, activation, black_box(x), x, dy, y)
        });
    }
    for channels in [3usize, 32, 64, 256] {
        let len = len / channels * channels;
        let (x, dy, y, once) = (&x[..len], &dy[..len], &mut y[..len], 4 * len);
        let (mean, variance) = (vec![0.1; channels], vec![1.5; channels]);
        let mut sums = vec![0.0; 2 * channels];
        let named = |name: &str| format!("{name} {channels} channels");
        lab.row(&named("moments"), once, || {
            batch_norm::moments(level, channels, black_box(x).into(), &mean, &mut sums, false)
        });
        let (gamma, beta) = (&mean, &mean);
        let (mean, variance) = (&mean, &variance);
        let linear = batch_norm::Norm { mean, variance, gamma, beta, epsilon: 1e-3, epilogue: Epilogue::Linear };
        let relu = batch_norm::Norm { epilogue: Epilogue::Relu, ..linear };
        lab.row(&named("normalize, relu"), 2 * once, || {
            batch_norm::normalize(level, &relu, black_box(x).into(), None, y.into())
        });
        lab.row(&named("normalize, add, relu"), 3 * once, || {
            batch_norm::normalize(level, &relu, black_box(x).into(), Some(dy.into()), y.into());
        });
        let (dbeta, dgamma) = sums.split_at_mut(channels);
        lab.row(&named("backward_sums"), 2 * once, || {
            batch_norm::backward_sums(level, &linear, black_box(x).into(), dy.into(), dbeta, dgamma, false);
        });
        lab.row(&named("backward_sums, relu"), 2 * once, || {
            batch_norm::backward_sums(level, &relu, black_box(x).into(), dy.into(), dbeta, dgamma, false);
        });
        lab.row(&named("backward_sums, add, relu, g"), 5 * once, || {
            let terms = (dy.into(), Some(dy.into()));
            batch_norm::backward_sums_and_gradient(
                level,
                &relu,
                black_box(x).into(),
                dy.into(),
                terms,
                y.into(),
                dbeta,
                dgamma,
                false,
            );
        });
        lab.row(&named("batch_norm backward"), 3 * once, || {
            batch_norm::backward(level, &linear, 1e3, black_box(x).into(), dy.into(), dbeta, dgamma, y.into());
        });
        lab.row(&named("batch_norm backward, relu"), 3 * once, || {
            batch_norm::backward(level, &relu, 1e3, black_box(x).into(), dy.into(), dbeta, dgamma, y.into());
        });
        lab.row(&named("column_sums"), once, || {
            reduce::column_sums(level, channels, black_box(x), dbeta, false);
        });
        lab.row(&named("affine"), 2 * once, || elementwise::affine(level, channels, black_box(x), mean, variance, y));
        let norm = LayerNorm { gamma, epsilon: 1e-3 };
        lab.row(&named("layer_norm"), 2 * once, || layer_norm::forward(level, &norm, beta, black_box(x), y));
        lab.row(&named("layer_norm backward"), 3 * once, || {
            layer_norm::backward(level, &norm, black_box(x), dy, y, dgamma, dbeta, false);
        });
        // Of one sample: as where channels are weighted by squeeze and excitation.
        let pixels = len / channels;
        lab.row(&named("multiply_channels"), 2 * once, || {
            elementwise::multiply_channels(level, pixels, channels, black_box(x), mean, y);
        });
        lab.row(&named("multiply_channels backward"), 2 * once, || {
            elementwise::multiply_channels_backward(level, pixels, channels, black_box(x), dy, dgamma);
        });
        let image = vec![7u8; len];
        lab.row(&named("affine_u8"), 5 * len, || {
            elementwise::affine_u8(level, channels, black_box(&image), mean, variance, y);
        });
    }
    lab.row("dropout", 2 * once, || dropout::forward(level, 0.5, 1, 0, black_box(x), y));
    for classes in [10usize, 1000] {
        let len = len / classes * classes;
        let (x, dy, y) = (&x[..len], &dy[..len], &mut y[..len]);
        let mut losses = vec![0.0; len / classes];
        lab.row(&format!("softmax {classes}"), 8 * len, || softmax::forward(level, classes, black_box(x), y));
        lab.row(&format!("softmax backward {classes}"), 12 * len, || {
            softmax::backward(level, classes, black_box(x), dy, y)
        });
        lab.row(&format!("softmax_cross_entropy {classes}"), 12 * len, || {
            loss::softmax_cross_entropy(level, classes, 0.0, black_box(x), dy, y, &mut losses);
        });
        lab.row(&format!("softmax_cross_entropy bw {classes}"), 12 * len, || {
            loss::softmax_cross_entropy_backward(level, classes, 0.0, black_box(x), dy, &losses, y);
        });
    }
    for (channels, size, stride, padding) in [(64, 2, 2, 0), (64, 3, 2, 1), (1, 2, 2, 0)] {
        let shape =
            PoolShape { input: [16, 20, channels], size: [size; 2], strides: [stride; 2], padding: [padding; 4] };
        let samples = len / (320 * channels);
        let input = samples * 320 * channels;
        let outputs = samples * shape.output().iter().product::<usize>();
        let mut argmax = vec![0u8; outputs];
        let (small, large) = (&dy[..outputs], &x[..input]);
        let named = |name: &str| format!("{name} {size}x{size} {channels} channels");
        lab.row(&named("max"), 4 * input + 5 * outputs, || {
            pool2d::max_forward(level, &shape, samples, black_box(large), &mut y[..outputs], &mut argmax);
        });
        lab.row(&named("max backward"), 4 * input + 5 * outputs, || {
            pool2d::max_backward(level, &shape, samples, black_box(small), &argmax, &mut y[..input]);
        });
        lab.row(&named("average"), 4 * input + 4 * outputs, || {
            pool2d::average_forward(level, &shape, samples, black_box(large), &mut y[..outputs]);
        });
        lab.row(&named("average backward"), 4 * input + 4 * outputs, || {
            pool2d::average_backward(level, &shape, samples, black_box(small), &mut y[..input]);
        });
    }
    let shape = AdaptiveShape { input: [16, 20, 64], output: [7, 7] };
    let (samples, window) = (len / (320 * 64), 49 * 64);
    let (input, outputs) = (samples * 320 * 64, samples * window);
    lab.row("adaptive average 16x20-7x7x64", 4 * (input + outputs), || {
        pool2d::adaptive_average_forward(level, &shape, samples, black_box(&x[..input]), &mut y[..outputs]);
    });
    lab.row("adaptive average backward", 4 * (input + outputs), || {
        pool2d::adaptive_average_backward(level, &shape, samples, black_box(&dy[..outputs]), &mut y[..input]);
    });
    let (mut halves, mut bytes) = (vec![0u16; len], vec![0u8; len]);
    lab.row("to bf16", 6 * len, || convert(level, black_box(x).into(), ValuesMut::Bf16(&mut halves)));
    lab.row("to bytes", 5 * len, || {
        quantize::to_bytes(level, Encoding::of_range(-3.0, 3.0), black_box(x), &mut bytes);
    });
    let mut outputs = vec![0.0; len / 49];
    let pixels = outputs.len() / 64 * 64 * 49;
    let count = pixels / (49 * 64);
    lab.row("global_average 49x64", 4 * pixels, || {
        pool2d::global_average_forward(level, 49, 64, count, black_box(&x[..pixels]), &mut outputs[..count * 64]);
    });
    lab.row("global_max 49x64", 4 * pixels, || {
        pool2d::global_max_forward(level, 49, 64, count, black_box(&x[..pixels]), &mut outputs[..count * 64], &mut []);
    });

    let step =
        Step { learning_rate: 1e-6, step: 5, gradient_scale: 1.0, clip_value: None, l1: 0.0, l2: 0.0, decay: 0.0 };
    let (mut first, mut second) = (vec![0.1; len], vec![0.1; len]);
    let mut pool = Pool::new(1);
    for parts in [1usize, 4] {
        let gradients = vec![dy; parts];
        lab.row(&format!("sgd, {parts} parts"), (parts + 2) * once, || {
            let rule = Rule::Sgd { momentum: 0.0, nesterov: false };
            update::apply(
                &mut pool,
                level,
                rule,
                &step,
                black_box(&gradients),
                y,
                [None, None, None],
                &mut [],
                Default::default(),
            );
        });
        lab.row(&format!("adam, {parts} parts"), (parts + 6) * once, || {
            let rule = Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, weight_decay: 0.0, amsgrad: false };
            let state = [Some(&mut first[..]), Some(&mut second[..]), None];
            update::apply(&mut pool, level, rule, &step, black_box(&gradients), y, state, &mut [], Default::default());
        });
        lab.row(&format!("gradient_square_sum, {parts} parts"), parts * once, || {
            black_box(update::gradient_square_sum(&mut pool, level, &step, black_box(&gradients), y));
        });
        lab.row(&format!("gather, {parts} parts"), (parts + 2) * once, || {
            reduce::gather(&mut pool, level, black_box(&gradients), y, true);
        });
    }
}
