//! Division of samples into parts: by class, by content, into folds; groups stay together.
//!
//! What decides where a sample goes is its content and the seed, not its place among the others. So the order of files does
//! not matter, and images that are added leave the others where they are, or, where each class's share is kept exactly, all but
//! a few.

use std::collections::HashMap;

use super::{DataError, Dataset};
use crate::random::{Purpose, Random};

/// A sample with what decides where it goes. Samples of a unit follow each other: those of a group, copies of one image, and
/// what hangs together by both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Keyed {
    /// A number from content and seed alone.
    key: u64,
    /// The first of the unit's samples.
    unit: u32,
    index: u32,
}

/// The group of a sample that has none.
const SINGLE: u32 = u32::MAX;

impl Dataset {
    /// Two parts with the same share of every class: the rest, and `fraction` of the samples, chosen by `seed`.
    ///
    /// Each class gives `fraction` of its samples, rounded, but at least one and never all where it has two or more; a class
    /// of one sample stays in the first part. Copies of an image stay together, as do samples of a
    /// [group](Dataset::groups), so that shares are not exact where there are such. Both parts keep the order of the
    /// samples. Where there are neither copies nor groups, a sample that is added to a class moves at most one other.
    ///
    /// # Errors
    /// `fraction` is not between 0 and 1, or an image can no longer be read.
    pub fn split_stratified(&self, fraction: f64, seed: u64) -> Result<(Self, Self), DataError> {
        check(fraction)?;
        let mut second = vec![false; self.len()];
        let keyed = self.keyed(seed)?;
        for units in self.units_of_classes(&keyed).iter().filter(|units| units.len() > 1) {
            let samples: usize = units.iter().map(|unit| unit.len()).sum();
            let wanted = ((samples as f64 * fraction).round() as usize).clamp(1, samples - 1);
            let mut taken = 0;
            let mut take = |unit: &[Keyed]| unit.iter().for_each(|sample| second[sample.index as usize] = true);
            // One unit at least stays.
            for unit in &units[..units.len() - 1] {
                if taken >= wanted {
                    break;
                }
                // Not one that leads further past the share than it was short of it.
                let after = taken + unit.len();
                if after.abs_diff(wanted) < wanted.abs_diff(taken) {
                    taken = after;
                    take(unit);
                }
            }
            if let Some(smallest) = units.iter().min_by_key(|unit| unit.len()).filter(|_| taken == 0) {
                take(smallest);
            }
        }
        Ok(self.divided(&second))
    }

    /// Two parts: the rest, and about `fraction` of the samples, those whose content hashes below it. Copies of an image and
    /// samples of a group stay together. A sample that neither has a group nor a copy in one never changes sides, whatever is added or removed; but
    /// shares of classes are only about `fraction`.
    ///
    /// # Errors
    /// `fraction` is not between 0 and 1, or an image can no longer be read.
    pub fn split_by_content(&self, fraction: f64, seed: u64) -> Result<(Self, Self), DataError> {
        check(fraction)?;
        let mut second = vec![false; self.len()];
        for sample in self.keyed(seed)? {
            second[sample.index as usize] = (sample.key as f64) < fraction * u64::MAX as f64;
        }
        Ok(self.divided(&second))
    }

    /// Fold `fold` (from 0) of `folds`: the samples of all others, and its own. Each sample is in one fold, and each fold has
    /// about the same share of every class; copies of an image and samples of a group stay together.
    ///
    /// # Errors
    /// There are not 2 or more folds, no such one, or an image can no longer be read.
    pub fn fold(&self, fold: usize, folds: usize, seed: u64) -> Result<(Self, Self), DataError> {
        if folds < 2 || fold >= folds {
            return Err(DataError::Argument(format!(
                "expected a fold from 0 and below {folds} folds, 2 or more, got {fold}"
            )));
        }
        let mut own = vec![false; self.len()];
        let mut sizes = vec![0usize; folds];
        let keyed = self.keyed(seed)?;
        for units in self.units_of_classes(&keyed) {
            let mut of_class = vec![0usize; folds];
            for unit in units {
                // Where the class has fewest yet, then all classes together.
                let least = (0..folds).min_by_key(|&at| (of_class[at], sizes[at])).unwrap_or(0);
                of_class[least] += unit.len();
                sizes[least] += unit.len();
                if least == fold {
                    unit.iter().for_each(|sample| own[sample.index as usize] = true);
                }
            }
        }
        Ok(self.divided(&own))
    }

    /// The samples that are not chosen, and those that are.
    fn divided(&self, second: &[bool]) -> (Self, Self) {
        let part = |wanted| self.subset((0..self.len()).filter(|&index| second[index] == wanted));
        (part(false), part(true))
    }

    /// For each class its units, in the order of their keys. A unit belongs to the class that most of it has.
    fn units_of_classes<'k>(&self, keyed: &'k [Keyed]) -> Vec<Vec<&'k [Keyed]>> {
        let mut classes = vec![Vec::new(); self.class_count()];
        let mut counts = vec![0u32; self.class_count()];
        for unit in keyed.chunk_by(|a, b| a.unit == b.unit) {
            let labels = unit.iter().map(|sample| self.label(sample.index as usize) as usize);
            labels.clone().for_each(|label| counts[label] += 1);
            let most = labels.clone().max_by_key(|&label| (counts[label], std::cmp::Reverse(label))).unwrap_or(0);
            labels.for_each(|label| counts[label] = 0);
            classes[most].push(unit);
        }
        classes
    }

    /// All samples in the order of their keys, unit by unit.
    fn keyed(&self, seed: u64) -> Result<Vec<Keyed>, DataError> {
        let contents = (0..self.len()).map(|index| self.content_hash(index)).collect::<Result<Vec<u64>, _>>()?;
        let units = self.units(&contents);
        // A unit is known by the least of its contents: another image seldom changes it.
        let mut least = contents.clone();
        for (&unit, &content) in units.iter().zip(&contents) {
            least[unit as usize] = content.min(least[unit as usize]);
        }
        let keyed = |(&unit, index)| {
            let key = Random::new(seed, Purpose::Split, 0, least[unit as usize]).next_u64();
            Keyed { key, unit, index }
        };
        let mut samples: Vec<Keyed> = units.iter().zip(0..).map(keyed).collect();
        samples.sort_unstable();
        Ok(samples)
    }

    /// For each sample the first that it must stay together with: by group, by content, and by what others have in common.
    fn units(&self, contents: &[u64]) -> Vec<u32> {
        let mut parents: Vec<u32> = (0..self.len() as u32).collect();
        let mut join = |a: u32, b: u32| {
            let [a, b] = [a, b].map(|sample| root(&mut parents, sample));
            parents[a.max(b) as usize] = a.min(b);
        };
        let mut of_content = HashMap::with_capacity(self.len());
        let mut of_group = HashMap::new();
        for (index, &content) in (0..).zip(contents) {
            join(index, *of_content.entry(content).or_insert(index));
            match self.groups().map_or(SINGLE, |groups| groups[index as usize]) {
                SINGLE => {}
                group => join(index, *of_group.entry(group).or_insert(index)),
            }
        }
        (0..self.len() as u32).map(|sample| root(&mut parents, sample)).collect()
    }
}

/// The first of those that are joined to a sample; the way there is made shorter.
fn root(parents: &mut [u32], mut sample: u32) -> u32 {
    while parents[sample as usize] != sample {
        parents[sample as usize] = parents[parents[sample as usize] as usize];
        sample = parents[sample as usize];
    }
    sample
}

fn check(fraction: f64) -> Result<(), DataError> {
    if fraction > 0.0 && fraction < 1.0 {
        return Ok(());
    }
    Err(DataError::Argument(format!("fraction of samples to split off: expected between 0 and 1, got {fraction}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` samples of three classes; image `i` shows the number `i + first`.
    fn numbered(count: usize, first: usize) -> Dataset {
        let pixels = (0..count).flat_map(|index| ((index + first) as u32).to_le_bytes()).collect();
        let labels = (0..count).map(|index| ((index + first) % 3) as u32).collect();
        Dataset::from_pixels(pixels, [1, 4, 1], labels, ["a", "b", "c"].map(String::from).to_vec()).unwrap()
    }

    /// The numbers that images show.
    fn numbers(data: &Dataset) -> Vec<u32> {
        let mut pixels = [0; 4];
        let number = |index| {
            data.copy_image(index, &mut pixels).unwrap();
            u32::from_le_bytes(pixels)
        };
        (0..data.len()).map(number).collect()
    }

    fn with_groups(data: Dataset, size: u32) -> Dataset {
        let groups = (0..data.len() as u32).map(|index| if index < 6 { u32::MAX } else { index / size }).collect();
        data.with_groups(Some(groups))
    }

    #[test]
    fn other_images_move_none_by_content_and_few_by_class() {
        let (few, many) = (numbered(300, 100), numbered(500, 0));
        let held = |data: &Dataset| numbers(&data.split_by_content(0.2, 7).unwrap().1);
        let inside = |all: Vec<u32>| all.into_iter().filter(|number| (100..400).contains(number)).collect::<Vec<_>>();
        assert_eq!(held(&few), inside(held(&many)));
        assert!((40..80).contains(&held(&few).len()), "{}", held(&few).len());

        let held = |data: &Dataset| numbers(&data.split_stratified(0.2, 7).unwrap().1);
        let (alone, among) = (held(&few), inside(held(&many)));
        assert_eq!(alone.len(), 60);
        let moved = alone.iter().filter(|number| !among.contains(number)).count();
        assert!(moved <= 20, "{moved} of 60 moved");
        // The order of samples does not matter.
        let mut backwards = held(&few.subset((0..300).rev()));
        backwards.reverse();
        assert_eq!(backwards, alone);
    }

    #[test]
    fn copies_stay_together() {
        let data = numbered(60, 0);
        // Most once or twice, one very often.
        let copies = data.subset((0..60).chain(0..40).chain([7; 30]));
        let splits = [copies.split_stratified(0.2, 1).unwrap(), copies.split_by_content(0.3, 1).unwrap()];
        for (at, (rest, held)) in (0..3).map(|fold| copies.fold(fold, 3, 1).unwrap()).chain(splits).enumerate() {
            let (rest, held) = (numbers(&rest), numbers(&held));
            assert_eq!(rest.len() + held.len(), 130);
            assert!(!held.is_empty() && held.iter().all(|number| !rest.contains(number)), "{at}: {held:?}");
        }
        // The share is near, whatever lies in crowds.
        let held = copies.split_stratified(0.2, 1).unwrap().1.samples_per_class();
        assert!(held.iter().all(|&count| (5..=14).contains(&count)), "{held:?}");
        // A class of one image, however often, is not divided; one with another image is.
        let one = data.subset([0, 0, 0, 1, 1, 4]);
        assert_eq!(one.split_stratified(0.4, 0).unwrap().1.samples_per_class(), [0, 1, 0]);
        // An image that two groups have joins them.
        let groups = (0..120).map(|index| index / 2).collect();
        let joined = data.subset((0..60).chain(1..60).chain([0])).with_groups(Some(groups));
        let (rest, held) = joined.split_by_content(0.5, 3).unwrap();
        assert!(rest.is_empty() || held.is_empty());
    }

    #[test]
    fn groups_stay_together() {
        for size in [2, 5, 40] {
            let data = with_groups(numbered(200, 0), size);
            let groups =
                |part: &Dataset| part.groups().unwrap().iter().copied().filter(|&g| g != u32::MAX).collect::<Vec<_>>();
            let folds = (0..4).map(|fold| data.fold(fold, 4, 3).unwrap());
            let splits = [data.split_stratified(0.25, 3).unwrap(), data.split_by_content(0.25, 3).unwrap()];
            for (rest, held) in folds.chain(splits) {
                assert_eq!(rest.len() + held.len(), 200);
                assert!(groups(&held).iter().all(|group| !groups(&rest).contains(group)), "groups of {size}");
            }
            let held = data.split_stratified(0.25, 3).unwrap().1.len();
            assert!(held.abs_diff(50) <= 3 * size as usize, "{held} of 200 in groups of {size}");
        }
    }

    #[test]
    fn each_sample_is_in_one_fold() {
        let data = numbered(103, 0);
        let mut all = Vec::new();
        for fold in 0..5 {
            let (rest, own) = data.fold(fold, 5, 9).unwrap();
            assert_eq!((rest.len() + own.len(), own.len().abs_diff(103 / 5) <= 1), (103, true), "{}", own.len());
            assert!(
                own.samples_per_class().iter().all(|&count| (6..=7).contains(&count)),
                "{:?}",
                own.samples_per_class()
            );
            all.extend(numbers(&own));
        }
        all.sort_unstable();
        assert_eq!(all, (0..103).collect::<Vec<_>>());
        for (fold, folds) in [(0, 1), (5, 5), (0, 0)] {
            assert!(data.fold(fold, folds, 0).is_err());
        }
    }
}
