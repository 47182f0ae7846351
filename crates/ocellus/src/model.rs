//! A model: layers, their weights, and what is needed to train it, use it and keep it.

mod averaging;
mod backup;
mod batches;
mod calibration;
mod costs;
mod distillation;
mod error;
mod evaluate;
mod features;
mod file;
mod fit;
mod golden;
mod graph;
mod groups;
mod learning;
mod network;
mod options;
mod predict;
mod range_test;
mod record;
#[cfg(test)]
mod reference_tests;
mod resizing;
mod samples;
mod sequential;
mod summary;
mod tensor;
mod views;
mod weights;
mod whitening;
mod without_classes;

pub use averaging::Averaging;
pub use backup::Backup;
pub use calibration::{Calibration, Precision};
pub use costs::LayerCosts;
pub use distillation::Distillation;
pub use error::ModelError;
pub use file::FileError;
pub use groups::ParameterGroup;
pub use network::{Architecture, LayerConfig, LayerError};
pub use options::{FitOptions, Verbose};
pub use predict::Predictions;
pub use range_test::RangeTest;
pub use record::TrainingRecord;
pub use resizing::ProgressiveResizing;
pub use samples::{Images, Samples, Targets};
pub use sequential::Sequential;
pub use tensor::{Input, IntoInputs, Tensor};
pub use views::Views;
pub use weights::{LoadedWeights, Mismatch, Published, ReplacedHead, Strictness, WeightFile, WeightsError};

use crate::data::Preprocessing;
use crate::history::History;
use crate::labels::Trajectories;
use crate::layers::{AnyLayer, Normalization, Rescaling};
use crate::losses::Loss;
use crate::metrics::{Evaluation, Metric};
use crate::optimizers::{Moved, Optimizer};
use crate::regularizers::Regularizer;
use golden::GoldenImages;
use network::{INPUT, Network};
use ocellus_engine::{Level, ParameterId, ParameterKind, Parameters, StepTime};
use predict::Engine;
use std::collections::HashMap;

/// Layers, parameters, class names and preprocessing: what is trained, saved, loaded and used.
///
/// Made with [`Sequential`], or with [`Model::new`] from tensors that layers were called on:
///
/// ```
/// use ocellus::layers::{Activation, Add, Conv2d, Dense, GlobalAveragePooling2d, Layer, Padding};
/// use ocellus::model::{Input, Model};
///
/// let input = Input::new([32, 32, 3]);
/// let stem = Conv2d::new(16, 3).padding(Padding::Same).activation(Activation::Relu).call(&input);
/// let x = Conv2d::new(16, 3).padding(Padding::Same).activation(Activation::Relu).call(&stem);
/// let x = Conv2d::new(16, 3).padding(Padding::Same).call(&x);
/// let x = Activation::Relu.call(&Add::new().call([&x, &stem]));
/// let output = Dense::new(10).activation(Activation::Softmax).call(&GlobalAveragePooling2d::new().call(&x));
/// let model = Model::new(&input, &output)?;
/// assert_eq!(model.parameter_count(), 5258);
/// # Ok::<(), ocellus::model::LayerError>(())
/// ```
pub struct Model {
    network: Network,
    parameters: Parameters,
    /// For each layer, where its parameters are.
    layer_parameters: Vec<Vec<ParameterId>>,
    class_names: Vec<String>,
    preprocessing: Preprocessing,
    compiled: Option<Compiled>,
    /// How often the model was compiled, so that a training notices when a callback does so.
    compile_count: u64,
    golden: Option<GoldenImages>,
    record: TrainingRecord,
    history: History,
    trajectories: Option<Trajectories>,
    step_times: Vec<StepTime>,
    evaluation: Option<Evaluation>,
    precision: Precision,
    calibration: Option<Calibration>,
    views: Views,
    engine: Engine,
}

/// What `compile` gives a model.
struct Compiled {
    optimizer: Optimizer,
    loss: Loss,
    metrics: Vec<Box<dyn Metric + Send>>,
    /// Steps of the optimizer so far.
    iterations: u64,
    /// For each weight, where the optimizer's state is.
    state: HashMap<ParameterId, Vec<ParameterId>>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("architecture", &self.network.architecture)
            .field("parameters", &self.parameter_count())
            .finish_non_exhaustive()
    }
}

impl Model {
    /// The layers between an [`Input`] and an output, their weights drawn with seed 0; [`initialize`](Self::initialize)
    /// draws others.
    ///
    /// # Errors
    /// The first layer that does not fit, and why.
    pub fn new(input: &Tensor, output: &Tensor) -> Result<Self, LayerError> {
        Self::from_architecture(Architecture::between(input, output)?, 0)
    }

    /// The model that an architecture describes, its weights drawn with this seed.
    ///
    /// # Errors
    /// The first layer that does not fit, and why.
    pub fn from_architecture(architecture: Architecture, seed: u64) -> Result<Self, LayerError> {
        Ok(Self::from_network(architecture.check()?, |name, spec| spec.initializer.values(&spec.shape, seed, name)))
    }

    fn from_network(network: Network, mut values: impl FnMut(&str, &crate::layers::ParameterSpec) -> Vec<f32>) -> Self {
        let mut parameters = Parameters::new();
        let mut layer_parameters = vec![Vec::new(); network.nodes.len()];
        for ((config, node), ids) in network.architecture.layers.iter().zip(&network.nodes).zip(&mut layer_parameters) {
            for spec in &node.parameters {
                let name = format!("{}/{}", config.name, spec.name);
                let values = values(&name, spec);
                ids.push(parameters.add(name, &spec.shape, spec.kind, &values));
            }
        }
        let mut preprocessing = Preprocessing::default();
        if let [height, width, channels] = *network.input_shape() {
            preprocessing = Preprocessing { image_size: [height, width], channels, ..preprocessing };
        }
        if network.takes_pixels() {
            (preprocessing.scale, preprocessing.offset) = (1.0, 0.0);
        }
        Model {
            network,
            parameters,
            layer_parameters,
            class_names: Vec::new(),
            preprocessing,
            compiled: None,
            compile_count: 0,
            golden: None,
            record: TrainingRecord::default(),
            history: History::new(),
            trajectories: None,
            step_times: Vec::new(),
            evaluation: None,
            precision: Precision::default(),
            calibration: None,
            views: Views::One,
            engine: Engine::default(),
        }
    }

    /// Draws all weights anew. The same seed gives the same weights.
    pub fn initialize(&mut self, seed: u64) {
        let ids = self.layer_parameters.iter().flatten();
        for ((name, spec), &id) in self.network.parameters().zip(ids) {
            self.parameters.values_mut(id).copy_from_slice(&spec.initializer.values(&spec.shape, seed, &name));
        }
        self.forget_calibration();
        self.reset_optimizer();
    }

    /// Gives the model what training needs: how weights move, what they make small, what is measured.
    ///
    /// The optimizer begins anew, whatever was trained before.
    ///
    /// ```
    /// # use ocellus::{layers::{Dense, Activation}, losses::Loss, metrics::{Accuracy, TopK}, model::Sequential, optimizers::Adam};
    /// # let mut model = Sequential::new([4]).add(Dense::new(10).activation(Activation::Softmax)).build()?;
    /// model.compile(Adam::new(), Loss::categorical_cross_entropy(), [Accuracy::new()])?;
    /// model.compile(Adam::new(), Loss::categorical_cross_entropy(), (Accuracy::new(), TopK::new(5)))?;
    /// # Ok::<(), ocellus::model::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// Where the loss does not suit the model's output.
    pub fn compile(
        &mut self,
        optimizer: impl Into<Optimizer>,
        loss: Loss,
        metrics: impl IntoMetrics,
    ) -> Result<(), ModelError> {
        loss.check(self.output_shape()).map_err(ModelError::Argument)?;
        let optimizer = optimizer.into();
        optimizer.check().map_err(ModelError::Argument)?;
        let metrics = metrics.into_metrics();
        self.engine.forget_losses();
        self.compile_count += 1;
        self.compiled = Some(Compiled { optimizer, loss, metrics, iterations: 0, state: HashMap::new() });
        self.reset_optimizer();
        Ok(())
    }

    /// The model with a first layer that takes this mean off each channel of pixels and divides by the deviation, both of pixels
    /// from 0 to 1; a rescaling or normalisation that is the first layer so far gives way to it.
    ///
    /// # Errors
    /// Where the layer does not suit the images.
    pub fn with_pixels_normalized(self, mean: [f32; 3], deviation: [f32; 3]) -> Result<Self, LayerError> {
        let alike = |values: [f32; 3]| values.iter().all(|&value| value == values[0]);
        let layer: AnyLayer = if alike(mean) && alike(deviation) {
            Rescaling::new(1.0 / (255.0 * deviation[0])).offset(-mean[0] / deviation[0]).into()
        } else {
            let variance = deviation.map(|deviation| (255.0 * deviation).powi(2));
            Normalization::new(mean.map(|mean| 255.0 * mean), variance).into()
        };
        let mut architecture = self.network.architecture.clone();
        let mut first =
            architecture.layers.iter_mut().filter(|config| config.inputs.iter().any(|input| input == INPUT));
        match (first.next(), first.next()) {
            (Some(config), None) if matches!(config.layer, AnyLayer::Rescaling(_) | AnyLayer::Normalization(_)) => {
                config.layer = layer;
            }
            _ => {
                let mut name = layer.default_name().to_owned();
                while architecture.layers.iter().any(|config| config.name == name) {
                    name.push('_');
                }
                let inputs = architecture.layers.iter_mut().flat_map(|config| &mut config.inputs);
                inputs.filter(|input| *input == INPUT).for_each(|input| input.clone_from(&name));
                architecture.layers.insert(0, LayerConfig { name, inputs: vec![INPUT.into()], layer });
            }
        }
        let mut values = self.weights().map(|(_, _, values)| values.to_vec());
        let mut model = Self::from_network(architecture.check()?, |_, _| values.next().unwrap_or_default());
        model.class_names.clone_from(&self.class_names);
        Ok(model)
    }

    /// Makes the optimizer's memory anew.
    fn reset_optimizer(&mut self) {
        self.parameters.remove_optimizer_state();
        let Some(compiled) = &mut self.compiled else { return };
        compiled.iterations = 0;
        compiled.state.clear();
        for &id in self.layer_parameters.iter().flatten() {
            let parameter = self.parameters.get(id);
            if parameter.kind != ParameterKind::Weight {
                continue;
            }
            let (rule, _) =
                compiled.optimizer.rule_of(moved(&self.network, &self.parameters, &self.layer_parameters, id));
            let (name, shape) = (parameter.name.clone(), parameter.shape.clone());
            let states = (0..rule.state_count()).map(|number| {
                let values = vec![rule.state_initial(number); shape.iter().product()];
                let kind = ParameterKind::OptimizerState;
                self.parameters.add(format!("{name}/optimizer/{number}"), &shape, kind, &values)
            });
            let states = states.collect();
            compiled.state.insert(id, states);
        }
    }

    /// A parameter as optimizers look at it.
    fn moved(&self, id: ParameterId) -> Moved<'_> {
        moved(&self.network, &self.parameters, &self.layer_parameters, id)
    }

    fn optimizer_state(&self, weight: ParameterId, count: usize) -> Vec<ParameterId> {
        let known = self.compiled.as_ref().and_then(|compiled| compiled.state.get(&weight));
        known.map_or_else(Vec::new, |state| state[..count].to_vec())
    }

    fn regularizer(&self, id: ParameterId) -> Regularizer {
        let mut specs =
            self.network.nodes.iter().flat_map(|node| &node.parameters).zip(self.layer_parameters.iter().flatten());
        specs.find(|(_, known)| **known == id).map_or(Regularizer::NONE, |(spec, _)| spec.regularizer)
    }

    /// The architecture, as files hold it.
    pub fn architecture(&self) -> &Architecture {
        &self.network.architecture
    }

    /// Whether the first layers take pixels as they are, 0 to 255.
    pub fn takes_pixels(&self) -> bool {
        self.network.takes_pixels()
    }

    /// Shape of a sample: (height, width, channels).
    pub fn input_shape(&self) -> &[usize] {
        self.network.input_shape()
    }

    /// Shape of what the model gives for a sample.
    pub fn output_shape(&self) -> &[usize] {
        self.network.output_shape()
    }

    /// Numbers that the model gives for a sample.
    fn outputs(&self) -> usize {
        self.output_shape().iter().product()
    }

    /// Numbers in all parameters, those that follow the data included.
    pub fn parameter_count(&self) -> usize {
        self.weights().map(|(_, _, values)| values.len()).sum()
    }

    /// Every parameter's name, shape and values, layer by layer.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.layer_parameters.iter().flatten().map(|&id| {
            let parameter = self.parameters.get(id);
            (parameter.name.as_str(), parameter.shape.as_slice(), parameter.values())
        })
    }

    /// Sets a parameter's values.
    ///
    /// # Errors
    /// Where there is no parameter of that name, or it has another number of values.
    pub fn set_weight(&mut self, name: &str, values: &[f32]) -> Result<(), ModelError> {
        let known = self.layer_parameters.iter().flatten().find(|&&id| self.parameters.get(id).name == name);
        let Some(&id) = known else {
            return Err(ModelError::Argument(format!("the model has no parameter {name:?}")));
        };
        let wanted = self.parameters.get(id).values().len();
        if values.len() != wanted {
            return Err(ModelError::Argument(format!("{name}: expected {wanted} values, received {}", values.len())));
        }
        self.parameters.values_mut(id).copy_from_slice(values);
        self.forget_calibration();
        Ok(())
    }

    /// A copy of all weights and statistics, to come back to.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { values: self.weights().map(|(_, _, values)| values.to_vec()).collect() }
    }

    /// Copies the weights into a snapshot of this model, without new memory.
    pub(crate) fn snapshot_into(&self, snapshot: &mut Snapshot) {
        for (to, (_, _, values)) in snapshot.values.iter_mut().zip(self.weights()) {
            to.copy_from_slice(values);
        }
    }

    /// The first value among the weights that is no finite number.
    fn first_not_finite(&self) -> Option<f32> {
        self.weights().find_map(|(_, _, values)| values.iter().copied().find(|value| !value.is_finite()))
    }

    /// Comes back to a snapshot.
    ///
    /// # Panics
    /// Where the snapshot is another model's.
    pub fn restore(&mut self, snapshot: &Snapshot) {
        for (&id, values) in self.layer_parameters.iter().flatten().zip(&snapshot.values) {
            self.parameters.values_mut(id).copy_from_slice(values);
        }
        self.forget_calibration();
    }

    /// The names of the classes, in the order of the outputs; empty where none are known.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Names the classes; training on a data set does so by itself.
    ///
    /// # Errors
    /// Where there is not one name for each output, or two for a single output.
    pub fn set_class_names(&mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Result<(), ModelError> {
        let (names, outputs): (Vec<String>, _) = (names.into_iter().map(Into::into).collect(), self.outputs());
        if names.len() != outputs && (names.len(), outputs) != (2, 1) {
            return Err(ModelError::Argument(format!("{} class names, but {outputs} output(s)", names.len())));
        }
        self.class_names = names;
        Ok(())
    }

    /// How image files become what the model sees.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// Sets how image files become what the model sees; training on a data set does so by itself.
    pub fn set_preprocessing(&mut self, preprocessing: Preprocessing) {
        self.preprocessing = preprocessing;
        self.forget_calibration();
        self.engine.forget_plans();
    }

    /// How the model was trained.
    pub fn training_record(&self) -> &TrainingRecord {
        &self.record
    }

    /// What the epochs of the last training measured, Keras' `model.history`: also of a training that ended with an error.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// How the last training saw each sample, epoch by epoch, where [`FitOptions::record_samples`] asked for it.
    pub fn trajectories(&self) -> Option<&Trajectories> {
        self.trajectories.as_ref()
    }

    /// How long each operation of the last training took, where [`FitOptions::profile`] asked for it.
    pub fn step_times(&self) -> &[StepTime] {
        &self.step_times
    }

    /// What was measured on data kept apart, where [`set_evaluation`](Self::set_evaluation) was told.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluation.as_ref()
    }

    /// Keeps a measurement with the model, so that its file has it.
    pub fn set_evaluation(&mut self, evaluation: Evaluation) {
        self.evaluation = Some(evaluation);
    }

    /// Sets how many threads compute, `None` for as many as the machine has. Results do not depend on it.
    pub fn set_threads(&mut self, threads: Option<usize>) {
        self.engine.set_threads(threads);
    }

    /// The instruction set to compute with: the one that was set, else what `OCELLUS_ISA` names, else the best there is.
    ///
    /// # Errors
    /// Where `OCELLUS_ISA` names none of this machine's.
    pub fn level(&self) -> Result<Level, ModelError> {
        self.engine.level()
    }

    /// Sets the instruction set to compute with, instead of the best one or what `OCELLUS_ISA` says.
    pub fn set_level(&mut self, level: Level) {
        self.engine.set_level(level);
    }
}

/// A parameter as optimizers look at it.
fn moved<'a>(
    network: &Network,
    parameters: &'a Parameters,
    of_layers: &[Vec<ParameterId>],
    id: ParameterId,
) -> Moved<'a> {
    let parameter = parameters.get(id);
    let last = of_layers.iter().rposition(|ids| !ids.is_empty());
    let own = of_layers.iter().position(|ids| ids.contains(&id));
    // A depthwise kernel is no matrix: each of its filters reads a channel of its own.
    let depthwise = own.is_some_and(|at| matches!(network.architecture.layers[at].layer, AnyLayer::DepthwiseConv2d(_)));
    let is_hidden_kernel = own != last && !depthwise && parameter.name.ends_with("/kernel");
    Moved { shape: &parameter.shape, is_hidden_kernel }
}

/// A copy of a model's weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    values: Vec<Vec<f32>>,
}

/// What `compile` takes as metrics: an array of one kind, a tuple of several, or `()`.
pub trait IntoMetrics {
    /// The metrics in order.
    fn into_metrics(self) -> Vec<Box<dyn Metric + Send>>;
}

impl<M: Metric + Send + 'static, const N: usize> IntoMetrics for [M; N] {
    fn into_metrics(self) -> Vec<Box<dyn Metric + Send>> {
        self.into_iter().map(|metric| Box::new(metric) as Box<dyn Metric + Send>).collect()
    }
}

impl IntoMetrics for Vec<Box<dyn Metric + Send>> {
    fn into_metrics(self) -> Vec<Box<dyn Metric + Send>> {
        self
    }
}

/// Tuples of metrics.
macro_rules! tuples {
    ($(($($metric:ident $number:tt),*))*) => {$(
        impl<$($metric: Metric + Send + 'static),*> IntoMetrics for ($($metric,)*) {
            fn into_metrics(self) -> Vec<Box<dyn Metric + Send>> {
                vec![$(Box::new(self.$number)),*]
            }
        }
    )*};
}

tuples! {
    ()
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
}
