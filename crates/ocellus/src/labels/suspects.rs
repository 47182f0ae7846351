//! The likeliest label errors of a training, and how likely they are.

use super::SampleRecord;

/// A sample whose label may be wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// Its index among the training samples.
    pub sample: usize,
    /// The class that training took it for most, besides its label.
    pub suggested: u32,
    /// The mean of its margins: the lower, the likelier its label is wrong.
    pub margin: f32,
    /// How likely its label is wrong, 0 to 1, supposing that margins of right and of wrong labels are spread normally.
    pub confidence: f32,
}

/// All samples, the likeliest label errors first.
#[must_use]
pub fn suspects(record: &SampleRecord) -> Vec<Suspect> {
    let kept = &record.trajectories;
    let mut suspects: Vec<Suspect> = (0..kept.len()).filter_map(|sample| suspect(record, sample)).collect();
    suspects.sort_by(|a, b| a.margin.total_cmp(&b.margin).then(a.sample.cmp(&b.sample)));
    let mixture = Mixture::fit(&suspects.iter().map(|suspect| f64::from(suspect.margin)).collect::<Vec<_>>());
    // A lower margin never makes a label more likely right, whatever the tails of the two curves say.
    let mut least = 0.0f32;
    for suspect in suspects.iter_mut().rev() {
        least = least.max(mixture.chance_of_low(f64::from(suspect.margin)) as f32);
        suspect.confidence = least;
    }
    suspects
}

/// A sample that at least one epoch came to.
fn suspect(record: &SampleRecord, sample: usize) -> Option<Suspect> {
    let kept = &record.trajectories;
    let (mut sum, mut count) = (0.0f64, 0u32);
    let mut votes: Vec<(u16, f64)> = Vec::new();
    for (margin, rival) in kept.margins(sample).zip(kept.rivals(sample)).filter(|(margin, _)| margin.is_finite()) {
        sum += f64::from(margin);
        count += 1;
        // An epoch counts by how sure it was of another class.
        let vote = 1.0 + f64::from((-margin).max(0.0));
        match votes.iter_mut().find(|(class, _)| *class == rival) {
            Some(known) => known.1 += vote,
            None => votes.push((rival, vote)),
        }
    }
    let most = votes.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))?;
    let margin = (sum / f64::from(count)) as f32;
    Some(Suspect { sample, suggested: most.0.into(), margin, confidence: 0.0 })
}

/// Two normal distributions, the low one that of wrong labels.
struct Mixture {
    share: f64,
    low: (f64, f64),
    high: (f64, f64),
}

impl Mixture {
    /// Fitted by expectation and maximisation to numbers in order.
    fn fit(values: &[f64]) -> Self {
        let part = |values: &[f64]| {
            let count = values.len().max(1) as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            (mean, variance.sqrt().max(1e-3))
        };
        // To begin with, a twentieth is wrong.
        let cut = values.len().div_ceil(20).min(values.len());
        let (low, high) = (part(&values[..cut]), part(&values[cut..]));
        let mut mixture = Self { share: 0.05, low, high };
        if values.len() < 20 || high.0 <= low.0 {
            return Self { share: 0.0, ..mixture };
        }
        let widest = part(values).1;
        for _ in 0..60 {
            let (mut sums, mut others) = ([0.0; 3], [0.0; 3]);
            for &value in values {
                let chance = mixture.chance_of_low(value);
                for (sums, weight) in [(&mut sums, chance), (&mut others, 1.0 - chance)] {
                    sums[0] += weight;
                    sums[1] += weight * value;
                    sums[2] += weight * value * value;
                }
            }
            let moments = |[weight, sum, squares]: [f64; 3]| {
                let mean = sum / weight.max(1e-9);
                (mean, (squares / weight.max(1e-9) - mean * mean).max(0.0).sqrt().clamp(0.02 * widest, 4.0 * widest))
            };
            mixture = Self {
                // Were half of the labels wrong, nothing could be told.
                share: (sums[0] / values.len() as f64).clamp(1e-6, 0.5),
                low: moments(sums),
                high: moments(others),
            };
        }
        if mixture.high.0 <= mixture.low.0 { Self { share: 0.0, ..mixture } } else { mixture }
    }

    /// The chance that a number comes from the low one.
    fn chance_of_low(&self, value: f64) -> f64 {
        if self.share == 0.0 {
            return 0.0;
        }
        let log = |(mean, deviation): (f64, f64)| -0.5 * ((value - mean) / deviation).powi(2) - deviation.ln();
        let odds = (1.0 - self.share).ln() - self.share.ln() + log(self.high) - log(self.low);
        1.0 / (1.0 + odds.exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Trajectories;
    use crate::losses::Loss;
    use crate::random::{Purpose, Random};

    #[test]
    fn wrong_labels_come_first_with_the_right_class_and_a_sound_confidence() {
        let (samples, wrong) = (1000, 60);
        let mut trajectories = Trajectories::new(samples, 5, &Loss::categorical_cross_entropy().from_logits());
        for epoch in 0..5 {
            trajectories.begin_epoch(epoch);
            for sample in 0..samples as u32 {
                let mut random = Random::new(1, Purpose::Test, epoch, sample.into());
                let margin = if sample < wrong { -1.5 } else { 2.5 } + random.normal();
                // Class 2 is what a wrongly labelled sample shows.
                trajectories.record(&[sample], &[0], &[margin, -4.0, 0.0]);
            }
        }
        let names = (0..samples).map(|sample| sample.to_string()).collect();
        let class_names = ["a", "b", "c"].map(String::from).to_vec();
        let ranked = suspects(&SampleRecord { trajectories, names, class_names });
        assert_eq!(ranked.len(), samples);
        let first = &ranked[..wrong as usize];
        assert!(first.iter().filter(|suspect| suspect.sample < wrong as usize).count() >= 58);
        assert!(first.iter().all(|suspect| suspect.suggested == 2));
        let expected: f32 = ranked.iter().map(|suspect| suspect.confidence).sum();
        assert!((expected - wrong as f32).abs() < 6.0, "{expected}");
        assert!(ranked.is_sorted_by(|a, b| a.confidence >= b.confidence));
    }
}
