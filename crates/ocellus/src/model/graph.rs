//! The model's layers as the engine's graphs and plans: one to train, one to infer, over the same parameters.

use super::distillation::{Distillation, Teacher};
use super::features::Cut;
use super::groups::Share;
use super::learning::Learning;
use super::network::{INPUT, Network};
use super::{Model, ModelError, Precision};
use crate::initializers::name_key;
use crate::layers::Build;
use crate::losses::Loss;
use crate::optimizers::Optimizer;
use ocellus_engine::{
    DType, Fused, Graph, GraphError, Level, ParameterId, ParameterKind, Plan, PlanOptions, Runner, Update, Value,
    fuse_for_inference, fuse_for_training, join_for_inference, ops, quantizable, quantize,
};

/// The layers in a graph.
pub(super) struct Forward {
    pub(super) graph: Graph,
    /// The images, as the layers see them.
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
    /// The model that is learnt from beside the targets.
    pub(super) teacher: Option<Teacher>,
}

/// What a training plan is made of, where that is not the model as it is.
#[derive(Clone, Copy, Default)]
pub(super) struct Basis<'a> {
    /// A network with the same parameters for images of another size.
    pub(super) network: Option<&'a Network>,
    /// Where features that were computed before are the input.
    pub(super) cut: Option<&'a Cut>,
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
    /// Adds all layers to a new graph, as they infer.
    pub(super) fn forward(&self, images: DType) -> Result<Forward, GraphError> {
        self.forward_of(Basis::default(), images, None)
    }

    /// Adds all layers to a new graph, those of a network with the same parameters; with a cut only those that learn, which
    /// begin with the features that the others give; as they infer or as they learn.
    pub(super) fn forward_of(
        &self,
        basis: Basis<'_>,
        images: DType,
        learning: Option<&Learning>,
    ) -> Result<Forward, GraphError> {
        let (network, cut) = (basis.network.unwrap_or(&self.network), basis.cut);
        let mut graph = Graph::new();
        graph.set_place(INPUT);
        let input = match cut {
            Some(cut) => graph.input(&cut.shape, DType::F32),
            None => {
                let pixels = graph.input(network.input_shape(), images);
                self.scaled(&mut graph, pixels, images)?
            }
        };
        let mut forward =
            Forward { graph, input, outputs: Vec::new(), parameters: Vec::new(), moving_averages: Vec::new() };
        for (at, (config, node)) in network.architecture.layers.iter().zip(&network.nodes).enumerate() {
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
                training: learning.is_some_and(|learning| learning.trains[at]),
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
        (images, batch, level): (DType, usize, Level),
        basis: Basis<'_>,
        learning: &Learning,
        distillation: Option<&Distillation<'_>>,
    ) -> Result<(Plan, Value, Value), ModelError> {
        let Forward { mut graph, outputs, parameters, moving_averages, .. } =
            self.forward_of(basis, images, Some(learning))?;
        let output = outputs[outputs.len() - 1];
        let (mut losses, predictions, weight) = add_loss(&mut graph, loss, output)?;
        if let Some(distillation) = distillation {
            losses = distillation.add_to(&mut graph, loss, output, losses)?;
        }
        let total = graph.weighted_mean(losses, weight)?;
        let learns =
            |id: ParameterId| self.parameters.get(id).kind == ParameterKind::Weight && learning.share(id).learns();
        let weights: Vec<(ParameterId, Value)> = parameters.into_iter().filter(|&(id, _)| learns(id)).collect();
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
            let Share { learning_rate, weight_decay } = learning.share(parameter);
            let (rule, rate) = optimizer.rule_of(self.moved(parameter));
            let (rule, decay) = optimizer.with_decay(rule, weight_decay);
            let learning_rate = learning_rate * rate;
            let state = self.optimizer_state(parameter, rule.state_count());
            let (l1, l2) = (penalty.l1, penalty.l2);
            graph.update(Update { parameter, gradient, rule, state, l1, l2, learning_rate, decay });
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
        let Forward { mut graph, outputs, .. } = self.forward_of(Basis { network: None, cut }, images, None)?;
        let mut predictions = outputs[outputs.len() - 1];
        let mut total = None;
        if let Some(loss) = loss {
            let (losses, probabilities, weight) = add_loss(&mut graph, loss, predictions)?;
            total = Some(graph.weighted_mean(losses, weight)?);
            predictions = probabilities;
        }
        let fetched: Vec<Value> = [predictions].into_iter().chain(total).collect();
        let (plan, fetched) = self.finish_inference(&graph, &fetched, batch, level, threads)?;
        Ok((plan, fetched[0], fetched.get(1).copied()))
    }

    /// The plan of a graph that infers, in the model's precision, and where it has the fetched values.
    pub(super) fn finish_inference(
        &self,
        graph: &Graph,
        fetched: &[Value],
        batch: usize,
        level: Level,
        threads: usize,
    ) -> Result<(Plan, Vec<Value>), ModelError> {
        let fused = fuse_for_inference(graph, fetched)?;
        let of = |of: &Fused, fetched: &[Value]| -> Vec<Value> {
            fetched.iter().map(|&value| of.value(value).expect("kept values stay")).collect()
        };
        let fetched = of(&fused, fetched);
        let precision = self.precision.factors();
        let options = PlanOptions { threads, precision, ..PlanOptions::new(batch, level) };
        let made = match self.calibration.as_ref().filter(|_| self.precision == Precision::Int8) {
            None => join_for_inference(&fused.graph, &fetched, precision)?,
            Some(calibration) => quantize(&fused.graph, &fetched, |layer| calibration.ranges.get(layer).copied())?,
        };
        let fetched = of(&made, &fetched);
        Ok((Plan::new(&made.graph, &fetched, options)?, fetched))
    }

    /// The layers as they infer, and what those read that 8-bit arithmetic is for.
    pub(super) fn observed(&self, bytes: bool) -> Result<Observable, GraphError> {
        let images = if bytes { DType::U8 } else { DType::F32 };
        let Forward { graph, outputs, .. } = self.forward(images)?;
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
