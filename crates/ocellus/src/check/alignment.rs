//! Whether two images are copies of one another: one is laid over the other as well as scaling and shifting allow, and
//! what is left of the difference decides.
//!
//! Gauss and Newton's steps from coarse to fine (Baker and Matthews: *Lucas-Kanade 20 years on*, IJCV 2004), with a gain and an
//! offset of the brightness as further unknowns.

use super::perceptual::SIDE;

/// How alike two images are where they overlap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Likeness {
    /// Correlation of the grey values, 1 for copies.
    pub(super) correlation: f32,
    /// Mean difference of the colour channels, on a scale of 255.
    pub(super) colour: f32,
    /// Share of the image that the two have in common.
    pub(super) overlap: f32,
}

impl Likeness {
    /// Whether so alike images are copies. Where the thresholds come from: docs/checking.md.
    pub(super) fn is_copy(&self) -> bool {
        self.correlation >= LEAST_CORRELATION && self.colour <= MOST_COLOUR && self.overlap >= LEAST_OVERLAP
    }
}

const LEAST_CORRELATION: f32 = 0.97;
const MOST_COLOUR: f32 = 12.0;
const LEAST_OVERLAP: f32 = 0.7;

/// Steps on each level.
const STEPS: usize = 8;

/// An image made ready to be laid over others: its brightness from coarse to fine, and its colour.
pub(super) struct Picture {
    levels: [Plane; 3],
    /// What red and blue have more than the brightness.
    colour: [Plane; 2],
}

/// Values of a square image.
struct Plane {
    side: usize,
    values: Vec<f32>,
}

impl Picture {
    /// From [`SIDE`] x [`SIDE`] RGB pixels.
    pub(super) fn new(pixels: &[u8]) -> Self {
        let rgb = || pixels.as_chunks::<3>().0.iter().map(|rgb| rgb.map(f32::from));
        let grey = |[r, g, b]: [f32; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
        let plane = |values: Vec<f32>| Plane { side: SIDE, values }.smoothed();
        let fine = plane(rgb().map(grey).collect());
        let middle = fine.halved();
        let colour = [0, 2].map(|channel| plane(rgb().map(|pixel| pixel[channel] - grey(pixel)).collect()));
        Self { levels: [middle.halved(), middle, fine], colour }
    }

    /// How alike this image and the other are, laid over each other as well as can be.
    pub(super) fn likeness(&self, other: &Self) -> Likeness {
        let mut warp = Warp { scale: [1.0; 2], shift: [0.0; 2] };
        for (this, that) in self.levels.iter().zip(&other.levels) {
            warp.refine(this, that);
        }
        let straight = Warp { scale: [1.0; 2], shift: [0.0; 2] };
        [warp, straight]
            .into_iter()
            .map(|warp| self.compare(other, &warp))
            .max_by(|a, b| a.correlation.total_cmp(&b.correlation))
            .unwrap_or(Likeness { correlation: 0.0, colour: 255.0, overlap: 0.0 })
    }

    fn compare(&self, other: &Self, warp: &Warp) -> Likeness {
        let (fine, other_fine) = (&self.levels[2], &other.levels[2]);
        let (mut count, mut sums, mut colour) = (0.0f64, [0.0f64; 5], 0.0f64);
        for y in 0..SIDE {
            for x in 0..SIDE {
                let Some(a) = fine.at(warp.place(x, y, SIDE)).map(|[value, ..]| f64::from(value)) else { continue };
                let b = f64::from(other_fine.values[y * SIDE + x]);
                count += 1.0;
                for (sum, term) in sums.iter_mut().zip([a, b, a * a, b * b, a * b]) {
                    *sum += term;
                }
                for (this, that) in self.colour.iter().zip(&other.colour) {
                    let value = this.at(warp.place(x, y, SIDE)).map_or(0.0, |[value, ..]| value);
                    colour += f64::from((value - that.values[y * SIDE + x]).abs());
                }
            }
        }
        if count < 1.0 {
            return Likeness { correlation: 0.0, colour: 255.0, overlap: 0.0 };
        }
        let [a, b, aa, bb, ab] = sums.map(|sum| sum / count);
        let correlation = (ab - a * b) / ((aa - a * a) * (bb - b * b)).max(1e-9).sqrt();
        Likeness {
            correlation: correlation as f32,
            colour: (colour / (2.0 * count)) as f32,
            overlap: (count / (SIDE * SIDE) as f64) as f32,
        }
    }
}

impl Plane {
    /// Averaged with the neighbours, so that compression's noise counts less.
    fn smoothed(&self) -> Self {
        let side = self.side;
        let along = |values: &[f32], step: usize, at: usize, place: usize| {
            let before = if place > 0 { values[at - step] } else { values[at] };
            let after = if place + 1 < side { values[at + step] } else { values[at] };
            0.25 * before + 0.5 * values[at] + 0.25 * after
        };
        let rows: Vec<f32> = (0..side * side).map(|at| along(&self.values, 1, at, at % side)).collect();
        Self { side, values: (0..side * side).map(|at| along(&rows, side, at, at / side)).collect() }
    }

    fn halved(&self) -> Self {
        let side = self.side / 2;
        let mean = |at: usize| {
            let corner = at / side * 2 * self.side + at % side * 2;
            [0, 1, self.side, self.side + 1].iter().map(|step| self.values[corner + step]).sum::<f32>() / 4.0
        };
        Self { side, values: (0..side * side).map(mean).collect() }
    }

    /// Value and slopes at a place between pixels, none outside.
    fn at(&self, [x, y]: [f32; 2]) -> Option<[f32; 3]> {
        let last = self.side as f32 - 1.0;
        // Half a pixel beyond the outermost centres is still inside.
        if !(-0.5..=last + 0.5).contains(&x) || !(-0.5..=last + 0.5).contains(&y) {
            return None;
        }
        let (x, y) = (x.clamp(0.0, last), y.clamp(0.0, last));
        let (column, row) = ((x as usize).min(self.side - 2), (y as usize).min(self.side - 2));
        let (right, down) = (x - column as f32, y - row as f32);
        let corner = row * self.side + column;
        let [a, b] = [self.values[corner], self.values[corner + 1]];
        let [c, d] = [self.values[corner + self.side], self.values[corner + self.side + 1]];
        let (upper, lower) = (a + right * (b - a), c + right * (d - c));
        let slope = (b - a) + down * ((d - c) - (b - a));
        Some([upper + down * (lower - upper), slope, lower - upper])
    }
}

/// Where a pixel of one image lies in another, in shares of the side.
#[derive(Clone, Copy)]
struct Warp {
    scale: [f32; 2],
    shift: [f32; 2],
}

impl Warp {
    /// The place of a pixel's centre, in pixels.
    fn place(&self, x: usize, y: usize, side: usize) -> [f32; 2] {
        let side = side as f32;
        let along = |at: usize, axis: usize| {
            let centred = (at as f32 + 0.5) / side - 0.5;
            (self.scale[axis] * centred + self.shift[axis] + 0.5) * side - 0.5
        };
        [along(x, 0), along(y, 1)]
    }

    /// Moves `this` over `that` until it fits no better.
    fn refine(&mut self, this: &Plane, that: &Plane) {
        let side = this.side;
        for _ in 0..STEPS {
            // Unknowns: scale and shift along x, along y, gain, offset.
            let mut normal = [[0.0f64; 7]; 6];
            let mut count = 0;
            for y in 0..side {
                for x in 0..side {
                    let Some([value, along_x, along_y]) = this.at(self.place(x, y, side)) else { continue };
                    let centred = |at: usize| (at as f32 + 0.5) / side as f32 - 0.5;
                    let (along_x, along_y) = (along_x * side as f32, along_y * side as f32);
                    let row = [along_x * centred(x), along_x, along_y * centred(y), along_y, value, 1.0].map(f64::from);
                    let wanted = f64::from(that.values[y * side + x]);
                    for (i, &factor) in row.iter().enumerate() {
                        for (sum, &other) in normal[i].iter_mut().zip(row.iter().chain([&wanted])) {
                            *sum += factor * other;
                        }
                    }
                    count += 1;
                }
            }
            if count < side * side / 2 {
                break;
            }
            let Some(solution) = solve(normal) else { break };
            let gain = solution[4];
            if gain.abs() < 0.1 {
                break;
            }
            let step = [0, 1, 2, 3].map(|i| (solution[i] / gain) as f32);
            for axis in 0..2 {
                self.scale[axis] = (self.scale[axis] + step[2 * axis].clamp(-0.1, 0.1)).clamp(0.75, 1.35);
                self.shift[axis] = (self.shift[axis] + step[2 * axis + 1].clamp(-0.1, 0.1)).clamp(-0.2, 0.2);
            }
            if step.iter().all(|step| step.abs() < 0.002) {
                break;
            }
        }
    }
}

/// The solution of six linear equations, none where they have no single one.
fn solve(mut rows: [[f64; 7]; 6]) -> Option<[f64; 6]> {
    for (at, row) in rows.iter_mut().enumerate() {
        // A little weight on "no change" keeps flat images from running away.
        row[at] += 1e-6 + 1e-4 * row[at];
    }
    for at in 0..6 {
        let pivot = (at..6).max_by(|&a, &b| rows[a][at].abs().total_cmp(&rows[b][at].abs()))?;
        rows.swap(at, pivot);
        if rows[at][at].abs() < 1e-12 {
            return None;
        }
        let (done, below) = rows.split_at_mut(at + 1);
        for row in below {
            let factor = row[at] / done[at][at];
            row.iter_mut().zip(&done[at]).skip(at).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    let mut solution = [0.0; 6];
    for at in (0..6).rev() {
        let known: f64 = (at + 1..6).map(|column| rows[at][column] * solution[column]).sum();
        solution[at] = (rows[at][6] - known) / rows[at][at];
    }
    solution.iter().all(|value| value.is_finite()).then_some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blobs of colour, seen through a window.
    fn image(seed: u32, [x0, y0, size]: [f32; 3]) -> Picture {
        let value = |x: f32, y: f32, channel: u32| {
            let blobs = (0..9u32).map(|k| {
                let key = (seed * 97 + k * 13 + channel / 3).wrapping_mul(2_654_435_761) >> 5;
                let (u, v) = ((key % 101) as f32 / 100.0, (key / 101 % 101) as f32 / 100.0);
                let distance = ((x - u).powi(2) + (y - v).powi(2)) * 40.0;
                (if key.is_multiple_of(2) { 90.0 } else { -90.0 }) * (-distance).exp()
            });
            (128.0 + blobs.sum::<f32>()).clamp(0.0, 255.0) as u8
        };
        let at = |i: usize| {
            let (y, x) = ((i / 3 / SIDE) as f32 / 32.0, (i / 3 % SIDE) as f32 / 32.0);
            value(x0 + x * size, y0 + y * size, (i % 3) as u32)
        };
        Picture::new(&(0..SIDE * SIDE * 3).map(at).collect::<Vec<_>>())
    }

    #[test]
    fn windows_of_an_image_are_found_and_other_images_are_not() {
        for seed in 1..6 {
            let whole = image(seed, [0.0, 0.0, 1.0]);
            for window in [[0.0, 0.0, 1.0], [0.05, 0.05, 0.9], [0.0, 0.1, 0.9], [0.03, 0.0, 0.95]] {
                let cropped = image(seed, window);
                for (a, b) in [(&whole, &cropped), (&cropped, &whole)] {
                    let likeness = a.likeness(b);
                    assert!(likeness.is_copy() && likeness.correlation > 0.99, "{seed} {window:?} {likeness:?}");
                }
            }
            let likeness = whole.likeness(&image(seed + 10, [0.0, 0.0, 1.0]));
            assert!(!likeness.is_copy(), "{seed} {likeness:?}");
        }
    }
}
