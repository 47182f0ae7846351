//! Brightness, contrast, saturation and hue changed at random.

use super::{Canvas, Occasion, Transform};
use crate::random::Random;
use serde::{Deserialize, Serialize};

/// Changes brightness, contrast, saturation and hue in random order, the first three by a factor from `1 - x` to `1 + x`, the hue
/// by up to a share of the circle to either side. Nothing where an argument is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColorJitter {
    /// How much brighter or darker.
    pub brightness: f32,
    /// How much more or less contrast.
    pub contrast: f32,
    /// How much more or less colour; for images of three channels.
    pub saturation: f32,
    /// How far the hue turns, at most one half; for images of three channels.
    pub hue: f32,
}

impl Transform for ColorJitter {
    fn problem(&self, shape: [usize; 3]) -> Option<String> {
        let factors = [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)];
        if let Some((name, value)) = factors.into_iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite())) {
            return Some(format!("{name}: expected a number of at least 0, received {value}"));
        }
        if !(0.0..=0.5).contains(&self.hue) {
            return Some(format!("hue: expected a number from 0 to 0.5, received {}", self.hue));
        }
        let colours = self.saturation != 0.0 || self.hue != 0.0;
        (colours && shape[2] != 3).then(|| {
            let channels = shape[2];
            format!("saturation and hue: expected images of 3 channels, received {channels}; leave them out")
        })
    }

    fn apply(&self, canvas: &mut Canvas<'_>, random: &mut Random, _occasion: Occasion) {
        let mut order = [0, 1, 2, 3];
        random.shuffle(&mut order);
        for which in order {
            let mut factor = |by: f32| random.uniform_in((1.0 - by).max(0.0), 1.0 + by);
            match which {
                0 if self.brightness != 0.0 => canvas.brightness(factor(self.brightness)),
                1 if self.contrast != 0.0 => canvas.contrast(factor(self.contrast)),
                2 if self.saturation != 0.0 => canvas.saturation(factor(self.saturation)),
                3 if self.hue != 0.0 => canvas.hue(random.uniform_in(-self.hue, self.hue)),
                _ => {}
            }
        }
    }
}
