//! How weights move along their gradients; definitions and defaults are Keras'.
//!
//! ```
//! use ocellus::optimizers::{Adam, Sgd};
//! use ocellus::schedules::Schedule;
//! let adam = Adam::new().learning_rate(3e-4);
//! let sgd = Sgd::new().momentum(0.9).nesterov(true).learning_rate(Schedule::cosine(0.1, 10_000)).global_clipnorm(1.0);
//! ```

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
    rmsprop::RmsProp, "RMSprop";
    sgd::Sgd, "SGD";
}

impl Optimizer {
    pub(crate) fn clip(&self) -> Clip {
        let Clipping { clipvalue, clipnorm, global_clipnorm } = *self.clipping();
        Clip { value: clipvalue, norm: clipnorm, global_norm: global_clipnorm }
    }

    /// The optimizer of that name (`sgd`, `rmsprop`, `adagrad`, `adam`, `adamw`) with Keras' defaults.
    pub fn named(name: &str) -> Option<Optimizer> {
        Some(match name {
            "sgd" => Sgd::new().into(),
            "rmsprop" => RmsProp::new().into(),
            "adagrad" => Adagrad::new().into(),
            "adam" => Adam::new().into(),
            "adamw" => AdamW::new().into(),
            _ => return None,
        })
    }

    /// The names that [`named`](Self::named) knows.
    pub const NAMES: [&str; 5] = ["adam", "adamw", "sgd", "rmsprop", "adagrad"];

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
            Optimizer::RmsProp(optimizer) => &mut optimizer.learning_rate,
            Optimizer::Sgd(optimizer) => &mut optimizer.learning_rate,
        }
    }
}
