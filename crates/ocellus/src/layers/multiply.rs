//! Values multiplied by a factor for each channel.

use super::window::shape_text;
use super::{Build, Layer};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// Multiplies its first input by its second, which has one number for each channel of a sample: (channels) or (1, 1, channels).
/// With a pooling and two convolutions before it, it is squeeze-and-excitation:
///
/// ```
/// use ocellus::layers::{Activation, Conv2d, GlobalAveragePooling2d, Layer, Multiply};
/// use ocellus::model::Input;
/// let x = Input::new([14, 14, 96]);
/// let s = GlobalAveragePooling2d::new().keepdims(true).call(&x);
/// let s = Conv2d::new(24, 1).activation(Activation::Silu).call(&s);
/// let s = Conv2d::new(96, 1).activation(Activation::Sigmoid).call(&s);
/// let y = Multiply::new().call([&x, &s]);
/// ```
///
/// Hu et al., *Squeeze-and-excitation networks*, 2018.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Multiply {}

impl Multiply {
    /// The layer; it has no arguments.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Layer for Multiply {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn inputs(&self) -> std::ops::RangeInclusive<usize> {
        2..=2
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let channels = inputs[0].last().copied();
        match (inputs[1].split_last(), channels) {
            (Some((&factors, ones)), Some(channels)) if factors == channels && ones.iter().all(|&n| n == 1) => {
                Ok(inputs[0].to_vec())
            }
            _ => Err(format!(
                "expected a factor for each channel as its second input, received {} and {}",
                shape_text(inputs[0]),
                shape_text(inputs[1])
            )),
        }
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        let channels = at.graph.shape(at.input()).last().copied().unwrap_or(1);
        let factors = at.graph.add(ops::Reshape { shape: vec![channels] }, &[at.inputs[1]])?;
        at.graph.add(ops::MultiplyChannels, &[at.input(), factors])
    }
}
