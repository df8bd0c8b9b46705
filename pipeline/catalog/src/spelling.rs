//! Names of artists and classes that differ only in their spelling.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;

use icu_normalizer::ComposingNormalizerBorrowed;

/// Maximum number of names, each with its spellings, that a warning lists.
const NAMES_LISTED_MAX: usize = 5;

/// Returns a form of `name` that does not depend on case, Unicode's composed, decomposed and compatible characters, spaces
/// around it, and spaces, hyphens and underscores between two letters. Other separators are kept, so that -1 and 1, or 1-2
/// and 12, differ. This is the SQL function `normalized`: its results are in stores and must not change.
pub(super) fn normalized(name: &str) -> String {
    let normalizer = ComposingNormalizerBorrowed::new_nfkc();
    // Letters with several lower cases have one upper case: `ß` and `ss`, or `ς` and `σ`.
    let lower = normalizer.normalize(name).to_uppercase().to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let name = normalizer.normalize(&words.join(" ")).into_owned();

    let mut joined = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        let is_separator = matches!(c, ' ' | '_' | '-' | '\u{2010}'..='\u{2015}');
        let is_before_letter = chars.peek().is_some_and(|next| next.is_alphabetic());
        if !(is_separator && is_before_letter && joined.ends_with(char::is_alphabetic)) {
            joined.push(c);
        }
    }
    joined
}

/// Returns a column's name as SQL.
pub(super) fn identifier(column: &str) -> String {
    format!("\"{}\"", column.replace('"', "\"\""))
}

/// Returns the text of a warning that lists those of the names that have the same normalized form and several ids (classes
/// are their own ids), or `None` if there are none. The SQL `merged` makes one id of these in the column `column`.
pub(super) fn alike<'a, Id: Copy + Eq + Hash + Ord>(
    column: &str,
    merged: &str,
    names: impl Iterator<Item = (&'a str, Id)>,
) -> Option<String> {
    let mut by_form: BTreeMap<String, BTreeSet<(&str, Id)>> = BTreeMap::new();
    for (name, id) in names.collect::<HashSet<_>>() {
        let spellings = by_form.entry(normalized(name)).or_default();
        spellings.insert((name, id));
    }
    by_form.retain(|_, spellings| {
        let ids: HashSet<Id> = spellings.iter().map(|(_, id)| *id).collect();
        ids.len() > 1
    });

    let spellings = by_form.values().take(NAMES_LISTED_MAX).flatten();
    let mut listed: Vec<_> = spellings.map(|(name, _)| format!("`{name}`")).collect();
    // One name may have several ids.
    listed.dedup();
    let (n, listed, column) = (by_form.len(), listed.join(", "), identifier(column));
    (n > 0).then(|| {
        format!(
            "{n} names have several spellings (case, spaces, hyphens, Unicode form) or ids, such as {listed}: a cleaning step \
             with sql = '''SELECT * REPLACE ({merged} AS {column}) FROM input''' makes each of them one"
        )
    })
}
