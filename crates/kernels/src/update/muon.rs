//! Muon: a matrix moves along its momentum, made orthogonal: all directions of it at one speed.
//!
//! Jordan et al., *Muon: an optimizer for hidden layers in neural networks*, 2024.

use super::formula::Formula;
use super::{Job, Step, gradient_square_sum};
use crate::conv::matrix::{Left, copy_columns, copy_rows, multiply, padded, split};
use crate::isa::Isa;
use crate::pool::Disjoint;
use crate::{Level, Pool};

/// Newton-Schulz steps, and the coefficients of each: `x = 3.4445 x - 4.7750 x³ + 2.0315 x⁵` of every singular value.
const STEPS: usize = 5;
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// Added to the norm that is divided by.
const EPSILON: f64 = 1e-7;
/// Rows of a product that a worker takes at a time.
const ROWS: usize = 48;

/// What the rule says, and the parameter as a matrix.
#[derive(Clone, Copy)]
pub(super) struct Muon {
    pub(super) momentum: f32,
    pub(super) nesterov: bool,
    pub(super) weight_decay: f32,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// The matrix stood upright, so that all products are of small squares: (long, short), rows `pitch` values apart.
#[derive(Clone, Copy)]
struct Upright {
    long: usize,
    short: usize,
    pitch: usize,
}

impl Upright {
    fn of(level: Level, inputs: usize, outputs: usize) -> Self {
        let (long, short) = (inputs.max(outputs), inputs.min(outputs));
        Upright { long, short, pitch: padded(level, short) }
    }

    fn parts(&self) -> [usize; 4] {
        let (tall, square) = (self.long * self.pitch, self.short * self.pitch);
        [tall, tall, square, square]
    }
}

/// Values of scratch memory that a step of a parameter needs.
pub(super) fn scratch_len(level: Level, inputs: usize, outputs: usize) -> usize {
    Upright::of(level, inputs, outputs).parts().iter().sum()
}

/// Moves the job's parameter, `[inputs][outputs]`. Scratch memory holds any finite numbers.
pub(super) fn apply(job: Job<'_>, muon: Muon, scratch: &mut [f32]) {
    let Job { pool, level, step, parts, parameter, state: [Some(momentum), ..], .. } = job else {
        panic!("an array of state")
    };
    let Muon { inputs, outputs, .. } = muon;
    assert_eq!(parameter.len(), inputs * outputs, "a matrix");
    if parameter.is_empty() {
        return;
    }
    let upright = Upright::of(level, inputs, outputs);
    let [mut x, mut y, square, polynomial] = split(scratch, upright.parts());
    let direction = &mut y[..inputs * outputs];
    let state = [Some(momentum), Some(&mut *direction), None];
    Job::new(&mut *pool, level, step, parts, &mut *parameter, state)
        .run(Direction { momentum: muon.momentum, nesterov: muon.nesterov });
    let plain = Step { gradient_scale: 1.0, clip_value: None, l1: 0.0, l2: 0.0, decay: 0.0, ..*step };
    let norm = gradient_square_sum(pool, level, &plain, &[&*direction], direction).sqrt();
    let factor = (1.0 / (norm + EPSILON)) as f32;
    if inputs >= outputs {
        copy_rows(direction, outputs, outputs, x, upright.pitch, factor);
    } else {
        copy_columns(direction, outputs, inputs, x, upright.pitch, factor);
    }
    for _ in 0..STEPS {
        // y = x (a I + b xᵀx + c (xᵀx)²)
        let Upright { long, short, pitch } = upright;
        let transposed = Left { values: &*x, rows: short, depth: long, row: 1, step: pitch };
        product(pool, level, transposed, x, upright, square);
        let straight = |values, rows| Left { values, rows, depth: short, row: pitch, step: 1 };
        product(pool, level, straight(square, short), square, upright, polynomial);
        let [a, b, c] = COEFFICIENTS;
        polynomial.iter_mut().zip(&*square).for_each(|(fourth, second)| *fourth = b * second + c * *fourth);
        (0..short).for_each(|n| polynomial[n * pitch + n] += a);
        product(pool, level, straight(x, long), polynomial, upright, y);
        std::mem::swap(&mut x, &mut y);
    }
    let scale = (outputs as f32 / inputs as f32).max(1.0).sqrt();
    let (kept, speed) = (1.0 - step.learning_rate * muon.weight_decay, step.learning_rate * scale);
    follow(pool, parameter, outputs, inputs >= outputs, (x, upright.pitch), [kept, speed]);
}

/// `out = left * right`, in rows as far apart as those of `right`.
fn product(pool: &mut Pool, level: Level, left: Left<'_>, right: &[f32], upright: Upright, out: &mut [f32]) {
    let Upright { short, pitch, .. } = upright;
    assert!(left.rows * pitch <= out.len(), "rows inside the output");
    let out = Disjoint(out.as_mut_ptr());
    pool.run(left.rows.div_ceil(ROWS), &|_, task| {
        let first = task * ROWS;
        let rows = ROWS.min(left.rows - first);
        // SAFETY: runs of rows do not overlap and end with the output, which stays borrowed; each is taken once.
        let out = unsafe { out.range(first * pitch, (first + rows) * pitch) };
        let left = Left { values: &left.values[first * left.row..], rows, ..left };
        multiply(level, left, right, pitch, short, out, pitch);
    });
}

/// `parameter = kept * parameter - speed * x`, x as it is or turned.
fn follow(
    pool: &mut Pool,
    parameter: &mut [f32],
    outputs: usize,
    as_it_is: bool,
    (x, pitch): (&[f32], usize),
    [kept, speed]: [f32; 2],
) {
    let inputs = parameter.len() / outputs;
    let parameter = Disjoint(parameter.as_mut_ptr());
    pool.run(inputs.div_ceil(ROWS), &|_, task| {
        let rows = task * ROWS..((task + 1) * ROWS).min(inputs);
        // SAFETY: runs of rows do not overlap and end with the parameter, which stays borrowed; each is taken once.
        let values = unsafe { parameter.range(rows.start * outputs, rows.end * outputs) };
        for (row, values) in rows.zip(values.chunks_exact_mut(outputs)) {
            if as_it_is {
                values.iter_mut().zip(&x[row * pitch..]).for_each(|(p, x)| *p = kept * *p - speed * x);
            } else {
                let column = x[row..].iter().step_by(pitch);
                values.iter_mut().zip(column).for_each(|(p, x)| *p = kept * *p - speed * x);
            }
        }
    });
}

/// The momentum, and the direction that is to be made orthogonal; the parameter stays as it is.
#[derive(Clone, Copy)]
struct Direction {
    momentum: f32,
    nesterov: bool,
}

impl Formula<2> for Direction {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, g: I::F32, p: I::F32, [m, _]: [I::F32; 2]) -> (I::F32, [I::F32; 2]) {
        let kept = isa.splat(self.momentum);
        // m = momentum m + (1 - momentum) g
        let m = isa.mul_add(kept, isa.sub(m, g), g);
        let direction = if self.nesterov { isa.mul_add(kept, isa.sub(m, g), g) } else { m };
        (p, [m, direction])
    }
}
