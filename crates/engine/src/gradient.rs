//! Reverse-mode differentiation: from the total loss backwards, each node adds the nodes of its gradient.

use crate::ops::Add;
use crate::{Backward, Graph, GraphError, Value};

impl Graph {
    /// Adds the gradients of `total` with respect to each of `wrt`; `None` where it does not depend on one.
    ///
    /// `total` is a mean over the batch (see [`Graph::weighted_mean`]). The gradient of a parameter is a sum over samples.
    ///
    /// # Errors
    /// Where the path leads through an operation without gradient.
    pub fn gradients(&mut self, total: Value, wrt: &[Value]) -> Result<Vec<Option<Value>>, GraphError> {
        let forward = self.nodes.len();
        let mut depends = vec![false; self.values.len()];
        for value in wrt {
            depends[value.index()] = true;
        }
        for node in &self.nodes {
            if node.inputs.iter().any(|v| depends[v.index()]) {
                node.outputs.iter().for_each(|v| depends[v.index()] = true);
            }
        }
        let mut gradients: Vec<Option<Value>> = vec![None; self.values.len()];
        for index in (0..forward).rev() {
            let node = self.nodes[index].clone();
            let incoming: Vec<Option<Value>> = node.outputs.iter().map(|v| gradients[v.index()]).collect();
            let reached = incoming.iter().any(Option::is_some) || node.outputs.contains(&total);
            let wanted: Vec<bool> = node.inputs.iter().map(|v| depends[v.index()]).collect();
            if !reached || !wanted.contains(&true) {
                continue;
            }
            self.set_place(node.place.clone());
            let mut backward = Backward {
                graph: self,
                inputs: &node.inputs,
                outputs: &node.outputs,
                gradients: &incoming,
                wanted: &wanted,
                results: vec![None; node.inputs.len()],
                place: &node.place,
            };
            node.op.gradient(&mut backward)?;
            let results = backward.results;
            for (input, result) in node.inputs.iter().zip(results) {
                let Some(result) = result else { continue };
                let slot = input.index();
                gradients[slot] = Some(match gradients[slot] {
                    Some(other) => self.add(Add, &[other, result])?,
                    None => result,
                });
            }
        }
        Ok(wrt.iter().map(|v| gradients[v.index()]).collect())
    }
}
