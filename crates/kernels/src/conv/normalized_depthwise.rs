//! Batch normalisation with its rectifier and the depthwise convolution behind it, some rows at a time, for training: normalised rows are
//! made in the second-level cache for the convolution and, once more, for its gradients, and never reach memory.

use super::depthwise_bands::{Band, Bands};
use super::depthwise_data::DataTiles;
use super::depthwise_tile::{Layout, Tiles, Windows};
use super::depthwise_weights::TileWeights;
use super::geometry::is_cold;
use super::pack::TileSize;
use super::{ConvShape, Epilogue, Sums};
use crate::batch_norm::{self, Norm};
use crate::{Level, Packing, Pool, Values};
use std::ops::Range;

/// Bytes of normalised rows in the forward pass, which reads as many of the image: half of a common second-level cache together.
const FORWARD_BYTES: usize = 256 << 10;

/// Bytes of normalised rows in the backward pass, beside as many of the image and of its gradient.
const BACKWARD_BYTES: usize = 192 << 10;

/// `y = convolution(f(gamma (x - mean) / sqrt(variance + epsilon) + beta), weights)`, depthwise, and its gradients.
#[derive(Clone, Debug)]
pub struct NormalizedDepthwise {
    level: Level,
    forward: Bands,
    backward: Bands,
    data: DataTiles,
    /// Whether a sample's outputs are too many for a second-level cache.
    cold: bool,
}

/// What the backward pass computes, each for all samples.
#[derive(Debug)]
pub struct NormalizedGradients<'a> {
    /// The gradient of the normalised image; it has not passed the rectifier.
    pub dn: &'a mut [f32],
    /// The sums over samples and pixels that [`batch_norm::backward_sums`] gives.
    pub dbeta: &'a mut [f32],
    /// As `dbeta`.
    pub dgamma: &'a mut [f32],
    /// The gradient of the weights, `[tap][channel]`.
    pub dw: &'a mut [f32],
}

impl NormalizedDepthwise {
    /// Whether the convolution has such a way.
    pub fn suits(shape: &ConvShape) -> bool {
        Windows::of_input(shape).is_some() && shape.output_len() > 0
    }

    /// Lays out the convolution of that shape, which [`suits`](Self::suits) has found good.
    ///
    /// # Panics
    /// Where it has not.
    pub fn new(shape: ConvShape, level: Level) -> Self {
        let windows = Windows::of_input(&shape).expect("it suits");
        let data = DataTiles::new(&shape).expect("it suits");
        let (forward, backward) = (Bands::new(windows, FORWARD_BYTES, 1), Bands::new(windows, BACKWARD_BYTES, 1));
        NormalizedDepthwise { level, forward, backward, data, cold: is_cold(shape.output_len()) }
    }

    /// Values that [`run_rows`](Self::run_rows) needs besides; what they hold does not matter.
    pub fn scratch_len(&self) -> usize {
        self.forward.held_len()
    }

    /// Values in a row of the output, the smallest piece of it.
    pub fn unit(&self) -> usize {
        self.forward.windows().row_len()
    }

    /// Computes these rows of one sample's output, in single precision. The weights are as they are, `[tap][channel]`.
    pub fn run_rows(
        &self,
        rows: Range<usize>,
        x: Values<'_>,
        norm: &Norm<'_>,
        weights: &[f32],
        sums: Sums<'_>,
        scratch: &mut [f32],
    ) {
        assert!(!sums.is_onto(), "no shortcut in a depthwise convolution");
        let (unit, moments, y) = (self.unit(), sums.moments(), sums.single());
        assert_eq!(y.len(), rows.len() * unit, "outputs of these rows");
        let held = &mut scratch[..self.scratch_len()];
        self.forward.sweep(rows.clone(), held, self.normalized(x, norm), |band| {
            let y = &mut y[(band.rows.start - rows.start) * unit..(band.rows.end - rows.start) * unit];
            Tiles {
                windows: &band.windows,
                rows: 0..band.rows.len(),
                samples: 1,
                x: band.image,
                weights,
                layout: Layout::Plain { channels: band.windows.channels },
                bias: None,
                epilogue: Epilogue::Linear,
                cold: self.cold,
                y: &mut *y,
            }
            .run_on(self.level);
            if let Some(moments) = moments {
                moments.add_rows(y);
            }
        });
    }

    /// Makes normalised rows of an image.
    fn normalized(&self, x: Values<'_>, norm: &Norm<'_>) -> impl FnMut(Range<usize>, &mut [f32]) {
        let row_len = self.forward.row_len();
        move |rows, to| {
            let x = x.slice(rows.start * row_len..rows.end * row_len);
            batch_norm::normalize(self.level, norm, x, None, to.into());
        }
    }

    /// Values that [`backward`](Self::backward) needs besides; what they hold does not matter.
    pub fn backward_scratch_len(&self) -> usize {
        self.backward.held_len()
    }

    /// Computes the gradients from that of the outputs of `samples` images `x`; sums are added to what they hold if `accumulate`.
    #[allow(clippy::too_many_arguments, reason = "what the forward pass read, a gradient, and where the others go")]
    pub fn backward(
        &self,
        samples: usize,
        x: Values<'_>,
        norm: &Norm<'_>,
        packed: &[f32],
        dy: &[f32],
        to: NormalizedGradients<'_>,
        accumulate: bool,
        scratch: &mut [f32],
    ) {
        let windows = self.backward.windows();
        let (x_len, y_len) = (windows.input_len(), windows.output[0] * windows.row_len());
        assert_eq!(x.len(), samples * x_len, "values of every pixel");
        assert_eq!(dy.len(), samples * y_len, "gradients of every output");
        assert_eq!(to.dn.len(), samples * x_len, "room for every pixel");
        let (unit, row_len) = (windows.row_len(), self.backward.row_len());
        let NormalizedGradients { dn, dbeta, dgamma, dw } = to;
        let mut accumulate = accumulate;
        for sample in 0..samples {
            let x = x.slice(sample * x_len..(sample + 1) * x_len);
            let dy = &dy[sample * y_len..(sample + 1) * y_len];
            let dn = &mut dn[sample * x_len..(sample + 1) * x_len];
            let held = &mut scratch[..self.backward_scratch_len()];
            self.backward.sweep(0..windows.output[0], held, self.normalized(x, norm), |band| {
                TileWeights {
                    windows: &band.windows,
                    samples: 1,
                    x: band.image,
                    dy: &dy[band.rows.start * unit..band.rows.end * unit],
                    accumulate,
                    dw,
                }
                .run_on(self.level);
                let rows = self.data_rows(&band);
                let values = rows.start * row_len..rows.end * row_len;
                let dn = &mut dn[values.clone()];
                self.data.run_on(self.level, rows, 1, dy, packed, dn);
                let (x, dn) = (x.slice(values), Values::F32(dn));
                batch_norm::backward_sums(self.level, norm, x, dn, dbeta, dgamma, accumulate);
                accumulate = true;
            });
        }
    }

    /// The rows of the image whose gradient is computed with a band: one band's begin where the last one's end.
    fn data_rows(&self, band: &Band<'_>) -> Range<usize> {
        let windows = self.backward.windows();
        let [height, _] = windows.input;
        let boundary =
            |row: usize| ((row * windows.stride) as isize - windows.before[0]).clamp(0, height as isize) as usize;
        let start = if band.rows.start == 0 { 0 } else { boundary(band.rows.start) };
        start..if band.rows.end == windows.output[0] { height } else { boundary(band.rows.end) }
    }
}

/// For [`backward`](NormalizedDepthwise::backward).
impl Packing for NormalizedDepthwise {
    fn packed_len(&self) -> usize {
        self.data.packed_len(TileSize::of(self.level).lanes)
    }

    fn pack(&self, _pool: &mut Pool, weights: &[f32], packed: &mut [f32]) {
        self.data.pack(TileSize::of(self.level).lanes, weights, packed);
    }
}
