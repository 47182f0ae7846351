//! What is found out about every sample, in one pass over the data.

use std::path::PathBuf;

use image::{ExtendedColorType, ImageFormat};

use super::jpeg;
use super::perceptual::{Hasher, Hashes, SIDE};
use crate::data::decode::{Pixels, decode, details, format_of_name};
use crate::data::fingerprint::xxh64;
use crate::data::{Catalog, Content, ImageProblem, Limits, Preprocessing};

/// What is known of a sample.
pub(super) struct Facts {
    /// A hash of what is stored.
    pub(super) stored: u64,
    pub(super) image: Result<Image, ImageProblem>,
}

/// What is known of a sample that can be decoded.
pub(super) struct Image {
    /// What it is stored as, and what its name says; none for bare pixels.
    pub(super) format: Option<ImageFormat>,
    pub(super) claimed: Option<ImageFormat>,
    /// As it is shown.
    pub(super) height: u32,
    pub(super) width: u32,
    pub(super) mode: Mode,
    pub(super) orientation: u8,
    /// What is wrong with its coding, though it can be decoded.
    pub(super) flaw: Option<String>,
    /// A hash of its pixels, whatever they are stored as.
    pub(super) pixels: u64,
    pub(super) brightness: Brightness,
    /// How much neighbouring pixels differ, measured by how much all do; high for sharp images.
    pub(super) sharpness: f32,
    pub(super) hashes: Option<Box<Hashes>>,
}

/// How grey values are spread, on a scale of 255.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Brightness {
    pub(super) mean: f32,
    pub(super) deviation: f32,
    /// The first and the last hundredth.
    pub(super) low: u8,
    pub(super) high: u8,
}

/// How colours are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Mode {
    Grey,
    GreyAlpha,
    Rgb,
    Rgba,
    Cmyk,
    /// More than 8 bits a sample.
    Deep,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Grey => "grey",
            Self::GreyAlpha => "grey with transparency",
            Self::Rgb => "RGB",
            Self::Rgba => "RGB with transparency",
            Self::Cmyk => "CMYK",
            Self::Deep => "more than 8 bits a sample",
        }
    }

    fn of(colour: ExtendedColorType, channels: usize) -> Self {
        use ExtendedColorType as Colour;
        match colour {
            Colour::L16 | Colour::La16 | Colour::Rgb16 | Colour::Rgba16 | Colour::Rgb32F | Colour::Rgba32F => {
                Self::Deep
            }
            Colour::Cmyk8 | Colour::Cmyk16 => Self::Cmyk,
            _ => Self::of_channels(channels),
        }
    }

    fn of_channels(channels: usize) -> Self {
        match channels {
            1 => Self::Grey,
            2 => Self::GreyAlpha,
            4 => Self::Rgba,
            _ => Self::Rgb,
        }
    }
}

/// The largest part of an image, in its middle, that its sharpness is measured on.
const SHARPNESS_SIDE: usize = 512;

/// Buffers that are used again.
#[derive(Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    grey: Vec<u8>,
}

/// A sample's pixels with how they were stored.
struct Seen {
    pixels: Pixels,
    format: Option<ImageFormat>,
    mode: Mode,
    orientation: u8,
    flaw: Option<String>,
}

/// Find out all about sample `index`.
pub(super) fn examine(
    catalog: &Catalog,
    index: usize,
    hasher: Option<&Hasher>,
    limits: &Limits,
    scratch: &mut Scratch,
) -> Facts {
    let seen = see(catalog, index, limits, scratch, true);
    let stored = xxh64(&scratch.bytes);
    let image = seen.map(|Seen { pixels, format, mode, orientation, flaw }| {
        let coloured = greys(&pixels, &mut scratch.grey);
        let shape = [pixels.height as u64, pixels.width as u64].map(u64::to_le_bytes).concat();
        let content = xxh64(if coloured { &pixels.data } else { &scratch.grey });
        let hashes = hasher.and_then(|hasher| hasher.hashes(&small_grey(&pixels, &scratch.grey)?));
        Image {
            format,
            claimed: catalog.file_of(index).as_deref().and_then(format_of_name),
            height: pixels.height as u32,
            width: pixels.width as u32,
            mode,
            orientation,
            flaw,
            pixels: content ^ xxh64(&shape),
            brightness: brightness(&scratch.grey),
            sharpness: sharpness(&scratch.grey, pixels.height, pixels.width),
            hashes: hashes.map(Box::new),
        }
    });
    Facts { stored, image }
}

/// [`SIDE`] x [`SIDE`] grey pixels of a sample, where it can be decoded.
pub(super) fn typical(catalog: &Catalog, index: usize, limits: &Limits, scratch: &mut Scratch) -> Option<Vec<u8>> {
    let seen = see(catalog, index, limits, scratch, false).ok()?;
    greys(&seen.pixels, &mut scratch.grey);
    small_grey(&seen.pixels, &scratch.grey)
}

/// RGB pixels of a sample, stretched to `size` (height, width), or no larger than the two and in proportion.
pub(super) fn thumbnail(
    catalog: &Catalog,
    index: usize,
    limits: &Limits,
    size: [usize; 2],
    stretch: bool,
) -> Option<(Vec<u8>, [usize; 2])> {
    let pixels = see(catalog, index, limits, &mut Scratch::default(), false).ok()?.pixels;
    let size = if stretch {
        size
    } else {
        let shrink = [(size[0], pixels.height), (size[1], pixels.width)].map(|(to, from)| to as f64 / from as f64);
        let shrink = shrink[0].min(shrink[1]).min(1.0);
        [pixels.height, pixels.width].map(|side| ((side as f64 * shrink).round() as usize).max(1))
    };
    let preprocessing = Preprocessing { image_size: size, channels: 3, ..Preprocessing::default() };
    let mut rgb = vec![0; preprocessing.image_len()];
    preprocessing.prepare_pixels(&pixels.data, [pixels.height, pixels.width, pixels.channels], &mut rgb).ok()?;
    Some((rgb, size))
}

fn see(
    catalog: &Catalog,
    index: usize,
    limits: &Limits,
    scratch: &mut Scratch,
    thorough: bool,
) -> Result<Seen, ImageProblem> {
    scratch.bytes.clear();
    match catalog.read(index, limits, &mut scratch.bytes)? {
        Content::Encoded => {
            let header = details(&scratch.bytes, limits)?;
            let pixels = decode(&scratch.bytes, limits)?;
            let flawed = thorough && header.format == ImageFormat::Jpeg;
            Ok(Seen {
                mode: Mode::of(header.colour, pixels.channels),
                pixels,
                format: Some(header.format),
                orientation: header.orientation,
                flaw: flawed.then(|| jpeg::flaw(&scratch.bytes)).flatten(),
            })
        }
        Content::Pixels([height, width, channels]) => {
            let pixels = Pixels { height, width, channels, data: scratch.bytes.clone() };
            Ok(Seen { pixels, format: None, mode: Mode::of_channels(channels), orientation: 1, flaw: None })
        }
    }
}

/// Grey values of all pixels, by Rec. 601 and without regard to transparency; whether there is any colour.
fn greys(pixels: &Pixels, grey: &mut Vec<u8>) -> bool {
    grey.clear();
    let mut colour = 0;
    let mut luma = |[r, g, b]: [u8; 3]| {
        colour |= (r ^ g) | (g ^ b);
        ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
    };
    match pixels.channels {
        1 => grey.extend_from_slice(&pixels.data),
        2 => grey.extend(pixels.data.iter().step_by(2)),
        4 => grey.extend(pixels.data.as_chunks::<4>().0.iter().map(|&[r, g, b, _]| luma([r, g, b]))),
        _ => grey.extend(pixels.data.as_chunks::<3>().0.iter().map(|&rgb| luma(rgb))),
    }
    colour != 0
}

fn small_grey(pixels: &Pixels, grey: &[u8]) -> Option<Vec<u8>> {
    let preprocessing = Preprocessing { image_size: [SIDE, SIDE], channels: 1, ..Preprocessing::default() };
    let mut small = vec![0; SIDE * SIDE];
    preprocessing.prepare_pixels(grey, [pixels.height, pixels.width, 1], &mut small).ok()?;
    Some(small)
}

fn brightness(grey: &[u8]) -> Brightness {
    let mut histogram = [0u64; 256];
    for &value in grey {
        histogram[usize::from(value)] += 1;
    }
    let count = grey.len().max(1) as f64;
    let sum = |power: i32| {
        histogram.iter().enumerate().map(|(value, &n)| n as f64 * (value as f64).powi(power)).sum::<f64>() / count
    };
    let mean = sum(1);
    let quantile = |share: f64| {
        let mut left = (share * count) as u64 + 1;
        let value = histogram.iter().position(|&n| {
            left = left.saturating_sub(n);
            left == 0
        });
        value.unwrap_or(255) as u8
    };
    Brightness {
        mean: mean as f32,
        deviation: (sum(2) - mean * mean).max(0.0).sqrt() as f32,
        low: quantile(0.01),
        high: quantile(0.99),
    }
}

/// Variance of the Laplacian over the variance of the values (Pertuz, Puig, Garcia: *Analysis of focus measure operators for
/// shape-from-focus*, 2013), in the middle of the image.
fn sharpness(grey: &[u8], height: usize, width: usize) -> f32 {
    let (rows, columns) = (height.min(SHARPNESS_SIDE), width.min(SHARPNESS_SIDE));
    if rows < 3 || columns < 3 {
        return 1.0;
    }
    let (top, left) = ((height - rows) / 2, (width - columns) / 2);
    let row = |y: usize| grey[(top + y) * width + left..][..columns].iter().map(|&value| i32::from(value));
    let (mut edges, mut sum, mut squares) = (0i64, 0i64, 0i64);
    for y in 1..rows - 1 {
        let lines = [y - 1, y, y + 1].map(|y| &grey[(top + y) * width + left..][..columns]);
        for x in 1..columns - 1 {
            let at = |line: usize, x: usize| i32::from(lines[line][x]);
            let laplacian = at(0, x) + at(2, x) + at(1, x - 1) + at(1, x + 1) - 4 * at(1, x);
            edges += i64::from(laplacian * laplacian);
        }
        for value in row(y) {
            sum += i64::from(value);
            squares += i64::from(value * value);
        }
    }
    let (inner, all) = (((rows - 2) * (columns - 2)) as f64, ((rows - 2) * columns) as f64);
    let variance = squares as f64 / all - (sum as f64 / all).powi(2);
    (edges as f64 / inner / (variance + 1.0)) as f32
}

/// The folder that a catalog lies in, where its samples are files.
pub(super) fn folder_of(catalog: &Catalog) -> Option<PathBuf> {
    let has_files = !catalog.is_empty() && catalog.file_of(0).is_some();
    (has_files && catalog.path().is_dir()).then(|| catalog.path().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brightness_and_sharpness_are_what_they_are_called() {
        let even: Vec<u8> = (0..100).collect();
        let found = brightness(&even);
        assert_eq!((found.mean, found.low, found.high), (49.5, 1, 99));
        let edges: Vec<u8> = (0..64 * 64).map(|at| if at % 64 / 4 % 2 == 0 { 30 } else { 200 }).collect();
        let soft: Vec<u8> = (0..64 * 64).map(|at| (115.0 + 85.0 * (at as f32 % 64.0 / 8.0).sin()) as u8).collect();
        let flat = vec![90; 64 * 64];
        let [edges, soft, flat] = [edges, soft, flat].map(|grey| sharpness(&grey, 64, 64));
        assert!(edges > 30.0 * soft && flat == 0.0, "{edges} {soft} {flat}");
    }
}
