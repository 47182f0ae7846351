//! Where the samples of an inference plan had better go on together. A deep net's first layers have large images and few weights:
//! one sample is as much as stays in the cache. Its last ones have small images, but weights that no cache holds, which come
//! from memory once more for each sample unless several share them. So the last layers become a stage of their own.

use super::PlanOptions;
use super::recompute::Known;
use crate::{Node, Role, Value};

/// Most samples that share the weights.
const MOST_TOGETHER: usize = 8;
/// What a byte of a sample costs that leaves the cache, in bytes of weights: it is written and read again.
const SAMPLE_COST: usize = 2;

/// The samples that go through the last layers together, and for each node the stage that it must not run before; `None`
/// where that saves little, or something is summed over samples.
pub(super) fn late(known: &Known<'_>, options: &PlanOptions) -> Option<(usize, Vec<usize>)> {
    let graph = known.graph;
    let together = options.batch.div_ceil(options.threads.max(1)).min(MOST_TOGETHER);
    let sums = |node: &Node| node.outputs.iter().any(|&v| graph.spec(v).role == Role::Sum);
    let one_stage = known.node_stage.iter().all(|&stage| stage <= 1);
    if together < 2 || !one_stage || graph.nodes.iter().any(sums) {
        return None;
    }
    let bytes = |values: &[Value], role: Role| -> usize {
        let specs = values.iter().map(|&v| graph.spec(v)).filter(|spec| spec.role == role);
        specs.map(|spec| spec.len() * spec.dtype.bytes()).sum()
    };
    // From the last node back: what is saved for a sample where all from here on is late.
    let (mut saved, mut most, mut first) = (0, isize::try_from(options.late_above).unwrap_or(isize::MAX), None);
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if !known.needed[index] || known.node_stage[index] == 0 || node.op.is_view() {
            continue;
        }
        let weights = bytes(&node.inputs, Role::Shared);
        let touched = bytes(&node.inputs, Role::Sample) + bytes(&node.outputs, Role::Sample);
        let leaving = if together * touched > options.group_bytes { touched } else { 0 };
        saved += (weights - weights / together) as isize - (SAMPLE_COST * leaving) as isize;
        if saved >= most {
            (most, first) = (saved, Some(index));
        }
    }
    let first = first?;
    let stage = |index: usize| if index >= first && known.node_stage[index] > 0 { 2 } else { 0 };
    Some((together, (0..graph.nodes.len()).map(stage).collect()))
}
