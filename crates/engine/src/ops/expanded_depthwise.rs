//! A 1x1 convolution and the depthwise convolution behind it as one operation, for inference: what is between them never leaves the cache.

use super::{Conv2d, count, shared};
use crate::{At, Inputs, Op, Output, Piece, Run, Spec, Target};
use ocellus_kernels::Packing;
use ocellus_kernels::conv::{ConvWeights, Epilogue, ExpandedDepthwise as Kernel};

/// Inputs: image, kernel and bias of the 1x1 convolution, kernel and bias of the depthwise one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExpandedDepthwise {
    /// The 1x1 convolution.
    pub(crate) expand: Conv2d,
    /// The depthwise one.
    pub(crate) depthwise: Conv2d,
}

impl ExpandedDepthwise {
    /// Whether there is something to gain from joining them.
    pub(crate) fn suits(&self, inputs: &[&Spec]) -> bool {
        let expand = self.expand.shape(inputs[0], inputs[1]);
        let shapes = expand.and_then(|expand| {
            let between = Spec::sample(expand.output());
            Ok((expand, self.depthwise.shape(&between, inputs[3])?))
        });
        shapes.is_ok_and(|(expand, depthwise)| Kernel::suits(&expand, &depthwise))
    }
}

impl Op for ExpandedDepthwise {
    fn name(&self) -> &'static str {
        "ExpandedDepthwise"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 5..=5)?;
        let expand = self.expand.shape(inputs[0], inputs[1])?;
        let depthwise = self.depthwise.shape(&Spec::sample(expand.output()), inputs[3])?;
        shared("bias", inputs[2], &[expand.filters])?;
        shared("bias", inputs[4], &[depthwise.filters])?;
        if !Kernel::suits(&expand, &depthwise) {
            return Err("expected a 1x1 convolution and a depthwise one that gain from each other".to_owned());
        }
        Ok(vec![Spec::sample(depthwise.output())])
    }

    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        let expand = self.expand.shape(inputs[0], inputs[1]).expect("checked when the node was added");
        let between = Spec::sample(expand.output());
        let depthwise = self.depthwise.shape(&between, inputs[3]).expect("checked when the node was added");
        let epilogues = [self.expand.epilogue, self.depthwise.epilogue];
        Box::new(RunExpanded { kernel: Kernel::new(expand, depthwise, level), epilogues })
    }

    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        let expand = self.expand.shape(inputs[0], inputs[1]);
        expand.map_or(0, |expand| {
            let depthwise = self.depthwise.shape(&Spec::sample(expand.output()), inputs[3]);
            expand.flops() + depthwise.map_or(0, |depthwise| depthwise.flops())
        })
    }
}

#[derive(Debug)]
struct RunExpanded {
    kernel: Kernel,
    epilogues: [Epilogue; 2],
}

impl RunExpanded {
    fn weights<'a>(&self, inputs: &Inputs<'a>) -> [ConvWeights<'a>; 2] {
        [(1, 0), (3, 1)].map(|(n, which)| ConvWeights {
            packed: inputs.f32(n),
            bias: Some(inputs.f32(n + 1)),
            epilogue: self.epilogues[which],
        })
    }
}

impl Run for RunExpanded {
    fn scratch_len(&self, _samples: usize) -> usize {
        self.kernel.scratch_len()
    }
    fn packing(&self) -> Option<(usize, &dyn Packing)> {
        Some((1, &self.kernel))
    }
    fn unit(&self) -> usize {
        self.kernel.unit()
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, scratch: &mut [f32], _at: &At<'_>) {
        let ([expand, depthwise], unit) = (self.weights(inputs), self.unit().max(1));
        let rows = piece.values().start / unit..piece.values().end / unit;
        self.kernel.run_rows(rows, inputs.f32(0), expand, depthwise, piece.f32(), scratch);
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        let [expand, depthwise] = self.weights(inputs);
        self.kernel.run(at.samples, inputs.f32(0), expand, depthwise, outputs[0].f32(), scratch);
    }
}
