//! Names and numbers as they are shown in a terminal: safe, shortened and aligned.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A name as it may be shown: a stranger's class name could hold line breaks or a terminal's control codes, which are
/// replaced.
pub fn printable(name: &str) -> String {
    let hidden = |c: char| {
        // Besides control characters, those that reorder or hide the text around them.
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    name.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// A share as a percentage: one decimal, and never 100% unless it is.
///
/// ```
/// use ocellus::report::percent;
/// assert_eq!(percent(0.8567), "85.7%");
/// assert_eq!(percent(0.99999), "99.9%");
/// assert_eq!(percent(1.0), "100.0%");
/// ```
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 100.0 { format!("{:.1}%", percent.min(99.9)) } else { format!("{percent:.1}%") }
}

/// The number of columns a text takes in a terminal.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text, cut to at most `limit` columns with an ellipsis for what is missing: where there is room, in the middle,
/// for names often differ in their ends only.
pub(super) fn shorten(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    let room = limit.saturating_sub(1);
    let tail = if limit >= 12 { room / 3 } else { 0 };
    let start = prefix(text.chars(), room - tail);
    let end = prefix(text.chars().rev(), tail);
    format!("{start}…{}", end.chars().rev().collect::<String>())
}

/// As many characters as fit `limit` columns.
fn prefix(characters: impl Iterator<Item = char>, limit: usize) -> String {
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= limit
    };
    characters.take_while(fits).collect()
}

/// The text, filled with blanks on its right up to `columns`.
pub(super) fn left(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// The text, filled with blanks on its left up to `columns`.
pub(super) fn right(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

/// Names ready for a column of at most `limit` columns, and the columns it takes.
pub(super) fn name_column<'a>(names: impl Iterator<Item = &'a str>, limit: usize) -> (Vec<String>, usize) {
    let names: Vec<String> = names.map(|name| shorten(&printable(name), limit)).collect();
    let columns = names.iter().map(|name| width(name)).max().unwrap_or(0);
    (names, columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_by_columns_not_bytes() {
        for (name, limit, expected) in [
            ("shirt", 5, "shirt"),
            ("shirts", 5, "shir…"),
            ("größer", 6, "größer"),
            ("größer", 3, "gr…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("", 3, ""),
            ("a", 0, "…"),
            ("n02123045 tabby", 12, "n0212304…bby"),
            ("日本語日本語日本語", 12, "日本語日…語"),
        ] {
            assert_eq!(shorten(name, limit), expected, "{name} in {limit}");
        }
        assert_eq!(right("日本", 6), "  日本");
        assert_eq!(left("日本", 6), "日本  ");
    }

    #[test]
    fn control_codes_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{202e}"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}");
    }
}
