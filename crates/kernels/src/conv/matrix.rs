//! A plain product of two matrices on the convolutions' tile, for what is no convolution.

use super::Epilogue;
use super::geometry::Segment;
use super::pack::TileSize;
use super::tile::{Columns, Product, Reduction, Rows};
use crate::Level;

/// The left matrix: where its rows lie, and from one value of a row to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    /// From one row to the next.
    pub(crate) row: usize,
    /// From one value of a row to the next.
    pub(crate) step: usize,
}

/// Columns in whole vectors: what a row of the right matrix must have.
pub(crate) fn padded(level: Level, columns: usize) -> usize {
    TileSize::of(level).padded(columns)
}

/// `out = left * right`. Rows of `right` lie `pitch` values apart, of which [`padded`] ones are read; those of `out`,
/// `out_pitch` apart, get `columns` values.
pub(crate) fn multiply(
    level: Level,
    left: Left<'_>,
    right: &[f32],
    pitch: usize,
    columns: usize,
    out: &mut [f32],
    out_pitch: usize,
) {
    let segments = [Segment { a: 0, k: 0, len: left.depth }];
    let product = Product {
        rows: Rows { input: &[0], output: &[0], samples: left.rows, input_stride: left.row, output_stride: out_pitch },
        reduction: Reduction { segments: &segments, step: left.step, repeat: 1, a_stride: 0, k_stride: 0 },
        a: left.values,
        b: right,
        layout: Columns::Plain { pitch },
        columns,
        bias: None,
        epilogue: Epilogue::Linear,
        accumulate: false,
        cold: false,
        moments: None,
        out,
    };
    product.run_on(level);
}

/// Parts of the scratch memory, of these lengths.
pub(crate) fn split<const N: usize>(mut scratch: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    lengths.map(|len| {
        let (part, rest) = std::mem::take(&mut scratch).split_at_mut(len);
        scratch = rest;
        part
    })
}

/// Copies rows of `width` values, `pitch` apart, to rows `to_pitch` apart, multiplied; what is behind a row is zero.
pub(crate) fn copy_rows(from: &[f32], pitch: usize, width: usize, to: &mut [f32], to_pitch: usize, factor: f32) {
    for (from, to) in from.chunks(pitch).zip(to.chunks_exact_mut(to_pitch)) {
        let (row, rest) = to.split_at_mut(width);
        row.iter_mut().zip(from).for_each(|(to, from)| *to = from * factor);
        rest.fill(0.0);
    }
}

/// Copies rows, `pitch` apart, to columns of `to`, whose rows are `to_pitch` apart, multiplied.
pub(crate) fn copy_columns(from: &[f32], pitch: usize, rows: usize, to: &mut [f32], to_pitch: usize, factor: f32) {
    for (c, to) in to.chunks_exact_mut(to_pitch).enumerate() {
        for (r, to) in to[..rows].iter_mut().enumerate() {
            *to = from[r * pitch + c] * factor;
        }
        to[rows..].fill(0.0);
    }
}
