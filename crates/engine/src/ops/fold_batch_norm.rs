//! Batch normalisation folded into the weights before it, for inference.
//!
//! `gamma * (x·w + b - mean) / sqrt(variance + epsilon) + beta` is a convolution again, with `w' = w * s` and
//! `b' = (b - mean) * s + beta`, where `s = gamma / sqrt(variance + epsilon)` for each filter.

use crate::{At, Inputs, Op, Output, Run, Spec, Target};

/// Inputs: kernel `[.., filters]`, mean, variance, gamma, beta, optionally bias. Outputs: kernel and bias.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FoldBatchNorm {
    pub(crate) epsilon: f32,
}

impl Op for FoldBatchNorm {
    fn name(&self) -> &'static str {
        "FoldBatchNorm"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 5..=6)?;
        let filters = inputs[0].channels();
        for spec in &inputs[1..] {
            super::shared("value for each filter", spec, &[filters])?;
        }
        Ok(vec![inputs[0].clone(), Spec::shared([filters])])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunFold { epsilon: self.epsilon, filters: inputs[0].channels() })
    }
}

#[derive(Debug)]
struct RunFold {
    epsilon: f32,
    filters: usize,
}

impl Run for RunFold {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        let [folded, bias] = outputs else { unreachable!("it has two outputs") };
        let (kernel, mean, variance) = (inputs.f32(0), inputs.f32(1), inputs.f32(2));
        let (gamma, beta) = (inputs.f32(3), inputs.f32(4));
        let scale = |o: usize| gamma[o] / (variance[o] + self.epsilon).sqrt();
        let before = |o: usize| if inputs.len() == 6 { inputs.f32(5)[o] } else { 0.0 };
        for (o, bias) in bias.f32().iter_mut().enumerate() {
            *bias = (before(o) - mean[o]) * scale(o) + beta[o];
        }
        for o in 0..self.filters {
            let scale = scale(o);
            let row = folded.f32().iter_mut().zip(kernel).skip(o).step_by(self.filters);
            row.for_each(|(folded, weight)| *folded = weight * scale);
        }
    }
}
