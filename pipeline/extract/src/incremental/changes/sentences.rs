//! Formats changes as text, for error messages, previews and `diff`.

use std::fmt;
use wavemill_schemas::text::counted;

use super::{ClassId, DataChanges, Listed, Relabelled, Renamed};

/// Maximum number of names in a sentence.
pub const EXAMPLES: usize = 3;

impl DataChanges {
    /// Returns a sentence for each kind of change, such as `3 tracks added: 184001.mp3, 184002.mp3, …`. Empty if
    /// nothing differs.
    pub fn sentences(&self) -> Vec<String> {
        let mut words = Vec::new();
        push_sentence(&mut words, &self.added, "track", "added");
        push_sentence(&mut words, &self.removed, "track", "removed");
        push_sentence(&mut words, &self.renamed, "track", "renamed");
        push_sentence(&mut words, &self.relabelled, "label", "changed");
        push_sentence(&mut words, &self.class_ids_added, "class id", "added");
        push_sentence(&mut words, &self.class_ids_changed, "class id", "changed");
        push_sentence(&mut words, &self.moved, "track", "in another split");
        push_sentence(&mut words, &self.replaced, "file", "replaced");
        push_sentence(&mut words, &self.retagged, "file", "with other tags");

        for (names, what) in [
            (&self.features_added, "added"),
            (&self.features_removed, "removed"),
            (&self.features_changed, "changed"),
        ] {
            if !names.is_empty() {
                words.push(format!("features {what}: {}", names.join(", ")));
            }
        }
        words
    }

    /// Returns a line for each listed change that [`DataChanges::sentences`] counts.
    pub fn row_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        list(&mut lines, "added", &self.added);
        list(&mut lines, "removed", &self.removed);
        list(&mut lines, "renamed", &self.renamed);
        list(&mut lines, "label", &self.relabelled);
        list(&mut lines, "class id", &self.class_ids_added);
        list(&mut lines, "class id", &self.class_ids_changed);
        list(&mut lines, "moved", &self.moved);
        list(&mut lines, "replaced", &self.replaced);
        list(&mut lines, "tags", &self.retagged);
        lines
    }
}

fn push_sentence<T: fmt::Display>(
    words: &mut Vec<String>,
    listed: &Listed<T>,
    noun: &str,
    what: &str,
) {
    if listed.count == 0 {
        return;
    }
    let names = listed.rows.iter().take(EXAMPLES);
    let names: Vec<String> = names.map(ToString::to_string).collect();
    let more = if listed.count > EXAMPLES { ", …" } else { "" };
    words.push(format!(
        "{} {what}: {}{more}",
        counted(listed.count, noun),
        names.join(", ")
    ));
}

fn list<T: fmt::Display>(lines: &mut Vec<String>, what: &str, listed: &Listed<T>) {
    let rows = listed.rows.iter();
    lines.extend(rows.map(|row| format!("{what} {row}")));
}

impl fmt::Display for Renamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

impl fmt::Display for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.target, self.class)?;
        match (self.from, self.to) {
            (None, Some(to)) => write!(f, "{to}"),
            (Some(from), Some(to)) => write!(f, "{from} -> {to}"),
            (Some(from), None) => write!(f, "{from} -> none"),
            (None, None) => f.write_str("none"),
        }
    }
}

impl fmt::Display for Relabelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, to] = [&self.from, &self.to].map(|label| label.as_deref().unwrap_or("none"));
        write!(f, "{} {}: {from} -> {to}", self.clip_key, self.target)
    }
}
