//! What can be found out about data that is open, in no time: before every training.

use std::collections::HashMap;

use super::classes::balance;
use super::report::{Finding, Kind};
use crate::data::{Dataset, Split};

/// Bytes of pixels that are hashed at most, where hashes are not known; more would delay the start.
const MOST_BYTES: usize = 1 << 28;

/// A short check of opened data: class counts, copies across splits, copies with different labels. What is compared is what is
/// at hand: hashes of files, or pixels in memory. Images are decoded and looked at by [`check`](super::check).
#[must_use]
pub fn glance(parts: &[(Split, &Dataset)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some((_, train)) = parts.iter().find(|(split, _)| *split == Split::Train) {
        findings.extend(balance(&train.samples_per_class(), train.class_names()));
    }
    findings.extend(copies(parts));
    findings
}

/// An image that was seen: its class, its splits, and whether copies differ in class.
struct Seen {
    label: u32,
    split: Split,
    /// The first copy in another split, with its part and index; counted once.
    leaks: bool,
    contradicts: bool,
}

fn copies(parts: &[(Split, &Dataset)]) -> Vec<Finding> {
    let bytes: usize = parts.iter().map(|(_, part)| part.len() * part.image_len()).sum();
    if !parts.iter().all(|(_, part)| part.is_hashed() || (part.in_memory() && bytes <= MOST_BYTES)) {
        return Vec::new();
    }
    let mut seen: HashMap<u64, Seen> = HashMap::with_capacity(parts.iter().map(|(_, part)| part.len()).sum());
    let (mut leaked, mut contradicting) = (Examples::default(), Examples::default());
    for &(split, part) in parts {
        for index in 0..part.len() {
            let Ok(hash) = part.hash_of(index) else { continue };
            let label = part.label(index);
            let first = seen.entry(hash).or_insert(Seen { label, split, leaks: false, contradicts: false });
            if first.split != split && !std::mem::replace(&mut first.leaks, true) {
                leaked.add(part, index);
            }
            if first.label != label && !std::mem::replace(&mut first.contradicts, true) {
                contradicting.add(part, index);
            }
        }
    }
    let leak = leaked.told("exact copies of an image of another split");
    let contradiction = contradicting.told("exact copies of an image of another class");
    let of = |kind, told: Option<String>| told.map(|message| Finding::about_all(kind, message));
    [of(Kind::Leak, leak), of(Kind::Contradiction, contradiction)].into_iter().flatten().collect()
}

/// How many there are, and the first.
#[derive(Default)]
struct Examples {
    count: usize,
    first: Option<String>,
}

impl Examples {
    fn add(&mut self, part: &Dataset, index: usize) {
        self.count += 1;
        self.first.get_or_insert_with(|| part.name_of(index));
    }

    fn told(self, what: &str) -> Option<String> {
        let first = self.first?;
        Some(format!("{} images are {what}, such as {first}", self.count))
    }
}
