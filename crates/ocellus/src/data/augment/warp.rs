//! Images turned, sheared and cut out, by bilinear interpolation.

use super::{Canvas, Edge};

/// The largest share of a turn that is rounded away: sines of whole turns are not exactly 0.
const TINY: f32 = 1e-6;

impl Canvas<'_> {
    /// Every pixel replaced by what lies at an affine function of its place: with `[a, b, c, d, e, f]` the pixel at (x, y), counted from
    /// the middle, comes from (ax + by + c, dx + ey + f).
    pub fn warp(&mut self, [a, b, c, d, e, f]: [f32; 6], edge: Edge) {
        self.spare.copy_from_slice(self.pixels);
        let [height, width, channels] = self.shape;
        let (middle_x, middle_y) = ((width as f32 - 1.0) / 2.0, (height as f32 - 1.0) / 2.0);
        for (y, row) in self.pixels.chunks_exact_mut(width * channels).enumerate() {
            let from_middle = y as f32 - middle_y;
            for (x, to) in row.chunks_exact_mut(channels).enumerate() {
                let across = x as f32 - middle_x;
                let from_x = a * across + b * from_middle + c + middle_x;
                let from_y = d * across + e * from_middle + f + middle_y;
                sample(self.spare, self.shape, from_x, from_y, edge, to);
            }
        }
    }

    /// Turns the image counter-clockwise about its middle.
    pub fn rotate(&mut self, degrees: f32, edge: Edge) {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        self.warp([cosine, -sine, 0.0, sine, cosine, 0.0], edge);
    }

    /// Stretches a part of the image, in fractions of pixels, over the whole.
    pub fn cut_out(&mut self, top: f32, left: f32, height: f32, width: f32) {
        let [rows, columns, _] = self.shape;
        let (down, right) = (height / rows as f32, width / columns as f32);
        let offset = |first: f32, part: f32, whole: usize| first + part / 2.0 - whole as f32 / 2.0;
        let (c, f) = (offset(left, width, columns), offset(top, height, rows));
        self.warp([right, 0.0, c, 0.0, down, f], Edge::Repeat);
    }
}

/// What lies between four pixels.
#[inline]
fn sample(pixels: &[u8], [height, width, channels]: [usize; 3], x: f32, y: f32, edge: Edge, to: &mut [u8]) {
    let part = |at: f32| {
        let whole = (at + TINY).floor();
        (whole as isize, (at - whole).max(0.0))
    };
    let ((left, right_share), (top, bottom_share)) = (part(x), part(y));
    let at = |y: isize, x: isize| Some((edge.place(y, height)? * width + edge.place(x, width)?) * channels);
    let corners = [at(top, left), at(top, left + 1), at(top + 1, left), at(top + 1, left + 1)];
    let shares = [
        (1.0 - bottom_share) * (1.0 - right_share),
        (1.0 - bottom_share) * right_share,
        bottom_share * (1.0 - right_share),
        bottom_share * right_share,
    ];
    for (channel, to) in to.iter_mut().enumerate() {
        let mut sum = 0.5;
        for (corner, share) in corners.iter().zip(shares) {
            if let Some(at) = corner {
                sum += share * f32::from(pixels[at + channel]);
            }
        }
        *to = sum as u8;
    }
}
