//! Copies of one image, exact and near: within a split they count double, across splits they leak, across classes they
//! contradict each other.

use std::collections::{BTreeMap, HashMap};

use super::alignment::Picture;
use super::facts::{Facts, thumbnail};
use super::index::{Pair, similar_pairs};
use super::perceptual::SIDE;
use super::report::{Finding, Kind, Mention};
use super::{Surroundings, in_parallel};

/// Pictures that are compared at once: their memory is bounded by it.
const AT_ONCE: usize = 1 << 16;

/// Samples of a group that are told.
const MOST_IN_GROUP: usize = 1000;

pub(super) fn findings(about: &Surroundings<'_>, facts: &[Facts]) -> Vec<Finding> {
    let exact = exact_groups(facts);
    let mut findings = Vec::new();
    for group in &exact {
        let same_file = group.windows(2).all(|pair| facts[pair[0]].stored == facts[pair[1]].stored);
        let evidence = if same_file { "the same bytes" } else { "the same pixels" };
        let mentions = |(at, &index): (usize, &usize)| {
            let evidence = if at == 0 { String::new() } else { format!("{evidence} as the first") };
            Mention::of(about.catalog, index, evidence)
        };
        let mentions: Vec<_> = group.iter().take(MOST_IN_GROUP).enumerate().map(mentions).collect();
        findings.extend(of_group(about, group, mentions, [Kind::Contradiction, Kind::Leak, Kind::Duplicates]));
    }
    let (copies, cut_short) = near_copies(about, facts, &exact);
    for group in near_groups(&copies) {
        let mentions = group.iter().take(MOST_IN_GROUP).map(|&(index, likest, correlation)| {
            let evidence = format!("correlation {correlation:.3} with {}", about.catalog.name_of(likest));
            Mention::of(about.catalog, index, evidence)
        });
        let (mentions, members): (Vec<_>, Vec<_>) = (mentions.collect(), group.iter().map(|member| member.0).collect());
        let kinds = [Kind::NearContradiction, Kind::NearLeak, Kind::NearDuplicates];
        findings.extend(of_group(about, &members, mentions, kinds));
    }
    if cut_short > 0 {
        let message = format!("{cut_short} images have more look-alikes than were compared");
        findings.push(Finding::about_all(Kind::CutShort, message));
    }
    findings
}

/// The findings that a group of copies makes: with different labels, in several splits, or neither.
fn of_group(
    about: &Surroundings<'_>,
    members: &[usize],
    mentions: Vec<Mention>,
    [contradiction, leak, duplicates]: [Kind; 3],
) -> Vec<Finding> {
    let catalog = about.catalog;
    let differ = |pair: &[usize]| catalog.label(pair[0]) != catalog.label(pair[1]);
    let contradicts = members.windows(2).any(differ);
    let leaks = members.windows(2).any(|pair| catalog.split(pair[0]) != catalog.split(pair[1]));
    let kinds = [(contradiction, contradicts), (leak, leaks), (duplicates, !contradicts && !leaks)];
    let kinds = kinds.into_iter().filter(|&(_, applies)| applies);
    kinds.filter_map(|(kind, _)| Finding::of(kind, mentions.clone())).collect()
}

/// Samples of the same pixels, two or more, by their first.
fn exact_groups(facts: &[Facts]) -> Vec<Vec<usize>> {
    let mut by_pixels: HashMap<u64, Vec<usize>> = HashMap::new();
    for (index, facts) in facts.iter().enumerate() {
        if let Ok(image) = &facts.image {
            by_pixels.entry(image.pixels).or_default().push(index);
        }
    }
    let mut groups: Vec<_> = by_pixels.into_values().filter(|group| group.len() > 1).collect();
    groups.sort_unstable();
    groups
}

/// A pair of copies, and how well they fit.
struct Copies {
    pair: Pair,
    correlation: f32,
}

/// Pairs that are copies, though not exact ones, and how many images had too many candidates. Of exact copies one stands
/// for all.
fn near_copies(about: &Surroundings<'_>, facts: &[Facts], exact: &[Vec<usize>]) -> (Vec<Copies>, usize) {
    let mut hashes: Vec<_> = facts
        .iter()
        .map(|facts| facts.image.as_ref().ok().and_then(|image| image.hashes.as_deref().copied()))
        .collect();
    for &index in exact.iter().flat_map(|group| &group[1..]) {
        hashes[index] = None;
    }
    if hashes.iter().all(Option::is_none) {
        return (Vec::new(), 0);
    }
    let (candidates, cut_short) = similar_pairs(&hashes, about.threads);
    drop(hashes);
    let mut copies = Vec::new();
    for candidates in candidates.chunks(AT_ONCE) {
        let mut images: Vec<u32> = candidates.iter().flat_map(|&(a, b)| [a, b]).collect();
        images.sort_unstable();
        images.dedup();
        let pictures = in_parallel(images.len(), about.threads, |at, _| {
            let (pixels, _) = thumbnail(about.catalog, images[at] as usize, about.limits, [SIDE; 2], true)?;
            Some(Picture::new(&pixels))
        });
        let picture = |index: u32| pictures[images.binary_search(&index).ok()?].as_ref();
        let likenesses = in_parallel(candidates.len(), about.threads, |at, _| {
            let (a, b) = candidates[at];
            Some(picture(a)?.likeness(picture(b)?))
        });
        for (&pair, likeness) in candidates.iter().zip(likenesses) {
            if let Some(likeness) = likeness.filter(|likeness| likeness.is_copy()) {
                copies.push(Copies { pair, correlation: likeness.correlation });
            }
        }
    }
    (copies, cut_short)
}

/// Images that hang together by pairs of copies: each with the one that it is most like, and how like.
fn near_groups(copies: &[Copies]) -> Vec<Vec<(usize, usize, f32)>> {
    let mut likest: BTreeMap<u32, (u32, f32)> = BTreeMap::new();
    let mut parents: HashMap<u32, u32> = HashMap::new();
    for &Copies { pair: (a, b), correlation } in copies {
        for (image, other) in [(a, b), (b, a)] {
            let best = likest.entry(image).or_insert((other, correlation));
            if correlation > best.1 {
                *best = (other, correlation);
            }
        }
        let (a, b) = (root(&mut parents, a), root(&mut parents, b));
        parents.insert(a.max(b), a.min(b));
    }
    let mut groups: BTreeMap<u32, Vec<(usize, usize, f32)>> = BTreeMap::new();
    for (&image, &(other, correlation)) in &likest {
        let first = root(&mut parents, image);
        groups.entry(first).or_default().push((image as usize, other as usize, correlation));
    }
    groups.into_values().collect()
}

/// The first image of those that hang together with this one.
fn root(parents: &mut HashMap<u32, u32>, image: u32) -> u32 {
    let mut first = image;
    while let Some(&parent) = parents.get(&first).filter(|&&parent| parent != first) {
        first = parent;
    }
    let mut at = image;
    while at != first {
        at = parents.insert(at, first).unwrap_or(first);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_hang_together() {
        let pairs = [(1, 5, 0.98), (3, 4, 0.99), (5, 9, 0.97), (4, 7, 0.975), (10, 11, 1.0)];
        let copies: Vec<_> = pairs.map(|(a, b, correlation)| Copies { pair: (a, b), correlation }).into();
        let groups: Vec<Vec<_>> = near_groups(&copies)
            .iter()
            .map(|group| group.iter().map(|member| (member.0, member.1)).collect())
            .collect();
        assert_eq!(groups, [vec![(1, 5), (5, 1), (9, 5)], vec![(3, 4), (4, 3), (7, 4)], vec![(10, 11), (11, 10)]]);
    }
}
