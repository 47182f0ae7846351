//! A training run's curves as a picture.

use super::svg::{Anchor, BLUE, FAINT_INK, GRID, INK, Number, Svg, VERMILION, text_width};
use super::text::{printable, shorten};
use crate::history::History;

/// Accuracy and loss over the epochs (counted from 1) as a self-contained SVG, a panel each: training solid blue,
/// validation dashed vermilion, the best epoch ringed. Metrics of other names get panels of their own, up to
/// four in all; values that are not finite leave gaps.
pub fn learning_curves_svg(history: &History) -> String {
    let panels = panels(history);
    let columns = panels.len().clamp(1, 2);
    let rows = panels.len().div_ceil(2).max(1);
    let validated = panels.iter().any(|panel| panel.validation.is_some());
    let width = PANEL_WIDTH * columns as f64;
    let mut svg = Svg::new(width, HEADING + PANEL_HEIGHT * rows as f64, "Learning curves");
    svg.text(MARGIN, 32.0, 17.0, Anchor::Start, &format!(r#"fill="{INK}" font-weight="600""#), "Learning curves");
    draw_legend(&mut svg, width, validated);
    if history.is_empty() || panels.is_empty() {
        let faint = format!(r#"fill="{FAINT_INK}""#);
        svg.text(width / 2.0, HEADING + PANEL_HEIGHT / 2.0, 14.0, Anchor::Middle, &faint, "no epoch was finished");
        return svg.finish();
    }
    for (at, panel) in panels.iter().enumerate() {
        let left = PANEL_WIDTH * (at % 2) as f64 + MARGIN + 46.0;
        let top = HEADING + PANEL_HEIGHT * (at / 2) as f64 + 26.0;
        let area = Area { left, top, width: PANEL_WIDTH - 46.0 - 1.5 * MARGIN, height: PANEL_HEIGHT - 26.0 - 58.0 };
        draw_panel(&mut svg, history, panel, &area);
    }
    svg.finish()
}

const MARGIN: f64 = 20.0;
const HEADING: f64 = 52.0;
const PANEL_WIDTH: f64 = 480.0;
const PANEL_HEIGHT: f64 = 340.0;
const MOST_PANELS: usize = 4;
/// More epochs than this have no markers, which would hide the line.
const MOST_MARKERS: usize = 40;
const VALIDATION: &str = "val_";

/// A metric and its values, per epoch.
struct Panel<'a> {
    name: &'a str,
    training: Option<&'a [f64]>,
    validation: Option<&'a [f64]>,
}

/// The rectangle that a panel's curves fill.
struct Area {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

/// Accuracy, loss, then the others in the alphabet's order.
fn panels(history: &History) -> Vec<Panel<'_>> {
    let mut names: Vec<&str> = (history.names().into_iter())
        .filter(|name| !["learning_rate", "seconds"].contains(name))
        .map(|name| name.strip_prefix(VALIDATION).unwrap_or(name))
        .collect();
    names.sort_by_key(|name| (*name != "accuracy", *name != "loss", *name));
    names.dedup();
    names.truncate(MOST_PANELS);
    let panel = |name| {
        let validation = history.get(&format!("{VALIDATION}{name}"));
        Panel { name, training: history.get(name), validation }
    };
    names.into_iter().map(panel).collect()
}

fn draw_legend(svg: &mut Svg, width: f64, validated: bool) {
    let ink = format!(r#"fill="{INK}""#);
    let mut right = width - MARGIN;
    let mut entry = |svg: &mut Svg, label: &str, room: f64| {
        svg.text(right, 31.0, 12.5, Anchor::End, &ink, label);
        right -= room;
        right
    };
    let x = entry(svg, "best epoch", 84.0);
    svg.raw(format_args!(r#"<circle cx="{x}" cy="27" r="6" fill="none" stroke="{INK}" stroke-width="1.6"/>"#));
    right -= 20.0;
    let mut entry = |svg: &mut Svg, label: &str, room: f64| {
        svg.text(right, 31.0, 12.5, Anchor::End, &ink, label);
        right -= room;
        let at = right;
        right -= 46.0;
        at
    };
    if validated {
        let x = entry(svg, "validation", 70.0);
        svg.line((x - 32.0, 27.0), (x, 27.0), &Curve::VALIDATION.stroke());
        Curve::VALIDATION.marker(svg, x - 16.0, 27.0);
    }
    let x = entry(svg, "training", 58.0);
    svg.line((x - 32.0, 27.0), (x, 27.0), &Curve::TRAINING.stroke());
    Curve::TRAINING.marker(svg, x - 16.0, 27.0);
}

/// How a curve looks: by colour, by dashes and by marker, so that no one of them is needed.
struct Curve {
    colour: &'static str,
    dashes: &'static str,
    square: bool,
}

impl Curve {
    const TRAINING: Self = Self { colour: BLUE, dashes: "none", square: false };
    const VALIDATION: Self = Self { colour: VERMILION, dashes: "7 3", square: true };

    fn stroke(&self) -> String {
        let Self { colour, dashes, .. } = self;
        format!(
            r#"fill="none" stroke="{colour}" stroke-width="2.2" stroke-dasharray="{dashes}" stroke-linejoin="round""#
        )
    }

    fn marker(&self, svg: &mut Svg, x: f64, y: f64) {
        let fill = format!(r#"fill="{}""#, self.colour);
        if self.square {
            svg.rectangle(x - 3.1, y - 3.1, 6.2, 6.2, &fill);
        } else {
            svg.raw(format_args!(r#"<circle cx="{}" cy="{}" r="3.4" {fill}/>"#, Number(x), Number(y)));
        }
    }
}

fn draw_panel(svg: &mut Svg, history: &History, panel: &Panel<'_>, area: &Area) {
    // Epochs are shown as people count them.
    let epochs: Vec<f64> = history.epochs().iter().map(|epoch| *epoch as f64 + 1.0).collect();
    let (first, last) = extent(epochs.iter().copied()).unwrap_or((1.0, 1.0));
    let values = [panel.training, panel.validation].into_iter().flatten().flatten().copied();
    let range = extent(values);
    let (lowest, highest) = range.unwrap_or((0.0, 1.0));
    let y_ticks = ticks(lowest, highest, 5, 0.0);
    let (low, high) = (y_ticks[0].min(lowest), y_ticks[y_ticks.len() - 1].max(highest));
    let x_pad = if first == last { 0.5 } else { (last - first) * 0.03 };
    let x = |epoch: f64| area.left + area.width * (epoch - first + x_pad) / (last - first + 2.0 * x_pad);
    let y = |value: f64| area.top + area.height * (1.0 - (value - low) / (high - low));
    let (right, bottom) = (area.left + area.width, area.top + area.height);

    let faint = format!(r#"fill="{FAINT_INK}""#);
    let heading = format!(r#"fill="{INK}" font-weight="600""#);
    svg.text(area.left, area.top - 11.0, 13.5, Anchor::Start, &heading, &shorten(&printable(panel.name), 40));
    for tick in &y_ticks {
        svg.line((area.left, y(*tick)), (right, y(*tick)), &format!(r#"stroke="{GRID}""#));
        svg.text(area.left - 8.0, y(*tick) + 4.0, 11.5, Anchor::End, &faint, &tick_label(*tick, &y_ticks));
    }
    for tick in ticks(first, last, 8, 1.0).into_iter().filter(|tick| (first..=last).contains(tick)) {
        svg.line((x(tick), bottom), (x(tick), bottom + 5.0), &format!(r#"stroke="{FAINT_INK}""#));
        svg.text(x(tick), bottom + 19.0, 11.5, Anchor::Middle, &faint, &format!("{tick}"));
    }
    svg.line((area.left, bottom), (right, bottom), &format!(r#"stroke="{FAINT_INK}""#));
    svg.text(area.left + area.width / 2.0, bottom + 39.0, 12.0, Anchor::Middle, &faint, "epoch");

    if range.is_none() {
        let (x, y) = (area.left + area.width / 2.0, area.top + area.height / 2.0);
        svg.text(x, y, 13.0, Anchor::Middle, &faint, "never a finite number");
    }
    let mut drawn = Vec::new();
    for (values, curve) in [(panel.training, Curve::TRAINING), (panel.validation, Curve::VALIDATION)] {
        let points = values.into_iter().flatten().zip(&epochs).map(|(value, epoch)| (*epoch, *value));
        let points: Points = points.map(|(epoch, value)| drawable(value).then(|| (x(epoch), y(value)))).collect();
        draw_curve(svg, &points, &curve);
        drawn.push(points);
    }
    // What counts is how the model does on what it has not seen, where that was measured.
    let chosen =
        [(panel.validation, VALIDATION), (panel.training, "")].into_iter().find(|(values, _)| values.is_some());
    let best = chosen.and_then(|(_, prefix)| history.best(&format!("{prefix}{}", panel.name)));
    if let Some(best) = best.filter(|best| drawable(best.value)) {
        let at = (x(best.epoch as f64 + 1.0), y(best.value));
        let label = format!("{} in epoch {}", short_number(best.value), best.epoch + 1);
        draw_best(svg, area, at, &label, &drawn);
    }
}

/// Lines through neighbouring points, a gap where there is none, and markers while they do not crowd.
fn draw_curve(svg: &mut Svg, points: &[Option<(f64, f64)>], curve: &Curve) {
    for stretch in points.split(Option::is_none) {
        let stretch: Vec<(f64, f64)> = stretch.iter().flatten().copied().collect();
        if stretch.len() > 1 {
            let path: Vec<String> = stretch.iter().map(|(x, y)| format!("{},{}", Number(*x), Number(*y))).collect();
            svg.raw(format_args!(r#"<polyline points="{}" {}/>"#, path.join(" "), curve.stroke()));
        }
        // A lone point would not be seen without one.
        if points.len() <= MOST_MARKERS || stretch.len() == 1 {
            for (x, y) in stretch {
                curve.marker(svg, x, y);
            }
        }
    }
}

/// A curve's points in pixels; none where its value cannot be drawn.
type Points = Vec<Option<(f64, f64)>>;

fn draw_best(svg: &mut Svg, area: &Area, (x, y): (f64, f64), label: &str, curves: &[Points]) {
    let dotted = format!(r#"stroke="{FAINT_INK}" stroke-width="1" stroke-dasharray="2 4""#);
    svg.line((x, area.top), (x, area.top + area.height), &dotted);
    let (cx, cy) = (Number(x), Number(y));
    svg.raw(format_args!(r#"<circle cx="{cx}" cy="{cy}" r="6.5" fill="none" stroke="{INK}" stroke-width="1.6"/>"#));
    // Beside the ring, above or below, near or further off: where it covers least of the curves.
    const SIZE: f64 = 12.0;
    let width = text_width(label, SIZE) * 1.1;
    let places = [-12.0, 21.0, -30.0, 39.0].into_iter().flat_map(|down| {
        [(Anchor::End, x - 11.0 - width), (Anchor::Start, x + 11.0)].map(|(anchor, left)| (anchor, left, y + down))
    });
    let covered = |left: f64, baseline: f64| {
        let (top, bottom) = (baseline - SIZE, baseline + 4.0);
        let inside = |(x, y): &(f64, f64)| (left..=left + width).contains(x) && (top..=bottom).contains(y);
        let (right_edge, bottom_edge) = (area.left + area.width, area.top + area.height);
        let outside = left < area.left || left + width > right_edge || top < area.top || bottom > bottom_edge;
        let points = curves.iter().flat_map(along).filter(inside).count();
        points + if outside { 10_000 } else { 0 }
    };
    let best = places.min_by_key(|(_, left, baseline)| covered(*left, *baseline));
    let Some((anchor, left, baseline)) = best else { return };
    let at = if matches!(anchor, Anchor::End) { left + width } else { left };
    // A white rim keeps the label readable across the curves.
    let halo = format!(
        r##"fill="{INK}" font-weight="600" stroke="#ffffff" stroke-width="4" stroke-linejoin="round" paint-order="stroke""##
    );
    svg.text(at, baseline, SIZE, anchor, &halo, label);
}

/// Points along a curve's lines, close to each other.
fn along(points: &Points) -> impl Iterator<Item = (f64, f64)> {
    const STEPS: u32 = 32;
    points.windows(2).filter_map(|pair| Some((pair[0]?, pair[1]?))).flat_map(|(from, to)| {
        (0..=STEPS).map(move |step| {
            let share = f64::from(step) / f64::from(STEPS);
            (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share)
        })
    })
}

/// Whether a value can be drawn: a number, and none so large that computing with it overflows.
fn drawable(value: f64) -> bool {
    value.abs() < 1e100
}

/// The smallest and largest value that can be drawn.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| drawable(*value)).map(|value| (value, value)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// About `count` round numbers from at or below `low` to at or above `high`, at least two, no closer than `smallest`.
fn ticks(low: f64, high: f64, count: usize, smallest: f64) -> Vec<f64> {
    let span = ((high - low) / count as f64).max(smallest);
    // One value alone gets a range around it.
    let rough = if span > 0.0 { span } else { (low.abs() / 10.0).max(0.01) };
    let (low, high) = if span > 0.0 { (low, high) } else { (low - 2.0 * rough, high + 2.0 * rough) };
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let (from, mut to) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
    if to <= from {
        to = from + 1.0;
    }
    // Fewer than twice `count`, whatever rounding did.
    (0..=((to - from) as usize).min(2 * count + 2)).map(|at| (from + at as f64) * step).collect()
}

/// A tick with as many decimals as tell it from its neighbours.
fn tick_label(tick: f64, ticks: &[f64]) -> String {
    let step = (ticks[1] - ticks[0]).abs();
    if !(1e-5..1e6).contains(&step) || tick.abs() >= 1e7 {
        return format!("{tick:.1e}");
    }
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    format!("{:.decimals$}", tick + 0.0)
}

/// About three significant digits.
fn short_number(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && !(1e-3..1e5).contains(&size) => format!("{value:.2e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_span_the_values() {
        for (low, high, count, smallest, expected) in [
            (0.0, 1.0, 5, 0.0, &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0][..]),
            (1.0, 10.0, 8, 1.0, &[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (1.0, 3.0, 8, 1.0, &[1.0, 2.0, 3.0]),
            (1.0, 1.0, 8, 1.0, &[1.0, 2.0]),
            (0.5, 0.5, 5, 0.0, &[0.4, 0.45, 0.5, 0.55, 0.6]),
            (0.71, 0.93, 5, 0.0, &[0.7, 0.75, 0.8, 0.85, 0.9, 0.95]),
        ] {
            let found = ticks(low, high, count, smallest);
            assert_eq!(found.len(), expected.len(), "{low} to {high}: {found:?}");
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{low} to {high}: {found:?}");
        }
        for (low, high) in [(0.0, 0.0), (5.0, 5.0), (-1.0, 1e-12), (-1e99, 1e99), (1.0, 1.0 + f64::EPSILON)] {
            let found = ticks(low, high, 5, 0.0);
            assert!(
                (2..=14).contains(&found.len()) && found.iter().all(|tick| tick.is_finite()),
                "{low} to {high}: {found:?}"
            );
        }
    }

    #[test]
    fn every_history_is_drawn() {
        let (nan, infinity) = (f64::NAN, f64::INFINITY);
        type Epoch<'a> = &'a [(&'a str, f64)];
        let cases: &[(&str, &[Epoch<'_>], &str)] = &[
            ("nothing", &[], "no epoch was finished"),
            ("no metric", &[&[("seconds", 1.0)]], "no epoch was finished"),
            ("one epoch", &[&[("loss", 0.5), ("accuracy", 0.75)]], ">0.750 in epoch 1<"),
            ("only NaN", &[&[("loss", nan)], &[("loss", infinity)]], ">never a finite number<"),
            ("a gap", &[&[("loss", 3.0)], &[("loss", nan)], &[("loss", 1.0)]], ">1.000 in epoch 3<"),
            (
                "validation decides",
                &[&[("loss", 3.0), ("val_loss", 1.0)], &[("loss", 1.0), ("val_loss", 2.0)]],
                ">1.000 in epoch 1<",
            ),
            ("extremes", &[&[("loss", -1.7e308)], &[("loss", 3.4e38)], &[("loss", -3.4e38)]], ">loss<"),
            ("markup", &[&[("<b>", 1.0)]], "&lt;b&gt;"),
            ("validation alone", &[&[("val_loss", 1.0)]], ">loss<"),
        ];
        for (name, epochs, expected) in cases {
            let mut history = History::new();
            for (epoch, metrics) in epochs.iter().enumerate() {
                history.push(epoch as u64, metrics.iter().copied());
            }
            let svg = learning_curves_svg(&history);
            assert!(svg.contains(expected), "{name}: {svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}: {svg}");
        }
    }
}
