//! Images turned at random.

use super::{Canvas, Edge, Occasion, Transform};
use crate::random::Random;
use serde::{Deserialize, Serialize};

/// Turns an image about its middle by up to so many degrees to either side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// The largest angle.
    pub degrees: f32,
    /// What comes in at the corners.
    #[serde(default)]
    pub edge: Edge,
}

impl Rotate {
    /// By up to so many degrees; black comes in.
    pub fn new(degrees: f32) -> Self {
        Rotate { degrees, edge: Edge::Zero }
    }
}

impl Transform for Rotate {
    fn problem(&self, _shape: [usize; 3]) -> Option<String> {
        (!(0.0..=180.0).contains(&self.degrees))
            .then(|| format!("degrees: expected a number from 0 to 180, received {}", self.degrees))
    }

    fn apply(&self, canvas: &mut Canvas<'_>, random: &mut Random, _occasion: Occasion) {
        canvas.rotate(random.uniform_in(-self.degrees, self.degrees), self.edge);
    }
}
