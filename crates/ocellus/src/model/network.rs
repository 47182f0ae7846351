//! The layers of a model and how they are joined, checked: names, shapes, parameters.

use super::tensor::{MadeBy, Tensor};
use crate::layers::{AnyLayer, ParameterSpec, product, shape_text};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The name of the images.
pub(super) const INPUT: &str = "input";

/// Values of all layers for one sample; more than this is refused.
const MOST_VALUES: u64 = 1 << 27;
/// Multiplications for one sample; more than this is refused.
const MOST_WORK: u64 = 1 << 36;

/// Layers that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerError {
    /// Inputs or arguments that a layer cannot take.
    #[error("{name} ({class}): {problem}")]
    Layer {
        /// The layer's name.
        name: String,
        /// Its type.
        class: String,
        /// What was expected and what was received.
        problem: String,
    },
    /// The model as a whole.
    #[error("{0}")]
    Model(String),
}

/// A model's architecture as files hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    /// Shape of a sample: (height, width, channels).
    pub input_shape: Vec<usize>,
    /// The layers, each after its inputs; the last one's output is the model's.
    pub layers: Vec<LayerConfig>,
}

/// A layer in an [`Architecture`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerConfig {
    /// The layer's name, which no other layer has.
    pub name: String,
    /// The names of the layers whose outputs it takes; `input` is the model's input.
    pub inputs: Vec<String>,
    /// The layer itself.
    #[serde(flatten)]
    pub layer: AnyLayer,
}

/// An architecture that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) architecture: Architecture,
    pub(crate) nodes: Vec<Node>,
}

/// What is known of each layer, in the architecture's order.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Positions of its inputs: 0 is the model's input, n + 1 the n-th layer.
    pub(crate) inputs: Vec<usize>,
    pub(crate) output_shape: Vec<usize>,
    pub(crate) parameters: Vec<ParameterSpec>,
}

impl Architecture {
    /// The layers between an [`Input`](super::Input) and an output. Whether they fit together is checked when a model is made
    /// of them.
    ///
    /// # Errors
    /// Where the output does not depend on the input, or depends on another.
    pub fn between(input: &Tensor, output: &Tensor) -> Result<Self, LayerError> {
        let MadeBy::Input(input_shape) = input.made_by() else {
            return Err(LayerError::Model("the model's input must be made by Input::new".into()));
        };
        let ancestry = output.ancestry();
        let mut layers: Vec<LayerConfig> = Vec::new();
        let mut names = Names::new(&ancestry);
        let mut known = HashMap::from([(input.number(), INPUT.to_owned())]);
        for tensor in &ancestry {
            match tensor.made_by() {
                MadeBy::Input(_) if tensor.number() == input.number() => {}
                MadeBy::Input(shape) => {
                    return Err(LayerError::Model(format!(
                        "the output also depends on an Input of shape {} that is not the model's; \
                         models have one input and one output",
                        shape_text(shape)
                    )));
                }
                MadeBy::Layer(layer, inputs) => {
                    let name = names.of(layer.name.as_deref(), layer.layer.default_name());
                    let inputs = inputs.iter().filter_map(|tensor| known.get(&tensor.number()).cloned()).collect();
                    known.insert(tensor.number(), name.clone());
                    layers.push(LayerConfig { name, inputs, layer: layer.layer.clone() });
                }
            }
        }
        if !ancestry.iter().any(|tensor| tensor.number() == input.number()) || layers.is_empty() {
            return Err(LayerError::Model("the output does not depend on the input: call layers on it".into()));
        }
        Ok(Architecture { input_shape: input_shape.clone(), layers })
    }

    /// The same layers for so many classes: the last layer with weights, where it is dense or a convolution, has as many
    /// units or filters.
    #[must_use]
    pub fn with_classes(mut self, classes: usize) -> Self {
        let last = self.layers.iter_mut().rev().find_map(|config| match &mut config.layer {
            AnyLayer::Dense(dense) => Some(&mut dense.units),
            AnyLayer::Conv2d(convolution) => Some(&mut convolution.filters),
            _ => None,
        });
        if let Some(outputs) = last {
            *outputs = classes;
        }
        self
    }

    /// Checks everything and works out shapes and parameters.
    pub(crate) fn check(self) -> Result<Network, LayerError> {
        self.check_input()?;
        let mut positions = HashMap::from([(INPUT, 0)]);
        let mut nodes: Vec<Node> = Vec::with_capacity(self.layers.len());
        let (mut values, mut work) = (product(&self.input_shape), 0u64);
        for config in &self.layers {
            let error = |problem| config.error(problem);
            let inputs = config.inputs.iter().map(|name| {
                let unknown = || error(format!("its input {name:?} is not the name of an earlier layer"));
                positions.get(name.as_str()).copied().ok_or_else(unknown)
            });
            let inputs: Vec<usize> = inputs.collect::<Result<_, _>>()?;
            let shapes: Vec<&[usize]> = inputs.iter().map(|&at| shape_at(&self.input_shape, &nodes, at)).collect();
            let allowed = config.layer.inputs();
            if !allowed.contains(&shapes.len()) {
                let (low, high) = allowed.into_inner();
                let wanted = if low == high { format!("{low}") } else { format!("at least {low}") };
                return Err(error(format!("expected {wanted} input(s), received {}", shapes.len())));
            }
            let output_shape = config.layer.output_shape(&shapes).map_err(error)?;
            if output_shape.contains(&0) {
                return Err(error(format!("its output {} is empty", shape_text(&output_shape))));
            }
            values = values.saturating_add(product(&output_shape));
            work = work.saturating_add(config.layer.work(&shapes, &output_shape));
            let parameters = config.layer.parameters(&shapes);
            let size = parameters.iter().fold(0u64, |sum, p| sum.saturating_add(product(&p.shape)));
            if values > MOST_VALUES || work > MOST_WORK || size > MOST_VALUES {
                return Err(error(format!(
                    "too large: the model would need {values} values, {work} multiplications for each image, and the \
                     layer {size} parameters"
                )));
            }
            if config.name.is_empty() || positions.insert(&config.name, nodes.len() + 1).is_some() {
                return Err(error("its name is taken or empty; give it one of its own with `named`".into()));
            }
            nodes.push(Node { inputs, output_shape, parameters });
        }
        if nodes.is_empty() {
            return Err(LayerError::Model("a model needs at least one layer".into()));
        }
        Ok(Network { architecture: self, nodes })
    }

    fn check_input(&self) -> Result<(), LayerError> {
        let shape = &self.input_shape;
        if shape.is_empty() || shape.contains(&0) || product(shape) > MOST_VALUES {
            let text = shape_text(shape);
            return Err(LayerError::Model(format!("the input shape {text} holds no values, or too many")));
        }
        Ok(())
    }
}

fn shape_at<'a>(input: &'a [usize], nodes: &'a [Node], at: usize) -> &'a [usize] {
    at.checked_sub(1).map_or(input, |node| &nodes[node].output_shape)
}

impl LayerConfig {
    /// An error of this layer.
    pub(crate) fn error(&self, problem: String) -> LayerError {
        LayerError::Layer { name: self.name.clone(), class: self.layer.class().into(), problem }
    }
}

impl Network {
    /// Shape of a sample.
    pub(crate) fn input_shape(&self) -> &[usize] {
        &self.architecture.input_shape
    }

    /// Shape of the model's input for 0, of the n-th layer's output for n + 1.
    pub(crate) fn shape_at(&self, at: usize) -> &[usize] {
        shape_at(&self.architecture.input_shape, &self.nodes, at)
    }

    /// Shape of what the model gives for a sample.
    pub(crate) fn output_shape(&self) -> &[usize] {
        shape_at(&self.architecture.input_shape, &self.nodes, self.nodes.len())
    }

    /// Whether pixels go in as they are, because the layers that see them first bring them into range.
    pub(crate) fn takes_pixels(&self) -> bool {
        let mut first = self.nodes.iter().zip(&self.architecture.layers).filter(|(node, _)| node.inputs.contains(&0));
        first.all(|(_, config)| config.layer.takes_pixels())
    }

    /// Every parameter: its full name and what it is, in order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = (String, &ParameterSpec)> {
        self.nodes.iter().zip(&self.architecture.layers).flat_map(|(node, config)| {
            node.parameters.iter().map(|parameter| (format!("{}/{}", config.name, parameter.name), parameter))
        })
    }
}

/// Default names, as Keras gives them: `conv2d`, `conv2d_1`, ….
struct Names {
    taken: std::collections::HashSet<String>,
    next: HashMap<&'static str, usize>,
}

impl Names {
    fn new(tensors: &[Tensor]) -> Self {
        let given = tensors.iter().filter_map(|tensor| match tensor.made_by() {
            MadeBy::Layer(layer, _) => layer.name.clone(),
            MadeBy::Input(_) => None,
        });
        Names { taken: given.chain([INPUT.to_owned()]).collect(), next: HashMap::new() }
    }

    fn of(&mut self, given: Option<&str>, default: &'static str) -> String {
        if let Some(given) = given {
            return given.to_owned();
        }
        loop {
            let number = self.next.entry(default).or_insert(0);
            let name = if *number == 0 { default.to_owned() } else { format!("{default}_{number}") };
            *number += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::*;
    use crate::model::Input;

    fn check(build: impl Fn(&Tensor) -> Tensor) -> Result<Network, LayerError> {
        let x = Input::new([8, 8, 3]);
        Architecture::between(&x, &build(&x))?.check()
    }

    #[test]
    fn names_are_keras_and_given_names_are_kept() {
        let network = check(|x| {
            let a = Conv2d::new(4, 3).padding(Padding::Same).call(x);
            let b = Conv2d::new(4, 3).padding(Padding::Same).named("conv2d_1").call(&a);
            let c = Conv2d::new(4, 3).padding(Padding::Same).call(&b);
            Add::new().call([&a, &c])
        });
        let network = network.unwrap();
        let names: Vec<_> = network.architecture.layers.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["conv2d", "conv2d_1", "conv2d_2", "add"]);
        assert_eq!(network.architecture.layers[3].inputs, ["conv2d", "conv2d_2"]);
        let parameters: Vec<_> = network.parameters().map(|(name, p)| (name, p.shape.clone())).take(2).collect();
        assert_eq!(parameters, [("conv2d/kernel".into(), vec![3, 3, 3, 4]), ("conv2d/bias".into(), vec![4])]);
    }

    #[test]
    fn errors_have_an_address() {
        let stranger = Input::new([8, 8, 3]);
        for (problem, found) in [
            (
                "conv2 (Conv2d): the kernel covers 9x9, more than its input of 8x8; use padding \"same\", a smaller one, \
                 or fewer poolings before it",
                check(|x| Conv2d::new(1, 9).named("conv2").call(x)),
            ),
            (
                "add (Add): expected inputs of the same shape, received 8x8x3 and 4x4x3",
                check(|x| Add::new().call([x, &MaxPooling2d::new(2).call(x)])),
            ),
            ("add (Add): expected at least 2 input(s), received 1", check(|x| Add::new().call(x))),
            ("flatten (Flatten): expected 1 input(s), received 2", check(|x| Flatten::new().call([x, x]))),
            (
                "a (Flatten): its name is taken or empty; give it one of its own with `named`",
                check(|x| Flatten::new().named("a").call(Flatten::new().named("a").call(x))),
            ),
            (
                "input (Flatten): its name is taken or empty; give it one of its own with `named`",
                check(|x| Flatten::new().named("input").call(x)),
            ),
            ("the output does not depend on the input: call layers on it", check(Tensor::clone)),
            ("models have one input and one output", check(|x| Add::new().call([x, &stranger]))),
            ("too large", check(|x| Dense::new(1 << 30).call(x))),
            ("too large", check(|x| (0..40).fold(x.clone(), |x, _| Concatenate::new().call([&x, &x])))),
        ] {
            let error = found.unwrap_err().to_string();
            assert!(error.contains(problem), "{error:?} instead of {problem:?}");
        }
    }

    #[test]
    fn architectures_come_back_from_json() {
        let network = check(|x| Dense::new(3).activation(Activation::Softmax).call(Flatten::new().call(x))).unwrap();
        let json = serde_json::to_string(&network.architecture).unwrap();
        assert_eq!(serde_json::from_str::<Architecture>(&json).unwrap(), network.architecture);
        let unknown = json.replace("\"units\"", "\"colour\":1,\"units\"");
        assert!(serde_json::from_str::<Architecture>(&unknown).is_err(), "unknown arguments are refused");
    }
}
