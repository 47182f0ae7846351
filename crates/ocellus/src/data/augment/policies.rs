//! Published policies: distortions drawn at random for each image.
//!
//! Of images that are not of three channels, the distortion of colours leaves all as it is.

use super::distortion::{Distortion, Range, distort};
use super::{Canvas, Occasion, Transform};
use crate::random::Random;
use serde::{Deserialize, Serialize};

/// Some distortions, all of the same strength.
///
/// Cubuk et al., *RandAugment: practical automated data augmentation with a reduced search space*, 2020; ranges are torchvision's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandAugment {
    /// How many distortions.
    pub count: u32,
    /// How strong, from 0 to 30.
    pub magnitude: f32,
}

impl Default for RandAugment {
    fn default() -> Self {
        RandAugment { count: 2, magnitude: 9.0 }
    }
}

const RAND: Range = Range { shear: 0.3, translate: (150.0 / 331.0, 0.0), degrees: 30.0, factor: 0.9, bits: 4 };

impl Transform for RandAugment {
    fn problem(&self, _shape: [usize; 3]) -> Option<String> {
        if self.count > 16 {
            return Some(format!("count: expected at most 16, received {}", self.count));
        }
        (!(0.0..=30.0).contains(&self.magnitude))
            .then(|| format!("magnitude: expected a number from 0 to 30, received {}", self.magnitude))
    }

    fn apply(&self, canvas: &mut Canvas<'_>, random: &mut Random, _occasion: Occasion) {
        for _ in 0..self.count {
            let what = drawn(&Distortion::ALL, random);
            distort(canvas, what, self.magnitude / 30.0, &RAND, random);
        }
    }
}

/// One distortion of random strength: no argument to choose.
///
/// Müller and Hutter, *TrivialAugment: tuning-free yet state-of-the-art data augmentation*, 2021, with its wide ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrivialAugment {}

const WIDE: Range = Range { shear: 0.99, translate: (0.0, 32.0), degrees: 135.0, factor: 0.99, bits: 2 };

impl Transform for TrivialAugment {
    fn apply(&self, canvas: &mut Canvas<'_>, random: &mut Random, _occasion: Occasion) {
        let what = drawn(&Distortion::ALL, random);
        let strength = random.below(31) as f32 / 30.0;
        distort(canvas, what, strength, &WIDE, random);
    }
}

/// The image mixed with some chains of distortions of it.
///
/// Hendrycks et al., *AugMix: a simple data processing method to improve robustness and uncertainty*, 2020, without its loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugMix {
    /// How strong distortions are, from 0 to 10.
    pub severity: f32,
    /// How many chains, of one to three distortions each.
    pub width: u32,
    /// Shape of the distributions that the mix is drawn from.
    pub alpha: f32,
}

/// Most chains that are mixed.
const CHAINS: usize = 8;

impl Default for AugMix {
    fn default() -> Self {
        AugMix { severity: 3.0, width: 3, alpha: 1.0 }
    }
}

const MIX: Range = Range { shear: 0.3, translate: (1.0 / 3.0, 0.0), degrees: 30.0, factor: 0.9, bits: 4 };

impl Transform for AugMix {
    fn problem(&self, _shape: [usize; 3]) -> Option<String> {
        if !(0.0..=10.0).contains(&self.severity) {
            return Some(format!("severity: expected a number from 0 to 10, received {}", self.severity));
        }
        if !(1..=CHAINS as u32).contains(&self.width) {
            return Some(format!("width: expected 1 to {CHAINS}, received {}", self.width));
        }
        (!(self.alpha > 0.0 && self.alpha.is_finite()))
            .then(|| format!("alpha: expected a number above 0, received {}", self.alpha))
    }

    fn apply(&self, canvas: &mut Canvas<'_>, random: &mut Random, _occasion: Occasion) {
        let (chains, alpha) = (self.width as usize, f64::from(self.alpha));
        // Dirichlet's distribution is gammas divided by their sum.
        let mut shares = [0.0f64; CHAINS];
        shares[..chains].iter_mut().for_each(|share| *share = random.gamma(alpha));
        let total = shares.iter().sum::<f64>().max(1e-30);
        let mixed = random.beta(alpha, alpha) as f32;
        // In a buffer of its own: the spare one is the distortions'.
        let original = canvas.pixels.to_vec();
        let mut sums: Vec<f32> = original.iter().map(|&value| 0.5 + (1.0 - mixed) * f32::from(value)).collect();
        for share in &shares[..chains] {
            canvas.pixels.copy_from_slice(&original);
            for _ in 0..1 + random.below(3) {
                let what = drawn(&Distortion::MIXED, random);
                let strength = random.uniform_in(0.1, self.severity.max(0.1)) / 10.0;
                distort(canvas, what, strength, &MIX, random);
            }
            let share = mixed * (share / total) as f32;
            sums.iter_mut().zip(&*canvas.pixels).for_each(|(sum, &value)| *sum += share * f32::from(value));
        }
        canvas.pixels.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum as u8);
    }
}

fn drawn(among: &[Distortion], random: &mut Random) -> Distortion {
    among[random.below(among.len() as u64) as usize]
}
