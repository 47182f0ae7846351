//! What frozen layers give, computed once: where a model is cut, and a training that begins behind the cut.
//!
//! Layers that do not learn give the same for an image in every epoch. Where all that learns reads one value only, this value is
//! computed once for each image, and epochs run from there on.

use super::batches::{BatchOptions, Batches};
use super::graph::{Forward, Inference};
use super::learning::Learning;
use super::samples::{Samples, Targets};
use super::{Images, Model, ModelError};
use crate::losses::Loss;
use ocellus_engine::{DType, Input, Plan, PlanOptions, Runner, Scalars, fuse_for_inference};

/// Bytes that features may take.
const MOST_BYTES: usize = 1 << 30;
/// Images for each step that computes features.
const BATCH: usize = 32;

/// Where a model is cut.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cut {
    /// The layer whose output is kept.
    layer: usize,
    /// Its shape.
    pub(super) shape: Vec<usize>,
    /// For each layer, whether it comes before the cut.
    pub(super) before: Vec<bool>,
}

/// The features of some samples.
pub(super) struct Features<'a> {
    values: Vec<f32>,
    targets: FeatureTargets<'a>,
}

/// The classes that a data set's samples have, or what was given.
enum FeatureTargets<'a> {
    Classes(&'a [u32]),
    Values(&'a [f32]),
}

impl Features<'_> {
    /// As samples of a model that begins behind the cut.
    pub(super) fn samples(&self) -> Samples<'_> {
        let targets = match self.targets {
            FeatureTargets::Classes(classes) => Targets::Classes(classes),
            FeatureTargets::Values(values) => Targets::Values(values),
        };
        Samples { images: Images::F32(&self.values), targets }
    }
}

impl Model {
    /// Where the layers that stay the same end, if what follows reads one value of theirs only. Layers without weights are not
    /// worth it: the images are smaller than what is made of them, and no slower to read.
    pub(super) fn cut(&self, learning: &Learning) -> Option<Cut> {
        let Learning { trains, learns, .. } = learning;
        let layers = self.network.architecture.layers.iter();
        let mut before: Vec<bool> = Vec::with_capacity(trains.len());
        for (at, (config, node)) in layers.zip(&self.network.nodes).enumerate() {
            let changes = learns[at] || trains[at] && config.layer.differs_in_training();
            before.push(!changes && node.inputs.iter().all(|&input| input == 0 || before[input - 1]));
        }
        let read = self.network.nodes.iter().zip(&before).filter(|(_, before)| !**before);
        let mut read = read.flat_map(|(node, _)| &node.inputs).filter(|&&input| input == 0 || before[input - 1]);
        let first = *read.next()?;
        // Layers without parameters compute next to nothing, and a view of the images is no value to keep.
        let frozen = self.layer_parameters.iter().zip(&before).any(|(ids, &before)| before && !ids.is_empty());
        if !frozen || !read.all(|&other| other == first) {
            return None;
        }
        let layer = first.checked_sub(1)?;
        Some(Cut { layer, shape: self.network.nodes[layer].output_shape.clone(), before })
    }

    /// Whether the features of so many samples are few enough to keep.
    pub(super) fn can_keep(cut: &Cut, samples: usize) -> bool {
        cut.shape.iter().product::<usize>().saturating_mul(4 * samples) <= MOST_BYTES
    }

    /// What the layers before the cut give for each sample.
    pub(super) fn features<'a>(&mut self, cut: &Cut, samples: Samples<'a>) -> Result<Features<'a>, ModelError> {
        let options = BatchOptions::in_order(BATCH);
        let mut batches = Batches::new(samples, self.input_shape(), self.outputs(), options)?;
        let images = if samples.images.are_bytes() { DType::U8 } else { DType::F32 };
        let Forward { graph, outputs, .. } = self.forward(images)?;
        let fused = fuse_for_inference(&graph, &[outputs[cut.layer]])?;
        let value = fused.value(outputs[cut.layer]).expect("kept values stay");
        let (level, threads) = (self.engine.level()?, self.engine.pool().threads());
        let precision = self.precision.factors();
        let options = PlanOptions { threads, precision, ..PlanOptions::new(batches.batch_size(), level) };
        let mut runner = Runner::new(Plan::new(&fused.graph, &[value], options)?, threads);
        let length: usize = cut.shape.iter().product();
        let mut values = vec![0.0; batches.count() * length];
        let mut rest = &mut values[..];
        batches.start_epoch(0);
        while let Some(batch) = batches.next_batch()? {
            let count = batch.samples();
            runner.run(self.engine.pool(), &mut self.parameters, &[batch.images], count, &Scalars::default());
            let (these, others) = rest.split_at_mut(count * length);
            runner.read(value, these);
            rest = others;
        }
        let targets = match samples.targets {
            Targets::Classes(classes) => FeatureTargets::Classes(classes),
            Targets::Values(values) => FeatureTargets::Values(values),
        };
        Ok(Features { values, targets })
    }

    /// The plan that measures from features on.
    pub(super) fn measuring_from(&mut self, cut: &Cut, loss: &Loss, batch: usize) -> Result<Inference, ModelError> {
        let (level, threads) = (self.engine.level()?, self.engine.pool().threads());
        let (plan, predictions, total) =
            self.inference_plan_from(Some(cut), Some(loss), DType::F32, batch, level, threads)?;
        Ok(Inference { runner: Runner::new(plan, threads), predictions, total })
    }

    /// Runs a batch on a plan of [`measuring_from`](Self::measuring_from): fills in the predictions, gives the mean loss.
    pub(super) fn measure_from(
        &mut self,
        inference: &mut Inference,
        inputs: &[Input<'_>],
        samples: usize,
        predictions: &mut [f32],
    ) -> Option<f32> {
        let (pool, parameters) = (self.engine.pool(), &mut self.parameters);
        inference.runner.run(pool, parameters, inputs, samples, &Scalars::default());
        inference.runner.read(inference.predictions, predictions);
        inference.total.map(|total| inference.runner.sum(total)[0])
    }
}
