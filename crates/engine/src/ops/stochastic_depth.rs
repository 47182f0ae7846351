//! Stochastic depth (Huang et al., *Deep networks with stochastic depth*, 2016): whole samples left out of a branch.

use super::{dropout::key_of, sample};
use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Spec, Target};
use ocellus_kernels::{Level, dropout, elementwise};

/// Each sample is zero with probability `rate`, else divided by `1 - rate`. For training graphs only.
///
/// Which samples are kept depends on the seed, the step and its part, the key and the sample's place in the batch, and on nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct StochasticDepth {
    /// Probability of zero, in `0..1`.
    pub rate: f32,
    /// Tells the layers of a model apart.
    pub key: u64,
}

impl Op for StochasticDepth {
    fn name(&self) -> &'static str {
        "StochasticDepth"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 1..=1)?;
        sample(inputs[0])?;
        if !(0.0..1.0).contains(&self.rate) {
            return Err(format!("expected a rate of at least 0 and below 1, received {}", self.rate));
        }
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunDepth { level, op: self.clone(), len: inputs[0].len() })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        // The same samples again: they follow from the same key and step.
        let dy = at.gradient();
        let gradient = at.add(self.clone(), &[dy])?;
        at.set(0, gradient);
        Ok(())
    }
}

#[derive(Debug)]
struct RunDepth {
    level: Level,
    op: StochasticDepth,
    len: usize,
}

impl Run for RunDepth {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let seed = key_of(at.scalars, self.op.key);
        let samples = inputs.f32(0).chunks_exact(self.len).zip(outputs[0].f32().chunks_exact_mut(self.len));
        for (number, (x, y)) in samples.enumerate() {
            let factor = dropout::sample_factor(self.op.rate, seed, (at.first + number) as u64);
            elementwise::scale(self.level, factor, x, y);
        }
    }
}
