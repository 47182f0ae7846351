//! Images in files of their own: read once, in parallel, to find the damaged ones; kept decoded where memory allows.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::decode;
use super::fingerprint::xxh64;
use super::open::Progress;
use super::preprocessing::read_file;
use super::{DataError, Dataset, ImageProblem, Limits, OpenOptions, Preprocessing, Skipped, Source};

/// A file, and the class it was found in.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) label: u32,
}

/// Files that were read and are good.
pub(super) struct Images {
    source: Files,
    labels: Vec<u32>,
    pub(super) skipped: Vec<Skipped>,
    notes: Vec<String>,
}

/// Headers read to find out what size and how many channels images have.
const SAMPLED: usize = 64;
/// Images of one size keep it up to this side.
const MAX_KEPT_SIDE: usize = 256;
/// Sides that images of several sizes are resized to lie between these.
const MIXED_SIDES: (usize, usize) = (32, 128);

impl Images {
    /// Read all files; those that are no good images are set aside, or an error where that is strict.
    pub(super) fn open(
        found: Vec<Found>,
        folder: &Path,
        options: &OpenOptions,
        progress: Progress,
    ) -> Result<Self, DataError> {
        let mut notes = Vec::new();
        let preprocessing = preprocessing(&found, options, &mut notes)?;
        let limits = &options.limits;
        let (mut pixels, outcomes) = read_all(&found, &preprocessing, limits, progress);

        let image_len = preprocessing.image_len();
        let (mut paths, mut labels, mut hashes, mut skipped) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, (file, outcome)) in found.into_iter().zip(outcomes).enumerate() {
            match outcome {
                Ok(hash) => {
                    if let Some(pixels) = &mut pixels {
                        pixels.copy_within(index * image_len..(index + 1) * image_len, paths.len() * image_len);
                    }
                    paths.push(file.path);
                    labels.push(file.label);
                    hashes.push(hash);
                }
                Err(problem) => skipped.push(Skipped { path: file.path, reason: problem.to_string() }),
            }
        }
        if options.strict
            && let Some(first) = skipped.first()
        {
            let (path, problem) = (first.path.clone(), first.reason.clone());
            return Err(DataError::Strict { path, problem, others: skipped.len() - 1 });
        }
        if let Some(pixels) = &mut pixels {
            pixels.truncate(paths.len() * image_len);
        }
        let source = Files { root: folder.to_owned(), paths, hashes, preprocessing, limits: limits.clone(), pixels };
        Ok(Self { source, labels, skipped, notes })
    }

    pub(super) fn samples_per_class(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        for &label in &self.labels {
            counts[label as usize] += 1;
        }
        counts
    }

    pub(super) fn into_dataset(self, class_names: Vec<String>, notes: Vec<String>) -> Result<Dataset, DataError> {
        let Self { source, labels, skipped, notes: mut all_notes } = self;
        all_notes.extend(notes);
        if labels.is_empty() {
            return Err(match skipped.into_iter().next() {
                Some(Skipped { path, reason }) => DataError::Unrecognised { path, problem: reason },
                None => DataError::Empty { path: source.root },
            });
        }
        let preprocessing = source.preprocessing.clone();
        let dataset = Dataset::from_source(Arc::new(source), labels, class_names, preprocessing)?;
        Ok(dataset.with_remarks(skipped, all_notes))
    }
}

/// What was asked for, completed by what images have.
fn preprocessing(found: &[Found], options: &OpenOptions, notes: &mut Vec<String>) -> Result<Preprocessing, DataError> {
    if options.preprocessing.is_some() || (options.image_size.is_some() && options.channels.is_some()) {
        return options.preprocessing_for([1, 1, 1]);
    }
    let step = found.len().div_ceil(SAMPLED).max(1);
    let headers: Vec<decode::Header> = found
        .iter()
        .step_by(step)
        .filter_map(|file| decode::header(&read_file(&file.path, &options.limits).ok()?, &options.limits).ok())
        .collect();
    let channels = if headers.iter().all(|header| header.grey) { 1 } else { 3 };
    let size = suitable_size(&headers, options.image_size.is_none().then_some(notes));
    options.preprocessing_for([size[0], size[1], channels])
}

/// The size that images have, or one that suits them.
fn suitable_size(headers: &[decode::Header], notes: Option<&mut Vec<String>>) -> [usize; 2] {
    let Some(first) = headers.first() else { return [MIXED_SIDES.0; 2] };
    let common = headers.iter().all(|header| (header.height, header.width) == (first.height, first.width));
    if common && first.height.max(first.width) <= MAX_KEPT_SIDE {
        return [first.height, first.width];
    }
    let mut sides: Vec<usize> = headers.iter().map(|header| header.height.min(header.width)).collect();
    sides.sort_unstable();
    let side = (sides[sides.len() / 2] / 32 * 32).clamp(MIXED_SIDES.0, MIXED_SIDES.1);
    if let Some(notes) = notes {
        let are = if common { format!("{} x {}", first.height, first.width) } else { "of several sizes".into() };
        notes.push(format!("images are {are}; they are resized to {side} x {side}"));
    }
    [side, side]
}

/// For every file the hash of its content, or what is wrong with it; and all pixels, where they fit the limit.
fn read_all(
    found: &[Found],
    preprocessing: &Preprocessing,
    limits: &Limits,
    progress: Progress,
) -> (Option<Vec<u8>>, Vec<Result<u64, ImageProblem>>) {
    let image_len = preprocessing.image_len();
    let total = found.len().saturating_mul(image_len);
    let mut pixels = (total as u64 <= limits.memory).then(|| vec![0u8; total]);
    let mut outcomes: Vec<Result<u64, ImageProblem>> = vec![Ok(0); found.len()];
    let threads = thread::available_parallelism().map_or(1, usize::from).min(found.len());
    let done = AtomicUsize::new(0);
    {
        // Each item is one file with the places its outcome and its pixels go to.
        let mut slots = pixels.as_mut().map(|pixels| pixels.chunks_exact_mut(image_len));
        let work = found
            .iter()
            .zip(&mut outcomes)
            .map(|(file, outcome)| (file, outcome, slots.as_mut().and_then(Iterator::next)));
        let work = Mutex::new(work);
        let worker = || {
            let mut scratch = Vec::new();
            loop {
                let next = work.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((file, outcome, slot)) = next else { break };
                let slot = slot.unwrap_or_else(|| {
                    scratch.resize(image_len, 0);
                    &mut scratch
                });
                *outcome = read_file(&file.path, limits)
                    .and_then(|bytes| preprocessing.prepare_bytes(&bytes, limits, slot).map(|()| xxh64(&bytes)));
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, found.len());
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(worker);
            }
            worker();
        });
    }
    (pixels, outcomes)
}

/// Good files, with their pixels where those fit into memory.
struct Files {
    root: PathBuf,
    paths: Vec<PathBuf>,
    hashes: Vec<u64>,
    preprocessing: Preprocessing,
    limits: Limits,
    pixels: Option<Vec<u8>>,
}

impl Source for Files {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn copy_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        match &self.pixels {
            Some(all) => pixels.copy_from_slice(&all[index * pixels.len()..][..pixels.len()]),
            None => self.preprocessing.prepare_file(&self.paths[index], &self.limits, pixels)?,
        }
        Ok(())
    }

    fn pixels(&self) -> Option<&[u8]> {
        self.pixels.as_deref()
    }

    fn name_of(&self, index: usize) -> String {
        self.paths[index].display().to_string()
    }

    fn hash_of(&self, index: usize) -> Result<u64, DataError> {
        Ok(self.hashes[index])
    }
}
