//! Which layers learn, and how fast: freezing, and learning rates of their own.

use super::{Model, ModelError};
use ocellus_engine::{ParameterId, ParameterKind};

/// How a layer learns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Learning {
    /// Weights and statistics stay as they are, and the layer does what it does outside of training.
    pub(super) frozen: bool,
    /// Batch normalisation uses its moving averages, which stay as they are.
    pub(super) fixed_statistics: bool,
    /// What the learning rate is multiplied by.
    pub(super) rate: f32,
}

impl Default for Learning {
    fn default() -> Self {
        Learning { frozen: false, fixed_statistics: false, rate: 1.0 }
    }
}

/// All layers with parameters but the last one.
const BACKBONE: &str = "backbone";
/// The last layer with parameters.
const HEAD: &str = "head";
/// What lies between the first and the last layer of a span.
const SPAN: &str = "..";

impl Model {
    /// Freezes the layers that the pattern names: their weights and statistics stay as they are in training, no gradient is
    /// computed for them, and they do what they do outside of training. Gives how many layers with parameters it names.
    ///
    /// | pattern | layers |
    /// |---|---|
    /// | `conv2d_3` | the layer of that name |
    /// | `blocks.4` | those whose names begin with it and a dot |
    /// | `conv*`, `block?_bn` | those whose names match, `*` any text, `?` any character |
    /// | `..add_5` | all up to and with it |
    /// | `add_5..` | it and all after it |
    /// | `backbone` | all with parameters but the last one |
    /// | `head` | the last one with parameters |
    ///
    /// ```
    /// let mut model = ocellus::models::find("reference_cnn").unwrap().build([28, 28, 1], 10)?;
    /// model.freeze("backbone")?;
    /// assert_eq!(model.frozen_layers().collect::<Vec<_>>(), ["conv2d", "conv2d_1", "dense"]);
    /// model.unfreeze("dense")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Where no layer is named so.
    pub fn freeze(&mut self, pattern: &str) -> Result<usize, ModelError> {
        self.set_learning(pattern, |learning| learning.frozen = true)
    }

    /// Lets the layers that the pattern names learn again; see [`freeze`](Self::freeze).
    ///
    /// # Errors
    /// Where no layer is named so.
    pub fn unfreeze(&mut self, pattern: &str) -> Result<usize, ModelError> {
        self.set_learning(pattern, |learning| learning.frozen = false)
    }

    /// Makes the batch normalisations among the layers that the pattern names use their moving averages in training, too, which
    /// then stay as they are; scale and shift still learn. For few images, whose own statistics say little.
    ///
    /// # Errors
    /// Where no layer is named so.
    pub fn fix_statistics(&mut self, pattern: &str) -> Result<usize, ModelError> {
        self.set_learning(pattern, |learning| learning.fixed_statistics = true)
    }

    /// Multiplies the learning rate by a factor for the layers that the pattern names; see [`freeze`](Self::freeze).
    ///
    /// # Errors
    /// Where no layer is named so, or the factor is no finite number from 0.
    pub fn set_learning_rate_factor(&mut self, pattern: &str, factor: f32) -> Result<usize, ModelError> {
        if !(factor.is_finite() && factor >= 0.0) {
            return Err(ModelError::Argument(format!(
                "{pattern}: expected a factor of the learning rate of at least 0, received {factor}"
            )));
        }
        self.set_learning(pattern, |learning| learning.rate = factor)
    }

    /// Lets layers learn the more slowly the earlier they come: the last one with parameters at the learning rate, those before
    /// it at `factor` of it, and by the same factor less with every halving of the image on the way back to the input.
    ///
    /// # Errors
    /// Where the factor is not between 0 and 1.
    pub fn decay_learning_rate_by_depth(&mut self, factor: f32) -> Result<(), ModelError> {
        if !(factor > 0.0 && factor <= 1.0) {
            return Err(ModelError::Argument(format!("expected a decay above 0, at most 1, received {factor}")));
        }
        let head = self.head();
        let (mut depth, mut pixels) = (0, None);
        for layer in (0..self.learning.len()).rev() {
            if let &[height, width, _] = &self.network.nodes[layer].output_shape[..] {
                // Stages differ by more than what a border takes off.
                if pixels.is_none_or(|pixels| 2 * height * width >= 3 * pixels) {
                    depth += 1;
                    pixels = Some(height * width);
                }
            }
            self.learning[layer].rate = if layer >= head { 1.0 } else { factor.powi(depth.max(1)) };
        }
        self.engine.forget_plans();
        Ok(())
    }

    /// The layers with parameters that are frozen.
    pub fn frozen_layers(&self) -> impl Iterator<Item = &str> {
        let layers = self.network.architecture.layers.iter().zip(&self.learning).zip(&self.layer_parameters);
        let frozen = layers.filter(|((_, learning), parameters)| learning.frozen && !parameters.is_empty());
        frozen.map(|((config, _), _)| config.name.as_str())
    }

    /// Numbers that training changes by gradient.
    pub fn trainable_count(&self) -> usize {
        let ids = self.layer_parameters.iter().flatten().filter(|&&id| self.is_learned(id));
        ids.map(|&id| self.parameters.get(id).values().len()).sum()
    }

    fn set_learning(&mut self, pattern: &str, set: impl Fn(&mut Learning)) -> Result<usize, ModelError> {
        let named = self.named(pattern)?;
        let mut count = 0;
        for (layer, _) in named.iter().enumerate().filter(|(_, named)| **named) {
            set(&mut self.learning[layer]);
            count += usize::from(!self.layer_parameters[layer].is_empty());
        }
        Ok(count)
    }

    /// The last layer with parameters.
    pub(super) fn head(&self) -> usize {
        self.layer_parameters.iter().rposition(|ids| !ids.is_empty()).unwrap_or_default()
    }

    /// Which layers a pattern names.
    fn named(&self, pattern: &str) -> Result<Vec<bool>, ModelError> {
        let names: Vec<&str> = self.network.architecture.layers.iter().map(|config| config.name.as_str()).collect();
        let is = |name: &str, pattern: &str| {
            let below = name.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.'));
            below || matches(name, pattern)
        };
        let any = |pattern: &str| names.iter().any(|name| is(name, pattern));
        let unknown = || {
            let shown = names.iter().take(6).copied().collect::<Vec<_>>().join(", ");
            ModelError::Argument(format!(
                "no layer is named {pattern:?}; the model has {shown}, … (`ocellus summary` shows all)"
            ))
        };
        if any(pattern) {
            return Ok(names.iter().map(|name| is(name, pattern)).collect());
        }
        let span = |first: usize, last: usize| Ok((0..names.len()).map(|at| (first..=last).contains(&at)).collect());
        if let Some(last) = pattern.strip_prefix(SPAN).filter(|last| !last.is_empty()) {
            return span(0, names.iter().rposition(|name| is(name, last)).ok_or_else(unknown)?);
        }
        if let Some(first) = pattern.strip_suffix(SPAN).filter(|first| !first.is_empty()) {
            return span(names.iter().position(|name| is(name, first)).ok_or_else(unknown)?, names.len() - 1);
        }
        let head = self.head();
        match pattern {
            HEAD => span(head, head),
            BACKBONE => {
                let parameters = self.layer_parameters.iter().enumerate();
                Ok(parameters.map(|(layer, ids)| layer != head && !ids.is_empty()).collect())
            }
            _ => Err(unknown()),
        }
    }

    /// Whether training moves the parameter by its gradient.
    pub(super) fn is_learned(&self, id: ParameterId) -> bool {
        let layer = self.layer_parameters.iter().position(|ids| ids.contains(&id));
        self.parameters.get(id).kind == ParameterKind::Weight && layer.is_some_and(|layer| !self.learning[layer].frozen)
    }

    /// What the learning rate is multiplied by for a parameter.
    pub(super) fn rate(&self, id: ParameterId) -> f32 {
        let layer = self.layer_parameters.iter().position(|ids| ids.contains(&id));
        layer.map_or(1.0, |layer| self.learning[layer].rate)
    }

    /// For each layer, whether it does what it does in training: not where it is frozen, nor, where it has no parameters, if all
    /// that reads it is frozen.
    pub(super) fn layers_that_learn(&self) -> Vec<bool> {
        let count = self.network.nodes.len();
        let mut learns = vec![true; count];
        let mut read = vec![false; count];
        let mut read_by_learning = vec![false; count];
        for layer in (0..count).rev() {
            let Learning { frozen, fixed_statistics, .. } = self.learning[layer];
            let without = self.layer_parameters[layer].is_empty();
            learns[layer] = !frozen && (!without || !read[layer] || read_by_learning[layer]);
            for &input in self.network.nodes[layer].inputs.iter().filter(|&&input| input > 0) {
                read[input - 1] = true;
                read_by_learning[input - 1] |= learns[layer];
            }
            learns[layer] &=
                !fixed_statistics || self.network.architecture.layers[layer].layer.class() != "BatchNormalization";
        }
        learns
    }
}

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
mod tests {
    use super::*;
    use crate::layers::*;
    use crate::model::Sequential;

    fn net() -> Model {
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
    fn patterns_name_layers() {
        for (pattern, expected) in [
            ("stem", &["stem"][..]),
            ("stem*", &["stem", "stem_bn"]),
            ("*conv", &["blocks.0.conv", "blocks.1.conv"]),
            ("blocks", &["blocks.0.conv", "blocks.0.bn", "blocks.1.conv"]),
            ("blocks.?.conv", &["blocks.0.conv", "blocks.1.conv"]),
            ("..pool", &["stem", "stem_bn"]),
            ("blocks.1..", &["blocks.1.conv", "classifier"]),
            ("backbone", &["stem", "stem_bn", "blocks.0.conv", "blocks.0.bn", "blocks.1.conv"]),
            ("head", &["classifier"]),
        ] {
            let mut model = net();
            assert_eq!(model.freeze(pattern).unwrap(), expected.len(), "{pattern}");
            assert_eq!(model.frozen_layers().collect::<Vec<_>>(), expected, "{pattern}");
            model.unfreeze("*").unwrap();
            assert_eq!(model.frozen_layers().count(), 0);
        }
        for pattern in ["block", "..", "", "nothing*", "..nothing"] {
            let error = net().freeze(pattern).unwrap_err().to_string();
            assert!(error.contains("no layer is named") && error.contains("stem_bn"), "{error}");
        }
    }

    #[test]
    fn a_layer_without_parameters_follows_its_readers() {
        let mut model = net();
        model.freeze("backbone").unwrap();
        let learns = model.layers_that_learn();
        let of = |name: &str| learns[model.network.architecture.layers.iter().position(|l| l.name == name).unwrap()];
        assert!(!of("stem_bn") && !of("inner") && of("outer") && of("classifier"));
        model.unfreeze("*").unwrap();
        model.fix_statistics("*").unwrap();
        let learns = model.layers_that_learn();
        assert_eq!(learns.iter().filter(|learns| !**learns).count(), 2);
    }

    #[test]
    fn rates_fall_with_each_halving() {
        let mut model = net();
        model.decay_learning_rate_by_depth(0.5).unwrap();
        let rates: Vec<f32> = model.learning.iter().map(|learning| learning.rate).collect();
        assert_eq!(rates, [0.25, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0]);
        model.set_learning_rate_factor("stem", 0.1).unwrap();
        assert_eq!(model.learning[0].rate, 0.1);
        assert!(model.set_learning_rate_factor("stem", f32::NAN).is_err());
        assert!(model.decay_learning_rate_by_depth(0.0).is_err());
    }
}
