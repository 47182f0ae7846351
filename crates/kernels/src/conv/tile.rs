//! The matrix microkernel: `out[row][column] = epilogue(sum over k of a[row, k] * b[k][column])`, a tile at a time in registers.
//!
//! Rows of `a` start at arbitrary offsets, and the reduction runs over segments of them, so convolutions need no unrolled matrix.

#![allow(clippy::needless_range_loop, reason = "the indices of a tile are registers, the same in several arrays")]

use super::Epilogue;
use super::crossed_tile::{BESIDES, CROSSED_ROWS, OWN_LEN, OWN_ROWS};
use super::factors::{Crossed, Factors, Pairs, Singles};
use super::geometry::{LINE, Segment};
use super::pack::TileSize;
use crate::Level;
use crate::batch_norm::MomentSums;
use crate::isa::{Isa, Kernel};

/// The rows of a product: where each starts in `a` and in the output, for one sample, and how often that repeats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) input: &'a [u32],
    pub(super) output: &'a [u32],
    pub(super) samples: usize,
    /// From one sample to the next.
    pub(super) input_stride: usize,
    pub(super) output_stride: usize,
}

impl<'a> Rows<'a> {
    /// The same where all of them, every sample's, lie evenly, as samples of one row each.
    pub(super) fn as_samples(self) -> Self {
        let count = self.input.len();
        if count < 2 {
            return self;
        }
        let even = |offsets: &[u32], stride| {
            let pitch = (offsets[1] - offsets[0]) as usize;
            debug_assert!(self.samples == 1 || stride == count * pitch, "samples behind one another");
            debug_assert!(offsets.windows(2).all(|pair| (pair[1] - pair[0]) as usize == pitch), "even rows");
            pitch
        };
        Rows {
            input_stride: even(self.input, self.input_stride),
            output_stride: even(self.output, self.output_stride),
            samples: self.samples * count,
            input: &self.input[..1],
            output: &self.output[..1],
        }
    }
}

/// The reduction: segments, and how often they repeat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reduction<'a> {
    pub(super) segments: &'a [Segment],
    /// From one `k` to the next within a segment.
    pub(super) step: usize,
    pub(super) repeat: usize,
    /// From one repetition to the next, in values of `a` and in rows of `b`.
    pub(super) a_stride: usize,
    pub(super) k_stride: usize,
}

impl<'a> Reduction<'a> {
    /// Segments of neighbouring values, once.
    pub(super) fn once(segments: &'a [Segment]) -> Self {
        Reduction { segments, step: 1, repeat: 1, a_stride: 0, k_stride: 0 }
    }

    /// Rows of `b` that are read, where they are all neighbours.
    pub(super) fn depth(&self) -> usize {
        self.segments.iter().map(|segment| segment.len).sum::<usize>() * self.repeat
    }

    /// Calls `f` with parts of it, in order, of at most so many products for each sum, and with the values of `a` and rows of `b` before each.
    pub(super) fn for_each_block(&self, most: usize, mut f: impl FnMut(Reduction<'_>, usize, usize)) {
        // Parts of equal size rather than full ones and a small rest.
        let equal = |len: usize, most: usize| len.div_ceil(len.div_ceil(most.max(1)).max(1)).max(1);
        let depth = self.segments.iter().map(|segment| segment.len).sum::<usize>();
        if depth <= most {
            let each = equal(self.repeat, most / depth.max(1));
            for first in (0..self.repeat).step_by(each) {
                let repeat = each.min(self.repeat - first);
                f(Reduction { repeat, ..*self }, first * self.a_stride, first * self.k_stride);
            }
            return;
        }
        for again in 0..self.repeat {
            let mut once = |segments: &[Segment]| {
                f(Reduction { segments, repeat: 1, ..*self }, again * self.a_stride, again * self.k_stride);
            };
            let each = equal(self.segments.len(), most * self.segments.len() / depth);
            for segments in self.segments.chunks(each) {
                let [Segment { a, k, len }] = *segments else {
                    once(segments);
                    continue;
                };
                let each = equal(len, most);
                for first in (0..len).step_by(each) {
                    let len = each.min(len - first);
                    once(&[Segment { a: a + first * self.step, k: k + first, len }]);
                }
            }
        }
    }

    /// The largest offset into `a` from a row's start, and the largest row of `b`; `None` where nothing is read.
    pub(super) fn last(&self) -> Option<(usize, usize)> {
        let again = self.repeat.checked_sub(1)?;
        let used = || self.segments.iter().filter(|s| s.len > 0);
        let a = used().map(|s| s.a + (s.len - 1) * self.step).max()?;
        let k = used().map(|s| s.k + s.len - 1).max()?;
        Some((a + again * self.a_stride, k + again * self.k_stride))
    }
}

/// The layout of `b`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Columns {
    /// Panels as [`Matrix::pack`](super::pack::Matrix::pack) makes them, of that many rows.
    Packed { depth: usize },
    /// Rows of that many values, at least the columns in whole vectors.
    Plain { pitch: usize },
}

/// One matrix product. All that a worker does in a convolution is some of these.
pub(super) struct Product<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) reduction: Reduction<'a>,
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) layout: Columns,
    pub(super) columns: usize,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) epilogue: Epilogue,
    /// Whether the sums are added to what the output holds.
    pub(super) accumulate: bool,
    /// Whether the output is hardly in the second-level cache, so that it is asked for before it is written.
    pub(super) cold: bool,
    /// What is summed of the outputs, whose rows then lie one behind the other.
    pub(super) moments: Option<MomentSums<'a>>,
    pub(super) out: &'a mut [f32],
}

impl Product<'_> {
    /// Computes it; the one place where the tiles are compiled.
    #[inline(never)]
    pub(super) fn run_on(self, level: Level) {
        level.dispatch(self);
    }

    /// The same of factors that are pairs of bf16 values.
    #[inline(never)]
    pub(super) fn run_pairs_on(self, level: Level) {
        level.dispatch_bf16(PairProduct(self));
    }

    /// The same of weights that were [crossed](super::crossed_tile::cross), and of rows that lie evenly, as samples of one row each.
    #[inline(never)]
    pub(super) fn run_crossed_on(self, level: Level) {
        level.dispatch(CrossedProduct(self));
    }

    /// Asserts that every read and write below is inside its slice.
    fn check(&self, size: TileSize) {
        let rows = &self.rows;
        assert_eq!(rows.input.len(), rows.output.len(), "as many inputs as outputs");
        let again = rows.samples.saturating_sub(1);
        if rows.samples == 0 || rows.input.is_empty() || self.columns == 0 {
            return;
        }
        let greatest = |offsets: &[u32]| offsets.iter().copied().max().unwrap_or(0) as usize;
        let once = self.reduction.step == 1 && self.reduction.repeat == 1;
        assert!(once || matches!(self.layout, Columns::Plain { .. }), "neighbouring values, once");
        let spanned = (MOST_ROWS / rows.input.len() + 1).min(again);
        let straddles = |offsets, stride| greatest(offsets) + spanned * stride <= u32::MAX as usize;
        let near = straddles(rows.input, rows.input_stride) && straddles(rows.output, rows.output_stride);
        assert!(near, "samples near enough for tiles that straddle them");
        let padded = size.padded(self.columns);
        if let Some((a, k)) = self.reduction.last() {
            assert!(greatest(rows.input) + again * rows.input_stride + a < self.a.len(), "rows inside a");
            match self.layout {
                Columns::Packed { depth } => assert!(k < depth && depth * padded <= self.b.len(), "rows inside b"),
                Columns::Plain { pitch } => assert!(k * pitch + padded <= self.b.len(), "rows inside b"),
            }
        }
        let last = greatest(rows.output) + again * rows.output_stride + self.columns;
        assert!(last <= self.out.len(), "rows inside the output");
        assert!(self.bias.is_none_or(|bias| bias.len() >= self.columns), "a bias for each column");
        if let Some(moments) = &self.moments {
            let pitch = moments.channels();
            assert!(pitch == self.columns && rows.input.len() * rows.samples * pitch <= self.out.len(), "whole rows");
            debug_assert!(rows.output.iter().enumerate().all(|(n, &row)| row as usize == n * pitch), "even rows");
            debug_assert!(rows.samples == 1 || rows.output_stride == rows.output.len() * pitch, "even samples");
        }
    }
}

impl Kernel for Product<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.by_layout::<I, Singles>(isa);
    }
}

struct PairProduct<'a>(Product<'a>);

impl Kernel for PairProduct<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.by_layout::<I, Pairs>(isa);
    }
}

struct CrossedProduct<'a>(Product<'a>);

impl Kernel for CrossedProduct<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.check_crossed();
        self.0.tiles::<I, Crossed, true, true, true>(isa);
    }
}

impl Product<'_> {
    #[inline(always)]
    fn by_layout<I: Isa, F: Factors>(self, isa: I) {
        let size = TileSize { lanes: I::LANES, rows: I::TILE_ROWS, columns: I::LANES * I::TILE_VECTORS };
        match (self.layout, self.few_weights(size), self.rows.input.len() == 1) {
            (Columns::Packed { .. }, true, true) => self.tiles::<I, F, true, false, true>(isa),
            (Columns::Packed { .. }, true, false) => self.tiles::<I, F, true, false, false>(isa),
            (Columns::Packed { .. }, false, true) => self.tiles::<I, F, true, true, true>(isa),
            (Columns::Packed { .. }, false, false) => self.tiles::<I, F, true, true, false>(isa),
            (Columns::Plain { .. }, ..) => self.tiles::<I, F, false, false, false>(isa),
        }
    }

    /// Whether the weights stay in the first-level cache.
    fn few_weights(&self, size: TileSize) -> bool {
        4 * self.reduction.depth() * size.padded(self.columns) <= WHOLE_ROWS_BYTES
    }

    /// The most rows of a tile of so many vectors. Between two tiles of a short reduction the sums of one are finished and stored, which takes
    /// less time from the next one's products where these are fewer: the processor can begin with them.
    fn most_rows(&self, size: TileSize, vectors: usize) -> usize {
        let short = self.reduction.depth() <= SHORT && vectors > 1;
        if short { size.rows.min(SHORT_ROWS) } else { size.rows }
    }

    /// With `ONCE` the reduction is one of neighbouring values, once; with `AHEAD` the panels lie one behind the other, and tiles ask for
    /// the next one's weights. With `EVEN` samples have one row each, so that rows lie evenly and none is looked up.
    #[inline(always)]
    fn tiles<I: Isa, F: Factors, const ONCE: bool, const AHEAD: bool, const EVEN: bool>(self, isa: I) {
        let out = self.out.as_mut_ptr();
        let size = TileSize { lanes: I::LANES, rows: I::TILE_ROWS, columns: I::LANES * I::TILE_VECTORS };
        self.check(size);
        let total = self.rows.input.len() * self.rows.samples;
        // Then some rows are done for all columns before the next ones, since memory takes neighbouring lines faster.
        let whole_rows = self.few_weights(size);
        let depth = self.reduction.depth() + if F::CROSSED { BESIDES } else { 0 };
        let strip = STRIP_BYTES / (4 * self.columns.max(1));
        // Whole tiles, of either height.
        let tiles = 2 * I::TILE_ROWS;
        let strip = if whole_rows { (strip / tiles).max(1) * tiles } else { total };
        let strip = if F::CROSSED { strip.min(OWN_ROWS) } else { strip };
        let mut own = [0.0; OWN_LEN];
        let mut first = Walk::default();
        while first.done < total && self.columns > 0 {
            // What is left for the last strips is no flat tile.
            let left = total - first.done;
            let end = first.done + if left >= strip + I::TILE_ROWS { strip } else { left };
            let mut walk = first;
            if F::CROSSED {
                // SAFETY: `check` has bounded every offset of the rows, of which a strip has less than a tile too many.
                unsafe { self.own_products(isa, first.done..end, &mut own) };
            }
            for column in (0..self.columns).step_by(size.columns) {
                let width = size.panel(column, self.columns);
                let most =
                    self.most_rows(size, width / I::LANES).min(if F::CROSSED { CROSSED_ROWS } else { MOST_ROWS });
                let (start, pitch) = match self.layout {
                    Columns::Packed { depth } => (column * depth, width),
                    Columns::Plain { pitch } => (column, pitch),
                };
                let b = self.b[start.min(self.b.len())..].as_ptr();
                let columns = (self.columns - column).min(size.columns);
                let tiles = (end - first.done).div_ceil(most);
                let measured = MEASURED_BYTES / (4 * columns);
                let own = own.as_ptr().wrapping_sub(first.done);
                let mut panel = Panel { b, pitch, depth, own, column, columns, tile: 0, tiles };
                walk = first;
                while walk.done < end {
                    let left = end - walk.done;
                    let rows = tile_rows(left, most);
                    // As many tiles of full height as there are before the last two.
                    let count = (left / most).saturating_sub(1).max(1);
                    // What is measured must still be in the first-level cache.
                    let count = if self.moments.is_some() { count.min((measured / most).max(1)) } else { count };
                    let done = walk.done;
                    // SAFETY: `check` has bounded every offset of the rows, the reduction and the panel.
                    unsafe {
                        self.any_tiles::<I, F, ONCE, AHEAD, EVEN>(
                            isa,
                            &panel,
                            [rows, width / I::LANES],
                            count,
                            &mut walk,
                            out,
                        )
                    };
                    panel.tile += count;
                    if let Some(moments) = &self.moments {
                        let from = out.wrapping_add(done * self.columns + column);
                        // SAFETY: `check` has found all rows in the output, one behind the other.
                        unsafe { moments.add(from, walk.done - done, column..column + columns) };
                    }
                }
            }
            first = walk;
        }
    }
}

/// A way through the rows of a product.
#[derive(Clone, Copy, Default)]
pub(super) struct Walk {
    pub(super) done: usize,
    sample: usize,
    row: usize,
}

/// Where the rows of a tile start, as offsets from its sample's place in `a` and in the output.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    input: &'a [u32],
    output: &'a [u32],
    /// The sample's places.
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Walk {
    /// The next rows, of samples of one row each.
    #[inline(always)]
    pub(super) fn next_even<'a>(&mut self, rows: &Rows<'a>, count: usize) -> Place<'a> {
        let (from, to) = (self.done * rows.input_stride, self.done * rows.output_stride);
        self.done += count;
        Place {
            input: rows.input,
            output: rows.output,
            from: from + rows.input[0] as usize,
            to: to + rows.output[0] as usize,
        }
    }

    /// The next rows, at most [`MOST_ROWS`]; those of a tile that straddles samples are listed in `straddling`.
    #[inline(always)]
    fn next<'a>(&mut self, rows: &Rows<'a>, count: usize, straddling: &'a mut [[u32; MOST_ROWS]; 2]) -> Place<'a> {
        let (from, to) = (self.sample * rows.input_stride, self.sample * rows.output_stride);
        self.done += count;
        let here = self.row..self.row + count;
        if here.end <= rows.input.len() {
            let last = here.end == rows.input.len();
            (self.sample, self.row) = if last { (self.sample + 1, 0) } else { (self.sample, here.end) };
            return Place { input: &rows.input[here.clone()], output: &rows.output[here], from, to };
        }
        let [input, output] = straddling;
        let (mut input_start, mut output_start) = (0, 0);
        for i in 0..count {
            input[i] = rows.input[self.row] + input_start;
            output[i] = rows.output[self.row] + output_start;
            self.row += 1;
            if self.row == rows.input.len() {
                (self.sample, self.row) = (self.sample + 1, 0);
                input_start = input_start.wrapping_add(rows.input_stride as u32);
                output_start = output_start.wrapping_add(rows.output_stride as u32);
            }
        }
        Place { input: &input[..count], output: &output[..count], from, to }
    }
}

/// The columns of `b` that one pass computes.
pub(super) struct Panel {
    pub(super) b: *const f32,
    pub(super) pitch: usize,
    /// Its rows.
    pub(super) depth: usize,
    /// Where the rows' own products are counted from, if factors are crossed.
    pub(super) own: *const f32,
    /// The first of the columns.
    pub(super) column: usize,
    /// How many are stored.
    pub(super) columns: usize,
    /// The next tile's number, of so many.
    pub(super) tile: usize,
    pub(super) tiles: usize,
}

impl Panel {
    /// What the tile of that number asks for.
    #[inline(always)]
    pub(super) fn ahead(&self, tile: usize) -> Ahead {
        let Panel { b, pitch, depth, tiles, .. } = *self;
        if self.column > 0 || tiles < 3 {
            return Ahead::next(b, depth, pitch, tile, tiles);
        }
        // Nobody has asked for the first panel: the first tile does, some rows ahead of its own.
        if tile == 0 {
            return Ahead { at: b.wrapping_add(ROWS_AHEAD * pitch), step: pitch };
        }
        Ahead::next(b, depth, pitch, tile - 1, tiles - 1)
    }
}

/// Memory to ask for while a tile is computed: from `at` on, so many values further with each step of the reduction.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) at: *const f32,
    pub(super) step: usize,
}

impl Ahead {
    /// Nothing new: `at` is in the cache anyway.
    #[inline(always)]
    pub(super) fn nothing(at: *const f32) -> Self {
        Ahead { at, step: 0 }
    }

    /// The part of the weights behind `depth` rows of `pitch` values at `b` that one of some tiles asks for.
    #[inline(always)]
    pub(super) fn next(b: *const f32, depth: usize, pitch: usize, tile: usize, tiles: usize) -> Self {
        let lines = pitch.div_ceil(LINE);
        match (tiles, tile < lines) {
            // A single tile asks for every second line or so; its neighbours come with it.
            (1, _) => Ahead { at: b.wrapping_add(depth * pitch), step: pitch },
            (_, true) => Ahead { at: b.wrapping_add(depth * (pitch + tile * LINE)), step: LINE },
            (_, false) => Ahead::nothing(b),
        }
    }
}

/// Rows of a panel that are asked for before they are read.
const ROWS_AHEAD: usize = 32;

/// Products of a short reduction, and the most rows of its tiles.
const SHORT: usize = 96;
const SHORT_ROWS: usize = 8;

/// Bytes of a panel's outputs that are computed before what batch normalisation needs of them is summed; few in tests, so that these have several.
const MEASURED_BYTES: usize = if cfg!(test) { 4 << 10 } else { 16 << 10 };

/// Weights that take no more than so many bytes are read again from the first-level cache: half of a common one.
const WHOLE_ROWS_BYTES: usize = 16 << 10;

/// Bytes of outputs that are done for all columns before the next ones; few in tests, so that these have several such strips.
const STRIP_BYTES: usize = if cfg!(test) { 2 << 10 } else { 48 << 10 };

/// The largest `TILE_ROWS` of any level.
pub(super) const MOST_ROWS: usize = 12;

/// Rows of the next tile: as many as fit, but the last two tiles share alike, since a flat tile waits for its own sums.
#[inline(always)]
pub(super) fn tile_rows(left: usize, most: usize) -> usize {
    if left >= 2 * most || left <= most { left.min(most) } else { left.div_ceil(2) }
}

impl Product<'_> {
    /// # Safety
    /// See [`tiles_of`](Self::tiles_of); so many rows and vectors are those of a tile of this level.
    #[inline(always)]
    unsafe fn any_tiles<I: Isa, F: Factors, const ONCE: bool, const AHEAD: bool, const EVEN: bool>(
        &self,
        isa: I,
        panel: &Panel,
        [rows, vectors]: [usize; 2],
        count: usize,
        walk: &mut Walk,
        out: *mut f32,
    ) {
        if F::CROSSED {
            // SAFETY: the caller's promise.
            return unsafe { self.any_crossed_tiles::<I>(isa, panel, [rows, vectors], count, walk, out) };
        }
        let halves = I::HALVES && F::native::<I>() && ONCE && EVEN && 2 * panel.columns == 3 * I::LANES;
        macro_rules! dispatch {
            (halves: $($even:literal)*; $($vectors:literal: $($rows:literal)*;)*) => {
                match (vectors, rows) {
                    $((2, $even) if halves && $even <= I::TILE_ROWS =>
                        // SAFETY: the caller's promise.
                        unsafe { self.tiles_of_halves::<I, F, { $even / 2 }, AHEAD>(isa, panel, count, walk, out) },)*
                    $($(($vectors, $rows) if $rows <= I::TILE_ROWS && $vectors <= I::TILE_VECTORS && F::native::<I>() =>
                        // SAFETY: the caller's promise.
                        unsafe { self.tiles_of::<I, F, $rows, $vectors, ONCE, AHEAD, EVEN>(isa, panel, count, walk, out) },)*)*
                    // SAFETY: the caller's promise.
                    $(($vectors, _) if $vectors <= I::TILE_VECTORS && !F::native::<I>() => unsafe {
                        self.tiles_of::<I, F, 1, $vectors, ONCE, AHEAD, EVEN>(isa, panel, count * rows, walk, out)
                    },)*
                    _ => unreachable!("{rows} rows of {vectors} vectors are no tile"),
                }
            };
        }
        dispatch! {
            halves: 2 4 6 8 10 12;
            1: 1 2 3 4 5 6 7 8 9 10 11 12;
            2: 1 2 3 4 5 6 7 8 9 10 11 12;
            3: 1 2 3 4 5 6;
            4: 1 2 3 4 5 6;
        }
    }

    /// So many tiles one after the other.
    ///
    /// # Safety
    /// See [`tile`](Self::tile), of the rows that the walk gives.
    #[inline(always)]
    unsafe fn tiles_of<
        I: Isa,
        F: Factors,
        const ROWS: usize,
        const VECTORS: usize,
        const ONCE: bool,
        const AHEAD: bool,
        const EVEN: bool,
    >(
        &self,
        isa: I,
        panel: &Panel,
        count: usize,
        walk: &mut Walk,
        out: *mut f32,
    ) {
        let mut straddling = [[0; MOST_ROWS]; 2];
        for tile in panel.tile..panel.tile + count {
            let place =
                if EVEN { walk.next_even(&self.rows, ROWS) } else { walk.next(&self.rows, ROWS, &mut straddling) };
            let ahead = AHEAD.then(|| panel.ahead(tile));
            // SAFETY: the caller's promise.
            unsafe { self.tile::<I, F, ROWS, VECTORS, ONCE, EVEN>(isa, panel, place, ahead, out) };
        }
    }

    /// # Safety
    /// The offsets of the rows and of the panel lie inside the slices, as `check` asserts.
    #[inline(always)]
    unsafe fn tile<I: Isa, F: Factors, const ROWS: usize, const VECTORS: usize, const ONCE: bool, const EVEN: bool>(
        &self,
        isa: I,
        panel: &Panel,
        place: Place<'_>,
        ahead: Option<Ahead>,
        out: *mut f32,
    ) {
        let last = isa.first(panel.columns - (VECTORS - 1) * I::LANES);
        let whole = panel.columns == VECTORS * I::LANES;
        let mut sums = [[isa.zero(); VECTORS]; ROWS];
        let (input, output) =
            if EVEN { (place.input, place.output) } else { (&place.input[..ROWS], &place.output[..ROWS]) };
        let [from, to] = [self.rows.input_stride, self.rows.output_stride];
        let input = |r: usize| if EVEN { r * from } else { input[r] as usize };
        let output = |r: usize| if EVEN { r * to } else { output[r] as usize };
        let out = out.wrapping_add(place.to + panel.column);
        if self.cold && ROWS > 1 {
            // From a row's place to that of the next tile's.
            let later = output(1).wrapping_sub(output(0)).wrapping_mul(ROWS);
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    let row = out.wrapping_add(output(r)).wrapping_add(later);
                    isa.prefetch(row.wrapping_add(v * I::LANES));
                }
            }
        }
        // SAFETY: the caller's promise: rows, panel and output are in bounds, and the last vector's mask ends at the columns.
        unsafe {
            if self.accumulate {
                for r in 0..ROWS {
                    for v in 0..VECTORS - 1 {
                        sums[r][v] = isa.load(out.add(output(r) + v * I::LANES));
                    }
                    sums[r][VECTORS - 1] = isa.load_masked(last, out.add(output(r) + (VECTORS - 1) * I::LANES));
                }
            }
            if let Some(bias) = self.bias {
                let bias = bias.as_ptr().add(panel.column);
                for v in 0..VECTORS {
                    let from = bias.add(v * I::LANES);
                    let bias = if v + 1 < VECTORS { isa.load(from) } else { isa.load_masked(last, from) };
                    for r in 0..ROWS {
                        sums[r][v] = if self.accumulate { isa.add(sums[r][v], bias) } else { bias };
                    }
                }
            }
            let a: [*const f32; ROWS] = std::array::from_fn(|r| self.a.as_ptr().add(place.from + input(r)));
            let (b, pitch) = (panel.b, panel.pitch);
            sums = multiply_add::<I, F, ROWS, VECTORS, ONCE>(isa, &self.reduction, a, b, pitch, ahead, sums);
            sums = self.epilogue.apply(isa, sums);
            for r in 0..ROWS {
                let to = out.add(output(r));
                for v in 0..VECTORS - 1 {
                    isa.store(to.add(v * I::LANES), sums[r][v]);
                }
                let (to, value) = (to.add((VECTORS - 1) * I::LANES), sums[r][VECTORS - 1]);
                if whole { isa.store(to, value) } else { isa.store_masked(last, to, value) }
            }
        }
    }
}

/// The same number, of which the compiler no longer knows how it came about. Where it knows that an offset grows in a loop, it
/// moves a pointer for each row instead, more of them than there are registers: a load, an addition and a store for each row and step.
#[inline(always)]
pub(super) fn unfollowed(offset: usize) -> usize {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        let mut offset = offset;
        // SAFETY: no instruction at all.
        unsafe { std::arch::asm!("/* {0} */", inout(reg) offset, options(pure, nomem, nostack, preserves_flags)) };
        offset
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    offset
}

/// The inner loop: `sums[r][v] += a[r][k] * b[k][v]` over the reduction, which with `ONCE` is one of neighbouring values, once.
///
/// # Safety
/// For every `k` of the reduction, the rows of `a` are readable there and `b` for `VECTORS` vectors.
#[inline(always)]
pub(super) unsafe fn multiply_add<I: Isa, F: Factors, const ROWS: usize, const VECTORS: usize, const ONCE: bool>(
    isa: I,
    reduction: &Reduction<'_>,
    a: [*const f32; ROWS],
    b: *const f32,
    pitch: usize,
    mut ahead: Option<Ahead>,
    mut sums: [[I::F32; VECTORS]; ROWS],
) -> [[I::F32; VECTORS]; ROWS] {
    // Constants, since few instructions may lie between one loop and the next.
    let (repeat, step) = if ONCE { (1, 1) } else { (reduction.repeat, reduction.step) };
    for again in 0..repeat {
        for segment in reduction.segments {
            let mut offset = segment.a + again * reduction.a_stride;
            // SAFETY: the caller's promise.
            unsafe {
                let mut b = b.add((segment.k + again * reduction.k_stride) * pitch);
                for _ in 0..segment.len {
                    if let Some(Ahead { at, step }) = &mut ahead {
                        isa.prefetch(*at);
                        *at = at.wrapping_add(*step);
                    }
                    let mut columns = [isa.zero(); VECTORS];
                    for v in 0..VECTORS {
                        columns[v] = isa.load(b.add(v * I::LANES));
                    }
                    for r in 0..ROWS {
                        let value = isa.splat(*a[r].add(offset));
                        for v in 0..VECTORS {
                            sums[r][v] = F::multiply_add(isa, value, columns[v], sums[r][v]);
                        }
                    }
                    offset = unfollowed(offset + step);
                    b = b.wrapping_add(pitch);
                }
            }
        }
    }
    sums
}
