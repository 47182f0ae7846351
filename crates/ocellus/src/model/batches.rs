//! Samples cut into batches, in buffers that are used again and again.

use super::ModelError;
use super::samples::{Images, Samples, Targets};
use crate::data::augment::{Mixed, Mixing, Occasion, shrink};
use crate::data::{Augment, Loader, LoaderOptions, Sampler};
use ocellus_engine::Input;
use std::borrow::Cow;

/// Batches of a data set or of arrays, epoch by epoch.
pub(super) struct Batches<'a> {
    origin: Origin<'a>,
    outputs: usize,
    targets: Vec<f32>,
    count: usize,
    batch_size: usize,
    drop_last: bool,
}

enum Origin<'a> {
    Loader(Box<Loader>),
    Arrays(Box<Arrays<'a>>),
}

/// How batches are made.
#[derive(Clone, Debug)]
pub(super) struct BatchOptions {
    pub(super) batch_size: usize,
    pub(super) shuffle: bool,
    pub(super) seed: u64,
    pub(super) class_weight: Option<Vec<f32>>,
    pub(super) augment: Augment,
    pub(super) mixing: Mixing,
    pub(super) drop_last: bool,
    pub(super) sampler: Sampler,
}

impl BatchOptions {
    /// Every sample once, in the order in which they lie there, as they are measured.
    pub(super) fn in_order(batch_size: usize) -> Self {
        Self {
            batch_size,
            shuffle: false,
            seed: 0,
            class_weight: None,
            augment: Augment::new(),
            mixing: Mixing::default(),
            drop_last: false,
            sampler: Sampler::Uniform,
        }
    }
}

/// Some samples, ready for a step.
pub(super) struct Batch<'b> {
    pub(super) images: Input<'b>,
    /// (samples, outputs)
    pub(super) targets: &'b [f32],
    pub(super) weights: &'b [f32],
    pub(super) labels: &'b [u32],
    /// Which samples they are.
    pub(super) indices: &'b [u32],
}

impl Batch<'_> {
    pub(super) fn samples(&self) -> usize {
        self.labels.len()
    }

    /// What the graph's inputs are.
    pub(super) fn inputs(&self) -> [Input<'_>; 3] {
        [self.images, Input::F32(self.targets), Input::F32(self.weights)]
    }
}

impl<'a> Batches<'a> {
    /// Batches of samples that have been checked against the model.
    pub(super) fn new(
        samples: Samples<'a>,
        image_shape: &[usize],
        outputs: usize,
        options: BatchOptions,
    ) -> Result<Self, ModelError> {
        let count = samples.check(image_shape, outputs)?;
        if options.batch_size == 0 {
            return Err(ModelError::argument("batch_size must be at least 1, received 0"));
        }
        if let Some(weights) = &options.class_weight {
            let classes = outputs.max(2);
            if weights.len() != classes || weights.iter().any(|weight| !(weight.is_finite() && *weight >= 0.0)) {
                return Err(ModelError::Argument(format!(
                    "class_weight must be {classes} finite numbers of at least 0, one for each class"
                )));
            }
        }
        let shape: Option<[usize; 3]> = image_shape.try_into().ok();
        if !options.augment.is_empty() || !options.mixing.is_none() {
            let problem = match (shape, samples.images.are_bytes()) {
                (Some(shape), true) => options.augment.problem(shape).or(options.mixing.problem()),
                _ => Some("augmentation: expected images as bytes, (height, width, channels), received others".into()),
            };
            if let Some(problem) = problem {
                return Err(ModelError::Argument(problem));
            }
        }
        let batch_size = options.batch_size.min(count);
        let targets = Vec::with_capacity(batch_size * outputs);
        let drop_last = options.drop_last;
        let origin = match (samples.images, samples.targets) {
            (Images::Dataset(dataset), Targets::Classes(labels)) if std::ptr::eq(labels, dataset.labels()) => {
                let BatchOptions { batch_size, shuffle, seed, class_weight, augment, mixing, drop_last, sampler } =
                    options;
                let options =
                    LoaderOptions { batch_size, shuffle, seed, class_weight, augment, mixing, drop_last, sampler };
                Origin::Loader(Box::new(Loader::new(dataset.clone(), options)?))
            }
            _ => {
                options.sampler.check(count)?;
                Origin::Arrays(Box::new(Arrays::new(samples, count, image_shape, outputs, options)))
            }
        };
        Ok(Batches { origin, outputs, targets, count, batch_size, drop_last })
    }

    /// Samples in an epoch.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Samples in a full batch.
    pub(super) fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Batches in an epoch.
    pub(super) fn steps(&self) -> usize {
        if self.drop_last { self.count / self.batch_size } else { self.count.div_ceil(self.batch_size) }
    }

    /// Begins an epoch of images of this height and width.
    pub(super) fn start_epoch_at(&mut self, epoch: u64, size: [usize; 2]) {
        match &mut self.origin {
            Origin::Loader(loader) => loader.start_epoch_at(epoch, size),
            Origin::Arrays(arrays) => arrays.start_epoch_at(epoch, size),
        }
    }

    pub(super) fn start_epoch(&mut self, epoch: u64) {
        match &mut self.origin {
            Origin::Loader(loader) => loader.start_epoch(epoch),
            Origin::Arrays(arrays) => arrays.start_epoch(epoch),
        }
    }

    /// The next batch of the epoch, or none at its end.
    pub(super) fn next_batch(&mut self) -> Result<Option<Batch<'_>>, ModelError> {
        match &mut self.origin {
            Origin::Loader(loader) => {
                let Some(batch) = loader.next_batch()? else { return Ok(None) };
                let targets = if self.outputs == 1 {
                    self.targets.clear();
                    self.targets.extend(batch.targets.chunks_exact(2).map(|target| target[1]));
                    &self.targets
                } else {
                    &batch.targets
                };
                let images = Input::U8(&batch.pixels);
                Ok(Some(Batch {
                    images,
                    targets,
                    weights: &batch.weights,
                    labels: &batch.labels,
                    indices: &batch.indices,
                }))
            }
            Origin::Arrays(arrays) => arrays.next_batch(),
        }
    }
}

/// Batches of arrays in memory.
struct Arrays<'a> {
    samples: Samples<'a>,
    options: BatchOptions,
    epoch: u64,
    shape: [usize; 3],
    /// The images' height and width, where they are made smaller.
    size: Option<[usize; 2]>,
    spare: Vec<u8>,
    values: usize,
    outputs: usize,
    /// The class of each sample.
    classes: Cow<'a, [u32]>,
    order: Vec<u32>,
    /// How many of the order are given out.
    given: usize,
    position: usize,
    pixels: Vec<u8>,
    numbers: Vec<f32>,
    targets: Vec<f32>,
    weights: Vec<f32>,
    labels: Vec<u32>,
}

impl<'a> Arrays<'a> {
    fn new(samples: Samples<'a>, count: usize, shape: &[usize], outputs: usize, options: BatchOptions) -> Self {
        let values = shape.iter().product();
        let batch = options.batch_size.min(count);
        let bytes = samples.images.are_bytes();
        let mut arrays = Arrays {
            samples,
            epoch: 0,
            shape: shape.try_into().unwrap_or_default(),
            size: None,
            spare: Vec::new(),
            values,
            outputs,
            classes: classes(samples.targets, outputs),
            order: Vec::with_capacity(count),
            given: count,
            position: 0,
            pixels: Vec::with_capacity(if bytes { batch * values } else { 0 }),
            numbers: Vec::with_capacity(if bytes { 0 } else { batch * values }),
            targets: Vec::with_capacity(batch * outputs),
            weights: Vec::with_capacity(batch),
            labels: Vec::with_capacity(batch),
            options,
        };
        arrays.start_epoch(0);
        arrays
    }

    /// The order is a [`Loader`]'s: it depends on seed and epoch alone.
    fn start_epoch(&mut self, epoch: u64) {
        (self.position, self.epoch, self.size) = (0, epoch, None);
        let BatchOptions { shuffle, seed, sampler, .. } = &self.options;
        sampler.fill(&mut self.order, &self.classes, *shuffle, *seed, epoch);
        self.drop_rest();
    }

    fn start_epoch_at(&mut self, epoch: u64, size: [usize; 2]) {
        self.start_epoch(epoch);
        let [height, width, _] = self.shape;
        self.size = (size != [height, width]).then_some(size);
    }

    /// Leaves out what does not fill the last batch, where that is wanted.
    fn drop_rest(&mut self) {
        let (samples, batch) = (self.order.len(), self.options.batch_size);
        self.given = if self.options.drop_last && samples > batch { samples / batch * batch } else { samples };
    }

    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, ModelError> {
        let end = self.position.saturating_add(self.options.batch_size).min(self.given);
        let indices = self.position..end;
        if indices.is_empty() {
            return Ok(None);
        }
        let first = std::mem::replace(&mut self.position, end);
        [&mut self.numbers, &mut self.targets, &mut self.weights].into_iter().for_each(Vec::clear);
        self.labels.clear();
        self.pixels.clear();
        for at in indices {
            let index = self.order[at] as usize;
            let span = index * self.values..(index + 1) * self.values;
            match self.samples.images {
                Images::U8(all) => self.pixels.extend_from_slice(&all[span]),
                Images::F32(all) => self.numbers.extend_from_slice(&all[span]),
                Images::Dataset(dataset) => {
                    let filled = self.pixels.len();
                    self.pixels.resize(filled + self.values, 0);
                    dataset.copy_image(index, &mut self.pixels[filled..])?;
                }
            }
            if !self.options.augment.is_empty() {
                let first = self.pixels.len() - self.values;
                let occasion = Occasion { seed: self.options.seed, epoch: self.epoch, sample: index as u64 };
                self.options.augment.apply(&mut self.pixels[first..], self.shape, &mut self.spare, occasion);
            }
            if let Some(size) = self.size {
                let first = self.pixels.len() - self.values;
                self.spare.clear();
                self.spare.extend_from_slice(&self.pixels[first..]);
                let small = size[0] * size[1] * self.shape[2];
                self.pixels.truncate(first + small);
                shrink(&self.spare, self.shape, &mut self.pixels[first..], size);
            }
            self.push_target(index);
            let label = self.classes[index];
            self.labels.push(label);
            self.weights.push(self.options.class_weight.as_ref().map_or(1.0, |weights| weights[label as usize]));
        }
        if !self.options.mixing.is_none() {
            let mixed = Mixed {
                pixels: &mut self.pixels,
                shape: self.size.map_or(self.shape, |[height, width]| [height, width, self.shape[2]]),
                targets: &mut self.targets,
                labels: &mut self.labels,
                weights: &mut self.weights,
                indices: &self.order[first..end],
            };
            self.options.mixing.apply(mixed, self.options.seed, self.epoch);
        }
        let bytes = self.samples.images.are_bytes();
        let images = if bytes { Input::U8(&self.pixels) } else { Input::F32(&self.numbers) };
        Ok(Some(Batch {
            images,
            targets: &self.targets,
            weights: &self.weights,
            labels: &self.labels,
            indices: &self.order[first..end],
        }))
    }

    /// Adds the sample's target.
    fn push_target(&mut self, index: usize) {
        let filled = self.targets.len();
        match self.samples.targets {
            Targets::Classes(labels) if self.outputs == 1 => self.targets.push(labels[index] as f32),
            Targets::Classes(labels) => {
                self.targets.resize(filled + self.outputs, 0.0);
                self.targets[filled + labels[index] as usize] = 1.0;
            }
            Targets::Values(all) => {
                self.targets.extend_from_slice(&all[index * self.outputs..(index + 1) * self.outputs]);
            }
        }
    }
}

/// The class of each sample: the given one, or that of the largest target.
fn classes(targets: Targets<'_>, outputs: usize) -> Cow<'_, [u32]> {
    match targets {
        Targets::Classes(labels) => Cow::Borrowed(labels),
        Targets::Values(all) => {
            let largest = |target| crate::metrics::predicted_class(target).unwrap_or(0) as u32;
            all.chunks_exact(outputs).map(largest).collect()
        }
    }
}
