//! Images in which little is to be seen: nearly blank, very dark or bright, blurred.

use super::defects::images;
use super::facts::{Facts, Image};
use super::report::{Finding, Kind};
use super::{Surroundings, list_odd};

/// Deviation of grey values, and the breadth of their middle 98%, below which an image is nearly blank.
const BLANK_DEVIATION: f32 = 3.0;
const BLANK_BREADTH: u8 = 8;
/// Mean grey below which, and least bright values with which, an image is very dark; for bright ones the same from above.
const DARK: (f32, u8) = (16.0, 90);
const BRIGHT: (f32, u8) = (240.0, 180);

/// Shorter sides have too few pixels to tell blur from smooth things.
const LEAST_SIDE: u32 = 64;
/// A blurred image is less sharp than half of the others by this factor, and than this in itself.
const BLURRED: (f32, f32) = (12.0, 0.02);

pub(super) fn findings(about: &Surroundings<'_>, facts: &[Facts]) -> Vec<Finding> {
    let is_blank = |image: &Image| {
        let spread = &image.brightness;
        spread.deviation < BLANK_DEVIATION || spread.high - spread.low < BLANK_BREADTH
    };
    let of = |wanted: &dyn Fn(&Image) -> Option<String>| -> Vec<(usize, String)> {
        images(facts).filter_map(|(index, image)| Some((index, wanted(image)?))).collect()
    };
    let grey = |image: &Image| {
        let spread = &image.brightness;
        format!("grey values {} to {}, {:.0} on average", spread.low, spread.high, spread.mean)
    };
    let blank = of(&|image| is_blank(image).then(|| grey(image)));
    let dark = of(&|image| {
        let spread = &image.brightness;
        (!is_blank(image) && spread.mean < DARK.0 && spread.high < DARK.1).then(|| grey(image))
    });
    let bright = of(&|image| {
        let spread = &image.brightness;
        (!is_blank(image) && spread.mean > BRIGHT.0 && spread.low > BRIGHT.1).then(|| grey(image))
    });
    let large = |image: &Image| image.height.min(image.width) >= LEAST_SIDE && !is_blank(image);
    let mut all: Vec<f32> = images(facts).filter(|(_, image)| large(image)).map(|(_, image)| image.sharpness).collect();
    all.sort_unstable_by(f32::total_cmp);
    let usual = all.get(all.len() / 2).copied().unwrap_or(0.0);
    let blurred = of(&|image| {
        let blurred = large(image) && image.sharpness < BLURRED.1 && image.sharpness * BLURRED.0 < usual;
        blurred.then(|| format!("sharpness {:.4}, half of the images have {usual:.3} or more", image.sharpness))
    });
    [(Kind::Blank, blank), (Kind::Dark, dark), (Kind::Bright, bright), (Kind::Blurred, blurred)]
        .into_iter()
        .filter_map(|(kind, samples)| list_odd(about, kind, samples))
        .collect()
}
