//! Groups of parameters that learn in their own way: at other rates, with other decay, for a while or not at all.

use super::{Model, ModelError};
use ocellus_engine::ParameterId;
use serde::{Deserialize, Serialize};

/// What sets some parameters apart in a training.
///
/// | pattern | parameters |
/// |---|---|
/// | `conv2d_3` | those of the layer of that name |
/// | `blocks.4` | those of layers whose names begin with it and a dot |
/// | `conv*`, `block?_bn` | those of layers whose names match, `*` any text, `?` any character |
/// | `..add_5` | those of all layers up to and with it |
/// | `add_5..` | those of it and all layers after it |
/// | `backbone` | those of all layers but the last one with parameters |
/// | `head` | those of the last layer with parameters |
/// | `*/beta`, `backbone/kernel`, `conv2d/*` | of such layers (the name itself, not those below it) the variables of that name |
///
/// Where several groups name a parameter, their factors multiply, and it learns for the shortest of their epochs: what one group
/// freezes is frozen, in whatever order they stand.
///
/// A frozen statistic (`*/moving_*`) makes batch normalisation use its moving averages in training, too. A layer all of whose
/// parameters are frozen does what it does outside of training, and so do layers without parameters that only such layers read.
///
/// ```
/// use ocellus::model::ParameterGroup;
/// let shifts = ParameterGroup::new("*/beta").learning_rate(64.0).weight_decay(0.0);
/// let backbone = ParameterGroup::new("backbone").frozen();
/// let statistics = ParameterGroup::new("*/moving_*").frozen();
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// Which: a pattern of layers, or of layers and a variable.
    pub parameters: String,
    /// Multiplies the learning rate; at 0 the parameters stay as they are, and nothing is computed for them.
    #[serde(default = "one")]
    pub learning_rate: f32,
    /// Multiplies the optimizer's weight decay.
    #[serde(default = "one")]
    pub weight_decay: f32,
    /// The number of epochs after which the parameters stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
}

fn one() -> f32 {
    1.0
}

impl ParameterGroup {
    /// The parameters that the pattern names; they learn as all others do.
    pub fn new(parameters: impl Into<String>) -> Self {
        ParameterGroup { parameters: parameters.into(), learning_rate: 1.0, weight_decay: 1.0, epochs: None }
    }

    /// Multiplies the learning rate.
    pub fn learning_rate(self, learning_rate: f32) -> Self {
        ParameterGroup { learning_rate, ..self }
    }

    /// Multiplies the optimizer's weight decay.
    pub fn weight_decay(self, weight_decay: f32) -> Self {
        ParameterGroup { weight_decay, ..self }
    }

    /// The parameters stay as they are.
    pub fn frozen(self) -> Self {
        self.learning_rate(0.0)
    }

    /// The parameters learn for so many epochs only.
    pub fn epochs(self, epochs: u64) -> Self {
        ParameterGroup { epochs: Some(epochs), ..self }
    }

    /// The same group, whose epochs do not end.
    pub fn lasting(&self) -> Self {
        ParameterGroup { epochs: None, ..self.clone() }
    }

    /// The same group in a training that so many epochs come before.
    pub fn later_by(&self, epochs: u64) -> Self {
        ParameterGroup { epochs: self.epochs.map(|own| own.saturating_add(epochs)), ..self.clone() }
    }
}

/// How a parameter learns in an epoch, against the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    pub(super) learning_rate: f32,
    pub(super) weight_decay: f32,
}

impl Share {
    pub(super) fn learns(self) -> bool {
        self.learning_rate != 0.0
    }
}

/// Groups that suit a model, with the parameters that they name.
pub(super) struct Groups(Vec<(ParameterGroup, Vec<ParameterId>)>);

impl Groups {
    /// How a parameter learns in an epoch.
    pub(super) fn share(&self, id: ParameterId, epoch: u64) -> Share {
        let mut share = Share { learning_rate: 1.0, weight_decay: 1.0 };
        for (group, _) in self.0.iter().filter(|(_, named)| named.contains(&id)) {
            let over = group.epochs.is_some_and(|epochs| epoch >= epochs);
            share.learning_rate *= if over { 0.0 } else { group.learning_rate };
            share.weight_decay *= group.weight_decay;
        }
        share
    }

    /// Whether some group's epochs end before this one.
    pub(super) fn end_before(&self, epoch: u64) -> bool {
        self.0.iter().any(|(group, _)| group.epochs == Some(epoch))
    }
}

impl Model {
    /// The parameters that each group names.
    pub(super) fn groups(&self, groups: &[ParameterGroup]) -> Result<Groups, ModelError> {
        let groups = groups.iter().map(|group| {
            let ParameterGroup { parameters, learning_rate, weight_decay, .. } = group;
            if !(learning_rate.is_finite() && *learning_rate >= 0.0 && weight_decay.is_finite()) {
                return Err(ModelError::Argument(format!(
                    "{parameters}: expected a learning_rate of at least 0 and a finite weight_decay, received \
                     {learning_rate} and {weight_decay}"
                )));
            }
            Ok((group.clone(), self.named(parameters)?))
        });
        groups.collect::<Result<_, _>>().map(Groups)
    }

    /// The names of the parameters that a pattern of a [`ParameterGroup`] names.
    ///
    /// # Errors
    /// Where there are none.
    pub fn parameters_named(&self, pattern: &str) -> Result<Vec<&str>, ModelError> {
        Ok(self.named(pattern)?.into_iter().map(|id| self.parameters.get(id).name.as_str()).collect())
    }

    /// Groups that let layers learn the more slowly the earlier they come: the last one with parameters at the learning rate, those
    /// before it at `factor` of it, and by the same factor less with every halving of the image on the way back to the input.
    ///
    /// # Errors
    /// Where the factor is not above 0 and at most 1.
    pub fn groups_by_depth(&self, factor: f32) -> Result<Vec<ParameterGroup>, ModelError> {
        if !(factor > 0.0 && factor <= 1.0) {
            return Err(ModelError::Argument(format!("expected a decay above 0, at most 1, received {factor}")));
        }
        let (head, mut depth, mut pixels) = (self.head(), 0, None);
        let mut groups = Vec::new();
        for (layer, node) in self.network.nodes.iter().enumerate().rev() {
            if let &[height, width, _] = &node.output_shape[..] {
                // Stages differ by more than what a border takes off.
                if pixels.is_none_or(|pixels| 2 * height * width >= 3 * pixels) {
                    depth += 1;
                    pixels = Some(height * width);
                }
            }
            if layer < head && !node.parameters.is_empty() {
                let parameters = format!("{}/*", self.network.architecture.layers[layer].name);
                groups.push(ParameterGroup::new(parameters).learning_rate(factor.powi(depth.max(1))));
            }
        }
        Ok(groups)
    }

    /// The last layer with parameters.
    pub(super) fn head(&self) -> usize {
        self.layer_parameters.iter().rposition(|ids| !ids.is_empty()).unwrap_or_default()
    }

    /// The parameters that a pattern names, one at least.
    fn named(&self, pattern: &str) -> Result<Vec<ParameterId>, ModelError> {
        let of_layers = |layers: Vec<bool>, variable: &str| -> Vec<ParameterId> {
            let layers = self.layer_parameters.iter().zip(&self.network.nodes).zip(layers).filter(|(_, named)| *named);
            let parameters = layers.flat_map(|((ids, node), _)| ids.iter().zip(&node.parameters));
            parameters.filter(|(_, spec)| matches(spec.name, variable)).map(|(&id, _)| id).collect()
        };
        let (mut named, mut known) = (Vec::new(), false);
        if let Some(layers) = self.layers_named(pattern, true) {
            (named, known) = (of_layers(layers, "*"), true);
        } else if let Some((layers, variable)) = pattern.rsplit_once('/')
            && let Some(layers) = self.layers_named(layers, false)
        {
            named = of_layers(layers, variable);
        }
        if !named.is_empty() {
            return Ok(named);
        }
        let shown = |names: &mut dyn Iterator<Item = &str>| names.take(6).collect::<Vec<_>>().join(", ");
        let hint = "(`ocellus summary` shows all)";
        Err(ModelError::Argument(if known {
            format!("{pattern:?} names only layers without parameters; the model has {}, … {hint}", {
                shown(&mut self.weights().map(|(name, ..)| name))
            })
        } else if pattern.contains('/') {
            let names = shown(&mut self.weights().map(|(name, ..)| name));
            format!("no parameter is named {pattern:?}; the model has {names}, … {hint}")
        } else {
            let names = shown(&mut self.network.architecture.layers.iter().map(|config| config.name.as_str()));
            format!("no layer is named {pattern:?}; the model has {names}, … {hint}")
        }))
    }

    /// Which layers a pattern names, with those below them or alone; `None` where it names none.
    fn layers_named(&self, pattern: &str, below: bool) -> Option<Vec<bool>> {
        let names: Vec<&str> = self.network.architecture.layers.iter().map(|config| config.name.as_str()).collect();
        let is_below = |name: &str, pattern: &str| name.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'));
        let named = |name: &&str| matches(name, pattern) || below && is_below(name, pattern);
        if names.iter().any(named) {
            return Some(names.iter().map(named).collect());
        }
        // A span begins and ends with all that is below a name.
        let is = |name: &str, pattern: &str| matches(name, pattern) || is_below(name, pattern);
        let span = |first: usize, last: usize| Some((0..names.len()).map(|at| (first..=last).contains(&at)).collect());
        if let Some(last) = pattern.strip_prefix(SPAN).filter(|last| !last.is_empty()) {
            return span(0, names.iter().rposition(|name| is(name, last))?);
        }
        if let Some(first) = pattern.strip_suffix(SPAN).filter(|first| !first.is_empty()) {
            return span(names.iter().position(|name| is(name, first))?, names.len() - 1);
        }
        let head = self.head();
        match pattern {
            HEAD => span(head, head),
            BACKBONE => Some((0..names.len()).map(|layer| layer != head).collect()),
            _ => None,
        }
    }
}

/// All layers but the last one with parameters.
const BACKBONE: &str = "backbone";
/// The last layer with parameters.
const HEAD: &str = "head";
/// What lies between the first and the last layer of a span.
const SPAN: &str = "..";

/// Whether a name is what a pattern says: `*` is any text, `?` any character.
fn matches(name: &str, pattern: &str) -> bool {
    let (name, pattern): (Vec<char>, Vec<char>) = (name.chars().collect(), pattern.chars().collect());
    let (mut at, mut of) = (0, 0);
    // Where the last star was, and what it has swallowed so far.
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match pattern.get(of) {
            Some('*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(&c) if c == '?' || c == name[at] => (at, of) = (at + 1, of + 1),
            _ => match star {
                Some((place, swallowed)) => {
                    star = Some((place, swallowed + 1));
                    (at, of) = (swallowed + 1, place + 1);
                }
                None => return false,
            },
        }
    }
    pattern[of..].iter().all(|&c| c == '*')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::layers::*;
    use crate::model::Sequential;

    pub(in crate::model) fn net() -> Model {
        Sequential::new([16, 16, 3])
            .add(Conv2d::new(4, 3).padding(Padding::Same).named("stem"))
            .add(BatchNormalization::new().named("stem_bn"))
            .add(MaxPooling2d::new(2).named("pool"))
            .add(Conv2d::new(4, 3).padding(Padding::Same).named("blocks.0.conv"))
            .add(BatchNormalization::new().named("blocks.0.bn"))
            .add(Dropout::new(0.5).named("inner"))
            .add(Conv2d::new(4, 3).padding(Padding::Same).named("blocks.1.conv"))
            .add(GlobalAveragePooling2d::new().named("average"))
            .add(Dropout::new(0.5).named("outer"))
            .add(Dense::new(2).activation(Activation::Softmax).named("classifier"))
            .build()
            .unwrap()
    }

    #[test]
    fn patterns_name_parameters() {
        let model = net();
        for (pattern, expected) in [
            ("stem", &["stem/kernel", "stem/bias"][..]),
            ("*.conv/kernel", &["blocks.0.conv/kernel", "blocks.1.conv/kernel"]),
            ("blocks.1", &["blocks.1.conv/kernel", "blocks.1.conv/bias"]),
            ("blocks.?.conv/b*", &["blocks.0.conv/bias", "blocks.1.conv/bias"]),
            ("stem*/b*", &["stem/bias", "stem_bn/beta"]),
            ("..pool/bias", &["stem/bias"]),
            ("blocks.1../bias", &["blocks.1.conv/bias", "classifier/bias"]),
            ("backbone/kernel", &["stem/kernel", "blocks.0.conv/kernel", "blocks.1.conv/kernel"]),
            ("head", &["classifier/kernel", "classifier/bias"]),
            ("*/moving_mean", &["stem_bn/moving_mean", "blocks.0.bn/moving_mean"]),
        ] {
            assert_eq!(model.parameters_named(pattern).unwrap(), expected, "{pattern}");
        }
        for (pattern, problem) in [
            ("block", "no layer is named \"block\"; the model has stem, stem_bn, pool"),
            ("..", "no layer is named"),
            ("", "no layer is named"),
            ("..nothing", "no layer is named"),
            ("inner", "\"inner\" names only layers without parameters; the model has stem/kernel"),
            ("*/gama", "no parameter is named \"*/gama\"; the model has stem/kernel, stem/bias"),
            ("blocks/kernel", "no parameter is named"),
        ] {
            let error = model.parameters_named(pattern).unwrap_err().to_string();
            assert!(error.contains(problem), "{pattern}: {error}");
        }
    }

    #[test]
    fn groups_multiply_and_the_shortest_ends() {
        let model = net();
        let groups = [
            ParameterGroup::new("*").learning_rate(0.5),
            ParameterGroup::new("stem").learning_rate(0.5).weight_decay(0.0).epochs(3),
            ParameterGroup::new("*/bias").learning_rate(64.0).epochs(5),
            ParameterGroup::new("blocks.0").frozen(),
        ];
        let groups = model.groups(&groups).unwrap();
        let share = |name: &str, epoch| {
            let Share { learning_rate, weight_decay } = groups.share(model.named(name).unwrap()[0], epoch);
            [learning_rate, weight_decay]
        };
        assert_eq!(share("stem/kernel", 2), [0.25, 0.0]);
        assert_eq!(share("stem/bias", 2), [16.0, 0.0]);
        assert_eq!(share("stem/bias", 3), [0.0, 0.0]);
        assert_eq!(share("blocks.1.conv/bias", 4), [32.0, 1.0]);
        assert_eq!(share("blocks.1.conv/bias", 5), [0.0, 1.0]);
        assert_eq!(share("blocks.0.conv/bias", 0), [0.0, 1.0]);
        assert!(groups.end_before(3) && !groups.end_before(4));
        for wrong in [ParameterGroup::new("stem").learning_rate(-1.0), ParameterGroup::new("*").weight_decay(f32::NAN)]
        {
            assert!(model.groups(&[wrong]).is_err());
        }
    }

    #[test]
    fn matrices_are_kernels_but_depthwise_and_last_ones() {
        let model = crate::Sequential::new([8, 8, 3])
            .add(Conv2d::new(4, 3))
            .add(DepthwiseConv2d::new(3))
            .add(Flatten::new())
            .add(Dense::new(5))
            .add(Dense::new(2))
            .build()
            .unwrap();
        let ids = model.layer_parameters.iter().flatten().filter(|&&id| model.moved(id).is_hidden_kernel);
        let names: Vec<&str> = ids.map(|&id| model.parameters.get(id).name.as_str()).collect();
        assert_eq!(names, ["conv2d/kernel", "dense/kernel"]);
    }

    #[test]
    fn rates_fall_with_each_halving() {
        let model = net();
        let groups = model.groups(&model.groups_by_depth(0.5).unwrap()).unwrap();
        let ids = model.layer_parameters.iter().filter_map(|ids| ids.first());
        let rates: Vec<f32> = ids.map(|&id| groups.share(id, 0).learning_rate).collect();
        assert_eq!(rates, [0.25, 0.25, 0.5, 0.5, 0.5, 1.0]);
        assert!(model.groups_by_depth(0.0).is_err() && model.groups_by_depth(f32::NAN).is_err());
    }
}
