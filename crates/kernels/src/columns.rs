//! Loops over `[rows][channels]` with values per channel: maps that read them and sums that make them.
//!
//! Few channels would leave most lanes empty, so several rows are then taken as one wider row whose width is a multiple
//! of the lanes; many channels are cut into [`CHUNK`]s, so that all values per channel fit on the stack.

use crate::isa::{Isa, Kernel, Level};
use crate::values::{Values, ValuesMut, load, load_first, store, store_first};

/// Most columns handled at once: a multiple of every vector's lanes.
pub(crate) const CHUNK: usize = 512;

/// Most rows that [`sums`] adds in single precision before it folds them with compensation.
const FOLD_ROWS: usize = 32;

/// How many rows are taken as one.
#[inline(always)]
pub(crate) fn merged(channels: usize, lanes: usize, rows: usize) -> usize {
    let enough = |merge: usize| (merge * channels).is_multiple_of(lanes) && merge * channels >= 4 * lanes;
    let most = (CHUNK / channels).min(rows / 4).max(1);
    (1..=most).find(|&merge| enough(merge)).unwrap_or(1)
}

/// Fills `width` columns with the values of their channels, which repeat from `start` on.
#[inline(always)]
fn spread<const P: usize>(
    patterns: &mut [[f32; CHUNK]; P],
    start: usize,
    width: usize,
    channels: usize,
    values: impl Fn(usize) -> [f32; P],
) {
    let period = width.min(channels);
    for j in 0..period {
        let values = values(start + j);
        for p in 0..P {
            patterns[p][j] = values[p];
        }
    }
    for pattern in patterns {
        repeat(&mut pattern[..width], period);
    }
}

/// Continues the first `period` values to the end, doubling what is there.
#[inline(always)]
pub(crate) fn repeat(values: &mut [f32], period: usize) {
    let mut done = period;
    while done < values.len() {
        let count = done.min(values.len() - done);
        values.copy_within(..count, done);
        done += count;
    }
}

/// A function of `N` vectors of the arrays and `P` vectors of values per channel.
pub(crate) trait ChannelMap<const N: usize, const P: usize>: Copy {
    /// The `P` values of a channel.
    fn values(&self, channel: usize) -> [f32; P];
    fn apply<I: Isa>(&self, isa: I, x: [I::F32; N], values: [I::F32; P]) -> I::F32;
}

/// `y[row][c] = f(x[0][row][c], …, values(c))`.
pub(crate) fn map<M: ChannelMap<N, P>, const N: usize, const P: usize>(
    level: Level,
    channels: usize,
    f: M,
    x: [Values<'_>; N],
    y: ValuesMut<'_>,
) {
    for input in x {
        assert_eq!(input.len(), y.len(), "inputs as long as the output");
    }
    check(channels, y.len());
    if y.is_bf16() || x.iter().any(Values::is_bf16) {
        level.dispatch_bf16(Mapped::<M, N, P, true> { channels, f, x, y });
    } else {
        level.dispatch(Mapped::<M, N, P, false> { channels, f, x, y });
    }
}

fn check(channels: usize, len: usize) {
    assert!(channels > 0 && len.is_multiple_of(channels), "{len} values are no whole rows of {channels} channels");
}

/// With `HALVES`, any of the arrays may hold bf16 values.
struct Mapped<'a, M, const N: usize, const P: usize, const HALVES: bool> {
    channels: usize,
    f: M,
    x: [Values<'a>; N],
    y: ValuesMut<'a>,
}

impl<M: ChannelMap<N, P>, const N: usize, const P: usize, const HALVES: bool> Kernel for Mapped<'_, M, N, P, HALVES> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let (len, channels) = (self.y.len(), self.channels);
        let width = channels * merged(channels, I::LANES, len / channels);
        let mut patterns = [[0.0f32; CHUNK]; P];
        for start in (0..width).step_by(CHUNK) {
            let columns = CHUNK.min(width - start);
            spread(&mut patterns, start, columns, channels, |c| self.f.values(c));
            let mut from = start;
            while from + (ROWS - 1) * width + columns <= len {
                self.rows::<I, ROWS>(isa, from, width, columns, &patterns);
                from += ROWS * width;
            }
            while from < len {
                // The last merged row may be shorter.
                self.rows::<I, 1>(isa, from, width, columns.min(len - from), &patterns);
                from += width;
            }
        }
    }
}

/// Rows that a map takes at once, so that values per channel are loaded once for all of them.
const ROWS: usize = 4;

impl<M: ChannelMap<N, P>, const N: usize, const P: usize, const HALVES: bool> Mapped<'_, M, N, P, HALVES> {
    /// Maps columns `from..from + columns` of `R` rows, `width` apart.
    #[inline(always)]
    fn rows<I: Isa, const R: usize>(
        &mut self,
        isa: I,
        from: usize,
        width: usize,
        columns: usize,
        patterns: &[[f32; CHUNK]; P],
    ) {
        assert!(columns <= CHUNK && from + (R - 1) * width + columns <= self.y.len());
        let (y, y_half) = (self.y.as_mut_ptr(), self.y.is_bf16());
        let mut j = 0;
        while j + I::LANES <= columns {
            let mut values = [isa.zero(); P];
            for p in 0..P {
                // SAFETY: `j + LANES <= columns <= CHUNK`.
                values[p] = unsafe { isa.load(patterns[p].as_ptr().add(j)) };
            }
            for r in 0..R {
                let at = from + r * width + j;
                let mut v = [isa.zero(); N];
                // SAFETY: the last row's columns end within the output, and every input is as long as that.
                unsafe {
                    for k in 0..N {
                        v[k] = load::<I, HALVES>(isa, self.x[k].as_ptr(), self.x[k].is_bf16(), at);
                    }
                    store::<I, HALVES>(isa, y, y_half, at, self.f.apply(isa, v, values));
                }
            }
            j += I::LANES;
        }
        if j < columns {
            let mask = isa.first(columns - j);
            let mut values = [isa.zero(); P];
            for p in 0..P {
                // SAFETY: the lanes of the mask end at `columns <= CHUNK`.
                values[p] = unsafe { isa.load_masked(mask, patterns[p].as_ptr().add(j)) };
            }
            for r in 0..R {
                let at = from + r * width + j;
                let mut v = [isa.zero(); N];
                // SAFETY: as above, for the lanes of the mask.
                unsafe {
                    for k in 0..N {
                        v[k] = load_first::<I, HALVES>(isa, self.x[k].as_ptr(), self.x[k].is_bf16(), at, columns - j);
                    }
                    store_first::<I, HALVES>(isa, y, y_half, at, columns - j, self.f.apply(isa, v, values));
                }
            }
        }
    }
}

/// `S` terms to add, made from `N` vectors of the arrays and `P` vectors of values per channel.
pub(crate) trait ChannelSum<const N: usize, const P: usize, const S: usize>: Copy {
    /// The `P` values of a channel.
    fn values(&self, channel: usize) -> [f32; P];
    /// The sums with this row's terms added.
    fn add<I: Isa>(&self, isa: I, x: [I::F32; N], values: [I::F32; P], sums: [I::F32; S]) -> [I::F32; S];
    /// What [`map_and_sums`] stores; its arithmetic is usually a part of the terms' and not done twice.
    #[inline(always)]
    fn map<I: Isa>(&self, isa: I, _x: [I::F32; N], _values: [I::F32; P]) -> I::F32 {
        isa.zero()
    }
}

/// `sums[s][c] = Σ over rows of term s`, or that added to what `sums` holds.
///
/// At most 32 terms are added one after another; those partial sums are added with compensation (Kahan's), and where
/// rows are merged the up to 512 partial columns of a channel one by one. The error is thus at most about
/// `(35 + merged rows) ε Σ|term|` whatever the number of rows, and in practice a few ε. The order of additions depends
/// on the shapes and the level alone.
pub(crate) fn sums<M: ChannelSum<N, P, S>, const N: usize, const P: usize, const S: usize>(
    level: Level,
    channels: usize,
    f: M,
    x: [Values<'_>; N],
    sums: [&mut [f32]; S],
    accumulate: bool,
) {
    checked::<N, S>(channels, x, &sums);
    let y = ValuesMut::F32(&mut []);
    // bf16 values are exact, so that any instructions load the same.
    if x.iter().any(Values::is_bf16) {
        level.dispatch(Summed::<M, N, P, S, false, true> { channels, f, x, y, sums, accumulate });
    } else {
        level.dispatch(Summed::<M, N, P, S, false, false> { channels, f, x, y, sums, accumulate });
    }
}

/// [`sums`], and `y[row][c]` what the terms' [`map`](ChannelSum::map) gives, in the same pass.
pub(crate) fn map_and_sums<M: ChannelSum<N, P, S>, const N: usize, const P: usize, const S: usize>(
    level: Level,
    channels: usize,
    f: M,
    x: [Values<'_>; N],
    y: ValuesMut<'_>,
    sums: [&mut [f32]; S],
    accumulate: bool,
) {
    checked::<N, S>(channels, x, &sums);
    assert_eq!(x[0].len(), y.len(), "inputs as long as the output");
    if y.is_bf16() || x.iter().any(Values::is_bf16) {
        level.dispatch_bf16(Summed::<M, N, P, S, true, true> { channels, f, x, y, sums, accumulate });
    } else {
        level.dispatch(Summed::<M, N, P, S, true, false> { channels, f, x, y, sums, accumulate });
    }
}

fn checked<const N: usize, const S: usize>(channels: usize, x: [Values<'_>; N], sums: &[&mut [f32]; S]) {
    for input in x {
        assert_eq!(input.len(), x[0].len(), "inputs of one length");
    }
    check(channels, x[0].len());
    for sums in sums {
        assert_eq!(sums.len(), channels, "a sum for each channel");
    }
}

/// With `HALVES`, any of the arrays but the sums may hold bf16 values.
struct Summed<'a, M, const N: usize, const P: usize, const S: usize, const MAPS: bool, const HALVES: bool> {
    channels: usize,
    f: M,
    x: [Values<'a>; N],
    /// As long as the inputs where the kernel maps, too; else empty.
    y: ValuesMut<'a>,
    sums: [&'a mut [f32]; S],
    accumulate: bool,
}

/// Vectors of columns summed at once: enough independent chains to hide the latency of an addition.
const BLOCK: usize = 4;

impl<M: ChannelSum<N, P, S>, const N: usize, const P: usize, const S: usize, const MAPS: bool, const HALVES: bool>
    Kernel for Summed<'_, M, N, P, S, MAPS, HALVES>
{
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let (len, channels) = (self.x[0].len(), self.channels);
        let merge = merged(channels, I::LANES, len / channels);
        let width = channels * merge;
        let mut patterns = [[0.0f32; CHUNK]; P];
        for start in (0..width).step_by(CHUNK) {
            let columns = CHUNK.min(width - start);
            spread(&mut patterns, start, columns, channels, |c| self.f.values(c));
            let mut sums = Sums { totals: [[0.0f32; CHUNK]; S], errors: [[0.0f32; CHUNK]; S] };
            // Whole rows are as many as hold all columns.
            let mut whole = (len + width - start - columns) / width;
            let mut from = start;
            while whole > 0 {
                let rows = whole.min(if columns <= BLOCK * I::LANES { FOLD_ROWS } else { FOLD_ROWS / 2 });
                let mut j = 0;
                while j + BLOCK * I::LANES <= columns {
                    self.block::<I, BLOCK>(isa, from + j, width, rows, j, I::LANES, &patterns, &mut sums);
                    j += BLOCK * I::LANES;
                }
                while j < columns {
                    self.block::<I, 1>(isa, from + j, width, rows, j, columns - j, &patterns, &mut sums);
                    j += I::LANES;
                }
                from += rows * width;
                whole -= rows;
            }
            // The last merged row may be shorter.
            for j in (0..len.saturating_sub(from)).step_by(I::LANES) {
                self.block::<I, 1>(isa, from + j, width, 1, j, len - from - j, &patterns, &mut sums);
            }
            let mut totals = sums.totals;
            let here = columns.min(channels);
            for s in 0..S {
                let (first, copies) = totals[s][..columns].split_at_mut(here);
                for copy in copies.chunks(here) {
                    first.iter_mut().zip(copy).for_each(|(sum, part)| *sum += part);
                }
                let sums = &mut self.sums[s][start..start + here];
                if self.accumulate {
                    sums.iter_mut().zip(first).for_each(|(sum, part)| *sum += *part);
                } else {
                    sums.copy_from_slice(first);
                }
            }
        }
    }
}

/// Compensated sums of the columns of one chunk.
struct Sums<const S: usize> {
    totals: [[f32; CHUNK]; S],
    /// What the totals are too large by.
    errors: [[f32; CHUNK]; S],
}

impl<M: ChannelSum<N, P, S>, const N: usize, const P: usize, const S: usize, const MAPS: bool, const HALVES: bool>
    Summed<'_, M, N, P, S, MAPS, HALVES>
{
    /// Adds `V` vectors of columns, of which column `j` of the chunk is the first, over `rows` rows from value `from`
    /// on. A single vector may have fewer than all its `lanes`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "the inner loop of one kernel, split off to be made for two sizes")]
    fn block<I: Isa, const V: usize>(
        &mut self,
        isa: I,
        from: usize,
        width: usize,
        rows: usize,
        j: usize,
        lanes: usize,
        patterns: &[[f32; CHUNK]; P],
        sums: &mut Sums<S>,
    ) {
        let mask = isa.first(lanes);
        let whole = lanes >= I::LANES;
        assert!(j + V * I::LANES <= CHUNK && (whole || V == 1) && rows > 0);
        assert!(from + (rows - 1) * width + (V - 1) * I::LANES + lanes.min(I::LANES) <= self.x[0].len());
        assert!(!MAPS || self.y.len() == self.x[0].len());
        let (y, y_half) = (self.y.as_mut_ptr(), self.y.is_bf16());
        let (mut values, mut parts) = ([[isa.zero(); P]; V], [[isa.zero(); S]; V]);
        for (v, values) in values.iter_mut().enumerate() {
            for p in 0..P {
                // SAFETY: `j + V * LANES <= CHUNK`.
                values[p] = unsafe { isa.load(patterns[p].as_ptr().add(j + v * I::LANES)) };
            }
        }
        for row in 0..rows {
            for v in 0..V {
                let place = from + row * width + v * I::LANES;
                let mut x = [isa.zero(); N];
                for k in 0..N {
                    // SAFETY: the last row's columns end within each input: they have one length, checked above.
                    unsafe {
                        let (at, half) = (self.x[k].as_ptr(), self.x[k].is_bf16());
                        x[k] = match whole {
                            true => load::<I, HALVES>(isa, at, half, place),
                            false => load_first::<I, HALVES>(isa, at, half, place, lanes),
                        };
                    }
                }
                if MAPS {
                    let value = self.f.map(isa, x, values[v]);
                    // SAFETY: the output is as long as the inputs, checked above.
                    unsafe {
                        match whole {
                            true => store::<I, HALVES>(isa, y, y_half, place, value),
                            false => store_first::<I, HALVES>(isa, y, y_half, place, lanes, value),
                        }
                    }
                }
                parts[v] = self.f.add(isa, x, values[v], parts[v]);
            }
        }
        for v in 0..V {
            for s in 0..S {
                let at = j + v * I::LANES;
                // SAFETY: `j + V * LANES <= CHUNK`; lanes that have no value keep what they hold.
                unsafe {
                    let (total, error) = (sums.totals[s].as_mut_ptr().add(at), sums.errors[s].as_mut_ptr().add(at));
                    let before = isa.load(total);
                    let term = isa.sub(parts[v][s], isa.load(error));
                    let sum = isa.add(before, term);
                    isa.store_masked(mask, error, isa.sub(isa.sub(sum, before), term));
                    isa.store_masked(mask, total, sum);
                }
            }
        }
    }
}
