//! Computes the differences between two versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::recipe::Recipe;
use wavemill_schemas::text::counted;

/// Maximum number of recipe keys in a summary.
const KEYS_MAX: usize = 3;
/// Maximum number of recipe keys in a refusal, which also shows their values.
const VALUES_MAX: usize = 5;
/// Maximum length of a key with its values in a refusal.
const CHANGE_BYTES_MAX: usize = 80;

/// A value that differs between two versions. `None` means that a version lacks the value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Dotted path of the value, such as `features.log_mel.n_mels`.
    pub key: String,
    /// Value in the first version.
    pub from: Option<Value>,
    /// Value in the second version.
    pub to: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = format_value(self.from.as_ref());
        let to = format_value(self.to.as_ref());
        write!(f, "{} {from} -> {to}", self.key)
    }
}

impl Change {
    /// Formats the change in a few words: sections and long values are not shown.
    fn brief(&self) -> String {
        let text = self.to_string();
        if text.len() <= CHANGE_BYTES_MAX && !text.contains('{') {
            return text;
        }
        let what = match (&self.from, &self.to) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        format!("{} {what}", self.key)
    }
}

fn format_value(value: Option<&Value>) -> String {
    value.map_or_else(|| "none".to_owned(), ToString::to_string)
}

/// The differences between two versions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// Recipe keys whose values differ.
    pub recipe: Vec<Change>,
    /// Differences in the engine, the counts, the targets and the limit of clips.
    pub manifest: Vec<Change>,
    /// Files that only the first version has, as paths below the plans' folders.
    pub files_removed: Vec<String>,
    /// Files that only the second version has.
    pub files_added: Vec<String>,
    /// Files that both versions have with different bytes.
    pub files_changed: Vec<String>,
    /// Number of files that both versions have with equal bytes.
    pub files_equal: usize,
}

impl Diff {
    /// Compares two manifests.
    pub fn new(from: &Manifest, to: &Manifest) -> Self {
        let [old, new] = [from, to].map(files);
        let mut files_removed = Vec::new();
        let mut files_changed = Vec::new();
        let mut files_equal = 0;
        for (path, hash) in &old {
            match new.get(path) {
                None => files_removed.push(path.clone()),
                Some(other) if other != hash => files_changed.push(path.clone()),
                Some(_) => files_equal += 1,
            }
        }
        let added = new.into_keys().filter(|path| !old.contains_key(path));
        let files_added = added.collect();

        let mut manifest = Vec::new();
        compare(
            String::new(),
            Some(&compared_part(from)),
            Some(&compared_part(to)),
            &mut manifest,
        );
        Self {
            recipe: recipe_changes(&from.recipe, &to.recipe),
            manifest,
            files_removed,
            files_added,
            files_changed,
            files_equal,
        }
    }

    /// Names the first recipe keys that differ and the differing parts of the manifest, such as `recipe split.seed,
    /// targets`. If none differs, the summary is `files`, or `nothing` if all files are equal.
    pub fn summary(&self) -> String {
        let keys = self.recipe.iter().take(KEYS_MAX);
        let mut words: Vec<String> = keys
            .map(|change| format!("recipe {}", change.key))
            .collect();
        if self.recipe.len() > KEYS_MAX {
            words.push("more recipe keys".to_owned());
        }
        for change in &self.manifest {
            let part = change.key.split('.').next().unwrap_or_default();
            words.push(part.to_owned());
        }
        // Repeated names are adjacent, because the keys of a part are adjacent.
        words.dedup();

        if words.is_empty() {
            let n_files =
                self.files_removed.len() + self.files_added.len() + self.files_changed.len();
            words.push(if n_files == 0 { "nothing" } else { "files" }.to_owned());
        }
        words.join(", ")
    }
}

/// Returns the part of a manifest that is compared key by key. The recipe is compared separately.
fn compared_part(manifest: &Manifest) -> Value {
    serde_json::json!({
        "engine": manifest.engine,
        "counts": manifest.counts,
        "targets": manifest.targets,
        "limit": manifest.identity.limit,
    })
}

/// Returns the blake3 hash of each file by its path below `data/<plan_id>/`.
fn files(manifest: &Manifest) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for file in &manifest.files {
        // Every plan has its own folder, so full paths would never be equal.
        let below = file.path.splitn(3, '/').nth(2).unwrap_or_default();
        files.insert(below.to_owned(), file.blake3.clone());
    }
    files
}

/// Describes how two recipes differ: another name first, then the first keys with their values.
pub(super) fn describe_recipes(from: &Recipe, to: &Recipe) -> String {
    let mut changes = recipe_changes(from, to);
    let mut text = "recipe".to_owned();
    if from.name != to.name {
        text += &format!(" {} instead of {}", to.name, from.name);
        // The description belongs to the name.
        changes.retain(|change| change.key != "name" && change.key != "description");
    }

    let mut listed: Vec<String> = changes.iter().take(VALUES_MAX).map(Change::brief).collect();
    match changes.len().saturating_sub(VALUES_MAX) {
        0 => {}
        more => listed.push(format!("and {}", counted(more, "more key"))),
    }
    if !listed.is_empty() {
        text += &format!(": {}", listed.join(", "));
    }
    text
}

/// Returns the keys of two recipes that differ.
fn recipe_changes(from: &Recipe, to: &Recipe) -> Vec<Change> {
    let [from, to] = [from, to].map(|recipe| serde_json::to_value(recipe).unwrap_or_default());
    let mut changes = Vec::new();
    compare(String::new(), Some(&from), Some(&to), &mut changes);
    changes
}

fn compare(key: String, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<Change>) {
    if from == to {
        return;
    }
    let before = changes.len();
    if let (Some(old), Some(new)) = (from.and_then(named_parts), to.and_then(named_parts)) {
        let [old, new] = [old, new].map(BTreeMap::from_iter);
        let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        for name in names {
            let child = match key.as_str() {
                "" => name.to_owned(),
                key => format!("{key}.{name}"),
            };
            let [was, is] = [&old, &new].map(|parts| parts.get(name).copied());
            compare(child, was, is, changes);
        }
    }

    // A value without named parts, or with equal parts in another order.
    if changes.len() == before {
        changes.push(Change {
            key,
            from: from.cloned(),
            to: to.cloned(),
        });
    }
}

/// Returns the parts of a value of a recipe or manifest with their names, in their order, or `None` if the value has no
/// named parts.
pub fn named_parts(value: &Value) -> Option<Vec<(&str, &Value)>> {
    match value {
        Value::Object(map) => Some(map.iter().map(|(key, v)| (key.as_str(), v)).collect()),
        // Lists of sections are addressed by the names of their elements, as in --set.
        Value::Array(items) => {
            let mut sections = Vec::with_capacity(items.len());
            for item in items {
                // If an item of a list has no name, the whole list is one value.
                let name = item.get("name").or_else(|| item.get("step"))?;
                sections.push((name.as_str()?, item));
            }
            Some(sections)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(keys: &[&str]) -> Vec<Change> {
        let mut changes = Vec::new();
        for key in keys {
            changes.push(Change {
                key: (*key).to_owned(),
                from: None,
                to: None,
            });
        }
        changes
    }

    #[test]
    fn a_refusal_names_the_other_recipe_and_few_keys() {
        let load = |name: &str, sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            Recipe::load(name, &sets).expect("a shipped recipe")
        };
        let demo = load("demo", &[]);

        let one = load("demo", &["features.log_mel.n_mels=64"]);
        assert_eq!(
            describe_recipes(&demo, &one),
            "recipe: features.log_mel.n_mels 96 -> 64"
        );

        let some = load(
            "demo",
            &[
                "audio.duration_s=none",
                "features.mfcc=none",
                "split.seed=7",
            ],
        );
        assert_eq!(
            describe_recipes(&demo, &some),
            "recipe: audio.duration_s 10.0 -> none, features.mfcc removed, split.seed 42 -> 7"
        );

        let other = load("gtzan-segments", &[]);
        assert_eq!(
            describe_recipes(&demo, &other),
            "recipe gtzan-segments instead of demo: audio.duration_s 10.0 -> none, audio.segment_min_s none -> 2.5, \
             audio.segment_s none -> 3.0, audio.segments_max none -> 10, catalog.clean.labelled removed, and 9 more keys"
        );
    }

    #[test]
    fn summary_names_keys_and_parts_before_files() {
        let mut diff = Diff {
            recipe: Vec::new(),
            manifest: Vec::new(),
            files_removed: Vec::new(),
            files_added: Vec::new(),
            files_changed: Vec::new(),
            files_equal: 1,
        };
        assert_eq!(diff.summary(), "nothing");

        diff.files_added.push("tables/tracks.parquet".to_owned());
        assert_eq!(diff.summary(), "files");

        diff.recipe = changes(&["features.chroma", "split.seed"]);
        diff.manifest = changes(&["counts.rows_kept", "counts.rows_read", "limit"]);
        assert_eq!(
            diff.summary(),
            "recipe features.chroma, recipe split.seed, counts, limit"
        );

        diff.recipe = changes(&["a", "b", "c", "d"]);
        assert_eq!(
            diff.summary(),
            "recipe a, recipe b, recipe c, more recipe keys, counts, limit"
        );
    }
}
