//! Which labels are likely wrong, by how training went, and what to do about it.
//!
//! A training that was asked to ([`FitOptions::record_samples`](crate::FitOptions)) keeps the [`Trajectories`] of its samples: loss and
//! margin in every epoch. Samples with a wrong label are learnt late or never, for their like pull the other way: the
//! mean of their margins is low (Pleiss and others: *Identifying mislabeled data using the area under the margin ranking*,
//! NeurIPS 2020). [`suspects`] ranks samples by it and says how likely each label is wrong. [`Corrections`] are what a person makes
//! of the list: samples to leave out or to give another label.

mod corrections;
mod file;
mod suspects;
mod trajectories;

pub use crate::check::csv_field;
pub use corrections::{Corrected, Corrections};
pub use file::{SampleRecord, SampleRecordError};
pub use suspects::{Suspect, suspects};
pub use trajectories::Trajectories;
