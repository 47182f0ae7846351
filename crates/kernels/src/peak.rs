//! What the processor could do at best: the yardstick of every benchmark.

use crate::Level;
use crate::isa::{Isa, Kernel};
use std::time::{Duration, Instant};

/// Floating-point operations per second that one thread reaches with fused multiply-add on registers alone, two for
/// each lane. Takes about 20 ms; measure it in the run whose results are compared with it.
pub fn multiply_add_peak(level: Level) -> f64 {
    let begin = Instant::now();
    let mut best = 0.0f64;
    while begin.elapsed() < Duration::from_millis(20) {
        let start = Instant::now();
        let operations = level.dispatch(MultiplyAdd { rounds: 20_000 });
        best = best.max(operations as f64 / start.elapsed().as_secs_f64());
    }
    best
}

/// Sums that do not wait for each other: enough of them to hide the latency of two pipes.
const SUMS: usize = 10;

struct MultiplyAdd {
    rounds: usize,
}

impl Kernel for MultiplyAdd {
    type Output = usize;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> usize {
        let factor = isa.splat(std::hint::black_box(0.999));
        let term = isa.splat(std::hint::black_box(0.001));
        let mut sums = [isa.zero(); SUMS];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = isa.mul_add(*sum, factor, term);
            }
        }
        let mut total = isa.zero();
        for sum in sums {
            total = isa.add(total, sum);
        }
        std::hint::black_box(isa.sum(total));
        self.rounds * SUMS * I::LANES * 2
    }
}
