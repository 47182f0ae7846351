//! Dropout (Srivastava et al., 2014), scaled in training so that inference needs no change.

use super::sample;
use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Scalars, Spec, Target};
use ocellus_kernels::{Level, dropout};

/// Each value is zero with probability `rate`, else divided by `1 - rate`. For training graphs only.
///
/// Which values are kept depends on the seed, the step and its part, the key and the value's place in the batch, and on nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of zero, in `0..1`.
    pub rate: f32,
    /// Tells the dropout layers of a model apart.
    pub key: u64,
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
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
        let seed = key_of(at.scalars, self.op.key);
        let first = (at.first * self.len) as u64;
        dropout::forward(self.level, self.op.rate, seed, first, inputs.f32(0), outputs[0].f32());
    }
}

/// What a layer's randomness in one batch is keyed by.
pub(super) fn key_of(scalars: &Scalars, key: u64) -> u64 {
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
