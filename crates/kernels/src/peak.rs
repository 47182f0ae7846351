//! What one core of this machine can do at most, measured: the denominator of "percent of peak".

use crate::isa::{Dot, DotKernel, Isa, Kernel, Level};
use std::time::{Duration, Instant};

/// Billions of multiplications and additions per second that one core does with all operands in registers, the best of
/// several runs within about `millis` milliseconds.
pub fn fma_gflops(level: Level, millis: u64) -> f64 {
    best(millis, || level.dispatch(Fma { rounds: 20_000 }))
}

struct Fma {
    rounds: usize,
}

/// Independent chains: latency times throughput of any current processor, and few enough for 16 registers.
const CHAINS: usize = 12;

impl Kernel for Fma {
    type Output = f64;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f64 {
        let (a, b) = (isa.splat(std::hint::black_box(0.999)), isa.splat(std::hint::black_box(0.001)));
        let mut chains = [isa.splat(std::hint::black_box(1.0)); CHAINS];
        for _ in 0..self.rounds {
            for chain in &mut chains {
                *chain = isa.mul_add(*chain, a, b);
            }
        }
        let mut sum = isa.zero();
        for chain in chains {
            sum = isa.add(sum, chain);
        }
        std::hint::black_box(isa.sum(sum));
        (self.rounds * CHAINS * I::LANES * 2) as f64
    }
}

/// As [`fma_gflops`], for products of bytes added up in 32 bits: the peak of 8-bit inference. Where the processor has VNNI,
/// that is four times the rate of single precision.
pub fn vnni_gops(level: Level, millis: u64) -> f64 {
    best(millis, || level.dots().dispatch(Dots { rounds: 20_000 }))
}

struct Dots {
    rounds: usize,
}

impl DotKernel for Dots {
    type Output = f64;
    #[inline(always)]
    fn run<D: Dot>(self, dot: D) -> f64 {
        let (bytes, weights) = (std::hint::black_box([3u8; 4]), std::hint::black_box([5i8; 4 * MOST_LANES]));
        // SAFETY: four bytes, and four for each lane of the widest level.
        let (quad, weights) = unsafe { (dot.quad(bytes.as_ptr()), dot.weights(weights.as_ptr())) };
        let mut chains = [dot.zero(); CHAINS];
        for _ in 0..self.rounds {
            for chain in &mut chains {
                *chain = dot.add_products(*chain, quad, weights);
            }
        }
        let most = chains.into_iter().reduce(|a, b| dot.max(a, b)).unwrap_or(dot.zero());
        std::hint::black_box(dot.isa().sum(dot.to_f32(most)));
        (self.rounds * CHAINS * D::Isa::LANES * 8) as f64
    }
}

/// Lanes of the widest level.
const MOST_LANES: usize = 16;

/// Billions of bytes per second that one core reads and writes in `y = factor * x` over arrays of `bytes` bytes in all;
/// small sizes measure a cache, large ones the memory.
pub fn memory_gbs(level: Level, bytes: usize, millis: u64) -> f64 {
    let len = (bytes / 8).max(1);
    let (x, mut y) = (crate::Buffer::new(len), crate::Buffer::new(len));
    best(millis, || {
        // Enough repetitions that the clock does not count.
        let repetitions = (1 << 20) / len + 1;
        for _ in 0..repetitions {
            crate::elementwise::scale(level, std::hint::black_box(2.0), x.f32(), y.f32_mut());
            std::hint::black_box(y.f32());
        }
        (repetitions * len * 8) as f64
    })
}

/// The most units per nanosecond that `run`, which returns the units it did, reaches in one call.
fn best(millis: u64, mut run: impl FnMut() -> f64) -> f64 {
    let until = Instant::now() + Duration::from_millis(millis);
    let mut best = 0.0f64;
    loop {
        let start = Instant::now();
        let units = run();
        best = best.max(units / start.elapsed().as_nanos().max(1) as f64);
        if Instant::now() >= until {
            return best;
        }
    }
}
