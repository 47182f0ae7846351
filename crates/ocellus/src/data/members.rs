//! Names of files within archives: which lead outside, which are images, which class and part they belong to.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::catalog::{ClassCollector, Classes, MAX_CLASSES, NONE, Sample, is_class_name};
use super::decode::has_image_extension;
use super::folder::{is_stray, split_of};
use super::{DataError, Skipped, Split};

/// Members that cannot be used, up to which each is named.
const MAX_REFUSED: usize = 1000;

/// Bytes of a member's name.
const MAX_NAME: usize = 4096;

/// Why a member's name cannot be used; nothing is ever written to it, but such an archive is not to be trusted.
pub(super) fn name_problem(name: &str) -> Option<&'static str> {
    let windows_drive = name.as_bytes().get(1) == Some(&b':');
    match () {
        () if name.is_empty() => Some("has no name"),
        () if name.len() > MAX_NAME => Some("has a name that is longer than a path may be"),
        () if name.contains(char::is_control) => Some("has a name with control characters"),
        () if name.starts_with('/') || name.starts_with('\\') || windows_drive => Some("has an absolute name"),
        () if name.split(['/', '\\']).any(|part| part == "..") => Some("has a name that leads out of the archive"),
        () => None,
    }
}

/// What was left out of an archive.
#[derive(Default)]
pub(super) struct Refused {
    listed: Vec<Skipped>,
    count: usize,
}

impl Refused {
    pub(super) fn add(&mut self, archive: &Path, name: &str, reason: &str) {
        self.count += 1;
        if self.listed.len() < MAX_REFUSED {
            let short = shortened(name);
            self.listed.push(Skipped { path: archive.to_owned(), reason: format!("member `{short}` {reason}") });
        }
    }

    pub(super) fn finish(mut self, archive: &Path) -> Vec<Skipped> {
        let more = self.count - self.listed.len();
        if more > 0 {
            self.listed.push(Skipped { path: archive.to_owned(), reason: format!("{more} more members like these") });
        }
        self.listed
    }
}

/// A stranger's name as a message can show it.
pub(super) fn shortened(name: &str) -> String {
    name.chars().take(200).flat_map(char::escape_debug).collect()
}

/// Whether a member is an image by its name, and not what systems leave behind.
pub(super) fn is_image(name: &str) -> bool {
    has_image_extension(Path::new(name)) && !name.split('/').any(|part| is_stray(OsStr::new(part)))
}

/// Samples of an archive, from names such as `photos/train/cat/1.jpg`: for each image given, its class and part. The
/// order of the samples is that of the names given; `None` is an image that no folder tells the class of.
pub(super) fn by_folders(archive: &Path, names: &[String]) -> Result<(Classes, Vec<Option<Sample>>), DataError> {
    // One folder around everything says nothing.
    let around = around_all(names);
    let part = |name: &str| split_of(outermost(name)?.0);
    let divided = names.iter().all(|name| part(&name[around..]).is_some());
    let mut classes = ClassCollector::default();
    let mut samples = Vec::with_capacity(names.len());
    for name in names.iter().map(|name| &name[around..]) {
        let split = if divided { part(name) } else { Some(Split::Train) };
        let inner = if divided { outermost(name).map_or("", |(_, rest)| rest) } else { name };
        let (Some(split), Some((class, _))) = (split, inner.split_once('/')) else {
            samples.push(None);
            continue;
        };
        if !is_class_name(class) {
            samples.push(None);
            continue;
        }
        let label = classes.number(class, split).ok_or_else(|| too_many_classes(archive))?;
        samples.push(Some(Sample { label, group: NONE, split }));
    }
    let (classes, mapped) = classes.finish_by_bytes();
    for sample in samples.iter_mut().flatten() {
        sample.label = mapped[sample.label as usize];
    }
    Ok((classes, samples))
}

/// Bytes of the folders that all names begin with, up to where a folder names a part or holds what tells images apart.
fn around_all(names: &[String]) -> usize {
    let first = names.first().map_or("", String::as_str);
    let alike = |name: &String, most| first.bytes().zip(name.bytes()).take(most).take_while(|(a, b)| a == b).count();
    let common = names.iter().fold(first.len(), |common, name| alike(name, common));
    // Each name keeps a folder of its own.
    let innermost = names.iter().map(|name| name.rfind('/').unwrap_or(0)).min().unwrap_or(0);
    let mut around = 0;
    while let Some((folder, _)) = outermost(&first[around..])
        && around + folder.len() < common.min(innermost)
        && split_of(folder).is_none()
    {
        around += folder.len() + 1;
    }
    around
}

/// The outermost folder of a name, and what follows, where that has a folder, too.
fn outermost(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(_, rest)| rest.contains('/'))
}

pub(super) fn too_many_classes(path: &Path) -> DataError {
    DataError::format(path, format!("has more than {MAX_CLASSES} classes; are these labels of another kind?"))
}

/// The part that a file belongs to by its name: `train-0001.tar`, `cifar10_test-00000-of-00001.parquet`.
pub(super) fn split_in_name(path: &Path) -> Split {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphabetic());
    words.find_map(split_of).unwrap_or(Split::Train)
}

/// The files that `shard-{000..009}.tar` or `{train,val}.tar` stand for; the path itself where it has no braces.
pub(super) fn expand_braces(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    const MOST: usize = 100_000;
    let wrong = |problem: &str| DataError::Argument(format!("{}: {problem}", path.display()));
    let Some(text) = path.to_str() else { return Ok(vec![path.to_owned()]) };
    let mut done = vec![String::new()];
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}').ok_or_else(|| wrong("a brace is not closed"))?;
        let choices: Vec<String> = match inside.split_once("..") {
            Some((first, last)) => {
                let width = if first.len() == last.len() { first.len() } else { 0 };
                let number = |text: &str| text.parse::<u32>().map_err(|_| wrong("expected numbers, as in {000..009}"));
                let (first, last) = (number(first)?, number(last)?);
                if first > last || (last - first) as usize >= MOST {
                    return Err(wrong("expected the first number to be the smaller, and fewer than 100,000 of them"));
                }
                (first..=last).map(|number| format!("{number:0width$}")).collect()
            }
            None => inside.split(',').map(String::from).collect(),
        };
        if done.len().saturating_mul(choices.len()) > MOST {
            return Err(wrong("stands for more than 100,000 files"));
        }
        done = done
            .iter()
            .flat_map(|start| choices.iter().map(move |choice| format!("{start}{before}{choice}")))
            .collect();
        rest = after;
    }
    Ok(done.into_iter().map(|start| PathBuf::from(start + rest)).collect())
}

/// Names that members share with their labels: `a/b/0001` of `a/b/0001.seg.png`, and what follows the first dot.
pub(super) fn key_and_extension(name: &str) -> Option<(&str, &str)> {
    let file = name.rfind('/').map_or(0, |at| at + 1);
    let dot = name[file..].find('.')? + file;
    Some((&name[..dot], &name[dot + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_expanded() {
        let expand = |text: &str| {
            let files = expand_braces(Path::new(text)).map_err(|error| error.to_string())?;
            Ok::<_, String>(files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(expand("a-{08..10}.tar").unwrap(), ["a-08.tar", "a-09.tar", "a-10.tar"]);
        assert_eq!(expand("{x,y}-{1..2}").unwrap(), ["x-1", "x-2", "y-1", "y-2"]);
        assert_eq!(expand("plain.tar").unwrap(), ["plain.tar"]);
        for wrong in ["a{1..", "a{x..y}", "a{2..1}", "a{0..4000000000}", "{1..999}{1..999}"] {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_tell_parts() {
        for (name, split) in [
            ("train-00000-of-00002.parquet", Split::Train),
            ("cifar10_test-0.tar", Split::Test),
            ("imagenet-val.tar.gz", Split::Validation),
            ("latest.tar", Split::Train),
            ("x/valid/0001.tar", Split::Train),
        ] {
            assert_eq!(split_in_name(Path::new(name)), split, "{name}");
        }
        assert_eq!(key_and_extension("a.b/0001.seg.PNG"), Some(("a.b/0001", "seg.PNG")));
        assert_eq!(key_and_extension("a.b/0001"), None);
    }
}
