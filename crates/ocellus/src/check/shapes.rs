//! Sizes, proportions and colour modes that stand out.

use std::collections::BTreeMap;

use super::defects::images;
use super::facts::{Facts, Image, Mode};
use super::report::{Finding, Kind};
use super::{Surroundings, list, list_odd};

/// An image stands out when its area is this many times that of half of the images, or this part of it; for proportions
/// the same.
const AREA: f32 = 16.0;
const PROPORTION: f32 = 2.5;

/// A colour mode is rare when this share of the images has it.
const RARE: f64 = 0.05;

pub(super) fn findings(about: &Surroundings<'_>, facts: &[Facts]) -> Vec<Finding> {
    let area = |image: &Image| (image.height as f32 * image.width as f32).log2();
    let proportion = |image: &Image| (image.width as f32 / image.height as f32).log2();
    let usual_area = median(images(facts).map(|(_, image)| area(image)));
    let usual_proportion = median(images(facts).map(|(_, image)| proportion(image)));
    let of = |wanted: &dyn Fn(&Image) -> bool| -> Vec<(usize, String)> {
        let odd = images(facts).filter(|(_, image)| wanted(image));
        odd.map(|(index, image)| (index, format!("{} x {}", image.width, image.height))).collect()
    };
    let sized = [
        (Kind::Small, of(&|image| area(image) < usual_area - AREA.log2())),
        (Kind::Large, of(&|image| area(image) > usual_area + AREA.log2())),
        (Kind::Elongated, of(&|image| (proportion(image) - usual_proportion).abs() > PROPORTION.log2())),
    ];
    let sized = sized.into_iter().filter_map(|(kind, samples)| list_odd(about, kind, samples));
    sized.chain(modes(about, facts)).collect()
}

fn modes(about: &Surroundings<'_>, facts: &[Facts]) -> Option<Finding> {
    let mut counts: BTreeMap<Mode, usize> = BTreeMap::new();
    for (_, image) in images(facts) {
        *counts.entry(image.mode).or_default() += 1;
    }
    let total: usize = counts.values().sum();
    if counts.len() < 2 {
        return None;
    }
    let rare = |mode| counts.get(&mode).is_some_and(|&count| count as f64 <= RARE * total as f64);
    let rare = images(facts).filter(|(_, image)| rare(image.mode));
    let rare: Vec<_> = rare.map(|(index, image)| (index, image.mode.name().to_owned())).collect();
    let told: Vec<String> = counts.iter().map(|(mode, count)| format!("{count} {}", mode.name())).collect();
    let mut finding =
        list(about, Kind::Colours, rare).unwrap_or_else(|| Finding::about_all(Kind::Colours, String::new()));
    finding.message = told.join(", ");
    Some(finding)
}

fn median(values: impl Iterator<Item = f32>) -> f32 {
    let mut values: Vec<f32> = values.collect();
    values.sort_unstable_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
