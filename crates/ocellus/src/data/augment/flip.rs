//! Images mirrored left and right, or up and down.

use super::{Canvas, Occasion, Transform};
use crate::random::{Purpose, Random};
use serde::{Deserialize, Serialize};

/// Mirrors an image, left and right where nothing else is said, as often as not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomFlip {
    /// How probable it is.
    pub probability: f32,
    /// Whether top and bottom are exchanged instead.
    pub vertical: bool,
}

impl Default for RandomFlip {
    fn default() -> Self {
        RandomFlip { probability: 0.5, vertical: false }
    }
}

impl RandomFlip {
    /// Left and right, every second time.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Transform for RandomFlip {
    fn problem(&self, _shape: [usize; 3]) -> Option<String> {
        super::share("probability", self.probability)
    }

    fn apply(&self, canvas: &mut Canvas<'_>, random: &mut Random, _occasion: Occasion) {
        if random.uniform() >= self.probability {
            return;
        }
        if self.vertical { canvas.upend() } else { canvas.mirror() }
    }
}

/// Mirrors an image in every second epoch; whether the first is one of them is random for each image. So two epochs show both
/// sides of each image.
///
/// Jordan, *94% on CIFAR-10 in 3.29 seconds on a single GPU*, 2024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlternatingFlip {}

impl Transform for AlternatingFlip {
    fn apply(&self, canvas: &mut Canvas<'_>, _random: &mut Random, Occasion { seed, epoch, sample }: Occasion) {
        // Of no epoch: the same in all.
        let first = Random::new(seed, Purpose::Augment, u64::MAX, sample).below(2);
        if (first + epoch) % 2 == 1 {
            canvas.mirror();
        }
    }
}
