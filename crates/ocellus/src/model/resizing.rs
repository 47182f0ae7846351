//! Images that grow over a training: early epochs see small ones, which is faster and a regulariser of its own.
//!
//! Howard, *Training ImageNet in 18 minutes for $40* (fast.ai), 2018.

use super::network::Network;
use super::{Model, ModelError};
use serde::{Deserialize, Serialize};

/// The size of images over a training: it grows with the epochs from a share of both sides to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgressiveResizing {
    /// The share of both sides that the first epoch sees.
    pub from: f32,
    /// The share of the epochs after which images have their whole size.
    #[serde(default = "usual_end")]
    pub until: f32,
    /// Sides are multiples of this, save the whole ones.
    #[serde(default = "usual_multiple")]
    pub multiple: usize,
}

fn usual_end() -> f32 {
    0.75
}

fn usual_multiple() -> usize {
    4
}

impl ProgressiveResizing {
    /// From this share of both sides, growing over three quarters of the epochs.
    pub fn new(from: f32) -> Self {
        ProgressiveResizing { from, until: usual_end(), multiple: usual_multiple() }
    }

    /// What is wrong with the arguments.
    pub(crate) fn problem(&self) -> Option<String> {
        if !(self.from > 0.0 && self.from <= 1.0) {
            return Some(format!("resizing: from: expected a share above 0 and at most 1, received {}", self.from));
        }
        if !(self.until > 0.0 && self.until <= 1.0) {
            return Some(format!("resizing: until: expected a share above 0 and at most 1, received {}", self.until));
        }
        (self.multiple == 0).then(|| "resizing: multiple: expected at least 1, received 0".into())
    }

    /// The size of the images in an epoch of so many.
    pub(super) fn size(&self, whole: [usize; 2], epoch: u64, epochs: u64) -> [usize; 2] {
        let passed = epoch as f32 / (self.until * epochs as f32).max(1.0);
        if passed >= 1.0 {
            return whole;
        }
        let share = self.from + (1.0 - self.from) * passed;
        whole.map(|side| {
            let steps = (side as f32 * share / self.multiple as f32).round() as usize;
            (steps * self.multiple).clamp(self.multiple.min(side), side)
        })
    }
}

impl Model {
    /// The layers for images of another size, which have the same parameters.
    pub(super) fn network_at(&self, size: [usize; 2]) -> Result<Network, ModelError> {
        let mut architecture = self.network.architecture.clone();
        if let [height, width, _] = &mut architecture.input_shape[..] {
            (*height, *width) = (size[0], size[1]);
        }
        let refused = |problem: String| {
            let [height, width] = size;
            ModelError::Argument(format!("resizing: for images of {height}x{width}, {problem}"))
        };
        let network = architecture.check().map_err(|error| refused(error.to_string()))?;
        let shapes =
            |network: &Network| network.parameters().map(|(name, p)| (name, p.shape.clone())).collect::<Vec<_>>();
        let (here, there) = (shapes(&self.network), shapes(&network));
        match here.iter().zip(&there).find(|(a, b)| a != b) {
            None => Ok(network),
            Some(((name, _), _)) => Err(refused(format!(
                "{name} would have another shape; use a model that ends its convolutions with a global pooling"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_to_the_whole() {
        let sizes = |resizing: ProgressiveResizing, whole| {
            (0..8).map(|epoch| resizing.size(whole, epoch, 8)[0]).collect::<Vec<_>>()
        };
        assert_eq!(sizes(ProgressiveResizing::new(0.5), [32, 32]), [16, 20, 20, 24, 28, 28, 32, 32]);
        assert_eq!(sizes(ProgressiveResizing::new(0.1), [30, 30])[0], 4);
        assert_eq!(sizes(ProgressiveResizing::new(1.0), [30, 30]), [30; 8]);
        assert_eq!(sizes(ProgressiveResizing { multiple: 64, ..ProgressiveResizing::new(0.5) }, [32, 32]), [32; 8]);
        assert!(ProgressiveResizing::new(0.0).problem().is_some() && ProgressiveResizing::new(0.5).problem().is_none());
    }
}
