//! Changes to the colours of an image, each a function of its pixels. Definitions are PIL's, which every published policy was tuned
//! with.

use super::Canvas;

/// Rec. 601's weights of red, green and blue, in 65536ths.
const LUMA: [u32; 3] = [19595, 38470, 7471];

impl Canvas<'_> {
    /// Whether the pixels have colours.
    pub fn is_coloured(&self) -> bool {
        self.shape[2] == 3
    }

    /// Every value replaced by what the table has for it.
    pub fn map(&mut self, table: &[u8; 256]) {
        self.pixels.iter_mut().for_each(|pixel| *pixel = table[usize::from(*pixel)]);
    }

    /// Black at 0, as it is at 1.
    pub fn brightness(&mut self, factor: f32) {
        self.map(&table(|value| value * factor));
    }

    /// Grey all over at 0, as it is at 1.
    pub fn contrast(&mut self, factor: f32) {
        let channels = self.shape[2];
        let count = (self.pixels.len() / channels).max(1) as u64;
        let sum: u64 = match channels {
            3 => self.pixels.chunks_exact(3).map(|pixel| u64::from(luma(pixel))).sum(),
            _ => self.pixels.iter().map(|&value| u64::from(value)).sum::<u64>() / channels as u64,
        };
        let mean = ((sum as f64 / count as f64) + 0.5).floor() as f32;
        self.map(&table(|value| mean + factor * (value - mean)));
    }

    /// Without colours at 0, as it is at 1. Images of other than three channels have none, and stay as they are.
    pub fn saturation(&mut self, factor: f32) {
        if !self.is_coloured() {
            return;
        }
        for pixel in self.pixels.chunks_exact_mut(3) {
            let grey = luma(pixel) as f32;
            // Conversion cuts off and saturates, as PIL's blending does.
            pixel.iter_mut().for_each(|value| *value = (grey + factor * (f32::from(*value) - grey)) as u8);
        }
    }

    /// Turns the hue by a share of the circle. Images of other than three channels stay as they are.
    pub fn hue(&mut self, turn: f32) {
        if !self.is_coloured() {
            return;
        }
        for pixel in self.pixels.chunks_exact_mut(3) {
            let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(f32::from);
            let (most, least) = (r.max(g).max(b), r.min(g).min(b));
            let chroma = most - least;
            if chroma == 0.0 {
                continue;
            }
            let sixth = match most {
                _ if most == r => (g - b) / chroma,
                _ if most == g => (b - r) / chroma + 2.0,
                _ => (r - g) / chroma + 4.0,
            };
            let sixth = (sixth + 6.0 * turn).rem_euclid(6.0);
            for (value, shift) in pixel.iter_mut().zip([5.0, 3.0, 1.0]) {
                let k: f32 = (shift + sixth) % 6.0;
                *value = (most - chroma * k.min(4.0 - k).clamp(0.0, 1.0) + 0.5) as u8;
            }
        }
    }

    /// Smoothed at 0, as it is at 1, sharpened above. The outermost pixels stay as they are.
    pub fn sharpness(&mut self, factor: f32) {
        let [height, width, channels] = self.shape;
        if height < 3 || width < 3 {
            return;
        }
        self.spare.copy_from_slice(self.pixels);
        let stride = width * channels;
        for y in 1..height - 1 {
            for at in y * stride + channels..(y + 1) * stride - channels {
                let value = |at: usize| u32::from(self.spare[at]);
                let row = |at: usize| value(at - channels) + value(at) + value(at + channels);
                let sum = row(at - stride) + row(at) + row(at + stride) + 4 * value(at);
                let smooth = ((sum as f32) / 13.0 + 0.5).floor();
                self.pixels[at] = (smooth + factor * (f32::from(self.spare[at]) - smooth)) as u8;
            }
        }
    }

    /// Keeps so many of the highest bits of each value.
    pub fn posterize(&mut self, bits: u32) {
        let mask = if bits >= 8 { 0xff } else { !(0xffu8 >> bits) };
        self.pixels.iter_mut().for_each(|pixel| *pixel &= mask);
    }

    /// Inverts values from a threshold on.
    pub fn solarize(&mut self, threshold: f32) {
        self.map(&table(|value| if value >= threshold { 255.0 - value } else { value }));
    }

    /// Stretches each channel to the whole range.
    pub fn autocontrast(&mut self) {
        self.map_channels(|histogram| {
            let least = histogram.iter().position(|&count| count > 0).unwrap_or(0) as f32;
            let most = histogram.iter().rposition(|&count| count > 0).unwrap_or(255) as f32;
            if most <= least { None } else { Some(table(|value| ((value - least) * 255.0 / (most - least)).floor())) }
        });
    }

    /// Makes all values of each channel about equally frequent.
    pub fn equalize(&mut self) {
        self.map_channels(|histogram| {
            let used = histogram.iter().filter(|&&count| count > 0).count();
            let last = histogram.iter().rev().find(|&&count| count > 0).copied().unwrap_or(0);
            let step = (histogram.iter().sum::<u32>() - last) / 255;
            if used <= 1 || step == 0 {
                return None;
            }
            let (mut table, mut passed) = ([0; 256], step / 2);
            for (to, count) in table.iter_mut().zip(histogram) {
                *to = (passed / step).min(255) as u8;
                passed += count;
            }
            Some(table)
        });
    }

    /// Replaces the values of each channel by a table made from its histogram, where there is one.
    fn map_channels(&mut self, table: impl Fn(&[u32; 256]) -> Option<[u8; 256]>) {
        let channels = self.shape[2];
        for channel in 0..channels {
            let mut histogram = [0u32; 256];
            self.pixels.iter().skip(channel).step_by(channels).for_each(|&value| histogram[usize::from(value)] += 1);
            if let Some(table) = table(&histogram) {
                let values = self.pixels.iter_mut().skip(channel).step_by(channels);
                values.for_each(|value| *value = table[usize::from(*value)]);
            }
        }
    }
}

fn luma(pixel: &[u8]) -> u32 {
    (pixel.iter().zip(LUMA).map(|(&value, weight)| u32::from(value) * weight).sum::<u32>() + 0x8000) >> 16
}

fn table(value: impl Fn(f32) -> f32) -> [u8; 256] {
    std::array::from_fn(|at| value(at as f32) as u8)
}
