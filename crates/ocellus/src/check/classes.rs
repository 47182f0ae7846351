//! How samples are spread over classes and splits.

use super::Surroundings;
use super::defects::images;
use super::facts::Facts;
use super::report::{Finding, Kind, split_name};
use crate::data::Split;

/// The largest class has this many times the samples of the smallest.
const IMBALANCE: f64 = 10.0;
/// Training samples below which a class is small.
const FEW: usize = 10;
/// Share of samples that would have to change class for the splits to be alike, and the probability of so great a difference
/// by chance.
const DRIFT: f64 = 0.1;
const CHANCE: f64 = 1e-4;
/// The greatest distance between two splits' distributions of brightness, likewise.
const DISTANCE: f64 = 0.2;

pub(super) fn findings(about: &Surroundings<'_>, facts: &[Facts]) -> Vec<Finding> {
    let names = about.catalog.class_names();
    let counts = Split::ALL.map(|split| {
        let mut counts = vec![0usize; names.len()];
        for index in (0..facts.len()).filter(|&index| about.catalog.split(index) == split) {
            if let Some(count) = about.catalog.label(index).and_then(|label| counts.get_mut(label as usize)) {
                *count += 1;
            }
        }
        counts
    });
    let present = [0, 1, 2].map(|at| counts[at].iter().sum::<usize>() > 0);
    let mut findings: Vec<Finding> = splits_as_classes(names).into_iter().collect();
    if present[0] {
        findings.extend(balance(&counts[0], names));
    }
    for at in (1..3).filter(|&at| present[at]) {
        let name = split_name(Split::ALL[at]);
        let missing: Vec<usize> = (0..names.len()).filter(|&class| counts[at][class] == 0).collect();
        if !missing.is_empty() {
            let message = format!("the {name} split has no image of {}", named(&missing, names));
            findings.push(Finding::about_all(Kind::MissingClass, message));
        }
        if present[0] {
            findings.extend(drift(&counts[0], &counts[at], name, names));
            findings.extend(appearance(about, facts, Split::ALL[at]));
        }
    }
    findings
}

/// Whether folders that were to divide the data are taken for classes.
fn splits_as_classes(names: &[String]) -> Option<Finding> {
    let like = |known: &[&str]| names.iter().find(|name| known.contains(&name.to_ascii_lowercase().as_str()));
    let train = like(&["train", "training"])?;
    let other = like(&["test", "testing", "val", "valid", "validation"])?;
    let message = format!("`{train}` and `{other}` are taken for classes");
    Some(Finding::about_all(Kind::SplitsAsClasses, message))
}

/// Findings about the training samples of each class.
pub(super) fn balance(counts: &[usize], names: &[String]) -> Vec<Finding> {
    let of = |wanted: &dyn Fn(usize) -> bool| -> Vec<usize> {
        (0..counts.len()).filter(|&class| wanted(counts[class])).collect()
    };
    let mut findings = Vec::new();
    let absent = of(&|count| count == 0);
    if !absent.is_empty() {
        let message = format!("no training image of {}", named(&absent, names));
        findings.push(Finding::about_all(Kind::NoTraining, message));
    }
    let few = of(&|count| (1..FEW).contains(&count));
    if !few.is_empty() {
        let message = format!("fewer than {FEW} training images of {}", named(&few, names));
        findings.push(Finding::about_all(Kind::FewSamples, message));
    }
    let extreme = |order: fn(usize, usize) -> bool| {
        let some = (0..counts.len()).filter(|&class| counts[class] > 0);
        some.reduce(|best, class| if order(counts[class], counts[best]) { class } else { best })
    };
    if let (Some(least), Some(most)) = (extreme(|a, b| a < b), extreme(|a, b| a > b))
        && counts[most] as f64 >= IMBALANCE * counts[least] as f64
    {
        let ratio = counts[most] as f64 / counts[least] as f64;
        let (least_name, most_name) = (&names[least], &names[most]);
        let message = format!(
            "{} images of `{most_name}`, {} of `{least_name}`: {ratio:.0} times as many",
            counts[most], counts[least]
        );
        findings.push(Finding::about_all(Kind::Imbalance, message));
    }
    findings
}

/// Whether a split's classes have other shares than the training data's.
fn drift(train: &[usize], other: &[usize], split: &str, names: &[String]) -> Option<Finding> {
    let totals = [train, other].map(|counts| counts.iter().sum::<usize>() as f64);
    let shares = |class: usize| [train[class] as f64 / totals[0], other[class] as f64 / totals[1]];
    let differences = (0..names.len()).map(|class| (shares(class)[0] - shares(class)[1], class));
    let distance = differences.clone().map(|(difference, _)| difference.abs()).sum::<f64>() / 2.0;
    // Pearson's chi-square of the two rows of counts.
    let (mut statistic, mut degrees) = (0.0, -1.0f64);
    for class in 0..names.len() {
        let both = (train[class] + other[class]) as f64;
        if both > 0.0 {
            degrees += 1.0;
            for (count, total) in [train[class], other[class]].into_iter().zip(totals) {
                let expected = both * total / (totals[0] + totals[1]);
                statistic += (count as f64 - expected).powi(2) / expected;
            }
        }
    }
    if distance < DRIFT || degrees < 1.0 || chi_square_chance(statistic, degrees) > CHANCE {
        return None;
    }
    let (_, most) = differences.max_by(|a, b| a.0.abs().total_cmp(&b.0.abs()))?;
    let [before, after] = shares(most).map(|share| 100.0 * share);
    let message = format!(
        "{:.0}% of the {split} images would have to change class to match the training data: \
         `{}` makes up {before:.1}% of the training images and {after:.1}% of these",
        100.0 * distance,
        names[most]
    );
    Some(Finding::about_all(Kind::ClassDrift, message))
}

/// Whether a split's images are darker or brighter than the training data's (Kolmogorov and Smirnov's distance).
fn appearance(about: &Surroundings<'_>, facts: &[Facts], split: Split) -> Option<Finding> {
    let of = |split: Split| {
        let some = images(facts).filter(|&(index, _)| about.catalog.split(index) == split);
        let mut values: Vec<f32> = some.map(|(_, image)| image.brightness.mean).collect();
        values.sort_unstable_by(f32::total_cmp);
        values
    };
    let (train, other) = (of(Split::Train), of(split));
    let (sizes, mut distance) = ([train.len() as f64, other.len() as f64], 0.0f64);
    for &value in train.iter().chain(&other) {
        let below = [&train, &other].map(|values| values.partition_point(|&known| known <= value) as f64);
        distance = distance.max((below[0] / sizes[0] - below[1] / sizes[1]).abs());
    }
    let scaled = distance * (sizes[0] * sizes[1] / (sizes[0] + sizes[1])).sqrt();
    if distance < DISTANCE || 2.0 * (-2.0 * scaled * scaled).exp() > CHANCE {
        return None;
    }
    let middle = |values: &[f32]| values.get(values.len() / 2).copied().unwrap_or(0.0);
    let message = format!(
        "half of the {} images are darker than grey {:.0}, of the training images than grey {:.0} (of 255)",
        split_name(split),
        middle(&other),
        middle(&train)
    );
    Some(Finding::about_all(Kind::AppearanceDrift, message))
}

/// The chance of so great a chi-square, by Wilson and Hilferty's normal approximation.
fn chi_square_chance(statistic: f64, degrees: f64) -> f64 {
    let spread = 2.0 / (9.0 * degrees);
    let normal = ((statistic / degrees).cbrt() - (1.0 - spread)) / spread.sqrt();
    // The upper tail of a normal distribution, exact to a few percent where it is small.
    if normal < 0.0 { 1.0 } else { 0.5 * (-0.717 * normal - 0.416 * normal * normal).exp() }
}

/// Names of classes, the first few.
fn named(classes: &[usize], names: &[String]) -> String {
    let shown: Vec<String> = classes.iter().take(5).map(|&class| format!("`{}`", names[class])).collect();
    let more = if classes.len() > 5 { format!(" and {} more", classes.len() - 5) } else { String::new() };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class {class}")).collect()
    }

    #[test]
    fn small_absent_and_unequal_classes_are_named() {
        let kinds = |counts: &[usize]| -> Vec<Kind> {
            balance(counts, &names(counts.len())).iter().map(|finding| finding.kind).collect()
        };
        assert_eq!(kinds(&[50, 60]), []);
        assert_eq!(kinds(&[50, 500]), [Kind::Imbalance]);
        assert_eq!(kinds(&[50, 0]), [Kind::NoTraining]);
        assert_eq!(kinds(&[9, 20]), [Kind::FewSamples]);
        assert_eq!(kinds(&[0, 0]), [Kind::NoTraining]);
    }

    #[test]
    fn shares_that_differ_by_more_than_chance_are_a_drift() {
        let drifted = |train: &[usize], test: &[usize]| drift(train, test, "test", &names(train.len())).is_some();
        assert!(drifted(&[500, 500], &[300, 100]));
        assert!(!drifted(&[500, 500], &[210, 190]));
        assert!(!drifted(&[5, 5], &[3, 1]), "so few differ by chance");
        assert!(!drifted(&[10, 0], &[10, 0]));
    }

    #[test]
    fn the_chance_of_a_chi_square_is_about_right() {
        for (statistic, degrees, chance) in [(3.84, 1.0, 0.05), (15.09, 5.0, 0.01), (27.88, 9.0, 0.001)] {
            let found: f64 = chi_square_chance(statistic, degrees);
            assert!((found / chance).ln().abs() < 0.35, "{statistic} {degrees}: {found}");
        }
    }
}
