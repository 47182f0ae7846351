//! Self-attention of a sample's tokens (Vaswani et al., *Attention is all you need*, 2017).

use super::{count, sample};
use crate::{At, Backward, GraphError, Inputs, Op, Output, Run, Spec, Target};
use ocellus_kernels::Level;
use ocellus_kernels::attention::{self, AttentionShape};

/// `softmax(q kᵀ / sqrt(width)) v` for each head. Input `[tokens, 3 c]`: queries, keys and values side by side, each cut into
/// heads. Output `[tokens, c]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Heads, which do not see each other.
    pub heads: usize,
}

impl Attention {
    fn shape(&self, input: &Spec) -> Result<AttentionShape, String> {
        sample(input)?;
        let [tokens, channels] = input.shape[..] else {
            return Err(format!("expected tokens x channels for each sample, received {input}"));
        };
        if self.heads == 0 || channels == 0 || !channels.is_multiple_of(3 * self.heads) {
            return Err(format!(
                "expected queries, keys and values for {} heads: channels that 3 times the heads divide, received {input}",
                self.heads
            ));
        }
        Ok(AttentionShape { tokens, heads: self.heads, width: channels / 3 / self.heads })
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "Attention"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        count(inputs, 1..=1)?;
        let shape = self.shape(inputs[0])?;
        Ok(vec![Spec::sample([shape.tokens, shape.heads * shape.width])])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunForward { level, shape: self.shape(inputs[0]).expect("checked when the node was added") })
    }
    fn gradient(&self, at: &mut Backward<'_>) -> Result<(), GraphError> {
        let (qkv, dy) = (at.inputs[0], at.gradient());
        let gradient = at.add(AttentionBackward(self.clone()), &[qkv, dy])?;
        at.set(0, gradient);
        Ok(())
    }
    fn flops(&self, inputs: &[&Spec], _outputs: &[&Spec]) -> u64 {
        self.shape(inputs[0]).map_or(0, |shape| 4 * (shape.tokens * shape.tokens * shape.heads * shape.width) as u64)
    }
}

#[derive(Debug)]
struct RunForward {
    level: Level,
    shape: AttentionShape,
}

impl Run for RunForward {
    fn scratch_len(&self, _samples: usize) -> usize {
        self.shape.forward_scratch(self.level)
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        attention::forward(self.level, &self.shape, at.samples, inputs.f32(0), outputs[0].f32(), scratch);
    }
}

/// Inputs: queries, keys and values; gradient of the output. Output: gradient of the former.
#[derive(Clone, Debug)]
struct AttentionBackward(Attention);

impl Op for AttentionBackward {
    fn name(&self) -> &'static str {
        "AttentionBackward"
    }
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>, String> {
        Ok(vec![inputs[0].clone()])
    }
    fn prepare(&self, inputs: &[&Spec], _outputs: &[&Spec], Target { level, .. }: Target) -> Box<dyn Run> {
        Box::new(RunBackward { level, shape: self.0.shape(inputs[0]).expect("checked when the node was added") })
    }
    fn flops(&self, inputs: &[&Spec], outputs: &[&Spec]) -> u64 {
        self.0.flops(inputs, outputs) * 5 / 2
    }
}

#[derive(Debug)]
struct RunBackward {
    level: Level,
    shape: AttentionShape,
}

impl Run for RunBackward {
    fn scratch_len(&self, _samples: usize) -> usize {
        self.shape.backward_scratch(self.level)
    }
    fn run(&self, inputs: &Inputs<'_>, outputs: &mut [Output], scratch: &mut [f32], at: &At<'_>) {
        let (qkv, dy, dqkv) = (inputs.f32(0), inputs.f32(1), outputs[0].f32());
        attention::backward(self.level, &self.shape, at.samples, qkv, dy, dqkv, scratch);
    }
}
