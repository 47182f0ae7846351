//! What a check found, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::data::{Catalog, Split};
use crate::report::printable;

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The data.
    pub data: String,
    /// Samples that there are.
    pub samples: usize,
    /// Samples that can be decoded.
    pub usable: usize,
    /// Samples of each class.
    pub classes: Vec<ClassCount>,
    /// What was found, the gravest first.
    pub findings: Vec<Finding>,
}

/// How many samples a class has in each part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// The class.
    pub name: String,
    /// In the training data.
    pub train: usize,
    /// In the validation data.
    pub validation: usize,
    /// In the test data.
    pub test: usize,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// How much it matters.
    pub weight: Weight,
    /// What there is to say about all of it; empty where the kind says it all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The samples that it is about: each by itself, or for duplicates all copies of one image.
    pub samples: Vec<Mention>,
}

/// A sample in a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mention {
    /// Its index in the catalog; none for what is no sample.
    pub sample: Option<usize>,
    /// A name by which a person finds it.
    pub name: String,
    /// Its class.
    pub class: Option<String>,
    /// Its part: `train`, `validation` or `test`.
    pub split: Option<&'static str>,
    /// What was seen.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Results would be wrong, or samples are lost.
    Error,
    /// To be looked at.
    Warning,
    /// Good to know.
    Note,
}

/// What can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`title` and `advice` say what each is")]
pub enum Kind {
    Empty,
    Truncated,
    Damaged,
    NotAnImage,
    Oversized,
    Unreadable,
    Leak,
    Contradiction,
    NoTraining,
    SplitsAsClasses,
    Refused,
    NearLeak,
    NearContradiction,
    Duplicates,
    NearDuplicates,
    Mistyped,
    Imbalance,
    FewSamples,
    MissingClass,
    ClassDrift,
    Blank,
    Dark,
    Bright,
    Blurred,
    Small,
    Large,
    Elongated,
    Colours,
    Turned,
    AppearanceDrift,
    Stray,
    Unused,
    CutShort,
}

impl Kind {
    /// How much findings of this kind matter.
    #[must_use]
    pub fn weight(self) -> Weight {
        match self {
            Self::Empty
            | Self::Truncated
            | Self::Damaged
            | Self::NotAnImage
            | Self::Oversized
            | Self::Unreadable
            | Self::Leak
            | Self::Contradiction
            | Self::NoTraining
            | Self::SplitsAsClasses => Weight::Error,
            Self::Refused
            | Self::NearLeak
            | Self::NearContradiction
            | Self::Duplicates
            | Self::NearDuplicates
            | Self::Mistyped
            | Self::Imbalance
            | Self::FewSamples
            | Self::MissingClass
            | Self::ClassDrift
            | Self::Blank
            | Self::Dark
            | Self::Bright
            | Self::Blurred
            | Self::Unused => Weight::Warning,
            _ => Weight::Note,
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Empty => "Empty files",
            Self::Truncated => "Truncated images",
            Self::Damaged => "Damaged images",
            Self::NotAnImage => "Files that are no images",
            Self::Oversized => "Images beyond the size limit",
            Self::Unreadable => "Files that cannot be read",
            Self::Leak => "Copies of one image in several splits",
            Self::Contradiction => "Copies of one image with different labels",
            Self::NoTraining => "Classes without training images",
            Self::SplitsAsClasses => "Classes named like splits",
            Self::Refused => "Entries that were refused",
            Self::NearLeak => "Near-duplicates in several splits",
            Self::NearContradiction => "Near-duplicates with different labels",
            Self::Duplicates => "Exact duplicates",
            Self::NearDuplicates => "Near-duplicates",
            Self::Mistyped => "Files of another type than their name says",
            Self::Imbalance => "Unequal classes",
            Self::FewSamples => "Small classes",
            Self::MissingClass => "Classes missing from a split",
            Self::ClassDrift => "Splits with different shares of classes",
            Self::Blank => "Nearly blank images",
            Self::Dark => "Very dark images",
            Self::Bright => "Very bright images",
            Self::Blurred => "Blurred images",
            Self::Small => "Unusually small images",
            Self::Large => "Unusually large images",
            Self::Elongated => "Unusual proportions",
            Self::Colours => "Several colour modes",
            Self::Turned => "Images that EXIF turns",
            Self::AppearanceDrift => "Splits that look different",
            Self::Stray => "Stray files",
            Self::Unused => "Images outside class folders",
            Self::CutShort => "Search for near-duplicates cut short",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Empty | Self::Truncated | Self::Damaged => {
                "Fetch them again or leave them out; training skips those it cannot decode."
            }
            Self::NotAnImage => "Move them out of the class folders; training skips them.",
            Self::Oversized => "Make them smaller; training skips them.",
            Self::Unreadable => "Look at their permissions; training skips them.",
            Self::Leak => "A model can know these test images by heart: keep all copies in one split.",
            Self::Contradiction => "At most one label is right: decide, or leave all copies out.",
            Self::NoTraining => "Add images, or remove the class.",
            Self::SplitsAsClasses => {
                "Move what lies beside the class folders away: images or files there make the folder a class."
            }
            Self::Refused => "They are no part of the data as it is read.",
            Self::NearLeak => "If these show the same, keep them in one split: test results are too good otherwise.",
            Self::NearContradiction => "If these show the same, at most one label is right.",
            Self::Duplicates => "They count double in training and in the results: keep one of each.",
            Self::NearDuplicates => {
                "Usually copies, resized or compressed anew: keep one of each unless they were meant."
            }
            Self::Mistyped => "ocellus goes by the content; other programs may not.",
            Self::Imbalance => "Look at the recall of small classes, not at the accuracy alone.",
            Self::FewSamples => "Too few to learn from or to measure with: collect more.",
            Self::MissingClass => "Nothing will be known about how well these are recognised.",
            Self::ClassDrift => "Results on one split say little about another: split anew, by class.",
            Self::Blank => "There is nothing to learn from: look at them.",
            Self::Dark | Self::Bright => "Look whether anything can be seen in them.",
            Self::Blurred => "Look whether the class can still be seen.",
            Self::Small => "Enlarged, they show little: look at them.",
            Self::Large => "Nothing is wrong with them but the time they take.",
            Self::Elongated => "Stretched to the model's size they look different: crop them.",
            Self::Colours => "All are converted alike; make sure that the colour mode does not tell the class.",
            Self::Turned => "ocellus turns them as they are shown; other programs may not.",
            Self::AppearanceDrift => "Were they taken alike? Results on one split may not hold for another.",
            Self::Stray => "They are left alone; nothing needs to be done.",
            Self::Unused => "They are not read: move them into class folders.",
            Self::CutShort => "So many images are alike that not all pairs were compared.",
        }
    }
}

impl Finding {
    /// A finding about some samples; none about no samples.
    pub(super) fn of(kind: Kind, samples: Vec<Mention>) -> Option<Self> {
        (!samples.is_empty()).then(|| Self { kind, weight: kind.weight(), message: String::new(), samples })
    }

    /// A finding about the data as a whole.
    pub(super) fn about_all(kind: Kind, message: String) -> Self {
        Self { kind, weight: kind.weight(), message, samples: Vec::new() }
    }
}

impl Mention {
    pub(super) fn of(catalog: &Catalog, index: usize, evidence: String) -> Self {
        let class = catalog.label(index).and_then(|label| catalog.class_names().get(label as usize)).cloned();
        let split = Some(split_name(catalog.split(index)));
        Self { sample: Some(index), name: catalog.name_of(index), class, split, evidence }
    }

    /// Where it is, in a line.
    fn text(&self) -> String {
        let class = self.class.as_ref().map(|class| format!(" ({class}, {})", self.split.unwrap_or_default()));
        let evidence = if self.evidence.is_empty() { String::new() } else { format!(": {}", self.evidence) };
        printable(&format!("{}{}{evidence}", self.name, class.unwrap_or_default()))
    }
}

/// A split's name in files.
pub(super) fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Validation => "validation",
        Split::Test => "test",
    }
}

/// Findings of a kind that are told, and samples of each.
const MOST_TOLD: usize = 5;

impl Report {
    pub(super) fn new(catalog: &Catalog, usable: usize, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| (finding.weight, finding.kind));
        let names = catalog.class_names().iter();
        let mut classes: Vec<_> =
            names.map(|name| ClassCount { name: name.clone(), train: 0, validation: 0, test: 0 }).collect();
        for index in 0..catalog.len() {
            let Some(class) = catalog.label(index).and_then(|label| classes.get_mut(label as usize)) else { continue };
            match catalog.split(index) {
                Split::Train => class.train += 1,
                Split::Validation => class.validation += 1,
                Split::Test => class.test += 1,
            }
        }
        Self { data: catalog.path().display().to_string(), samples: catalog.len(), usable, classes, findings }
    }

    /// The gravest weight of all findings; none without findings.
    #[must_use]
    pub fn weight(&self) -> Option<Weight> {
        self.findings.iter().map(|finding| finding.weight).min()
    }

    /// The findings of each kind, the gravest first.
    pub fn by_kind(&self) -> impl Iterator<Item = &[Finding]> {
        self.findings.chunk_by(|a, b| a.kind == b.kind && a.weight == b.weight)
    }

    /// The report for a terminal: each kind with its number, what to do, and the first few samples.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}: {}\n", printable(&self.data), self.headline());
        for findings in self.by_kind() {
            let first = &findings[0];
            let name = match first.weight {
                Weight::Error => "error",
                Weight::Warning => "warning",
                Weight::Note => "note",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n{name}: {}{}\n  {}", first.kind.title(), count(findings), first.kind.advice());
            let grouped = findings.len() > 1 || is_group(first.kind);
            for finding in findings.iter().take(MOST_TOLD) {
                if !finding.message.is_empty() {
                    let _ = writeln!(text, "  {}", printable(&finding.message));
                }
                let before = if grouped && !finding.samples.is_empty() { "  - " } else { "  " };
                let shown = finding.samples.iter().take(MOST_TOLD);
                for (at, mention) in shown.enumerate() {
                    let before = if grouped && at > 0 { "    " } else { before };
                    let _ = writeln!(text, "{before}{}", mention.text());
                }
                if finding.samples.len() > MOST_TOLD {
                    let indent = if grouped { "    " } else { "  " };
                    let _ = writeln!(text, "{indent}… and {} more", finding.samples.len() - MOST_TOLD);
                }
            }
            if findings.len() > MOST_TOLD {
                let _ = writeln!(text, "  … and {} more such groups", findings.len() - MOST_TOLD);
            }
        }
        text
    }

    /// How much there is, and how much of it is in question, in a line.
    #[must_use]
    pub fn headline(&self) -> String {
        let number = |weight| self.by_kind().filter(|findings| findings[0].weight == weight).count();
        let named = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
        let found = match self.weight() {
            None => "nothing found".to_owned(),
            Some(_) => format!(
                "{}, {}, {}",
                named(number(Weight::Error), "kind of error"),
                named(number(Weight::Warning), "warning"),
                named(number(Weight::Note), "note")
            ),
        }
        .replace("kind of errors", "kinds of errors");
        let unusable = self.samples - self.usable;
        let unusable = if unusable > 0 { format!(", {unusable} of them unusable") } else { String::new() };
        format!("{} samples of {} classes{unusable}; {found}", self.samples, self.classes.len())
    }
}

/// Whether each finding of this kind is a group of samples that belong together.
pub(super) fn is_group(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Leak
            | Kind::Contradiction
            | Kind::NearLeak
            | Kind::NearContradiction
            | Kind::Duplicates
            | Kind::NearDuplicates
    )
}

/// How many there are, for a title.
pub(super) fn count(findings: &[Finding]) -> String {
    let samples: usize = findings.iter().map(|finding| finding.samples.len()).sum();
    match (is_group(findings[0].kind), samples) {
        (_, 0) => String::new(),
        (true, _) => format!(": {} groups, {samples} images", findings.len()),
        (false, _) if findings[0].message.is_empty() => format!(": {samples}"),
        (false, _) => String::new(),
    }
}
