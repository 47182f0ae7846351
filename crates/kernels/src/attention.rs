//! Scaled dot-product attention (Vaswani et al., *Attention is all you need*, 2017) of a sample's tokens to each other, for
//! several heads.
//!
//! Queries, keys and values of a token lie side by side, `[tokens][3][heads][width]`, as one dense layer makes them. The
//! products run on the convolutions' tile: keys and values are copied to rows of whole vectors, and the matrix of one head's
//! weights stays in the second-level cache. Backward computes it anew instead of keeping it.

use crate::conv::matrix::{Left, copy_columns, copy_rows, multiply, padded, split};
use crate::isa::Level;
use crate::softmax;

/// The shape of one sample's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Tokens of a sample.
    pub tokens: usize,
    /// Heads, which do not see each other.
    pub heads: usize,
    /// Values of a query, a key or a value of one head.
    pub width: usize,
}

/// What of a token's row is meant.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

impl AttentionShape {
    /// Values of a token's output.
    fn channels(&self) -> usize {
        self.heads * self.width
    }

    fn start(&self, part: Part, head: usize) -> usize {
        part as usize * self.channels() + head * self.width
    }

    /// Values of scratch memory for one head forward: keys as columns, values as rows, scores and weights.
    fn forward_parts(&self, level: Level) -> [usize; 4] {
        let (t, w) = (self.tokens, self.width);
        [w * padded(level, t), t * padded(level, w), t * t, t * t]
    }

    /// Values of scratch memory that [`forward`] needs.
    pub fn forward_scratch(&self, level: Level) -> usize {
        self.forward_parts(level).iter().sum()
    }

    /// The same backward: one matrix after another as columns and as rows, scores and what follows from them.
    fn backward_parts(&self, level: Level) -> [usize; 5] {
        let [columns, rows, scores, weights] = self.forward_parts(level);
        [columns, rows, scores, weights, self.tokens * self.tokens]
    }

    /// Values of scratch memory that [`backward`] needs.
    pub fn backward_scratch(&self, level: Level) -> usize {
        self.backward_parts(level).iter().sum()
    }

    fn check(&self, samples: usize, qkv: usize, out: usize) {
        assert_eq!(qkv, samples * self.tokens * 3 * self.channels(), "queries, keys and values");
        assert_eq!(out, samples * self.tokens * self.channels(), "outputs");
    }
}

/// `y = softmax(q kᵀ / sqrt(width)) v` for each sample and head; y is `[tokens][heads][width]`.
pub fn forward(level: Level, shape: &AttentionShape, samples: usize, qkv: &[f32], y: &mut [f32], scratch: &mut [f32]) {
    shape.check(samples, qkv.len(), y.len());
    let (tokens, width, channels) = (shape.tokens, shape.width, shape.channels());
    let pitch = 3 * channels;
    let [keys, values, scores, weights] = split(scratch, shape.forward_parts(level));
    if y.is_empty() {
        return;
    }
    for (qkv, y) in qkv.chunks_exact(tokens * pitch).zip(y.chunks_exact_mut(tokens * channels)) {
        for head in 0..shape.heads {
            attend(level, shape, head, qkv, keys, scores, weights);
            let value = &qkv[shape.start(Part::Value, head)..];
            copy_rows(value, pitch, width, values, padded(level, width), 1.0);
            let weights = Left { values: weights, rows: tokens, depth: tokens, row: tokens, step: 1 };
            multiply(level, weights, values, padded(level, width), width, &mut y[head * width..], channels);
        }
    }
}

/// The weights of one head: rows of queries, columns of keys.
fn attend(
    level: Level,
    shape: &AttentionShape,
    head: usize,
    qkv: &[f32],
    keys: &mut [f32],
    scores: &mut [f32],
    weights: &mut [f32],
) {
    let (tokens, width, pitch) = (shape.tokens, shape.width, 3 * shape.channels());
    let columns = padded(level, tokens);
    copy_columns(&qkv[shape.start(Part::Key, head)..], pitch, tokens, keys, columns, scale_of(shape));
    let queries =
        Left { values: &qkv[shape.start(Part::Query, head)..], rows: tokens, depth: width, row: pitch, step: 1 };
    multiply(level, queries, keys, columns, tokens, scores, tokens);
    softmax::forward(level, tokens, scores, weights);
}

/// Gradient of [`forward`]'s `qkv` for that of `y`.
pub fn backward(
    level: Level,
    shape: &AttentionShape,
    samples: usize,
    qkv: &[f32],
    dy: &[f32],
    dqkv: &mut [f32],
    scratch: &mut [f32],
) {
    shape.check(samples, qkv.len(), dy.len());
    assert_eq!(qkv.len(), dqkv.len());
    let (tokens, width, channels) = (shape.tokens, shape.width, shape.channels());
    let (pitch, wide, columns) = (3 * channels, padded(level, width), padded(level, tokens));
    let [across, rows, scores, weights, dscores] = split(scratch, shape.backward_parts(level));
    if dy.is_empty() {
        return;
    }
    let samples = qkv.chunks_exact(tokens * pitch).zip(dy.chunks_exact(tokens * channels));
    for ((qkv, dy), dqkv) in samples.zip(dqkv.chunks_exact_mut(tokens * pitch)) {
        for head in 0..shape.heads {
            let part = |part| shape.start(part, head);
            attend(level, shape, head, qkv, across, scores, weights);
            let dy = &dy[head * width..];
            // dv = weightsᵀ dy
            copy_rows(dy, channels, width, rows, wide, 1.0);
            let transposed = |values| Left { values, rows: tokens, depth: tokens, row: 1, step: tokens };
            multiply(level, transposed(weights), rows, wide, width, &mut dqkv[part(Part::Value)..], pitch);
            // The weights' gradient is dy vᵀ; it takes the place of the scores.
            copy_columns(&qkv[part(Part::Value)..], pitch, tokens, across, columns, 1.0);
            let gradient = Left { values: dy, rows: tokens, depth: width, row: channels, step: 1 };
            multiply(level, gradient, across, columns, tokens, scores, tokens);
            softmax::backward(level, tokens, weights, scores, dscores);
            // dq = dscores k / sqrt(width), dk = dscoresᵀ q / sqrt(width)
            let straight = Left { values: dscores, rows: tokens, depth: tokens, row: tokens, step: 1 };
            copy_rows(&qkv[part(Part::Key)..], pitch, width, rows, wide, scale_of(shape));
            multiply(level, straight, rows, wide, width, &mut dqkv[part(Part::Query)..], pitch);
            copy_rows(&qkv[part(Part::Query)..], pitch, width, rows, wide, scale_of(shape));
            multiply(level, transposed(dscores), rows, wide, width, &mut dqkv[part(Part::Key)..], pitch);
        }
    }
}

fn scale_of(shape: &AttentionShape) -> f32 {
    (shape.width.max(1) as f32).recip().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{STALE, close, gradient, output, values, wide};

    /// `y` of one sample.
    fn exact(shape: &AttentionShape, qkv: &[f64]) -> Vec<f64> {
        let (t, w, channels) = (shape.tokens, shape.width, shape.channels());
        let at =
            |token: usize, part: Part, head: usize, i: usize| qkv[token * 3 * channels + shape.start(part, head) + i];
        let mut y = vec![0.0; t * channels];
        for head in 0..shape.heads {
            for query in 0..t {
                let score = |key: usize| {
                    let dot: f64 = (0..w).map(|i| at(query, Part::Query, head, i) * at(key, Part::Key, head, i)).sum();
                    (dot / (w as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = (0..t).map(score).collect();
                let sum: f64 = scores.iter().sum();
                for i in 0..w {
                    y[query * channels + head * w + i] =
                        (0..t).map(|key| scores[key] / sum * at(key, Part::Value, head, i)).sum();
                }
            }
        }
        y
    }

    fn shapes() -> impl Iterator<Item = AttentionShape> {
        let shape = |&(tokens, heads, width): &(usize, usize, usize)| AttentionShape { tokens, heads, width };
        [(1, 1, 1), (2, 3, 4), (5, 2, 3), (17, 1, 16), (33, 2, 17), (50, 3, 32)]
            .iter()
            .map(shape)
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn tokens_attend_to_each_other() {
        for level in Level::available() {
            for shape in shapes() {
                for samples in [0, 1, 2] {
                    let len = shape.tokens * shape.channels();
                    let qkv = values(samples * 3 * len, 1);
                    let want: Vec<f64> = qkv.chunks(3 * len).flat_map(|qkv| exact(&shape, &wide(qkv))).collect();
                    let mut scratch = vec![f32::NAN; shape.forward_scratch(level)];
                    let y = output(samples * len, STALE, |y| forward(level, &shape, samples, &qkv, y, &mut scratch));
                    // A score's error, which grows with its width, is a weight's relative error.
                    close((level, shape, samples), &y, &want, 24.0 + 2.0 * shape.width as f64, 3.0);
                }
            }
        }
    }

    #[test]
    fn gradients_match_differences() {
        for level in Level::available() {
            for shape in shapes().filter(|shape| shape.tokens <= 17) {
                let len = shape.tokens * shape.channels();
                let (qkv, dy) = (values(2 * 3 * len, 1), values(2 * len, 2));
                let loss = |qkv: &[f64]| -> f64 {
                    let y = qkv.chunks(3 * len).flat_map(|qkv| exact(&shape, qkv));
                    y.zip(&dy).map(|(y, &dy)| y * f64::from(dy)).sum()
                };
                let want = gradient(loss, &wide(&qkv));
                let mut scratch = vec![f32::NAN; shape.backward_scratch(level)];
                let dqkv = output(qkv.len(), STALE, |dqkv| {
                    backward(level, &shape, 2, &qkv, &dy, dqkv, &mut scratch);
                });
                close((level, shape), &dqkv, &want, 64.0 + 4.0 * shape.width as f64, 10.0);
            }
        }
    }
}
