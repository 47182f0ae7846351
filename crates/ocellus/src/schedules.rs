//! How the learning rate changes from step to step.

use serde::{Deserialize, Serialize};

/// The learning rate as a function of the step (0 for the first). Names and formulas are Keras'; in files, a constant one is
/// a plain number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class", deny_unknown_fields)]
pub enum Schedule {
    /// One value until a boundary, another from there on.
    PiecewiseConstantDecay {
        /// The last step of each value but the last, ascending.
        boundaries: Vec<u64>,
        /// The learning rates, one more than there are boundaries.
        values: Vec<f32>,
    },
    /// `initial_learning_rate * decay_rate ^ (step / decay_steps)`
    ExponentialDecay {
        /// The first learning rate.
        initial_learning_rate: f32,
        /// Steps in which the rate falls by `decay_rate`.
        decay_steps: u64,
        /// The factor.
        decay_rate: f32,
        /// Whether it falls at once after each `decay_steps` steps and not all the time.
        #[serde(default)]
        staircase: bool,
    },
    /// Down along half a cosine for `decay_steps`, then constant; where there is a `warmup_target`, first linearly up to it.
    ///
    /// Loshchilov and Hutter, *SGDR: stochastic gradient descent with warm restarts*, 2017.
    CosineDecay {
        /// The first learning rate.
        initial_learning_rate: f32,
        /// Steps of the way down.
        decay_steps: u64,
        /// The last rate's share of the highest.
        #[serde(default)]
        alpha: f32,
        /// The rate that the way up leads to.
        #[serde(default)]
        warmup_target: Option<f32>,
        /// Steps of the way up.
        #[serde(default)]
        warmup_steps: u64,
    },
    /// Straight lines from point to point; before the first and after the last point constant.
    PiecewiseLinear {
        /// The steps of the points, ascending.
        steps: Vec<u64>,
        /// The learning rates there, as many.
        values: Vec<f32>,
    },
    /// `(initial_learning_rate - end_learning_rate) * (1 - step / decay_steps) ^ power + end_learning_rate`, then constant.
    PolynomialDecay {
        /// The first learning rate.
        initial_learning_rate: f32,
        /// Steps of the way down.
        decay_steps: u64,
        /// The last learning rate.
        #[serde(default = "ten_thousandth")]
        end_learning_rate: f32,
        /// 1 for a straight line.
        #[serde(default = "one")]
        power: f32,
        /// Whether the way down becomes longer by `decay_steps` each time its end is reached.
        #[serde(default)]
        cycle: bool,
    },
    /// Down along half a cosine again and again, each time from `m_mul` of the height before and for `t_mul` times as long.
    ///
    /// Loshchilov and Hutter, *SGDR: stochastic gradient descent with warm restarts*, 2017.
    CosineDecayRestarts {
        /// The first learning rate.
        initial_learning_rate: f32,
        /// Steps of the first way down.
        first_decay_steps: u64,
        /// How many times as long each way down is as the one before.
        #[serde(default = "two")]
        t_mul: f32,
        /// How many times as high each way down begins as the one before.
        #[serde(default = "one")]
        m_mul: f32,
        /// The last rate's share of the highest.
        #[serde(default)]
        alpha: f32,
    },
    /// Linearly up from zero for `steps`, then another schedule, whose own steps begin there.
    WarmUp {
        /// Steps of the way up.
        steps: u64,
        /// What follows; the way up leads to its first rate.
        then: Box<Schedule>,
    },
    /// Up along half a cosine, and down along another to almost nothing.
    ///
    /// Smith and Topin, *Super-convergence*, 2018; the formula is PyTorch's `OneCycleLR`'s.
    OneCycle {
        /// The rate at the top.
        #[serde(alias = "max_lr")]
        max_learning_rate: f32,
        /// Steps in all.
        total_steps: u64,
        /// The share of the steps that leads up.
        #[serde(default = "three_tenths")]
        pct_start: f32,
        /// The first rate is the highest divided by this.
        #[serde(default = "twenty_five")]
        div_factor: f32,
        /// The last rate is the first divided by this.
        #[serde(default = "ten_thousand")]
        final_div_factor: f32,
    },
    /// Always the same.
    #[serde(untagged)]
    Constant(f32),
}

fn one() -> f32 {
    1.0
}

fn two() -> f32 {
    2.0
}

fn ten_thousandth() -> f32 {
    1e-4
}

fn three_tenths() -> f32 {
    0.3
}

fn twenty_five() -> f32 {
    25.0
}

fn ten_thousand() -> f32 {
    1e4
}

impl From<f32> for Schedule {
    fn from(learning_rate: f32) -> Self {
        Schedule::Constant(learning_rate)
    }
}

impl Schedule {
    /// One value until each boundary: `values` has one more.
    pub fn piecewise_constant(boundaries: impl Into<Vec<u64>>, values: impl Into<Vec<f32>>) -> Self {
        Schedule::PiecewiseConstantDecay { boundaries: boundaries.into(), values: values.into() }
    }

    /// `initial_learning_rate * decay_rate ^ (step / decay_steps)`
    pub fn exponential(initial_learning_rate: f32, decay_steps: u64, decay_rate: f32) -> Self {
        Schedule::ExponentialDecay { initial_learning_rate, decay_steps, decay_rate, staircase: false }
    }

    /// Down along half a cosine to zero.
    pub fn cosine(initial_learning_rate: f32, decay_steps: u64) -> Self {
        Schedule::CosineDecay { initial_learning_rate, decay_steps, alpha: 0.0, warmup_target: None, warmup_steps: 0 }
    }

    /// Up to a peak and down again.
    pub fn one_cycle(max_learning_rate: f32, total_steps: u64) -> Self {
        Schedule::OneCycle {
            max_learning_rate,
            total_steps,
            pct_start: three_tenths(),
            div_factor: twenty_five(),
            final_div_factor: ten_thousand(),
        }
    }

    /// Straight lines between these learning rates at these steps.
    pub fn piecewise_linear(steps: impl Into<Vec<u64>>, values: impl Into<Vec<f32>>) -> Self {
        Schedule::PiecewiseLinear { steps: steps.into(), values: values.into() }
    }

    /// Down to `end_learning_rate` along a power of what remains.
    pub fn polynomial(initial_learning_rate: f32, decay_steps: u64, end_learning_rate: f32, power: f32) -> Self {
        Schedule::PolynomialDecay { initial_learning_rate, decay_steps, end_learning_rate, power, cycle: false }
    }

    /// Down along half a cosine again and again, each time `t_mul` times as long.
    pub fn cosine_restarts(initial_learning_rate: f32, first_decay_steps: u64, t_mul: f32) -> Self {
        Schedule::CosineDecayRestarts { initial_learning_rate, first_decay_steps, t_mul, m_mul: 1.0, alpha: 0.0 }
    }

    /// This schedule after a linear way up of so many steps.
    pub fn warm_up(self, steps: u64) -> Self {
        Schedule::WarmUp { steps, then: Box::new(self) }
    }

    /// The learning rate of a step, 0 for the first.
    pub fn at(&self, step: u64) -> f32 {
        self.exact_at(step) as f32
    }

    fn exact_at(&self, step: u64) -> f64 {
        match self {
            Schedule::Constant(learning_rate) => f64::from(*learning_rate),
            Schedule::PiecewiseConstantDecay { boundaries, values } => {
                let passed = boundaries.iter().filter(|&&boundary| step > boundary).count();
                values.get(passed).or(values.last()).map_or(0.0, |&value| f64::from(value))
            }
            Schedule::ExponentialDecay { initial_learning_rate, decay_steps, decay_rate, staircase } => {
                let passed = step as f64 / (*decay_steps).max(1) as f64;
                let passed = if *staircase { passed.floor() } else { passed };
                f64::from(*initial_learning_rate) * f64::from(*decay_rate).powf(passed)
            }
            Schedule::CosineDecay { initial_learning_rate, decay_steps, alpha, warmup_target, warmup_steps } => {
                let (initial, alpha) = (f64::from(*initial_learning_rate), f64::from(*alpha));
                let (top, warmup_steps) = match warmup_target {
                    Some(target) => (f64::from(*target), *warmup_steps),
                    None => (initial, 0),
                };
                match step.checked_sub(warmup_steps) {
                    None => linear(initial, top, step, warmup_steps),
                    Some(step) => {
                        let share = half_cosine(step as f64 / (*decay_steps).max(1) as f64);
                        top * (alpha + (1.0 - alpha) * share)
                    }
                }
            }
            Schedule::PiecewiseLinear { steps, values } => {
                let after = steps.iter().take_while(|&&at| at <= step).count();
                let value = |at: usize| values.get(at).or(values.last()).map_or(0.0, |&value| f64::from(value));
                match (after.checked_sub(1), steps.get(after)) {
                    (Some(before), Some(&next)) => {
                        linear(value(before), value(after), step - steps[before], next - steps[before])
                    }
                    (Some(before), None) => value(before),
                    (None, _) => value(0),
                }
            }
            Schedule::PolynomialDecay { initial_learning_rate, decay_steps, end_learning_rate, power, cycle } => {
                let (initial, end) = (f64::from(*initial_learning_rate), f64::from(*end_learning_rate));
                let passed = step as f64 / (*decay_steps).max(1) as f64;
                let passed = if *cycle { passed / passed.ceil().max(1.0) } else { passed.min(1.0) };
                (initial - end) * (1.0 - passed).powf(f64::from(*power)) + end
            }
            Schedule::CosineDecayRestarts { initial_learning_rate, first_decay_steps, t_mul, m_mul, alpha } => {
                let (t_mul, alpha) = (f64::from(*t_mul), f64::from(*alpha));
                let passed = step as f64 / (*first_decay_steps).max(1) as f64;
                // How many ways down are over, and how far the present one is.
                let (over, passed) = if t_mul > 1.0 {
                    let over = ((1.0 + passed * (t_mul - 1.0)).ln() / t_mul.ln()).floor();
                    let length = t_mul.powf(over);
                    (over, (passed - (length - 1.0) / (t_mul - 1.0)) / length)
                } else {
                    (passed.floor(), passed.fract())
                };
                let height = f64::from(*m_mul).powf(over) * half_cosine(passed);
                f64::from(*initial_learning_rate) * ((1.0 - alpha) * height + alpha)
            }
            Schedule::WarmUp { steps, then } => match step.checked_sub(*steps) {
                Some(after) => then.exact_at(after),
                None => linear(0.0, then.exact_at(0), step, *steps),
            },
            Schedule::OneCycle { max_learning_rate, total_steps, pct_start, div_factor, final_div_factor } => {
                let highest = f64::from(*max_learning_rate);
                let first = highest / f64::from(*div_factor);
                let last = first / f64::from(*final_div_factor);
                let (step, end) = (step as f64, (*total_steps).max(2) as f64 - 1.0);
                let top = (f64::from(*pct_start) * (end + 1.0) - 1.0).max(0.0);
                let between = |from: f64, to: f64, passed: f64| to + (from - to) * half_cosine(passed);
                if step < top {
                    between(first, highest, step / top)
                } else {
                    between(highest, last, (step - top) / (end - top).max(1.0))
                }
            }
        }
    }
}

fn linear(from: f64, to: f64, step: u64, steps: u64) -> f64 {
    from + (to - from) * step as f64 / steps as f64
}

/// From 1 at 0 to 0 at 1, and constant beyond.
fn half_cosine(passed: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * passed.clamp(0.0, 1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;

    fn check(schedule: &Schedule, steps: &[f32], rates: &[f32]) {
        for (&step, &rate) in steps.iter().zip(rates) {
            let found = schedule.at(step as u64);
            assert!((found - rate).abs() <= 2e-6 * rate.abs().max(1e-2), "{schedule:?} at {step}: {found}, not {rate}");
        }
    }

    #[test]
    fn agree_with_keras() {
        let golden = Golden::read("schedules");
        let steps = golden.tensor("steps");
        for case in ["exponential", "exponential_staircase", "cosine", "cosine_warmup", "piecewise_constant"] {
            check(&golden.case(case), &steps, &golden.tensor(case));
        }
    }

    #[test]
    fn one_cycle_agrees_with_pytorch() {
        let golden = Golden::read("one_cycle");
        for case in ["one_cycle", "one_cycle_short_rise"] {
            let rates = golden.tensor(case);
            let steps: Vec<f32> = (0..rates.len()).map(|step| step as f32).collect();
            check(&golden.case_of("OneCycle", case), &steps, &rates);
        }
    }

    /// Values from Keras 3's formulas, worked out apart.
    #[test]
    fn lines_powers_and_restarts() {
        let line = Schedule::piecewise_linear([10, 20, 30], [1.0, 3.0, 0.0]);
        check(&line, &[0.0, 10.0, 15.0, 20.0, 25.0, 30.0, 99.0], &[1.0, 1.0, 2.0, 3.0, 1.5, 0.0, 0.0]);
        let power = Schedule::polynomial(0.1, 100, 0.02, 2.0);
        check(&power, &[0.0, 50.0, 90.0, 100.0, 200.0], &[0.1, 0.04, 0.0208, 0.02, 0.02]);
        let cycle = Schedule::PolynomialDecay {
            initial_learning_rate: 0.1,
            decay_steps: 100,
            end_learning_rate: 0.0,
            power: 1.0,
            cycle: true,
        };
        check(&cycle, &[0.0, 50.0, 100.0, 150.0, 300.0], &[0.1, 0.05, 0.0, 0.025, 0.0]);
        let restarts = Schedule::cosine_restarts(0.1, 10, 2.0);
        check(&restarts, &[0.0, 5.0, 10.0, 20.0, 30.0, 50.0, 70.0], &[0.1, 0.05, 0.1, 0.05, 0.1, 0.05, 0.1]);
        let lower = Schedule::CosineDecayRestarts {
            initial_learning_rate: 0.1,
            first_decay_steps: 10,
            t_mul: 1.0,
            m_mul: 0.5,
            alpha: 0.1,
        };
        check(&lower, &[0.0, 5.0, 10.0, 15.0, 25.0], &[0.1, 0.055, 0.055, 0.0325, 0.02125]);
    }

    #[test]
    fn warm_up_leads_to_the_schedule() {
        let schedule = Schedule::from(0.1).warm_up(10);
        check(&schedule, &[0.0, 5.0, 9.0, 10.0, 11.0], &[0.0, 0.05, 0.09, 0.1, 0.1]);
        let json = serde_json::to_string(&schedule).unwrap();
        assert_eq!(json, r#"{"class":"WarmUp","steps":10,"then":0.1}"#);
        assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
    }

    #[test]
    fn senseless_arguments_give_finite_rates() {
        for schedule in [
            Schedule::piecewise_constant([], []),
            Schedule::exponential(0.1, 0, 0.5),
            Schedule::cosine(0.1, 0),
            Schedule::one_cycle(0.1, 0),
            Schedule::one_cycle(0.1, 1),
            Schedule::from(0.1).warm_up(0),
            Schedule::piecewise_linear([], []),
            Schedule::piecewise_linear([3, 3], [1.0]),
            Schedule::polynomial(0.1, 0, 0.0, 1.0),
            Schedule::cosine_restarts(0.1, 0, 0.0),
        ] {
            assert!((0..5).all(|step| schedule.at(step).is_finite()), "{schedule:?}");
        }
    }
}
