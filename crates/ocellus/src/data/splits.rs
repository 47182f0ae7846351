//! `Splits`: all parts of a data set, seen alike.

use super::{DataError, Dataset};

/// The parts of a data set. Classes and preprocessing are made from the training data and used for all.
#[derive(Clone, Debug)]
pub struct Splits {
    /// What the model learns from.
    pub train: Dataset,
    /// What choices are made with.
    pub validation: Option<Dataset>,
    /// What the final figures come from.
    pub test: Option<Dataset>,
}

impl Splits {
    /// Where there is no test data, hold back `fraction` of the training data for it: the same share of every class,
    /// chosen by `seed`.
    ///
    /// # Errors
    /// `fraction` is not between 0 and 1.
    pub fn hold_back_test(mut self, fraction: f64, seed: u64) -> Result<Self, DataError> {
        if self.test.is_none() {
            let (train, test) = self.train.split_stratified(fraction, seed)?;
            (self.train, self.test) = (train, Some(test));
        }
        Ok(self)
    }

    /// Where there is no validation data, hold back `fraction` of the training data for it: the same share of every class,
    /// chosen by `seed`.
    ///
    /// # Errors
    /// `fraction` is not between 0 and 1.
    pub fn hold_back_validation(mut self, fraction: f64, seed: u64) -> Result<Self, DataError> {
        if self.validation.is_none() {
            let (train, validation) = self.train.split_stratified(fraction, seed)?;
            (self.train, self.validation) = (train, Some(validation));
        }
        Ok(self)
    }
}
