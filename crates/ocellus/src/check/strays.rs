//! What lies in a data folder but is no part of the data: file managers' and notebooks' leavings, images outside class folders.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::facts::folder_of;
use super::report::{Finding, Kind, Mention};
use crate::data::Catalog;
use crate::data::decode::format_of_name;
use crate::data::is_stray;

/// Folders within folders that are looked into, and strays that are told.
const MAX_DEPTH: usize = 18;
const MOST: usize = 10_000;

pub(super) fn findings(catalog: &Catalog) -> Vec<Finding> {
    let Some(root) = folder_of(catalog) else { return Vec::new() };
    let (mut strays, mut unused) = (Vec::new(), Vec::new());
    let files = (0..catalog.len()).filter_map(|index| catalog.file_of(index));
    // Every file in a class folder is a sample.
    let sampled: HashSet<PathBuf> = files.filter_map(|file| file.parent().map(Path::to_owned)).collect();
    walk(&root, 0, &sampled, &mut strays, &mut unused);
    [(Kind::Stray, strays), (Kind::Unused, unused)]
        .into_iter()
        .filter_map(|(kind, mentions)| Finding::of(kind, mentions))
        .collect()
}

fn walk(folder: &Path, depth: usize, sampled: &HashSet<PathBuf>, strays: &mut Vec<Mention>, unused: &mut Vec<Mention>) {
    // A folder that cannot be read was an error when the catalog was made.
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if strays.len() + unused.len() >= MOST {
            return;
        }
        let mention = |evidence: &str| Mention {
            sample: None,
            name: path.display().to_string(),
            class: None,
            split: None,
            evidence: evidence.to_owned(),
        };
        if is_stray(&name) {
            strays.push(mention(if is_folder { "a folder" } else { "" }));
        } else if is_folder && depth < MAX_DEPTH {
            walk(&path, depth + 1, sampled, strays, unused);
        } else if !is_folder && !sampled.contains(folder) {
            match format_of_name(&path) {
                Some(_) => unused.push(mention("")),
                None => strays.push(mention("outside the class folders")),
            }
        }
    }
}
