//! `Loader`: a data set cut into shuffled batches, in buffers that are used again and again.

mod prefetch;
mod sampler;

use prefetch::Prefetch;
pub use sampler::Sampler;

use super::augment::{Mixed, Mixing, Occasion, shrink};
use super::{Augment, DataError, Dataset};

/// How a [`Loader`] makes batches.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Samples per batch; the last batch of an epoch has what remains. Keras' default, 32.
    pub batch_size: usize,
    /// Whether each epoch has an order of its own, given by seed and epoch.
    pub shuffle: bool,
    /// The seed of that order.
    pub seed: u64,
    /// For each class, how much its samples count; each counts 1 where this is absent.
    pub class_weight: Option<Vec<f32>>,
    /// Random changes to the images, drawn by seed, epoch and sample.
    pub augment: Augment,
    /// How images and targets of a batch are mixed, after all else.
    pub mixing: Mixing,
    /// Whether samples that do not fill a last batch are left out; of a shuffled order, others in each epoch.
    pub drop_last: bool,
    /// Which samples an epoch shows; each once by default.
    pub sampler: Sampler,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            batch_size: 32,
            shuffle: true,
            seed: 0,
            class_weight: None,
            augment: Augment::new(),
            mixing: Mixing::default(),
            drop_last: false,
            sampler: Sampler::Uniform,
        }
    }
}

/// Some samples, ready for a training step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[samples, height, width, channels]`
    pub pixels: Vec<u8>,
    /// `[samples]`, the class of each.
    pub labels: Vec<u32>,
    /// `[samples, classes]`, one-hot.
    pub targets: Vec<f32>,
    /// `[samples]`, how much each counts.
    pub weights: Vec<f32>,
    /// `[samples]`, the index of each in the data set.
    pub indices: Vec<u32>,
}

impl Batch {
    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// A batch that `samples` fit into without growing.
    fn with_capacity(dataset: &Dataset, samples: usize) -> Self {
        let samples = samples.min(dataset.len());
        Self {
            pixels: Vec::with_capacity(samples * dataset.image_len()),
            labels: Vec::with_capacity(samples),
            targets: Vec::with_capacity(samples * dataset.class_count()),
            weights: Vec::with_capacity(samples),
            indices: Vec::with_capacity(samples),
        }
    }

    fn fill(
        &mut self,
        dataset: &Dataset,
        indices: &[u32],
        making: &Making,
        scratch: &mut Scratch,
    ) -> Result<(), DataError> {
        let class_weight = making.class_weight.as_deref();
        let (image_len, classes) = (dataset.image_len(), dataset.class_count());
        self.indices.clear();
        self.indices.extend_from_slice(indices);
        self.labels.clear();
        self.labels.extend(indices.iter().map(|&i| dataset.label(i as usize)));
        self.weights.clear();
        self.weights
            .extend(self.labels.iter().map(|&label| class_weight.map_or(1.0, |weights| weights[label as usize])));
        self.targets.clear();
        self.targets.resize(indices.len() * classes, 0.0);
        for (target, &label) in self.targets.chunks_exact_mut(classes).zip(&self.labels) {
            target[label as usize] = 1.0;
        }
        let shape = dataset.image_shape();
        let size = making.size.unwrap_or([shape[0], shape[1]]);
        let Scratch { spare, whole } = scratch;
        let small_len = size[0] * size[1] * shape[2];
        self.pixels.resize(indices.len() * small_len, 0);
        for (small, &index) in self.pixels.chunks_exact_mut(small_len).zip(indices) {
            let pixels = if making.size.is_some() {
                whole.resize(image_len, 0);
                &mut whole[..]
            } else {
                &mut *small
            };
            dataset.copy_image(index as usize, pixels)?;
            if !making.augment.is_empty() {
                let occasion = Occasion { seed: making.seed, epoch: making.epoch, sample: u64::from(index) };
                making.augment.apply(pixels, shape, spare, occasion);
            }
            if making.size.is_some() {
                shrink(whole, shape, small, size);
            }
        }
        if !making.mixing.is_none() {
            let Batch { pixels, labels, targets, weights, indices } = self;
            let mixed = Mixed { pixels, shape: [size[0], size[1], shape[2]], targets, labels, weights, indices };
            making.mixing.apply(mixed, making.seed, making.epoch);
        }
        Ok(())
    }
}

/// What the images and weights of an epoch's batches depend on.
#[derive(Clone, Debug)]
struct Making {
    seed: u64,
    epoch: u64,
    class_weight: Option<Vec<f32>>,
    augment: Augment,
    mixing: Mixing,
    /// The images' height and width, where they are made smaller.
    size: Option<[usize; 2]>,
}

/// Room to change images in.
#[derive(Default)]
struct Scratch {
    spare: Vec<u8>,
    whole: Vec<u8>,
}

/// Batches of a data set, epoch by epoch, in buffers that are used again. Images in memory are copied when a batch is asked
/// for, without allocating; images that must be decoded or changed are made ready ahead by threads of the loader's own.
///
/// The order of an epoch depends on seed and epoch alone.
pub struct Loader {
    dataset: Dataset,
    options: LoaderOptions,
    /// The order of this epoch.
    order: Vec<u32>,
    /// How many samples of it have been given out.
    position: usize,
    batch: Batch,
    making: Making,
    scratch: Scratch,
    /// Threads that make batches ahead, once the epoch's first was asked for.
    prefetch: Option<Prefetch>,
}

impl Loader {
    /// Batches of `dataset`, beginning with epoch 0.
    ///
    /// # Errors
    /// The batch size is 0, or the class weights are not one finite number, at least 0, per class.
    pub fn new(dataset: Dataset, options: LoaderOptions) -> Result<Self, DataError> {
        if options.batch_size == 0 {
            return Err(DataError::Argument("batch size: expected at least 1, got 0".into()));
        }
        if let Some(weights) = &options.class_weight {
            let classes = dataset.class_count();
            if weights.len() != classes {
                let problem = format!("class weights: expected {classes}, one per class, got {}", weights.len());
                return Err(DataError::Argument(problem));
            }
            if let Some(weight) = weights.iter().find(|w| !w.is_finite() || **w < 0.0) {
                return Err(DataError::Argument(format!(
                    "class weights: expected finite numbers from 0, got {weight}"
                )));
            }
        }
        if let Some(problem) = options.augment.problem(dataset.image_shape()).or(options.mixing.problem()) {
            return Err(DataError::Argument(problem));
        }
        let LoaderOptions { seed, class_weight, augment, mixing, .. } = options.clone();
        let making = Making { seed, epoch: 0, class_weight, augment, mixing, size: None };
        options.sampler.check(dataset.len())?;
        let mut loader = Self {
            order: Vec::with_capacity(dataset.len()),
            position: 0,
            batch: Batch::with_capacity(&dataset, options.batch_size),
            dataset,
            making,
            scratch: Scratch::default(),
            options,
            prefetch: None,
        };
        loader.start_epoch(0);
        Ok(loader)
    }

    /// Begin epoch `epoch` (from 0); what is left of the current one is dropped.
    pub fn start_epoch(&mut self, epoch: u64) {
        self.prefetch = None;
        self.position = 0;
        self.making.epoch = epoch;
        self.making.size = None;
        let LoaderOptions { shuffle, seed, sampler, .. } = &self.options;
        sampler.fill(&mut self.order, self.dataset.labels(), *shuffle, *seed, epoch);
        if self.options.drop_last && self.order.len() > self.options.batch_size {
            self.order.truncate(self.batches_per_epoch() * self.options.batch_size);
        }
    }

    /// Begin an epoch of images of this height and width, no larger than the data set's.
    pub(crate) fn start_epoch_at(&mut self, epoch: u64, size: [usize; 2]) {
        self.start_epoch(epoch);
        let [height, width, _] = self.dataset.image_shape();
        self.making.size = (size != [height, width]).then_some(size);
    }

    /// The next batch of the epoch, or none at its end.
    ///
    /// # Errors
    /// An image can no longer be read; a data set in memory never fails.
    pub fn next_batch(&mut self) -> Result<Option<&Batch>, DataError> {
        let end = self.position.saturating_add(self.options.batch_size).min(self.order.len());
        let indices = &self.order[self.position..end];
        if indices.is_empty() {
            return Ok(None);
        }
        if self.dataset.in_memory()
            && self.options.augment.is_empty()
            && self.options.mixing.is_none()
            && self.making.size.is_none()
        {
            self.batch.fill(&self.dataset, indices, &self.making, &mut self.scratch)?;
        } else {
            let rest = &self.order[self.position..];
            let prefetch = match &mut self.prefetch {
                Some(prefetch) => prefetch,
                none => none.insert(Prefetch::start(&self.dataset, rest, self.options.batch_size, &self.making)?),
            };
            if let Err(error) = prefetch.exchange(&mut self.batch) {
                // Asked again, begin anew at the batch that failed.
                self.prefetch = None;
                return Err(error);
            }
        }
        self.position = end;
        Ok(Some(&self.batch))
    }

    /// Number of batches in an epoch, a partial last one included where it is not left out.
    #[must_use]
    pub fn batches_per_epoch(&self) -> usize {
        let (samples, batch_size) = (self.dataset.len(), self.options.batch_size);
        if self.options.drop_last && samples > batch_size { samples / batch_size } else { samples.div_ceil(batch_size) }
    }

    /// What it takes samples from.
    #[must_use]
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// How it makes batches.
    #[must_use]
    pub fn options(&self) -> &LoaderOptions {
        &self.options
    }
}
