//! `Recipe`: everything about a training that is worth writing down and giving a name, as one file.
//!
//! ```
//! use ocellus::recipe::{Curve, Recipe};
//! let recipe = Recipe { epochs: Some(9.9), schedule: Some(Curve::Cosine { warm_up: 0.1, end: 0.0 }), ..Recipe::default() };
//! let plan = recipe.steps(50_000, 1024, 10.0);
//! assert_eq!((plan.epochs, plan.steps), (10, 490));
//! ```

use crate::data::Augment;
use crate::data::augment::Mixing;
use crate::losses::Loss;
use crate::model::{
    Averaging, Distillation, FitOptions, Images, Model, ModelError, ParameterGroup, Precision, ProgressiveResizing,
    Views,
};
use crate::optimizers::Optimizer;
use crate::schedules::Schedule;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A training as a file describes it; what is left out is as usual.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// The name of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How often the data is gone through; the last time may be in part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Samples in a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// What is computed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// Whether samples that do not fill a last batch are left out of an epoch.
    pub drop_last: bool,
    /// How many batches move the weights together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accumulate: Option<usize>,
    /// The share of each target that is spread evenly over all classes.
    pub label_smoothing: f32,
    /// The views of a test image that are averaged over, beside the image alone.
    pub views: Views,
    /// How weights move; its learning rate is the highest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Optimizer>,
    /// What the learning rate is over the training, against its highest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Curve>,
    /// Which average of the weights is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub averaging: Option<Averaging>,
    /// A first convolution that begins with whitening filters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whitening: Option<Whitening>,
    /// Random changes to training images, one after another.
    #[serde(skip_serializing_if = "Augment::is_empty")]
    pub augment: Augment,
    /// The size of training images over the epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resizing: Option<ProgressiveResizing>,
    /// How images and targets of a batch are mixed.
    #[serde(skip_serializing_if = "Mixing::is_none")]
    pub mixing: Mixing,
    /// A model to learn from, beside the targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Teaching>,
    /// Parameters that learn in their own way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParameterGroup>,
}

/// See [`Distillation`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teaching {
    /// The file of the model to learn from.
    pub teacher: PathBuf,
    /// What the logits of both are divided by.
    #[serde(default = "usual_temperature")]
    pub temperature: f32,
    /// The teacher's share of the loss.
    #[serde(default = "usual_weight")]
    pub weight: f32,
}

fn usual_temperature() -> f32 {
    Distillation::TEMPERATURE
}

fn usual_weight() -> f32 {
    Distillation::WEIGHT
}

impl Teaching {
    /// From this model as usual.
    pub fn new(teacher: PathBuf) -> Self {
        Teaching { teacher, temperature: usual_temperature(), weight: usual_weight() }
    }

    /// What is wrong with the arguments.
    pub fn problem(&self) -> Option<String> {
        Distillation::problem(self.temperature, self.weight)
    }
}

/// See [`Model::whiten`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whitening {
    /// The name of the convolution.
    pub layer: String,
    /// How many training images are measured.
    #[serde(default = "some_images")]
    pub images: usize,
    /// Added to the variances.
    #[serde(default = "some_epsilon")]
    pub epsilon: f32,
}

fn some_images() -> usize {
    5000
}

fn some_epsilon() -> f32 {
    5e-4
}

/// The learning rate over a training of any length: places are shares of all steps, heights shares of the highest rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class", deny_unknown_fields)]
pub enum Curve {
    /// Always the highest, after a linear way up.
    Constant {
        /// The share of the steps that leads up.
        #[serde(default)]
        warm_up: f64,
    },
    /// Up along a straight line and down along another.
    Triangle {
        /// The share of the steps that leads up.
        warm_up: f64,
        /// Where it begins.
        #[serde(default)]
        start: f64,
        /// Where it ends.
        #[serde(default)]
        end: f64,
    },
    /// Down along half a cosine, after a linear way up.
    Cosine {
        /// The share of the steps that leads up.
        #[serde(default)]
        warm_up: f64,
        /// Where it ends.
        #[serde(default)]
        end: f64,
    },
    /// Down along half a cosine again and again.
    CosineRestarts {
        /// The share of the steps that leads up.
        #[serde(default)]
        warm_up: f64,
        /// How many ways down there are.
        cycles: u32,
        /// How many times as long each is as the one before.
        #[serde(default = "same")]
        factor: f64,
        /// Where each ends.
        #[serde(default)]
        end: f64,
    },
    /// Down along a power of what remains, after a linear way up.
    Polynomial {
        /// The share of the steps that leads up.
        #[serde(default)]
        warm_up: f64,
        /// The power; 1 for a straight line.
        #[serde(default = "same")]
        power: f64,
        /// Where it ends.
        #[serde(default)]
        end: f64,
    },
    /// Down by a factor at once, some times.
    Steps {
        /// The share of the steps that leads up.
        #[serde(default)]
        warm_up: f64,
        /// Where, ascending.
        at: Vec<f64>,
        /// By which factor each time.
        #[serde(default = "tenth")]
        factor: f64,
    },
    /// PyTorch's one-cycle policy: up and down along half a cosine each.
    OneCycle {
        /// The share of the steps that leads up.
        #[serde(default = "three_tenths")]
        warm_up: f64,
        /// Where it begins.
        #[serde(default = "twenty_fifth")]
        start: f64,
        /// Where it ends.
        #[serde(default)]
        end: f64,
    },
}

fn same() -> f64 {
    1.0
}

fn tenth() -> f64 {
    0.1
}

fn three_tenths() -> f64 {
    0.3
}

fn twenty_fifth() -> f64 {
    0.04
}

impl Curve {
    /// What is wrong with the arguments.
    pub fn problem(&self) -> Option<String> {
        let (warm_up, heights, others): (f64, Vec<f64>, Vec<f64>) = match self {
            Curve::Constant { warm_up } => (*warm_up, vec![], vec![]),
            Curve::Triangle { warm_up, start, end } | Curve::OneCycle { warm_up, start, end } => {
                (*warm_up, vec![*start, *end], vec![])
            }
            Curve::Cosine { warm_up, end } => (*warm_up, vec![*end], vec![]),
            Curve::CosineRestarts { warm_up, cycles, factor, end } => {
                if *cycles == 0 || *factor < 1.0 {
                    return Some("schedule: expected at least 1 of cycles and a factor of at least 1".into());
                }
                (*warm_up, vec![*end], vec![*factor])
            }
            Curve::Polynomial { warm_up, power, end } => (*warm_up, vec![*end], vec![*power]),
            Curve::Steps { warm_up, at, factor } => {
                if !at.is_sorted() || at.iter().any(|at| !(0.0..=1.0).contains(at)) {
                    return Some(format!("schedule: expected at to be ascending shares from 0 to 1, received {at:?}"));
                }
                (*warm_up, vec![*factor], vec![])
            }
        };
        if !(0.0..1.0).contains(&warm_up) {
            return Some(format!("schedule: expected a warm_up of at least 0 and below 1, received {warm_up}"));
        }
        if let Some(height) = heights.into_iter().find(|height| !(0.0..=1.0).contains(height)) {
            return Some(format!("schedule: expected start, end and factor from 0 to 1, received {height}"));
        }
        let wrong = others.into_iter().find(|value| !(value.is_finite() && *value > 0.0))?;
        Some(format!("schedule: expected a finite number above 0, received {wrong}"))
    }

    /// The schedule of a training of so many steps, with this highest learning rate.
    pub fn schedule(&self, highest: f32, steps: u64) -> Schedule {
        let place = |share: f64| (steps as f64 * share) as u64;
        let height = |share: f64| (f64::from(highest) * share) as f32;
        let warmed = |schedule: Schedule, warm_up: u64| if warm_up > 0 { schedule.warm_up(warm_up) } else { schedule };
        match *self {
            Curve::Constant { warm_up } => warmed(highest.into(), place(warm_up)),
            Curve::Triangle { warm_up, start, end } => {
                let rates = [height(start), highest, height(end)];
                match place(warm_up) {
                    0 => Schedule::piecewise_linear([0, steps], [highest, rates[2]]),
                    top => Schedule::piecewise_linear([0, top, steps], rates),
                }
            }
            Curve::Cosine { warm_up, end } => {
                let top = place(warm_up);
                let down = Schedule::CosineDecay {
                    initial_learning_rate: highest,
                    decay_steps: steps - top,
                    alpha: end as f32,
                    warmup_target: None,
                    warmup_steps: 0,
                };
                warmed(down, top)
            }
            Curve::CosineRestarts { warm_up, cycles, factor, end } => {
                let top = place(warm_up);
                let lengths: f64 = (0..cycles).map(|cycle| factor.powi(cycle as i32)).sum();
                let down = Schedule::CosineDecayRestarts {
                    initial_learning_rate: highest,
                    first_decay_steps: ((steps - top) as f64 / lengths).ceil() as u64,
                    t_mul: factor as f32,
                    m_mul: 1.0,
                    alpha: end as f32,
                };
                warmed(down, top)
            }
            Curve::Polynomial { warm_up, power, end } => {
                let top = place(warm_up);
                warmed(Schedule::polynomial(highest, steps - top, height(end), power as f32), top)
            }
            Curve::Steps { warm_up, ref at, factor } => {
                let top = place(warm_up);
                // A boundary is the last step of the rate before it.
                let boundaries: Vec<u64> =
                    at.iter().map(|&at| place(at).saturating_sub(top).saturating_sub(1)).collect();
                let values: Vec<f32> = (0..=at.len()).map(|n| height(factor.powi(n as i32))).collect();
                warmed(Schedule::piecewise_constant(boundaries, values), top)
            }
            Curve::OneCycle { warm_up, start, end } => Schedule::OneCycle {
                max_learning_rate: highest,
                total_steps: steps,
                pct_start: warm_up as f32,
                div_factor: (1.0 / start.max(1e-9)) as f32,
                final_div_factor: (start.max(1e-9) / end.max(1e-9)) as f32,
            },
        }
    }
}

/// How long a training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// Epochs begun.
    pub epochs: u64,
    /// Steps in all.
    pub steps: u64,
}

impl Recipe {
    /// What is wrong with the arguments.
    pub fn problem(&self) -> Option<String> {
        if let Some(epochs) = self.epochs
            && !(epochs > 0.0 && epochs.is_finite())
        {
            return Some(format!("epochs: expected a number above 0, received {epochs}"));
        }
        for (name, number) in [("batch_size", self.batch_size), ("accumulate", self.accumulate)] {
            if number == Some(0) {
                return Some(format!("{name}: expected a whole number, at least 1"));
            }
        }
        if self.precision == Some(Precision::Int8) {
            return Some("precision: expected f32 or bf16; int8 is for predictions only".into());
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Some(format!(
                "label_smoothing: expected at least 0 and below 1, received {}",
                self.label_smoothing
            ));
        }
        self.schedule
            .as_ref()
            .and_then(Curve::problem)
            .or(self.averaging.and_then(|averaging| averaging.problem()))
            .or(self.mixing.problem())
            .or(self.distillation.as_ref().and_then(Teaching::problem))
            .or(self.resizing.and_then(|resizing| resizing.problem()))
    }

    /// How long a training on so many samples is.
    pub fn steps(&self, samples: usize, batch_size: usize, epochs: f64) -> Length {
        let batch_size = batch_size.clamp(1, samples.max(1));
        let each = if self.drop_last { samples / batch_size } else { samples.div_ceil(batch_size) }.max(1);
        let each = each.div_ceil(self.accumulate.unwrap_or(1).max(1));
        Length { epochs: epochs.ceil() as u64, steps: (each as f64 * epochs).ceil() as u64 }
    }

    /// The optimizer with the learning rate over a training of this length.
    pub fn scheduled(&self, optimizer: Optimizer, length: Length) -> Optimizer {
        let Some(curve) = &self.schedule else { return optimizer };
        let highest = optimizer.learning_rate().at(0);
        optimizer.with_learning_rate(curve.schedule(highest, length.steps))
    }

    /// The loss for so many outputs after softmax or sigmoid.
    pub fn loss(&self, outputs: usize) -> Loss {
        Loss::for_outputs(outputs).label_smoothing(self.label_smoothing)
    }

    /// First weights that depend on the training images.
    ///
    /// # Errors
    /// Where the model has no such layer.
    pub fn initialize<'a>(&self, model: &mut Model, images: impl Into<Images<'a>>) -> Result<(), ModelError> {
        let Some(Whitening { layer, images: count, epsilon }) = &self.whitening else { return Ok(()) };
        model.whiten(layer, images, *count, *epsilon)
    }

    /// Adds to the arguments of [`Model::fit`] what the recipe says of them; all but the teacher, which the caller loads and gives to
    /// [`FitOptions::distillation`].
    pub fn options<'a>(&self, mut options: FitOptions<'a>, length: Length) -> FitOptions<'a> {
        options.groups.extend_from_slice(&self.groups);
        FitOptions {
            epochs: length.epochs,
            steps: Some(length.steps),
            drop_last: self.drop_last,
            accumulate: self.accumulate.unwrap_or(1),
            augment: self.augment.clone(),
            mixing: self.mixing,
            resizing: self.resizing,
            averaging: self.averaging,
            ..options
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates at the beginning, a quarter, half, three quarters and the last of 100 steps.
    fn rates(curve: &Curve) -> [f32; 5] {
        let schedule = curve.schedule(2.0, 100);
        [0, 25, 50, 75, 99].map(|step| schedule.at(step))
    }

    #[test]
    fn curves_fill_the_training() {
        for (curve, expected) in [
            (Curve::Constant { warm_up: 0.5 }, [0.0, 1.0, 2.0, 2.0, 2.0]),
            (Curve::Triangle { warm_up: 0.25, start: 0.2, end: 0.1 }, [0.4, 2.0, 1.4, 0.8, 0.224]),
            (Curve::Cosine { warm_up: 0.0, end: 0.5 }, [2.0, 1.853_553, 1.5, 1.146_446, 1.000_247]),
            (Curve::Cosine { warm_up: 0.5, end: 0.0 }, [0.0, 1.0, 2.0, 1.0, 0.001_973]),
            (Curve::CosineRestarts { warm_up: 0.0, cycles: 2, factor: 1.0, end: 0.0 }, [2.0, 1.0, 2.0, 1.0, 0.001_973]),
            (Curve::Polynomial { warm_up: 0.0, power: 1.0, end: 0.0 }, [2.0, 1.5, 1.0, 0.5, 0.02]),
            (Curve::Steps { warm_up: 0.0, at: vec![0.5, 0.75], factor: 0.1 }, [2.0, 2.0, 0.2, 0.02, 0.02]),
        ] {
            let found = rates(&curve);
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{curve:?}: {found:?}");
        }
    }

    #[test]
    fn the_last_epoch_may_be_in_part() {
        let recipe = Recipe { drop_last: true, ..Recipe::default() };
        assert_eq!(recipe.steps(50_000, 1024, 9.9), Length { epochs: 10, steps: 476 });
        assert_eq!(Recipe::default().steps(50_000, 1024, 2.0), Length { epochs: 2, steps: 98 });
        assert_eq!(recipe.steps(10, 32, 3.0), Length { epochs: 3, steps: 3 });
    }

    #[test]
    fn senseless_recipes_are_named() {
        let recipe = |json: &str| serde_json::from_str::<Recipe>(json).unwrap();
        for (json, problem) in [
            (r#"{"epochs":0}"#, "epochs: expected"),
            (r#"{"batch_size":0}"#, "batch_size: expected"),
            (r#"{"precision":"int8"}"#, "precision: expected f32 or bf16"),
            (r#"{"label_smoothing":1.0}"#, "label_smoothing: expected"),
            (r#"{"schedule":{"class":"Triangle","warm_up":1.5}}"#, "schedule: expected a warm_up"),
            (r#"{"schedule":{"class":"Steps","at":[0.7,0.2]}}"#, "schedule: expected at"),
            (r#"{"schedule":{"class":"Cosine","end":-1.0}}"#, "schedule: expected start, end"),
            (r#"{"averaging":{"class":"Exponential","decay":2.0}}"#, "averaging: expected a decay"),
        ] {
            let found = recipe(json).problem().unwrap();
            assert!(found.contains(problem), "{json}: {found}");
        }
        assert_eq!(recipe("{}").problem(), None);
        assert!(serde_json::from_str::<Recipe>(r#"{"epoch":3}"#).is_err());
    }
}
