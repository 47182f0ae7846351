//! Averages of the weights over the steps of a training, which often generalise better than the last weights.

use super::{Model, Snapshot};
use serde::{Deserialize, Serialize};

/// Which weights a training ends with, instead of the last step's. Statistics such as moving means are averaged alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class", deny_unknown_fields)]
pub enum Averaging {
    /// Slow weights move towards the fast ones every few steps, and the fast ones go on from there. What the slow weights keep
    /// of themselves, `decay`, grows over the training with the given power of its progress, and at the end they are taken.
    ///
    /// Zhang, Lucas, Hinton and Ba, *Lookahead optimizer: k steps forward, 1 step back*, 2019.
    Lookahead {
        /// Steps between two moves.
        every: u64,
        /// What the slow weights keep of themselves at the end of the training.
        decay: f32,
        /// The power; 0 for the same decay at all times.
        #[serde(default)]
        power: f32,
    },
    /// An exponential moving average that training does not see: `average += (1 - decay) * (weight - average)`. It is what is
    /// validated, saved and left in the end. In the first steps the decay is at most `(1 + n) / (10 + n)`.
    Exponential {
        /// What the average keeps of itself at each step.
        decay: f32,
    },
    /// The mean of the weights after each epoch, from a share of the epochs on; the moving statistics of batch normalisation are
    /// measured anew in the end, in one more epoch without learning.
    ///
    /// Izmailov et al., *Averaging weights leads to wider optima and better generalization*, 2018.
    Stochastic {
        /// The share of the epochs that is not averaged over.
        from: f32,
    },
}

impl Averaging {
    /// What is wrong with the arguments.
    pub(crate) fn problem(&self) -> Option<String> {
        let share = |name: &str, value: f32| {
            (!(0.0..=1.0).contains(&value))
                .then(|| format!("averaging: expected a {name} from 0 to 1, received {value}"))
        };
        match *self {
            Averaging::Lookahead { every: 0, .. } => Some("averaging: every must be at least 1, received 0".into()),
            Averaging::Lookahead { power, .. } if !(power >= 0.0 && power.is_finite()) => {
                Some(format!("averaging: expected a power of at least 0, received {power}"))
            }
            Averaging::Lookahead { decay, .. } | Averaging::Exponential { decay } => share("decay", decay),
            Averaging::Stochastic { from } => share("from", from),
        }
    }
}

/// An average in the making.
pub(super) struct Average {
    averaging: Averaging,
    /// The average; while the two are exchanged, the weights that training goes on with.
    pub(super) slow: Snapshot,
    pub(super) exchanged: bool,
    /// How many weights are in the mean.
    pub(super) epochs: u64,
}

impl Average {
    pub(super) fn new(averaging: Averaging, model: &Model) -> Self {
        Average { averaging, slow: model.snapshot(), exchanged: false, epochs: 0 }
    }

    /// After a step, counted from 1, of so many.
    pub(super) fn after_step(&mut self, model: &mut Model, step: u64, steps: u64) {
        match self.averaging {
            Averaging::Lookahead { every, decay, power } => {
                if step.is_multiple_of(every) {
                    let kept = decay * (step as f32 / steps.max(1) as f32).powf(power);
                    model.merge(&mut self.slow, |slow, fast| {
                        *slow += (1.0 - kept) * (*fast - *slow);
                        *fast = *slow;
                    });
                }
                if step == steps {
                    model.merge(&mut self.slow, |slow, fast| *fast = *slow);
                }
            }
            Averaging::Exponential { decay } => {
                let rest = 1.0 - decay.min((1 + step) as f32 / (10 + step) as f32);
                model.merge(&mut self.slow, |slow, fast| *slow += rest * (*fast - *slow));
            }
            Averaging::Stochastic { .. } => {}
        }
    }

    /// After the last step of an epoch, of so many: puts the average in the weights' place where that is what counts.
    pub(super) fn after_epoch(&mut self, model: &mut Model, epoch: u64, epochs: u64) {
        match self.averaging {
            Averaging::Lookahead { .. } => {}
            Averaging::Exponential { .. } => self.exchange(model),
            Averaging::Stochastic { from } => {
                if (epoch + 1) as f64 > f64::from(from) * epochs as f64 || epoch + 1 == epochs {
                    self.epochs += 1;
                    let share = 1.0 / self.epochs as f32;
                    model.merge(&mut self.slow, |slow, fast| *slow += share * (*fast - *slow));
                }
            }
        }
    }

    /// Before the first step of an epoch.
    pub(super) fn before_epoch(&mut self, model: &mut Model) {
        if self.exchanged {
            self.exchange(model);
        }
    }

    /// After the last epoch; whether batch normalisation has to be measured anew.
    pub(super) fn finish(&mut self, model: &mut Model) -> bool {
        let mean = matches!(self.averaging, Averaging::Stochastic { .. }) && self.epochs > 0;
        if mean {
            model.merge(&mut self.slow, |slow, fast| *fast = *slow);
        }
        mean
    }

    fn exchange(&mut self, model: &mut Model) {
        model.merge(&mut self.slow, std::mem::swap);
        self.exchanged = !self.exchanged;
    }
}

impl Model {
    /// Changes the weights together with a copy of them, value by value, without new memory.
    fn merge(&mut self, snapshot: &mut Snapshot, change: impl Fn(&mut f32, &mut f32)) {
        for (&id, copies) in self.layer_parameters.iter().flatten().zip(&mut snapshot.values) {
            let values = self.parameters.values_mut(id);
            copies.iter_mut().zip(values).for_each(|(copy, value)| change(copy, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Dense;
    use crate::model::Sequential;

    fn model(value: f32) -> Model {
        let mut model = Sequential::new([1]).add(Dense::new(1)).build().unwrap();
        model.set_weight("dense/kernel", &[value]).unwrap();
        model
    }

    fn value(model: &Model) -> f32 {
        model.weights().next().unwrap().2[0]
    }

    /// The weight after each step, where every step adds 1 to it.
    fn steps(average: &mut Average, model: &mut Model, count: u64) -> Vec<f32> {
        let mut values = Vec::new();
        for step in 1..=count {
            let next = value(model) + 1.0;
            model.set_weight("dense/kernel", &[next]).unwrap();
            average.after_step(model, step, count);
            values.push(value(model));
        }
        values
    }

    #[test]
    fn lookahead_goes_back() {
        let mut model = model(0.0);
        let mut average = Average::new(Averaging::Lookahead { every: 2, decay: 0.5, power: 0.0 }, &model);
        assert_eq!(steps(&mut average, &mut model, 5), [1.0, 1.0, 2.0, 2.0, 2.0]);
        // With power 1 the decay after 2 of 4 steps is a quarter.
        let mut model = self::model(0.0);
        let mut average = Average::new(Averaging::Lookahead { every: 2, decay: 0.5, power: 1.0 }, &model);
        assert_eq!(steps(&mut average, &mut model, 4), [1.0, 1.5, 2.5, 2.5]);
    }

    #[test]
    fn the_moving_average_stands_in_between_epochs() {
        let mut model = model(0.0);
        let mut average = Average::new(Averaging::Exponential { decay: 0.5 }, &model);
        // At most 2/11 and 3/12 are kept in the first steps.
        assert_eq!(steps(&mut average, &mut model, 2), [1.0, 2.0]);
        average.after_epoch(&mut model, 0, 2);
        let expected = 9.0 / 11.0 + 0.75 * (2.0 - 9.0 / 11.0);
        assert!((value(&model) - expected).abs() < 1e-6, "{}", value(&model));
        average.before_epoch(&mut model);
        assert_eq!(value(&model), 2.0);
        assert!(!average.finish(&mut model));
    }

    #[test]
    fn the_mean_is_over_the_last_epochs() {
        let mut model = model(0.0);
        let mut average = Average::new(Averaging::Stochastic { from: 0.5 }, &model);
        for epoch in 0..4 {
            model.set_weight("dense/kernel", &[epoch as f32]).unwrap();
            average.after_epoch(&mut model, epoch, 4);
        }
        assert!(average.finish(&mut model));
        assert_eq!(value(&model), 2.5);
    }

    #[test]
    fn senseless_arguments_are_named() {
        for (averaging, problem) in [
            (Averaging::Lookahead { every: 0, decay: 0.5, power: 0.0 }, "every"),
            (Averaging::Exponential { decay: 1.5 }, "decay"),
            (Averaging::Stochastic { from: f32::NAN }, "from"),
        ] {
            assert!(averaging.problem().unwrap().contains(problem));
        }
        assert_eq!(Averaging::Exponential { decay: 0.999 }.problem(), None);
    }
}
