//! Measures the convolution kernels at real nets' shapes, against the multiply-add peak found in the same run.
//!
//! Rates count the operations of the definition, so minimal filtering and sparse gradients can exceed the peak.
//!
//! `cargo run --release -p ocellus-kernels --example conv_lab [part of a name]`
#![allow(clippy::print_stdout, reason = "a lab prints its table")]

use ocellus_kernels::conv::*;
use ocellus_kernels::{Buffer, Level, Pool, Precision, peak};
use std::time::{Duration, Instant};

const SAMPLES: usize = 8;

/// The best of several timings, each of enough repetitions to be measured, in seconds for one call.
fn time(mut f: impl FnMut()) -> f64 {
    f();
    let start = Instant::now();
    f();
    let once = start.elapsed().as_secs_f64().max(1e-7);
    let repeats = (0.0004 / once).ceil() as usize;
    let mut best = f64::MAX;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(80) {
        let start = Instant::now();
        (0..repeats).for_each(|_| f());
        best = best.min(start.elapsed().as_secs_f64() / repeats as f64);
    }
    best
}

fn noise(seed: u32, len: usize) -> Buffer {
    let mut buffer = Buffer::new(len);
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    for value in buffer.f32_mut() {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *value = (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0;
    }
    buffer
}

struct Lab {
    level: Level,
    precision: Precision,
    pool: Pool,
    /// Operations per second of the largest tile when all it reads is in the first-level cache.
    peak: f64,
}

impl Lab {
    fn report(&self, name: &str, what: &str, flops: u64, seconds: f64) {
        let rate = (flops * SAMPLES as u64) as f64 / seconds;
        println!(
            "{name:<22} {what:<16} {:>9.2} us/image {:>8.1} GFLOP/s {:>6.1}%",
            seconds * 1e6 / SAMPLES as f64,
            rate * 1e-9,
            100.0 * rate / self.peak
        );
    }

    fn dense(&mut self, name: &str, shape: ConvShape) {
        let (forward, data) =
            (Forward::new(shape, self.level, self.precision), BackwardData::new(shape, self.level, self.precision));
        let weights = BackwardWeights::new(shape, self.level, self.precision);
        let x = noise(1, SAMPLES * shape.input_len());
        let dy = noise(2, SAMPLES * shape.output_len());
        let w = noise(3, shape.weights_len());
        let bias = noise(4, shape.filters);
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let mut packed = Buffer::new(forward.packed_len().max(data.packed_len()));
        let scratch = forward.scratch_len(SAMPLES).max(data.scratch_len(SAMPLES)).max(weights.scratch_len(SAMPLES));
        let mut scratch = Buffer::new(scratch);

        let packed_forward = &mut packed.f32_mut()[..forward.packed_len()];
        let seconds = time(|| forward.pack(&mut self.pool, w.f32(), packed_forward));
        println!("{name:<22} pack             {:>9.2} us", seconds * 1e6);
        let seconds = time(|| {
            let scratch = scratch.f32_mut();
            forward.run(SAMPLES, x.f32(), packed_forward, Some(bias.f32()), Epilogue::Relu, y.f32_mut(), scratch);
        });
        self.report(name, "forward", shape.flops(), seconds);

        let packed_data = &mut packed.f32_mut()[..data.packed_len()];
        let seconds = time(|| data.pack(&mut self.pool, w.f32(), packed_data));
        println!("{name:<22} pack transposed  {:>9.2} us", seconds * 1e6);
        let seconds = time(|| data.run(SAMPLES, dy.f32(), packed_data, dx.f32_mut(), scratch.f32_mut()));
        self.report(name, "backward data", shape.flops(), seconds);
        let seconds = time(|| weights.run(SAMPLES, x.f32(), dy.f32(), dw.f32_mut(), false, scratch.f32_mut()));
        self.report(name, "backward weights", shape.flops(), seconds);
        let seconds = time(|| weights.run(SAMPLES, x.f32(), dy.f32(), dw.f32_mut(), true, scratch.f32_mut()));
        self.report(name, "  accumulated", shape.flops(), seconds);
    }

    fn pooled(&mut self, name: &str, conv: ConvShape, pool: [usize; 2]) {
        let shape = PooledShape { conv, pool };
        // Pixels that no window covers are never computed.
        let [pixels, all] = [shape.output(), conv.output()].map(|[height, width, _]| (height * width) as u64);
        let flops = conv.flops() * pixels * (pool[0] * pool[1]) as u64 / all;
        let (forward, data) = (
            PooledForward::new(shape, self.level, self.precision),
            PooledBackwardData::new(shape, self.level, self.precision),
        );
        let weights = PooledBackwardWeights::new(shape, self.level, self.precision);
        let x = noise(1, SAMPLES * conv.input_len());
        let dy = noise(2, SAMPLES * shape.output_len());
        let w = noise(3, conv.weights_len());
        let bias = noise(4, conv.filters);
        let (mut y, mut dx, mut dw, mut db) = (dy.clone(), x.clone(), w.clone(), bias.clone());
        let mut argmax = vec![0; dy.len()];
        let mut packed = Buffer::new(forward.packed_len().max(data.packed_len()));
        let scratch = forward.scratch_len(SAMPLES).max(data.scratch_len(SAMPLES)).max(weights.scratch_len(SAMPLES));
        let mut scratch = Buffer::new(scratch);

        let packed_forward = &mut packed.f32_mut()[..forward.packed_len()];
        forward.pack(&mut self.pool, w.f32(), packed_forward);
        for (what, relu) in [("pooled, relu", true), ("pooled forward", false)] {
            let seconds = time(|| {
                let (bias, scratch) = (Some(bias.f32()), scratch.f32_mut());
                forward.run(SAMPLES, x.f32(), packed_forward, bias, relu, y.f32_mut(), &mut argmax, scratch);
            });
            self.report(name, what, flops, seconds);
        }

        let packed_data = &mut packed.f32_mut()[..data.packed_len()];
        let seconds = time(|| data.pack(&mut self.pool, w.f32(), packed_data));
        println!("{name:<22} pack for data    {:>9.2} us", seconds * 1e6);
        // The rate counts the operations of the dense gradient; what exceeds 100% is what the zeros save.
        for (closed, which) in [(0, ""), (50, ", half closed")] {
            if closed > 0 {
                let random = noise(7, argmax.len());
                let closing = random.f32().iter().map(|r| *r < closed as f32 / 50.0 - 1.0);
                argmax.iter_mut().zip(closing).filter(|(_, closed)| *closed).for_each(|(a, _)| *a = CLOSED);
            }
            let seconds = time(|| data.run(SAMPLES, dy.f32(), &argmax, packed_data, dx.f32_mut(), scratch.f32_mut()));
            self.report(name, &format!("data{which}"), flops, seconds);
            let seconds = time(|| {
                let (dw, db, scratch) = (dw.f32_mut(), db.f32_mut(), scratch.f32_mut());
                weights.run(SAMPLES, x.f32(), dy.f32(), &argmax, dw, db, true, scratch);
            });
            self.report(name, &format!("weights{which}"), flops, seconds);
        }
    }
}

const fn square(
    size: usize,
    channels: usize,
    filters: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> ConvShape {
    ConvShape {
        input: [size, size, channels],
        filters,
        kernel: [kernel, kernel],
        strides: [stride, stride],
        padding: [padding; 4],
        dilation: [1, 1],
        groups: 1,
    }
}

/// The name of a layer, its shape, and the pool behind it.
type Layer = (&'static str, ConvShape, Option<[usize; 2]>);

const LAYERS: &[Layer] = &[
    ("cnn conv1", square(28, 1, 32, 3, 1, 0), Some([2, 2])),
    ("cnn conv2", square(13, 32, 64, 3, 1, 0), Some([2, 2])),
    ("cnn dense 1600-64", square(1, 1600, 64, 1, 1, 0), None),
    ("cnn dense 64-10", square(1, 64, 10, 1, 1, 0), None),
    ("vgg 32x32x3-64", square(32, 3, 64, 3, 1, 1), Some([2, 2])),
    ("resnet 32x32x3-64", square(32, 3, 64, 3, 1, 1), None),
    ("resnet20 32x32x16-16", square(32, 16, 16, 3, 1, 1), None),
    ("resnet20 32x32x16-32/2", square(32, 16, 32, 3, 2, 1), None),
    ("resnet20 16x16x32-32", square(16, 32, 32, 3, 1, 1), None),
    ("resnet20 8x8x64-64", square(8, 64, 64, 3, 1, 1), None),
    ("resnet 32x32x64-64", square(32, 64, 64, 3, 1, 1), None),
    ("resnet 32x32x64-128/2", square(32, 64, 128, 3, 2, 1), None),
    ("resnet 1x1 64-128/2", square(32, 64, 128, 1, 2, 0), None),
    ("resnet 16x16x128-128", square(16, 128, 128, 3, 1, 1), None),
    ("resnet 8x8x256-256", square(8, 256, 256, 3, 1, 1), None),
    ("resnet 4x4x512-512", square(4, 512, 512, 3, 1, 1), None),
    ("pointwise 14x14x96-24", square(14, 96, 24, 1, 1, 0), None),
    ("depthwise 14x14x96", ConvShape { groups: 96, ..square(14, 96, 96, 3, 1, 1) }, None),
    ("depthwise 14x14x96/2", ConvShape { groups: 96, ..square(14, 96, 96, 3, 2, 1) }, None),
];

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    let level = match std::env::var("OCELLUS_ISA") {
        Ok(name) => Level::named(&name).expect("OCELLUS_ISA names an instruction set of this machine"),
        Err(_) => Level::detect(),
    };
    let peak = peak::fma_gflops(level, 20) * 1e9;
    println!("{level:?}, {SAMPLES} samples, one thread, multiply-add peak {:.1} GFLOP/s", peak * 1e-9);
    let mut lab = Lab { level, precision: Precision::F32, pool: Pool::new(1), peak };
    let ways = LAYERS.iter().flat_map(|layer| [(layer, Precision::F32), (layer, Precision::Bf16)]);
    for (&(name, shape, pool), precision) in ways.filter(|way| way.0.0.contains(&only)) {
        println!("{precision}");
        lab.precision = precision;
        if let Some(pool) = pool {
            lab.pooled(name, shape, pool);
        } else {
            lab.dense(name, shape);
        }
    }
}
