//! Encoded images: read once, in parallel, to find the damaged ones; kept decoded where memory allows.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::cache::{self, Cache, CacheOptions, Making, Record};
use super::catalog::{Catalog, NONE};
use super::decode;
use super::fingerprint::xxh64;
use super::folder;
use super::open::Progress;
use super::store::Store;
use super::{DataError, Dataset, ImageProblem, Limits, OpenOptions, Preprocessing, Skipped, Source, Split};

/// Headers read to find out what size and how many channels images have.
const SAMPLED: usize = 64;
/// Images of one size keep it up to this side.
const MAX_KEPT_SIDE: usize = 256;
/// Sides that images of several sizes are resized to lie between these.
const MIXED_SIDES: (usize, usize) = (32, 128);

/// The images of a part that are to be read.
struct Wanted {
    /// Their indices in the store.
    members: Vec<u32>,
    labels: Vec<u32>,
}

/// Read all images of a part; those that are none are set aside, or an error where that is strict.
pub(super) fn open(
    catalog: &Catalog,
    store: &Arc<dyn Store>,
    options: &OpenOptions,
    progress: Progress,
) -> Result<Dataset, DataError> {
    let known = &catalog.classes.names[..catalog.classes.known];
    let class_names = options.classes.as_deref().unwrap_or(known).to_vec();
    let wanted = wanted(catalog, options, &class_names)?;
    let place = catalog.class_folders.iter().find(|(of, _)| *of == options.split);
    let place = place.map_or(&catalog.path, |(_, folder)| folder).clone();
    if wanted.members.is_empty() {
        return Err(DataError::Empty { path: place });
    }
    // A model brings its classes; data that makes its own must have something to tell apart.
    let defines_classes = options.classes.is_none() && options.split == Split::Train;
    if let [only] = &class_names[..]
        && defines_classes
    {
        let class = catalog.class_path(Split::Train, 0);
        let meant = !catalog.class_folders.is_empty() && folder::perhaps_meant(&class);
        let hint = if meant { format!("; was {} meant?", class.display()) } else { String::new() };
        return Err(DataError::OneClass { path: place, class: only.clone(), hint });
    }

    let mut notes = Vec::new();
    let preprocessing = preprocessing(&**store, &wanted.members, options, &mut notes)?;
    notes.extend(catalog.notes.iter().cloned());
    let reading = Reading { store: &**store, members: &wanted.members, preprocessing: &preprocessing, options };
    let part = match options.split {
        Split::Train => "train",
        Split::Validation => "validation",
        Split::Test => "test",
    };
    let kept = Kept::find(&reading, catalog, part, &mut notes);
    let (mut pixels, outcomes) = reading.read_all(&kept, progress);
    let (cache, places) = kept.finish(pixels.is_none(), wanted.members.len(), &mut notes);

    let image_len = preprocessing.image_len();
    let (mut members, mut labels, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
    let mut cached = Vec::new();
    // What is no image at all is told once, with the first part that is opened.
    let first = Split::ALL.into_iter().find(|&split| catalog.has(split));
    let mut skipped = if first == Some(options.split) { catalog.refused.clone() } else { Vec::new() };
    let mut first_damaged = vec![None; class_names.len()];
    for (at, (outcome, (member, label))) in
        outcomes.into_iter().zip(wanted.members.into_iter().zip(wanted.labels)).enumerate()
    {
        match outcome {
            Ok(hash) => {
                if let Some(pixels) = &mut pixels {
                    pixels.copy_within(at * image_len..(at + 1) * image_len, members.len() * image_len);
                }
                members.push(member);
                labels.push(label);
                hashes.push(hash);
                if cache.is_some() {
                    cached.push(places[at]);
                }
            }
            Err(problem) => {
                let path: PathBuf = store.name_of(member as usize).into();
                first_damaged[label as usize].get_or_insert(skipped.len());
                skipped.push(Skipped { path, reason: problem.to_string() });
            }
        }
    }
    if options.strict
        && let Some(first) = skipped.first()
    {
        let (path, problem) = (first.path.clone(), first.reason.clone());
        return Err(DataError::Strict { path, problem, others: skipped.len() - 1 });
    }
    let mut counts = vec![0usize; class_names.len()];
    for &label in &labels {
        counts[label as usize] += 1;
    }
    let own = |name: &String| catalog.classes.names.contains(name);
    let missing: Vec<usize> = (0..class_names.len()).filter(|&label| counts[label] == 0).collect();
    for &label in &missing {
        let name = &class_names[label];
        if defines_classes && own(name) {
            let file = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let hint = first_damaged[label]
                .map_or_else(String::new, |at| format!(" (`{}`: {})", file(&skipped[at].path), skipped[at].reason));
            return Err(DataError::EmptyClass { path: place, class: name.clone(), hint });
        }
    }
    notes.extend(about_missing(&missing, &class_names, &place.display().to_string(), options.split));
    if labels.is_empty() {
        return Err(match skipped.into_iter().next() {
            Some(Skipped { path, reason }) => DataError::Unrecognised { path, problem: reason },
            None => DataError::Empty { path: place },
        });
    }
    if let Some(pixels) = &mut pixels {
        pixels.truncate(labels.len() * image_len);
    }
    let groups = (!catalog.groups.is_empty())
        .then(|| members.iter().map(|&member| catalog.samples[member as usize].group).collect());
    let limits = options.limits.clone();
    let images = Images {
        store: store.clone(),
        members,
        hashes,
        preprocessing: preprocessing.clone(),
        limits,
        pixels,
        cache: cache.map(|cache| (cache, cached)),
    };
    let dataset = Dataset::from_source(Arc::new(images), labels, class_names, preprocessing)?;
    Ok(dataset.with_groups(groups).with_remarks(skipped, notes))
}

/// What to tell of classes without an image: each by its name where they are few.
fn about_missing(missing: &[usize], names: &[String], place: &str, split: Split) -> Vec<String> {
    const FEW: usize = 5;
    if missing.len() <= FEW {
        return missing.iter().map(|&label| format!("no image of class `{}` in {place}", names[label])).collect();
    }
    let listed: Vec<String> = missing.iter().take(FEW).map(|&label| format!("`{}`", names[label])).collect();
    let (listed, count) = (listed.join(", "), missing.len());
    vec![format!("{place}: {count} of {} classes have no {split} image: {listed}, …", names.len())]
}

/// The samples of a part with labels that index `class_names`.
fn wanted(catalog: &Catalog, options: &OpenOptions, class_names: &[String]) -> Result<Wanted, DataError> {
    let mut numbers: std::collections::HashMap<&str, u32> =
        class_names.iter().zip(0..).map(|(name, label)| (name.as_str(), label)).collect();
    let mapped: Vec<Option<u32>> =
        catalog.classes.names.iter().map(|name| numbers.get(name.as_str()).copied()).collect();
    numbers.clear();
    let (mut members, mut labels) = (Vec::new(), Vec::new());
    for (index, sample) in catalog.samples.iter().enumerate() {
        if sample.split != options.split || sample.label == NONE {
            continue;
        }
        let Some(label) = mapped[sample.label as usize] else {
            return Err(DataError::UnknownClass {
                path: catalog.class_path(sample.split, sample.label),
                class: catalog.classes.names[sample.label as usize].clone(),
                known: class_names.to_vec(),
            });
        };
        members.push(index as u32);
        labels.push(label);
    }
    Ok(Wanted { members, labels })
}

/// What was asked for, completed by what images have.
fn preprocessing(
    store: &dyn Store,
    members: &[u32],
    options: &OpenOptions,
    notes: &mut Vec<String>,
) -> Result<Preprocessing, DataError> {
    if options.preprocessing.is_some() || (options.image_size.is_some() && options.channels.is_some()) {
        return options.preprocessing_for([1, 1, 1]);
    }
    let step = members.len().div_ceil(SAMPLED).max(1);
    let mut bytes = Vec::new();
    let mut header = |&member: &u32| {
        store.read(member as usize, &options.limits, &mut bytes).ok()?;
        decode::header(&bytes, &options.limits).ok()
    };
    let headers: Vec<decode::Header> = members.iter().step_by(step).filter_map(&mut header).collect();
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

/// The images of a part, and how they are to be read.
struct Reading<'a> {
    store: &'a dyn Store,
    members: &'a [u32],
    preprocessing: &'a Preprocessing,
    options: &'a OpenOptions,
}

impl Reading<'_> {
    /// For every image the hash of its content, or what is wrong with it; and all pixels, where they fit the limit.
    fn read_all(&self, kept: &Kept, progress: Progress) -> (Option<Vec<u8>>, Vec<Result<u64, ImageProblem>>) {
        let image_len = self.preprocessing.image_len();
        let count = self.members.len();
        let total = count.saturating_mul(image_len);
        let mut pixels = (total as u64 <= self.options.limits.memory).then(|| vec![0u8; total]);
        let mut outcomes: Vec<Result<u64, ImageProblem>> = vec![Ok(0); count];
        let threads = thread::available_parallelism().map_or(1, usize::from).min(count);
        let done = AtomicUsize::new(0);
        {
            // Each item is one image with the places its outcome and its pixels go to.
            let mut slots = pixels.as_mut().map(|pixels| pixels.chunks_exact_mut(image_len));
            let work = outcomes
                .iter_mut()
                .enumerate()
                .map(|(at, outcome)| (at, outcome, slots.as_mut().and_then(Iterator::next)));
            let work = Mutex::new(work);
            let worker = || {
                let (mut scratch, mut bytes) = (Vec::new(), Vec::new());
                loop {
                    let next = work.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((at, outcome, slot)) = next else { break };
                    *outcome = self.read(at, slot, kept, &mut scratch, &mut bytes);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, count);
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

    /// Read the image at `at` into `slot`, where it is to be kept; the hash of its content is the result.
    fn read(
        &self,
        at: usize,
        slot: Option<&mut [u8]>,
        kept: &Kept,
        scratch: &mut Vec<u8>,
        bytes: &mut Vec<u8>,
    ) -> Result<u64, ImageProblem> {
        let wanted = slot.is_some() || kept.making.is_some();
        let slot = slot.unwrap_or_else(|| {
            scratch.resize(self.preprocessing.image_len(), 0);
            scratch
        });
        if let Some((cache, place)) = kept.place(at) {
            let record = cache.record(place);
            // Where it is only asked for later, it is compared with its hash then.
            if record.is_image() && (!wanted || cache.read(place, slot)) {
                if let Some(making) = &kept.making {
                    making.put(at, record, slot);
                }
                return Ok(record.content);
            }
        }
        let member = self.members[at] as usize;
        let limits = &self.options.limits;
        let prepared = self.store.read(member, limits, bytes).and_then(|()| {
            self.preprocessing.prepare_bytes(bytes, limits, slot)?;
            Ok(xxh64(bytes))
        });
        if let Some(making) = &kept.making {
            let stamp = kept.stamps.get(at).copied().unwrap_or(0);
            let name = self.store.name_of(member);
            match &prepared {
                Ok(hash) => making.put(at, Record::new(&name, stamp, *hash, slot), slot),
                Err(_) => making.put(at, Record::of_damaged(&name, stamp), &[]),
            }
        }
        prepared
    }

    /// Seconds that preparing all images would take one thread, by a few of them.
    fn estimate(&self) -> f64 {
        const TRIED: usize = 8;
        let count = self.members.len();
        let (mut scratch, mut bytes) = (vec![0; self.preprocessing.image_len()], Vec::new());
        let began = Instant::now();
        for &member in self.members.iter().step_by(count.div_ceil(TRIED).max(1)) {
            if self.store.read(member as usize, &self.options.limits, &mut bytes).is_ok() {
                // What is damaged is told later.
                let _ = self.preprocessing.prepare_bytes(&bytes, &self.options.limits, &mut scratch);
            }
        }
        began.elapsed().as_secs_f64() * count as f64 / count.min(TRIED) as f64
    }
}

/// What the cache has of a part's images, and the file that is made where it has not all.
#[derive(Default)]
struct Kept {
    cache: Option<Cache>,
    /// Of each image its record in the cache.
    places: Vec<Option<u32>>,
    stamps: Vec<u64>,
    making: Option<Making>,
}

impl Kept {
    fn find(reading: &Reading, catalog: &Catalog, part: &str, notes: &mut Vec<String>) -> Self {
        let Some(options) = &reading.options.cache else { return Self::default() };
        let path = cache::file_of(options, &catalog.path, part, reading.preprocessing);
        let (count, image_len) = (reading.members.len(), reading.preprocessing.image_len());
        let cache = Cache::open(&path, image_len);
        if cache.is_none() && reading.estimate() < options.worth.as_secs_f64() {
            return Self::default();
        }
        let stamps: Vec<u64> = reading.members.iter().map(|&member| reading.store.stamp_of(member as usize)).collect();
        let names = reading.members.iter().map(|&member| reading.store.name_of(member as usize));
        let places = cache.as_ref().map_or_else(Vec::new, |cache| cache.places(names.zip(stamps.iter().copied())));
        let allowed = cache::allowed(options, count, image_len);
        let missing = places.len() < count || places[..allowed].contains(&None);
        let making = missing.then(|| Making::begin(options, &path, count, image_len));
        let making =
            making.and_then(|making| making.map_err(|error| notes.push(unwritten(options, &error.to_string()))).ok());
        Self { cache, places, stamps, making }
    }

    /// The record of the image at `at`.
    fn place(&self, at: usize) -> Option<(&Cache, u32)> {
        Some((self.cache.as_ref()?, (*self.places.get(at)?)?))
    }

    /// The cache to read from, and of each image its record in it, where pixels are not in memory.
    fn finish(self, wanted: bool, count: usize, notes: &mut Vec<String>) -> (Option<Cache>, Vec<Option<u32>>) {
        let Some(making) = self.making else { return (self.cache.filter(|_| wanted), self.places) };
        match making.finish() {
            Ok(made) => {
                let places = (0..count).map(|at| made.is_image(at).then_some(at as u32)).collect();
                (Some(made).filter(|_| wanted), places)
            }
            Err(problem) => {
                notes.push(problem);
                (self.cache.filter(|_| wanted), self.places)
            }
        }
    }
}

fn unwritten(options: &CacheOptions, problem: &str) -> String {
    format!(
        "prepared images could not be kept in {} ({problem}); they are decoded whenever asked for",
        options.folder.display()
    )
}

/// Good images, with their pixels where those fit into memory.
struct Images {
    store: Arc<dyn Store>,
    members: Vec<u32>,
    hashes: Vec<u64>,
    preprocessing: Preprocessing,
    limits: Limits,
    pixels: Option<Vec<u8>>,
    /// Of each image its record in the cache, where it has one.
    cache: Option<(Cache, Vec<Option<u32>>)>,
}

impl Images {
    fn error(&self, index: usize) -> impl FnOnce(ImageProblem) -> DataError + '_ {
        move |problem| DataError::Image { path: self.name_of(index).into(), problem }
    }
}

impl Source for Images {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn copy_image(&self, index: usize, pixels: &mut [u8]) -> Result<(), DataError> {
        if let Some(all) = &self.pixels {
            pixels.copy_from_slice(&all[index * pixels.len()..][..pixels.len()]);
            return Ok(());
        }
        if let Some((cache, places)) = &self.cache
            && let Some(place) = places[index]
            && cache.read(place, pixels)
        {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let read = self.store.read(self.members[index] as usize, &self.limits, &mut bytes);
        read.and_then(|()| self.preprocessing.prepare_bytes(&bytes, &self.limits, pixels)).map_err(self.error(index))
    }

    fn pixels(&self) -> Option<&[u8]> {
        self.pixels.as_deref()
    }

    fn name_of(&self, index: usize) -> String {
        self.store.name_of(self.members[index] as usize)
    }

    fn hash_of(&self, index: usize) -> Result<u64, DataError> {
        Ok(self.hashes[index])
    }

    fn is_hashed(&self) -> bool {
        true
    }

    fn read_encoded(&self, index: usize, bytes: &mut Vec<u8>) -> Result<bool, DataError> {
        let read = self.store.read(self.members[index] as usize, &self.limits, bytes);
        read.map(|()| true).map_err(self.error(index))
    }
}
