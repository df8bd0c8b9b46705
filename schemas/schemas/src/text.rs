//! Escapes external text for display: names, titles, recipe keys, paths, messages of other libraries.
//!
//! Terminals interpret control characters. A column called `\u{1b}[2J` would clear the screen, and U+202E reverses the
//! direction of text, so that it reads differently. All external text is escaped by [`shown`] before display. Output
//! for programs (JSON, CSV, Arrow, Parquet) is not changed.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt::Display;
use std::fmt::Write as _;

pub use wavemill_options::did_you_mean;

use crate::exit;

/// Returns `text` as a single line without effects on a terminal.
///
/// Control characters, line breaks, and characters that only change direction or are invisible become escapes such as
/// `\n`, `\u{1b}` and `\u{202e}`. All other characters of any script are kept, including accents and joiners.
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }

    // Escapes are longer than the characters they replace: reserve space for two or three.
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push_shown(&mut line, c);
    }
    Cow::Owned(line)
}

/// Escapes text like [`shown`], but keeps line feeds. For text with several lines, such as a query plan.
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    // Only line feeds separate lines: a carriage return would move the cursor back to the start of the line.
    if text.contains(|c| c != '\n' && is_escaped(c)) {
        Cow::Owned(text.split('\n').map(shown).collect::<Vec<_>>().join("\n"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Formats a number with its noun, which may have words before it: `1 file`, `2 new files`, `3 classes`.
pub fn counted<N: Display + PartialEq + From<u8>>(n: N, noun: &str) -> String {
    let ending = match noun {
        _ if n == N::from(1) => "",
        noun if noun.ends_with('s') || noun.ends_with("tch") => "es",
        _ => "s",
    };
    format!("{n} {noun}{ending}")
}

/// Returns the message of a caught panic, or `None` if its payload is not text.
pub fn panic_message(panic: &(dyn Any + Send)) -> Option<&str> {
    let formatted = panic.downcast_ref::<String>().map(String::as_str);
    formatted.or_else(|| panic.downcast_ref::<&str>().copied())
}

/// Formats an error and its causes on one line for a terminal, without causes that the line already contains. A missing
/// permission, which can cause errors of every kind, has one remedy.
pub fn error_line(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    let mut next = Some(error);
    let mut remedy = None;
    while let Some(cause) = next {
        remedy = remedy.or(exit::is_denied(cause).then_some(exit::DENIED_REMEDY));
        let message = cause.to_string();
        let words: Vec<&str> = message.split_whitespace().collect();
        let message = words.join(" ");
        if line.is_empty() {
            line = message;
        } else if !line.contains(&message) {
            line = format!("{line}: {message}");
        }
        next = cause.source();
    }
    if let Some(remedy) = remedy {
        line = format!("{line}: {remedy}");
    }
    shown(&line).into_owned()
}

/// Appends one character, escaped in the same way as by [`shown`].
pub fn push_shown(line: &mut String, c: char) {
    if !is_escaped(c) {
        line.push(c);
    } else if matches!(c, '\n' | '\r' | '\t') {
        line.extend(c.escape_default());
    } else {
        // Writing to a string never fails.
        let _ = write!(line, "\\u{{{:x}}}", u32::from(c));
    }
}

/// Reports whether a character affects the terminal or adjacent characters instead of being visible.
const fn is_escaped(c: char) -> bool {
    // Unicode's category "format" is too broad: it includes joiners, which some scripts need.
    match c {
        // Control characters C0, DEL and C1: terminal escape sequences start with one of them.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true,

        // Characters that change the direction of text: marks, embeddings, overrides, isolates.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}' => {
            true
        }

        // Line and paragraph separators.
        '\u{2028}' | '\u{2029}' => true,

        // Invisible characters: two names that differ only in these look equal. The joiners U+200C and U+200D are not
        // included, because Persian, Hindi and emoji use them.
        '\u{ad}'
        | '\u{180e}'
        | '\u{200b}'
        | '\u{2060}'..='\u{2064}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' => true,
        '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_control_sequences_are_escaped() {
        let cases = [
            (
                "ev\u{1b}[31mil\u{1b}]0;pwn\u{7}",
                r"ev\u{1b}[31mil\u{1b}]0;pwn\u{7}",
            ),
            ("a\u{9b}2J", r"a\u{9b}2J"),
            ("del\u{7f}\u{8}", r"del\u{7f}\u{8}"),
            ("x\ny\r\tz", r"x\ny\r\tz"),
            ("x\u{85}y\u{2028}z\u{2029}", r"x\u{85}y\u{2028}z\u{2029}"),
            (
                "gpj.\u{202e}exe\u{2066}\u{2069}",
                r"gpj.\u{202e}exe\u{2066}\u{2069}",
            ),
            ("\u{200e}\u{200f}\u{61c}", r"\u{200e}\u{200f}\u{61c}"),
            ("ro\u{200b}ck\u{feff}\u{ad}", r"ro\u{200b}ck\u{feff}\u{ad}"),
        ];

        for (text, want) in cases {
            assert_eq!(shown(text), want);
        }
    }

    #[test]
    fn no_character_that_remains_is_a_control_character() {
        let all: String = (0..=0x11_0000).filter_map(char::from_u32).collect();
        assert!(!shown(&all).contains(char::is_control));
        assert!(!shown_lines(&all).contains(|c: char| c != '\n' && c.is_control()));
    }

    #[test]
    fn text_of_every_script_stays_as_it_is() {
        for text in [
            "Björk – „Jóga“",
            "初音ミク",
            "فيروز",
            "می\u{200c}خواهم",
            "👩\u{200d}🎤",
            "e\u{301}",
            r"C:\music",
        ] {
            assert!(
                matches!(shown(text), Cow::Borrowed(same) if same == text),
                "{text}"
            );
        }
    }

    #[test]
    fn panic_message_is_extracted() {
        assert_eq!(panic_message(&"text"), Some("text"));
        assert_eq!(panic_message(&"text".to_owned()), Some("text"));
        assert_eq!(panic_message(&7), None);
    }

    #[test]
    fn a_noun_has_the_number_of_its_count() {
        let of = |n: u64| ["file", "epoch", "class", "batch"].map(|noun| counted(n, noun));
        assert_eq!(of(1), ["1 file", "1 epoch", "1 class", "1 batch"]);
        assert_eq!(of(2), ["2 files", "2 epochs", "2 classes", "2 batches"]);
        assert_eq!(counted(0_usize, "new file"), "0 new files");
    }

    #[test]
    fn several_lines_stay_several_lines() {
        assert_eq!(
            shown_lines("plan\n  scan\u{1b}[2J\n"),
            "plan\n  scan\\u{1b}[2J\n"
        );
        assert_eq!(shown_lines("a\nb"), "a\nb");
    }
}
