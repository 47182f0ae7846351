//! Image classification: labelled images in; a trained, honestly evaluated, deployable classifier out.
//!
//! A program reads as it does in Keras:
//!
//! ```
//! use ocellus::data::{self, Split};
//! use ocellus::layers::{Activation, Conv2d, Dense, Flatten, MaxPooling2d};
//! use ocellus::losses::Loss;
//! use ocellus::metrics::Accuracy;
//! use ocellus::optimizers::Adam;
//! use ocellus::{FitOptions, Sequential};
//!
//! let train = data::builtin(Split::Train)?.take(320); // a part of Fashion-MNIST that the library carries
//! let mut model = Sequential::new([28, 28, 1])
//!     .add(Conv2d::new(8, 3).activation(Activation::Relu))
//!     .add(MaxPooling2d::new(2))
//!     .add(Flatten::new())
//!     .add(Dense::new(10).activation(Activation::Softmax))
//!     .build()?;
//! model.compile(Adam::new(), Loss::categorical_cross_entropy(), [Accuracy::new()])?;
//! let history = model.fit(&train, FitOptions::new().epochs(2).validation_split(0.1))?;
//! assert!(history.get("loss").unwrap()[1] < history.get("loss").unwrap()[0]);
//! let predictions = model.predict(&train.take(1))?;
//! println!("{}", model.class_names()[predictions.top(0, 1)[0].0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`data`] | [`Dataset`](data::Dataset): labelled images from folders and files, and how they are prepared |
//! | [`suggest`] | what to label next, and what it would bring |
//! | [`labels`] | which labels are likely wrong, and correcting them |
//! | [`check`] | what is damaged, doubled, leaked or odd in data |
//! | [`layers`], [`initializers`], [`regularizers`] | what models are made of |
//! | [`model`], [`models`] | [`Model`] and [`Sequential`]: build, train, evaluate, predict, save, load; whole models by name |
//! | [`losses`], [`optimizers`], [`schedules`] | how models are trained |
//! | [`metrics`], [`history`], [`callbacks`], [`report`] | what is measured, watched and shown |
//! | [`durable`], [`random`] | files that are never half-written, random numbers that can be reached again |
//!
//! Below it, `ocellus-engine` turns layers into plans and `ocellus-kernels` computes; above it, `ocellus-cli` is the command
//! line. The library prints nothing, unless [`FitOptions::verbose`] asks for progress on standard error.
#![forbid(unsafe_code)]

pub mod callbacks;
pub mod check;
pub mod data;
pub mod durable;
#[cfg(test)]
mod golden;
pub mod history;
pub mod initializers;
pub mod labels;
pub mod layers;
pub mod losses;
pub mod metrics;
pub mod model;
pub mod models;
pub mod optimizers;
pub mod random;
pub mod regularizers;
pub mod report;
pub mod schedules;
pub mod suggest;

pub use model::{FitOptions, Input, Model, Sequential};
pub use ocellus_engine::{Level, StepTime, peak};
