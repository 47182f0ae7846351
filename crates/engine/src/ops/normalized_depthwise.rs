//! Batch normalisation with its rectifier and the depthwise convolution behind it as one operation, for training: the normalised image
//! is made again for the gradients anyway, and here it never leaves the cache.

use super::{BatchNorm, Conv2d, batch_norm_backward, count, shared};
use crate::{At, Backward, DType, GraphError, Inputs, Op, Output, Piece, Run, Spec, Target};
use ocellus_kernels::batch_norm::MomentSums;
use ocellus_kernels::conv::{ConvShape, NormalizedDepthwise as Kernel, NormalizedGradients, Sums};
use ocellus_kernels::{Level, Packing};

/// Inputs: x, mean, variance, gamma, beta, kernel; if it is measured, shift. Outputs: the convolution of normalised x; if it is measured, the
/// sums that [`Moments`](super::Moments) would give of that.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NormalizedDepthwise {
    pub(crate) norm: BatchNorm,
    pub(crate) conv: Conv2d,
    /// Whether batch normalisation follows.
    pub(crate) measured: bool,
}

/// Which input the shift is.
const SHIFT: usize = 6;

impl NormalizedDepthwise {
    /// Whether the convolution has a way to normalise what it reads.
    pub(crate) fn suits(conv: &Conv2d, x: &Spec, kernel: &Spec) -> bool {
        conv.shape(x, kernel).is_ok_and(|shape| Kernel::suits(&shape))
    }

    fn shape(&self, inputs: &[&Spec]) -> ConvShape {
        // What the convolution reads is single precision, whatever x is kept as.
        let normalized = Spec { dtype: DType::F32, ..inputs[0].clone() };
        self.conv.shape(&normalized, inputs[5]).expect("checked when the node was added")
    }
}

impl Op for NormalizedDepthwise {
    fn name(&self) -> &'static str {
        if self.measured { "NormalizedDepthwise+Moments" } else { "NormalizedDepthwise" }
    }
    fn reads_bf16(&self, input: usize) -> bool {
        input == 0
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        let expected = SHIFT + usize::from(self.measured);
        count(inputs, expected..=expected)?;
        let normalized = self.norm.outputs(&inputs[..5])?;
        let mut outputs = self.conv.outputs(&[&normalized[0], inputs[5]])?;
        if self.measured {
            let channels = outputs[0].channels();
            shared("moving mean", inputs[SHIFT], &[channels])?;
            outputs.push(Spec::sum([2 * channels]));
        }
        Ok(outputs)
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        let shape = self.shape(inputs);
        Box::new(RunForward {
            level,
            kernel: Kernel::new(shape, level),
            norm: self.norm.clone(),
            input_len: shape.input_len(),
            moments_len: if self.measured { MomentSums::scratch_len(level, shape.filters) } else { 0 },
        })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let gradients = at.graph.add_all(Gradients(self.clone()), &[&at.inputs[..SHIFT], &[at.gradient()]].concat())?;
        let (dn, sums) = (gradients[0], &gradients[1..]);
        for (input, &sum) in [4, 3, 5].into_iter().zip(sums) {
            if at.wants(input) {
                at.set(input, sum);
            }
        }
        if at.wants(0) {
            batch_norm_backward::add_data(&self.norm, at, dn, [sums[0], sums[1]])?;
        }
        Ok(())
    }
    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        self.norm.flops(&inputs[..5], &[]) + self.shape(inputs).flops()
    }
}

#[derive(Debug)]
struct RunForward {
    level: Level,
    kernel: Kernel,
    norm: BatchNorm,
    input_len: usize,
    /// Values of scratch memory for what is summed of the outputs; 0 where nothing is.
    moments_len: usize,
}

impl Run for RunForward {
    fn scratch_len(&self, _samples: usize) -> usize {
        self.kernel.scratch_len() + self.moments_len
    }
    fn unit(&self) -> usize {
        self.kernel.unit()
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, scratch: &mut [f32], _at: &At<'_>) {
        let unit = self.unit().max(1);
        let rows = piece.values().start / unit..piece.values().end / unit;
        let norm = self.norm.norm(inputs, 1);
        self.kernel.run_rows(rows, inputs.values(0), &norm, inputs.f32(5), Sums::New(piece.f32().into()), scratch);
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        let (x, norm) = (inputs.values(0), self.norm.norm(inputs, 1));
        // Behind the kernel's, which then begins where all others' does: shifted by less than a page, its stores look like what is read next.
        let (scratch, of_moments) = scratch.split_at_mut(self.kernel.scratch_len());
        let moments = (self.moments_len > 0).then(|| MomentSums::new(self.level, inputs.f32(SHIFT), of_moments));
        let y = outputs[0].f32();
        let (unit, y_len) = (self.unit().max(1), y.len() / at.samples.max(1));
        for (sample, y) in y.chunks_exact_mut(y_len.max(1)).enumerate() {
            let x = x.slice(sample * self.input_len..(sample + 1) * self.input_len);
            let sums = match moments {
                Some(moments) => Sums::Measured(y, moments),
                None => Sums::New(y.into()),
            };
            self.kernel.run_rows(0..y_len / unit, x, &norm, inputs.f32(5), sums, scratch);
        }
        if let Some(moments) = moments {
            moments.finish(outputs[1].f32(), at.accumulate);
        }
    }
}

/// Inputs: x, mean, variance, gamma, beta, kernel, gradient of the output. Outputs: the gradient of normalised x, and those of beta,
/// gamma and kernel.
#[derive(Clone, Debug)]
struct Gradients(NormalizedDepthwise);

impl Op for Gradients {
    fn name(&self) -> &'static str {
        "NormalizedDepthwiseGradients"
    }
    fn reads_bf16(&self, input: usize) -> bool {
        input == 0
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 7..=7)?;
        let channels = inputs[0].channels();
        let sum = || Spec::sum([channels]);
        Ok(vec![inputs[0].clone(), sum(), sum(), Spec::sum(inputs[5].shape.clone())])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunGradients { kernel: Kernel::new(self.0.shape(inputs), level), norm: self.0.norm.clone() })
    }
    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        self.0.norm.flops(&inputs[..5], &[]) + 2 * self.0.shape(inputs).flops()
    }
}

#[derive(Debug)]
struct RunGradients {
    kernel: Kernel,
    norm: BatchNorm,
}

impl Run for RunGradients {
    fn scratch_len(&self, _samples: usize) -> usize {
        self.kernel.backward_scratch_len()
    }
    fn packing(&self) -> Option<(usize, &dyn Packing)> {
        Some((5, &self.kernel))
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        let [dn, dbeta, dgamma, dw] = outputs else { unreachable!("it has four outputs") };
        let to = NormalizedGradients { dn: dn.f32(), dbeta: dbeta.f32(), dgamma: dgamma.f32(), dw: dw.f32() };
        let (x, norm) = (inputs.values(0), self.norm.norm(inputs, 1));
        self.kernel.backward(at.samples, x, &norm, inputs.f32(5), inputs.f32(6), to, at.accumulate, scratch);
    }
}
