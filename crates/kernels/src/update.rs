//! Optimizer steps: sum of the parts' gradients, regulariser, clipping and update in one pass over each parameter, which packs it, too.
//!
//! Definitions are Keras 3's, operation for operation. The result does not depend on the number of threads.

mod formula;
mod muon;

use crate::Pool;
use crate::isa::{Isa, Kernel, Level};
use crate::packing::{Cut, Packed, Packing, WeightRows};
use crate::pool::Disjoint;
use crate::reduce::parts_sum;
use formula::{Adagrad, Adam, Formula, LambDirection, Lion, Momentum, Nadam, RmsProp, Sgd};
use muon::Muon;

/// How a parameter moves along its gradient; `g` is the gradient, `p` the parameter, `lr` the learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// `m = momentum m - lr g; p += m`, or with Nesterov's look-ahead `p += momentum m - lr g`; without momentum
    /// `p -= lr g`. State: `m`, where `momentum` is not 0.
    Sgd {
        /// Decay of the velocity.
        momentum: f32,
        /// Look ahead (Sutskever et al., 2013).
        nesterov: bool,
    },
    /// `v = rho v + (1 - rho) g²; p -= lr g / sqrt(v + epsilon)`. Where centered, `a = rho a + (1 - rho) g` and `v - a²`
    /// stands under the root; with momentum, `m = momentum m + lr g / sqrt(…); p -= m`.
    /// State: `v`, then `m` where `momentum` is not 0, then `a` where centered.
    RmsProp {
        /// Decay of the averages.
        rho: f32,
        /// Decay of the velocity.
        momentum: f32,
        /// Added under the root.
        epsilon: f32,
        /// Whether the mean of the gradient is taken off.
        centered: bool,
    },
    /// `v += g²; p -= lr g / sqrt(v + epsilon)` (Duchi, Hazan and Singer, 2011). State: `v`, which starts at 0.1.
    Adagrad {
        /// Added under the root.
        epsilon: f32,
    },
    /// `m += (1 - beta_1) (g - m); v += (1 - beta_2) (g² - v); p -= alpha m / (sqrt(v) + epsilon)` with
    /// `alpha = lr sqrt(1 - beta_2^t) / (1 - beta_1^t)` (Kingma and Ba, arXiv:1412.6980). With weight decay (AdamW,
    /// arXiv:1711.05101) `p -= lr weight_decay p` first. AMSGrad takes the largest `v` so far.
    /// State: `m`, `v`, then the largest `v` where AMSGrad.
    Adam {
        /// Decay of the mean gradient.
        beta_1: f32,
        /// Decay of the mean square.
        beta_2: f32,
        /// Added to the root.
        epsilon: f32,
        /// Decoupled decay, times the learning rate; 0 for plain Adam.
        weight_decay: f32,
        /// Whether the largest mean square is kept (arXiv:1904.09237).
        amsgrad: bool,
    },
    /// `p -= lr weight_decay p; p -= lr sign(beta_1 m + (1 - beta_1) g); m = beta_2 m + (1 - beta_2) g` (Chen et al.,
    /// arXiv:2302.06675). State: `m`.
    Lion {
        /// What the mean gradient counts in the step.
        beta_1: f32,
        /// Decay of the mean gradient.
        beta_2: f32,
        /// Decoupled decay, times the learning rate.
        weight_decay: f32,
    },
    /// Adam with Nesterov's look-ahead (Dozat, 2016): `m` and `v` as there, and
    /// `p -= lr (u' m / (1 - Π u') + (1 - u) g / (1 - Π u)) / (sqrt(v / (1 - beta_2^t)) + epsilon)`, where
    /// `u = beta_1 (1 - 0.96^t / 2)`, `u'` is that of the next step, and the products go over all steps. State: `m`, `v`.
    Nadam {
        /// Decay of the mean gradient.
        beta_1: f32,
        /// Decay of the mean square.
        beta_2: f32,
        /// Added to the root.
        epsilon: f32,
    },
    /// Adam's direction with the weights' decay, `u = m / (1 - beta_1^t) / (sqrt(v / (1 - beta_2^t)) + epsilon) + weight_decay p`,
    /// at the parameter's own length: `p -= lr u |p| / |u|`, or `p -= lr u` where one is 0 (You et al., arXiv:1904.00962).
    /// State: `m`, `v`, `u`.
    Lamb {
        /// Decay of the mean gradient.
        beta_1: f32,
        /// Decay of the mean square.
        beta_2: f32,
        /// Added to the root.
        epsilon: f32,
        /// What is added of the weights.
        weight_decay: f32,
    },
    /// `p -= lr weight_decay p; m += (1 - momentum) (g - m)`, and then for a matrix of `inputs` rows and `outputs` columns
    /// `p -= lr sqrt(max(1, outputs / inputs)) orthogonal(m)`, or with Nesterov's look-ahead of `g + momentum (m - g)`. What is
    /// orthogonal is `x / |x|` after five steps `x = 3.4445 x - 4.7750 x xᵀ x + 2.0315 x (xᵀ x)²`, which bring all singular values
    /// to about 1 (Jordan et al., 2024). State: `m`.
    Muon {
        /// Decay of the mean gradient.
        momentum: f32,
        /// Look ahead.
        nesterov: bool,
        /// Decoupled decay, times the learning rate.
        weight_decay: f32,
        /// Rows of the parameter: what a unit or filter reads.
        inputs: usize,
        /// Columns of the parameter: units or filters.
        outputs: usize,
    },
}

impl Rule {
    /// How many arrays of state each parameter has.
    pub fn state_count(&self) -> usize {
        match *self {
            Rule::Sgd { momentum, .. } => usize::from(momentum != 0.0),
            Rule::RmsProp { momentum, centered, .. } => 1 + usize::from(momentum != 0.0) + usize::from(centered),
            Rule::Adagrad { .. } => 1,
            Rule::Adam { amsgrad, .. } => 2 + usize::from(amsgrad),
            Rule::Lion { .. } => 1,
            Rule::Nadam { .. } => 2,
            Rule::Lamb { .. } => 3,
            Rule::Muon { .. } => 1,
        }
    }

    /// Values of scratch memory that [`apply`] needs.
    pub fn scratch_len(&self, level: Level) -> usize {
        match *self {
            Rule::Muon { inputs, outputs, .. } => muon::scratch_len(level, inputs, outputs),
            _ => 0,
        }
    }

    /// What array `index` of the state is filled with before the first step.
    pub fn state_initial(&self, index: usize) -> f32 {
        match (self, index) {
            (Rule::Adagrad { .. }, 0) => 0.1,
            _ => 0.0,
        }
    }
}

/// What one step needs beside the rule. The penalties `l1 Σ|p| + l2 Σp²` are part of the loss: their gradient is added
/// first, and then scaled and clipped with the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The learning rate of this step.
    pub learning_rate: f32,
    /// The number of this step, 1 for the first.
    pub step: u64,
    /// Multiplies the gradient: the factor of clipping by norm, else 1.
    pub gradient_scale: f32,
    /// Each gradient value is clipped to this distance from 0.
    pub clip_value: Option<f32>,
    /// Weight of the absolute values.
    pub l1: f32,
    /// Weight of the squares.
    pub l2: f32,
    /// Times the parameter, this is added to the gradient after scaling and clipping: weight decay as PyTorch's SGD has it.
    pub decay: f32,
}

/// Values for which another thread is worth waking.
const SMALLEST: usize = 8192;

/// Values that are moved and then packed while they are in the first-level cache, together with their gradients and state.
const CHUNK: usize = 2048;

/// Most packed forms of a parameter that [`apply`] makes.
pub const MOST_PACKED: usize = 4;

/// Moves `parameter` by one step. `parts` are gradients of parts of the batch, which are summed in their order; `state`
/// holds [`Rule::state_count`] arrays as long as the parameter, in the rule's order, then `None`; `scratch` is at least as long as
/// [`Rule::scratch_len`] says and holds finite numbers. Its `packed` forms are made from what it then is: where all of them allow it, each
/// thread packs the rows that it has moved.
#[allow(clippy::too_many_arguments, reason = "what a step is made of, and the memory for it")]
pub fn apply(
    pool: &mut Pool,
    level: Level,
    rule: Rule,
    step: &Step,
    parts: &[&[f32]],
    parameter: &mut [f32],
    state: [Option<&mut [f32]>; 3],
    scratch: &mut [f32],
    mut packed: [Option<Packed<'_>>; MOST_PACKED],
) {
    let lr = step.learning_rate;
    // These move a parameter in several passes.
    let cut = match rule {
        Rule::Lamb { .. } | Rule::Muon { .. } => None,
        _ => Cut::of_forms(&packed),
    };
    let mut job = Job::new(pool, level, step, parts, parameter, state);
    if let Some(cut) = cut {
        job.pack(cut, &mut packed);
    }
    match rule {
        Rule::Sgd { momentum: 0.0, .. } => job.run(Sgd { lr }),
        Rule::Sgd { momentum, nesterov: false } => job.run(Momentum::<false> { lr, momentum }),
        Rule::Sgd { momentum, nesterov: true } => job.run(Momentum::<true> { lr, momentum }),
        Rule::RmsProp { rho, momentum, epsilon, centered } => match (momentum != 0.0, centered) {
            (false, false) => job.run(RmsProp::<false, false, 1>::new(lr, rho, momentum, epsilon)),
            (false, true) => job.run(RmsProp::<false, true, 2>::new(lr, rho, momentum, epsilon)),
            (true, false) => job.run(RmsProp::<true, false, 2>::new(lr, rho, momentum, epsilon)),
            (true, true) => job.run(RmsProp::<true, true, 3>::new(lr, rho, momentum, epsilon)),
        },
        Rule::Adagrad { epsilon } => job.run(Adagrad { lr, epsilon }),
        Rule::Adam { beta_1, beta_2, epsilon, weight_decay, amsgrad: false } => {
            job.run(Adam::<false, 2>::new(step, beta_1, beta_2, epsilon, weight_decay));
        }
        Rule::Adam { beta_1, beta_2, epsilon, weight_decay, amsgrad: true } => {
            job.run(Adam::<true, 3>::new(step, beta_1, beta_2, epsilon, weight_decay));
        }
        Rule::Lion { beta_1, beta_2, weight_decay } => job.run(Lion::new(lr, beta_1, beta_2, weight_decay)),
        Rule::Nadam { beta_1, beta_2, epsilon } => job.run(Nadam::new(step, beta_1, beta_2, epsilon)),
        Rule::Lamb { beta_1, beta_2, epsilon, weight_decay } => {
            job.run(LambDirection::new(step.step, beta_1, beta_2, epsilon, weight_decay));
            job.follow_at_own_length(lr);
        }
        Rule::Muon { momentum, nesterov, weight_decay, inputs, outputs } => {
            muon::apply(job, Muon { momentum, nesterov, weight_decay, inputs, outputs }, scratch);
        }
    }
    if cut.is_none() {
        packed.iter_mut().flatten().for_each(|form| form.packing.pack(pool, parameter, form.to));
    }
}

struct Job<'a> {
    pool: &'a mut Pool,
    level: Level,
    step: &'a Step,
    parts: &'a [&'a [f32]],
    parameter: &'a mut [f32],
    state: [Option<&'a mut [f32]>; 3],
    cut: Cut,
    forms: [Option<Form<'a>>; MOST_PACKED],
}

/// A packed form that threads write together.
#[derive(Clone, Copy)]
struct Form<'a> {
    packing: &'a dyn Packing,
    to: Disjoint<f32>,
}

impl<'a> Job<'a> {
    fn new(
        pool: &'a mut Pool,
        level: Level,
        step: &'a Step,
        parts: &'a [&'a [f32]],
        parameter: &'a mut [f32],
        state: [Option<&'a mut [f32]>; 3],
    ) -> Self {
        let cut = Cut::of_values(parameter.len());
        Job { pool, level, step, parts, parameter, state, cut, forms: [None; MOST_PACKED] }
    }

    /// From now on, [`run`](Self::run) makes these forms, too.
    fn pack(&mut self, cut: Cut, packed: &'a mut [Option<Packed<'_>>; MOST_PACKED]) {
        assert_eq!(cut.len(), self.parameter.len(), "the parameter of {cut:?}");
        self.cut = cut;
        for (form, packed) in self.forms.iter_mut().zip(packed) {
            *form = packed.as_mut().map(|Packed { packing, to }| {
                assert_eq!(to.len(), packing.packed_len(), "packed length");
                Form { packing: *packing, to: Disjoint(to.as_mut_ptr()) }
            });
        }
    }

    /// Moves against the last array of state, as far as the parameter is long, times the learning rate.
    fn follow_at_own_length(&mut self, lr: f32) {
        let [_, _, Some(direction)] = &mut self.state else { panic!("three arrays of state") };
        let plain = Step { l1: 0.0, l2: 0.0, decay: 0.0, gradient_scale: 1.0, clip_value: None, ..*self.step };
        let (direction, parameter) = (&**direction, &mut *self.parameter);
        let mut length = |of: &[f32]| gradient_square_sum(self.pool, self.level, &plain, &[of], of).sqrt();
        let (of_parameter, of_direction) = (length(parameter), length(direction));
        let ratio = if of_parameter > 0.0 && of_direction > 0.0 { of_parameter / of_direction } else { 1.0 };
        let (lr, parts) = ((f64::from(lr) * ratio) as f32, &[direction][..]);
        let state = [None, None, None];
        Job::new(self.pool, self.level, &plain, parts, parameter, state).run(Sgd { lr });
    }

    fn run<F: Formula<N>, const N: usize>(&mut self, formula: F) {
        let len = self.parameter.len();
        for part in self.parts {
            assert_eq!(part.len(), len, "gradients as long as the parameter");
        }
        let mut given = 0;
        let mut pointers = [Disjoint(std::ptr::null_mut::<f32>()); N];
        for (k, state) in self.state.iter_mut().enumerate() {
            if let Some(state) = state {
                assert_eq!(state.len(), len, "state as long as the parameter");
                assert!(k < N && k == given, "{N} arrays of state, first the first");
                pointers[k] = Disjoint(state.as_mut_ptr());
                given += 1;
            }
        }
        assert_eq!(given, N, "the rule's number of arrays of state");
        let (level, step, parts) = (self.level, self.step, self.parts);
        let (cut, forms) = (self.cut, self.forms);
        let parameter = Disjoint(self.parameter.as_mut_ptr());
        let shares = self.pool.threads().min(len.div_ceil(SMALLEST)).max(1);
        let share = cut.rows.div_ceil(shares).next_multiple_of(cut.unit);
        let chunk = match forms.iter().any(Option::is_some) {
            true => cut.unit * (CHUNK / (cut.unit * cut.row_len())).max(1),
            false => share,
        };
        self.pool.run(cut.rows.div_ceil(share.max(1)), &|_, task| {
            let end = ((task + 1) * share).min(cut.rows);
            for first in (task * share..end).step_by(chunk) {
                let rows = first..(first + chunk).min(end);
                for tap in 0..cut.taps {
                    let values = cut.values(tap, &rows);
                    // SAFETY: rows are one task's, and their values lie in each slice, all of which are `len` long and stay borrowed.
                    let (parameter, state) = unsafe {
                        let state = pointers.each_ref().map(|s| s.range(values.start, values.end));
                        (parameter.range(values.start, values.end), state)
                    };
                    level.dispatch(Apply { formula, step, parts, start: values.start, parameter, state });
                }
                for form in forms.iter().flatten() {
                    // SAFETY: as above. The cut is the kernel's, but for units that are multiples of its own; the form is as long as it
                    // says, and the places of a unit in it are the unit's alone.
                    unsafe { form.packing.pack_rows(&WeightRows::new(parameter, cut, rows.clone(), form.to)) };
                }
            }
        });
    }
}

struct Apply<'a, F, const N: usize> {
    formula: F,
    step: &'a Step,
    parts: &'a [&'a [f32]],
    start: usize,
    parameter: &'a mut [f32],
    state: [&'a mut [f32]; N],
}

impl<F: Formula<N>, const N: usize> Kernel for Apply<'_, F, N> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Apply { formula, step, parts, start, parameter, state } = self;
        let len = parameter.len();
        let pointer = parameter.as_mut_ptr();
        let mut i = 0;
        while i < len {
            let count = (len - i).min(4 * I::LANES);
            let sums = parts_sum(isa, parts, start + i, count);
            for (v, &sum) in sums.iter().enumerate() {
                let at = v * I::LANES;
                if at >= count {
                    break;
                }
                let mask = isa.first(count - at);
                let mut s = [isa.zero(); N];
                // SAFETY: the mask ends at `i + count <= len`, the length of each slice.
                unsafe {
                    let p = isa.load_masked(mask, pointer.add(i + at));
                    for k in 0..N {
                        s[k] = isa.load_masked(mask, state[k].as_ptr().add(i + at));
                    }
                    let mut g = clip(isa, step, penalised(isa, step, sum, p));
                    if step.decay != 0.0 {
                        g = isa.mul_add(isa.splat(step.decay), p, g);
                    }
                    let (p, s) = formula.apply(isa, g, p, s);
                    isa.store_masked(mask, pointer.add(i + at), p);
                    for k in 0..N {
                        isa.store_masked(mask, state[k].as_mut_ptr().add(i + at), s[k]);
                    }
                }
            }
            i += count;
        }
    }
}

/// The gradient with that of the penalties added.
#[inline(always)]
fn penalised<I: Isa>(isa: I, step: &Step, g: I::F32, p: I::F32) -> I::F32 {
    let mut g = g;
    if step.l2 != 0.0 {
        g = isa.mul_add(isa.splat(2.0 * step.l2), p, g);
    }
    if step.l1 != 0.0 {
        let negative = isa.select(isa.greater(isa.zero(), p), isa.splat(-step.l1), isa.zero());
        g = isa.add(g, isa.select(isa.greater(p, isa.zero()), isa.splat(step.l1), negative));
    }
    g
}

#[inline(always)]
fn clip<I: Isa>(isa: I, step: &Step, g: I::F32) -> I::F32 {
    let g = isa.mul(g, isa.splat(step.gradient_scale));
    match step.clip_value {
        Some(limit) => isa.min(isa.splat(limit), isa.max(isa.splat(-limit), g)),
        None => g,
    }
}

/// Pieces whose sums are made apart; a fixed number, so that the result does not depend on the threads.
const PIECES: usize = 64;

/// `Σ g²` of the gradient before scaling and clipping, penalties included; for clipping by norm.
pub fn gradient_square_sum(pool: &mut Pool, level: Level, step: &Step, parts: &[&[f32]], parameter: &[f32]) -> f64 {
    let len = parameter.len();
    for part in parts {
        assert_eq!(part.len(), len, "gradients as long as the parameter");
    }
    let piece = len.div_ceil(PIECES).next_multiple_of(1024);
    let pieces = len.div_ceil(piece.max(1));
    let mut sums = [0.0f64; PIECES];
    let to = Disjoint(sums.as_mut_ptr());
    pool.run(pieces, &|_, index| {
        let range = index * piece..((index + 1) * piece).min(len);
        let sum = level.dispatch(SquareSum { step, parts, parameter, range });
        // SAFETY: there are at most `PIECES` pieces, each run once.
        unsafe { *to.get(index) = sum };
    });
    sums.iter().sum()
}

struct SquareSum<'a> {
    step: &'a Step,
    parts: &'a [&'a [f32]],
    parameter: &'a [f32],
    range: std::ops::Range<usize>,
}

impl Kernel for SquareSum<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f64 {
        let SquareSum { step, parts, parameter, range } = self;
        let mut total = 0.0f64;
        for block in range.clone().step_by(1024) {
            let end = range.end.min(block + 1024);
            // At most 64 squares per lane in single precision.
            let mut squares = [isa.zero(); 4];
            let mut i = block;
            while i < end {
                let count = (end - i).min(4 * I::LANES);
                let sums = parts_sum(isa, parts, i, count);
                for (v, &sum) in sums.iter().enumerate() {
                    let at = v * I::LANES;
                    if at < count {
                        let mut g = sum;
                        if step.l1 != 0.0 || step.l2 != 0.0 {
                            // SAFETY: the mask ends at `i + count`, which is in the range.
                            let p = unsafe { isa.load_masked(isa.first(count - at), parameter[i + at..end].as_ptr()) };
                            g = penalised(isa, step, g, p);
                        }
                        squares[v] = isa.mul_add(g, g, squares[v]);
                    }
                }
                i += count;
            }
            for square in squares {
                total += f64::from(isa.sum(square));
            }
        }
        total
    }
}

/// `l1 Σ|p| + l2 Σp²`
pub fn penalty(l1: f32, l2: f32, parameter: &[f32]) -> f64 {
    // Eight sums at once, since each addition waits for the one before.
    let (mut absolute, mut square) = ([0.0f64; 8], [0.0f64; 8]);
    for values in parameter.chunks(8) {
        for (k, &p) in values.iter().enumerate() {
            absolute[k] += f64::from(p.abs());
            square[k] += f64::from(p) * f64::from(p);
        }
    }
    f64::from(l1) * absolute.iter().sum::<f64>() + f64::from(l2) * square.iter().sum::<f64>()
}

#[cfg(test)]
mod tests;
