//! `Canvas`: an image that is changed in place, with room for a copy.

use serde::{Deserialize, Serialize};

/// An image that is changed in place.
#[derive(Debug)]
pub struct Canvas<'a> {
    /// (height, width, channels)
    pub pixels: &'a mut [u8],
    /// As long as the pixels; holds anything.
    pub spare: &'a mut [u8],
    /// Height, width, channels.
    pub shape: [usize; 3],
}

/// What lies beyond the edge of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// Black.
    #[default]
    Zero,
    /// The image mirrored at its outermost pixels, which are not doubled.
    Reflect,
    /// The outermost pixels over and over.
    Repeat,
}

impl Edge {
    /// The place in `0..size` that stands for any place, if one does.
    #[inline]
    pub(super) fn place(self, at: isize, size: usize) -> Option<usize> {
        if (0..size as isize).contains(&at) {
            return Some(at as usize);
        }
        match self {
            Edge::Zero => None,
            Edge::Repeat => Some(at.clamp(0, size as isize - 1) as usize),
            Edge::Reflect => {
                let period = (2 * (size as isize - 1)).max(1);
                let at = at.rem_euclid(period);
                Some(at.min(period - at).min(size as isize - 1) as usize)
            }
        }
    }
}

impl Canvas<'_> {
    /// Mirrors left and right.
    pub fn mirror(&mut self) {
        let [_, width, channels] = self.shape;
        for row in self.pixels.chunks_exact_mut(width * channels) {
            for x in 0..width / 2 {
                let other = width - 1 - x;
                for channel in 0..channels {
                    row.swap(x * channels + channel, other * channels + channel);
                }
            }
        }
    }

    /// Mirrors top and bottom.
    pub fn upend(&mut self) {
        let [height, width, channels] = self.shape;
        let stride = width * channels;
        for y in 0..height / 2 {
            let (top, bottom) = self.pixels.split_at_mut((height - 1 - y) * stride);
            top[y * stride..][..stride].swap_with_slice(&mut bottom[..stride]);
        }
    }

    /// Moves the image by so many pixels down and right.
    pub fn shift(&mut self, down: isize, right: isize, edge: Edge) {
        if (down, right) == (0, 0) {
            return;
        }
        self.spare.copy_from_slice(self.pixels);
        let [height, width, channels] = self.shape;
        let stride = width * channels;
        // The columns that come from within the image, in one piece.
        let inside =
            right.clamp(0, width as isize) as usize..(width as isize + right).clamp(0, width as isize) as usize;
        for (y, to) in self.pixels.chunks_exact_mut(stride).enumerate() {
            let Some(from) = edge.place(y as isize - down, height) else {
                to.fill(0);
                continue;
            };
            let from = &self.spare[from * stride..][..stride];
            if !inside.is_empty() {
                let first = (inside.start as isize - right) as usize * channels;
                to[inside.start * channels..inside.end * channels]
                    .copy_from_slice(&from[first..first + inside.len() * channels]);
            }
            for x in (0..width).filter(|x| !inside.contains(x)) {
                let to = &mut to[x * channels..][..channels];
                match edge.place(x as isize - right, width) {
                    Some(x) => to.copy_from_slice(&from[x * channels..][..channels]),
                    None => to.fill(0),
                }
            }
        }
    }
}
