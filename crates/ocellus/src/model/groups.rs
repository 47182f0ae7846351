//! Parameters that learn in their own way: other rates, other decay, or not at all.

use super::{Model, ModelError};
use serde::{Deserialize, Serialize};

/// What sets some parameters apart in a training.
///
/// ```
/// use ocellus::model::ParameterGroup;
/// let shifts = ParameterGroup::new("*/beta").learning_rate(64.0).weight_decay(0.0);
/// let backbone = ParameterGroup::new("block*").frozen();
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// Which: a parameter's name, `layer/variable`, in which `*` stands for any text. Where several groups have a parameter, the
    /// last one counts.
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
    /// The parameters of these names; they learn as all others do.
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

/// How the parameter of this name learns in an epoch.
pub(super) fn share_of(groups: &[ParameterGroup], epoch: u64, name: &str) -> Share {
    match groups.iter().rev().find(|group| matches(&group.parameters, name)) {
        None => Share { learning_rate: 1.0, weight_decay: 1.0 },
        Some(group) if group.epochs.is_some_and(|epochs| epoch >= epochs) => {
            Share { learning_rate: 0.0, weight_decay: 0.0 }
        }
        Some(group) => Share { learning_rate: group.learning_rate, weight_decay: group.weight_decay },
    }
}

impl Model {
    /// Refuses groups that would do nothing, or nothing sensible.
    pub(super) fn check_groups(&self, groups: &[ParameterGroup]) -> Result<(), ModelError> {
        for ParameterGroup { parameters, learning_rate, weight_decay, .. } in groups {
            if !self.weights().any(|(name, ..)| matches(parameters, name)) {
                let some: Vec<&str> = self.weights().map(|(name, ..)| name).take(6).collect();
                return Err(ModelError::Argument(format!(
                    "no parameter's name is {parameters:?}; the model has {} …",
                    some.join(", ")
                )));
            }
            if !(learning_rate.is_finite() && *learning_rate >= 0.0 && weight_decay.is_finite()) {
                return Err(ModelError::Argument(format!(
                    "{parameters}: expected a learning_rate of at least 0 and a finite weight_decay, received \
                     {learning_rate} and {weight_decay}"
                )));
            }
        }
        Ok(())
    }
}

/// Whether a name is what a pattern says, in which `*` stands for any text.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("conv/kernel", "conv/kernel", true),
            ("conv", "conv/kernel", false),
            ("conv*", "conv/kernel", true),
            ("*/beta", "norm1/beta", true),
            ("*/beta", "norm1/beta2", false),
            ("*", "", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("ab*ba", "aba", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_last_group_counts_until_its_epoch() {
        let groups =
            [ParameterGroup::new("*").learning_rate(0.5), ParameterGroup::new("a/*").weight_decay(0.0).epochs(3)];
        let rates = [0, 2, 3].map(|epoch| share_of(&groups, epoch, "a/bias").learning_rate);
        assert_eq!(rates, [1.0, 1.0, 0.0]);
        assert_eq!(share_of(&groups, 5, "b/bias"), Share { learning_rate: 0.5, weight_decay: 1.0 });
        assert_eq!(share_of(&[], 0, "b/bias"), Share { learning_rate: 1.0, weight_decay: 1.0 });
    }
}
