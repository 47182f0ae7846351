//! `Candidates`: unlabelled images as a model sees them, and which of them to label first.

use std::path::PathBuf;

use crate::data::{Batch, Dataset, Loader, LoaderOptions};
use crate::model::{Model, ModelError};
use crate::random::{Purpose, Random};

/// Images that are predicted together.
const BATCH: usize = 128;
/// Features beyond this many are projected to so many random directions, which keeps distances well enough.
const MOST_FEATURES: usize = 256;

/// Unlabelled images as a model sees them.
#[derive(Clone, Debug)]
pub struct Candidates {
    files: Vec<PathBuf>,
    /// (image, class)
    probabilities: Vec<f32>,
    classes: usize,
    /// (image, feature)
    features: Vec<f32>,
    width: usize,
}

/// An image to label, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    /// The image's name, which is its path as text.
    pub file: PathBuf,
    /// The class that the model takes it for.
    pub class: usize,
    /// How probable that is to the model.
    pub probability: f32,
    /// How much more probable than the second class: the less, the less sure.
    pub margin: f32,
}

impl Candidates {
    /// Look at the images of a data set with a model; labels have no say. `progress` is told how many of how many were.
    ///
    /// # Errors
    /// The model takes no images, those of the data set have another shape, or an image can no longer be read.
    pub fn look(model: &mut Model, images: &Dataset, progress: &dyn Fn(usize, usize)) -> Result<Self, ModelError> {
        if model.input_shape() != model.preprocessing().image_shape() {
            return Err(ModelError::Argument("the model takes no images".into()));
        }
        if images.image_shape() != model.preprocessing().image_shape() {
            let (expected, received) = (model.preprocessing().image_shape(), images.image_shape());
            return Err(ModelError::Argument(format!("expected images of {expected:?}, received {received:?}")));
        }
        let mut extractor = model.without_classes()?;
        let mut candidates = Self {
            files: (0..images.len()).map(|index| images.name_of(index).into()).collect(),
            probabilities: Vec::new(),
            classes: 0,
            features: Vec::new(),
            width: 0,
        };
        let mut done = 0;
        let mut projection = None;
        let options = LoaderOptions { batch_size: BATCH, shuffle: false, ..LoaderOptions::default() };
        let mut loader = Loader::new(images.clone(), options)?;
        while let Some(Batch { pixels, labels, .. }) = loader.next_batch()? {
            done += labels.len();
            progress(done, images.len());
            let pixels = &pixels[..];
            let outputs = model.predict(pixels)?;
            for row in outputs.rows() {
                let mut row = match row {
                    [one] => vec![1.0 - one, *one],
                    _ => row.to_vec(),
                };
                if row.iter().any(|value| !(0.0..=1.0).contains(value)) {
                    softmax(&mut row);
                }
                candidates.classes = row.len();
                candidates.probabilities.append(&mut row);
            }
            let seen = match &mut extractor {
                Some(extractor) => extractor.predict(pixels)?,
                None => outputs,
            };
            for row in seen.rows() {
                let projection = projection.get_or_insert_with(|| Projection::new(row.len()));
                candidates.width = projection.to;
                projection.apply(row, &mut candidates.features);
            }
        }
        Ok(candidates)
    }

    /// How many images can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether none can be used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The `count` images to label first, in this order, chosen by `seed`: those that would change the model most, and each
    /// in another way.
    ///
    /// An image stands for the gradient that its label would give the last layer if the model were right: long where the
    /// model is unsure. Images far from those that were chosen before are likelier to be chosen (Ash and others: *Deep batch
    /// active learning by diverse, uncertain gradient lower bounds*, ICLR 2020).
    #[must_use]
    pub fn choose(&self, count: usize, seed: u64) -> Vec<Suggestion> {
        let mut random = Random::new(seed, Purpose::Sample, 0, 0);
        let residuals: Vec<Vec<f32>> = self.probabilities.chunks_exact(self.classes.max(1)).map(residual).collect();
        let features = |at: usize| &self.features[at * self.width..(at + 1) * self.width];
        let lengths: Vec<f32> =
            (0..self.len()).map(|at| dot(&residuals[at], &residuals[at]) * dot(features(at), features(at))).collect();
        // The square of the distance to the nearest that was chosen; to begin with, of the longest gradient's.
        let mut distances = lengths.clone();
        let mut chosen = Vec::new();
        while chosen.len() < count.min(self.len()) {
            let next = if chosen.is_empty() { longest(&lengths) } else { draw(&distances, &mut random) };
            let Some(next) = next.or_else(|| (0..self.len()).find(|at| !chosen.contains(at))) else { break };
            chosen.push(next);
            let first = chosen.len() == 1;
            for (at, distance) in distances.iter_mut().enumerate() {
                let common = dot(&residuals[at], &residuals[next]) * dot(features(at), features(next));
                let square = (lengths[at] + lengths[next] - 2.0 * common).max(0.0);
                *distance = if first { square } else { distance.min(square) };
            }
            chosen.iter().for_each(|&at| distances[at] = 0.0);
        }
        chosen.into_iter().map(|at| self.suggestion(at)).collect()
    }

    fn suggestion(&self, at: usize) -> Suggestion {
        let row = &self.probabilities[at * self.classes..(at + 1) * self.classes];
        let (class, probability) = largest(row);
        let second = row.iter().enumerate().filter(|(other, _)| *other != class).map(|(_, &value)| value);
        let margin = probability - second.fold(0.0, f32::max);
        Suggestion { file: self.files[at].clone(), class, probability, margin }
    }
}

/// What the outputs lack to the class that they are largest for.
fn residual(row: &[f32]) -> Vec<f32> {
    let mut residual = row.to_vec();
    let (class, _) = largest(row);
    if let Some(value) = residual.get_mut(class) {
        *value -= 1.0;
    }
    residual
}

fn largest(row: &[f32]) -> (usize, f32) {
    row.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))).unwrap_or((0, 0.0))
}

fn longest(lengths: &[f32]) -> Option<usize> {
    (0..lengths.len()).max_by(|&a, &b| lengths[a].total_cmp(&lengths[b]).then(b.cmp(&a)))
}

/// A place, each as likely as its weight says; none where all weigh nothing.
fn draw(weights: &[f32], random: &mut Random) -> Option<usize> {
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let mut left = f64::from(random.uniform()) * total;
    let mut last = None;
    for (at, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        last = Some(at);
        left -= f64::from(weight);
        if left < 0.0 {
            break;
        }
    }
    last
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

fn softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

/// Features as they are, or where they are many, along random directions of signs (Achlioptas 2003).
struct Projection {
    to: usize,
    signs: Vec<f32>,
}

impl Projection {
    fn new(from: usize) -> Self {
        if from <= MOST_FEATURES {
            return Self { to: from, signs: Vec::new() };
        }
        let mut random = Random::new(0, Purpose::Sample, 1, 0);
        let scale = (MOST_FEATURES as f32).sqrt().recip();
        let signs =
            (0..from * MOST_FEATURES).map(|_| if random.next_u64() & 1 == 0 { scale } else { -scale }).collect();
        Self { to: MOST_FEATURES, signs }
    }

    fn apply(&self, row: &[f32], features: &mut Vec<f32>) {
        if self.signs.is_empty() {
            features.extend_from_slice(row);
        } else {
            features.extend(self.signs.chunks_exact(row.len()).map(|signs| dot(signs, row)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(probabilities: &[[f32; 2]], features: &[[f32; 2]]) -> Candidates {
        Candidates {
            files: (0..features.len()).map(|at| at.to_string().into()).collect(),
            probabilities: probabilities.concat(),
            classes: 2,
            features: features.concat(),
            width: 2,
        }
    }

    #[test]
    fn unsure_images_come_first_and_copies_last() {
        let sure = [0.99, 0.01];
        let unsure = [0.55, 0.45];
        // Three copies of one unsure image, another unsure one, and sure ones.
        let probabilities = [sure, unsure, unsure, unsure, unsure, sure, sure];
        let features = [[1.0, 0.0], [1.0, 0.1], [1.0, 0.1], [1.0, 0.1], [0.0, 1.0], [0.0, 1.0], [0.7, 0.7]];
        let candidates = candidates(&probabilities, &features);
        for seed in 0..20 {
            let chosen: Vec<String> =
                candidates.choose(2, seed).iter().map(|suggestion| suggestion.file.display().to_string()).collect();
            assert_eq!(chosen[0], "1", "{chosen:?}");
            assert!(!["2", "3"].contains(&chosen[1].as_str()), "{chosen:?}");
        }
        let all = candidates.choose(100, 0);
        assert_eq!(all.len(), 7);
        assert!((all[0].margin - 0.1).abs() < 1e-6 && all[0].class == 0);
        assert_eq!(candidates.choose(3, 1), candidates.choose(3, 1));
    }
}
