//! Convolution of NHWC images: forward, both gradients, and the three fused with max-pooling.
//!
//! "Convolution" is cross-correlation, as in every framework: `y[p] = bias + sum over taps t of x[p * strides + t * dilation] * w[t]`.
//! A dense layer is the 1x1 convolution of a 1x1 image, and runs through the same code.
//!
//! Each operation is a plan made once from a [`ConvShape`] and a [`Level`]: `new` lays out offset tables, `pack` brings
//! the weights into the order that the kernel reads (again after every update), and `run` computes some samples
//! on the calling thread, allocating nothing.
//!
//! | way | for | file |
//! |---|---|---|
//! | matrix tiles whose rows are arbitrary offsets into the input, so that no image is ever unrolled | everything | `tile`, `pooled_tile` |
//! | two rows share a vector for their halves | 24 columns in vectors of 16 | `half_tile` |
//! | sums of four products with three multiplications | 1x1 kernels behind batch normalisation, inference, on processors that add beside multiplying | `crossed_tile` |
//! | strips whose pixels are read once for a kernel row | 1 or 3 channels, kernels three columns wide: first layers, pooled or not | `row_tile` |
//! | minimal filtering: 16 multiplications for 36, or 36 for 144; of few channels, 12 for 18 | 3x3, unit strides | `winograd` |
//! | tile instructions, sixteen by sixteen sums of sixteen pairs at a time | bf16 on processors with AMX: all that has pairs, pooled or not, in one group | `amx_product`, `amx_weights` |
//! | what is multiplied in registers, sums streamed | weight gradients over few pixels | `weight_tile` |
//! | vectors over channels | depthwise | `depthwise_tile`, `depthwise_data`, `depthwise_weights`; kernels other than 3x3 and 5x5, dilation: `depthwise` |
//! | a 1x1 convolution and the depthwise one behind it, some channels of some rows at a time | inference of inverted residual blocks | `expanded_depthwise` |
//! | batch normalisation and the depthwise convolution behind it, some rows at a time | training of inverted residual blocks | `normalized_depthwise` |
//! | only the maxima have a gradient | behind a max-pool | `sparse_data`, `sparse_weights` |
//! | products of bytes, whole-number sums | 8-bit inference | `quantized`, `quantized_tile` |
//! | permutations fetch each filter's pixel | first layers before a max-pool | `patch_weights` |
//!
//! With [`Precision::Bf16`](crate::Precision) the factors of products are rounded to bf16 and multiplied by pairs (`factors`), summed in
//! single precision; biases, activations and the transforms of minimal filtering stay in single precision. Forward and data gradient
//! by minimal filtering can round what they store to bf16, too; where there are tiles, they do so for the same shapes. Which kernels
//! multiply pairs, without tiles:
//!
//! | operation | pairs run along | single precision remains with |
//! |---|---|---|
//! | forward and data gradient by minimal filtering, pooled or not | channels; filters for the data | |
//! | forward and data gradient otherwise, dense layers | channels; filters for the data | fewer than 4 of them, odd numbers in groups, depthwise |
//! | weight gradient by minimal filtering | tiles of 2x2 outputs | |
//! | weight gradient otherwise | output pixels of all samples (`paired_weights`) | fewer than 8 channels, groups, dense layers |
//! | pooled forward without minimal filtering | | all: first layers have few channels |
//! | gradients behind a max-pool that do only the maxima's work | | all: it is no dense product |

mod amx_product;
mod amx_weights;
mod backward_data;
mod backward_weights;
mod blocked_weights;
#[cfg(test)]
mod crossed_tests;
mod crossed_tile;
mod depthwise;
mod depthwise_bands;
mod depthwise_data;
mod depthwise_tile;
mod depthwise_weights;
mod expanded_depthwise;
mod factors;
#[cfg(test)]
mod filtered_magnitude;
mod forward;
mod geometry;
mod half_tile;
#[cfg(test)]
mod joined_tests;
pub(crate) mod matrix;
mod normalized_depthwise;
mod pack;
#[cfg(test)]
mod packing_tests;
mod paired_weights;
mod patch_weights;
#[cfg(test)]
mod piece_tests;
mod pooled_backward_data;
mod pooled_backward_weights;
mod pooled_forward;
mod pooled_tile;
mod quantized;
mod quantized_pack;
#[cfg(test)]
mod quantized_tests;
mod quantized_tile;
#[cfg(test)]
mod reference;
mod row_tile;
mod sparse_data;
mod sparse_weights;
#[cfg(test)]
mod tests;
mod tile;
mod weight_tile;
mod winograd;

pub use backward_data::BackwardData;
pub use backward_weights::BackwardWeights;
pub use expanded_depthwise::ExpandedDepthwise;
pub use forward::{ConvWeights, Extent, Forward, Sums};
pub use normalized_depthwise::{NormalizedDepthwise, NormalizedGradients};
pub use pooled_backward_data::PooledBackwardData;
pub use pooled_backward_weights::PooledBackwardWeights;
pub use pooled_forward::PooledForward;
pub use quantized::{Addend, Destination, QuantizedForward};

#[cfg(doc)]
use crate::Level;
use crate::isa::Isa;
use crate::packing::Cut;

/// What is convolved with what: the shape of one sample and of the kernel that slides over it.
///
/// Kernels are laid out `[height][width][channels / groups][filters]` (HWIO), whatever the number of groups; for a
/// depthwise convolution (`groups == channels`) that is `[height][width][1][channels * multiplier]`, the same memory as
/// Keras' `[height][width][channels][multiplier]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Height, width and channels of a sample.
    pub input: [usize; 3],
    /// Channels of the output.
    pub filters: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Input pixels between neighbouring windows, down and across.
    pub strides: [usize; 2],
    /// Zeros around the input: top, bottom, left, right.
    pub padding: [usize; 4],
    /// Input pixels between neighbouring taps of the kernel, down and across; 1 is a dense kernel.
    pub dilation: [usize; 2],
    /// Channels and filters are cut into this many groups, which do not see each other.
    pub groups: usize,
}

impl ConvShape {
    /// A dense layer: the 1x1 convolution of a 1x1 image.
    pub fn dense(inputs: usize, units: usize) -> Self {
        ConvShape {
            input: [1, 1, inputs],
            filters: units,
            kernel: [1, 1],
            strides: [1, 1],
            padding: [0; 4],
            dilation: [1, 1],
            groups: 1,
        }
    }

    /// Height, width and channels of the output; zero where the kernel is larger than the padded input.
    pub fn output(&self) -> [usize; 3] {
        let [height, width, _] = self.input;
        let [top, bottom, left, right] = self.padding;
        let [rows, columns] = self.extent();
        let count = |padded: usize, extent: usize, stride: usize| match padded.checked_sub(extent) {
            Some(room) => room / stride + 1,
            None => 0,
        };
        [
            count(height + top + bottom, rows, self.strides[0]),
            count(width + left + right, columns, self.strides[1]),
            self.filters,
        ]
    }

    /// Values in the kernel.
    pub fn weights_len(&self) -> usize {
        self.taps() * self.group_channels() * self.filters
    }

    /// Floating-point operations of the forward pass for one sample, two for each multiplication.
    pub fn flops(&self) -> u64 {
        let [height, width, _] = self.output();
        2 * (height * width) as u64 * self.weights_len() as u64
    }

    /// Values in one input sample.
    pub fn input_len(&self) -> usize {
        self.input.iter().product()
    }

    /// Values in one output sample.
    pub fn output_len(&self) -> usize {
        self.output().iter().product()
    }

    /// Whether the forward pass in bf16 can round what it stores, too.
    pub fn writes_bf16(&self) -> bool {
        let [height, width, _] = self.output();
        winograd::suits(self, [height, width])
    }

    /// The same of the gradient with respect to the input.
    pub fn writes_bf16_data(&self) -> bool {
        winograd::suits(self, [self.input[0], self.input[1]])
    }

    /// Whether each pixel of the output is made of the pixel at its place.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.padding == [0; 4]
    }

    /// Positions of the kernel.
    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Input pixels that a window spans, down and across.
    fn extent(&self) -> [usize; 2] {
        [(self.kernel[0] - 1) * self.dilation[0] + 1, (self.kernel[1] - 1) * self.dilation[1] + 1]
    }

    /// Where the weights, of one group, can be cut into rows.
    fn cut(&self, unit: usize) -> Cut {
        Cut { taps: self.taps(), rows: self.group_channels(), columns: self.filters, unit }
    }

    fn group_channels(&self) -> usize {
        self.input[2] / self.groups
    }

    fn group_filters(&self) -> usize {
        self.filters / self.groups
    }

    /// Asserts what every plan relies on.
    fn check(&self) {
        let positive = self.kernel.iter().chain(&self.strides).chain(&self.dilation);
        assert!(
            positive.chain([&self.input[2], &self.filters, &self.groups]).all(|&n| n > 0),
            "no zero sizes in {self:?}"
        );
        assert!(self.input[2].is_multiple_of(self.groups), "groups divide the channels of {self:?}");
        assert!(self.filters.is_multiple_of(self.groups), "groups divide the filters of {self:?}");
        let [top, bottom, left, right] = self.padding;
        let padded = (self.input[0] + top + bottom) * (self.input[1] + left + right) * self.input[2];
        assert!(padded.max(self.output_len()).max(self.weights_len()) < u32::MAX as usize, "{self:?} is too large");
    }
}

/// What a convolution applies to its sums before it stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// Nothing.
    Linear,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
}

impl Epilogue {
    /// The least and the greatest value that it lets pass.
    fn bounds(self) -> (f32, f32) {
        match self {
            Epilogue::Linear => (f32::NEG_INFINITY, f32::INFINITY),
            Epilogue::Relu => (0.0, f32::INFINITY),
            Epilogue::Relu6 => (0.0, 6.0),
        }
    }

    /// Applies it to the sums of a tile: loops of their own for each choice, so that there is no branch for each sum, and by indices, since sums
    /// that iterators borrow leave their registers.
    #[allow(clippy::needless_range_loop, reason = "the indices of a tile are registers")]
    #[inline(always)]
    fn apply<I: Isa, const ROWS: usize, const VECTORS: usize>(
        self,
        isa: I,
        mut sums: [[I::F32; VECTORS]; ROWS],
    ) -> [[I::F32; VECTORS]; ROWS] {
        // The sum is the second operand of `max`, so that NaN stays NaN.
        if self != Epilogue::Linear {
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    sums[r][v] = isa.max(isa.zero(), sums[r][v]);
                }
            }
        }
        if self == Epilogue::Relu6 {
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    sums[r][v] = isa.min(isa.splat(6.0), sums[r][v]);
                }
            }
        }
        sums
    }
}

/// A convolution followed by max-pooling whose windows do not overlap (strides equal to the pool size) and that drops
/// the rows and columns that fill no window, as Keras' `valid` pooling does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PooledShape {
    /// The convolution.
    pub conv: ConvShape,
    /// Height and width of the pooling window; at most 255 pixels in all.
    pub pool: [usize; 2],
}

/// The position in `argmax` of a window through which no gradient flows, because its ReLU is closed.
pub const CLOSED: u8 = 255;

impl PooledShape {
    /// Height, width and channels of the pooled output.
    pub fn output(&self) -> [usize; 3] {
        let [height, width, channels] = self.conv.output();
        [height / self.pool[0], width / self.pool[1], channels]
    }

    /// Values in one pooled sample.
    pub fn output_len(&self) -> usize {
        self.output().iter().product()
    }

    /// Pixels of a window.
    fn window(&self) -> usize {
        self.pool[0] * self.pool[1]
    }

    fn check(&self) {
        self.conv.check();
        assert!((1..=255).contains(&self.window()), "1 to 255 pixels in the windows of {self:?}");
    }
}
