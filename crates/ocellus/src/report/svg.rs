//! A small writer of self-contained SVG documents.

use std::fmt::{Display, Write};

/// Colours that stay apart for people with any of the usual colour blindnesses: M. Okabe and K. Ito, "Color Universal
/// Design" (2008).
pub(super) const BLUE: &str = "#0072b2";
pub(super) const VERMILION: &str = "#d55e00";
pub(super) const INK: &str = "#1f2933";
pub(super) const FAINT_INK: &str = "#5f6b76";
pub(super) const GRID: &str = "#e3e7eb";

/// Where a text's position is: at its start, middle or end.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A document under construction; lengths are in pixels.
pub(super) struct Svg {
    body: String,
}

impl Svg {
    /// A white page with a title, which browsers and screen readers tell.
    pub(super) fn new(width: f64, height: f64, title: &str) -> Self {
        let (width, height) = (Number(width), Number(height));
        let title = escape(title);
        let body = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" font-family="system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif">
<title>{title}</title>
<rect width="{width}" height="{height}" fill="#ffffff"/>
"##
        );
        Self { body }
    }

    /// Adds elements that the methods below do not cover.
    pub(super) fn raw(&mut self, elements: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "{elements}");
    }

    pub(super) fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, attributes: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, size, text) = (Number(x), Number(y), Number(size), escape(text));
        self.raw(format_args!(
            r#"<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" {attributes}>{text}</text>"#
        ));
    }

    pub(super) fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, attributes: &str) {
        let (x, y, width, height) = (Number(x), Number(y), Number(width), Number(height));
        self.raw(format_args!(r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" {attributes}/>"#));
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), attributes: &str) {
        let (x1, y1, x2, y2) = (Number(from.0), Number(from.1), Number(to.0), Number(to.1));
        self.raw(format_args!(r#"<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" {attributes}/>"#));
    }

    /// The finished document.
    pub(super) fn finish(mut self) -> String {
        self.body.push_str("</svg>\n");
        self.body
    }
}

/// A length with at most two decimals.
pub(super) struct Number(pub(super) f64);

impl Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rounded = (self.0 * 100.0).round() / 100.0;
        // Adding 0 turns -0 into 0.
        write!(f, "{}", rounded + 0.0)
    }
}

/// A text as it may stand in XML: markup escaped, and the characters that XML 1.0 does not allow replaced.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The colour `share` of the way from white to a `#rrggbb` colour.
pub(super) fn tint(colour: &str, share: f64) -> String {
    let channel = |at: usize| {
        let full = colour.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(0);
        (255.0 + (f64::from(full) - 255.0) * share.clamp(0.0, 1.0)).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", channel(1), channel(3), channel(5))
}

/// A rough width of a text in a proportional sans-serif font of `size`.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let ems = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | '\'' | ' ' | '|' | '!' | ':' => 0.32,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.9,
        'A'..='Z' => 0.68,
        c if c.is_ascii() => 0.58,
        c => {
            if super::text::width(c.encode_utf8(&mut [0; 4])) > 1 {
                1.05
            } else {
                0.65
            }
        }
    };
    size * text.chars().map(ems).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(
            escape("</text><script>\"a\" & 'b'\u{1}\n"),
            "&lt;/text&gt;&lt;script&gt;&quot;a&quot; &amp; &apos;b&apos;\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn numbers_and_tints() {
        let written: Vec<String> = [1.0, -0.001, 2.345, 1e3].map(|value| Number(value).to_string()).into();
        assert_eq!(written, ["1", "0", "2.35", "1000"]);
        assert_eq!([tint(BLUE, 0.0), tint(BLUE, 1.0), tint(BLUE, 9.0)], ["#ffffff", BLUE, BLUE]);
    }
}
