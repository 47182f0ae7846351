//! The first program of every tutorial: a small convolutional network learns to tell clothes apart.
//!
//! `cargo run --release --example quickstart`

use ocellus::data::{self, Split};
use ocellus::layers::{Activation, Conv2d, Dense, Flatten, MaxPooling2d};
use ocellus::losses::Loss;
use ocellus::metrics::Accuracy;
use ocellus::optimizers::Adam;
use ocellus::{FitOptions, Sequential};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 6,000 + 1,000 images of Fashion-MNIST that the library carries: 28x28 grey pixels, 10 classes.
    let train = data::builtin(Split::Train)?;
    let test = data::builtin(Split::Test)?;

    let mut model = Sequential::new([28, 28, 1])
        .add(Conv2d::new(32, 3).activation(Activation::Relu))
        .add(MaxPooling2d::new(2))
        .add(Conv2d::new(64, 3).activation(Activation::Relu))
        .add(MaxPooling2d::new(2))
        .add(Flatten::new())
        .add(Dense::new(64).activation(Activation::Relu))
        .add(Dense::new(10).activation(Activation::Softmax))
        .build()?;
    show(&model.summary());

    model.compile(Adam::new(), Loss::categorical_cross_entropy(), [Accuracy::new()])?;
    model.fit(&train, FitOptions::new().batch_size(32).epochs(10).verbose(1).validation_data(&test))?;

    let evaluation = model.evaluate(&test)?;
    show(&format!("Test loss: {:.4}\nTest accuracy: {:.4}\n", evaluation.loss, evaluation.accuracy));

    let predictions = model.predict(&test.take(1))?;
    let (class, probability) = predictions.top(0, 1)[0];
    show(&format!("The first image is: {} ({probability:.2})\n", model.class_names()[class]));
    Ok(())
}

#[allow(clippy::print_stdout, reason = "a program, not the library")]
fn show(text: &str) {
    print!("{text}");
}
