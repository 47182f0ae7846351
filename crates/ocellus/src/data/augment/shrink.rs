//! Images made smaller by the mean over what each pixel covers.

/// Brings an image of shape (height, width, channels) to a size that is not larger.
pub(crate) fn shrink(image: &[u8], [height, width, channels]: [usize; 3], to: &mut [u8], [rows, columns]: [usize; 2]) {
    let (down, across) = (height as f32 / rows as f32, width as f32 / columns as f32);
    for (y, row) in to.chunks_exact_mut(columns * channels).enumerate().take(rows) {
        let (top, bottom) = (y as f32 * down, (y + 1) as f32 * down);
        for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
            let (left, right) = (x as f32 * across, (x + 1) as f32 * across);
            for (channel, value) in pixel.iter_mut().enumerate() {
                let mut sum = 0.0;
                for from_y in top as usize..(bottom.ceil() as usize).min(height) {
                    let tall = covered(from_y, top, bottom);
                    for from_x in left as usize..(right.ceil() as usize).min(width) {
                        let share = tall * covered(from_x, left, right);
                        sum += share * f32::from(image[(from_y * width + from_x) * channels + channel]);
                    }
                }
                *value = (sum / (down * across) + 0.5) as u8;
            }
        }
    }
}

/// How much of pixel `at` lies between two places.
fn covered(at: usize, first: f32, last: f32) -> f32 {
    (last.min((at + 1) as f32) - first.max(at as f32)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_means_of_what_they_cover() {
        let mut to = [0; 4];
        shrink(&[0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30], [4, 4, 1], &mut to, [2, 2]);
        assert_eq!(to, [5, 9, 21, 25]);
        // Three pixels to two: the middle one counts half in each.
        let mut to = [0; 4];
        shrink(&[0, 100, 30, 130, 90, 190], [1, 3, 2], &mut to, [1, 2]);
        assert_eq!(to, [10, 110, 70, 170]);
        let mut same = [0; 6];
        shrink(&[1, 2, 3, 4, 5, 6], [2, 3, 1], &mut same, [2, 3]);
        assert_eq!(same, [1, 2, 3, 4, 5, 6]);
    }
}
