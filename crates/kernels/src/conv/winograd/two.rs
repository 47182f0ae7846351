//! The transforms of F(2x2, 3x3): 16 multiplications for 2x2 outputs instead of 36.
//!
//! Where a patch of 4x4 is constant along an axis, so are its outputs, to the bit: ties between the pixels of a pooling window
//! stay ties.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use crate::conv::factors::Factors;
use crate::conv::pack::Place;
use crate::isa::{Isa, Kernel};

/// Matrices: one for each pixel of a transformed patch.
pub(super) const PARTS: usize = 16;

/// Transforms one vector of channels of a patch, `B^T d B`: from 4x4 pixels at `from` to sixteen vectors `part` slots apart.
///
/// # Safety
/// Of every pixel, `left` channels, at most a vector, are readable; the sixteen vectors are writable.
#[inline(always)]
pub(super) unsafe fn transform_patch<I: Isa, F: Factors>(
    isa: I,
    from: *const f32,
    pitch: usize,
    channels: usize,
    left: usize,
    to: *mut f32,
    part: usize,
) {
    let mut rows = [[isa.zero(); 4]; 4];
    // SAFETY: the caller's promise.
    unsafe {
        let mut pixels = [[isa.zero(); 4]; 4];
        for row in 0..4 {
            pixels[row] = load_pixels(isa, from.add(row * pitch), channels, left);
        }
        for column in 0..4 {
            let [a, b, c, d] = [pixels[0][column], pixels[1][column], pixels[2][column], pixels[3][column]];
            rows[0][column] = isa.sub(a, c);
            rows[1][column] = isa.add(b, c);
            rows[2][column] = isa.sub(c, b);
            rows[3][column] = isa.sub(b, d);
        }
        for row in 0..4 {
            let [a, b, c, d] = rows[row];
            F::store(isa, to.add(4 * row * part), isa.sub(a, c));
            F::store(isa, to.add((4 * row + 1) * part), isa.add(b, c));
            F::store(isa, to.add((4 * row + 2) * part), isa.sub(c, b));
            F::store(isa, to.add((4 * row + 3) * part), isa.sub(b, d));
        }
    }
}

/// One vector of channels of four pixels of a row.
///
/// # Safety
/// Of every pixel, `left` channels, at most a vector, are readable.
#[inline(always)]
unsafe fn load_pixels<I: Isa>(isa: I, from: *const f32, channels: usize, left: usize) -> [I::F32; 4] {
    let mask = isa.first(left);
    let mut pixels = [isa.zero(); 4];
    for column in 0..4 {
        // SAFETY: the caller's promise.
        unsafe {
            let from = from.add(column * channels);
            pixels[column] = if left >= I::LANES { isa.load(from) } else { isa.load_masked(mask, from) };
        }
    }
    pixels
}

/// A row of the transformed patch whose first pixel is at `from`: `(B^T d)[row] B`, from the two rows of pixels that it needs.
///
/// # Safety
/// As for [`transform_patch`].
#[inline(always)]
pub(super) unsafe fn transform_row<I: Isa>(
    isa: I,
    from: *const f32,
    pitch: usize,
    channels: usize,
    left: usize,
    row: usize,
) -> [I::F32; 4] {
    let (first, second) = [(0, 2), (1, 2), (2, 1), (1, 3)][row];
    // SAFETY: the caller's promise.
    let (first, second) = unsafe {
        (
            load_pixels(isa, from.add(first * pitch), channels, left),
            load_pixels(isa, from.add(second * pitch), channels, left),
        )
    };
    let mut sums = [isa.zero(); 4];
    for column in 0..4 {
        let (a, b) = (first[column], second[column]);
        sums[column] = if row == 1 { isa.add(a, b) } else { isa.sub(a, b) };
    }
    let [a, b, c, d] = sums;
    [isa.sub(a, c), isa.add(b, c), isa.sub(c, b), isa.sub(b, d)]
}

/// The outputs of the sixteen products at `from`, `part` slots apart, row by row: `A^T m A`.
///
/// # Safety
/// Sixteen vectors are readable there.
#[inline(always)]
pub(super) unsafe fn restore<I: Isa>(isa: I, from: *const f32, part: usize) -> [I::F32; 4] {
    let mut rows = [[isa.zero(); 4]; 2];
    for column in 0..4 {
        // SAFETY: the caller's promise.
        let load = |row: usize| unsafe { isa.load(from.add((4 * row + column) * part)) };
        let (a, b, c, d) = (load(0), load(1), load(2), load(3));
        rows[0][column] = isa.add(a, isa.add(b, c));
        rows[1][column] = isa.sub(isa.sub(b, c), d);
    }
    let mut outputs = [isa.zero(); 4];
    for row in 0..2 {
        let [a, b, c, d] = rows[row];
        outputs[2 * row] = isa.add(a, isa.add(b, c));
        outputs[2 * row + 1] = isa.sub(isa.sub(b, c), d);
    }
    outputs
}

/// Turns nine taps, which lie in the panel's last nine parts, into the sixteen parts, row by row in place.
pub(super) struct TransformWeights(pub(super) Place);

impl Kernel for TransformWeights {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Place { panel, part, .. } = self.0;
        let half = isa.splat(0.5);
        for at in self.0.vectors(I::LANES) {
            // SAFETY: the place has a vector there, in each part.
            unsafe {
                let panel = panel.0.add(at);
                // `G g`, then `(G g) G^T`.
                let mut rows = [[isa.zero(); 3]; 4];
                for column in 0..3 {
                    let tap = |row: usize| panel.add((PARTS - 9 + 3 * row + column) * part).cast_const();
                    let (a, b, c) = (isa.load(tap(0)), isa.load(tap(1)), isa.load(tap(2)));
                    let ends = isa.add(a, c);
                    rows[0][column] = a;
                    rows[1][column] = isa.mul(half, isa.add(ends, b));
                    rows[2][column] = isa.mul(half, isa.sub(ends, b));
                    rows[3][column] = c;
                }
                for row in 0..4 {
                    let [a, b, c] = rows[row];
                    let ends = isa.add(a, c);
                    isa.store(panel.add(4 * row * part), a);
                    isa.store(panel.add((4 * row + 1) * part), isa.mul(half, isa.add(ends, b)));
                    isa.store(panel.add((4 * row + 2) * part), isa.mul(half, isa.sub(ends, b)));
                    isa.store(panel.add((4 * row + 3) * part), c);
                }
            }
        }
    }
}
