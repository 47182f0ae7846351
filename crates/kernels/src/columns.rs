//! Loops over `[rows][channels]` with values per channel: maps that read them and sums that make them.
//!
//! Few channels would leave most lanes empty, so several rows are then taken as one wider row whose width is a multiple
//! of the lanes; many channels are cut into [`CHUNK`]s, so that all values per channel fit on the stack.

use crate::isa::{Isa, Kernel, Level};

/// Most columns handled at once: a multiple of every vector's lanes.
pub(crate) const CHUNK: usize = 512;

/// Most rows that [`sums`] adds in single precision before it folds them with compensation.
const FOLD_ROWS: usize = 32;

/// How many rows are taken as one.
#[inline(always)]
fn merged(channels: usize, lanes: usize, rows: usize) -> usize {
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
        for from in (period..width).step_by(period) {
            pattern.copy_within(0..period.min(width - from), from);
        }
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
    x: [&[f32]; N],
    y: &mut [f32],
) {
    for input in x {
        assert_eq!(input.len(), y.len(), "inputs as long as the output");
    }
    check(channels, y.len());
    level.dispatch(Mapped { channels, f, x, y });
}

fn check(channels: usize, len: usize) {
    assert!(channels > 0 && len.is_multiple_of(channels), "{len} values are no whole rows of {channels} channels");
}

struct Mapped<'a, M, const N: usize, const P: usize> {
    channels: usize,
    f: M,
    x: [&'a [f32]; N],
    y: &'a mut [f32],
}

impl<M: ChannelMap<N, P>, const N: usize, const P: usize> Kernel for Mapped<'_, M, N, P> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (len, channels) = (self.y.len(), self.channels);
        let width = channels * merged(channels, I::LANES, len / channels);
        let mut patterns = [[0.0f32; CHUNK]; P];
        let y = self.y.as_mut_ptr();
        for start in (0..width).step_by(CHUNK) {
            let columns = CHUNK.min(width - start);
            spread(&mut patterns, start, columns, channels, |c| self.f.values(c));
            let mut from = start;
            while from < len {
                // The last merged row may be shorter.
                let columns = columns.min(len - from);
                let mut j = 0;
                while j + I::LANES <= columns {
                    let (mut v, mut values) = ([isa.zero(); N], [isa.zero(); P]);
                    // SAFETY: `from + j + LANES <= len`, the length of every slice, and `j + LANES <= CHUNK`.
                    unsafe {
                        for k in 0..N {
                            v[k] = isa.load(self.x[k].as_ptr().add(from + j));
                        }
                        for p in 0..P {
                            values[p] = isa.load(patterns[p].as_ptr().add(j));
                        }
                        isa.store(y.add(from + j), self.f.apply(isa, v, values));
                    }
                    j += I::LANES;
                }
                if j < columns {
                    let mask = isa.first(columns - j);
                    let (mut v, mut values) = ([isa.zero(); N], [isa.zero(); P]);
                    // SAFETY: the lanes of the mask end at `from + columns <= len`, and at `columns <= CHUNK`.
                    unsafe {
                        for k in 0..N {
                            v[k] = isa.load_masked(mask, self.x[k].as_ptr().add(from + j));
                        }
                        for p in 0..P {
                            values[p] = isa.load_masked(mask, patterns[p].as_ptr().add(j));
                        }
                        isa.store_masked(mask, y.add(from + j), self.f.apply(isa, v, values));
                    }
                }
                from += width;
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
    x: [&[f32]; N],
    sums: &mut [f32],
    accumulate: bool,
) {
    for input in x {
        assert_eq!(input.len(), x[0].len(), "inputs of one length");
    }
    check(channels, x[0].len());
    assert_eq!(sums.len(), S * channels, "{S} sums for each channel");
    level.dispatch(Summed { channels, f, x, sums, accumulate });
}

struct Summed<'a, M, const N: usize, const P: usize, const S: usize> {
    channels: usize,
    f: M,
    x: [&'a [f32]; N],
    sums: &'a mut [f32],
    accumulate: bool,
}

/// Vectors of columns summed at once: enough independent chains to hide the latency of an addition.
const BLOCK: usize = 4;

impl<M: ChannelSum<N, P, S>, const N: usize, const P: usize, const S: usize> Kernel for Summed<'_, M, N, P, S> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (len, channels) = (self.x[0].len(), self.channels);
        let merge = merged(channels, I::LANES, len / channels);
        let width = channels * merge;
        let (mut patterns, mut totals) = ([[0.0f32; CHUNK]; P], [[0.0f32; CHUNK]; S]);
        for start in (0..width).step_by(CHUNK) {
            let columns = CHUNK.min(width - start);
            spread(&mut patterns, start, columns, channels, |c| self.f.values(c));
            let mut j = 0;
            while j + BLOCK * I::LANES <= columns {
                self.block::<I, BLOCK>(isa, start, width, j, I::LANES, &patterns, &mut totals);
                j += BLOCK * I::LANES;
            }
            while j < columns {
                self.block::<I, 1>(isa, start, width, j, columns - j, &patterns, &mut totals);
                j += I::LANES;
            }
            let here = columns.min(channels);
            for s in 0..S {
                let (first, copies) = totals[s][..columns].split_at_mut(here);
                for copy in copies.chunks(here) {
                    first.iter_mut().zip(copy).for_each(|(sum, part)| *sum += part);
                }
                let sums = &mut self.sums[s * channels..][start..start + here];
                if self.accumulate {
                    sums.iter_mut().zip(first).for_each(|(sum, part)| *sum += *part);
                } else {
                    sums.copy_from_slice(first);
                }
            }
        }
    }
}

impl<M: ChannelSum<N, P, S>, const N: usize, const P: usize, const S: usize> Summed<'_, M, N, P, S> {
    /// Sums `V` vectors of columns, from column `start + j` on, over all rows of the width; `lanes` are in the last one.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "the inner loop of one kernel, split off to be made for two sizes")]
    fn block<I: Isa, const V: usize>(
        &self,
        isa: I,
        start: usize,
        width: usize,
        j: usize,
        lanes: usize,
        patterns: &[[f32; CHUNK]; P],
        totals: &mut [[f32; CHUNK]; S],
    ) {
        let len = self.x[0].len();
        let mask = isa.first(lanes);
        let whole = lanes >= I::LANES;
        let mut values = [[isa.zero(); P]; V];
        for (v, values) in values.iter_mut().enumerate() {
            for p in 0..P {
                // SAFETY: `j + V * LANES <= CHUNK`, since `CHUNK` is a multiple of the lanes.
                values[p] = unsafe { isa.load(patterns[p].as_ptr().add(j + v * I::LANES)) };
            }
        }
        let columns = (V - 1) * I::LANES + lanes.min(I::LANES);
        let (mut sums, mut errors) = ([[isa.zero(); S]; V], [[isa.zero(); S]; V]);
        let mut from = start + j;
        // Rows that hold all of these columns.
        let mut rows = if len >= from + columns { (len - from - columns) / width + 1 } else { 0 };
        while rows > 0 {
            let count = rows.min(FOLD_ROWS);
            let mut part = [[isa.zero(); S]; V];
            for _ in 0..count {
                for v in 0..V {
                    let mut x = [isa.zero(); N];
                    for k in 0..N {
                        // SAFETY: the row holds all columns of this block, the last vector those of the mask.
                        unsafe {
                            let at = self.x[k].as_ptr().add(from + v * I::LANES);
                            x[k] = if whole { isa.load(at) } else { isa.load_masked(mask, at) };
                        }
                    }
                    part[v] = self.f.add(isa, x, values[v], part[v]);
                }
                from += width;
            }
            for v in 0..V {
                for s in 0..S {
                    let term = isa.sub(part[v][s], errors[v][s]);
                    let sum = isa.add(sums[v][s], term);
                    errors[v][s] = isa.sub(isa.sub(sum, sums[v][s]), term);
                    sums[v][s] = sum;
                }
            }
            rows -= count;
        }
        // The last merged row may end within these columns.
        for v in 0..V {
            let at = from + v * I::LANES;
            if at < len && at < from + columns {
                let mask = isa.first((len - at).min(columns - v * I::LANES));
                let mut x = [isa.zero(); N];
                for k in 0..N {
                    // SAFETY: the lanes of the mask end at `len`.
                    x[k] = unsafe { isa.load_masked(mask, self.x[k].as_ptr().add(at)) };
                }
                let more = self.f.add(isa, x, values[v], sums[v]);
                for s in 0..S {
                    sums[v][s] = isa.select(mask, more[s], sums[v][s]);
                }
            }
            for s in 0..S {
                // SAFETY: as for the patterns.
                unsafe { isa.store(totals[s].as_mut_ptr().add(j + v * I::LANES), sums[v][s]) };
            }
        }
    }
}
