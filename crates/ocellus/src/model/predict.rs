//! Using a model: predictions, and the plans and threads they run on.

use super::graph::Inference;
use super::views::{Mean, Views, view};
use super::{Images, Model, ModelError};
use crate::losses::Loss;
use crate::metrics::predicted_class;
use ocellus_engine::{DType, Input, Level, Parameters, Pool, Runner, Scalars, StepTime};
use std::collections::HashMap;

/// Images for each step of a prediction.
const BATCH: usize = 128;

/// What a plan for inference is made for: batch size, whether images are bytes, and whether there is a loss.
type Key = (usize, bool, bool);

/// What runs plans: instruction set, threads, and the plans made so far.
#[derive(Default)]
pub(super) struct Engine {
    level: Option<Level>,
    threads: Option<usize>,
    pool: Option<Pool>,
    plans: HashMap<Key, Inference>,
}

impl Engine {
    pub(super) fn set_level(&mut self, level: Level) {
        self.level = Some(level);
        self.forget_plans();
    }

    pub(super) fn set_threads(&mut self, threads: Option<usize>) {
        if self.threads != threads {
            self.threads = threads;
            self.pool = None;
            self.forget_plans();
        }
    }

    /// After what changes the layers' graph.
    pub(super) fn forget_plans(&mut self) {
        self.plans.clear();
    }

    /// After a change of the loss.
    pub(super) fn forget_losses(&mut self) {
        self.plans.retain(|&(_, _, with_loss), _| !with_loss);
    }

    pub(super) fn level(&self) -> Result<Level, ModelError> {
        match (self.level, std::env::var("OCELLUS_ISA")) {
            (Some(level), _) => Ok(level),
            (None, Ok(name)) if !name.is_empty() => Ok(Level::named(&name)?),
            _ => Ok(Level::detect()),
        }
    }

    /// The worker threads, started when they are first needed.
    pub(super) fn pool(&mut self) -> &mut Pool {
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = self.threads;
        self.pool.get_or_insert_with(|| Pool::new(threads.unwrap_or_else(available)))
    }

    /// The plan for this key, and the threads to run it.
    fn plan(&mut self, key: Key) -> Option<(&mut Inference, &mut Pool)> {
        Some((self.plans.get_mut(&key)?, self.pool.as_mut()?))
    }
}

/// What a model gives for some images: a row of outputs for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    values: Vec<f32>,
    outputs: usize,
}

impl Predictions {
    /// How many images there were.
    pub fn len(&self) -> usize {
        self.values.len() / self.outputs
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The outputs for one image.
    ///
    /// # Panics
    /// Where there was no such image.
    pub fn row(&self, image: usize) -> &[f32] {
        &self.values[image * self.outputs..(image + 1) * self.outputs]
    }

    /// The outputs for each image.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.outputs)
    }

    /// All outputs, one image after the other.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The class of each image: the first of the largest outputs, or with one output whether it exceeds one half; none
    /// where an output is not a number.
    pub fn classes(&self) -> Vec<Option<usize>> {
        self.rows().map(predicted_class).collect()
    }

    /// The `count` classes with the largest outputs for one image, best first, with their outputs.
    ///
    /// A single output is the probability of class 1, and what is missing to 1 that of class 0.
    ///
    /// # Panics
    /// Where there was no such image.
    pub fn top(&self, image: usize, count: usize) -> Vec<(usize, f32)> {
        let row = self.row(image);
        let mut ranked: Vec<(usize, f32)> = match row {
            [one] => vec![(0, 1.0 - one), (1, *one)],
            _ => row.iter().copied().enumerate().collect(),
        };
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked.truncate(count);
        ranked
    }
}

impl Model {
    /// What the model gives for images: a data set's, bytes (scaled as the preprocessing says) or numbers (taken as they
    /// are).
    ///
    /// # Errors
    /// Where the images do not have the model's shape or cannot be read.
    pub fn predict<'a>(&mut self, images: impl Into<Images<'a>>) -> Result<Predictions, ModelError> {
        let images = images.into();
        let count = images.count(self.input_shape())?;
        let (values, outputs) = (self.input_shape().iter().product::<usize>(), self.outputs());
        let mut results = vec![0.0; count * outputs];
        let mut pixels = Vec::new();
        let mut first = 0;
        while first < count {
            let samples = (count - first).min(BATCH);
            let input = images.stretch(first..first + samples, values, &mut pixels)?;
            let results = &mut results[first * outputs..(first + samples) * outputs];
            self.infer_views(&[input], samples, samples.next_power_of_two(), None, results)?;
            first += samples;
        }
        Ok(Predictions { values: results, outputs })
    }

    /// How long each operation takes to predict some images at once, all repeats together. Where threads share an
    /// operation for a single image its time is that of the clock, else added up over the threads.
    ///
    /// # Errors
    /// As for [`predict`](Self::predict).
    pub fn time_prediction<'a>(
        &mut self,
        images: impl Into<Images<'a>>,
        repeats: usize,
    ) -> Result<Vec<StepTime>, ModelError> {
        let images = images.into();
        let samples = images.count(self.input_shape())?.clamp(1, BATCH);
        let (values, outputs) = (self.input_shape().iter().product::<usize>(), self.outputs());
        let (mut pixels, mut results) = (Vec::new(), vec![0.0; samples * outputs]);
        let input = images.stretch(0..samples, values, &mut pixels)?;
        let (batch, bytes) = (samples.next_power_of_two(), matches!(input, Input::U8(_)));
        self.infer(&[input], samples, batch, None, &mut results)?;
        self.profile_plan((batch, bytes, false), true);
        for _ in 0..repeats {
            self.infer(&[input], samples, batch, None, &mut results)?;
        }
        Ok(self.profile_plan((batch, bytes, false), false))
    }

    /// The times of a plan so far; from now on it measures, or not.
    fn profile_plan(&mut self, key: (usize, bool, bool), on: bool) -> Vec<StepTime> {
        let Some((inference, _)) = self.engine.plan(key) else { return Vec::new() };
        let times = inference.runner.profile();
        inference.runner.set_profile(on);
        times
    }

    /// Runs one batch for every view of its images; as [`infer`](Self::infer), save that the loss is known for one view alone.
    pub(super) fn infer_views(
        &mut self,
        inputs: &[Input<'_>],
        samples: usize,
        batch: usize,
        loss: Option<&Loss>,
        results: &mut [f32],
    ) -> Result<Option<f32>, ModelError> {
        if self.views == Views::One {
            return self.infer(inputs, samples, batch, loss, results);
        }
        let shape = self.input_shape().to_vec();
        let mut mean = Mean::new(samples, self.outputs());
        let (mut pixels, mut numbers) = (Vec::new(), Vec::new());
        for &of in self.views.list() {
            let seen = match inputs[0] {
                Input::U8(all) => {
                    view(all, &shape, of, &mut pixels);
                    Input::U8(&pixels)
                }
                Input::F32(all) => {
                    view(all, &shape, of, &mut numbers);
                    Input::F32(&numbers)
                }
            };
            let seen: Vec<Input<'_>> = [seen].into_iter().chain(inputs[1..].iter().copied()).collect();
            self.infer(&seen, samples, batch, loss, results)?;
            mean.add(results, of.2);
        }
        mean.finish(results);
        Ok(None)
    }

    /// Runs one batch; gives the mean loss where there is a loss (and then targets and weights among the inputs).
    pub(super) fn infer(
        &mut self,
        inputs: &[Input<'_>],
        samples: usize,
        batch: usize,
        loss: Option<&Loss>,
        results: &mut [f32],
    ) -> Result<Option<f32>, ModelError> {
        let bytes = matches!(inputs[0], Input::U8(_));
        let key = (batch, bytes, loss.is_some());
        self.prepare_inference(key, loss)?;
        let Some((inference, pool)) = self.engine.plan(key) else { unreachable!("just prepared") };
        let parameters: &mut Parameters = &mut self.parameters;
        inference.runner.run(pool, parameters, inputs, samples, &Scalars::default());
        inference.runner.read(inference.predictions, results);
        Ok(inference.total.map(|total| inference.runner.sum(total)[0]))
    }

    fn prepare_inference(&mut self, key: Key, loss: Option<&Loss>) -> Result<(), ModelError> {
        let threads = self.engine.pool().threads();
        if self.engine.plans.contains_key(&key) {
            return Ok(());
        }
        let images = if key.1 { DType::U8 } else { DType::F32 };
        let (plan, predictions, total) = self.inference_plan(loss, images, key.0, self.engine.level()?, threads)?;
        let inference = Inference { runner: Runner::new(plan, threads), predictions, total };
        self.engine.plans.insert(key, inference);
        Ok(())
    }
}
