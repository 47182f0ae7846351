//! How far an accuracy measured on finitely many samples can be from the true one.

use serde::{Deserialize, Serialize};

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// The 0.975 quantile of the standard normal distribution: 95% lie within this many deviations.
const NORMAL_95: f64 = 1.959_963_984_540_054;

/// Wilson's score interval of 95% confidence for a proportion of which `successes` in `trials` were seen.
///
/// From E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209–212.
/// L. D. Brown, T. T. Cai and A. DasGupta, "Interval estimation for a binomial proportion", Statistical Science 16 (2001),
/// 101–133, recommend it over the textbook's p ± 1.96·√(p(1−p)/n), which is too narrow for few samples and has no width
/// at 0% and 100%. Without trials nothing is known: 0 to 1.
///
/// It speaks of sampling only: of other test images drawn like these, not of another training run or of other data.
///
/// ```
/// let interval = ocellus::metrics::wilson(901, 1000);
/// assert_eq!(format!("{:.3} to {:.3}", interval.low, interval.high), "0.881 to 0.918");
/// ```
pub fn wilson(successes: u64, trials: u64) -> Interval {
    if trials == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = trials as f64;
    let p = (successes as f64 / n).min(1.0);
    let z2 = NORMAL_95 * NORMAL_95;
    let centre = p + z2 / (2.0 * n);
    let half = NORMAL_95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    // At the ends the formula gives exactly 0 and 1; rounding may not.
    let low = if successes == 0 { 0.0 } else { ((centre - half) / scale).max(0.0) };
    let high = if successes >= trials { 1.0 } else { ((centre + half) / scale).min(1.0) };
    Interval { low, high }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_newcombe() {
        // R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3; the last three by hand.
        for (successes, trials, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
            (0, 0, 0.0, 1.0),
            (10, 10, 0.7225, 1.0),
            (9000, 10000, 0.8940, 0.9057),
        ] {
            let interval = wilson(successes, trials);
            assert!((interval.low - low).abs() < 5.1e-5, "{successes}/{trials}: low {}", interval.low);
            assert!((interval.high - high).abs() < 5.1e-5, "{successes}/{trials}: high {}", interval.high);
        }
    }
}
