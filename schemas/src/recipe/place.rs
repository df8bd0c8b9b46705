//! Where in a recipe something stands: from a byte offset to a key, and from a key to a line.
//!
//! Keys are written with dots; elements of arrays are numbers here (`features.1.n_mels`), since a name may be missing
//! or doubled. People see the name instead: [`shown`].

use std::fmt;
use std::ops::Range;

use toml_edit::{Item, TableLike};

/// Where the faulty value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of the file (or shipped recipe) named `origin`, counted from 1.
    Line {
        /// File name or name of the shipped recipe.
        origin: String,
        /// From 1.
        line: usize,
    },
    /// A `--set`, as given: `key=value`.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { origin, line } => write!(f, "{origin}:{line}"),
            Self::Flag(flag) => write!(f, "--set {flag}"),
        }
    }
}

/// The line that byte `offset` of `text` lies in, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    // TOML's offsets count bytes; no other character has the byte of a line feed in it.
    1 + text
        .as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
}

/// The key whose name or value covers byte `offset`; empty when none does.
pub(super) fn key_at(root: &Item, offset: usize) -> String {
    key_below(root, offset, "").unwrap_or_default()
}

/// As [`key_at`], in `item`, which stands at `path`.
fn key_below(item: &Item, offset: usize, path: &str) -> Option<String> {
    // From the inside out: the span of a table covers all that is in it.
    if let Some(table) = item.as_table_like() {
        for (name, child) in table.iter() {
            let key = joined(path, name);
            if covers(table.key(name).and_then(toml_edit::Key::span), offset) {
                return Some(key);
            }
            if let Some(found) = key_below(child, offset, &key) {
                return Some(found);
            }
        }
    }

    for (index, child) in elements(item).enumerate() {
        if let Some(found) = key_below(child, offset, &joined(path, &index.to_string())) {
            return Some(found);
        }
    }

    covers(item.span(), offset).then(|| path.to_owned())
}

fn covers(span: Option<Range<usize>>, offset: usize) -> bool {
    span.is_some_and(|span| span.contains(&offset))
}

/// The key `step` below `path`, which is empty for the whole file.
pub(super) fn joined(path: &str, step: &str) -> String {
    if path.is_empty() {
        step.to_owned()
    } else {
        format!("{path}.{step}")
    }
}

/// The byte at which `key` stands; of its nearest parent when it is absent; 0 when that is the whole file.
pub(crate) fn offset_of(root: &Item, key: &str) -> usize {
    let mut item = root;
    let mut offset = 0;
    for step in key.split('.') {
        let name = item
            .as_table_like()
            .and_then(|table: &dyn TableLike| table.key(step)?.span());
        let Some(child) = child(item, step) else {
            break;
        };

        // An element has no key; the header of a table tells more than the key inside `[a.b]`.
        let header = if child.is_table() { child.span() } else { None };
        offset = header
            .or(name)
            .or(child.span())
            .map_or(offset, |span| span.start);
        item = child;
    }
    offset
}

/// `key` with elements called by their name (`features.log_mel.n_mels`) where they have one, else `features[1]`.
pub(crate) fn shown(root: &Item, key: &str) -> String {
    let mut item = Some(root);
    let mut text = String::new();
    for step in key.split('.') {
        item = item.and_then(|item| child(item, step));
        // No key of a recipe is a number, so digits are an index.
        let is_element = step.bytes().all(|byte| byte.is_ascii_digit()) && !step.is_empty();
        match item.and_then(element_name) {
            Some(name) if is_element => text += &format!(".{name}"),
            _ if is_element => text += &format!("[{step}]"),
            _ if text.is_empty() => text += step,
            _ => text += &format!(".{step}"),
        }
    }
    text
}

/// The `name` (or `step`) of an element of an array of tables.
pub(super) fn element_name(element: &Item) -> Option<&str> {
    element
        .get("name")
        .or_else(|| element.get("step"))?
        .as_str()
}

/// The elements of an array or an array of tables; nothing for other items.
pub(super) fn elements(item: &Item) -> impl Iterator<Item = &Item> {
    (0..).map_while(|index| item.get(index))
}

/// By name in a table, by index in an array.
fn child<'a>(item: &'a Item, step: &str) -> Option<&'a Item> {
    item.get(step)
        .or_else(|| item.get(step.parse::<usize>().ok()?))
}
