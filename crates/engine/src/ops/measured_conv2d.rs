//! Convolution before batch normalisation, for training: what [`Moments`](super::Moments) would read again is summed while it is in the
//! first-level cache.

use super::conv2d::{RunForward, convolution_gradient};
use super::{Conv2d, Epilogue, count, shared};
use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Spec, Target};
use ocellus_kernels::batch_norm::{self, MomentSums};
use ocellus_kernels::conv::{Extent, Forward, Sums};
use ocellus_kernels::{Level, Packing, Values, ValuesMut};

/// Inputs: image, kernel, optionally bias, shift `[filters]`. Outputs: the convolution, and the sums of what it differs from the shift by and of
/// the square of that, `[2 filters]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MeasuredConv2d(pub(crate) Conv2d);

impl Op for MeasuredConv2d {
    fn name(&self) -> &'static str {
        "Conv2d+Moments"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 3..=4)?;
        let [of_conv @ .., shift] = inputs else { unreachable!("counted") };
        let mut outputs = self.0.outputs(of_conv)?;
        let filters = outputs[0].channels();
        shared("moving mean", shift, &[filters])?;
        outputs.push(Spec::sum([2 * filters]));
        Ok(outputs)
    }

    fn prepare(&self, inputs: &[&Spec], outputs: &[&Spec], Target { level, precision }: Target) -> Box<dyn Run> {
        let shape = self.0.shape(inputs[0], inputs[1]).expect("checked when the node was added");
        let (kernel, bias) = (Forward::new(shape, level, precision), inputs.len() == 4);
        let forward = RunForward { kernel, bias, epilogue: Epilogue::Linear, shortcut: None };
        Box::new(RunMeasured { forward, level, filters: outputs[0].channels() })
    }

    fn is_pixelwise(&self, inputs: &[&Spec]) -> bool {
        self.0.is_pixelwise(inputs)
    }

    fn writes_bf16(&self, inputs: &[&Spec], output: usize) -> bool {
        output == 0 && self.0.writes_bf16(inputs, output)
    }

    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let shape = self.0.shape(at.graph.spec(at.inputs[0]), at.graph.spec(at.inputs[1]));
        // The gradient through the sums is part of batch normalisation's own, and the shift moves nothing.
        at.wanted = &at.wanted[..at.inputs.len() - 1];
        convolution_gradient(at, shape.expect("checked when the node was added"), Epilogue::Linear)
    }

    fn flops(&self, inputs: &[&Spec], outputs: &[&Spec]) -> u64 {
        self.0.flops(inputs, outputs)
    }
}

#[derive(Debug)]
struct RunMeasured {
    forward: RunForward,
    level: Level,
    filters: usize,
}

impl Run for RunMeasured {
    fn scratch_len(&self, samples: usize) -> usize {
        self.forward.scratch_len(samples) + MomentSums::scratch_len(self.level, self.filters)
    }
    fn packing(&self) -> Option<(usize, &dyn Packing)> {
        self.forward.packing()
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        let [y, sums] = outputs else { unreachable!("it has two outputs") };
        let shift = inputs.f32(2 + usize::from(self.forward.bias));
        let (x, weights, extent) = (inputs.f32(0), self.forward.weights(inputs), Extent::Samples(at.samples));
        // Behind the kernel's, which then begins where all others' does.
        let (scratch, of_moments) = scratch.split_at_mut(self.forward.scratch_len(at.samples));
        match y.values() {
            ValuesMut::F32(y) => {
                let moments = MomentSums::new(self.level, shift, of_moments);
                self.forward.kernel.run(extent, x, weights, Sums::Measured(y, moments), scratch);
                moments.finish(sums.f32(), at.accumulate);
            }
            ValuesMut::Bf16(y) => {
                self.forward.kernel.run(extent, x, weights, Sums::New(ValuesMut::Bf16(&mut *y)), scratch);
                batch_norm::moments(self.level, self.filters, Values::Bf16(y), shift, sums.f32(), at.accumulate);
            }
        }
    }
}
