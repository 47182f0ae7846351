//! Learning curves: what more labels would bring, estimated from trainings on parts of the data.

use serde::Serialize;

use crate::random::{Purpose, Random};

/// What one training measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// Training samples.
    pub samples: usize,
    /// Test samples that were wrong, and all of them.
    pub wrong: usize,
    /// Test samples.
    pub tested: usize,
}

/// An estimate for a number of training samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// Training samples.
    pub samples: usize,
    /// The share of test samples that would be recognised.
    pub accuracy: f64,
    /// Where a training with so many would measure it in 95% of repetitions with other test samples and other seeds.
    pub low: f64,
    /// As `low`.
    pub high: f64,
}

/// Repetitions that the interval is made from.
const REPETITIONS: u64 = 400;

/// The accuracy with so many training samples, by a power law of the error, `a * samples^-b`, fitted to trainings on fewer
/// (Hestness and others: *Deep learning scaling is predictable, empirically*, 2017); the interval by drawing those trainings
/// anew, and the one that is to come. None without two different numbers of samples.
#[must_use]
pub fn forecast(points: &[CurvePoint], samples: usize) -> Option<Forecast> {
    let errors: Vec<f64> = points.iter().map(|point| smoothed(point.wrong as f64, point.tested)).collect();
    let curve = fit(points, &errors)?;
    let estimate = 1.0 - curve.at(samples);
    // Wrong samples are counted, but trainings differ by more than counts do: what the curve leaves unexplained tells how many
    // times as much (the dispersion of McCullagh and Nelder: Generalized linear models, 1989).
    let weight = |error: f64, tested: usize| error * tested as f64 + 0.5;
    let misfit = points.iter().zip(&errors).map(|(point, error)| {
        let expected = curve.at(point.samples);
        weight(expected, point.tested) * (error.ln() - expected.ln()).powi(2)
    });
    let freedom = points.len().saturating_sub(2).max(1) as f64;
    let dispersion = (misfit.sum::<f64>() / freedom).max(1.0);
    let tested = points.last()?.tested;
    let mut drawn: Vec<f64> = (0..REPETITIONS)
        .filter_map(|repetition| {
            let mut random = Random::new(0, Purpose::Sample, 2, repetition);
            let mut draw = |expected: f64, tested: usize| {
                let deviation = (dispersion / weight(expected, tested)).sqrt();
                (expected.ln() + f64::from(random.normal()) * deviation).exp().min(1.0)
            };
            let errors: Vec<f64> = points.iter().map(|point| draw(curve.at(point.samples), point.tested)).collect();
            // The training that is to come differs from its curve as these did.
            Some(1.0 - draw(fit(points, &errors)?.at(samples), tested))
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let quantile = |share: f64| drawn.get((share * (drawn.len() - 1) as f64).round() as usize).copied();
    let (low, high) = (quantile(0.025)?, quantile(0.975)?);
    Some(Forecast { samples, accuracy: estimate, low: low.min(estimate), high: high.max(estimate) })
}

/// An error that is never 0 or 1, as if half a sample more were wrong and half one right.
fn smoothed(wrong: f64, tested: usize) -> f64 {
    (wrong + 0.5) / (tested as f64 + 1.0)
}

/// `a * samples^-b`.
struct Curve {
    log_factor: f64,
    power: f64,
}

impl Curve {
    fn at(&self, samples: usize) -> f64 {
        (self.log_factor - self.power * (samples.max(1) as f64).ln()).exp().clamp(1e-6, 1.0)
    }
}

/// The line of least squares through the logarithms, each weighted by how many wrong samples it rests on.
fn fit(points: &[CurvePoint], errors: &[f64]) -> Option<Curve> {
    let weights: Vec<f64> = points.iter().map(|point| point.wrong as f64 + 0.5).collect();
    let total: f64 = weights.iter().sum();
    let mean =
        |values: &dyn Fn(usize) -> f64| (0..points.len()).map(|at| weights[at] * values(at)).sum::<f64>() / total;
    let x = |at: usize| (points[at].samples.max(1) as f64).ln();
    let y = |at: usize| errors[at].ln();
    let (mean_x, mean_y) = (mean(&x), mean(&y));
    let variance = mean(&|at| (x(at) - mean_x).powi(2));
    if variance.is_nan() || variance < 1e-9 {
        return None;
    }
    // More labels do no harm: an error that rises with them is chance.
    let power = (-mean(&|at| (x(at) - mean_x) * (y(at) - mean_y)) / variance).max(0.0);
    Some(Curve { log_factor: mean_y + power * mean_x, power })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trainings that differ by more than their test samples, the one that is foretold, too.
    #[test]
    fn a_power_law_is_continued_and_its_interval_holds_the_next_training() {
        let (mut inside, mut width) = (0, 0.0);
        for seed in 0..100u64 {
            let train = |at: u64, samples: usize| {
                let mut random = Random::new(seed, Purpose::Test, at, 0);
                let error = 4.0 * (samples as f64).powf(-0.5) * (0.1 * f64::from(random.normal())).exp();
                let wrong = (0..1000).filter(|_| f64::from(random.uniform()) < error).count();
                CurvePoint { samples, wrong, tested: 1000 }
            };
            let points: Vec<CurvePoint> = [100, 100, 200, 200, 400, 400, 800, 800, 800]
                .into_iter()
                .enumerate()
                .map(|(at, samples)| train(at as u64, samples))
                .collect();
            let forecast = forecast(&points, 1600).unwrap();
            assert!((forecast.accuracy - 0.9).abs() < 0.04, "{forecast:?}");
            let next = 1.0 - train(100, 1600).wrong as f64 / 1000.0;
            inside += usize::from((forecast.low..=forecast.high).contains(&next));
            width += (forecast.high - forecast.low) / 100.0;
        }
        assert!(inside >= 85 && width < 0.09, "{inside} of 100, {width}");
    }

    #[test]
    fn odd_curves_give_sound_numbers_or_none() {
        let point = |samples, wrong| CurvePoint { samples, wrong, tested: 50 };
        assert_eq!(forecast(&[], 10), None);
        assert_eq!(forecast(&[point(10, 5), point(10, 6)], 10), None);
        for points in [[point(10, 0), point(20, 0)], [point(10, 50), point(20, 50)], [point(10, 1), point(20, 30)]] {
            let forecast = forecast(&points, 40).unwrap();
            assert!(0.0 <= forecast.low && forecast.low <= forecast.accuracy && forecast.high <= 1.0, "{forecast:?}");
        }
    }
}
