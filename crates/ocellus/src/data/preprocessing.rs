//! The way from an image file to the numbers that a model sees, recorded so that prediction does what training did.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use fast_image_resize as resize;
use serde::{Deserialize, Serialize};

use super::decode::{self, Pixels};
use super::{DataError, ImageProblem, Limits};

/// How images become pixels of one size. Stored in the model file.
///
/// In this order: decode the first frame; turn it as its EXIF orientation says; reduce 16-bit and float samples to 8 bits;
/// lay what is transparent over [`background`](Self::background); convert to the number of channels; resize. Colour becomes
/// grey by Rec. 601 luma, `0.299 R + 0.587 G + 0.114 B`, as in Pillow, OpenCV and TensorFlow; grey becomes colour by repetition.
/// Sample values are taken as they are: colour profiles are ignored, and resizing happens in the stored (gamma) values, as
/// everywhere in the field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Height and width of the result, in pixels.
    pub image_size: [usize; 2],
    /// 1 for grey, 3 for RGB.
    pub channels: usize,
    /// How an image of another size is brought to this one.
    #[serde(default)]
    pub resize: Resize,
    /// The share of the sides of the part that is resized, and of its middle, which is kept: 1 for all of it. Published
    /// weights are mostly measured with 0.875, "resized to 256, cropped to 224".
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub crop: f32,
    /// The kernel that resizing averages with.
    #[serde(default)]
    pub filter: Filter,
    /// The colour behind transparent pixels. White by default, as paper and most viewers have it.
    #[serde(default = "white")]
    pub background: [u8; 3],
    /// What a pixel value is multiplied by on its way to the model.
    #[serde(default = "one_255th")]
    pub scale: f32,
    /// What is added after scaling.
    #[serde(default)]
    pub offset: f32,
}

/// How an image is fitted to another size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// The whole image, each side scaled on its own: nothing is lost, but proportions change. As Keras' default.
    #[default]
    Stretch,
    /// The largest middle part of the wanted proportions: shapes stay true, but edges are cut off.
    CenterCrop,
}

/// The kernel for resizing. Each widens as it reduces, so that nothing aliases (Pillow does the same).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// A triangle: smooth, never overshoots.
    #[default]
    Bilinear,
    /// A cubic: sharper, at twice the cost. Pillow's `BICUBIC`.
    CatmullRom,
}

/// The longest side of a prepared image.
const MAX_SIDE: usize = 1 << 14;

/// The content of an image file in `bytes`, refused where it is too long to be one within limits.
pub(super) fn read_file_into(path: &Path, limits: &Limits, bytes: &mut Vec<u8>) -> Result<(), ImageProblem> {
    let unreadable = |error: std::io::Error| ImageProblem::Unreadable(error.to_string());
    bytes.clear();
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(ImageProblem::Unreadable("it is a folder".into()));
    }
    let length = limits.allow(metadata.len())?;
    bytes.reserve(length + 1);
    file.by_ref().take(limits.encoded_bytes()).read_to_end(bytes).map_err(unreadable)?;
    Ok(())
}

/// `value` with opacity `alpha` over `background`, rounded.
fn over(value: u8, alpha: u8, background: u8) -> u8 {
    let (value, alpha, background) = (u32::from(value), u32::from(alpha), u32::from(background));
    ((value * alpha + background * (255 - alpha) + 127) / 255) as u8
}

/// Luma of Rec. 601 in Pillow's fixed-point arithmetic.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16) as u8
}

fn white() -> [u8; 3] {
    [255; 3]
}

fn whole() -> f32 {
    1.0
}

fn is_whole(crop: &f32) -> bool {
    *crop == 1.0
}

fn one_255th() -> f32 {
    1.0 / 255.0
}

impl Default for Preprocessing {
    /// 28 x 28 grey pixels scaled to `[0, 1]`.
    fn default() -> Self {
        Self {
            image_size: [28, 28],
            channels: 1,
            resize: Resize::default(),
            crop: whole(),
            filter: Filter::default(),
            background: white(),
            scale: one_255th(),
            offset: 0.0,
        }
    }
}

impl Preprocessing {
    /// `[height, width, channels]` of the result.
    #[must_use]
    pub fn image_shape(&self) -> [usize; 3] {
        [self.image_size[0], self.image_size[1], self.channels]
    }

    /// Whether it can be followed; ask before trusting one from a file.
    ///
    /// # Errors
    /// A size is 0 or beyond 16384, or there are not 1 or 3 channels.
    pub fn check(&self) -> Result<(), DataError> {
        let [height, width] = self.image_size;
        if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
            return Err(DataError::Argument(format!(
                "image size: expected sides of 1 to {MAX_SIDE}, got {height} x {width}"
            )));
        }
        if !matches!(self.channels, 1 | 3) {
            return Err(DataError::Argument(format!("channels: expected 1 (grey) or 3 (RGB), got {}", self.channels)));
        }
        if !(self.crop > 0.0 && self.crop <= 1.0) {
            return Err(DataError::Argument(format!("crop: expected a share above 0, at most 1, got {}", self.crop)));
        }
        Ok(())
    }

    /// Prepare an image file: `pixels` receives `[height, width, channels]`.
    ///
    /// # Errors
    /// The file cannot be read, or is no image that is understood.
    ///
    /// # Panics
    /// `pixels` is not [`Preprocessing::image_len`] long.
    pub fn prepare_file(&self, path: &Path, limits: &Limits, pixels: &mut [u8]) -> Result<(), DataError> {
        let mut bytes = Vec::new();
        let mut prepare = || {
            read_file_into(path, limits, &mut bytes)?;
            self.prepare_bytes(&bytes, limits, pixels)
        };
        prepare().map_err(|problem| DataError::Image { path: path.to_owned(), problem })
    }

    /// Prepare the content of an image file.
    ///
    /// # Errors
    /// It is no image that is understood.
    ///
    /// # Panics
    /// `pixels` is not [`Preprocessing::image_len`] long.
    pub fn prepare_bytes(&self, bytes: &[u8], limits: &Limits, pixels: &mut [u8]) -> Result<(), ImageProblem> {
        self.prepare(decode::decode(bytes, limits)?, pixels)
    }

    /// Prepare pixels of shape `[height, width, channels]`, where 1 channel is grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    ///
    /// # Errors
    /// `image` is not of that shape.
    ///
    /// # Panics
    /// `pixels` is not [`Preprocessing::image_len`] long.
    pub fn prepare_pixels(&self, image: &[u8], shape: [usize; 3], pixels: &mut [u8]) -> Result<(), ImageProblem> {
        let [height, width, channels] = shape;
        if !(1..=4).contains(&channels) || image.is_empty() || shape.iter().product::<usize>() != image.len() {
            let problem = format!("{} bytes are no image of shape {shape:?}", image.len());
            return Err(ImageProblem::Damaged(problem));
        }
        self.prepare(Pixels { height, width, channels, data: image.to_vec() }, pixels)
    }

    /// Bytes of the result.
    #[must_use]
    pub fn image_len(&self) -> usize {
        self.image_shape().iter().product()
    }

    fn prepare(&self, image: Pixels, pixels: &mut [u8]) -> Result<(), ImageProblem> {
        assert_eq!(pixels.len(), self.image_len(), "buffer for one image");
        let image = self.reduce_channels(image);
        let [height, width] = self.image_size;
        let resized = if [image.height, image.width] == self.image_size && is_whole(&self.crop) {
            image.data
        } else {
            self.resized(image.data, [image.height, image.width], image.channels)?
        };
        debug_assert_eq!(resized.len(), height * width * image.channels);
        if image.channels == self.channels {
            pixels.copy_from_slice(&resized);
        } else {
            for (pixel, grey) in pixels.as_chunks_mut::<3>().0.iter_mut().zip(resized) {
                *pixel = [grey; 3];
            }
        }
        Ok(())
    }

    /// No alpha, and no colour where grey is wanted. Grey is left grey: it is cheaper to resize so.
    fn reduce_channels(&self, image: Pixels) -> Pixels {
        let Pixels { height, width, channels, data } = image;
        let background = self.background;
        let (channels, data) = match channels {
            // Grey over a background that has a colour would get one; over grey, it stays grey.
            2 if background == [background[0]; 3] => {
                let data =
                    data.as_chunks::<2>().0.iter().map(|&[grey, alpha]| over(grey, alpha, background[0])).collect();
                (1, data)
            }
            2 => (3, data.as_chunks::<2>().0.iter().flat_map(|&[g, a]| background.map(|b| over(g, a, b))).collect()),
            4 => (
                3,
                data.as_chunks::<4>()
                    .0
                    .iter()
                    .flat_map(|&p| [0, 1, 2].map(|c| over(p[c], p[3], background[c])))
                    .collect(),
            ),
            _ => (channels, data),
        };
        if channels == 3 && self.channels == 1 {
            let data: Vec<u8> = data.as_chunks::<3>().0.iter().map(|&rgb| luma(rgb)).collect();
            return Pixels { height, width, channels: 1, data };
        }
        Pixels { height, width, channels, data }
    }

    fn resized(&self, data: Vec<u8>, from: [usize; 2], channels: usize) -> Result<Vec<u8>, ImageProblem> {
        let failed = |error: &dyn std::fmt::Display| ImageProblem::Damaged(format!("cannot be resized: {error}"));
        let side = |length: usize| u32::try_from(length).map_err(|e| failed(&e));
        let kind = if channels == 1 { resize::PixelType::U8 } else { resize::PixelType::U8x3 };
        let source =
            resize::images::Image::from_vec_u8(side(from[1])?, side(from[0])?, data, kind).map_err(|e| failed(&e))?;
        let filter = match self.filter {
            Filter::Bilinear => resize::FilterType::Bilinear,
            Filter::CatmullRom => resize::FilterType::CatmullRom,
        };
        let options = resize::ResizeOptions::new().resize_alg(resize::ResizeAlg::Convolution(filter));
        let pass = |source: &resize::images::Image<'_>, [height, width]: [usize; 2], part: [f64; 4]| {
            let mut target = resize::images::Image::new(side(width)?, side(height)?, kind);
            let [left, top, width, height] = part;
            let options = options.crop(left, top, width, height);
            resize::Resizer::new().resize(source, &mut target, &options).map_err(|e| failed(&e))?;
            Ok(target)
        };
        let (left, top, width, height) = self.part(from);
        let [to_height, to_width] = self.image_size;
        // Across, then down, as Pillow goes: bytes lie between, and what overshoots is cut off there. The library alone goes
        // down first, which differs by up to 7, but does where a very tall image would make much of what lies between.
        let target = if to_width / 8 > from[1].max(to_height * to_width / from[0]) {
            pass(&source, self.image_size, [left, top, width, height])?
        } else {
            let across = pass(&source, [from[0], to_width], [left, 0.0, width, from[0] as f64])?;
            pass(&across, self.image_size, [0.0, top, to_width as f64, height])?
        };
        Ok(target.into_vec())
    }

    /// The part of an image that is resized: left, top, width, height.
    fn part(&self, [height, width]: [usize; 2]) -> (f64, f64, f64, f64) {
        let ([height, width], [to_height, to_width]) = ([height as f64, width as f64], self.image_size);
        let proportions = to_width as f64 / to_height as f64;
        let (part_width, part_height) = match self.resize {
            Resize::Stretch => (width, height),
            Resize::CenterCrop => (width.min(height * proportions), height.min(width / proportions)),
        };
        let (part_width, part_height) = (part_width * f64::from(self.crop), part_height * f64::from(self.crop));
        ((width - part_width) / 2.0, (height - part_height) / 2.0, part_width, part_height)
    }

    /// The numbers that the model sees: `pixel * scale + offset`.
    ///
    /// # Panics
    /// The slices differ in length.
    pub fn scale_pixels(&self, pixels: &[u8], values: &mut [f32]) {
        assert_eq!(pixels.len(), values.len(), "one value per pixel");
        for (value, &pixel) in values.iter_mut().zip(pixels) {
            *value = f32::from(pixel) * self.scale + self.offset;
        }
    }
}
