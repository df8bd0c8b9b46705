//! Positions in a recipe: maps byte offsets to keys, and keys to lines.
//!
//! Keys are written with dots. Array elements are identified by index (`features.1.n_mels`), because a name may be
//! missing or repeated. Messages use the name instead: [`shown`].

use std::fmt;
use std::ops::Range;

use toml_edit::{Item, TableLike};

/// Origin of an invalid value in a recipe or experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a file or shipped recipe.
    Line {
        /// Name of the file or of the shipped recipe.
        origin: String,
        /// Line number, from 1.
        line: usize,
    },
    /// A `--set` option, as given: `key=value`.
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

/// Returns the line number, from 1, of the byte at `offset` in `text`.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    // TOML's offsets count bytes, and in UTF-8 the byte of a line feed is not part of any other character.
    1 + text
        .as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
}

/// Returns the key whose name or value contains the byte at `offset`, or an empty string.
pub(super) fn key_at(root: &Item, offset: usize) -> String {
    key_below(root, offset, "").unwrap_or_default()
}

/// Searches `item`, whose key is `path`, in the same way as [`key_at`].
fn key_below(item: &Item, offset: usize, path: &str) -> Option<String> {
    // Search the children first: the span of a table includes all of them.
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

/// Joins the key `path` and its child `step`; `path` is empty for the root.
pub(super) fn joined(path: &str, step: &str) -> String {
    if path.is_empty() {
        step.to_owned()
    } else {
        format!("{path}.{step}")
    }
}

/// Returns the byte offset of `key`, or of its nearest existing parent; 0 if that is the root.
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

        // Array elements have no key. For a table, the header is more useful than the position of `b` within `[a.b]`.
        let header = if child.is_table() { child.span() } else { None };
        offset = header
            .or(name)
            .or(child.span())
            .map_or(offset, |span| span.start);
        item = child;
    }
    offset
}

/// Converts `key` for display: elements with a name are shown as `features.log_mel.n_mels`, others as `features[1]`.
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

/// Returns the `name` or `step` of an element in an array of tables.
pub(super) fn element_name(element: &Item) -> Option<&str> {
    element
        .get("name")
        .or_else(|| element.get("step"))?
        .as_str()
}

/// Iterates over the elements of an array or an array of tables; empty for other items.
pub(super) fn elements(item: &Item) -> impl Iterator<Item = &Item> {
    (0..).map_while(|index| item.get(index))
}

/// Returns a child by key in a table or by index in an array.
fn child<'a>(item: &'a Item, step: &str) -> Option<&'a Item> {
    item.get(step)
        .or_else(|| item.get(step.parse::<usize>().ok()?))
}
