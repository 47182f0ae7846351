//! Samples cut into batches, in buffers that are used again and again.

use super::ModelError;
use super::samples::{Images, Samples, Targets};
use crate::data::{Loader, LoaderOptions, Sampler};
use crate::random::{Purpose, Random};
use ocellus_engine::Input;

/// Batches of a data set or of arrays, epoch by epoch.
pub(super) struct Batches<'a> {
    origin: Origin<'a>,
    outputs: usize,
    targets: Vec<f32>,
    count: usize,
    batch_size: usize,
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
    pub(super) sampler: Sampler,
}

impl BatchOptions {
    /// Every sample once, in the order in which they lie there, as they are measured.
    pub(super) fn in_order(batch_size: usize) -> Self {
        Self { batch_size, shuffle: false, seed: 0, class_weight: None, sampler: Sampler::Uniform }
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
        let batch_size = options.batch_size.min(count);
        let targets = Vec::with_capacity(batch_size * outputs);
        let origin = match (samples.images, samples.targets) {
            (Images::Dataset(dataset), Targets::Classes(labels)) if std::ptr::eq(labels, dataset.labels()) => {
                let BatchOptions { batch_size, shuffle, seed, class_weight, sampler } = options;
                let options = LoaderOptions { batch_size, shuffle, seed, class_weight, sampler };
                Origin::Loader(Box::new(Loader::new(dataset.clone(), options)?))
            }
            _ => Origin::Arrays(Box::new(Arrays::new(samples, count, image_shape.iter().product(), outputs, options))),
        };
        Ok(Batches { origin, outputs, targets, count, batch_size })
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
        self.count.div_ceil(self.batch_size)
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
                    self.targets.extend(batch.labels.iter().map(|&label| label as f32));
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
    values: usize,
    outputs: usize,
    order: Vec<u32>,
    position: usize,
    pixels: Vec<u8>,
    numbers: Vec<f32>,
    targets: Vec<f32>,
    weights: Vec<f32>,
    labels: Vec<u32>,
}

impl<'a> Arrays<'a> {
    fn new(samples: Samples<'a>, count: usize, values: usize, outputs: usize, options: BatchOptions) -> Self {
        let batch = options.batch_size.min(count);
        let bytes = samples.images.are_bytes();
        let mut arrays = Arrays {
            samples,
            values,
            outputs,
            order: (0..count as u32).collect(),
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
        self.position = 0;
        self.order.iter_mut().zip(0..).for_each(|(at, index)| *at = index);
        if self.options.shuffle {
            Random::new(self.options.seed, Purpose::Shuffle, epoch, 0).shuffle(&mut self.order);
        }
    }

    fn next_batch(&mut self) -> Result<Option<Batch<'_>>, ModelError> {
        let end = self.position.saturating_add(self.options.batch_size).min(self.order.len());
        let indices = &self.order[self.position..end];
        if indices.is_empty() {
            return Ok(None);
        }
        let (start, positions) = (self.position, self.position..end);
        self.position = end;
        [&mut self.numbers, &mut self.targets, &mut self.weights].into_iter().for_each(Vec::clear);
        self.labels.clear();
        self.pixels.clear();
        for at in positions {
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
            let label = self.push_target(index);
            self.labels.push(label);
            self.weights.push(self.options.class_weight.as_ref().map_or(1.0, |weights| weights[label as usize]));
        }
        let bytes = self.samples.images.are_bytes();
        let images = if bytes { Input::U8(&self.pixels) } else { Input::F32(&self.numbers) };
        Ok(Some(Batch {
            images,
            targets: &self.targets,
            weights: &self.weights,
            labels: &self.labels,
            indices: &self.order[start..end],
        }))
    }

    /// Adds the sample's target, and gives its class: the given one, or that of the largest target.
    fn push_target(&mut self, index: usize) -> u32 {
        let filled = self.targets.len();
        match self.samples.targets {
            Targets::Classes(labels) if self.outputs == 1 => {
                self.targets.push(labels[index] as f32);
                labels[index]
            }
            Targets::Classes(labels) => {
                self.targets.resize(filled + self.outputs, 0.0);
                self.targets[filled + labels[index] as usize] = 1.0;
                labels[index]
            }
            Targets::Values(all) => {
                let target = &all[index * self.outputs..(index + 1) * self.outputs];
                self.targets.extend_from_slice(target);
                crate::metrics::predicted_class(target).unwrap_or(0) as u32
            }
        }
    }
}
