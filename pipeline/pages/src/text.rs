//! Formats texts and numbers for pages.

use maud::{Markup, html};

/// Maximum number of characters shown of a text: of a biography, only the beginning is shown.
pub(crate) const TEXT_CHARS_MAX: usize = 300;

/// Maximum length of a link's path in bytes: no file can have a longer path.
const PATH_BYTES_MAX: usize = 4096;

/// The character that replaces the cut part of a text.
pub(crate) const ELLIPSIS: char = '…';

/// A text made safe to show: at most `chars_max` characters, with control characters, line breaks and the two other
/// characters that XML forbids replaced by spaces.
pub(crate) struct Shown {
    /// The shown text, with an ellipsis if it was cut.
    pub text: String,
    /// The number of characters before the cut, or `None` if the text was not cut.
    pub chars_before: Option<usize>,
}

impl Shown {
    pub(crate) fn new(text: &str, chars_max: usize) -> Self {
        let shown = text.chars().map(visible);
        // Reading one character more than fits shows whether the text must be cut, regardless of its length.
        let begin: String = shown.clone().take(chars_max + 1).collect();
        if begin.chars().count() <= chars_max {
            return Self {
                text: begin,
                chars_before: None,
            };
        }

        let mut cut: String = shown.take(chars_max.saturating_sub(1)).collect();
        cut.push(ELLIPSIS);
        Self {
            text: cut,
            chars_before: Some(text.chars().count()),
        }
    }

    /// Returns the escaped text, followed by a note on its original length if it was cut.
    pub(crate) fn markup(&self) -> Markup {
        html! {
            (self.text)
            @if let Some(chars) = self.chars_before {
                " " small.cut { "(truncated from " (count(chars as u64)) " characters)" }
            }
        }
    }
}

fn visible(c: char) -> char {
    let is_forbidden = matches!(c, '\u{FFFE}' | '\u{FFFF}');
    if c.is_control() || is_forbidden {
        ' '
    } else {
        c
    }
}

/// Shortens a chart label, without a note on its original length: the chart's data table shows more of the label.
pub(crate) fn label(text: &str, chars_max: usize) -> String {
    Shown::new(text, chars_max).text
}

/// Turns a path into a link to a file. For any path, the link leads to no other host and runs nothing: it begins with
/// `./`, and all characters with a meaning in URLs are percent-encoded.
pub(crate) fn link(path: &str) -> String {
    let mut link = "./".to_owned();
    for byte in path.bytes().take(PATH_BYTES_MAX) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
                link.push(char::from(byte));
            }
            other => link += &format!("%{other:02X}"),
        }
    }
    link
}

/// Formats a count with separated thousands: `106,574`. Four digits are not separated, as in a year.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    if digits.len() <= 4 {
        return digits;
    }
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Formats a value with about four digits: `0.001235`, `12.35`, `12,346`; below a thousandth as `1.235e−4`, and
/// non-finite values as a dash.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    if size >= 1000.0 || (value.fract() == 0.0 && size < 1e15) {
        let sign = if value < 0.0 { "−" } else { "" };
        return format!("{sign}{}", count(size.round() as u64));
    }

    let decimals = match size {
        s if s >= 100.0 => 1,
        s if s >= 10.0 => 2,
        s if s >= 1.0 => 3,
        s if s >= 0.1 => 4,
        s if s >= 0.01 => 5,
        s if s >= 0.001 => 6,
        _ => return format!("{value:.3e}").replace('-', "−"),
    };
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0')
        .trim_end_matches('.')
        .replace('-', "−")
}

/// Formats a part of a whole in per cent: `12.3 %`, or a dash if the whole is 0.
pub fn fraction(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    format!("{:.1} %", 100.0 * part as f64 / whole as f64)
}

/// Formats a number of bytes in decimal units: `1.2 MB`.
pub fn bytes(n: u64) -> String {
    in_units(n, 1000.0, ["kB", "MB", "GB", "TB"])
}

/// Formats a number of bytes in binary units, which are the units of limits: `64.0 MiB`.
pub fn binary_bytes(n: u64) -> String {
    in_units(n, 1024.0, ["KiB", "MiB", "GiB", "TiB"])
}

fn in_units(n: u64, base: f64, units: [&str; 4]) -> String {
    let mut value = n as f64;
    let mut unit = "bytes";
    for larger in units {
        if value < base {
            break;
        }
        value /= base;
        unit = larger;
    }
    if unit == "bytes" {
        return format!("{n} bytes");
    }
    format!("{value:.1} {unit}")
}

/// Formats a duration: `0.42 s`, `3 min 05 s`, `15 min`, `7 h 02 min`.
pub fn seconds(span_s: f64) -> String {
    if !span_s.is_finite() || span_s < 0.0 {
        return "–".to_owned();
    }
    if span_s < 10.0 {
        return format!("{span_s:.2} s");
    }

    let whole_s = span_s.round() as u64;
    let seconds = whole_s % 60;
    let minutes = whole_s / 60 % 60;
    let hours = count(whole_s / 3600);
    match whole_s {
        0..60 => format!("{seconds} s"),
        60..3600 if seconds == 0 => format!("{minutes} min"),
        60..3600 => format!("{minutes} min {seconds:02} s"),
        _ if minutes == 0 => format!("{hours} h"),
        _ => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(2008), "2008");
        assert_eq!(count(106_574), "106,574");
        assert_eq!(count(1_000_000), "1,000,000");

        assert_eq!(number(0.012_345_6), "0.01235");
        assert_eq!(number(-12.5), "−12.5");
        assert_eq!(number(1234.5), "1235");
        assert_eq!(number(-3.0), "−3");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.006_445), "0.006445");
        assert_eq!(number(0.000_12), "1.200e−4");
        assert_eq!(number(f64::NAN), "–");

        assert_eq!(fraction(1, 8), "12.5 %");
        assert_eq!(fraction(1, 0), "–");

        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1_250_000), "1.2 MB");
        assert_eq!(binary_bytes(1_023), "1023 bytes");
        assert_eq!(binary_bytes(64 << 20), "64.0 MiB");

        assert_eq!(seconds(0.416), "0.42 s");
        assert_eq!(seconds(185.0), "3 min 05 s");
        assert_eq!(seconds(900.0), "15 min");
        assert_eq!(seconds(7201.0), "2 h");
        assert_eq!(seconds(25_320.0), "7 h 02 min");
    }

    #[test]
    fn links_lead_only_to_files() {
        assert_eq!(link("pages/run-1.html"), "./pages/run-1.html");
        assert_eq!(link("javascript:alert(1)"), "./javascript%3Aalert%281%29");
        assert_eq!(link("//example.org/?a#b"), ".///example.org/%3Fa%23b");
        assert_eq!(link("é \"<"), "./%C3%A9%20%22%3C");
        assert_eq!(link(&"x".repeat(1_000_000)).len(), 2 + PATH_BYTES_MAX);
    }

    #[test]
    fn a_long_text_is_cut_with_a_note() {
        let long = "é".repeat(1_000_000);
        let shown = Shown::new(&long, TEXT_CHARS_MAX);
        assert_eq!(shown.text.chars().count(), TEXT_CHARS_MAX);
        assert!(shown.text.ends_with(ELLIPSIS));

        let markup = shown.markup().into_string();
        assert!(
            markup.contains("(truncated from 1,000,000 characters)"),
            "{markup}"
        );

        assert_eq!(label("short", 5), "short");
        assert_eq!(label("longer", 5), "long…");
        assert_eq!(label("a\u{1b}[2J\nb", 9), "a [2J b");
    }
}
