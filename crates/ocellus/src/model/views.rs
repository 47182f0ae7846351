//! Several views of each image, predicted and averaged: test-time augmentation.

use super::Model;
use serde::{Deserialize, Serialize};

/// Which views of an image predictions are averaged over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Views {
    /// The image alone.
    #[default]
    One,
    /// The image and its mirror image.
    Mirror,
    /// These two, and both moved by a pixel up and left and down and right, with mirrored edges; the moved four count as much as the
    /// first two. Six times the work.
    MirrorTranslate,
}

/// A view: whether it is mirrored, by how much it is moved down and right, and how much it counts.
type View = (bool, isize, f32);

impl Views {
    /// All ways to average.
    pub const ALL: [Views; 3] = [Views::One, Views::Mirror, Views::MirrorTranslate];

    /// Its name in files: `one`, `mirror`, `mirror_translate`.
    pub fn name(self) -> &'static str {
        match self {
            Views::One => "one",
            Views::Mirror => "mirror",
            Views::MirrorTranslate => "mirror_translate",
        }
    }

    /// How many views there are.
    pub fn count(self) -> usize {
        self.list().len()
    }

    pub(super) fn list(self) -> &'static [View] {
        match self {
            Views::One => &[(false, 0, 1.0)],
            Views::Mirror => &[(false, 0, 0.5), (true, 0, 0.5)],
            Views::MirrorTranslate => &[
                (false, 0, 0.25),
                (true, 0, 0.25),
                (false, 1, 0.125),
                (true, 1, 0.125),
                (false, -1, 0.125),
                (true, -1, 0.125),
            ],
        }
    }
}

impl Model {
    /// The views of an image that [`predict`](Self::predict) and [`evaluate`](Self::evaluate) average over; training's
    /// validation does not. Files do not hold it.
    pub fn views(&self) -> Views {
        self.views
    }

    /// Sets the views of an image that predictions are averaged over.
    pub fn set_views(&mut self, views: Views) {
        self.views = views;
    }
}

/// Writes a view of each image, whose shape is (height, width, channels), to `to`.
pub(super) fn view<T: Copy>(images: &[T], shape: &[usize], (mirrored, moved, _): View, to: &mut Vec<T>) {
    to.clear();
    let &[height, width, channels] = shape else {
        to.extend_from_slice(images);
        return;
    };
    for image in images.chunks_exact(height * width * channels) {
        for y in 0..height {
            let row = &image[reflected(y as isize - moved, height) * width * channels..][..width * channels];
            for x in 0..width {
                let x = if mirrored { width - 1 - x } else { x };
                let from = reflected(x as isize - moved, width);
                to.extend_from_slice(&row[from * channels..][..channels]);
            }
        }
    }
}

/// A place at most one beyond the edge, mirrored into the image.
fn reflected(at: isize, size: usize) -> usize {
    let last = size as isize - 1;
    let at = if at < 0 { -at } else { at };
    (if at > last { 2 * last - at } else { at }).max(0) as usize
}

/// Averages outputs over views: of probabilities their logarithms are averaged, which is averaging what softmax or sigmoid is given; other
/// outputs are averaged as they are.
pub(super) struct Mean {
    outputs: usize,
    sums: Vec<f64>,
    logarithms: Vec<f64>,
    /// Of each image, whether all views gave probabilities.
    probable: Vec<bool>,
}

impl Mean {
    pub(super) fn new(samples: usize, outputs: usize) -> Self {
        let zeros = vec![0.0; samples * outputs];
        Mean { outputs, logarithms: vec![0.0; 2 * samples * outputs], sums: zeros, probable: vec![true; samples] }
    }

    pub(super) fn add(&mut self, predictions: &[f32], share: f32) {
        let share = f64::from(share);
        for (n, row) in predictions.chunks_exact(self.outputs).enumerate() {
            let total: f32 = row.iter().sum();
            let among = row.iter().all(|p| (0.0..=1.0).contains(p));
            self.probable[n] &= among && (self.outputs == 1 || (total - 1.0).abs() < 1e-3);
            for (k, &p) in row.iter().enumerate() {
                let (at, p) = (n * self.outputs + k, f64::from(p));
                self.sums[at] += share * p;
                self.logarithms[2 * at] += share * p.max(1e-30).ln();
                self.logarithms[2 * at + 1] += share * (1.0 - p).max(1e-30).ln();
            }
        }
    }

    pub(super) fn finish(&self, to: &mut [f32]) {
        for (n, row) in to.chunks_exact_mut(self.outputs).enumerate() {
            let range = n * self.outputs..(n + 1) * self.outputs;
            let logarithms = &self.logarithms[2 * range.start..2 * range.end];
            match (self.probable[n], &mut *row) {
                (true, [one]) => *one = (1.0 / (1.0 + (logarithms[1] - logarithms[0]).exp())) as f32,
                (true, row) => {
                    let largest = logarithms.iter().step_by(2).fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                    let total: f64 = logarithms.iter().step_by(2).map(|l| (l - largest).exp()).sum();
                    let shares = logarithms.iter().step_by(2).map(|l| ((l - largest).exp() / total) as f32);
                    row.iter_mut().zip(shares).for_each(|(to, share)| *to = share);
                }
                (false, row) => row.iter_mut().zip(&self.sums[range]).for_each(|(to, &sum)| *to = sum as f32),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_mirrored_and_moved() {
        let image = [1u8, 2, 3, 4, 5, 6];
        for (of, expected) in [
            ((false, 0, 1.0), [1, 2, 3, 4, 5, 6]),
            ((true, 0, 1.0), [3, 2, 1, 6, 5, 4]),
            ((false, 1, 1.0), [5, 4, 5, 2, 1, 2]),
            ((true, 1, 1.0), [5, 4, 5, 2, 1, 2]),
            ((false, -1, 1.0), [5, 6, 5, 2, 3, 2]),
        ] {
            let mut found = Vec::new();
            view(&image, &[2, 3, 1], of, &mut found);
            assert_eq!(found, expected, "{of:?}");
        }
        let mut found = Vec::new();
        view(&[7u8, 8], &[1, 1, 2], (true, 1, 1.0), &mut found);
        assert_eq!(found, [7, 8]);
        for views in Views::ALL {
            assert_eq!(views.list().iter().map(|view| view.2).sum::<f32>(), 1.0, "{views:?}");
        }
    }

    #[test]
    fn logits_are_averaged() {
        let softmax = |logits: [f32; 3]| {
            let sum: f32 = logits.iter().map(|l| l.exp()).sum();
            logits.map(|l| l.exp() / sum)
        };
        let mut mean = Mean::new(1, 3);
        mean.add(&softmax([1.0, 2.0, -3.0]), 0.5);
        mean.add(&softmax([3.0, -2.0, 1.0]), 0.5);
        let (mut found, expected) = ([0.0; 3], softmax([2.0, 0.0, -1.0]));
        mean.finish(&mut found);
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");

        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let mut mean = Mean::new(2, 1);
        mean.add(&[sigmoid(1.0), 4.0], 0.5);
        mean.add(&[sigmoid(-3.0), 0.5], 0.5);
        let mut found = [0.0; 2];
        mean.finish(&mut found);
        assert!((found[0] - sigmoid(-1.0)).abs() < 1e-6 && found[1] == 2.25, "{found:?}");
    }
}
