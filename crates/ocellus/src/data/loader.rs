//! `Loader`: a data set cut into shuffled batches, in buffers that are used again and again.

mod prefetch;
mod sampler;

use prefetch::Prefetch;
pub use sampler::Sampler;

use super::{DataError, Dataset};

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
    /// Which samples an epoch shows; each once by default.
    pub sampler: Sampler,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self { batch_size: 32, shuffle: true, seed: 0, class_weight: None, sampler: Sampler::Uniform }
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

    fn fill(&mut self, dataset: &Dataset, indices: &[u32], class_weight: Option<&[f32]>) -> Result<(), DataError> {
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
        self.pixels.resize(indices.len() * image_len, 0);
        for (pixels, &index) in self.pixels.chunks_exact_mut(image_len).zip(indices) {
            dataset.copy_image(index as usize, pixels)?;
        }
        Ok(())
    }
}

/// Batches of a data set, epoch by epoch, in buffers that are used again. Images in memory are copied when a batch is asked
/// for, without allocating; images that must be decoded are made ready ahead by threads of the loader's own.
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
        options.sampler.check(&dataset)?;
        let mut loader = Self {
            order: Vec::with_capacity(dataset.len()),
            position: 0,
            batch: Batch::with_capacity(&dataset, options.batch_size),
            dataset,
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
        let LoaderOptions { shuffle, seed, sampler, .. } = &self.options;
        sampler.fill(&mut self.order, &self.dataset, *shuffle, *seed, epoch);
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
        let class_weight = self.options.class_weight.as_deref();
        if self.dataset.in_memory() {
            self.batch.fill(&self.dataset, indices, class_weight)?;
        } else {
            let rest = &self.order[self.position..];
            let prefetch = match &mut self.prefetch {
                Some(prefetch) => prefetch,
                none => none.insert(Prefetch::start(&self.dataset, rest, self.options.batch_size, class_weight)?),
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

    /// Number of batches in an epoch, the partial last one included.
    #[must_use]
    pub fn batches_per_epoch(&self) -> usize {
        self.dataset.len().div_ceil(self.options.batch_size)
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
