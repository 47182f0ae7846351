//! Images moved by some pixels.

use super::{Canvas, Edge, Occasion, Transform};
use crate::random::Random;
use serde::{Deserialize, Serialize};

/// Moves an image by up to so many pixels up or down and left or right: the random crop of a padded image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Translate {
    /// The largest distance along each axis; every whole distance is equally likely.
    pub pixels: u32,
    /// What comes in at the other side.
    #[serde(default)]
    pub edge: Edge,
}

impl Translate {
    /// By up to so many pixels; black comes in.
    pub fn new(pixels: u32) -> Self {
        Translate { pixels, edge: Edge::Zero }
    }

    /// What comes in at the other side.
    pub fn edge(self, edge: Edge) -> Self {
        Translate { edge, ..self }
    }
}

impl Transform for Translate {
    fn problem(&self, [height, width, _]: [usize; 3]) -> Option<String> {
        let smallest = height.min(width);
        (self.pixels as usize >= smallest.max(1))
            .then(|| format!("pixels: expected fewer than the image's {smallest}, received {}", self.pixels))
    }

    fn apply(&self, canvas: &mut Canvas<'_>, random: &mut Random, _occasion: Occasion) {
        let most = i64::from(self.pixels);
        let mut draw = || (random.below(2 * most as u64 + 1) as i64 - most) as isize;
        let (down, right) = (draw(), draw());
        canvas.shift(down, right, self.edge);
    }
}
