//! Dropout (Srivastava et al., 2014), scaled in training so that inference needs no change; of whole samples it is stochastic depth
//! (Huang et al., *Deep networks with stochastic depth*, 2016).

use super::sample;
use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Scalars, Spec, Target};
use ocellus_kernels::{Level, dropout, elementwise};

/// Each value, or each sample, is zero with probability `rate`, else divided by `1 - rate`. For training graphs only.
///
/// Which are kept depends on the seed, the step and its part, the key and the place in the batch, and on nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of zero, in `0..1`.
    pub rate: f32,
    /// Tells the layers of a model apart.
    pub key: u64,
    /// What is kept or left out as one.
    pub unit: DropoutUnit,
}

/// What [`Dropout`] keeps or leaves out as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropoutUnit {
    /// Each value by itself.
    Value,
    /// All values of a sample, where a branch is left out for it.
    Sample,
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        match self.unit {
            DropoutUnit::Value => "Dropout",
            DropoutUnit::Sample => "StochasticDepth",
        }
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
        Box::new(RunDropout { level, op: self.clone(), len: inputs[0].len() })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        // The same mask again: it is computed from the same key and step.
        let dy = at.gradient();
        let gradient = at.add(self.clone(), &[dy])?;
        at.set(0, gradient);
        Ok(())
    }
}

#[derive(Debug)]
struct RunDropout {
    level: Level,
    op: Dropout,
    len: usize,
}

impl Run for RunDropout {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let (seed, rate) = (key_of(at.scalars, self.op.key), self.op.rate);
        let (x, y) = (inputs.f32(0), outputs[0].f32());
        if self.op.unit == DropoutUnit::Value {
            return dropout::forward(self.level, rate, seed, (at.first * self.len) as u64, x, y);
        }
        for (number, (x, y)) in x.chunks_exact(self.len).zip(y.chunks_exact_mut(self.len)).enumerate() {
            let factor = dropout::sample_factor(rate, seed, (at.first + number) as u64);
            elementwise::scale(self.level, factor, x, y);
        }
    }
}

/// What a layer's randomness in one batch is keyed by.
fn key_of(scalars: &Scalars, key: u64) -> u64 {
    let of_step = mix(mix(mix(scalars.seed) ^ key) ^ scalars.step);
    // The first part's is that of a step that has no others.
    if scalars.part == 0 { of_step } else { mix(of_step ^ scalars.part as u64) }
}

/// SplitMix64's finaliser (Steele, Lea and Flood, 2014): every input bit changes about half of the output's.
fn mix(key: u64) -> u64 {
    let mut z = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_trainings_begun_earlier_stay_what_they_were() {
        let scalars = Scalars { step: 3, seed: 7, ..Scalars::default() };
        assert_eq!(key_of(&scalars, 5), 0xec4f_ee08_8277_bccc);
        assert_eq!(key_of(&Scalars { parts: 4, ..scalars }, 5), 0xec4f_ee08_8277_bccc);
    }
}
