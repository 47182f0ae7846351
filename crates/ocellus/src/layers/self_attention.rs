//! Tokens that look at each other.

use super::window::shape_text;
use super::{Build, Layer, product};
use ocellus_engine::{GraphError, Value, ops};
use serde::{Deserialize, Serialize};

/// `softmax(q kᵀ / sqrt(width)) v` for each head: every token becomes a mean of all tokens' values, weighted by how well its
/// query meets their keys.
///
/// Input (tokens, 3 * channels): queries, keys and values side by side, as one dense layer makes them; output (tokens,
/// channels). The projection that commonly follows is a [`Dense`](super::Dense) layer of its own.
///
/// Vaswani et al., *Attention is all you need*, 2017.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfAttention {
    /// Parts that the channels are cut into, which look on their own.
    pub num_heads: usize,
}

impl SelfAttention {
    /// So many heads.
    pub fn new(num_heads: usize) -> Self {
        SelfAttention { num_heads }
    }
}

/// More tokens than this would make their weights fill the memory.
const MOST_TOKENS: usize = 1 << 13;

impl Layer for SelfAttention {
    fn class(&self) -> &'static str {
        Self::CLASS
    }

    fn default_name(&self) -> &'static str {
        Self::NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let &[tokens, channels] = inputs[0] else {
            return Err(format!("expected (tokens, channels), received {}", shape_text(inputs[0])));
        };
        if tokens > MOST_TOKENS {
            return Err(format!("expected at most {MOST_TOKENS} tokens, received {tokens}; use larger patches"));
        }
        let parts = self.num_heads.saturating_mul(3);
        if parts == 0 || channels == 0 || !channels.is_multiple_of(parts) {
            return Err(format!(
                "expected channels that 3 times num_heads divides, for queries, keys and values; received {} heads for {}",
                self.num_heads,
                shape_text(inputs[0])
            ));
        }
        Ok(vec![tokens, channels / 3])
    }

    fn build(&self, at: &mut Build<'_>) -> Result<Value, GraphError> {
        at.graph.add(ops::Attention { heads: self.num_heads }, &[at.input()])
    }

    fn work(&self, inputs: &[&[usize]], output: &[usize]) -> u64 {
        self.multiply_adds(inputs, output)
    }

    fn multiply_adds(&self, inputs: &[&[usize]], output: &[usize]) -> u64 {
        // Queries with keys, and weights with values.
        product(output).saturating_mul(2 * inputs[0][0] as u64)
    }
}
