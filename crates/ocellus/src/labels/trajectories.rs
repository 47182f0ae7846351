//! `Trajectories`: how well each sample was known in each epoch of a training.

use crate::losses::Loss;

/// Samples times epochs that are kept; of longer trainings every second epoch is, every third and so on.
const MOST_VALUES: u64 = 1 << 25;

/// Logarithms of probabilities are not smaller than this.
const LEAST_LOG: f32 = -30.0;

/// What training saw of each sample, epoch by epoch, as it was trained: before its weights were changed by it.
///
/// The *margin* is how much larger the logarithm of the label's probability is than that of the most probable other class:
/// above 0 where the sample was recognised. For a softmax this is the margin of its inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trajectories {
    pub(super) samples: usize,
    pub(super) labels: Vec<u32>,
    pub(super) epochs: Vec<u64>,
    /// (epoch, sample); NaN for a sample that an epoch had not come to when it was ended.
    pub(super) margins: Vec<f32>,
    pub(super) losses: Vec<f32>,
    /// The most probable class but the label.
    pub(super) rivals: Vec<u16>,
    pub(super) every: u64,
    /// Whether outputs are not probabilities but what softmax or sigmoid is taken of.
    pub(super) logits: bool,
    pub(super) keeping: bool,
}

impl Trajectories {
    /// Room for a training of so many samples and epochs.
    pub(crate) fn new(samples: usize, epochs: u64, loss: &Loss) -> Self {
        let every = (samples as u64).saturating_mul(epochs).div_ceil(MOST_VALUES).max(1);
        let logits = matches!(
            loss,
            Loss::CategoricalCrossEntropy { from_logits: true, .. }
                | Loss::SparseCategoricalCrossEntropy { from_logits: true }
                | Loss::BinaryCrossEntropy { from_logits: true, .. }
        );
        Self { samples, labels: vec![u32::MAX; samples], every, logits, ..Self::default() }
    }

    /// Goes on with what an earlier part of the same training kept.
    pub(crate) fn resume(&mut self, earlier: Self) {
        *self = Self { every: self.every, logits: self.logits, ..earlier };
    }

    /// Makes room for an epoch's values, where it is one that is kept.
    pub(crate) fn begin_epoch(&mut self, epoch: u64) {
        self.keeping = epoch.is_multiple_of(self.every);
        if self.keeping {
            self.epochs.push(epoch);
            let length = self.epochs.len() * self.samples;
            self.margins.resize(length, f32::NAN);
            self.losses.resize(length, f32::NAN);
            self.rivals.resize(length, 0);
        }
    }

    /// Keeps what a step saw of its samples: `outputs` are (sample, class).
    pub(crate) fn record(&mut self, indices: &[u32], labels: &[u32], outputs: &[f32]) {
        let (Some(start), false) = (self.margins.len().checked_sub(self.samples), labels.is_empty()) else { return };
        if !self.keeping {
            return;
        }
        let width = outputs.len() / labels.len();
        for ((&index, &label), row) in indices.iter().zip(labels).zip(outputs.chunks_exact(width)) {
            let seen = if width == 1 { self.of_one(row[0], label) } else { self.of_many(row, label as usize) };
            let at = start + index as usize;
            (self.margins[at], self.losses[at], self.rivals[at]) = seen;
            self.labels[index as usize] = label;
        }
    }

    /// Margin, loss and rival of a row of outputs.
    fn of_many(&self, row: &[f32], label: usize) -> (f32, f32, u16) {
        let (mut rival, mut most) = (0, f32::NEG_INFINITY);
        for (class, &value) in row.iter().enumerate() {
            if class != label && value > most {
                (rival, most) = (class, value);
            }
        }
        let own = row[label];
        let rival = u16::try_from(rival).unwrap_or(u16::MAX);
        if self.logits {
            let largest = own.max(most);
            let sum: f32 = row.iter().map(|&value| (value - largest).exp()).sum();
            return (own - most, largest + sum.ln() - own, rival);
        }
        let [own, most] = [own, most].map(|probability| probability.ln().max(LEAST_LOG));
        (own - most, -own, rival)
    }

    /// The same of a single output, the probability of class 1.
    fn of_one(&self, output: f32, label: u32) -> (f32, f32, u16) {
        let logit = if self.logits { output } else { (output.ln() - (1.0 - output).ln()).clamp(LEAST_LOG, -LEAST_LOG) };
        let margin = if label == 1 { logit } else { -logit };
        (margin, (-margin).exp().ln_1p(), u16::from(label == 0))
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// The epochs that were kept.
    #[must_use]
    pub fn epochs(&self) -> &[u64] {
        &self.epochs
    }

    /// Class of each sample.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Margins of a sample, epoch by epoch; NaN where an epoch did not come to it.
    ///
    /// # Panics
    /// There is no such sample.
    pub fn margins(&self, sample: usize) -> impl Iterator<Item = f32> {
        assert!(sample < self.samples, "sample {sample} of {}", self.samples);
        self.margins.iter().skip(sample).step_by(self.samples).copied()
    }

    /// Losses of a sample, epoch by epoch; NaN where an epoch did not come to it.
    ///
    /// # Panics
    /// There is no such sample.
    pub fn losses(&self, sample: usize) -> impl Iterator<Item = f32> {
        assert!(sample < self.samples, "sample {sample} of {}", self.samples);
        self.losses.iter().skip(sample).step_by(self.samples).copied()
    }

    /// The most probable classes but the label, epoch by epoch.
    pub(super) fn rivals(&self, sample: usize) -> impl Iterator<Item = u16> {
        self.rivals.iter().skip(sample).step_by(self.samples).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(loss: Loss, label: u32, outputs: &[f32]) -> (f32, f32, u16) {
        let mut trajectories = Trajectories::new(2, 1, &loss);
        trajectories.begin_epoch(0);
        trajectories.record(&[1], &[label], outputs);
        assert!(trajectories.margins(0).all(f32::is_nan));
        let at = |values: &mut dyn Iterator<Item = f32>| values.next().unwrap();
        (at(&mut trajectories.margins(1)), at(&mut trajectories.losses(1)), trajectories.rivals[1])
    }

    #[test]
    fn margins_and_losses_are_those_of_the_outputs() {
        let softmax = [0.1f32, 0.7, 0.2];
        let logits = softmax.map(|p| p.ln() + 3.0);
        let close = |a: (f32, f32, u16), b: (f32, f32, u16)| {
            assert!((a.0 - b.0).abs() < 1e-4 && (a.1 - b.1).abs() < 1e-4 && a.2 == b.2, "{a:?} {b:?}");
        };
        for (label, margin, rival) in [(1, (0.7f32 / 0.2).ln(), 2), (0, (0.1f32 / 0.7).ln(), 1)] {
            let expected = (margin, -softmax[label as usize].ln(), rival);
            close(recorded(Loss::categorical_cross_entropy(), label, &softmax), expected);
            close(recorded(Loss::categorical_cross_entropy().from_logits(), label, &logits), expected);
        }
        for (label, own) in [(1, 0.8f32), (0, 0.2)] {
            let expected = ((own / (1.0 - own)).ln(), -own.ln(), 1 - label as u16);
            close(recorded(Loss::binary_cross_entropy(), label, &[0.8]), expected);
            close(recorded(Loss::binary_cross_entropy().from_logits(), label, &[4f32.ln()]), expected);
        }
        let (margin, loss, _) = recorded(Loss::categorical_cross_entropy(), 0, &[0.0, 1.0]);
        assert!(margin.is_finite() && loss.is_finite());
    }

    #[test]
    fn long_trainings_keep_fewer_epochs() {
        let mut trajectories = Trajectories::new(1 << 20, 64, &Loss::categorical_cross_entropy());
        trajectories.samples = 1;
        (0..10).for_each(|epoch| trajectories.begin_epoch(epoch));
        assert_eq!(trajectories.epochs(), [0, 2, 4, 6, 8]);
    }
}
