//! The weighted mean of a number, such as the loss over an epoch.

/// A running weighted mean, summed in f64.
///
/// ```
/// let mut loss = ocellus::metrics::Mean::new();
/// loss.update(0.5, 32.0); // a batch's mean loss and its number of samples
/// loss.update(0.8, 16.0);
/// assert!((loss.value() - 0.6).abs() < 1e-9);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mean {
    total: f64,
    weight: f64,
}

impl Mean {
    /// The mean of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in `value`, which counts as `weight` values. A weight of 0 leaves it out, even where it is NaN.
    pub fn update(&mut self, value: f64, weight: f64) {
        if weight != 0.0 {
            self.total += value * weight;
            self.weight += weight;
        }
    }

    /// The mean; 0 of nothing, NaN once a NaN was taken in.
    pub fn value(&self) -> f64 {
        super::ratio(self.total, self.weight)
    }

    /// The sum of the weights.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Forgets everything seen.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes in what `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.total += other.total;
        self.weight += other.weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighs_merges_and_resets() {
        let mut mean = Mean::new();
        assert_eq!(mean.value(), 0.0);
        mean.update(1.0, 1.0);
        mean.update(f64::NAN, 0.0);
        let mut other = Mean::new();
        other.update(4.0, 2.0);
        mean.merge(&other);
        assert_eq!((mean.value(), mean.weight()), (3.0, 3.0));
        mean.update(f64::NAN, 1.0);
        assert!(mean.value().is_nan());
        mean.reset();
        assert_eq!(mean, Mean::new());
    }
}
