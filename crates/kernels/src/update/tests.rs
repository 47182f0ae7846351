//! Steps against the definitions in double precision, over several steps, and against each other for any threads.

use super::*;
use crate::testing::{LENGTHS, close, values, wide};

const RULES: [Rule; 18] = [
    Rule::Sgd { momentum: 0.0, nesterov: false },
    Rule::Sgd { momentum: 0.9, nesterov: false },
    Rule::Sgd { momentum: 0.9, nesterov: true },
    Rule::RmsProp { rho: 0.9, momentum: 0.0, epsilon: 1e-7, centered: false },
    Rule::RmsProp { rho: 0.8, momentum: 0.0, epsilon: 1e-3, centered: true },
    Rule::RmsProp { rho: 0.9, momentum: 0.5, epsilon: 1e-7, centered: false },
    Rule::RmsProp { rho: 0.8, momentum: 0.5, epsilon: 1e-3, centered: true },
    Rule::Adagrad { epsilon: 1e-7 },
    Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, weight_decay: 0.0, amsgrad: false },
    Rule::Adam { beta_1: 0.7, beta_2: 0.9, epsilon: 1e-3, weight_decay: 0.1, amsgrad: false },
    Rule::Adam { beta_1: 0.9, beta_2: 0.9, epsilon: 1e-7, weight_decay: 0.0, amsgrad: true },
    Rule::Adam { beta_1: 0.9, beta_2: 0.5, epsilon: 1e-7, weight_decay: 0.1, amsgrad: true },
    Rule::Lion { beta_1: 0.9, beta_2: 0.99, weight_decay: 0.0 },
    Rule::Lion { beta_1: 0.5, beta_2: 0.9, weight_decay: 0.1 },
    Rule::Nadam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 },
    Rule::Nadam { beta_1: 0.7, beta_2: 0.9, epsilon: 1e-3 },
    Rule::Lamb { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7, weight_decay: 0.0 },
    Rule::Lamb { beta_1: 0.7, beta_2: 0.9, epsilon: 1e-3, weight_decay: 0.1 },
];

const PLAIN: Step =
    Step { learning_rate: 0.1, step: 1, gradient_scale: 1.0, clip_value: None, l1: 0.0, l2: 0.0, decay: 0.0 };
const STEPS: [Step; 5] = [
    PLAIN,
    Step { gradient_scale: 0.3, ..PLAIN },
    Step { clip_value: Some(0.5), l1: 0.02, ..PLAIN },
    Step { learning_rate: 0.03, clip_value: Some(2.0), l1: 0.02, l2: 0.3, gradient_scale: 0.7, ..PLAIN },
    Step { clip_value: Some(0.5), decay: 0.2, ..PLAIN },
];

/// The gradient that the rule sees.
fn gradient(step: &Step, parts: &[Vec<f32>], i: usize, p: f64) -> f64 {
    let mut g: f64 = parts.iter().map(|part| f64::from(part[i])).sum();
    g += f64::from(step.l1) * if p == 0.0 { 0.0 } else { p.signum() } + 2.0 * f64::from(step.l2) * p;
    g *= f64::from(step.gradient_scale);
    step.clip_value.map_or(g, |limit| g.clamp(-f64::from(limit), f64::from(limit))) + f64::from(step.decay) * p
}

/// One value's step, as Keras writes it. Of LAMB it is the direction alone, since its length depends on all values.
fn exact(rule: Rule, lr: f64, t: u64, g: f64, p: f64, s: &mut [f64]) -> f64 {
    match rule {
        Rule::Lion { beta_1, beta_2, weight_decay } => {
            let (b1, b2) = (f64::from(beta_1), f64::from(beta_2));
            let mixed = b1 * s[0] + (1.0 - b1) * g;
            s[0] = b2 * s[0] + (1.0 - b2) * g;
            p - lr * f64::from(weight_decay) * p - lr * if mixed == 0.0 { 0.0 } else { mixed.signum() }
        }
        Rule::Nadam { beta_1, beta_2, epsilon } => {
            let (b1, b2) = (f64::from(beta_1), f64::from(beta_2));
            let u = |t: u64| b1 * (1.0 - 0.5 * 0.96f64.powi(t as i32));
            let product = |t: u64| (1..=t).map(u).product::<f64>();
            s[0] += (g - s[0]) * (1.0 - b1);
            s[1] += (g * g - s[1]) * (1.0 - b2);
            let m = u(t + 1) * s[0] / (1.0 - product(t + 1)) + (1.0 - u(t)) * g / (1.0 - product(t));
            let v = s[1] / (1.0 - b2.powi(t as i32));
            p - m * lr / (v.sqrt() + f64::from(epsilon))
        }
        Rule::Lamb { beta_1, beta_2, epsilon, weight_decay } => {
            let (b1, b2) = (f64::from(beta_1), f64::from(beta_2));
            s[0] += (g - s[0]) * (1.0 - b1);
            s[1] += (g * g - s[1]) * (1.0 - b2);
            let (m, v) = (s[0] / (1.0 - b1.powi(t as i32)), s[1] / (1.0 - b2.powi(t as i32)));
            s[2] = m / (v.sqrt() + f64::from(epsilon)) + f64::from(weight_decay) * p;
            p
        }
        Rule::Sgd { momentum: 0.0, .. } => p - lr * g,
        Rule::Sgd { momentum, nesterov } => {
            s[0] = f64::from(momentum) * s[0] - lr * g;
            if nesterov { p + f64::from(momentum) * s[0] - lr * g } else { p + s[0] }
        }
        Rule::RmsProp { rho, momentum, epsilon, centered } => {
            let (rho, epsilon) = (f64::from(rho), f64::from(epsilon));
            s[0] = rho * s[0] + (1.0 - rho) * g * g;
            let mut denominator = s[0] + epsilon;
            if centered {
                let last = s.len() - 1;
                s[last] = rho * s[last] + (1.0 - rho) * g;
                denominator = s[0] - s[last] * s[last] + epsilon;
            }
            let increment = lr * g / denominator.sqrt();
            if momentum == 0.0 {
                return p - increment;
            }
            s[1] = f64::from(momentum) * s[1] + increment;
            p - s[1]
        }
        Rule::Adagrad { epsilon } => {
            s[0] += g * g;
            p - lr * g / (s[0] + f64::from(epsilon)).sqrt()
        }
        Rule::Adam { beta_1, beta_2, epsilon, weight_decay, amsgrad } => {
            let (b1, b2) = (f64::from(beta_1), f64::from(beta_2));
            let p = p - p * f64::from(weight_decay) * lr;
            let alpha = lr * (1.0 - b2.powi(t as i32)).sqrt() / (1.0 - b1.powi(t as i32));
            s[0] += (g - s[0]) * (1.0 - b1);
            s[1] += (g * g - s[1]) * (1.0 - b2);
            let mut v = s[1];
            if amsgrad {
                s[2] = s[2].max(v);
                v = s[2];
            }
            p - s[0] * alpha / (v.sqrt() + f64::from(epsilon))
        }
    }
}

fn slices(parts: &[Vec<f32>]) -> Vec<&[f32]> {
    parts.iter().map(Vec::as_slice).collect()
}

/// Three steps with changing gradients; the parameter after them.
fn run(pool: &mut Pool, level: Level, rule: Rule, step: &Step, len: usize, parts: usize) -> (Vec<f32>, Vec<Vec<f32>>) {
    let mut p = values(len, 100);
    let mut state: Vec<Vec<f32>> = (0..rule.state_count()).map(|k| vec![rule.state_initial(k); len]).collect();
    for t in 1..=3 {
        let gradients = gradients(len, parts, t);
        let mut arrays = state.iter_mut().map(Vec::as_mut_slice);
        let state = [arrays.next(), arrays.next(), arrays.next()];
        let step = Step { step: t, ..*step };
        apply(pool, level, rule, &step, &slices(&gradients), &mut p, state);
    }
    (p, state)
}

fn gradients(len: usize, parts: usize, t: u64) -> Vec<Vec<f32>> {
    (0..parts).map(|k| values(len, t * 10 + k as u64)).collect()
}

#[test]
fn steps_follow_the_definitions() {
    for level in Level::available() {
        for (rule, step) in RULES.iter().flat_map(|r| STEPS.iter().map(move |s| (*r, s))) {
            for (len, parts) in [(1, 1), (17, 2), (63, 1), (65, 3), (127, 2)] {
                let (got, got_state) = run(&mut Pool::new(1), level, rule, step, len, parts);
                let mut p = wide(&values(len, 100));
                let mut state = vec![vec![0.0; rule.state_count()]; len];
                for s in &mut state {
                    (0..s.len()).for_each(|k| s[k] = f64::from(rule.state_initial(k)));
                }
                for t in 1..=3 {
                    let gradients = gradients(len, parts, t);
                    for i in 0..len {
                        let g = gradient(step, &gradients, i, p[i]);
                        p[i] = exact(rule, f64::from(step.learning_rate), t, g, p[i], &mut state[i]);
                    }
                    if let Rule::Lamb { .. } = rule {
                        let length = |of: &mut dyn Iterator<Item = f64>| of.map(|v| v * v).sum::<f64>().sqrt();
                        let of_direction = length(&mut state.iter().map(|s| s[2]));
                        let ratio = length(&mut p.iter().copied()) / of_direction;
                        p.iter_mut().zip(&state).for_each(|(p, s)| *p -= f64::from(step.learning_rate) * ratio * s[2]);
                    }
                }
                let what = (level, rule, step, len, parts);
                close(what, &got, &p, 40.0, 3.0);
                for (k, got) in got_state.iter().enumerate() {
                    close((what, k), got, &state.iter().map(|s| s[k]).collect::<Vec<_>>(), 40.0, 3.0);
                }
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    const LEN: usize = 50_021;
    for rule in RULES {
        let one = run(&mut Pool::new(1), Level::detect(), rule, &STEPS[3], LEN, 2);
        for threads in [2, 3, 4] {
            assert!(
                one == run(&mut Pool::new(threads), Level::detect(), rule, &STEPS[3], LEN, 2),
                "{rule:?} {threads}"
            );
        }
    }
    let (parts, p) = (gradients(LEN, 3, 1), values(LEN, 100));
    let sums = [1, 2, 3, 4].map(|threads| {
        gradient_square_sum(&mut Pool::new(threads), Level::detect(), &STEPS[3], &slices(&parts), &p).to_bits()
    });
    assert!(sums.iter().all(|&sum| sum == sums[0]));
}

#[test]
fn square_sums_and_penalties_match_the_formulas() {
    for level in Level::available() {
        for len in LENGTHS.into_iter().chain([70_003]) {
            let (parts, p) = (gradients(len, 2, 1), values(len, 100));
            for step in &STEPS {
                let plain = Step { gradient_scale: 1.0, clip_value: None, decay: 0.0, ..*step };
                let want: f64 = (0..len).map(|i| gradient(&plain, &parts, i, f64::from(p[i])).powi(2)).sum();
                let got = gradient_square_sum(&mut Pool::new(2), level, step, &slices(&parts), &p);
                assert!((got - want).abs() <= 1e-6 * want, "{level:?} {len} {got} {want}");
            }
            let want: f64 = p.iter().map(|&p| 0.1 * f64::from(p.abs()) + 0.2 * f64::from(p).powi(2)).sum();
            assert!((penalty(0.1, 0.2, &p) - want).abs() <= 1e-6 * want, "{len}");
        }
    }
}

#[test]
fn penalties_have_no_gradient_at_zero() {
    let step = Step { l1: 0.5, l2: 0.5, ..PLAIN };
    let mut p = [0.0f32, -0.0];
    let rule = Rule::Sgd { momentum: 0.0, nesterov: false };
    apply(&mut Pool::new(1), Level::detect(), rule, &step, &[&[0.0; 2]], &mut p, [None, None, None]);
    assert_eq!(p, [0.0, 0.0]);
}

#[test]
fn nadam_late_in_a_training() {
    let rule = |beta_1| Rule::Nadam { beta_1, beta_2: 0.999, epsilon: 1e-7 };
    let after = |beta_1: f32, t: u64| {
        let step = Step { step: t, ..PLAIN };
        let (mut p, mut m, mut v) = ([0.5f32], [0.2f32], [0.09f32]);
        let state = [Some(&mut m[..]), Some(&mut v[..]), None];
        apply(&mut Pool::new(1), Level::detect(), rule(beta_1), &step, &[&[0.25]], &mut p, state);
        p[0]
    };
    let wanted = |beta_1: f32, t: u64| {
        exact(rule(beta_1), f64::from(PLAIN.learning_rate), t, 0.25, 0.5, &mut [f64::from(0.2f32), f64::from(0.09f32)])
    };
    for t in [1, 2, 3, 50, 899, 900, 901, 5000] {
        for beta_1 in [0.5, 0.9, 0.999, 0.9999] {
            let (got, want) = (after(beta_1, t), wanted(beta_1, t));
            assert!((f64::from(got) - want).abs() < 2e-6, "step {t}, beta_1 {beta_1}: {got} instead of {want}");
        }
    }
    // A step must not take longer the later it is.
    assert!(after(0.999_999_9, 1 << 40).is_finite());
}
