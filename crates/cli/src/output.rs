//! Where things are said: results on stdout, notes on stderr.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use ocellus::report;
use serde::Serialize;

use crate::failure::NobodyReads;

/// Prints a result.
pub(crate) fn print(text: impl Display) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    written(write!(stdout, "{text}").and_then(|()| stdout.flush()))
}

/// Prints a result for programs, on a line of its own.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(format_args!("{}\n", serde_json::to_string(value)?))
}

/// Tells the user something that is no result.
pub(crate) fn note(text: impl Display) {
    // A closed stderr is no reason to stop.
    let _ = writeln!(io::stderr(), "{}", shown(&text.to_string()));
}

/// A text as it may be shown: names of files within it could hold a terminal's control codes.
pub(crate) fn shown(text: &str) -> String {
    text.split('\n').map(report::printable).collect::<Vec<_>>().join("\n")
}

fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(NobodyReads.into()),
        Err(error) => Err(anyhow::anyhow!("cannot write to standard output: {error}")),
        Ok(()) => Ok(()),
    }
}

/// Writes a path to JSON or TOML, which hold text only; what is no text in it is replaced.
pub(crate) fn lossy<S: serde::Serializer>(path: impl AsRef<Path>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.as_ref().to_string_lossy())
}

/// A whole number with its thousands apart: 1,234,567.
pub(crate) fn thousands(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The shape of an image or an array: 28x28x1.
pub(crate) fn shape(sizes: &[usize]) -> String {
    sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// A path as it can be typed in a shell.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:@%,".contains(c) || !c.is_ascii();
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Rows as a table of columns: the first to the left, numbers to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let aligned = cells.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        aligned.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut table = line(header);
    for row in rows {
        table += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let texts = [0u64, 999, 1000, 121_930, 1_000_000].map(thousands);
        assert_eq!(texts, ["0", "999", "1,000", "121,930", "1,000,000"]);
    }

    #[test]
    fn paths_can_be_typed() {
        for (path, typed) in
            [("a/b-1.png", "a/b-1.png"), ("my cat.jpg", "'my cat.jpg'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(quoted(Path::new(path)), typed);
        }
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["a".into(), "1".into(), "x".into()], vec!["longer".into(), "1000".into(), String::new()]];
        assert_eq!(table(&["name", "n", "what"], &rows, &[1]), "name       n  what\na          1  x\nlonger  1000\n");
    }
}
