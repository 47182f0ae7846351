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

/// What an optimizer looks at to choose a parameter's rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved<'a> {
    pub(crate) shape: &'a [usize],
    /// Whether it is the kernel of a convolution or dense layer, but not of the last layer with parameters.
    pub(crate) is_hidden_kernel: bool,
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
    muon::Muon, "Muon";
    nadam::Nadam, "Nadam";
    rmsprop::RmsProp, "RMSprop";
    sgd::Sgd, "SGD";
}

impl Optimizer {
    pub(crate) fn clip(&self) -> Clip {
        let Clipping { clipvalue, clipnorm, global_clipnorm } = *self.clipping();
        Clip { value: clipvalue, norm: clipnorm, global_norm: global_clipnorm }
    }

    /// The rule for a parameter, and by what the learning rate is multiplied for it.
    pub(crate) fn rule_of(&self, parameter: Moved<'_>) -> (Rule, f32) {
        match self {
            Optimizer::Muon(muon) if parameter.is_hidden_kernel => (muon.matrix_rule(parameter.shape), 1.0),
            Optimizer::Muon(muon) => (muon.rule(), muon.rest),
            _ => (self.rule(), 1.0),
        }
    }

    /// A rule whose weight decay is multiplied by this, and the decay that is added to the gradient.
    pub(crate) fn with_decay(&self, mut rule: Rule, factor: f32) -> (Rule, f32) {
        if let Rule::Adam { weight_decay, .. }
        | Rule::Lion { weight_decay, .. }
        | Rule::Lamb { weight_decay, .. }
        | Rule::Muon { weight_decay, .. } = &mut rule
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
            "muon" => Muon::new().into(),
            "nadam" => Nadam::new().into(),
            _ => return None,
        })
    }

    /// The names that [`named`](Self::named) knows.
    pub const NAMES: [&str; 9] = ["adam", "adamw", "sgd", "rmsprop", "adagrad", "nadam", "lion", "lamb", "muon"];

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
            Optimizer::Muon(optimizer) => &mut optimizer.learning_rate,
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
    use ocellus_engine::ops::{Add, Dense, Epilogue, MeanSquaredError};
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

    /// Three steps of a kernel `[inputs][outputs]` with these gradients: samples are rows of the kernel, and targets lie as far from
    /// them as the gradient says.
    fn matrix_steps(
        optimizer: &Optimizer,
        [inputs, outputs]: [usize; 2],
        start: &[f32],
        gradients: &[Vec<f32>],
    ) -> Vec<f32> {
        let (mut graph, mut parameters) = (Graph::new(), Parameters::new());
        let one_hot = graph.input(&[inputs], DType::F32);
        let (target, weight) = (graph.input(&[outputs], DType::F32), graph.input(&[1], DType::F32));
        let shape = [inputs, outputs];
        let parameter = parameters.add("hidden/kernel", &shape, ParameterKind::Weight, start);
        let kernel = graph.parameter(parameter, &shape);
        let rows = graph.add(Dense { epilogue: Epilogue::Linear }, &[one_hot, kernel]).unwrap();
        let losses = graph.add(MeanSquaredError { label_smoothing: 0.0 }, &[rows, target]).unwrap();
        let total = graph.weighted_mean(losses, weight).unwrap();
        let gradient = graph.gradients(total, &[kernel]).unwrap()[0].unwrap();
        let (rule, rate) = optimizer.rule_of(Moved { shape: &shape, is_hidden_kernel: true });
        let zeros = vec![0.0; inputs * outputs];
        let state = vec![parameters.add("state", &shape, ParameterKind::OptimizerState, &zeros)];
        graph.update(Update { parameter, gradient, rule, state, l1: 0.0, l2: 0.0, learning_rate: rate, decay: 0.0 });
        let plan = Plan::new(&graph, &[total], PlanOptions::new(inputs, Level::detect())).unwrap();
        let (mut runner, mut pool) = (Runner::new(plan, 2), Pool::new(2));
        let one_hot: Vec<f32> = (0..inputs * inputs).map(|n| f32::from(u8::from(n % (inputs + 1) == 0))).collect();
        for (step, gradient) in (0..).zip(gradients) {
            let half = (inputs * outputs) as f32 / 2.0;
            let values = parameters.get(parameter).values();
            let targets: Vec<f32> =
                values.iter().zip(gradient).map(|(value, gradient)| value - half * gradient).collect();
            let ones = vec![1.0; inputs];
            let inputs_now = [Input::F32(&one_hot), Input::F32(&targets), Input::F32(&ones)];
            let learning_rate = optimizer.learning_rate().at(step);
            let scalars = Scalars { step: step + 1, learning_rate, ..Scalars::default() };
            runner.run(&mut pool, &mut parameters, &inputs_now, inputs, &scalars);
        }
        parameters.get(parameter).values().to_vec()
    }

    /// Kernels after three steps of `torch.optim.Muon` in single precision, by `reference/golden_muon.py`: outputs, inputs, numbers.
    #[test]
    #[rustfmt::skip]
    fn muon_agrees_with_pytorch() {
        let cases: [([usize; 2], &[f32]); 2] = [
            ([4, 6], &[0.2243092, 0.9507267, 0.7443336, 0.09230834, 0.6842791, -0.9968167, -0.9817731, 0.9390455, 0.7752303, -0.1620685, 0.6577942, -0.9457314, 0.138549, -0.9332149, 0.4429387, -0.4733288, 0.9633726, 0.9986604, -0.9158741, -0.9905931, 0.9803775, 0.799372, -0.07469138, 0.9078777]),
            ([6, 4], &[0.1910487, 0.9532045, 0.7232112, 0.1051924, 0.6964641, -0.9986017, -1.002931, 0.9337471, 0.8165276, -0.1408657, 0.6896619, -0.9261372, 0.1484957, -0.9665076, 0.4503087, -0.4903248, 0.9741761, 0.9919601, -0.9285765, -1.028476, 0.9767514, 0.8009356, -0.09063361, 0.9007239]),
        ];
        let optimizer = Muon::new().learning_rate(0.05).weight_decay(0.1).into();
        for ([outputs, inputs], expected) in cases {
            // Numbers by place in PyTorch's order, brought into ours.
            let place = |n: usize| (n % outputs) * inputs + n / outputs;
            let numbers = |a: f64, b: f64| -> Vec<f32> {
                (0..inputs * outputs).map(|n| (a * (place(n) as f64).powi(2) + b).sin() as f32).collect()
            };
            let gradients = [2.3, 3.3, 4.3].map(|a| numbers(a, 1.1));
            let found = matrix_steps(&optimizer, [inputs, outputs], &numbers(1.7, 0.3), &gradients);
            for (n, found) in found.iter().enumerate() {
                let expected = expected[place(n)];
                assert!((found - expected).abs() < 2e-5, "{outputs}x{inputs}, {n}: {found}, not {expected}");
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
