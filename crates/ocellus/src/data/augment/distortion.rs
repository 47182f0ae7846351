//! The distortions that published policies choose from, each with one strength.

use super::{Canvas, Edge};
use crate::random::Random;

/// A kind of distortion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distortion {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

use Distortion::*;

impl Distortion {
    pub(super) const ALL: [Distortion; 14] = [
        Identity,
        ShearX,
        ShearY,
        TranslateX,
        TranslateY,
        Rotate,
        Brightness,
        Color,
        Contrast,
        Sharpness,
        Posterize,
        Solarize,
        AutoContrast,
        Equalize,
    ];

    /// Those that AugMix mixes: none that its test data is distorted by.
    pub(super) const MIXED: [Distortion; 9] =
        [ShearX, ShearY, TranslateX, TranslateY, Rotate, Posterize, Solarize, AutoContrast, Equalize];
}

/// How strong distortions are at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    /// Sideways for each pixel down.
    pub(super) shear: f32,
    /// Distance, as a share of the side and in pixels.
    pub(super) translate: (f32, f32),
    pub(super) degrees: f32,
    /// Factors of brightness, colour, contrast and sharpness lie so far from 1.
    pub(super) factor: f32,
    /// Bits that posterising keeps.
    pub(super) bits: u32,
}

/// Distorts with a strength from 0 to 1 of the range; where there are two directions, in a random one. What changes colours leaves
/// images without colours as they are.
pub(super) fn distort(canvas: &mut Canvas<'_>, what: Distortion, strength: f32, range: &Range, random: &mut Random) {
    let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
    let signed = sign * strength;
    let [height, width, _] = canvas.shape;
    let distance = |size: usize| (signed * (range.translate.0 * size as f32 + range.translate.1)) as isize;
    match what {
        Identity => {}
        ShearX => canvas.warp([1.0, signed * range.shear, 0.0, 0.0, 1.0, 0.0], Edge::Zero),
        ShearY => canvas.warp([1.0, 0.0, 0.0, signed * range.shear, 1.0, 0.0], Edge::Zero),
        TranslateX => canvas.shift(0, distance(width), Edge::Zero),
        TranslateY => canvas.shift(distance(height), 0, Edge::Zero),
        Rotate => canvas.rotate(signed * range.degrees, Edge::Zero),
        Brightness => canvas.brightness(1.0 + signed * range.factor),
        Color => canvas.saturation(1.0 + signed * range.factor),
        Contrast => canvas.contrast(1.0 + signed * range.factor),
        Sharpness => canvas.sharpness(1.0 + signed * range.factor),
        Posterize => canvas.posterize(8 - (strength * (8 - range.bits) as f32).round() as u32),
        Solarize => canvas.solarize(255.0 * (1.0 - strength)),
        AutoContrast => canvas.autocontrast(),
        Equalize => canvas.equalize(),
    }
}
