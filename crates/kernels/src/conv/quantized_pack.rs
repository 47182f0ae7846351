//! Weights rounded to bytes, a panel of filters at a time, each filter with the scale that its largest weight asks for.

use crate::isa::{Isa, Kernel};

/// The largest weight in its filter becomes this.
const MOST: f32 = 127.0;
/// Columns of the widest panel of any level.
pub(super) const MOST_COLUMNS: usize = 64;

/// One panel: `[row / 4][width][4]` bytes.
pub(super) struct Panel<'a> {
    /// For each row of the reduction the row of the weights, where it has one; a multiple of four of them.
    pub(super) rows: &'a [Option<u32>],
    /// The weights from the panel's first filter on, and values from one of their rows to the next.
    pub(super) weights: &'a [f32],
    pub(super) pitch: usize,
    /// What a byte of each input channel stands for; rows of the weights go round the channels.
    pub(super) scale: &'a [f32],
    pub(super) offset: &'a [f32],
    pub(super) panel: &'a mut [f32],
    /// Columns that are stored.
    pub(super) width: usize,
    /// For each filter that exists, its scale, and what the offsets add to its sums.
    pub(super) scales: &'a mut [f32],
    pub(super) offsets: &'a mut [f32],
}

impl Kernel for Panel<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Panel { rows, weights, pitch, scale, offset, panel, width, scales, offsets } = self;
        let (used, channels) = (scales.len(), scale.len());
        assert!(used <= width && width <= MOST_COLUMNS && width.is_multiple_of(I::LANES), "a panel's columns");
        assert_eq!(panel.len(), rows.len() / 4 * width, "four rows in each row of the panel");
        let mut most = [0.0f32; MOST_COLUMNS];
        for from in rows.iter().flatten() {
            let scale = scale[*from as usize % channels];
            let row = &weights[*from as usize * pitch..][..used];
            for (most, w) in most[..used].iter_mut().zip(row) {
                let magnitude = (w * scale).abs();
                *most = if magnitude > *most { magnitude } else { *most };
            }
        }
        let mut inverse = [0.0f32; MOST_COLUMNS];
        for column in 0..used {
            // Weights too small for their scale to be a normal number are as good as zero.
            let small = most[column] < MOST * f32::MIN_POSITIVE;
            scales[column] = if small { 0.0 } else { most[column] / MOST };
            inverse[column] = if small { 0.0 } else { 1.0 / scales[column] };
        }
        let mut sums = [0.0f64; MOST_COLUMNS];
        for (four, to) in rows.chunks_exact(4).zip(panel.chunks_exact_mut(width)) {
            // Bytes with 128 added, so that they are not negative.
            let mut bytes = [[128u8; MOST_COLUMNS]; 4];
            for (bytes, from) in bytes.iter_mut().zip(four) {
                let Some(from) = *from else { continue };
                let channel = from as usize % channels;
                let row = &weights[from as usize * pitch..][..used];
                for column in (0..used).step_by(I::LANES) {
                    let mask = isa.first(used - column);
                    // SAFETY: the mask ends at the row's end; the arrays hold whole vectors, as `width` does.
                    unsafe {
                        let w = isa.mul(isa.load_masked(mask, row.as_ptr().add(column)), isa.splat(scale[channel]));
                        let w = isa.round(isa.mul(w, isa.load(inverse.as_ptr().add(column))));
                        let w = isa.min(isa.max(w, isa.splat(-MOST)), isa.splat(MOST));
                        isa.store_bytes(bytes.as_mut_ptr().add(column), I::LANES, isa.add(w, isa.splat(128.0)));
                    }
                }
                let shift = f64::from(offset[channel]) / f64::from(scale[channel]);
                if shift != 0.0 {
                    for (sum, byte) in sums[..used].iter_mut().zip(bytes.iter()) {
                        *sum += shift * (f64::from(*byte) - 128.0);
                    }
                }
            }
            for (column, to) in to.iter_mut().enumerate() {
                let four = [bytes[0][column], bytes[1][column], bytes[2][column], bytes[3][column]];
                *to = f32::from_bits(u32::from_le_bytes(four) ^ 0x8080_8080);
            }
        }
        for ((offset, sum), scale) in offsets.iter_mut().zip(sums).zip(&*scales) {
            *offset = (sum * f64::from(*scale)) as f32;
        }
    }
}
