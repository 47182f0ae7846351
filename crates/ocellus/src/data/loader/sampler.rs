//! `Sampler`: which samples an epoch shows, and in which order.

use std::sync::Arc;

use crate::data::DataError;
use crate::random::{Purpose, Random};

/// Which samples an epoch shows. An epoch has as many samples as the data, whatever the sampler, and depends on seed and epoch
/// alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Sampler {
    /// Each sample once.
    #[default]
    Uniform,
    /// Each class equally often: samples of a small class come several times, those of a large one in turn over epochs.
    Balanced,
    /// Each sample as often as its weight says, drawn anew for each place.
    Weighted(Arc<[f32]>),
}

impl Sampler {
    /// Whether it suits so many samples.
    pub(crate) fn check(&self, samples: usize) -> Result<(), DataError> {
        let Self::Weighted(weights) = self else { return Ok(()) };
        if weights.len() != samples {
            let weights = weights.len();
            return Err(DataError::Argument(format!("{weights} weights for {samples} samples; expected one for each")));
        }
        let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        if weights.iter().any(|weight| !(weight.is_finite() && *weight >= 0.0)) || sum <= 0.0 {
            return Err(DataError::Argument("weights of samples: expected finite numbers from 0, not all 0".into()));
        }
        Ok(())
    }

    /// Fill `order` with the samples of an epoch, whose classes `labels` are. Without `shuffle` they are in the order of the data.
    pub(crate) fn fill(&self, order: &mut Vec<u32>, labels: &[u32], shuffle: bool, seed: u64, epoch: u64) {
        order.clear();
        let count = labels.len() as u32;
        match self {
            Self::Uniform => order.extend(0..count),
            Self::Balanced => balanced(order, labels, seed, epoch),
            Self::Weighted(weights) => weighted(order, weights, seed, epoch),
        }
        if shuffle {
            Random::new(seed, Purpose::Shuffle, epoch, 0).shuffle(order);
        } else if *self != Self::Uniform {
            order.sort_unstable();
        }
    }
}

/// Equally many of each class that has samples. A class is gone through in an order of its own, on from where the last
/// epoch ended, so that all its samples are seen equally often.
fn balanced(order: &mut Vec<u32>, labels: &[u32], seed: u64, epoch: u64) {
    let mut members = vec![Vec::new(); labels.iter().max().map_or(0, |&last| last as usize + 1)];
    for (index, &label) in labels.iter().enumerate() {
        members[label as usize].push(index as u32);
    }
    let classes = members.iter().filter(|members| !members.is_empty()).count();
    let (even, uneven) = (labels.len() / classes.max(1), labels.len() % classes.max(1));
    let filled = members.iter_mut().enumerate().filter(|(_, members)| !members.is_empty());
    for (rank, (label, members)) in filled.enumerate() {
        // What does not divide evenly goes to other classes in each epoch: to those that stand before `uneven` when all have
        // moved on by one for each epoch.
        let epoch = epoch as usize;
        let (cycles, moved) = (epoch / classes, rank + epoch % classes);
        let extra = usize::from(moved % classes < uneven);
        let extra_before = moved.min(uneven).saturating_sub(rank) + moved.min(classes + uneven).saturating_sub(classes);
        let first = epoch.wrapping_mul(even).wrapping_add(cycles.wrapping_mul(uneven) + extra_before);
        let share = even + extra;
        let mut round = None;
        for place in first..first.wrapping_add(share) {
            let now = place / members.len();
            if round != Some(now) {
                round = Some(now);
                members.sort_unstable();
                Random::new(seed, Purpose::Shuffle, now as u64, 1 + label as u64).shuffle(members);
            }
            order.push(members[place % members.len()]);
        }
    }
}

/// Drawn by weight, with replacement.
fn weighted(order: &mut Vec<u32>, weights: &[f32], seed: u64, epoch: u64) {
    let mut sum = 0.0;
    let sums: Vec<f64> = weights
        .iter()
        .map(|&weight| {
            sum += f64::from(weight);
            sum
        })
        .collect();
    let mut random = Random::new(seed, Purpose::Shuffle, epoch, u64::MAX);
    let last = weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0);
    for _ in weights {
        let at = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * sum;
        order.push(sums.partition_point(|&sum| sum <= at).min(last) as u32);
    }
}
