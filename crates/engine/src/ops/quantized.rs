//! Convolution and dense layers on bytes, which `quantize` makes of those on numbers.

use super::{Conv2d, Epilogue, count, dense};
use crate::{At, DType, Inputs, Op, Output, Role, Run, Spec, Target};
use ocellus_kernels::conv::{Addend, ConvShape, Destination, PooledShape, QuantizedForward};
use ocellus_kernels::quantize::{Encoding, to_bytes};
use ocellus_kernels::{Level, Packing};

/// Numbers as bytes: the nearest in the encoding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantize(pub(crate) Encoding);

impl Op for Quantize {
    fn name(&self) -> &'static str {
        "Quantize"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 1..=1)?;
        super::sample(inputs[0])?;
        Ok(vec![inputs[0].clone().bytes()])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunQuantize { level, encoding: self.0 })
    }
}

#[derive(Debug)]
struct RunQuantize {
    level: Level,
    encoding: Encoding,
}

impl Run for RunQuantize {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        to_bytes(self.level, self.encoding, inputs.f32(0), outputs[0].u8());
    }
}

/// What bytes stand for: `scale[c] * byte + offset[c]` in channel `c`, one number standing for all channels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bytes {
    pub(crate) scale: Vec<f32>,
    pub(crate) offset: Vec<f32>,
}

impl From<Encoding> for Bytes {
    fn from(encoding: Encoding) -> Self {
        Bytes { scale: vec![encoding.scale], offset: vec![encoding.offset()] }
    }
}

/// Inputs: image of bytes, kernel, then bias and shortcut where there are any. Output: bytes, or numbers without `output`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantized {
    pub(crate) kind: Kind,
    pub(crate) epilogue: Epilogue,
    pub(crate) input: Bytes,
    pub(crate) output: Option<Encoding>,
    pub(crate) bias: bool,
    /// Whether something is added before the epilogue; with an encoding where that is bytes.
    pub(crate) shortcut: Option<Option<Encoding>>,
}

/// What is computed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A convolution and the size of the pooling windows behind it. Its own epilogue does not count.
    Conv2d(Conv2d, [usize; 2]),
    Dense,
}

impl Kind {
    pub(crate) fn shape(&self, x: &Spec, kernel: &Spec) -> Result<PooledShape, String> {
        Ok(match self {
            Kind::Conv2d(conv, pool) => {
                let numbers = Spec { dtype: DType::F32, ..x.clone() };
                PooledShape { conv: conv.shape(&numbers, kernel)?, pool: *pool }
            }
            Kind::Dense => PooledShape { conv: dense::shape(x, kernel), pool: [1, 1] },
        })
    }

    /// Whether it can be computed on bytes, and is worth it.
    pub(crate) fn suits(&self, x: &Spec, kernel: &Spec) -> bool {
        self.shape(x, kernel).is_ok_and(|shape| {
            let ConvShape { input, groups, .. } = shape.conv;
            // Products come in fours: a depthwise convolution would mostly multiply by zero.
            (groups == 1 || input[2] / groups >= 4) && QuantizedForward::suits(&shape.conv)
        })
    }
}

impl Quantized {
    fn shape(&self, inputs: &[&Spec]) -> PooledShape {
        self.kind.shape(inputs[0], inputs[1]).expect("it was a node before it was quantised")
    }
}

impl Op for Quantized {
    fn name(&self) -> &'static str {
        match (&self.kind, self.shortcut) {
            (Kind::Dense, _) => "QuantizedDense",
            (Kind::Conv2d(_, [1, 1]), None) => "QuantizedConv2d",
            (Kind::Conv2d(_, [1, 1]), Some(_)) => "QuantizedConv2d+Add",
            (Kind::Conv2d(..), _) => "QuantizedConv2d+MaxPool2d",
        }
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        let expected = 2 + usize::from(self.bias) + usize::from(self.shortcut.is_some());
        count(inputs, expected..=expected)?;
        if inputs[0].role != Role::Sample || inputs[0].dtype != DType::U8 {
            return Err(format!("expected bytes for each sample, received {}", inputs[0]));
        }
        let shape = self.kind.shape(inputs[0], inputs[1])?;
        let output = match &self.kind {
            Kind::Conv2d(..) => shape.output().to_vec(),
            Kind::Dense => {
                let mut shape = inputs[0].shape.clone();
                *shape.last_mut().expect("it has a last axis") = inputs[1].channels();
                shape
            }
        };
        let numbers = Spec::sample(output);
        Ok(vec![if self.output.is_some() { numbers.bytes() } else { numbers }])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        let shape = self.shape(inputs);
        let spread = |v: &[f32]| v.iter().copied().cycle().take(shape.conv.input[2]).collect::<Vec<f32>>();
        let kernel = QuantizedForward::new(shape, &spread(&self.input.scale), &spread(&self.input.offset), level);
        Box::new(RunQuantized { kernel, op: self.clone() })
    }
    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        self.shape(inputs).conv.flops()
    }
}

#[derive(Debug)]
struct RunQuantized {
    kernel: QuantizedForward,
    op: Quantized,
}

impl Run for RunQuantized {
    fn scratch_len(&self, samples: usize) -> usize {
        self.kernel.scratch_len(samples)
    }
    fn packing(&self) -> Option<(usize, &dyn Packing)> {
        Some((1, &self.kernel))
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        let bias = self.op.bias.then(|| inputs.f32(2));
        let last = inputs.len() - 1;
        let shortcut = self.op.shortcut.map(|encoding| match encoding {
            None => Addend::Numbers(inputs.f32(last)),
            Some(encoding) => Addend::Bytes(encoding, inputs.u8(last)),
        });
        let y = match self.op.output {
            None => Destination::Numbers(outputs[0].f32()),
            Some(encoding) => Destination::Bytes(encoding, outputs[0].u8()),
        };
        self.kernel.run(at.samples, inputs.u8(0), inputs.f32(1), bias, shortcut, self.op.epilogue, y, scratch);
    }
}
