//! Rectangles of an image made black or noise.

use super::{Canvas, Occasion, Transform, share};
use crate::random::Random;
use serde::{Deserialize, Serialize};

/// Erases a rectangle of random size, shape and place.
///
/// Zhong et al., *Random erasing data augmentation*, 2020; arguments are torchvision's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomErasing {
    /// How probable it is.
    pub probability: f32,
    /// The rectangle's least and greatest share of the image's area.
    pub scale: [f32; 2],
    /// Its least and greatest height for its width.
    pub ratio: [f32; 2],
    /// Whether it is filled with noise; it is black by default.
    pub noise: bool,
}

/// Draws before the image stays as it is.
const TRIES: usize = 10;

impl Default for RandomErasing {
    fn default() -> Self {
        RandomErasing { probability: 0.5, scale: [0.02, 0.33], ratio: [0.3, 3.3], noise: false }
    }
}

impl Transform for RandomErasing {
    fn problem(&self, _shape: [usize; 3]) -> Option<String> {
        let ordered = |[low, high]: [f32; 2]| low > 0.0 && low <= high && high.is_finite();
        if !ordered(self.scale) || self.scale[1] >= 1.0 {
            return Some(format!("scale: expected two ascending shares between 0 and 1, received {:?}", self.scale));
        }
        if !ordered(self.ratio) {
            return Some(format!("ratio: expected two ascending numbers above 0, received {:?}", self.ratio));
        }
        share("probability", self.probability)
    }

    fn apply(&self, canvas: &mut Canvas<'_>, random: &mut Random, _occasion: Occasion) {
        if random.uniform() >= self.probability {
            return;
        }
        let [rows, columns, _] = canvas.shape;
        for _ in 0..TRIES {
            let area = random.uniform_in(self.scale[0], self.scale[1]) * (rows * columns) as f32;
            let ratio = random.uniform_in(self.ratio[0].ln(), self.ratio[1].ln()).exp();
            let (height, width) = ((area * ratio).sqrt().round() as usize, (area / ratio).sqrt().round() as usize);
            if (1..rows).contains(&height) && (1..columns).contains(&width) {
                let top = random.below((rows - height + 1) as u64) as usize;
                let left = random.below((columns - width + 1) as u64) as usize;
                fill(canvas, [top, top + height], [left, left + width], self.noise.then_some(random));
                return;
            }
        }
    }
}

/// Erases a square of fixed size around a random pixel, so that part of it may lie beyond the edge.
///
/// DeVries and Taylor, *Improved regularization of convolutional neural networks with cutout*, 2017.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cutout {
    /// The square's side.
    pub pixels: u32,
}

impl Transform for Cutout {
    fn apply(&self, canvas: &mut Canvas<'_>, random: &mut Random, _occasion: Occasion) {
        let [rows, columns, _] = canvas.shape;
        let side = self.pixels as usize;
        let mut span = |size: usize| {
            let middle = random.below(size as u64) as usize;
            [middle.saturating_sub(side / 2), (middle + side - side / 2).min(size)]
        };
        let (down, across) = (span(rows), span(columns));
        fill(canvas, down, across, None);
    }
}

fn fill(canvas: &mut Canvas<'_>, [top, bottom]: [usize; 2], [left, right]: [usize; 2], mut noise: Option<&mut Random>) {
    let [_, width, channels] = canvas.shape;
    for row in canvas.pixels.chunks_exact_mut(width * channels).take(bottom).skip(top) {
        let part = &mut row[left * channels..right * channels];
        match &mut noise {
            Some(random) => part.iter_mut().for_each(|value| *value = random.below(256) as u8),
            None => part.fill(0),
        }
    }
}
