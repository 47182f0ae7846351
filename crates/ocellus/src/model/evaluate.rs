//! How good a model is on labelled samples.

use super::batches::{BatchOptions, Batches};
use super::graph::Inference;
use super::{Images, Model, ModelError, Samples};
use crate::losses::Loss;
use crate::metrics::{Evaluation, Evaluator, Mean, Metric};

impl Model {
    /// Measures loss, accuracy, precision, recall and the confusion matrix on labelled samples.
    ///
    /// A model that was loaded and not compiled has the loss that it was trained with.
    ///
    /// # Errors
    /// Where the samples do not suit the model.
    pub fn evaluate<'a>(&mut self, samples: impl Into<Samples<'a>>) -> Result<Evaluation, ModelError> {
        let samples = samples.into();
        let loss = self.compiled.as_ref().map(|compiled| compiled.loss).or(self.record.loss);
        let loss = loss.unwrap_or_else(|| Loss::for_outputs(self.outputs()));
        loss.check(self.output_shape()).map_err(ModelError::Argument)?;
        let classes = self.outputs().max(2);
        let names = match samples.images {
            Images::Dataset(dataset) if dataset.class_count() == classes => dataset.class_names().to_vec(),
            _ if self.class_names.len() == classes => self.class_names.clone(),
            _ => (0..classes).map(|class| class.to_string()).collect(),
        };
        let mut evaluator = Evaluator::new(names);
        let mut batches = self.batches(samples, 32)?;
        self.measure(&mut batches, &loss, None, |predictions, labels, loss| {
            evaluator.update(predictions, labels, f64::from(loss));
        })?;
        Ok(evaluator.finish())
    }

    /// Batches in the order of the samples.
    pub(super) fn batches<'a>(&self, samples: Samples<'a>, batch_size: usize) -> Result<Batches<'a>, ModelError> {
        self.check_class_names(samples)?;
        let options = BatchOptions::in_order(batch_size);
        Batches::new(samples, self.input_shape(), self.outputs(), options)
    }

    /// Refuses a data set whose classes are not the model's: its labels would mean something else.
    pub(super) fn check_class_names(&self, samples: Samples<'_>) -> Result<(), ModelError> {
        let Images::Dataset(dataset) = samples.images else { return Ok(()) };
        let known = &self.class_names;
        if known.is_empty() || known == dataset.class_names() {
            return Ok(());
        }
        let stranger = dataset.class_names().iter().find(|name| !known.contains(name));
        Err(ModelError::Argument(match stranger {
            Some(name) => {
                format!("the data has a class {name:?} that the model does not know; it knows {}", known.join(", "))
            }
            None => {
                "the data's classes are in another order than the model's, or some are missing; open the data with \
                     the model's class names"
                    .into()
            }
        }))
    }

    /// Loss and metrics on validation samples, or on features with the plan for these, as `val_…` values; gives the loss.
    pub(super) fn validate(
        &mut self,
        batches: &mut Batches<'_>,
        loss: &Loss,
        features: Option<&mut Inference>,
        metrics: &mut [Box<dyn Metric + Send>],
        values: &mut Vec<(String, f64)>,
    ) -> Result<f64, ModelError> {
        let mut mean = Mean::new();
        metrics.iter_mut().for_each(|metric| metric.reset());
        self.measure(batches, loss, features, |predictions, labels, loss| {
            mean.update(f64::from(loss), labels.len() as f64);
            metrics.iter_mut().for_each(|metric| metric.update(predictions, labels, None));
        })?;
        let loss = mean.value() + self.penalty();
        values.push(("val_loss".into(), loss));
        values.extend(metrics.iter().map(|metric| (format!("val_{}", metric.name()), metric.value())));
        Ok(loss)
    }

    fn measure(
        &mut self,
        batches: &mut Batches<'_>,
        loss: &Loss,
        mut features: Option<&mut Inference>,
        mut take: impl FnMut(&[f32], &[u32], f32),
    ) -> Result<(), ModelError> {
        let (outputs, batch_size) = (self.outputs(), batches.batch_size());
        let mut predictions = vec![0.0; batch_size * outputs];
        batches.start_epoch(0);
        while let Some(batch) = batches.next_batch()? {
            let predictions = &mut predictions[..batch.samples() * outputs];
            let mean = match &mut features {
                Some(plan) => self.measure_from(plan, &batch.inputs(), batch.samples(), predictions),
                None => self.infer(&batch.inputs(), batch.samples(), batch_size, Some(loss), predictions)?,
            };
            take(predictions, batch.labels, mean.unwrap_or(f32::NAN));
        }
        Ok(())
    }

    /// What the weights' size adds to the loss.
    pub(super) fn penalty(&self) -> f64 {
        let specs = self.network.nodes.iter().flat_map(|node| &node.parameters);
        let penalised =
            specs.zip(self.layer_parameters.iter().flatten()).filter(|(spec, _)| !spec.regularizer.is_none());
        penalised.map(|(spec, &id)| spec.regularizer.penalty(self.parameters.get(id).values())).sum()
    }
}
