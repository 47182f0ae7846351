//! The way from an image file to the numbers that a model sees, recorded so that prediction does what training did.

use serde::{Deserialize, Serialize};

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

fn white() -> [u8; 3] {
    [255; 3]
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
