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
        Rule::Muon { .. } => unreachable!("depends on all values"),
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
        apply(pool, level, rule, &step, &slices(&gradients), &mut p, state, &mut [], Default::default());
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
    apply(
        &mut Pool::new(1),
        Level::detect(),
        rule,
        &step,
        &[&[0.0; 2]],
        &mut p,
        [None, None, None],
        &mut [],
        Default::default(),
    );
    assert_eq!(p, [0.0, 0.0]);
}

#[test]
fn nadam_late_in_a_training() {
    let rule = |beta_1| Rule::Nadam { beta_1, beta_2: 0.999, epsilon: 1e-7 };
    let after = |beta_1: f32, t: u64| {
        let step = Step { step: t, ..PLAIN };
        let (mut p, mut m, mut v) = ([0.5f32], [0.2f32], [0.09f32]);
        let state = [Some(&mut m[..]), Some(&mut v[..]), None];
        apply(
            &mut Pool::new(1),
            Level::detect(),
            rule(beta_1),
            &step,
            &[&[0.25]],
            &mut p,
            state,
            &mut [],
            Default::default(),
        );
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

/// Three steps of Muon as Jordan writes them, in double precision, of a parameter `[inputs][outputs]`.
fn exact_muon(step: &Step, [inputs, outputs]: [usize; 2], parts: usize, nesterov: bool) -> Vec<f64> {
    let len = inputs * outputs;
    let (mut p, mut m) = (wide(&values(len, 100)), vec![0.0; len]);
    let (momentum, decay, lr) = (f64::from(0.95f32), f64::from(0.1f32), f64::from(step.learning_rate));
    for t in 1..=3 {
        let gradients = gradients(len, parts, t);
        let g: Vec<f64> = (0..len).map(|i| gradient(step, &gradients, i, p[i])).collect();
        m.iter_mut().zip(&g).for_each(|(m, g)| *m += (1.0 - momentum) * (g - *m));
        let ahead = |(m, g): (&f64, &f64)| if nesterov { g + momentum * (m - g) } else { *m };
        let direction: Vec<f64> = m.iter().zip(&g).map(ahead).collect();
        let norm = direction.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-7;
        let mut x: Vec<f64> = direction.iter().map(|v| v / norm).collect();
        for _ in 0..5 {
            let square =
                |i: usize, j: usize| (0..outputs).map(|k| x[i * outputs + k] * x[j * outputs + k]).sum::<f64>();
            let a: Vec<f64> = (0..inputs * inputs).map(|n| square(n / inputs, n % inputs)).collect();
            let product = |i: usize, j: usize| (0..inputs).map(|k| a[i * inputs + k] * a[k * inputs + j]).sum::<f64>();
            let b: Vec<f64> =
                (0..inputs * inputs).map(|n| -4.7750 * a[n] + 2.0315 * product(n / inputs, n % inputs)).collect();
            let next = |n: usize| {
                let (i, j) = (n / outputs, n % outputs);
                3.4445 * x[n] + (0..inputs).map(|k| b[i * inputs + k] * x[k * outputs + j]).sum::<f64>()
            };
            x = (0..len).map(next).collect();
        }
        let scale = (outputs as f64 / inputs as f64).max(1.0).sqrt();
        p.iter_mut().zip(x).for_each(|(p, x)| *p = *p * (1.0 - lr * decay) - lr * scale * x);
    }
    p
}

fn run_muon(pool: &mut Pool, level: Level, step: &Step, shape: [usize; 2], parts: usize, nesterov: bool) -> Vec<f32> {
    let ([inputs, outputs], len) = (shape, shape[0] * shape[1]);
    let rule = Rule::Muon { momentum: 0.95, nesterov, weight_decay: 0.1, inputs, outputs };
    let (mut p, mut m) = (values(len, 100), vec![0.0; len]);
    // Memory that another parameter has left numbers in.
    let mut scratch = vec![0.7; rule.scratch_len(level) + 5];
    for t in 1..=3 {
        let gradients = gradients(len, parts, t);
        let (state, step) = ([Some(&mut m[..]), None, None], Step { step: t, ..*step });
        apply(pool, level, rule, &step, &slices(&gradients), &mut p, state, &mut scratch, Default::default());
    }
    p
}

#[test]
fn muon_makes_matrices_orthogonal() {
    for level in Level::available() {
        for (step, nesterov) in [(&STEPS[0], true), (&STEPS[0], false), (&STEPS[3], true), (&STEPS[4], true)] {
            for (shape, parts) in [
                ([1, 1], 1),
                ([1, 7], 2),
                ([9, 1], 1),
                ([5, 5], 3),
                ([27, 16], 1),
                ([16, 27], 2),
                ([50, 33], 1),
                ([33, 120], 1),
            ] {
                let found = run_muon(&mut Pool::new(2), level, step, shape, parts, nesterov);
                let expected = exact_muon(step, shape, parts, nesterov);
                for (found, expected) in found.iter().zip(expected) {
                    let difference = (f64::from(*found) - expected).abs();
                    assert!(difference < 2e-5, "{level:?} {shape:?} {nesterov}: {found}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn muon_is_the_same_for_any_threads() {
    for shape in [[200, 120], [120, 200]] {
        let one = run_muon(&mut Pool::new(1), Level::detect(), &STEPS[0], shape, 2, true);
        for threads in [2, 3, 4] {
            assert!(one == run_muon(&mut Pool::new(threads), Level::detect(), &STEPS[0], shape, 2, true));
        }
    }
}

/// Parameters after three steps of `torch.optim.Muon` in single precision, by `reference/golden_muon.py`: outputs, inputs, numbers.
#[test]
#[rustfmt::skip]
fn muon_is_pytorchs() {
    let cases: [([usize; 2], &[f64]); 3] = [
        ([4, 6], &[0.2243092, 0.9507267, 0.7443336, 0.09230834, 0.6842791, -0.9968167, -0.9817731, 0.9390455, 0.7752303, -0.1620685, 0.6577942, -0.9457314, 0.138549, -0.9332149, 0.4429387, -0.4733288, 0.9633726, 0.9986604, -0.9158741, -0.9905931, 0.9803775, 0.799372, -0.07469138, 0.9078777]),
        ([6, 4], &[0.1910487, 0.9532045, 0.7232112, 0.1051924, 0.6964641, -0.9986017, -1.002931, 0.9337471, 0.8165276, -0.1408657, 0.6896619, -0.9261372, 0.1484957, -0.9665076, 0.4503087, -0.4903248, 0.9741761, 0.9919601, -0.9285765, -1.028476, 0.9767514, 0.8009356, -0.09063361, 0.9007239]),
        ([5, 5], &[0.2038083, 0.9635305, 0.7455657, 0.09911627, 0.6649838, -0.9736432, -0.979567, 0.9445553, 0.8083766, -0.14224, 0.6778209, -0.931165, 0.1257536, -0.9410998, 0.4688859, -0.4855288, 0.928303, 1.012768, -0.9248918, -1.006272, 0.9934934, 0.8077951, -0.06335243, 0.9046049, -0.5951535]),
    ];
    for (level, ([outputs, inputs], expected)) in Level::available().into_iter().flat_map(|level| cases.map(|case| (level, case))) {
        // Numbers by place in PyTorch's order, brought into ours.
        let numbers = |a: f64, b: f64| -> Vec<f32> {
            let place = |n: usize| ((n % outputs) * inputs + n / outputs) as f64;
            (0..inputs * outputs).map(|n| (a * place(n).powi(2) + b).sin() as f32).collect()
        };
        let rule = Rule::Muon { momentum: 0.95, nesterov: true, weight_decay: 0.1, inputs, outputs };
        let (mut p, mut m) = (numbers(1.7, 0.3), vec![0.0; inputs * outputs]);
        let mut scratch = vec![0.0; rule.scratch_len(level)];
        for t in 0..3u8 {
            let (gradient, state) = (numbers(2.3 + f64::from(t), 1.1), [Some(&mut m[..]), None, None]);
            let step = Step { learning_rate: 0.05, step: u64::from(t) + 1, ..PLAIN };
            apply(&mut Pool::new(1), level, rule, &step, &[&gradient], &mut p, state, &mut scratch, Default::default());
        }
        for (n, found) in p.iter().enumerate() {
            let expected = expected[(n % outputs) * inputs + n / outputs];
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{level:?} {outputs}x{inputs}: {found}, not {expected}");
        }
    }
}
