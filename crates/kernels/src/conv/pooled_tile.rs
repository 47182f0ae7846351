//! The microkernel of pooled convolutions: a tile is the pixels of a few whole pooling windows, and only their maxima leave it.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::CLOSED;
use super::factors::Singles;
use super::geometry::Segment;
use super::pack::TileSize;
use super::tile::{MOST_ROWS, Reduction, multiply_add};
use crate::Level;
use crate::isa::{Isa, Kernel};

/// A matrix product whose rows come in pooling windows, of which the maximum and its position are stored.
pub(super) struct PooledProduct<'a> {
    /// Where the rows start in `a`: all of one window's, then the next one's, for one sample.
    pub(super) rows: &'a [u32],
    /// Rows of a window.
    pub(super) window: usize,
    pub(super) samples: usize,
    /// From one sample to the next in `a`.
    pub(super) input_stride: usize,
    pub(super) segments: &'a [Segment],
    pub(super) a: &'a [f32],
    /// Packed panels of `depth` rows.
    pub(super) b: &'a [f32],
    pub(super) depth: usize,
    pub(super) columns: usize,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) relu: bool,
    /// From one window's maxima to the next one's.
    pub(super) pitch: usize,
    pub(super) maxima: &'a mut [f32],
    pub(super) positions: &'a mut [u8],
}

impl PooledProduct<'_> {
    /// Whether windows of that many pixels have a tile.
    pub(super) fn has_tile(window: usize, size: TileSize) -> bool {
        matches!((window, size.rows / window * window), (2, 12 | 6 | 4) | (3, 12 | 6 | 3) | (4, 12 | 4) | (9, 9))
    }

    /// Computes it; the one place where these tiles are compiled.
    #[inline(never)]
    pub(super) fn run_on(self, level: Level) {
        level.dispatch(self);
    }

    /// Asserts that every read and write below is inside its slice.
    fn check(&self, size: TileSize) {
        let greatest = self.rows.iter().copied().max().unwrap_or(0) as usize;
        if let Some((a, k)) = Reduction::once(self.segments).last() {
            assert!(greatest + (self.samples - 1) * self.input_stride + a < self.a.len(), "rows inside a");
            assert!(k < self.depth && self.depth * size.padded(self.columns) <= self.b.len(), "rows inside b");
        }
        let last = (self.samples * (self.rows.len() / self.window) - 1) * self.pitch + self.columns;
        assert!(last <= self.maxima.len() && last <= self.positions.len(), "windows inside the output");
        assert!(self.bias.is_none_or(|bias| bias.len() >= self.columns), "a bias for each column");
    }
}

impl Kernel for PooledProduct<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        if self.samples == 0 || self.rows.is_empty() {
            return;
        }
        let size = TileSize { lanes: I::LANES, rows: I::TILE_ROWS, columns: I::LANES * I::TILE_VECTORS };
        self.check(size);
        let at_once = I::TILE_ROWS / self.window;
        let windows = self.samples * self.rows.len() / self.window;
        for column in (0..self.columns).step_by(size.columns) {
            let width = size.panel(column, self.columns);
            let (mut sample, mut row) = (0, 0);
            for first in (0..windows).step_by(at_once) {
                let count = at_once.min(windows - first);
                let rows = count * self.window;
                let mut input = [0usize; MOST_ROWS];
                for i in 0..rows {
                    input[i] = self.rows[row] as usize + sample * self.input_stride;
                    row += 1;
                    if row == self.rows.len() {
                        (sample, row) = (sample + 1, 0);
                    }
                }
                // The last tile repeats a row in place of windows that it lacks.
                for i in rows..MOST_ROWS {
                    input[i] = input[0];
                }
                let tile = Tile { input: &input, column, width, first, count };
                // SAFETY: `check` has bounded every offset of the rows, the reduction and the windows.
                unsafe { self.any_tile(isa, &tile) };
            }
        }
    }
}

struct Tile<'a> {
    input: &'a [usize; MOST_ROWS],
    /// The first column, and the stored width of its panel.
    column: usize,
    width: usize,
    /// The first window, and how many there are.
    first: usize,
    count: usize,
}

impl PooledProduct<'_> {
    /// # Safety
    /// See [`tile`](Self::tile).
    #[inline(always)]
    unsafe fn any_tile<I: Isa>(&mut self, isa: I, tile: &Tile<'_>) {
        macro_rules! dispatch {
            ($($vectors:literal: $($window:literal x $rows:literal,)*;)*) => {
                match (tile.width / I::LANES, self.window) {
                    $($(($vectors, $window) if $rows == I::TILE_ROWS / $window * $window && $vectors <= I::TILE_VECTORS =>
                        // SAFETY: the caller's promise.
                        unsafe { self.tile::<I, $rows, $window, $vectors>(isa, tile) },)*)*
                    (vectors, window) => unreachable!("windows of {window} rows of {vectors} vectors have no tile"),
                }
            };
        }
        dispatch! {
            1: 2 x 12, 2 x 6, 2 x 4, 3 x 12, 3 x 6, 3 x 3, 4 x 12, 4 x 4, 9 x 9,;
            2: 2 x 12, 2 x 6, 2 x 4, 3 x 12, 3 x 6, 3 x 3, 4 x 12, 4 x 4, 9 x 9,;
            3: 2 x 6, 3 x 6, 4 x 4,;
            4: 2 x 6, 3 x 6, 4 x 4,;
        }
    }

    /// # Safety
    /// The offsets of the rows, the panel and the windows lie inside the slices, as `check` asserts.
    #[inline(always)]
    unsafe fn tile<I: Isa, const ROWS: usize, const WINDOW: usize, const VECTORS: usize>(
        &mut self,
        isa: I,
        tile: &Tile<'_>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let a: [*const f32; ROWS] = std::array::from_fn(|r| self.a.as_ptr().add(tile.input[r]));
            let b = self.b.as_ptr().add(tile.column * self.depth);
            let zero = [[isa.zero(); VECTORS]; ROWS];
            let reduction = Reduction::once(self.segments);
            let sums = multiply_add::<I, Singles, ROWS, VECTORS, true>(isa, &reduction, a, b, tile.width, None, zero);
            // One by one, not in a loop: only with constant indices do the sums stay in registers.
            self.finish::<I, ROWS, WINDOW>(isa, tile, 0, std::array::from_fn(|r| sums[r][0]));
            if VECTORS > 1 {
                self.finish::<I, ROWS, WINDOW>(isa, tile, 1, std::array::from_fn(|r| sums[r][1 % VECTORS]));
            }
            if VECTORS > 2 {
                self.finish::<I, ROWS, WINDOW>(isa, tile, 2, std::array::from_fn(|r| sums[r][2 % VECTORS]));
            }
            if VECTORS > 3 {
                self.finish::<I, ROWS, WINDOW>(isa, tile, 3, std::array::from_fn(|r| sums[r][3 % VECTORS]));
            }
        }
    }

    /// Stores the maxima of one vector of columns.
    ///
    /// # Safety
    /// As for [`tile`](Self::tile).
    #[inline(always)]
    unsafe fn finish<I: Isa, const ROWS: usize, const WINDOW: usize>(
        &mut self,
        isa: I,
        tile: &Tile<'_>,
        vector: usize,
        sums: [I::F32; ROWS],
    ) {
        let column = tile.column + vector * I::LANES;
        let used = (self.columns - column).min(I::LANES);
        let mask = isa.first(used);
        // SAFETY: the caller's promise, and the mask ends at the columns.
        unsafe {
            let bias = match self.bias {
                Some(bias) => isa.load_masked(mask, bias.as_ptr().add(column)),
                None => isa.zero(),
            };
            for window in 0..ROWS / WINDOW {
                let pixels: [I::F32; WINDOW] = std::array::from_fn(|row| sums[window * WINDOW + row]);
                let (best, position) = maximum(isa, pixels, bias, self.relu);
                if window < tile.count {
                    let to = (tile.first + window) * self.pitch + column;
                    if used == I::LANES {
                        isa.store(self.maxima.as_mut_ptr().add(to), best);
                    } else {
                        isa.store_masked(mask, self.maxima.as_mut_ptr().add(to), best);
                    }
                    isa.store_positions(self.positions.as_mut_ptr().add(to), used, position);
                }
            }
        }
    }
}

/// The largest of a window's pixels with the bias added, and its position; zero and [`CLOSED`] where `relu` stops it.
#[inline(always)]
pub(super) fn maximum<I: Isa, const WINDOW: usize>(
    isa: I,
    pixels: [I::F32; WINDOW],
    bias: I::F32,
    relu: bool,
) -> (I::F32, I::Position) {
    let mut best = pixels[0];
    let mut position = isa.position(0);
    for i in 1..WINDOW {
        let greater = isa.greater(pixels[i], best);
        best = isa.max(pixels[i], best);
        position = isa.select_position(greater, isa.position(i as u8), position);
    }
    activated(isa, best, position, bias, relu)
}

/// The largest of a window's pixels, given without the bias, and its position, as [`maximum`] gives them.
#[inline(always)]
pub(super) fn activated<I: Isa>(
    isa: I,
    best: I::F32,
    position: I::Position,
    bias: I::F32,
    relu: bool,
) -> (I::F32, I::Position) {
    // The same number added to all of them leaves the largest where it is.
    let best = isa.add(best, bias);
    if !relu {
        return (best, position);
    }
    let position = isa.select_position(isa.greater(best, isa.zero()), position, isa.position(CLOSED));
    (isa.max(isa.zero(), best), position)
}
