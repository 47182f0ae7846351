//! Layer normalisation (Ba, Kiros and Hinton, 2016) over the last axis.

use super::{count, sample, shared};
use crate::{At, Backward, GraphError, Inputs, Op, Output, Piece, Run, Spec, Target};
use ocellus_kernels::Level;
use ocellus_kernels::layer_norm::{self, LayerNorm as Norm};

/// Inputs: x, gamma, beta. Output: each last axis of x with mean 0 and variance 1, times gamma, plus beta.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// Added to the variance.
    pub epsilon: f32,
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "LayerNorm"
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 3..=3)?;
        sample(inputs[0])?;
        let channels = inputs[0].channels();
        shared("gamma", inputs[1], &[channels])?;
        shared("beta", inputs[2], &[channels])?;
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunForward { level, channels: inputs[0].channels(), epsilon: self.epsilon })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let (x, gamma, dy) = (at.inputs[0], at.inputs[1], at.gradient());
        let gradients = at.graph.add_all(LayerNormBackward { epsilon: self.epsilon }, &[x, gamma, dy])?;
        for (input, gradient) in gradients.into_iter().enumerate() {
            if at.wants(input) {
                at.set(input, gradient);
            }
        }
        Ok(())
    }
    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        8 * inputs[0].len() as u64
    }
}

#[derive(Debug)]
struct RunForward {
    level: Level,
    channels: usize,
    epsilon: f32,
}

impl RunForward {
    fn fill(&self, inputs: &Inputs<'_>, x: &[f32], y: &mut [f32]) {
        let norm = Norm { gamma: inputs.f32(1), epsilon: self.epsilon };
        layer_norm::forward(self.level, &norm, inputs.f32(2), x, y);
    }
}

impl Run for RunForward {
    fn unit(&self) -> usize {
        self.channels
    }
    fn run_piece(&self, inputs: &Inputs<'_>, piece: &mut Piece<'_>, _scratch: &mut [f32], _at: &At<'_>) {
        self.fill(inputs, &inputs.f32(0)[piece.values()], piece.f32());
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], _at: &At<'_>) {
        self.fill(inputs, inputs.f32(0), outputs[0].f32());
    }
}

/// Inputs: x, gamma, dy. Outputs: the gradients of x, of gamma and of beta.
#[derive(Clone, Debug)]
struct LayerNormBackward {
    epsilon: f32,
}

impl Op for LayerNormBackward {
    fn name(&self) -> &'static str {
        "LayerNormBackward"
    }
    fn is_pixelwise(&self, _inputs: &[&Spec]) -> bool {
        true
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        let channels = inputs[0].channels();
        Ok(vec![inputs[0].clone(), Spec::sum([channels]), Spec::sum([channels])])
    }
    fn prepare(&self, _inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunBackward { level, epsilon: self.epsilon })
    }
}

#[derive(Debug)]
struct RunBackward {
    level: Level,
    epsilon: f32,
}

impl Run for RunBackward {
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], _scratch: &mut [f32], at: &At<'_>) {
        let [dx, dgamma, dbeta] = outputs else { unreachable!("it has three outputs") };
        let norm = Norm { gamma: inputs.f32(1), epsilon: self.epsilon };
        let (x, dy) = (inputs.f32(0), inputs.f32(2));
        layer_norm::backward(self.level, &norm, x, dy, dx.f32(), dgamma.f32(), dbeta.f32(), at.accumulate);
    }
}
