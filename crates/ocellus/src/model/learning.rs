//! What learns in an epoch, and which layers do what they do in training: what groups of parameters mean for a model.

use super::Model;
use super::groups::{Groups, Share};
use ocellus_engine::{ParameterId, ParameterKind};
use std::collections::HashMap;

/// How parameters and layers learn in an epoch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Learning {
    shares: HashMap<ParameterId, Share>,
    /// For each layer, whether it does what it does in training.
    pub(super) trains: Vec<bool>,
    /// For each layer, whether anything of it learns by gradient.
    pub(super) learns: Vec<bool>,
}

impl Learning {
    /// How a parameter learns.
    pub(super) fn share(&self, id: ParameterId) -> Share {
        self.shares[&id]
    }
}

impl Model {
    /// How everything learns in an epoch.
    pub(super) fn learning(&self, groups: &Groups, epoch: u64) -> Learning {
        let ids = self.layer_parameters.iter().flatten();
        let shares: HashMap<_, _> = ids.map(|&id| (id, groups.share(id, epoch))).collect();
        let is = |id: &ParameterId, kind| self.parameters.get(*id).kind == kind;
        let count = self.network.nodes.len();
        let (mut trains, mut learns) = (vec![true; count], vec![false; count]);
        let (mut read, mut read_by_learning) = (vec![false; count], vec![false; count]);
        for (layer, ids) in self.layer_parameters.iter().enumerate().rev() {
            let frozen = |id: &ParameterId| !shares[id].learns();
            // A layer without parameters follows those that read it.
            let alive = if ids.is_empty() { !read[layer] || read_by_learning[layer] } else { !ids.iter().all(frozen) };
            for &input in self.network.nodes[layer].inputs.iter().filter(|&&input| input > 0) {
                read[input - 1] = true;
                read_by_learning[input - 1] |= alive;
            }
            let fixed = ids.iter().any(|id| is(id, ParameterKind::Statistic) && frozen(id));
            trains[layer] = alive && !fixed;
            learns[layer] = ids.iter().any(|id| is(id, ParameterKind::Weight) && !frozen(id));
        }
        Learning { shares, trains, learns }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Model, ParameterGroup, groups::tests::net};

    /// The layers that do not do what they do in training, and the layers that learn.
    fn of(model: &Model, patterns: &[&str]) -> [Vec<String>; 2] {
        let groups: Vec<_> = patterns.iter().map(|pattern| ParameterGroup::new(*pattern).frozen()).collect();
        let learning = model.learning(&model.groups(&groups).unwrap(), 0);
        let layers = &model.network.architecture.layers;
        let those = |which: Vec<bool>| {
            layers.iter().zip(which).filter(|(_, is)| *is).map(|(config, _)| config.name.clone()).collect()
        };
        [those(learning.trains.iter().map(|trains| !trains).collect()), those(learning.learns)]
    }

    #[test]
    fn layers_follow_their_parameters_and_readers() {
        let model = net();
        let all = ["stem", "stem_bn", "blocks.0.conv", "blocks.0.bn", "blocks.1.conv", "classifier"];
        for (patterns, still, learn) in [
            (&[][..], &[][..], &all[..]),
            // Of what stands between frozen layers nothing is left out, but before the classifier.
            (
                &["backbone"],
                &["stem", "stem_bn", "pool", "blocks.0.conv", "blocks.0.bn", "inner", "blocks.1.conv"],
                &["classifier"],
            ),
            (&["*/moving_*"], &["stem_bn", "blocks.0.bn"], &all),
            (
                &["stem_bn/gamma", "stem_bn/beta"],
                &[],
                &["stem", "blocks.0.conv", "blocks.0.bn", "blocks.1.conv", "classifier"],
            ),
            (&["stem/kernel"], &[], &all),
            (
                &["blocks.1.conv"],
                &["inner", "blocks.1.conv"],
                &["stem", "stem_bn", "blocks.0.conv", "blocks.0.bn", "classifier"],
            ),
        ] {
            let [found, learning] = of(&model, patterns);
            assert_eq!(found, still, "{patterns:?}");
            assert_eq!(learning, learn, "{patterns:?}");
        }
    }
}
