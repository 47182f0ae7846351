//! The page with pictures: every finding with its evidence, in one file that needs nothing else.

use std::fmt::Write;

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

use super::facts::thumbnail;
use super::report::{Finding, Mention, Report, Weight, count, is_group};
use crate::data::{Catalog, Limits};
use crate::report::{image_png, printable};

/// Longest side of a picture.
const SIDE: usize = 112;
/// Images smaller than this are kept exact, as PNG.
const EXACT_SIDE: usize = 40;
/// Groups of a kind that are shown, pictures of a group, and pictures of a kind.
const MOST_GROUPS: usize = 40;
const MOST_IN_GROUP: usize = 8;
const MOST_PICTURES: usize = 60;
/// Classes in the table.
const MOST_CLASSES: usize = 200;

const STYLE: &str = "
body { font: 15px/1.45 system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif; color: #1f2933; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .2rem; } p { margin: .2rem 0 .7rem; }
.error { color: #b3261e; } .warning { color: #a15c00; } .note { color: #5f6b76; } .quiet { color: #5f6b76; }
.pictures { display: flex; flex-wrap: wrap; gap: .7rem; } .group { border-left: 3px solid #e3e7eb; padding-left: .8rem; margin-bottom: 1rem; }
figure { margin: 0; width: 132px; } figure img { display: block; max-width: 112px; max-height: 112px; min-width: 56px; image-rendering: auto; background: #f3f5f7; }
figure .none { width: 112px; height: 56px; background: #f3f5f7; color: #5f6b76; display: flex; align-items: center; justify-content: center; font-size: .8rem; }
figcaption { font-size: .75rem; overflow-wrap: anywhere; margin-top: .2rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: right; } td:first-child, th:first-child { text-align: left; }
.bar { display: inline-block; height: .7rem; background: #0072b2; vertical-align: middle; } nav a { display: block; text-decoration: none; color: inherit; }
";

/// The report as one HTML page, with small pictures of the samples that it names.
#[must_use]
pub fn html(report: &Report, catalog: &Catalog, limits: &Limits) -> String {
    let title = escape(&format!("Check of {}", report.data));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{}</p>\n<nav>\n",
        escape(&report.headline())
    );
    // Writing to a string cannot fail.
    for (at, findings) in report.by_kind().enumerate() {
        let class = class_of(findings[0].weight);
        let name = findings[0].kind.title();
        let _ =
            writeln!(page, "<a href=\"#f{at}\"><span class=\"{class}\">{class}</span> {name}{}</a>", count(findings));
    }
    page += "</nav>\n";
    classes(&mut page, report);
    for (at, findings) in report.by_kind().enumerate() {
        section(&mut page, at, findings, catalog, limits);
    }
    page += "</body>\n</html>\n";
    page
}

fn classes(page: &mut String, report: &Report) {
    let parts = [
        ("train", report.classes.iter().map(|class| class.train).collect::<Vec<_>>()),
        ("validation", report.classes.iter().map(|class| class.validation).collect()),
        ("test", report.classes.iter().map(|class| class.test).collect()),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|(_, counts)| counts.iter().any(|&count| count > 0)).collect();
    let most = parts.iter().flat_map(|(_, counts)| counts).copied().max().unwrap_or(1).max(1);
    *page += "<h2>Classes</h2>\n<table>\n<tr><th>class</th>";
    for (name, _) in &parts {
        let _ = write!(page, "<th>{name}</th>");
    }
    *page += "<th></th></tr>\n";
    for (at, class) in report.classes.iter().enumerate().take(MOST_CLASSES) {
        let _ = write!(page, "<tr><td>{}</td>", escape(&class.name));
        for (_, counts) in &parts {
            let _ = write!(page, "<td>{}</td>", counts[at]);
        }
        let width = parts.first().map_or(0, |(_, counts)| 200 * counts[at] / most);
        let _ = writeln!(
            page,
            "<td style=\"text-align:left\"><span class=\"bar\" style=\"width:{width}px\"></span></td></tr>"
        );
    }
    *page += "</table>\n";
    if report.classes.len() > MOST_CLASSES {
        let _ = writeln!(page, "<p class=\"quiet\">… and {} more classes</p>", report.classes.len() - MOST_CLASSES);
    }
}

fn section(page: &mut String, at: usize, findings: &[Finding], catalog: &Catalog, limits: &Limits) {
    let first = &findings[0];
    let class = class_of(first.weight);
    let _ = writeln!(
        page,
        "<h2 id=\"f{at}\"><span class=\"{class}\">{class}</span> {}{}</h2>\n<p class=\"quiet\">{}</p>",
        first.kind.title(),
        count(findings),
        escape(first.kind.advice())
    );
    let grouped = is_group(first.kind);
    let most = if grouped { MOST_IN_GROUP } else { MOST_PICTURES };
    for finding in findings.iter().take(MOST_GROUPS) {
        if !finding.message.is_empty() {
            let _ = writeln!(page, "<p>{}</p>", escape(&finding.message));
        }
        if finding.samples.is_empty() {
            continue;
        }
        let _ = writeln!(page, "<div class=\"pictures{}\">", if grouped { " group" } else { "" });
        for mention in finding.samples.iter().take(most) {
            figure(page, mention, catalog, limits);
        }
        *page += "</div>\n";
        if finding.samples.len() > most {
            let _ = writeln!(page, "<p class=\"quiet\">… and {} more: see --json</p>", finding.samples.len() - most);
        }
    }
    if findings.len() > MOST_GROUPS {
        let _ = writeln!(page, "<p class=\"quiet\">… and {} more groups: see --json</p>", findings.len() - MOST_GROUPS);
    }
}

fn figure(page: &mut String, mention: &Mention, catalog: &Catalog, limits: &Limits) {
    let picture = mention.sample.and_then(|index| picture(catalog, index, limits));
    let picture = picture.map_or("<div class=\"none\">no picture</div>".to_owned(), |uri| {
        format!("<img loading=\"lazy\" alt=\"\" src=\"{uri}\">")
    });
    let class =
        mention.class.as_ref().map(|class| format!("<br><b>{}</b> {}", escape(class), mention.split.unwrap_or("")));
    let evidence = if mention.evidence.is_empty() {
        String::new()
    } else {
        format!("<br><span class=\"quiet\">{}</span>", escape(&mention.evidence))
    };
    let _ = writeln!(
        page,
        "<figure>{picture}<figcaption>{}{}{evidence}</figcaption></figure>",
        escape(&mention.name),
        class.unwrap_or_default()
    );
}

/// A sample as a small picture, in a data URI.
fn picture(catalog: &Catalog, index: usize, limits: &Limits) -> Option<String> {
    let (pixels, [height, width]) = thumbnail(catalog, index, limits, [SIDE, SIDE], false)?;
    let (kind, bytes) = if height.max(width) <= EXACT_SIDE {
        ("png", image_png(&pixels, [height, width, 3])?)
    } else {
        let mut bytes = Vec::new();
        let (width, height) = (width as u32, height as u32);
        JpegEncoder::new_with_quality(&mut bytes, 80).encode(&pixels, width, height, ExtendedColorType::Rgb8).ok()?;
        ("jpeg", bytes)
    };
    Some(format!("data:image/{kind};base64,{}", base64(&bytes)))
}

fn class_of(weight: Weight) -> &'static str {
    match weight {
        Weight::Error => "error",
        Weight::Warning => "warning",
        Weight::Note => "note",
    }
}

/// Text that means nothing but itself in HTML, whatever a stranger's file is called.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let value = three.iter().fold(0u32, |value, &byte| value << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let place = value >> (18 - 6 * digit) & 63;
            text.push(if digit <= three.len() { char::from(DIGITS[place as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_s() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn names_cannot_be_markup() {
        assert_eq!(escape("<img src='x'>&\""), "&lt;img src=&#39;x&#39;&gt;&amp;&quot;");
    }
}
