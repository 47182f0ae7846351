//! Measures the convolution kernels at real nets' shapes on one core, against the multiply-add peak found in the same run.
//!
//! Rates count the operations of the definition, so minimal filtering and sparse gradients can exceed the peak. Depthwise
//! layers, which compute little with what they move, are also given in GB/s of what they must read and write, beside
//! what `y = factor * x` reaches over as many bytes. Lines of `int8` are 8-bit inference from bytes to bytes, against the peak of
//! products of bytes. As many samples as the engine would group are computed at a time.
//!
//! `cargo bench -p ocellus-kernels --bench conv_lab -- [PART...]` shows the lines that contain every part, as in
//! `-- resnet50 1x1 weights`; `--bf16` times that precision; `OCELLUS_ISA` chooses the instruction set.
#![allow(clippy::print_stdout, reason = "a lab prints its table")]

mod lab;

use lab::noise;
use ocellus_kernels::conv::*;
use ocellus_kernels::quantize::Encoding;
use ocellus_kernels::{Buffer, Level, Packing, Pool, Precision, peak};
use std::time::{Duration, Instant};

/// Bytes of input and output that are worked on at a time, where a sample has less.
const GROUP_BYTES: usize = 768 * 1024;

/// The best of several timings, each of enough repetitions to be measured, in seconds for one call.
fn time(mut f: impl FnMut()) -> f64 {
    f();
    let start = Instant::now();
    f();
    let once = start.elapsed().as_secs_f64().max(1e-7);
    let repeats = (0.0004 / once).ceil() as usize;
    let mut best = f64::MAX;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(60) {
        let start = Instant::now();
        (0..repeats).for_each(|_| f());
        best = best.min(start.elapsed().as_secs_f64() / repeats as f64);
    }
    best
}

struct Lab {
    level: Level,
    precision: Precision,
    /// What the names of the lines shown contain.
    parts: Vec<String>,
    /// Operations per second of multiply-adds in registers, and of products of bytes.
    peak: f64,
    byte_peak: f64,
}

/// One layer on its way through the lab.
struct Layer<'a> {
    name: &'a str,
    /// Samples that are computed at a time.
    samples: usize,
    /// Operations per sample.
    flops: u64,
    /// Bytes that a depthwise layer must move for a sample, and the speed of memory over that many.
    bytes: Option<(usize, f64)>,
}

impl Lab {
    fn wants(&self, name: &str, what: &str) -> bool {
        let line = format!("{name} {what}");
        self.parts.iter().all(|part| line.contains(part.as_str()))
    }

    /// Times one operation of a layer, if its line is wanted.
    fn line(&self, layer: &Layer, what: &str, run: impl FnMut()) {
        if !self.wants(layer.name, what) {
            return;
        }
        let seconds = time(run) / layer.samples as f64;
        let rate = layer.flops as f64 / seconds;
        let peak = if what == "int8" { self.byte_peak } else { self.peak };
        let percent = 100.0 * rate / peak;
        print!(
            "{:<32} {what:<16} {:>9.2} us/image {:>6.1} GFLOP/s {percent:>6.1}%",
            layer.name,
            seconds * 1e6,
            rate * 1e-9
        );
        match layer.bytes {
            Some((bytes, speed)) => {
                let rate = bytes as f64 / seconds * 1e-9;
                println!("  {rate:>5.1} GB/s {:>4.0}%", 100.0 * rate / speed);
            }
            None => println!(),
        }
    }

    /// Times the packing of weights.
    fn pack_line(&self, name: &str, what: &str, run: impl FnMut()) {
        if self.wants(name, what) {
            println!("{name:<32} {what:<16} {:>9.2} us", time(run) * 1e6);
        }
    }

    fn quantized(&self, layer: &Layer, shape: PooledShape) {
        let conv = shape.conv;
        if conv.groups > 1 || !["int8", "int8 pack"].iter().any(|what| self.wants(layer.name, what)) {
            return;
        }
        let (samples, channels) = (layer.samples, conv.input[2]);
        let kernel = QuantizedForward::new(shape, &vec![0.01; channels], &vec![0.0; channels], self.level);
        let (w, bias) = (noise(3, conv.weights_len()), noise(4, conv.filters));
        let x: Vec<u8> = (0..samples * conv.input_len()).map(|i| (i * 37 % 251) as u8).collect();
        let mut y = vec![0u8; samples * shape.output_len()];
        let (mut packed, mut scratch) = (Buffer::new(kernel.packed_len()), Buffer::new(kernel.scratch_len(samples)));
        let mut pool = Pool::new(1);
        kernel.pack(&mut pool, w.f32(), packed.f32_mut());
        self.pack_line(layer.name, "int8 pack", || kernel.pack(&mut pool, w.f32(), packed.f32_mut()));
        self.line(layer, "int8", || {
            let y = Destination::Bytes(Encoding { scale: 0.05, zero_point: 0 }, &mut y);
            let (packed, bias) = (packed.f32(), Some(bias.f32()));
            kernel.run(samples, &x, packed, bias, None, Epilogue::Relu, y, scratch.f32_mut());
        });
    }

    fn plain(&self, name: &str, shape: ConvShape) {
        let bytes = 4 * (shape.input_len() + shape.output_len());
        let layer = Layer { name, samples: (GROUP_BYTES / bytes).clamp(1, 8), flops: shape.flops(), bytes: None };
        self.quantized(&layer, PooledShape { conv: shape, pool: [1, 1] });
        let ways = ["pack", "pack transposed", "forward", "data", "weights", "accumulated"];
        if !ways.iter().any(|what| self.wants(name, what)) {
            return;
        }
        let bytes = 4 * (shape.input_len() + shape.output_len());
        let samples = (GROUP_BYTES / bytes).clamp(1, 8);
        let depthwise = shape.groups > 1;
        let bytes = depthwise.then(|| (bytes, peak::memory_gbs(self.level, samples * bytes, 20)));
        let layer = Layer { name, samples, flops: shape.flops(), bytes };
        let (forward, data) =
            (Forward::new(shape, self.level, self.precision), BackwardData::new(shape, self.level, self.precision));
        let weights = BackwardWeights::new(shape, self.level, self.precision);
        let x = noise(1, samples * shape.input_len());
        let dy = noise(2, samples * shape.output_len());
        let w = noise(3, shape.weights_len());
        let bias = noise(4, shape.filters);
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let mut packed = Buffer::new(forward.packed_len().max(data.packed_len()));
        let scratch = forward.scratch_len(samples).max(data.scratch_len(samples)).max(weights.scratch_len(samples));
        let mut scratch = Buffer::new(scratch);
        let epilogue = if depthwise { Epilogue::Relu6 } else { Epilogue::Relu };

        let mut pool = Pool::new(1);
        let packed_forward = &mut packed.f32_mut()[..forward.packed_len()];
        forward.pack(&mut pool, w.f32(), packed_forward);
        self.pack_line(name, "pack", || forward.pack(&mut pool, w.f32(), packed_forward));
        self.line(&layer, "forward", || {
            let scratch = scratch.f32_mut();
            let weights = ConvWeights { packed: packed_forward, bias: Some(bias.f32()), epilogue };
            forward.run(Extent::Samples(samples), x.f32(), weights, Sums::New(y.f32_mut().into()), scratch);
        });
        let packed_data = &mut packed.f32_mut()[..data.packed_len()];
        data.pack(&mut pool, w.f32(), packed_data);
        self.pack_line(name, "pack transposed", || data.pack(&mut pool, w.f32(), packed_data));
        self.line(&layer, "data", || data.run(samples, dy.f32(), packed_data, dx.f32_mut().into(), scratch.f32_mut()));
        for (what, accumulate) in [("weights", false), ("accumulated", true)] {
            self.line(&layer, what, || {
                weights.run(samples, x.f32(), dy.f32(), dw.f32_mut(), accumulate, scratch.f32_mut())
            });
        }
    }

    fn pooled(&self, name: &str, conv: ConvShape, pool: [usize; 2]) {
        let shape = PooledShape { conv, pool };
        // Pixels that no window covers are never computed.
        let [pixels, all] = [shape.output(), conv.output()].map(|[height, width, _]| (height * width) as u64);
        let flops = conv.flops() * pixels * (pool[0] * pool[1]) as u64 / all;
        let layer = Layer { name, samples: 8, flops, bytes: None };
        self.quantized(&layer, shape);
        if ["pooled", "relu", "pack", "data", "weights"].iter().all(|what| !self.wants(name, what)) {
            return;
        }
        let samples = layer.samples;
        let (forward, data) = (
            PooledForward::new(shape, self.level, self.precision),
            PooledBackwardData::new(shape, self.level, self.precision),
        );
        let weights = PooledBackwardWeights::new(shape, self.level, self.precision);
        let x = noise(1, samples * conv.input_len());
        let dy = noise(2, samples * shape.output_len());
        let w = noise(3, conv.weights_len());
        let bias = noise(4, conv.filters);
        let (mut y, mut dx, mut dw, mut db) = (dy.clone(), x.clone(), w.clone(), bias.clone());
        let mut argmax = vec![0; dy.len()];
        let mut packed = Buffer::new(forward.packed_len().max(data.packed_len()));
        let scratch = forward.scratch_len(samples).max(data.scratch_len(samples)).max(weights.scratch_len(samples));
        let mut scratch = Buffer::new(scratch);

        let mut pool = Pool::new(1);
        let packed_forward = &mut packed.f32_mut()[..forward.packed_len()];
        forward.pack(&mut pool, w.f32(), packed_forward);
        // The gradients below need the maxima's positions, whether or not this line is wanted.
        for (what, relu) in [("pooled, relu", true), ("pooled", false)] {
            let mut run = || {
                let (bias, scratch) = (Some(bias.f32()), scratch.f32_mut());
                forward.run(samples, x.f32(), packed_forward, bias, relu, y.f32_mut(), &mut argmax, scratch);
            };
            run();
            self.line(&layer, what, run);
        }

        let packed_data = &mut packed.f32_mut()[..data.packed_len()];
        data.pack(&mut pool, w.f32(), packed_data);
        self.pack_line(name, "pack for data", || data.pack(&mut pool, w.f32(), packed_data));
        // The rate counts the operations of the dense gradient; what exceeds 100% is what the zeros save.
        for (closed, which) in [(0, ""), (50, ", half closed")] {
            if closed > 0 {
                let random = noise(7, argmax.len());
                let closing = random.f32().iter().map(|r| *r < closed as f32 / 50.0 - 1.0);
                argmax.iter_mut().zip(closing).filter(|(_, closed)| *closed).for_each(|(a, _)| *a = CLOSED);
            }
            self.line(&layer, &format!("data{which}"), || {
                data.run(samples, dy.f32(), &argmax, packed_data, dx.f32_mut(), scratch.f32_mut());
            });
            self.line(&layer, &format!("weights{which}"), || {
                let (dw, db, scratch) = (dw.f32_mut(), db.f32_mut(), scratch.f32_mut());
                weights.run(samples, x.f32(), dy.f32(), &argmax, dw, db, true, scratch);
            });
        }
    }
}

/// A square kernel on a square image, with `same` padding as PyTorch's nets have it.
const fn conv(size: usize, channels: usize, filters: usize, kernel: usize, stride: usize) -> ConvShape {
    ConvShape {
        input: [size, size, channels],
        filters,
        kernel: [kernel, kernel],
        strides: [stride, stride],
        padding: [(kernel - 1) / 2; 4],
        dilation: [1, 1],
        groups: 1,
    }
}

const fn valid(size: usize, channels: usize, filters: usize, kernel: usize) -> ConvShape {
    ConvShape { padding: [0; 4], ..conv(size, channels, filters, kernel, 1) }
}

const fn depthwise(size: usize, channels: usize, stride: usize) -> ConvShape {
    ConvShape { groups: channels, ..conv(size, channels, channels, 3, stride) }
}

const fn dense(inputs: usize, units: usize) -> ConvShape {
    conv(1, inputs, units, 1, 1)
}

/// Layers with a pool behind them.
const POOLED: &[(&str, ConvShape, [usize; 2])] = &[
    ("cnn", valid(28, 1, 32, 3), [2, 2]),
    ("cnn", valid(13, 32, 64, 3), [2, 2]),
    ("vgg", conv(32, 3, 64, 3, 1), [2, 2]),
];

/// Every other layer of the nets that the measurements are about.
const LAYERS: &[(&str, &[ConvShape])] = &[
    ("cnn", &[dense(1600, 64), dense(64, 10)]),
    (
        "resnet20",
        &[
            conv(32, 3, 16, 3, 1),
            conv(32, 16, 16, 3, 1),
            conv(32, 16, 32, 3, 2),
            conv(32, 16, 32, 1, 2),
            conv(16, 32, 32, 3, 1),
            conv(16, 32, 64, 3, 2),
            conv(16, 32, 64, 1, 2),
            conv(8, 64, 64, 3, 1),
            dense(64, 10),
        ],
    ),
    (
        "resnet18-cifar",
        &[
            conv(32, 3, 64, 3, 1),
            conv(32, 64, 64, 3, 1),
            conv(32, 64, 128, 3, 2),
            conv(32, 64, 128, 1, 2),
            conv(16, 128, 128, 3, 1),
            conv(16, 128, 256, 3, 2),
            conv(16, 128, 256, 1, 2),
            conv(8, 256, 256, 3, 1),
            conv(8, 256, 512, 3, 2),
            conv(8, 256, 512, 1, 2),
            conv(4, 512, 512, 3, 1),
            dense(512, 10),
        ],
    ),
    (
        "resnet18-imagenet",
        &[
            conv(224, 3, 64, 7, 2),
            conv(56, 64, 64, 3, 1),
            conv(56, 64, 128, 3, 2),
            conv(56, 64, 128, 1, 2),
            conv(28, 128, 128, 3, 1),
            conv(28, 128, 256, 3, 2),
            conv(28, 128, 256, 1, 2),
            conv(14, 256, 256, 3, 1),
            conv(14, 256, 512, 3, 2),
            conv(14, 256, 512, 1, 2),
            conv(7, 512, 512, 3, 1),
            dense(512, 1000),
        ],
    ),
    (
        "resnet50",
        &[
            conv(224, 3, 64, 7, 2),
            conv(56, 64, 64, 1, 1),
            conv(56, 64, 64, 3, 1),
            conv(56, 64, 256, 1, 1),
            conv(56, 256, 64, 1, 1),
            conv(56, 256, 128, 1, 1),
            conv(56, 128, 128, 3, 2),
            conv(56, 256, 512, 1, 2),
            conv(28, 128, 512, 1, 1),
            conv(28, 512, 128, 1, 1),
            conv(28, 128, 128, 3, 1),
            conv(28, 512, 256, 1, 1),
            conv(28, 256, 256, 3, 2),
            conv(28, 512, 1024, 1, 2),
            conv(14, 256, 1024, 1, 1),
            conv(14, 1024, 256, 1, 1),
            conv(14, 256, 256, 3, 1),
            conv(14, 1024, 512, 1, 1),
            conv(14, 512, 512, 3, 2),
            conv(14, 1024, 2048, 1, 2),
            conv(7, 512, 2048, 1, 1),
            conv(7, 2048, 512, 1, 1),
            conv(7, 512, 512, 3, 1),
            dense(2048, 1000),
        ],
    ),
    (
        "mobilenet",
        &[
            conv(224, 3, 32, 3, 2),
            depthwise(112, 32, 1),
            conv(112, 32, 16, 1, 1),
            conv(112, 16, 96, 1, 1),
            depthwise(112, 96, 2),
            conv(56, 96, 24, 1, 1),
            conv(56, 24, 144, 1, 1),
            depthwise(56, 144, 1),
            conv(56, 144, 24, 1, 1),
            depthwise(56, 144, 2),
            conv(28, 144, 32, 1, 1),
            conv(28, 32, 192, 1, 1),
            depthwise(28, 192, 1),
            conv(28, 192, 32, 1, 1),
            depthwise(28, 192, 2),
            conv(14, 192, 64, 1, 1),
            conv(14, 64, 384, 1, 1),
            depthwise(14, 384, 1),
            conv(14, 384, 64, 1, 1),
            conv(14, 384, 96, 1, 1),
            conv(14, 96, 576, 1, 1),
            depthwise(14, 576, 1),
            conv(14, 576, 96, 1, 1),
            depthwise(14, 576, 2),
            conv(7, 576, 160, 1, 1),
            conv(7, 160, 960, 1, 1),
            depthwise(7, 960, 1),
            conv(7, 960, 160, 1, 1),
            conv(7, 960, 320, 1, 1),
            conv(7, 320, 1280, 1, 1),
            dense(1280, 1000),
        ],
    ),
];

fn layer_name(net: &str, shape: &ConvShape) -> String {
    let ([height, width, channels], filters) = (shape.input, shape.filters);
    let kernel = format!("{}x{}", shape.kernel[0], shape.kernel[1]);
    let stride = if shape.strides == [1, 1] { String::new() } else { format!("/{}", shape.strides[0]) };
    if [height, width] == [1, 1] {
        format!("{net} dense {channels}-{filters}")
    } else if shape.groups > 1 {
        format!("{net} depthwise {height}x{width}x{channels}{stride}")
    } else {
        format!("{net} {kernel}{stride} {height}x{width}x{channels}-{filters}")
    }
}

fn main() {
    if !lab::measures() {
        return;
    }
    let level = lab::level();
    let peak = peak::fma_gflops(level, 20) * 1e9;
    let byte_peak = peak::vnni_gops(level, 20) * 1e9;
    let bf16 = std::env::args().any(|argument| argument == "--bf16");
    let precision = if bf16 { Precision::Bf16 } else { Precision::F32 };
    let shown = [peak, byte_peak].map(|peak| peak * 1e-9);
    println!(
        "{level:?}, {precision}, one thread, multiply-add peak {:.1} GFLOP/s, of bytes {:.1} GOP/s",
        shown[0], shown[1]
    );
    let parts = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let lab = Lab { level, precision, parts, peak, byte_peak };
    for &(net, shape, pool) in POOLED {
        lab.pooled(&format!("{} pool", layer_name(net, &shape)), shape, pool);
    }
    for &(net, shapes) in LAYERS {
        for shape in shapes {
            lab.plain(&layer_name(net, shape), *shape);
        }
    }
}
