//! First weights that make the outputs of a convolution uncorrelated, from training images.
//!
//! Page, *How to train your ResNet 8: bag of tricks*, 2019; with both signs of each filter: tysam-code, *hlb-CIFAR10*, 2023.

use super::graph::Forward;
use super::{Images, Model, ModelError};
use crate::layers::AnyLayer;
use ocellus_engine::{DType, Input, ParameterId, Plan, PlanOptions, Runner, Scalars, Value};

/// Images for each step.
const BATCH: usize = 64;
/// Inputs of a filter, at most: the time grows with their third power.
const MOST_INPUTS: usize = 1024;

impl Model {
    /// Sets the filters of a convolution to the principal components of the patches that it reads, each divided by the
    /// root of its variance plus `epsilon`, the largest first; after them the same filters with the other sign. Measured on
    /// `count` of the images, evenly spread.
    ///
    /// # Errors
    /// Where there is no such convolution, or the images do not suit the model.
    pub fn whiten<'a>(
        &mut self,
        layer: &str,
        images: impl Into<Images<'a>>,
        count: usize,
        epsilon: f32,
    ) -> Result<(), ModelError> {
        let images = images.into();
        let (kernel, shape, at) = self.whitenable(layer)?;
        let [height, width, channels, filters] = shape;
        let inputs = height * width * channels;
        let dtype = if images.are_bytes() { DType::U8 } else { DType::F32 };
        let Forward { graph, input, outputs, .. } = self.forward(dtype)?;
        let read = at.checked_sub(1).map_or(input, |at| outputs[at]);
        let [rows, columns] = *graph.shape(read).first_chunk().unwrap_or(&[0, 0]);
        let mut patches = Patches {
            shape: [rows, columns, channels],
            window: [height, width],
            sums: vec![0.0; inputs * inputs],
            count: 0,
        };
        let level = self.level()?;
        let made = graph.nodes().iter().any(|node| node.outputs.contains(&read));
        let plan = made.then(|| Plan::new(&graph, &[read], PlanOptions::new(BATCH, level))).transpose()?;
        self.each_batch(images, count, plan, (read, rows * columns * channels), |values| patches.take(values))?;
        let components = patches.components(epsilon);
        let values = self.parameters.values_mut(kernel);
        let half = (filters / 2).min(inputs);
        for (number, component) in components.iter().take(half).enumerate() {
            for (input, &weight) in component.iter().enumerate() {
                values[input * filters + number] = weight as f32;
                values[input * filters + half + number] = -weight as f32;
            }
        }
        self.forget_calibration();
        Ok(())
    }

    /// The kernel of a convolution, its shape, and the position of the layer it reads.
    fn whitenable(&self, layer: &str) -> Result<(ParameterId, [usize; 4], usize), ModelError> {
        let refused = |problem: String| ModelError::Argument(format!("whitening: {problem}"));
        let layers = &self.network.architecture.layers;
        let at = layers.iter().position(|known| known.name == layer);
        let Some(at) = at else { return Err(refused(format!("the model has no layer {layer:?}"))) };
        let kernel = self.layer_parameters[at].first().map(|&id| (id, self.parameters.get(id).shape.clone()));
        let Some((id, Ok(shape))) = kernel.map(|(id, shape)| (id, <[usize; 4]>::try_from(shape))) else {
            return Err(refused(format!("{layer} is no convolution")));
        };
        let inputs: usize = shape[..3].iter().product();
        if !matches!(layers[at].layer, AnyLayer::Conv2d(_)) || inputs > MOST_INPUTS {
            return Err(refused(format!("{layer} is no convolution of at most {MOST_INPUTS} inputs to each filter")));
        }
        if self.network.nodes[at].inputs.iter().any(|&from| {
            from.checked_sub(1).is_some_and(|from| self.network.nodes[from].output_shape.last() != Some(&shape[2]))
        }) {
            return Err(refused(format!("{layer} reads its channels in groups")));
        }
        Ok((id, shape, self.network.nodes[at].inputs[0]))
    }

    /// Hands over what is read, for some images at a time.
    fn each_batch(
        &mut self,
        images: Images<'_>,
        count: usize,
        plan: Option<Plan>,
        (read, length): (Value, usize),
        mut take: impl FnMut(&[f32]),
    ) -> Result<(), ModelError> {
        let all = images.count(self.input_shape())?;
        let count = count.min(all);
        let values: usize = self.input_shape().iter().product();
        let mut runner = plan.map(|plan| Runner::new(plan, self.engine.pool().threads()));
        let (mut pixels, mut numbers, mut results) = (Vec::new(), Vec::new(), Vec::new());
        for first in (0..count).step_by(BATCH) {
            let samples = BATCH.min(count - first);
            pixels.clear();
            numbers.clear();
            for number in first..first + samples {
                let index = (number as u128 * all as u128 / count as u128) as usize;
                let mut spare = Vec::new();
                match images.stretch(index..index + 1, values, &mut spare)? {
                    Input::U8(image) => pixels.extend_from_slice(image),
                    Input::F32(image) => numbers.extend_from_slice(image),
                }
            }
            let Some(runner) = &mut runner else {
                // The images themselves are read; bytes would have been scaled.
                take(&numbers);
                continue;
            };
            let input = if numbers.is_empty() { Input::U8(&pixels) } else { Input::F32(&numbers) };
            runner.run(self.engine.pool(), &mut self.parameters, &[input], samples, &Scalars::default());
            results.resize(samples * length, 0.0);
            runner.read(read, &mut results);
            take(&results);
        }
        Ok(())
    }
}

/// Sums of products over all patches of images.
struct Patches {
    /// Of an image.
    shape: [usize; 3],
    /// Of a patch: height and width.
    window: [usize; 2],
    /// (inputs, inputs), the upper triangle.
    sums: Vec<f64>,
    count: u64,
}

impl Patches {
    fn take(&mut self, images: &[f32]) {
        let ([height, width, channels], [rows, columns]) = (self.shape, self.window);
        let inputs = rows * columns * channels;
        let mut patch = vec![0.0f32; inputs];
        let mut sums = vec![0.0f32; inputs * inputs];
        for image in images.chunks_exact(height * width * channels) {
            sums.fill(0.0);
            for (y, x) in (0..=height - rows).flat_map(|y| (0..=width - columns).map(move |x| (y, x))) {
                for (row, to) in patch.chunks_exact_mut(columns * channels).enumerate() {
                    to.copy_from_slice(&image[((y + row) * width + x) * channels..][..columns * channels]);
                }
                for (i, &value) in patch.iter().enumerate() {
                    let sums = &mut sums[i * inputs + i..(i + 1) * inputs];
                    sums.iter_mut().zip(&patch[i..]).for_each(|(sum, &other)| *sum += value * other);
                }
            }
            self.sums.iter_mut().zip(&sums).for_each(|(all, &sum)| *all += f64::from(sum));
            self.count += ((height - rows + 1) * (width - columns + 1)) as u64;
        }
    }

    /// The principal components, each divided by the root of its variance plus `epsilon`, largest variance first.
    fn components(&self, epsilon: f32) -> Vec<Vec<f64>> {
        let inputs = self.window.iter().product::<usize>() * self.shape[2];
        let mean = |i: usize, j: usize| self.sums[i.min(j) * inputs + i.max(j)] / self.count.max(1) as f64;
        let (variances, vectors) = eigen((0..inputs).map(|i| (0..inputs).map(|j| mean(i, j)).collect()).collect());
        let mut order: Vec<usize> = (0..inputs).collect();
        order.sort_by(|&a, &b| variances[b].total_cmp(&variances[a]));
        let component = |at: usize| {
            let size = (variances[at].max(0.0) + f64::from(epsilon).max(1e-12)).sqrt();
            vectors.iter().map(|row| row[at] / size).collect()
        };
        order.into_iter().map(component).collect()
    }
}

/// Eigenvalues of a symmetric matrix and its eigenvectors, in columns, by Jacobi's rotations.
fn eigen(mut a: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = a.len();
    let mut v: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    // Converges quadratically; some ten sweeps do.
    for _ in 0..64 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i][j] * a[i][j]).sum();
        let diagonal: f64 = (0..n).map(|i| a[i][i] * a[i][i]).sum();
        if off <= 1e-28 * diagonal {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q] == 0.0 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for row in &mut a {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                let (upper, lower) = a.split_at_mut(q);
                for (p, q) in upper[p].iter_mut().zip(&mut lower[0]) {
                    (*p, *q) = (c * *p - s * *q, s * *p + c * *q);
                }
                for row in &mut v {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
            }
        }
    }
    ((0..n).map(|i| a[i][i]).collect(), v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Conv2d, Flatten, Layer};
    use crate::model::Sequential;
    use crate::random::{Purpose, Random};

    #[test]
    fn whitened_patches_are_uncorrelated() {
        let mut random = Random::new(0, Purpose::Test, 0, 0);
        // Neighbouring values are alike.
        let images: Vec<f32> = (0..20)
            .flat_map(|_| {
                let mut at = 0.0;
                (0..6 * 6 * 2)
                    .map(|_| {
                        at = 0.8 * at + random.normal();
                        at
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        let build =
            || Sequential::new([6, 6, 2]).add(Conv2d::new(16, 2).use_bias(false).named("white")).build().unwrap();
        let mut model = build();
        model.whiten("white", &images, 1000, 0.0).unwrap();
        let outputs = model.predict(&images).unwrap();
        let patches: Vec<&[f32]> = outputs.values().chunks_exact(16).collect();
        for i in 0..8 {
            for j in 0..16 {
                let mean =
                    patches.iter().map(|p| f64::from(p[i]) * f64::from(p[j])).sum::<f64>() / patches.len() as f64;
                let expected = if i == j {
                    1.0
                } else if i + 8 == j {
                    -1.0
                } else {
                    0.0
                };
                assert!((mean - expected).abs() < 1e-3, "{i} {j}: {mean}");
            }
        }
        // The first filter's component varies most, so it is divided by most.
        let size = |model: &Model, filter: usize| {
            model.weights().next().unwrap().2.iter().skip(filter).step_by(16).map(|w| w * w).sum::<f32>()
        };
        assert!((0..7).all(|f| size(&model, f) <= size(&model, f + 1)));
        let mut again = build();
        again.set_threads(Some(2));
        again.whiten("white", &images, 1000, 0.0).unwrap();
        assert!(again.snapshot() == model.snapshot());
    }

    #[test]
    fn what_cannot_be_whitened_is_refused() {
        let mut model = Sequential::new([6, 6, 1]).add(Flatten::new()).build().unwrap();
        for (layer, problem) in [("flat", "no layer \"flat\""), ("flatten", "flatten is no convolution")] {
            let error = model.whiten(layer, &[0u8; 36], 1, 0.0).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
