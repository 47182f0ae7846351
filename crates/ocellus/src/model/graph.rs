//! The model's layers as the engine's graphs and plans: one to train, one to infer, over the same parameters.

use super::features::Cut;
use super::network::INPUT;
use super::{Model, ModelError, Precision};
use crate::initializers::name_key;
use crate::layers::Build;
use crate::losses::Loss;
use crate::optimizers::Optimizer;
use ocellus_engine::{
    DType, Graph, GraphError, Level, ParameterId, Plan, PlanOptions, Runner, Update, Value, fuse_for_inference,
    fuse_for_training, ops, quantizable, quantize,
};

/// The layers in a graph.
pub(super) struct Forward {
    pub(super) graph: Graph,
    /// The images, as the layers see them.
    #[cfg(test)]
    pub(super) input: Value,
    /// Every layer's output, in order.
    pub(super) outputs: Vec<Value>,
    /// Every parameter with its value.
    pub(super) parameters: Vec<(ParameterId, Value)>,
    pub(super) moving_averages: Vec<(ParameterId, Value, f32)>,
}

/// A plan that trains, with its memory.
pub(super) struct Training {
    pub(super) runner: Runner,
    pub(super) total: Value,
    pub(super) predictions: Value,
}

/// A plan that infers, with its memory.
pub(super) struct Inference {
    pub(super) runner: Runner,
    /// What the model gives, or with a loss the probabilities to measure by.
    pub(super) predictions: Value,
    /// The mean loss, where there is a loss.
    pub(super) total: Option<Value>,
}

impl Model {
    /// Adds all layers to a new graph.
    pub(super) fn forward(&self, images: DType, training: bool) -> Result<Forward, GraphError> {
        self.forward_from(None, images, training)
    }

    /// Adds all layers to a new graph, or with a cut those that learn, which begin with the features that the others give.
    pub(super) fn forward_from(&self, cut: Option<&Cut>, images: DType, training: bool) -> Result<Forward, GraphError> {
        let learns = self.layers_that_learn();
        let mut graph = Graph::new();
        graph.set_place(INPUT);
        let input = match cut {
            Some(cut) => graph.input(&cut.shape, DType::F32),
            None => {
                let pixels = graph.input(self.network.input_shape(), images);
                self.scaled(&mut graph, pixels, images)?
            }
        };
        let mut forward = Forward {
            graph,
            #[cfg(test)]
            input,
            outputs: Vec::new(),
            parameters: Vec::new(),
            moving_averages: Vec::new(),
        };
        for (at, (config, node)) in self.network.architecture.layers.iter().zip(&self.network.nodes).enumerate() {
            if cut.is_some_and(|cut| cut.before[at]) {
                // Of these only the features are read.
                forward.outputs.push(input);
                continue;
            }
            let graph = &mut forward.graph;
            graph.set_place(config.name.clone());
            let inputs: Vec<Value> =
                node.inputs.iter().map(|&n| n.checked_sub(1).map_or(input, |n| forward.outputs[n])).collect();
            let ids = self.layer_parameters[at].iter().zip(&node.parameters);
            let parameters: Vec<(ParameterId, Value)> =
                ids.map(|(&id, spec)| (id, graph.parameter(id, &spec.shape))).collect();
            let mut build = Build {
                graph,
                inputs: &inputs,
                parameters: &parameters,
                training: training && learns[at],
                key: name_key(&config.name),
                moving_averages: Vec::new(),
            };
            let output = config.layer.build(&mut build)?;
            forward.moving_averages.append(&mut build.moving_averages);
            forward.outputs.push(output);
            forward.parameters.extend(parameters);
        }
        if forward.graph.nodes().iter().all(|node| node.op.is_view())
            && let Some(output) = forward.outputs.last_mut()
        {
            // Layers that compute nothing; what is fetched must be computed.
            *output = forward.graph.add(ops::Affine { scale: vec![1.0], offset: vec![0.0] }, &[*output])?;
        }
        Ok(forward)
    }

    /// Brings bytes into the range that the layers expect. Numbers are taken as they are.
    fn scaled(&self, graph: &mut Graph, pixels: Value, images: DType) -> Result<Value, GraphError> {
        let (scale, offset) = (self.preprocessing.scale, self.preprocessing.offset);
        let as_they_are = scale == 1.0 && offset == 0.0 && self.network.takes_pixels();
        match images {
            DType::F32 | DType::Bf16 => Ok(pixels),
            DType::U8 if as_they_are => Ok(pixels),
            DType::U8 => graph.add(ops::Affine { scale: vec![scale], offset: vec![offset] }, &[pixels]),
        }
    }

    /// The plan that trains: forward, loss, gradients and updates.
    pub(super) fn training_plan(
        &self,
        optimizer: &Optimizer,
        loss: &Loss,
        cut: Option<&Cut>,
        images: DType,
        batch: usize,
        level: Level,
    ) -> Result<(Plan, Value, Value), ModelError> {
        let Forward { mut graph, outputs, parameters, moving_averages, .. } = self.forward_from(cut, images, true)?;
        let (losses, predictions, weight) = add_loss(&mut graph, loss, outputs[outputs.len() - 1])?;
        let total = graph.weighted_mean(losses, weight)?;
        let weights: Vec<(ParameterId, Value)> =
            parameters.into_iter().filter(|&(id, _)| self.is_learned(id)).collect();
        let learned: Vec<Value> = weights.iter().map(|&(_, value)| value).collect();
        let means = moving_averages.iter().map(|&(_, value, _)| value);
        let kept: Vec<Value> = [total, predictions].into_iter().chain(learned.iter().copied()).chain(means).collect();
        let fused = fuse_for_training(&graph, &kept, &learned)?;
        let of = |value: Value| fused.value(value).expect("kept values stay");
        let mut graph = fused.graph.clone();
        let (total, predictions) = (of(total), of(predictions));
        let values: Vec<Value> = weights.iter().map(|&(_, value)| of(value)).collect();
        let gradients = graph.gradients(total, &values)?;
        for (&(parameter, _), gradient) in weights.iter().zip(gradients) {
            // A weight that the loss does not depend on stays as it is.
            let Some(gradient) = gradient else { continue };
            let penalty = self.regularizer(parameter);
            let rule = optimizer.rule();
            let state = self.optimizer_state(parameter, rule.state_count());
            let rate = self.rate(parameter);
            graph.update(Update { parameter, gradient, rule, state, l1: penalty.l1, l2: penalty.l2, rate });
        }
        for (parameter, value, momentum) in moving_averages {
            graph.moving_average(parameter, of(value), momentum);
        }
        graph.set_clip(optimizer.clip());
        let options =
            PlanOptions { guard: Some(total), precision: self.precision.factors(), ..PlanOptions::new(batch, level) };
        Ok((Plan::new(&graph, &[total, predictions], options)?, total, predictions))
    }

    /// The plan that infers, with the mean loss where one is given.
    pub(super) fn inference_plan(
        &self,
        loss: Option<&Loss>,
        images: DType,
        batch: usize,
        level: Level,
        threads: usize,
    ) -> Result<(Plan, Value, Option<Value>), ModelError> {
        self.inference_plan_from(None, loss, images, batch, level, threads)
    }

    /// The plan that infers from the features that a cut's layers give.
    pub(super) fn inference_plan_from(
        &self,
        cut: Option<&Cut>,
        loss: Option<&Loss>,
        images: DType,
        batch: usize,
        level: Level,
        threads: usize,
    ) -> Result<(Plan, Value, Option<Value>), ModelError> {
        let Forward { mut graph, outputs, .. } = self.forward_from(cut, images, false)?;
        let mut predictions = outputs[outputs.len() - 1];
        let mut total = None;
        if let Some(loss) = loss {
            let (losses, probabilities, weight) = add_loss(&mut graph, loss, predictions)?;
            total = Some(graph.weighted_mean(losses, weight)?);
            predictions = probabilities;
        }
        let fetched: Vec<Value> = [predictions].into_iter().chain(total).collect();
        let fused = fuse_for_inference(&graph, &fetched)?;
        let of = |value: Value| fused.value(value).expect("kept values stay");
        let (predictions, total) = (of(predictions), total.map(of));
        let fetched: Vec<Value> = [predictions].into_iter().chain(total).collect();
        let precision = self.precision.factors();
        let options = PlanOptions { threads, precision, ..PlanOptions::new(batch, level) };
        let Some(calibration) = self.calibration.as_ref().filter(|_| self.precision == Precision::Int8) else {
            return Ok((Plan::new(&fused.graph, &fetched, options)?, predictions, total));
        };
        let quantized = quantize(&fused.graph, &fetched, |layer| calibration.ranges.get(layer).copied())?;
        let of = |value: Value| quantized.value(value).expect("kept values stay");
        let fetched: Vec<Value> = fetched.into_iter().map(of).collect();
        Ok((Plan::new(&quantized.graph, &fetched, options)?, of(predictions), total.map(of)))
    }

    /// The layers as they infer, and what those read that 8-bit arithmetic is for.
    pub(super) fn observed(&self, bytes: bool) -> Result<Observable, GraphError> {
        let images = if bytes { DType::U8 } else { DType::F32 };
        let Forward { graph, outputs, .. } = self.forward(images, false)?;
        let output = outputs[outputs.len() - 1];
        let fused = fuse_for_inference(&graph, &[output])?;
        let output = fused.value(output).expect("kept values stay");
        let made = |value: Value| fused.graph.nodes().iter().any(|node| node.outputs.contains(&value));
        let inputs = quantizable(&fused.graph).into_iter().map(|(name, value)| ObservedInput {
            name: name.to_owned(),
            value: made(value).then_some(value),
            len: fused.graph.spec(value).len(),
        });
        Ok(Observable { inputs: inputs.collect(), output, graph: fused.graph })
    }

    /// The plan that computes what layers read.
    pub(super) fn observing_plan(
        &self,
        observable: Observable,
        batch: usize,
        level: Level,
    ) -> Result<Observed, GraphError> {
        let Observable { graph, inputs, output } = observable;
        let fetched: Vec<Value> = inputs.iter().filter_map(|input| input.value).chain([output]).collect();
        Ok(Observed { plan: Plan::new(&graph, &fetched, PlanOptions::new(batch, level))?, inputs })
    }
}

/// A layer and what it reads.
pub(super) struct ObservedInput {
    pub(super) name: String,
    /// `None` where that is the model's own input.
    pub(super) value: Option<Value>,
    /// Numbers for each sample.
    pub(super) len: usize,
}

/// A graph and the inputs of its layers.
pub(super) struct Observable {
    graph: Graph,
    inputs: Vec<ObservedInput>,
    output: Value,
}

impl Observable {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(|input| input.name.as_str())
    }

    /// Numbers in all inputs for each sample.
    pub(super) fn values(&self) -> usize {
        self.inputs.iter().map(|input| input.len).sum()
    }
}

/// A plan that computes the inputs of layers.
pub(super) struct Observed {
    pub(super) plan: Plan,
    pub(super) inputs: Vec<ObservedInput>,
}

/// Adds targets, weights and the loss: gives loss and probabilities of each sample, and the weights.
pub(super) fn add_loss(graph: &mut Graph, loss: &Loss, output: Value) -> Result<(Value, Value, Value), GraphError> {
    graph.set_place("loss");
    let shape = graph.shape(output).to_vec();
    let target = graph.input(&shape, DType::F32);
    let weight = graph.input(&[1], DType::F32);
    let (losses, predictions) = loss.add_to(graph, output, target)?;
    Ok((losses, predictions, weight))
}
