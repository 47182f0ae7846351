//! Measures the time from the program's start to the end of its first training step:
//! `cargo run --release -p ocellus --example first_step [DATA]`.

use ocellus::callbacks::{BatchEnd, Callback, CallbackResult, Control};
use ocellus::data::{Dataset, OpenOptions, Split, builtin};
use ocellus::losses::Loss;
use ocellus::metrics::Accuracy;
use ocellus::model::FitOptions;
use ocellus::optimizers::Adam;
use std::time::Instant;

/// Tells when the first step is done, and ends the training.
struct FirstStep(Instant);

impl Callback for FirstStep {
    fn on_batch_end(&mut self, batch: &BatchEnd<'_>, control: &mut Control<'_>) -> CallbackResult {
        if batch.step == 1 {
            eprintln!("first step done after {:.1?}", self.0.elapsed());
            control.stop();
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let train = match std::env::args().nth(1) {
        Some(data) => Dataset::open(&data, &OpenOptions::default())?,
        None => builtin(Split::Train)?,
    };
    eprintln!("data open after {:.1?}", start.elapsed());
    let recipe = ocellus::models::find("reference_cnn").ok_or("the reference net is known")?;
    let mut model = recipe.build(train.image_shape(), train.class_count())?;
    model.compile(Adam::new(), Loss::for_outputs(train.class_count()), [Accuracy::new()])?;
    model.fit(&train, FitOptions::new().callback(FirstStep(start)))?;
    Ok(())
}
