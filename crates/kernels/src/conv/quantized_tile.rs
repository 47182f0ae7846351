//! The microkernel of 8-bit convolutions: whole-number sums of a tile of pixels in registers, of which each pooling window's
//! maximum is scaled and stored as numbers or bytes.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::geometry::Segment;
use super::pack::TileSize;
use super::quantized::{Addend, Destination};
use super::tile::{MOST_ROWS, tile_rows};
use crate::isa::{Dot, DotKernel, Isa};

/// A matrix product of bytes whose rows come in pooling windows of one or more pixels.
pub(super) struct QuantizedProduct<'a> {
    /// Where the rows start in `a`: all of one window's, then the next one's, for one sample.
    pub(super) rows: &'a [u32],
    /// Rows of a window.
    pub(super) window: usize,
    pub(super) samples: usize,
    /// From one sample to the next in `a`.
    pub(super) input_stride: usize,
    /// The reduction: where runs of four bytes start, from a row's start on, and the quads before each.
    pub(super) quads: &'a [Segment],
    pub(super) depth: usize,
    pub(super) a: &'a [u8],
    /// For each group panels `[panel][depth][panel columns][4]`.
    pub(super) b: &'a [i8],
    /// For each filter, of all groups: the factor of its sums, and what is added then. Readable beyond the last one for a panel's
    /// columns.
    pub(super) factor: &'a [f32],
    pub(super) term: &'a [f32],
    pub(super) shortcut: Option<Shortcut<'a>>,
    /// The least and greatest result.
    pub(super) bounds: (f32, f32),
    pub(super) groups: usize,
    /// Bytes in a row of `a` from one group to the next.
    pub(super) group_channels: usize,
    /// Filters of a group.
    pub(super) columns: usize,
    pub(super) out: Out<'a>,
}

/// Where results are stored: window by window, all filters of each.
pub(super) enum Out<'a> {
    Numbers(&'a mut [f32]),
    Bytes(&'a mut [u8]),
}

impl<'a> Out<'a> {
    pub(super) fn of(y: Destination<'a>) -> Self {
        match y {
            Destination::Numbers(y) => Out::Numbers(y),
            Destination::Bytes(_, y) => Out::Bytes(y),
        }
    }

    fn len(&self) -> usize {
        match self {
            Out::Numbers(y) => y.len(),
            Out::Bytes(y) => y.len(),
        }
    }
}

/// What is added to the results, laid out as they are: `factor * value`. Its `constant` is in the terms.
#[derive(Clone, Copy)]
pub(super) struct Shortcut<'a> {
    values: Values<'a>,
    factor: f32,
    pub(super) constant: f32,
}

#[derive(Clone, Copy)]
enum Values<'a> {
    Numbers(&'a [f32]),
    Bytes(&'a [u8]),
}

impl<'a> Shortcut<'a> {
    pub(super) fn of(addend: Option<Addend<'a>>, y: &Destination<'_>) -> Option<Self> {
        let (one, _) = y.unit();
        Some(match addend? {
            Addend::Numbers(x) => Shortcut { values: Values::Numbers(x), factor: one, constant: 0.0 },
            Addend::Bytes(encoding, x) => {
                let factor = encoding.scale * one;
                let constant = -factor * f32::from(encoding.zero_point);
                Shortcut { values: Values::Bytes(x), factor, constant }
            }
        })
    }

    fn len(&self) -> usize {
        match self.values {
            Values::Numbers(x) => x.len(),
            Values::Bytes(x) => x.len(),
        }
    }
}

/// Windows that have tiles.
const TILED: [usize; 3] = [1, 2, 4];

impl QuantizedProduct<'_> {
    /// Whether windows of that many pixels have a tile.
    pub(super) fn has_tile(window: usize) -> bool {
        TILED.contains(&window)
    }

    /// Asserts that every read and write below is inside its slice.
    fn check(&self, size: TileSize) {
        let greatest = self.rows.iter().copied().max().unwrap_or(0) as usize;
        let last = self.quads.iter().filter(|run| run.len > 0).map(|run| run.a + 4 * run.len).max().unwrap_or(0);
        let group = (self.groups - 1) * self.group_channels;
        assert!(greatest + (self.samples - 1) * self.input_stride + group + last <= self.a.len(), "rows inside a");
        assert!(self.quads.iter().all(|run| run.k + run.len <= self.depth), "quads inside the panels");
        assert!(self.groups * self.depth * size.padded(self.columns) * 4 <= self.b.len(), "panels inside b");
        let filters = self.groups * self.columns;
        assert!(self.factor.len() >= filters + size.columns && self.term.len() >= self.factor.len(), "tables");
        assert!(self.rows.len().is_multiple_of(self.window), "whole windows");
        let results = self.samples * (self.rows.len() / self.window) * filters;
        assert!(results <= self.out.len(), "windows inside the output");
        assert!(self.shortcut.is_none_or(|shortcut| results <= shortcut.len()), "windows inside the shortcut");
    }
}

impl DotKernel for QuantizedProduct<'_> {
    type Output = ();
    #[inline(always)]
    fn run<D: Dot>(mut self, dot: D) {
        if self.samples == 0 || self.rows.is_empty() {
            return;
        }
        let lanes = D::Isa::LANES;
        let size = TileSize { lanes, rows: D::Isa::TILE_ROWS, columns: lanes * D::Isa::TILE_VECTORS };
        self.check(size);
        let at_once = size.rows / self.window;
        let windows = self.samples * self.rows.len() / self.window;
        for group in 0..self.groups {
            for column in (0..self.columns).step_by(size.columns) {
                let width = size.panel(column, self.columns);
                let b = (group * size.padded(self.columns) + column) * self.depth * 4;
                let filter = group * self.columns + column;
                let (mut sample, mut row, mut first) = (0, 0, 0);
                while first < windows {
                    // Single pixels share the last two tiles alike; windows fill the last one with repetitions.
                    let count = if self.window == 1 {
                        tile_rows(windows - first, size.rows)
                    } else {
                        at_once.min(windows - first)
                    };
                    let mut input = [0usize; MOST_ROWS];
                    for i in 0..count * self.window {
                        let start = self.rows[row] as usize + sample * self.input_stride;
                        input[i] = start + group * self.group_channels;
                        row += 1;
                        if row == self.rows.len() {
                            (sample, row) = (sample + 1, 0);
                        }
                    }
                    for i in count * self.window..MOST_ROWS {
                        input[i] = input[0];
                    }
                    let columns = (self.columns - column).min(size.columns);
                    let tile = Tile { input: &input, b, width, filter, columns, first, count };
                    // SAFETY: `check` has bounded every offset of the rows, the reduction and the windows.
                    unsafe { self.any_tile(dot, &tile) };
                    first += count;
                }
            }
        }
    }
}

struct Tile<'a> {
    input: &'a [usize; MOST_ROWS],
    /// Where the panel starts, and its stored columns.
    b: usize,
    width: usize,
    /// The first of the filters, and how many there are.
    filter: usize,
    columns: usize,
    /// The first window, and how many there are.
    first: usize,
    count: usize,
}

impl QuantizedProduct<'_> {
    /// # Safety
    /// See [`tile`](Self::tile).
    #[inline(always)]
    unsafe fn any_tile<D: Dot>(&mut self, dot: D, tile: &Tile<'_>) {
        let (lanes, most) = (D::Isa::LANES, D::Isa::TILE_ROWS);
        macro_rules! dispatch {
            ($($vectors:literal: $($rows:literal / $window:literal)*;)*) => {
                match (tile.width / lanes, self.window, if self.window == 1 { tile.count } else { most / self.window * self.window }) {
                    $($(($vectors, $window, $rows) if $rows <= most && $vectors <= D::Isa::TILE_VECTORS
                        && ($window == 1 || $rows == most / $window * $window) =>
                        // SAFETY: the caller's promise.
                        unsafe { self.tile::<D, $rows, $window, $vectors>(dot, tile) },)*)*
                    (vectors, window, rows) => unreachable!("{rows} rows of {vectors} vectors in windows of {window} are no tile"),
                }
            };
        }
        dispatch! {
            1: 1/1 2/1 3/1 4/1 5/1 6/1 7/1 8/1 9/1 10/1 11/1 12/1 12/2 6/2 4/2 12/4 4/4;
            2: 1/1 2/1 3/1 4/1 5/1 6/1 7/1 8/1 9/1 10/1 11/1 12/1 12/2 6/2 4/2 12/4 4/4;
            3: 1/1 2/1 3/1 4/1 5/1 6/1 6/2 4/4;
            4: 1/1 2/1 3/1 4/1 5/1 6/1 6/2 4/4;
        }
    }

    /// # Safety
    /// The offsets of the rows, the panel and the windows lie inside the slices, as `check` asserts.
    #[inline(always)]
    unsafe fn tile<D: Dot, const ROWS: usize, const WINDOW: usize, const VECTORS: usize>(
        &mut self,
        dot: D,
        tile: &Tile<'_>,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let a: [*const u8; ROWS] = std::array::from_fn(|r| self.a.as_ptr().add(tile.input[r]));
            let b = self.b.as_ptr().add(tile.b);
            let sums = multiply_add::<D, ROWS, VECTORS>(dot, self.quads, a, b, 4 * tile.width);
            // One by one, not in a loop: only with constant indices do the sums stay in registers.
            self.finish::<D, ROWS, WINDOW>(dot, tile, 0, std::array::from_fn(|r| sums[r][0]));
            if VECTORS > 1 {
                self.finish::<D, ROWS, WINDOW>(dot, tile, 1, std::array::from_fn(|r| sums[r][1 % VECTORS]));
            }
            if VECTORS > 2 {
                self.finish::<D, ROWS, WINDOW>(dot, tile, 2, std::array::from_fn(|r| sums[r][2 % VECTORS]));
            }
            if VECTORS > 3 {
                self.finish::<D, ROWS, WINDOW>(dot, tile, 3, std::array::from_fn(|r| sums[r][3 % VECTORS]));
            }
        }
    }

    /// Scales and stores the maxima of one vector of columns.
    ///
    /// # Safety
    /// As for [`tile`](Self::tile).
    #[inline(always)]
    unsafe fn finish<D: Dot, const ROWS: usize, const WINDOW: usize>(
        &mut self,
        dot: D,
        tile: &Tile<'_>,
        vector: usize,
        sums: [D::Sums; ROWS],
    ) {
        let (isa, lanes) = (dot.isa(), D::Isa::LANES);
        let filter = tile.filter + vector * lanes;
        let used = (tile.columns - vector * lanes).min(lanes);
        let mask = isa.first(used);
        let (low, high) = (isa.splat(self.bounds.0), isa.splat(self.bounds.1));
        let pitch = self.groups * self.columns;
        // SAFETY: the caller's promise; tables are readable for a whole vector, all else ends at the columns.
        unsafe {
            let factor = isa.load(self.factor.as_ptr().add(filter));
            let term = isa.load(self.term.as_ptr().add(filter));
            for window in 0..ROWS / WINDOW {
                if WINDOW > 1 && window >= tile.count {
                    break;
                }
                let mut best = sums[window * WINDOW];
                for pixel in 1..WINDOW {
                    best = dot.max(best, sums[window * WINDOW + pixel]);
                }
                let at = (tile.first + window) * pitch + filter;
                // Multiplied and added apart, so that levels without fused multiply-add round alike.
                let mut value = isa.add(isa.mul(dot.to_f32(best), factor), term);
                if let Some(shortcut) = &self.shortcut {
                    let added = match shortcut.values {
                        Values::Numbers(x) => isa.load_masked(mask, x.as_ptr().add(at)),
                        Values::Bytes(x) => isa.load_bytes(x.as_ptr().add(at), used),
                    };
                    value = isa.add(value, isa.mul(added, isa.splat(shortcut.factor)));
                }
                match &mut self.out {
                    Out::Bytes(y) => {
                        let value = isa.min(isa.max(value, low), high);
                        isa.store_bytes(y.as_mut_ptr().add(at), used, value);
                    }
                    Out::Numbers(y) => {
                        // The value is the second operand, so that NaN stays NaN.
                        let value = isa.min(high, isa.max(low, value));
                        let to = y.as_mut_ptr().add(at);
                        if used == lanes { isa.store(to, value) } else { isa.store_masked(mask, to, value) }
                    }
                }
            }
        }
    }
}

/// The inner loop: `sums[r][v] += a[r][4 k .. 4 k + 4] · b[k][v]` over the quads.
///
/// # Safety
/// For every quad, the rows of `a` are readable there for four bytes and `b` for `VECTORS` vectors.
#[inline(always)]
unsafe fn multiply_add<D: Dot, const ROWS: usize, const VECTORS: usize>(
    dot: D,
    quads: &[Segment],
    a: [*const u8; ROWS],
    b: *const i8,
    pitch: usize,
) -> [[D::Sums; VECTORS]; ROWS] {
    let mut sums = [[dot.zero(); VECTORS]; ROWS];
    for run in quads {
        let mut offset = run.a;
        // SAFETY: the caller's promise.
        unsafe {
            let mut b = b.add(run.k * pitch);
            for _ in 0..run.len {
                let columns: [D::Weights; VECTORS] = std::array::from_fn(|v| dot.weights(b.add(v * 4 * D::Isa::LANES)));
                for r in 0..ROWS {
                    let quad = dot.quad(a[r].add(offset));
                    for v in 0..VECTORS {
                        sums[r][v] = dot.add_products(sums[r][v], quad, columns[v]);
                    }
                }
                offset += 4;
                b = b.wrapping_add(pitch);
            }
        }
    }
    sums
}
