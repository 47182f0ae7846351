//! `Augment`: random changes to training images, made by the threads that load them.
//!
//! Changes are drawn for each sample by (seed, epoch, sample) alone, so an epoch is the same whichever thread makes it.
//!
//! ```
//! use ocellus::data::{Augment, augment::{AlternatingFlip, Edge, Translate}};
//! let augment = Augment::new().then(AlternatingFlip {}).then(Translate::new(2).edge(Edge::Reflect));
//! # assert_eq!(augment.transforms().len(), 2);
//! ```

mod canvas;
mod color;
mod color_jitter;
mod crop;
mod distortion;
mod erase;
mod flip;
mod mixing;
mod policies;
mod rotate;
mod shrink;
mod translate;
mod warp;

pub use canvas::{Canvas, Edge};
pub use color_jitter::ColorJitter;
pub use crop::RandomResizedCrop;
pub use erase::{Cutout, RandomErasing};
pub use flip::{AlternatingFlip, RandomFlip};
pub(crate) use mixing::Mixed;
pub use mixing::Mixing;
pub use policies::{AugMix, RandAugment, TrivialAugment};
pub use rotate::Rotate;
pub(crate) use shrink::shrink;
pub use translate::Translate;

use crate::random::{Purpose, Random};
use serde::{Deserialize, Serialize};

/// Where in a training an image is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// Key of everything random.
    pub seed: u64,
    /// The epoch, 0 for the first.
    pub epoch: u64,
    /// The image's number in its data set.
    pub sample: u64,
}

/// One kind of random change to an image.
pub trait Transform {
    /// What is wrong with the arguments, or with images of this shape (height, width, channels).
    fn problem(&self, _shape: [usize; 3]) -> Option<String> {
        None
    }

    /// Changes the image. `random` is the sample's own in this epoch, and goes from one transform to the next.
    fn apply(&self, canvas: &mut Canvas<'_>, random: &mut Random, occasion: Occasion);
}

/// One line for each transform: its file, its type.
macro_rules! transforms {
    ($($file:ident::$transform:ident;)*) => {
        /// Any of the transforms. In files, the field `class` names which.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "class")]
        pub enum AnyTransform {
            $(
                #[doc = concat!("See [`", stringify!($transform), "`].")]
                $transform($transform),
            )*
        }

        $(impl From<$transform> for AnyTransform {
            fn from(transform: $transform) -> Self {
                AnyTransform::$transform(transform)
            }
        })*

        impl AnyTransform {
            /// The transforms' names in files.
            pub const NAMES: &[&str] = &[$(stringify!($transform)),*];

            /// The transform's name in files.
            pub fn class(&self) -> &'static str {
                match self { $(AnyTransform::$transform(_) => stringify!($transform),)* }
            }
        }

        impl std::ops::Deref for AnyTransform {
            type Target = dyn Transform;

            fn deref(&self) -> &Self::Target {
                match self { $(AnyTransform::$transform(transform) => transform,)* }
            }
        }
    };
}

transforms! {
    color_jitter::ColorJitter;
    crop::RandomResizedCrop;
    erase::Cutout;
    erase::RandomErasing;
    flip::AlternatingFlip;
    flip::RandomFlip;
    policies::AugMix;
    policies::RandAugment;
    policies::TrivialAugment;
    rotate::Rotate;
    translate::Translate;
}

/// Random changes to make one after another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Augment {
    transforms: Vec<AnyTransform>,
}

impl Augment {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// These changes and then another.
    pub fn then(mut self, transform: impl Into<AnyTransform>) -> Self {
        self.transforms.push(transform.into());
        self
    }

    /// The changes in order.
    pub fn transforms(&self) -> &[AnyTransform] {
        &self.transforms
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.transforms.is_empty()
    }

    /// What is wrong with the arguments, or with images of this shape.
    pub fn problem(&self, shape: [usize; 3]) -> Option<String> {
        self.transforms.iter().find_map(|transform| {
            transform.problem(shape).map(|problem| format!("augmentation {}: {problem}", transform.class()))
        })
    }

    /// Changes an image of this shape; `spare` becomes as long and is used again from image to image.
    pub fn apply(&self, pixels: &mut [u8], shape: [usize; 3], spare: &mut Vec<u8>, occasion: Occasion) {
        spare.resize(pixels.len(), 0);
        let mut canvas = Canvas { pixels, spare, shape };
        let mut random = Random::new(occasion.seed, Purpose::Augment, occasion.epoch, occasion.sample);
        for transform in &self.transforms {
            transform.apply(&mut canvas, &mut random, occasion);
        }
    }
}

/// What is wrong with a share.
fn share(name: &str, value: f32) -> Option<String> {
    (!(0.0..=1.0).contains(&value)).then(|| format!("{name}: expected a number from 0 to 1, received {value}"))
}

#[cfg(test)]
mod tests;
