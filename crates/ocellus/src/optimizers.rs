//! How weights move along their gradients; definitions and defaults are Keras'.
//!
//! ```
//! use ocellus::optimizers::{Adam, Sgd};
//! use ocellus::schedules::Schedule;
//! let adam = Adam::new().learning_rate(3e-4);
//! let sgd = Sgd::new().momentum(0.9).nesterov(true).learning_rate(Schedule::cosine(0.1, 10_000)).global_clipnorm(1.0);
//! ```

mod check;

use crate::schedules::Schedule;
use ocellus_engine::{Clip, Rule};
use serde::{Deserialize, Serialize};

/// Bounds on gradients; at most one is meant to be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Clipping {
    /// Every value is cut to `-v..=v`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clipvalue: Option<f32>,
    /// Each parameter's gradient is scaled down to this Euclidean norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clipnorm: Option<f32>,
    /// All gradients together are scaled down to this Euclidean norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_clipnorm: Option<f32>,
}

/// One line for each optimizer: its file, its type, its name in files (Keras' class name).
macro_rules! optimizers {
    ($($file:ident::$optimizer:ident, $class:literal;)*) => {
        $(mod $file; pub use $file::$optimizer;)*

        /// Any of the optimizers. In files, the field `class` names which.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "class")]
        pub enum Optimizer {
            $(
                #[doc = concat!("See [`", stringify!($optimizer), "`].")]
                #[serde(rename = $class)]
                $optimizer($optimizer),
            )*
        }

        impl Optimizer {
            /// The learning rate as a function of the step.
            pub fn learning_rate(&self) -> &Schedule {
                match self { $(Optimizer::$optimizer(optimizer) => &optimizer.learning_rate,)* }
            }

            pub(crate) fn rule(&self) -> Rule {
                match self { $(Optimizer::$optimizer(optimizer) => optimizer.rule(),)* }
            }

            fn clipping(&self) -> &Clipping {
                match self { $(Optimizer::$optimizer(optimizer) => &optimizer.clipping,)* }
            }
        }

        $(
            impl $optimizer {
                /// The optimizer with Keras' defaults.
                pub fn new() -> Self {
                    Self::default()
                }

                /// The learning rate: a number or a [`Schedule`].
                pub fn learning_rate(self, learning_rate: impl Into<Schedule>) -> Self {
                    Self { learning_rate: learning_rate.into(), ..self }
                }

                /// Cuts every value of the gradients to `-limit..=limit`.
                pub fn clipvalue(mut self, limit: f32) -> Self {
                    self.clipping.clipvalue = Some(limit);
                    self
                }

                /// Scales each parameter's gradient down to this Euclidean norm.
                pub fn clipnorm(mut self, limit: f32) -> Self {
                    self.clipping.clipnorm = Some(limit);
                    self
                }

                /// Scales all gradients together down to this Euclidean norm.
                pub fn global_clipnorm(mut self, limit: f32) -> Self {
                    self.clipping.global_clipnorm = Some(limit);
                    self
                }
            }

            impl From<$optimizer> for Optimizer {
                fn from(optimizer: $optimizer) -> Self {
                    Optimizer::$optimizer(optimizer)
                }
            }
        )*
    };
}

optimizers! {
    adagrad::Adagrad, "Adagrad";
    adam::Adam, "Adam";
    adamw::AdamW, "AdamW";
    lamb::Lamb, "Lamb";
    lion::Lion, "Lion";
    nadam::Nadam, "Nadam";
    rmsprop::RmsProp, "RMSprop";
    sgd::Sgd, "SGD";
}

impl Optimizer {
    pub(crate) fn clip(&self) -> Clip {
        let Clipping { clipvalue, clipnorm, global_clipnorm } = *self.clipping();
        Clip { value: clipvalue, norm: clipnorm, global_norm: global_clipnorm }
    }

    /// The rule and the coupled decay for a parameter whose weight decay is multiplied by this.
    pub(crate) fn rule_with_decay(&self, factor: f32) -> (Rule, f32) {
        let mut rule = self.rule();
        if let Rule::Adam { weight_decay, .. } | Rule::Lion { weight_decay, .. } | Rule::Lamb { weight_decay, .. } =
            &mut rule
        {
            *weight_decay *= factor;
        }
        let coupled = if let Optimizer::Sgd(sgd) = self { sgd.weight_decay * factor } else { 0.0 };
        (rule, coupled)
    }

    /// The optimizer of that name (one of [`NAMES`](Self::NAMES)) with Keras' defaults.
    pub fn named(name: &str) -> Option<Optimizer> {
        Some(match name {
            "sgd" => Sgd::new().into(),
            "rmsprop" => RmsProp::new().into(),
            "adagrad" => Adagrad::new().into(),
            "adam" => Adam::new().into(),
            "adamw" => AdamW::new().into(),
            "lamb" => Lamb::new().into(),
            "lion" => Lion::new().into(),
            "nadam" => Nadam::new().into(),
            _ => return None,
        })
    }

    /// The names that [`named`](Self::named) knows.
    pub const NAMES: [&str; 8] = ["adam", "adamw", "sgd", "rmsprop", "adagrad", "nadam", "lion", "lamb"];

    /// The same optimizer with another learning rate.
    pub fn with_learning_rate(mut self, learning_rate: impl Into<Schedule>) -> Self {
        *self.learning_rate_mut() = learning_rate.into();
        self
    }

    fn learning_rate_mut(&mut self) -> &mut Schedule {
        match self {
            Optimizer::Adagrad(optimizer) => &mut optimizer.learning_rate,
            Optimizer::Adam(optimizer) => &mut optimizer.learning_rate,
            Optimizer::AdamW(optimizer) => &mut optimizer.learning_rate,
            Optimizer::Lamb(optimizer) => &mut optimizer.learning_rate,
            Optimizer::Lion(optimizer) => &mut optimizer.learning_rate,
            Optimizer::Nadam(optimizer) => &mut optimizer.learning_rate,
            Optimizer::RmsProp(optimizer) => &mut optimizer.learning_rate,
            Optimizer::Sgd(optimizer) => &mut optimizer.learning_rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use ocellus_engine::ops::{Add, Dense, Epilogue};
    use ocellus_engine::{
        DType, Graph, Input, Level, ParameterId, ParameterKind, Parameters, Plan, PlanOptions, Pool, Runner, Scalars,
        Update, Value,
    };

    /// Five updates of two variables of eight numbers by given gradients: the loss is the sum of weight times input, so that
    /// the inputs are the gradients.
    fn updates(optimizer: &Optimizer, start: &[f32], gradients: &[f32]) -> Vec<f32> {
        let (mut graph, mut parameters) = (Graph::new(), Parameters::new());
        let inputs = [graph.input(&[8], DType::F32), graph.input(&[8], DType::F32)];
        let one = graph.input(&[1], DType::F32);
        let ids: Vec<ParameterId> = start
            .chunks(8)
            .enumerate()
            .map(|(n, half)| parameters.add(format!("half{n}"), &[8, 1], ParameterKind::Weight, half))
            .collect();
        let weights: Vec<Value> = ids.iter().map(|&id| graph.parameter(id, &[8, 1])).collect();
        let dense = Dense { epilogue: Epilogue::Linear };
        let sums = [0, 1].map(|n| graph.add(dense.clone(), &[inputs[n], weights[n]]).unwrap());
        let loss = graph.add(Add, &sums).unwrap();
        let total = graph.weighted_mean(loss, one).unwrap();
        let found = graph.gradients(total, &weights).unwrap();
        let rule = optimizer.rule();
        for (&parameter, gradient) in ids.iter().zip(found) {
            let state = (0..rule.state_count())
                .map(|n| {
                    let values = [rule.state_initial(n); 8];
                    parameters.add("state", &[8, 1], ParameterKind::OptimizerState, &values)
                })
                .collect();
            graph.update(Update {
                parameter,
                gradient: gradient.unwrap(),
                rule,
                state,
                l1: 0.0,
                l2: 0.0,
                learning_rate: 1.0,
                decay: 0.0,
            });
        }
        graph.set_clip(optimizer.clip());
        let plan = Plan::new(&graph, &[total], PlanOptions::new(1, Level::detect())).unwrap();
        let mut runner = Runner::new(plan, 1);
        let mut steps = Vec::new();
        for (n, gradient) in gradients.chunks(16).enumerate() {
            let inputs = [Input::F32(&gradient[..8]), Input::F32(&gradient[8..]), Input::F32(&[1.0])];
            let learning_rate = optimizer.learning_rate().at(n as u64);
            let scalars = Scalars { step: n as u64 + 1, learning_rate, ..Scalars::default() };
            runner.run(&mut Pool::new(1), &mut parameters, &inputs, 1, &scalars);
            ids.iter().for_each(|&id| steps.extend_from_slice(parameters.get(id).values()));
        }
        steps
    }

    #[test]
    fn agree_with_keras() {
        let golden = Golden::read("optimizers");
        let (start, gradients) = (golden.tensor("parameter"), golden.tensor("gradients"));
        for case in [
            "sgd",
            "sgd_momentum",
            "sgd_nesterov",
            "sgd_clipvalue",
            "sgd_clipnorm",
            "sgd_global_clipnorm",
            "rmsprop",
            "rmsprop_momentum",
            "rmsprop_centered",
            "rmsprop_centered_momentum",
            "adagrad",
            "adam",
            "adam_amsgrad",
            "adam_amsgrad_short_memory",
            "adam_large_epsilon",
            "adamw",
            "adamw_amsgrad",
        ] {
            let optimizer: Optimizer = golden.case(case);
            let found = updates(&optimizer, &start, &gradients);
            for (at, (found, expected)) in found.iter().zip(golden.tensor(case)).enumerate() {
                let difference = (found - expected).abs();
                assert!(difference <= 2e-6 * expected.abs().max(0.1), "{case}, {at}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn configurations_come_back_from_json() {
        for name in Optimizer::NAMES {
            let optimizer = Optimizer::named(name).unwrap().with_learning_rate(Schedule::cosine(0.1, 100));
            let json = serde_json::to_string(&optimizer).unwrap();
            assert_eq!(serde_json::from_str::<Optimizer>(&json).unwrap(), optimizer, "{json}");
        }
        assert!(Optimizer::named("adamax").is_none());
    }
}
