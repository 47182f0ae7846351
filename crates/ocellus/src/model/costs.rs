//! What each layer costs: parameters, multiply-adds, values.

use super::network::{LayerError, Network};
use super::{Architecture, Model};
use crate::layers::product;
use ocellus_engine::ParameterKind;

/// What a layer costs for one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerCosts {
    /// The layer's name.
    pub name: String,
    /// Its type: `Conv2d`.
    pub class: &'static str,
    /// The names of its inputs; `input` is the model's own.
    pub inputs: Vec<String>,
    /// Shape of its output.
    pub output_shape: Vec<usize>,
    /// Numbers that are learned by gradient.
    pub learned: u64,
    /// Numbers that follow the data, such as moving averages.
    pub statistics: u64,
    /// Multiplications with an addition each, forward (see [`Layer::multiply_adds`](crate::layers::Layer::multiply_adds)).
    pub multiply_adds: u64,
}

impl LayerCosts {
    /// Numbers in all its parameters.
    pub fn parameters(&self) -> u64 {
        self.learned + self.statistics
    }

    /// Numbers in its output.
    pub fn values(&self) -> u64 {
        product(&self.output_shape)
    }
}

impl Architecture {
    /// What each layer costs for one sample, without making the weights.
    ///
    /// ```
    /// let architecture = ocellus::models::find("resnet50").unwrap().architecture([224, 224, 3], 1000)?;
    /// let costs = architecture.costs()?;
    /// assert_eq!(costs.iter().map(|layer| layer.learned).sum::<u64>(), 25_557_032);
    /// assert_eq!(costs.iter().map(|layer| layer.multiply_adds).sum::<u64>(), 4_089_184_256);
    /// # Ok::<(), ocellus::model::LayerError>(())
    /// ```
    ///
    /// # Errors
    /// The first layer that does not fit, and why.
    pub fn costs(&self) -> Result<Vec<LayerCosts>, LayerError> {
        Ok(self.clone().check()?.costs())
    }
}

impl Model {
    /// What each layer costs for one sample, in the model's order.
    pub fn costs(&self) -> Vec<LayerCosts> {
        self.network.costs()
    }

    /// Multiply-adds for one sample, forward: what publications call FLOPs or MACs.
    pub fn multiply_adds(&self) -> u64 {
        self.costs().iter().map(|layer| layer.multiply_adds).sum()
    }
}

impl Network {
    fn costs(&self) -> Vec<LayerCosts> {
        let layers = self.architecture.layers.iter().zip(&self.nodes).map(|(config, node)| {
            let inputs: Vec<&[usize]> = node.inputs.iter().map(|&at| self.shape_at(at)).collect();
            let count = |kind: ParameterKind| {
                node.parameters.iter().filter(|p| p.kind == kind).map(|p| product(&p.shape)).sum::<u64>()
            };
            LayerCosts {
                name: config.name.clone(),
                class: config.layer.class(),
                inputs: config.inputs.clone(),
                output_shape: node.output_shape.clone(),
                learned: count(ParameterKind::Weight),
                statistics: count(ParameterKind::Statistic),
                multiply_adds: config.layer.multiply_adds(&inputs, &node.output_shape),
            }
        });
        layers.collect()
    }
}
