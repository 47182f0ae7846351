//! An image of a data set as a PNG file.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

/// The pixels of an image as a PNG file's content; `image_shape` is (height, width, channels), 1 channel grey and 3 RGB.
///
/// None where the pixels are no image of that shape.
pub fn image_png(pixels: &[u8], image_shape: [usize; 3]) -> Option<Vec<u8>> {
    let [height, width, channels] = image_shape;
    let colour = match channels {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => return None,
    };
    let [height, width] = [u32::try_from(height).ok()?, u32::try_from(width).ok()?];
    if pixels.is_empty() || pixels.len() != image_shape.iter().product::<usize>() {
        return None;
    }
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(pixels, width, height, colour).ok()?;
    Some(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_come_back() {
        for (shape, pixels) in [([2, 3, 1], (0..6).collect::<Vec<u8>>()), ([1, 2, 3], (9..15).collect())] {
            let png = image_png(&pixels, shape).unwrap();
            let image = image::load_from_memory(&png).unwrap();
            assert_eq!((image.height(), image.width()), (shape[0] as u32, shape[1] as u32));
            assert_eq!(image.as_bytes(), pixels);
        }
        for (shape, length) in [([2, 3, 1], 5), ([1, 1, 2], 2), ([0, 3, 1], 0)] {
            assert_eq!(image_png(&vec![0; length], shape), None);
        }
    }
}
