//! The confusion matrix as a picture.

use std::f64::consts::FRAC_1_SQRT_2;

use super::svg::{Anchor, BLUE, FAINT_INK, GRID, INK, Svg, VERMILION, text_width, tint};
use super::text::{percent, printable, shorten};
use crate::metrics::ConfusionMatrix;

/// The matrix as a self-contained SVG: a row per true class and a column per predicted class, right answers blue and
/// wrong ones vermilion, the darker the larger their share of the true class. Up to 30 classes the cells show their
/// counts; up to 60 they tell them when pointed at.
pub fn confusion_matrix_svg(matrix: &ConfusionMatrix) -> String {
    let classes = matrix.classes();
    let layout = Layout::new(matrix);
    let title = format!(
        "Confusion matrix: {} of {} right ({})",
        matrix.correct(),
        matrix.samples(),
        percent(matrix.accuracy())
    );
    let mut svg = Svg::new(layout.width, layout.height, &title);
    let heading = format!(r#"fill="{INK}" font-weight="600""#);
    svg.text(MARGIN, 30.0, 17.0, Anchor::Start, &heading, &title);
    let note = "Colour: share of the true class. Diagonal: recognised rightly.";
    svg.text(MARGIN, 49.0, 12.0, Anchor::Start, &format!(r#"fill="{FAINT_INK}""#), note);

    let Layout { left, top, cell, side, .. } = layout;
    svg.rectangle(left, top, side, side, r##"fill="#fbfcfd""##);
    for actual in 0..classes {
        let support = matrix.support(actual);
        for predicted in 0..classes {
            let count = matrix.count(actual, predicted);
            if count > 0 {
                let at = (left + cell * predicted as f64, top + cell * actual as f64);
                draw_cell(&mut svg, matrix, &layout, at, (actual, predicted), count as f64 / support as f64);
            }
        }
    }
    if classes <= MOST_LINES {
        for line in 1..classes {
            let offset = cell * line as f64;
            let grid = format!(r#"stroke="{GRID}""#);
            svg.line((left, top + offset), (left + side, top + offset), &grid);
            svg.line((left + offset, top), (left + offset, top + side), &grid);
        }
    }
    svg.rectangle(left, top, side, side, &format!(r#"fill="none" stroke="{FAINT_INK}""#));
    draw_labels(&mut svg, &layout);
    draw_scale(&mut svg, &layout);
    svg.finish()
}

const MARGIN: f64 = 20.0;
/// Up to here cells show their counts, are told apart by lines, and tell their counts when pointed at.
const MOST_COUNTS: usize = 30;
const MOST_LINES: usize = 60;
const MOST_TITLES: usize = 60;
const LONGEST_NAME: usize = 24;
/// The height of the legend below the matrix.
const SCALE: f64 = 64.0;
/// The width of one of the legend's two bars with its name.
const SCALE_WIDTH: f64 = 196.0;

/// Where things are.
struct Layout {
    names: Vec<String>,
    /// The font size of the classes' names, and which of them are shown: every so manieth.
    font: f64,
    every: usize,
    /// Whether the columns' names stand upright: slanted ones need more room than one after the other.
    upright: bool,
    /// The matrix's upper left corner, its side and one cell's.
    left: f64,
    top: f64,
    side: f64,
    cell: f64,
    width: f64,
    height: f64,
}

impl Layout {
    fn new(matrix: &ConfusionMatrix) -> Self {
        let classes = matrix.classes();
        let names: Vec<String> =
            matrix.class_names().iter().map(|name| shorten(&printable(name), LONGEST_NAME)).collect();
        // From 58 pixels for a few classes down to what keeps a thousand classes on a screen.
        let cell = (640.0 / classes.max(1) as f64).clamp(9.0, 58.0).min(4000.0 / classes.max(1) as f64);
        let font = (cell * 0.86).clamp(7.5, 13.0);
        let every = (font * 1.15 / cell).ceil().max(1.0) as usize;
        let longest = names.iter().map(|name| text_width(name, font)).fold(0.0, f64::max);
        let side = cell * classes as f64;
        let upright = cell * every as f64 * FRAC_1_SQRT_2 < font * 1.1;
        // How far the columns' names reach up, and the last one to the right.
        let (rise, reach) =
            if upright { (longest, 0.0) } else { (longest * FRAC_1_SQRT_2 + font, longest * FRAC_1_SQRT_2 + font) };
        let left = MARGIN + 24.0 + longest + 10.0;
        let top = 88.0 + rise;
        Self {
            names,
            font,
            every,
            upright,
            left,
            top,
            side,
            cell,
            width: (left + side + reach.max(MARGIN)).max(left + 2.0 * SCALE_WIDTH),
            height: top + side + SCALE,
        }
    }
}

fn draw_cell(
    svg: &mut Svg,
    matrix: &ConfusionMatrix,
    layout: &Layout,
    (x, y): (f64, f64),
    (actual, predicted): (usize, usize),
    share: f64,
) {
    let classes = matrix.classes();
    let count = matrix.count(actual, predicted);
    let colour = if actual == predicted { BLUE } else { VERMILION };
    let fill = format!(r#"fill="{}""#, tint(colour, depth(share)));
    if classes > MOST_TITLES {
        svg.rectangle(x, y, layout.cell, layout.cell, &fill);
        return;
    }
    let tip = format!(
        "true {}, predicted {}: {count} of {} ({})",
        layout.names[actual],
        layout.names[predicted],
        matrix.support(actual),
        percent(share)
    );
    svg.raw(format_args!("<g><title>{}</title>", super::svg::escape(&tip)));
    svg.rectangle(x, y, layout.cell, layout.cell, &fill);
    if classes <= MOST_COUNTS {
        let text = count.to_string();
        let font = (layout.cell * 0.34).min(15.0).min(layout.cell * 1.5 / text.len() as f64);
        let ink = if depth(share) > 0.55 { "#ffffff" } else { INK };
        let (x, y) = (x + layout.cell / 2.0, y + layout.cell / 2.0 + font * 0.36);
        svg.text(x, y, font, Anchor::Middle, &format!(r#"fill="{ink}""#), &text);
    }
    svg.raw("</g>");
}

fn draw_labels(svg: &mut Svg, layout: &Layout) {
    let Layout { names, font, every, upright, left, top, side, cell, .. } = layout;
    let ink = format!(r#"fill="{INK}""#);
    for (class, name) in names.iter().enumerate().step_by(*every) {
        let middle = cell * (class as f64 + 0.5);
        svg.text(left - 8.0, top + middle + font * 0.36, *font, Anchor::End, &ink, name);
        let (x, y) = (left + middle + font * if *upright { 0.36 } else { 0.25 }, top - 8.0);
        let angle = if *upright { -90 } else { -45 };
        let turned = format!(r#"{ink} transform="rotate({angle} {x:.2} {y:.2})""#);
        svg.text(x, y, *font, Anchor::Start, &turned, name);
    }
    let faint = format!(r#"fill="{FAINT_INK}" font-weight="600""#);
    svg.text(left + side / 2.0, 74.0, 12.0, Anchor::Middle, &faint, "predicted class");
    let (x, y) = (MARGIN + 8.0, top + side / 2.0);
    svg.text(x, y, 12.0, Anchor::Middle, &format!(r#"{faint} transform="rotate(-90 {x:.2} {y:.2})""#), "true class");
}

/// Two bars from 0 to 100%: what the colours mean.
fn draw_scale(svg: &mut Svg, layout: &Layout) {
    let (steps, step, height) = (24, 5.0, 10.0);
    let length = step * f64::from(steps);
    let y = layout.top + layout.side + 18.0;
    let mut x = layout.left;
    let faint = format!(r#"fill="{FAINT_INK}""#);
    for (name, colour) in [("right", BLUE), ("wrong", VERMILION)] {
        for at in 0..steps {
            let share = (f64::from(at) + 0.5) / f64::from(steps);
            let fill = format!(r#"fill="{}" shape-rendering="crispEdges""#, tint(colour, depth(share)));
            svg.rectangle(x + step * f64::from(at), y, step, height, &fill);
        }
        for (share, label) in [(0.0, "0%"), (0.5, "50%"), (1.0, "100%")] {
            svg.text(x + share * length, y + height + 14.0, 11.0, Anchor::Middle, &faint, label);
        }
        svg.text(x + length + 14.0, y + height, 12.0, Anchor::Start, &format!(r#"fill="{INK}""#), name);
        x += SCALE_WIDTH;
    }
}

/// How deep the colour of a share is: small shares, which most mistakes are, must still be seen.
fn depth(share: f64) -> f64 {
    if share > 0.0 { 0.05 + 0.95 * share.powf(0.65) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_drawn_and_names_are_escaped() {
        for classes in [0, 1, 2, 10, 30, 31, 60, 61, 100, 1000] {
            let mut matrix = ConfusionMatrix::new((0..classes).map(|class| format!("<{class}> & \"co\"")));
            for class in 0..classes {
                matrix.record(class, Some(class));
                matrix.record(class, Some((class + 1) % classes));
            }
            let svg = confusion_matrix_svg(&matrix);
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{classes} classes");
            assert!(!svg.contains("<0>"), "{classes} classes");
            assert_eq!(svg.contains("&lt;0&gt; &amp; &quot;co&quot;"), classes > 0, "{classes} classes");
            assert_eq!(svg.contains("of 2 (50.0%)"), (2..=MOST_TITLES).contains(&classes), "{classes} classes");
            assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        }
    }
}
