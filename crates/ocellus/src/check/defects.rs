//! Files that cannot be used, or are not what they claim to be.

use super::facts::{Facts, Image};
use super::report::{Finding, Kind, Mention};
use super::{Surroundings, list};
use crate::data::ImageProblem;

/// Everything that is wrong with single files.
pub(super) fn findings(about: &Surroundings<'_>, facts: &[Facts]) -> Vec<Finding> {
    let defects = |kind: Kind| {
        let unusable = facts.iter().enumerate().filter_map(move |(index, facts)| match &facts.image {
            Err(problem) if kind_of(problem) == kind => Some((index, problem.to_string())),
            Ok(Image { flaw: Some(flaw), .. }) if kind == Kind::Damaged => Some((index, flaw.clone())),
            _ => None,
        });
        list(about, kind, unusable)
    };
    let kinds = [Kind::Empty, Kind::Truncated, Kind::Damaged, Kind::NotAnImage, Kind::Oversized, Kind::Unreadable];
    let mistyped = images(facts).filter_map(|(index, image)| {
        let (claimed, format) = (image.claimed?, image.format?);
        let says = format!("its name says {claimed:?}, but it holds {format:?}");
        (claimed != format).then_some((index, says))
    });
    let mistyped = list(about, Kind::Mistyped, mistyped);
    let turned = images(facts).filter(|(_, image)| image.orientation != 1);
    let turned = turned.map(|(index, image)| (index, format!("EXIF orientation {}", image.orientation)));
    let turned = list(about, Kind::Turned, turned);
    let refused = about.catalog.refused().iter().map(|skipped| Mention {
        sample: None,
        name: skipped.path.display().to_string(),
        class: None,
        split: None,
        evidence: skipped.reason.clone(),
    });
    let refused = Finding::of(Kind::Refused, refused.collect());
    kinds.into_iter().filter_map(defects).chain(mistyped).chain(turned).chain(refused).collect()
}

/// Samples that could be decoded.
pub(super) fn images(facts: &[Facts]) -> impl Iterator<Item = (usize, &Image)> {
    facts.iter().enumerate().filter_map(|(index, facts)| Some((index, facts.image.as_ref().ok()?)))
}

fn kind_of(problem: &ImageProblem) -> Kind {
    match problem {
        ImageProblem::Empty => Kind::Empty,
        ImageProblem::Unrecognised { .. } => Kind::NotAnImage,
        ImageProblem::TooLarge { .. } => Kind::Oversized,
        ImageProblem::Truncated => Kind::Truncated,
        ImageProblem::Unreadable(_) => Kind::Unreadable,
        ImageProblem::Damaged(_) => Kind::Damaged,
    }
}
