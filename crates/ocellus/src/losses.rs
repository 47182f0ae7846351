//! What training makes small; definitions and defaults are Keras'.

use ocellus_engine::{Graph, GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// A number for each sample that says how wrong the model's output is; training lowers its mean.
///
/// The output has one number for each class, or a single one where there are two classes. Targets are given as classes or
/// as numbers; classes become 1 for the right one and 0 for the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class", deny_unknown_fields)]
pub enum Loss {
    /// `-Σ target * ln(output)` for outputs that add up to 1. Softmax and this loss are computed as one.
    #[serde(rename = "CategoricalCrossentropy")]
    CategoricalCrossEntropy {
        /// The share of each target that is spread evenly over all classes.
        #[serde(default)]
        label_smoothing: f32,
        /// Whether the outputs come before softmax, which is then part of the loss.
        #[serde(default)]
        from_logits: bool,
    },
    /// The categorical cross-entropy, under the name Keras has for it where targets are classes.
    #[serde(rename = "SparseCategoricalCrossentropy")]
    SparseCategoricalCrossEntropy {
        /// Whether the outputs come before softmax, which is then part of the loss.
        #[serde(default)]
        from_logits: bool,
    },
    /// The mean of `-(target * ln(output) + (1 - target) * ln(1 - output))` for outputs that are probabilities each.
    #[serde(rename = "BinaryCrossentropy")]
    BinaryCrossEntropy {
        /// The share of each target that becomes one half.
        #[serde(default)]
        label_smoothing: f32,
        /// Whether the outputs come before the sigmoid, which is then part of the loss.
        #[serde(default)]
        from_logits: bool,
    },
    /// The mean of `(output - target)²`.
    MeanSquaredError,
}

impl Loss {
    /// For outputs that end in softmax.
    pub fn categorical_cross_entropy() -> Self {
        Loss::CategoricalCrossEntropy { label_smoothing: 0.0, from_logits: false }
    }

    /// For outputs that end in softmax; the name Keras has where targets are classes.
    pub fn sparse_categorical_cross_entropy() -> Self {
        Loss::SparseCategoricalCrossEntropy { from_logits: false }
    }

    /// For outputs that end in sigmoid.
    pub fn binary_cross_entropy() -> Self {
        Loss::BinaryCrossEntropy { label_smoothing: 0.0, from_logits: false }
    }

    /// For outputs that are numbers.
    pub fn mean_squared_error() -> Self {
        Loss::MeanSquaredError
    }

    /// Spreads this share of each target evenly; losses without such an argument stay as they are.
    pub fn label_smoothing(mut self, share: f32) -> Self {
        if let Loss::CategoricalCrossEntropy { label_smoothing, .. }
        | Loss::BinaryCrossEntropy { label_smoothing, .. } = &mut self
        {
            *label_smoothing = share;
        }
        self
    }

    /// Takes outputs as they are before softmax or sigmoid; losses without such an argument stay as they are.
    pub fn from_logits(mut self) -> Self {
        if let Loss::CategoricalCrossEntropy { from_logits, .. }
        | Loss::SparseCategoricalCrossEntropy { from_logits }
        | Loss::BinaryCrossEntropy { from_logits, .. } = &mut self
        {
            *from_logits = true;
        }
        self
    }

    /// The loss that suits a model with so many outputs, where it ends in softmax or sigmoid.
    pub fn for_outputs(outputs: usize) -> Self {
        if outputs == 1 { Loss::binary_cross_entropy() } else { Loss::categorical_cross_entropy() }
    }

    /// What is wrong with this loss for a model with such an output.
    pub(crate) fn check(&self, output_shape: &[usize]) -> Result<(), String> {
        let &[outputs] = output_shape else {
            return Err(format!(
                "the loss expects one row of outputs for each sample, but the model gives {}; end it with Flatten or \
                 a global pooling, and Dense",
                crate::layers::shape_text(output_shape)
            ));
        };
        let categorical =
            matches!(self, Self::CategoricalCrossEntropy { .. } | Self::SparseCategoricalCrossEntropy { .. });
        if categorical && outputs < 2 {
            return Err("categorical cross-entropy expects at least two outputs, but the model gives one; use binary \
                        cross-entropy"
                .into());
        }
        if !(0.0..1.0).contains(&self.smoothing()) {
            return Err(format!("label_smoothing must be at least 0 and below 1, received {}", self.smoothing()));
        }
        Ok(())
    }

    fn smoothing(&self) -> f32 {
        match *self {
            Self::CategoricalCrossEntropy { label_smoothing, .. } => label_smoothing,
            Self::BinaryCrossEntropy { label_smoothing, .. } => label_smoothing,
            _ => 0.0,
        }
    }

    /// The mean loss of outputs after softmax or sigmoid, computed here and not in a graph.
    pub(crate) fn mean(&self, outputs: &[f32], targets: &[f32], units: usize) -> f64 {
        let smoothing = f64::from(self.smoothing());
        let logarithm = |p: f64| p.max(1e-7).ln();
        let losses = outputs.iter().zip(targets).map(|(&p, &target)| {
            let (p, target) = (f64::from(p), f64::from(target));
            match self {
                Self::BinaryCrossEntropy { .. } => {
                    let target = target * (1.0 - smoothing) + smoothing / 2.0;
                    -(target * logarithm(p) + (1.0 - target) * logarithm(1.0 - p)) / units as f64
                }
                Self::MeanSquaredError => (p - target).powi(2) / units as f64,
                _ => -(target * (1.0 - smoothing) + smoothing / units as f64) * logarithm(p),
            }
        });
        losses.sum::<f64>() * units as f64 / outputs.len().max(1) as f64
    }

    /// Adds the loss for each sample to a graph; also gives the probabilities to measure accuracy by.
    pub(crate) fn add_to(&self, graph: &mut Graph, output: Value, target: Value) -> Result<(Value, Value), GraphError> {
        let label_smoothing = self.smoothing();
        let inputs = [output, target];
        let with_probabilities = |both: Vec<Value>| Ok((both[0], both[1]));
        match *self {
            Self::CategoricalCrossEntropy { from_logits: true, .. }
            | Self::SparseCategoricalCrossEntropy { from_logits: true } => {
                with_probabilities(graph.add_all(ops::SoftmaxCrossEntropy { label_smoothing }, &inputs)?)
            }
            Self::CategoricalCrossEntropy { .. } | Self::SparseCategoricalCrossEntropy { .. } => {
                Ok((graph.add(ops::CategoricalCrossEntropy { label_smoothing }, &inputs)?, output))
            }
            Self::BinaryCrossEntropy { from_logits: true, .. } => {
                with_probabilities(graph.add_all(ops::SigmoidBinaryCrossEntropy { label_smoothing }, &inputs)?)
            }
            Self::BinaryCrossEntropy { .. } => {
                Ok((graph.add(ops::BinaryCrossEntropy { label_smoothing }, &inputs)?, output))
            }
            Self::MeanSquaredError => Ok((graph.add(ops::MeanSquaredError { label_smoothing: 0.0 }, &inputs)?, output)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use ocellus_engine::{DType, Input, Level, Parameters, Plan, PlanOptions, Pool, Runner, Scalars};

    /// The mean loss of six samples of five outputs, and its gradient.
    fn compute(loss: &Loss, predictions: &[f32], targets: &[f32], weights: &[f32]) -> (f32, Vec<f32>) {
        let mut graph = Graph::new();
        let (x, target) = (graph.input(&[5], DType::F32), graph.input(&[5], DType::F32));
        let weight = graph.input(&[1], DType::F32);
        let (losses, _) = loss.add_to(&mut graph, x, target).unwrap();
        let total = graph.weighted_mean(losses, weight).unwrap();
        let gradient = graph.gradients(total, &[x]).unwrap()[0].unwrap();
        let plan = Plan::new(&graph, &[total, gradient], PlanOptions::new(6, Level::detect())).unwrap();
        let mut runner = Runner::new(plan, 1);
        let inputs = [Input::F32(predictions), Input::F32(targets), Input::F32(weights)];
        runner.run(&mut Pool::new(1), &mut Parameters::new(), &inputs, 6, &Scalars::default());
        let mut found = vec![0.0; 30];
        runner.read(gradient, &mut found);
        (runner.sum(total)[0], found)
    }

    #[test]
    fn agree_with_keras() {
        let golden = Golden::read("losses");
        for (case, target) in [
            ("categorical_crossentropy", "target/categorical"),
            ("categorical_crossentropy_smoothed", "target/categorical"),
            ("sparse_categorical_crossentropy", "target/categorical"),
            ("binary_crossentropy", "target/binary"),
            ("binary_crossentropy_smoothed", "target/binary"),
            ("mean_squared_error", "target/mean"),
        ] {
            let loss: Loss = golden.case(case);
            for (suffix, weights) in [("", vec![1.0; 6]), ("/weighted", golden.tensor("sample_weight"))] {
                let (value, gradient) = compute(&loss, &golden.tensor("predictions"), &golden.tensor(target), &weights);
                let expected = golden.tensor(&format!("{case}{suffix}"))[0];
                assert!((value / expected - 1.0).abs() < 1e-6, "{case}{suffix}: {value}, not {expected}");
                let expected = golden.tensor(&format!("{case}{suffix}/gradient"));
                for (found, expected) in gradient.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-6, "{case}{suffix}: gradient {found}, not {expected}");
                }
            }
            if case.starts_with("categorical") || case == "mean_squared_error" {
                // The predictions are logits; this takes what softmax makes of them.
                let mut outputs = golden.tensor("predictions");
                for row in outputs.chunks_exact_mut(5).filter(|_| case.starts_with("categorical")) {
                    let sum: f32 = row.iter().map(|logit| logit.exp()).sum();
                    row.iter_mut().for_each(|logit| *logit = logit.exp() / sum);
                }
                let mean = loss.mean(&outputs, &golden.tensor(target), 5);
                let expected = f64::from(golden.tensor(case)[0]);
                assert!((mean / expected - 1.0).abs() < 1e-4, "{case}: {mean}, not {expected}");
            }
        }
    }

    #[test]
    fn outputs_that_do_not_suit_are_named() {
        for (loss, shape, problem) in [
            (Loss::categorical_cross_entropy(), &[1][..], "use binary cross-entropy"),
            (Loss::mean_squared_error(), &[4, 4, 2], "the model gives 4x4x2"),
            (Loss::categorical_cross_entropy().label_smoothing(1.5), &[3], "label_smoothing must be at least 0"),
        ] {
            let error = loss.check(shape).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
