//! The optimizers' formulas on vectors.

use super::Step;
use crate::isa::Isa;

/// One optimizer with `N` arrays of state.
pub(super) trait Formula<const N: usize>: Copy + Sync {
    /// From gradient, parameter and state to the new parameter and state.
    fn apply<I: Isa>(&self, isa: I, g: I::F32, p: I::F32, s: [I::F32; N]) -> (I::F32, [I::F32; N]);
}

#[derive(Clone, Copy)]
pub(super) struct Sgd {
    pub(super) lr: f32,
}

impl Formula<0> for Sgd {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, g: I::F32, p: I::F32, s: [I::F32; 0]) -> (I::F32, [I::F32; 0]) {
        (isa.mul_add(isa.splat(-self.lr), g, p), s)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Momentum<const NESTEROV: bool> {
    pub(super) lr: f32,
    pub(super) momentum: f32,
}

impl<const NESTEROV: bool> Formula<1> for Momentum<NESTEROV> {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, g: I::F32, p: I::F32, [m]: [I::F32; 1]) -> (I::F32, [I::F32; 1]) {
        let (momentum, move_by) = (isa.splat(self.momentum), isa.mul(isa.splat(-self.lr), g));
        let m = isa.mul_add(momentum, m, move_by);
        let change = if NESTEROV { isa.mul_add(momentum, m, move_by) } else { m };
        (isa.add(p, change), [m])
    }
}

#[derive(Clone, Copy)]
pub(super) struct RmsProp<const MOMENTUM: bool, const CENTERED: bool, const N: usize> {
    lr: f32,
    rho: f32,
    rest: f32,
    momentum: f32,
    epsilon: f32,
}

impl<const MOMENTUM: bool, const CENTERED: bool, const N: usize> RmsProp<MOMENTUM, CENTERED, N> {
    pub(super) fn new(lr: f32, rho: f32, momentum: f32, epsilon: f32) -> Self {
        RmsProp { lr, rho, rest: rest(rho), momentum, epsilon }
    }
}

impl<const MOMENTUM: bool, const CENTERED: bool, const N: usize> Formula<N> for RmsProp<MOMENTUM, CENTERED, N> {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, g: I::F32, p: I::F32, mut s: [I::F32; N]) -> (I::F32, [I::F32; N]) {
        let (rho, rest) = (isa.splat(self.rho), isa.splat(self.rest));
        s[0] = isa.mul_add(rho, s[0], isa.mul(rest, isa.mul(g, g)));
        let mut under_root = isa.add(s[0], isa.splat(self.epsilon));
        if CENTERED {
            let a = isa.mul_add(rho, s[N - 1], isa.mul(rest, g));
            s[N - 1] = a;
            under_root = isa.add(isa.sub(s[0], isa.mul(a, a)), isa.splat(self.epsilon));
        }
        let mut change = isa.div(isa.mul(isa.splat(self.lr), g), isa.sqrt(under_root));
        if MOMENTUM {
            change = isa.mul_add(isa.splat(self.momentum), s[1], change);
            s[1] = change;
        }
        (isa.sub(p, change), s)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Adagrad {
    pub(super) lr: f32,
    pub(super) epsilon: f32,
}

impl Formula<1> for Adagrad {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, g: I::F32, p: I::F32, [v]: [I::F32; 1]) -> (I::F32, [I::F32; 1]) {
        let v = isa.mul_add(g, g, v);
        let root = isa.sqrt(isa.add(v, isa.splat(self.epsilon)));
        (isa.sub(p, isa.div(isa.mul(isa.splat(self.lr), g), root)), [v])
    }
}

#[derive(Clone, Copy)]
pub(super) struct Adam<const AMSGRAD: bool, const N: usize> {
    alpha: f32,
    rest_1: f32,
    rest_2: f32,
    epsilon: f32,
    decay: f32,
}

impl<const AMSGRAD: bool, const N: usize> Adam<AMSGRAD, N> {
    pub(super) fn new(step: &Step, beta_1: f32, beta_2: f32, epsilon: f32, weight_decay: f32) -> Self {
        let t = step.step as f64;
        // In double precision: 1 - 0.999^t has few digits left in single.
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(t);
        let alpha = f64::from(step.learning_rate) * correction(beta_2).sqrt() / correction(beta_1);
        Adam {
            alpha: alpha as f32,
            rest_1: rest(beta_1),
            rest_2: rest(beta_2),
            epsilon,
            decay: step.learning_rate * weight_decay,
        }
    }
}

impl<const AMSGRAD: bool, const N: usize> Formula<N> for Adam<AMSGRAD, N> {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, g: I::F32, p: I::F32, mut s: [I::F32; N]) -> (I::F32, [I::F32; N]) {
        let p = isa.mul_add(isa.splat(-self.decay), p, p);
        s[0] = isa.mul_add(isa.sub(g, s[0]), isa.splat(self.rest_1), s[0]);
        s[1] = isa.mul_add(isa.sub(isa.mul(g, g), s[1]), isa.splat(self.rest_2), s[1]);
        let mut v = s[1];
        if AMSGRAD {
            v = isa.max(s[2], v);
            s[2] = v;
        }
        let root = isa.add(isa.sqrt(v), isa.splat(self.epsilon));
        (isa.sub(p, isa.div(isa.mul(s[0], isa.splat(self.alpha)), root)), s)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Lion {
    lr: f32,
    beta_1: f32,
    beta_2: f32,
    rest_1: f32,
    rest_2: f32,
    decay: f32,
}

impl Lion {
    pub(super) fn new(lr: f32, beta_1: f32, beta_2: f32, weight_decay: f32) -> Self {
        let (rest_1, rest_2) = (rest(beta_1), rest(beta_2));
        Lion { lr, beta_1, beta_2, rest_1, rest_2, decay: lr * weight_decay }
    }
}

impl Formula<1> for Lion {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, g: I::F32, p: I::F32, [m]: [I::F32; 1]) -> (I::F32, [I::F32; 1]) {
        let p = isa.mul_add(isa.splat(-self.decay), p, p);
        let mixed = isa.mul_add(isa.splat(self.beta_1), m, isa.mul(isa.splat(self.rest_1), g));
        let down = isa.select(isa.greater(mixed, isa.zero()), isa.splat(self.lr), isa.zero());
        let up = isa.select(isa.greater(isa.zero(), mixed), isa.splat(self.lr), isa.zero());
        let m = isa.mul_add(isa.splat(self.beta_2), m, isa.mul(isa.splat(self.rest_2), g));
        (isa.add(isa.sub(p, down), up), [m])
    }
}

#[derive(Clone, Copy)]
pub(super) struct Nadam {
    lr: f32,
    rest_1: f32,
    rest_2: f32,
    of_mean: f32,
    of_gradient: f32,
    of_square: f32,
    epsilon: f32,
}

impl Nadam {
    pub(super) fn new(step: &Step, beta_1: f32, beta_2: f32, epsilon: f32) -> Self {
        let t = step.step as f64;
        let share = |t: f64| f64::from(beta_1) * (1.0 - 0.5 * 0.96f64.powf(t));
        // The product of all shares so far. What tells them from beta_1 can no longer be seen in double precision at 0.96^900.
        let (mut product, mut power) = (f64::from(beta_1).powf(t), 1.0);
        for _ in 0..step.step.min(900) {
            power *= 0.96;
            product *= 1.0 - 0.5 * power;
        }
        let (now, next) = (share(t), share(t + 1.0));
        Nadam {
            lr: step.learning_rate,
            rest_1: rest(beta_1),
            rest_2: rest(beta_2),
            of_mean: (next / (1.0 - product * next)) as f32,
            of_gradient: ((1.0 - now) / (1.0 - product)) as f32,
            of_square: (1.0 / (1.0 - f64::from(beta_2).powf(t))) as f32,
            epsilon,
        }
    }
}

impl Formula<2> for Nadam {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, g: I::F32, p: I::F32, [m, v]: [I::F32; 2]) -> (I::F32, [I::F32; 2]) {
        let m = isa.mul_add(isa.sub(g, m), isa.splat(self.rest_1), m);
        let v = isa.mul_add(isa.sub(isa.mul(g, g), v), isa.splat(self.rest_2), v);
        let mean = isa.mul_add(isa.splat(self.of_mean), m, isa.mul(isa.splat(self.of_gradient), g));
        let root = isa.add(isa.sqrt(isa.mul(v, isa.splat(self.of_square))), isa.splat(self.epsilon));
        (isa.sub(p, isa.div(isa.mul(isa.splat(self.lr), mean), root)), [m, v])
    }
}

/// The direction that LAMB goes, in the last array of state; the parameter stays.
#[derive(Clone, Copy)]
pub(super) struct LambDirection {
    rest_1: f32,
    rest_2: f32,
    of_mean: f32,
    of_square: f32,
    epsilon: f32,
    decay: f32,
}

impl LambDirection {
    pub(super) fn new(step: u64, beta_1: f32, beta_2: f32, epsilon: f32, weight_decay: f32) -> Self {
        let correction = |beta: f32| (1.0 / (1.0 - f64::from(beta).powf(step as f64))) as f32;
        LambDirection {
            rest_1: rest(beta_1),
            rest_2: rest(beta_2),
            of_mean: correction(beta_1),
            of_square: correction(beta_2),
            epsilon,
            decay: weight_decay,
        }
    }
}

impl Formula<3> for LambDirection {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, g: I::F32, p: I::F32, [m, v, _]: [I::F32; 3]) -> (I::F32, [I::F32; 3]) {
        let m = isa.mul_add(isa.sub(g, m), isa.splat(self.rest_1), m);
        let v = isa.mul_add(isa.sub(isa.mul(g, g), v), isa.splat(self.rest_2), v);
        let root = isa.add(isa.sqrt(isa.mul(v, isa.splat(self.of_square))), isa.splat(self.epsilon));
        let direction = isa.div(isa.mul(m, isa.splat(self.of_mean)), root);
        (p, [m, v, isa.mul_add(isa.splat(self.decay), p, direction)])
    }
}

/// `1 - x`, rounded once.
fn rest(x: f32) -> f32 {
    (1.0 - f64::from(x)) as f32
}
