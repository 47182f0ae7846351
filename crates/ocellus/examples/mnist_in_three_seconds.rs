//! MNIST above 99.0% within three seconds of the program's start, on two cores: one epoch, in which the learning rate goes
//! up and down once, short memories in Adam, and smoothed labels.
//!
//! `cargo run --release -p ocellus --example mnist_in_three_seconds -- DATA [SEED]`, where DATA is the folder of the four
//! files. `docs/performance.md` has what it reached.

use ocellus::data::{Dataset, OpenOptions, Split};
use ocellus::layers::{Activation, Conv2d, Dense, Flatten, MaxPooling2d};
use ocellus::losses::Loss;
use ocellus::metrics::Accuracy;
use ocellus::optimizers::Adam;
use ocellus::schedules::Schedule;
use ocellus::{FitOptions, Sequential};
use std::time::Instant;

const BATCH_SIZE: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().ok_or("usage: mnist_in_three_seconds DATA [SEED]")?;
    let seed = arguments.next().map_or(Ok(0), |seed| seed.parse())?;
    let open = |split| Dataset::open(&data, &OpenOptions { split, ..OpenOptions::default() });
    let (train, test) = (open(Split::Train)?, open(Split::Test)?);

    let mut model = Sequential::new([28, 28, 1])
        .add(Conv2d::new(24, 5).activation(Activation::Relu))
        .add(MaxPooling2d::new(2))
        .add(Conv2d::new(32, 3).activation(Activation::Relu))
        .add(MaxPooling2d::new(2))
        .add(Flatten::new())
        .add(Dense::new(256).activation(Activation::Relu))
        .add(Dense::new(10).activation(Activation::Softmax))
        .build()?;
    model.initialize(seed);
    let once_up_and_down = Schedule::OneCycle {
        max_learning_rate: 5e-3,
        total_steps: train.len().div_ceil(BATCH_SIZE) as u64,
        pct_start: 0.2,
        div_factor: 10.0,
        final_div_factor: 1e3,
    };
    model.compile(
        Adam::new().learning_rate(once_up_and_down).beta_1(0.8).beta_2(0.95),
        Loss::categorical_cross_entropy().label_smoothing(0.05),
        [Accuracy::new()],
    )?;
    model.fit(&train, FitOptions::new().batch_size(BATCH_SIZE).epochs(1).seed(seed))?;
    let accuracy = model.evaluate(&test)?.accuracy;
    show(&format!("{:.2}% of {} test images after {:.2?}\n", 100.0 * accuracy, test.len(), start.elapsed()));
    Ok(())
}

#[allow(clippy::print_stdout, reason = "a program, not the library")]
fn show(text: &str) {
    print!("{text}");
}
