//! A random part of an image, stretched over the whole.

use super::{Canvas, Occasion, Transform};
use crate::random::Random;
use serde::{Deserialize, Serialize};

/// A part of random size, shape and place. Szegedy et al., *Going deeper with convolutions*, 2015; arguments are torchvision's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomResizedCrop {
    /// The part's least and greatest share of the image's area.
    pub scale: [f32; 2],
    /// Its least and greatest width for its height, against the image's.
    pub ratio: [f32; 2],
}

/// Draws before the largest part that fits is taken.
const TRIES: usize = 10;

impl Default for RandomResizedCrop {
    fn default() -> Self {
        RandomResizedCrop { scale: [0.08, 1.0], ratio: [0.75, 4.0 / 3.0] }
    }
}

impl Transform for RandomResizedCrop {
    fn problem(&self, _shape: [usize; 3]) -> Option<String> {
        let ordered = |[low, high]: [f32; 2]| low > 0.0 && low <= high && high.is_finite();
        if !ordered(self.scale) || self.scale[1] > 1.0 {
            return Some(format!("scale: expected two ascending shares above 0, received {:?}", self.scale));
        }
        (!ordered(self.ratio))
            .then(|| format!("ratio: expected two ascending numbers above 0, received {:?}", self.ratio))
    }

    fn apply(&self, canvas: &mut Canvas<'_>, random: &mut Random, _occasion: Occasion) {
        let [rows, columns] = [canvas.shape[0] as f32, canvas.shape[1] as f32];
        for _ in 0..TRIES {
            let area = random.uniform_in(self.scale[0], self.scale[1]);
            let ratio = random.uniform_in(self.ratio[0].ln(), self.ratio[1].ln()).exp();
            let (height, width) = ((area / ratio).sqrt() * rows, (area * ratio).sqrt() * columns);
            if height <= rows && width <= columns {
                let (top, left) = (random.uniform() * (rows - height), random.uniform() * (columns - width));
                canvas.cut_out(top, left, height, width);
                return;
            }
        }
    }
}
