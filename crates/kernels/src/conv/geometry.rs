//! Where things lie: the padded image that windows read, the offsets of its pixels, and the runs that the taps make.

use super::ConvShape;
use super::factors::{PairImages, SLACK};
use crate::Level;
use std::ops::Range;

/// Values in a cache line: scratch memory is cut in multiples of it, so that every part is as aligned as the whole.
pub(super) const LINE: usize = 16;

/// Bytes of an output that is hardly in a second-level cache any more when it is written the next time; few in tests, so that these know both.
const COLD_BYTES: usize = if cfg!(test) { 4 << 10 } else { 128 << 10 };

/// Whether an output of so many values had better be asked for before it is written: else each line is waited for.
pub(super) fn is_cold(values: usize) -> bool {
    4 * values > COLD_BYTES
}

/// A distance between rows of at least that many values that is no multiple of so many bytes. At multiples of 4096 all rows of
/// a tile lie in the same set of a common first-level cache, where they drive each other out; at 2048 in two sets.
pub(super) fn unaliased(distance: usize, bytes: usize) -> usize {
    if (4 * distance).is_multiple_of(bytes) { distance + LINE } else { distance }
}

/// The image that a kernel reads: the source itself where every window lies inside it, else a zero-padded copy.
#[derive(Clone, Debug)]
pub(super) struct Source {
    height: usize,
    pub(super) width: usize,
    /// Slots of one pixel: its values, or pairs of them.
    pub(super) channels: usize,
    /// Values in one pixel of the image as it was given.
    pub(super) source_channels: usize,
    /// By which level the copy is rounded to pairs of bf16 values, if it is.
    pairs: Option<Level>,
    /// Rows and columns of zeros before the source; negative where the source is cropped.
    top: isize,
    left: isize,
    /// Rows and columns of the image as it is read.
    pub(super) rows: usize,
    pub(super) columns: usize,
    copied: bool,
}

impl Source {
    pub(super) fn new(image: [usize; 3], [top, left]: [isize; 2], [rows, columns]: [usize; 2]) -> Self {
        let [height, width, channels] = image;
        let inside = top <= 0
            && left <= 0
            && rows.saturating_add_signed(-top) <= height
            && columns.saturating_add_signed(-left) <= width;
        Source {
            height,
            width,
            channels,
            source_channels: channels,
            pairs: None,
            top,
            left,
            rows,
            columns,
            copied: !inside,
        }
    }

    /// The same image rounded to pairs of channels.
    pub(super) fn in_pairs(self, level: Level) -> Self {
        Source { channels: self.source_channels.div_ceil(2), pairs: Some(level), copied: true, ..self }
    }

    /// What the windows of a forward pass read.
    pub(super) fn of_input(shape: &ConvShape) -> Self {
        let [out_height, out_width, _] = shape.output();
        let [rows, columns] = shape.extent();
        let span =
            |count: usize, stride: usize, extent: usize| if count == 0 { 0 } else { (count - 1) * stride + extent };
        let size = [span(out_height, shape.strides[0], rows), span(out_width, shape.strides[1], columns)];
        Source::new(shape.input, [shape.padding[0] as isize, shape.padding[2] as isize], size)
    }

    /// Values from one row to the next.
    pub(super) fn pitch(&self) -> usize {
        self.channels * if self.copied { self.columns } else { self.width }
    }

    /// Values from one sample to the next.
    pub(super) fn sample(&self) -> usize {
        if self.copied { self.rows * self.columns * self.channels } else { self.source_sample() }
    }

    /// Values in one sample of the image as it was given.
    pub(super) fn source_sample(&self) -> usize {
        self.height * self.width * self.source_channels
    }

    /// Where the first pixel lies.
    pub(super) fn origin(&self) -> usize {
        if self.copied {
            return 0;
        }
        let (rows, columns) = (self.top.unsigned_abs(), self.left.unsigned_abs());
        (rows * self.width + columns) * self.channels
    }

    pub(super) fn scratch_len(&self, samples: usize) -> usize {
        let slack = if self.pairs.is_some() { SLACK } else { 0 };
        if self.copied { samples * self.sample() + slack } else { 0 }
    }

    /// The image to read: `source`, or its padded copy in `scratch`.
    pub(super) fn prepare<'a>(&self, samples: usize, source: &'a [f32], scratch: &'a mut [f32]) -> &'a [f32] {
        if !self.copied {
            return source;
        }
        let copy = &mut scratch[..self.scratch_len(samples)];
        if let Some(level) = self.pairs {
            level.dispatch_bf16(PairImages { plan: self, rows: 0..samples * self.rows, source, copy: &mut *copy });
            return &copy[..samples * self.sample()];
        }
        if copy.is_empty() {
            return copy;
        }
        for (n, image) in copy.chunks_exact_mut(self.sample()).enumerate() {
            self.copy_rows(0, &source[n * self.source_sample()..(n + 1) * self.source_sample()], image);
        }
        copy
    }

    /// Some rows of one sample's image as [`prepare`](Self::prepare) gives it, the first of them first.
    pub(super) fn prepare_rows<'a>(&self, rows: Range<usize>, source: &'a [f32], scratch: &'a mut [f32]) -> &'a [f32] {
        if !self.copied {
            return &source[rows.start * self.pitch()..];
        }
        let copy = &mut scratch[..self.rows_len(rows.len())];
        if let Some(level) = self.pairs {
            assert!(rows.end <= self.rows, "rows of one sample");
            let len = rows.len() * self.pitch();
            level.dispatch_bf16(PairImages { plan: self, rows, source, copy: &mut *copy });
            return &copy[..len];
        }
        if !copy.is_empty() {
            self.copy_rows(rows.start, source, copy);
        }
        copy
    }

    /// Values of scratch memory for so many rows of one sample.
    pub(super) fn rows_len(&self, rows: usize) -> usize {
        let slack = if self.pairs.is_some() { SLACK } else { 0 };
        if self.copied { rows * self.pitch() + slack } else { 0 }
    }

    /// Fills `image` with padded rows from the `first` on.
    fn copy_rows(&self, first: usize, source: &[f32], image: &mut [f32]) {
        let channels = self.channels;
        let (before, skip, taken) = self.columns_taken();
        for (r, row) in image.chunks_exact_mut(self.columns * channels).enumerate() {
            match self.row_taken(first + r) {
                Some(from) if taken > 0 => {
                    let from = (from * self.width + skip) * channels;
                    let (zeros, rest) = row.split_at_mut(before * channels);
                    let (values, after) = rest.split_at_mut(taken * channels);
                    zeros.fill(0.0);
                    values.copy_from_slice(&source[from..from + taken * channels]);
                    after.fill(0.0);
                }
                _ => row.fill(0.0),
            }
        }
    }

    /// Columns of zeros in the copy, columns of the source that are skipped, and columns that are copied.
    pub(super) fn columns_taken(&self) -> (usize, usize, usize) {
        let before = (self.left.max(0) as usize).min(self.columns);
        let skip = (-self.left).max(0) as usize;
        (before, skip, self.width.saturating_sub(skip).min(self.columns - before))
    }

    /// The row of the source that a row of the copy is, if it isn't of zeros.
    pub(super) fn row_taken(&self, row: usize) -> Option<usize> {
        usize::try_from(row as isize - self.top).ok().filter(|&from| from < self.height)
    }
}

impl Source {
    /// The image without its padding, cropped pixels zero: what [`prepare`](Self::prepare) would have copied to `padded`.
    pub(super) fn restore(&self, padded: &[f32], image: &mut [f32]) {
        let channels = self.channels;
        let before = (self.left.max(0) as usize).min(self.columns);
        let skip = (-self.left).max(0) as usize;
        let taken = self.width.saturating_sub(skip).min(self.columns - before);
        for (r, row) in image.chunks_exact_mut(self.width * channels).enumerate() {
            match usize::try_from(r as isize + self.top) {
                Ok(from) if from < self.rows && taken > 0 => {
                    let from = (from * self.columns + before) * channels;
                    let (zeros, rest) = row.split_at_mut(skip * channels);
                    let (values, after) = rest.split_at_mut(taken * channels);
                    zeros.fill(0.0);
                    values.copy_from_slice(&padded[from..from + taken * channels]);
                    after.fill(0.0);
                }
                _ => row.fill(0.0),
            }
        }
    }
}

/// A run of the reduction over which the offset of `a` grows by a fixed step and the row of `b` by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// First offset into the rows of `a`.
    pub(super) a: usize,
    /// First row of `b`.
    pub(super) k: usize,
    pub(super) len: usize,
}

/// One position of the kernel, as the window reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    /// Offset from the window's corner.
    pub(super) offset: usize,
    /// Which position of the kernel: `row * kernel width + column`.
    pub(super) position: usize,
}

/// The taps as runs of the reduction, `channels` values each; taps whose values are neighbours share a run.
pub(super) fn segments(taps: &[Tap], channels: usize) -> Vec<Segment> {
    let mut runs: Vec<Segment> = Vec::new();
    for (i, tap) in taps.iter().enumerate() {
        match runs.last_mut() {
            Some(last) if last.a + last.len == tap.offset => last.len += channels,
            _ => runs.push(Segment { a: tap.offset, k: i * channels, len: channels }),
        }
    }
    runs
}

/// The taps of a forward pass, in the kernel's own order.
pub(super) fn forward_taps(shape: &ConvShape, source: &Source) -> Vec<Tap> {
    let [height, width] = shape.kernel;
    let offset = |h: usize, w: usize| h * shape.dilation[0] * source.pitch() + w * shape.dilation[1] * source.channels;
    (0..height * width).map(|position| Tap { offset: offset(position / width, position % width), position }).collect()
}

/// Offset of the corner of the window at output pixel `(row, column)`.
pub(super) fn window_offset(shape: &ConvShape, source: &Source, row: usize, column: usize) -> u32 {
    (source.origin() + row * shape.strides[0] * source.pitch() + column * shape.strides[1] * source.channels) as u32
}

impl Source {
    /// The same, always copied: for kernels that read a little more than each window.
    pub(super) fn always_copied(self) -> Self {
        Source { copied: true, ..self }
    }

    /// The image of bytes to read: `source`, or its copy in `scratch`, padded with the channels' `zero` bytes.
    pub(super) fn prepare_bytes<'a>(
        &self,
        samples: usize,
        zero: &[u8],
        source: &'a [u8],
        scratch: &'a mut [u8],
    ) -> &'a [u8] {
        if !self.copied {
            return source;
        }
        let length = self.scratch_len(samples);
        if length == 0 {
            return scratch;
        }
        let channels = self.channels;
        let before = (self.left.max(0) as usize).min(self.columns);
        let skip = (-self.left).max(0) as usize;
        let taken = self.width.saturating_sub(skip).min(self.columns - before);
        let pad = |pixels: &mut [u8]| match zero {
            [first, rest @ ..] if rest.iter().all(|byte| byte == first) => pixels.fill(*first),
            _ => pixels.chunks_exact_mut(channels).for_each(|pixel| pixel.copy_from_slice(zero)),
        };
        for (n, image) in scratch[..length].chunks_exact_mut(self.sample()).enumerate() {
            let source = &source[n * self.source_sample()..(n + 1) * self.source_sample()];
            for (r, row) in image.chunks_exact_mut(self.columns * channels).enumerate() {
                match usize::try_from(r as isize - self.top) {
                    Ok(from) if from < self.height && taken > 0 => {
                        let from = (from * self.width + skip) * channels;
                        let (left, rest) = row.split_at_mut(before * channels);
                        let (values, right) = rest.split_at_mut(taken * channels);
                        pad(left);
                        values.copy_from_slice(&source[from..from + taken * channels]);
                        pad(right);
                    }
                    _ => pad(row),
                }
            }
        }
        scratch
    }
}
