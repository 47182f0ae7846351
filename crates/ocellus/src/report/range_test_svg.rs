//! A learning-rate range test as a picture.

use super::svg::{Anchor, BLUE, FAINT_INK, GRID, INK, Number, Svg, VERMILION};
use crate::model::RangeTest;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 62.0;
const RIGHT: f64 = 24.0;
const BOTTOM: f64 = 54.0;

/// The loss over the learning rate, which is drawn by its logarithm: each step's faint, smoothed solid blue, the suggested rate a
/// dashed vermilion line. A self-contained SVG.
pub fn range_test_svg(test: &RangeTest) -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT, "Learning-rate range test");
    let ink = format!(r#"fill="{INK}" font-weight="600""#);
    svg.text(20.0, 32.0, 17.0, Anchor::Start, &ink, "Learning-rate range test");
    let faint = format!(r#"fill="{FAINT_INK}""#);
    let drawn = |value: &&f64| value.is_finite();
    let (Some(first), Some(last), Some(low)) = (
        test.rates.first(),
        test.rates.last(),
        test.smoothed.iter().copied().filter(|v| v.is_finite()).reduce(f64::min),
    ) else {
        svg.text(WIDTH / 2.0, HEIGHT / 2.0, 14.0, Anchor::Middle, &faint, "no step had a finite loss");
        return svg.finish();
    };
    // What lies above the beginning by much is cut off: it would flatten the rest.
    let start = test.smoothed.iter().find(drawn).copied().unwrap_or(low);
    let high = low + (start - low).max(low.abs() * 0.1).max(1e-9) * 1.25;
    let low = low - (high - low) * 0.05;
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x = |rate: f64| LEFT + (right - LEFT) * (rate / first).ln() / (last / first).ln().max(1e-9);
    let y = |loss: f64| bottom - (bottom - TOP) * ((loss - low) / (high - low)).clamp(0.0, 1.0);
    for share in 0..=4 {
        let loss = low + (high - low) * f64::from(share) / 4.0;
        svg.line((LEFT, y(loss)), (right, y(loss)), &format!(r#"stroke="{GRID}""#));
        svg.text(LEFT - 8.0, y(loss) + 4.0, 11.5, Anchor::End, &faint, &format!("{loss:.2}"));
    }
    let decades = first.log10().ceil() as i32..=last.log10().floor() as i32;
    for decade in decades {
        let at = x(10f64.powi(decade));
        svg.line((at, bottom), (at, bottom + 5.0), &format!(r#"stroke="{FAINT_INK}""#));
        svg.text(at, bottom + 19.0, 11.5, Anchor::Middle, &faint, &format!("1e{decade}"));
    }
    svg.line((LEFT, bottom), (right, bottom), &format!(r#"stroke="{FAINT_INK}""#));
    svg.text((LEFT + right) / 2.0, bottom + 40.0, 12.0, Anchor::Middle, &faint, "learning rate");
    svg.text(20.0, TOP - 10.0, 12.0, Anchor::Start, &faint, "loss");
    for (losses, stroke) in [
        (&test.losses, format!(r#"fill="none" stroke="{GRID}" stroke-width="1.4""#)),
        (&test.smoothed, format!(r#"fill="none" stroke="{BLUE}" stroke-width="2.2" stroke-linejoin="round""#)),
    ] {
        let points = test.rates.iter().zip(losses).filter(|(_, loss)| loss.is_finite());
        let points: Vec<String> =
            points.map(|(rate, loss)| format!("{},{}", Number(x(*rate)), Number(y(*loss)))).collect();
        svg.raw(format_args!(r#"<polyline points="{}" {stroke}/>"#, points.join(" ")));
    }
    if let Some(rate) = test.suggestion() {
        let at = x(rate);
        let dashed = format!(r#"stroke="{VERMILION}" stroke-width="1.6" stroke-dasharray="6 4""#);
        svg.line((at, TOP), (at, bottom), &dashed);
        let (anchor, to) = if at > WIDTH / 2.0 { (Anchor::End, at - 6.0) } else { (Anchor::Start, at + 6.0) };
        svg.text(to, TOP + 12.0, 12.5, anchor, &format!(r#"fill="{VERMILION}""#), &format!("suggested {rate:.2e}"));
    }
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_drawn_with_its_suggestion() {
        let test = RangeTest {
            rates: vec![1e-4, 1e-3, 1e-2, 1e-1],
            losses: vec![2.0, 1.5, f64::NAN, 90.0],
            smoothed: vec![2.0, 1.6, 1.0, 9.0],
            steepest: Some(1e-2),
            tenth_of_least: Some(1e-3),
            diverged: true,
        };
        let svg = range_test_svg(&test);
        assert!(svg.contains("suggested 1.00e-2") && svg.contains("1e-3") && !svg.contains("NaN"), "{svg}");
        let nothing = RangeTest { rates: vec![], losses: vec![], smoothed: vec![], ..test };
        assert!(range_test_svg(&nothing).contains("no step had a finite loss"));
    }
}
