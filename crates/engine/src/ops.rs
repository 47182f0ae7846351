//! The operations, one file each; see [`Op`](crate::Op) for what an operation is.

mod activate;
mod adaptive_pool2d;
mod add;
mod add_parameter;
mod affine;
mod attention;
mod batch_norm;
mod batch_norm_backward;
mod concat;
mod constant;
mod conv2d;
mod convert;
mod dense;
mod dropout;
mod expanded_depthwise;
mod fold_batch_norm;
mod inference_conv2d;
mod layer_norm;
mod loss;
mod measured_conv2d;
mod multiply_channels;
mod normalized_depthwise;
mod pool2d;
mod pooled_conv2d;
mod quantized;
mod reshape;
mod sample_mean;
mod softmax;
mod zero_pad2d;

pub use activate::Activate;
pub use adaptive_pool2d::AdaptiveAveragePool2d;
pub use add::{Add, AddRectified};
pub use add_parameter::{AddParameter, FirstRow, PrependRow};
pub use affine::Affine;
pub use attention::Attention;
pub use batch_norm::{BatchNorm, FinishMoments, Moments, batch_norm_inference, batch_norm_training};
pub use concat::Concat;
pub use constant::Constant;
pub use conv2d::Conv2d;
pub(crate) use convert::Convert;
pub use dense::Dense;
pub use dropout::{Dropout, DropoutUnit};
pub(crate) use expanded_depthwise::ExpandedDepthwise;
pub(crate) use fold_batch_norm::FoldBatchNorm;
pub(crate) use inference_conv2d::InferenceConv2d;
pub use layer_norm::LayerNorm;
pub use loss::{
    BinaryCrossEntropy, CategoricalCrossEntropy, MeanSquaredError, SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy,
};
pub(crate) use measured_conv2d::MeasuredConv2d;
pub use multiply_channels::MultiplyChannels;
pub(crate) use normalized_depthwise::NormalizedDepthwise;
pub use pool2d::{AveragePool2d, GlobalAveragePool2d, GlobalMaxPool2d, MaxPool2d};
pub use pooled_conv2d::PooledConv2d;
pub(crate) use quantized::{Bytes, Kind, Quantize, Quantized};
pub use reshape::Reshape;
pub use sample_mean::SampleMean;
pub use softmax::Softmax;
pub use zero_pad2d::ZeroPad2d;

pub use ocellus_kernels::activation::Activation;
pub use ocellus_kernels::conv::Epilogue;

use crate::{DType, Role, Spec};

/// The input as height, width and channels, or what is wrong with it.
fn image(spec: &Spec) -> Result<[usize; 3], String> {
    match spec.shape[..] {
        [h, w, c] if spec.role == Role::Sample && spec.dtype == DType::F32 => Ok([h, w, c]),
        _ => Err(format!("expected an image of height x width x channels for each sample, received {spec}")),
    }
}

/// Checks the number of inputs.
fn count(inputs: &[&Spec], allowed: std::ops::RangeInclusive<usize>) -> Result<(), String> {
    if allowed.contains(&inputs.len()) {
        return Ok(());
    }
    let (low, high) = allowed.into_inner();
    Err(format!("expected {low} to {high} inputs, received {}", inputs.len()))
}

/// Checks that an input has single-precision values for each sample.
fn sample(spec: &Spec) -> Result<(), String> {
    if spec.role == Role::Sample && spec.dtype == DType::F32 {
        return Ok(());
    }
    Err(format!("expected single-precision values for each sample, received {:?} {:?} {spec}", spec.role, spec.dtype))
}

/// Checks a shared input's shape.
fn shared(what: &str, spec: &Spec, shape: &[usize]) -> Result<(), String> {
    if spec.role == Role::Shared && spec.shape == shape {
        return Ok(());
    }
    Err(format!("expected a {what} of shape {}, received {spec}", Spec::shared(shape)))
}

/// Checks that two inputs have the same shape.
fn same(a: &Spec, b: &Spec) -> Result<(), String> {
    if a.shape == b.shape {
        return Ok(());
    }
    Err(format!("expected inputs of the same shape, received {a} and {b}"))
}
