//! Losses: one number for each sample from predictions and targets of the same shape `[classes]`.
//!
//! Targets are probabilities, one-hot or not; there is no gradient for them. Definitions are Keras'.

use super::{count, same, sample};
use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Spec, Target, Value};
use ocellus_kernels::{Level, loss};

/// What the losses differ in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    SoftmaxCrossEntropy,
    CategoricalCrossEntropy,
    SigmoidBinaryCrossEntropy,
    BinaryCrossEntropy,
    MeanSquaredError,
}

macro_rules! losses {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            /// Share of each target that is spread evenly over the classes.
            pub label_smoothing: f32,
        }

        impl Op for $name {
            fn name(&self) -> &'static str {
                stringify!($name)
            }
            fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
                outputs(Kind::$name, inputs)
            }
            fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
                let kind = Kind::$name;
                Box::new(RunLoss { level, kind, classes: inputs[0].channels(), smoothing: self.label_smoothing })
            }
            fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
                gradient(Kind::$name, self.label_smoothing, at)
            }
        }
    )*};
}

losses! {
    /// Inputs: logits, targets. Outputs: `-Σ t·ln softmax(x)`, and the probabilities `softmax(x)`.
    SoftmaxCrossEntropy,
    /// Inputs: probabilities, targets. Output: `-Σ t·ln p`.
    CategoricalCrossEntropy,
    /// Inputs: logits, targets. Outputs: the mean over classes of `-(t·ln σ(x) + (1-t)·ln(1-σ(x)))`, and `σ(x)`.
    SigmoidBinaryCrossEntropy,
    /// Inputs: probabilities, targets. Output: the mean over classes of `-(t·ln p + (1-t)·ln(1-p))`.
    BinaryCrossEntropy,
    /// Inputs: predictions, targets. Output: the mean over classes of `(p - t)²`; smoothing must be 0.
    MeanSquaredError,
}

impl Kind {
    /// Whether it takes logits and gives the probabilities beside the loss.
    fn takes_logits(self) -> bool {
        matches!(self, Kind::SoftmaxCrossEntropy | Kind::SigmoidBinaryCrossEntropy)
    }
}

fn outputs(kind: Kind, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
    count(inputs, 2..=2)?;
    inputs.iter().try_for_each(|spec| sample(spec))?;
    same(inputs[0], inputs[1])?;
    if inputs[0].shape.len() != 1 {
        return Err(format!("expected one axis of classes, received {}; add Flatten or global pooling", inputs[0]));
    }
    let loss = Spec::sample([1]);
    Ok(if kind.takes_logits() { vec![loss, inputs[0].clone()] } else { vec![loss] })
}

fn gradient(kind: Kind, smoothing: f32, at: &mut Backward<'_>) -> Result<(), GraphError> {
    let (predictions, targets, seed) = (at.inputs[0], at.inputs[1], at.gradient());
    let from: Value = if kind.takes_logits() { at.outputs[1] } else { predictions };
    let gradient = at.add(LossBackward { kind, smoothing }, &[from, targets, seed])?;
    at.set(0, gradient);
    Ok(())
}

#[derive(Debug)]
struct RunLoss {
    level: Level,
    kind: Kind,
    classes: usize,
    smoothing: f32,
}

impl Run for RunLoss {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let (level, classes, smoothing) = (self.level, self.classes, self.smoothing);
        let (x, t) = (inputs.f32(0), inputs.f32(1));
        let (first, rest) = outputs.split_at_mut(1);
        let l = first[0].f32();
        match (self.kind, rest) {
            (Kind::SoftmaxCrossEntropy, [p]) => {
                loss::softmax_cross_entropy(level, classes, smoothing, x, t, p.f32(), l);
            }
            (Kind::SigmoidBinaryCrossEntropy, [p]) => {
                loss::sigmoid_binary_cross_entropy(level, classes, smoothing, x, t, p.f32(), l);
            }
            (Kind::CategoricalCrossEntropy, _) => {
                loss::categorical_cross_entropy(level, classes, smoothing, x, t, l);
            }
            (Kind::BinaryCrossEntropy, _) => loss::binary_cross_entropy(level, classes, smoothing, x, t, l),
            (Kind::MeanSquaredError, _) => loss::mean_squared_error(level, classes, x, t, l),
            _ => unreachable!("losses from logits have two outputs"),
        }
    }
}

/// Inputs: probabilities or predictions, targets, gradient of the loss. Output: gradient of logits or predictions.
#[derive(Clone, Debug)]
struct LossBackward {
    kind: Kind,
    smoothing: f32,
}

impl Op for LossBackward {
    fn name(&self) -> &'static str {
        "LossBackward"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunBackward { level, op: self.clone(), classes: inputs[0].channels() })
    }
}

#[derive(Debug)]
struct RunBackward {
    level: Level,
    op: LossBackward,
    classes: usize,
}

impl Run for RunBackward {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let (level, classes, smoothing) = (self.level, self.classes, self.op.smoothing);
        let (p, t, seed, dx) = (inputs.f32(0), inputs.f32(1), inputs.f32(2), outputs[0].f32());
        match self.op.kind {
            Kind::SoftmaxCrossEntropy => {
                loss::softmax_cross_entropy_backward(level, classes, smoothing, p, t, seed, dx);
            }
            Kind::SigmoidBinaryCrossEntropy => {
                loss::sigmoid_binary_cross_entropy_backward(level, classes, smoothing, p, t, seed, dx);
            }
            Kind::CategoricalCrossEntropy => {
                loss::categorical_cross_entropy_backward(level, classes, smoothing, p, t, seed, dx);
            }
            Kind::BinaryCrossEntropy => {
                loss::binary_cross_entropy_backward(level, classes, smoothing, p, t, seed, dx);
            }
            Kind::MeanSquaredError => loss::mean_squared_error_backward(level, classes, p, t, seed, dx),
        }
    }
}
