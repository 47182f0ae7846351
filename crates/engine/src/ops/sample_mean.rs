//! From a loss for each sample to the total loss, and back.

use super::sample;
use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Spec, Target};

/// Inputs: a scalar for each sample, and its weight. Output: `Σ weight·scalar / batch`.
///
/// Keras divides by the number of samples, not by the sum of their weights; so does this.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleMean;

impl Op for SampleMean {
    fn name(&self) -> &'static str {
        "SampleMean"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        super::count(inputs, 2..=2)?;
        for spec in inputs {
            sample(spec)?;
            if spec.len() != 1 {
                return Err(format!("expected one number for each sample, received {spec}"));
            }
        }
        Ok(vec![Spec::sum([1])])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunMean)
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let weight = at.inputs[1];
        let gradient = at.add(Seed, &[weight])?;
        at.set(0, gradient);
        Ok(())
    }
}

#[derive(Debug)]
struct RunMean;

impl Run for RunMean {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let terms = inputs.f32(0).iter().zip(inputs.f32(1));
        let sum: f64 = terms.map(|(&value, &weight)| f64::from(value) * f64::from(weight)).sum();
        let mean = (sum / at.batch as f64) as f32;
        let total = &mut outputs[0].f32()[0];
        *total = if at.accumulate { *total + mean } else { mean };
    }
}

/// Input: weights. Output: the gradient of the total by each sample's scalar, `weight / batch`.
#[derive(Clone, Debug)]
struct Seed;

impl Op for Seed {
    fn name(&self) -> &'static str {
        "Seed"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], _target: Target) -> Box<dyn Run> {
        Box::new(RunSeed)
    }
}

#[derive(Debug)]
struct RunSeed;

impl Run for RunSeed {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let share = 1.0 / at.batch as f32;
        for (seed, weight) in outputs[0].f32().iter_mut().zip(inputs.f32(0)) {
            *seed = weight * share;
        }
    }
}
