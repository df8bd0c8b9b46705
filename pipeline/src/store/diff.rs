//! What differs between two versions.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::recipe::Recipe;

/// One value that differs; `None` where it is absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Dotted path, such as `features.log_mel.n_mels`.
    pub key: String,
    /// In the first.
    pub from: Option<Value>,
    /// In the second.
    pub to: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |v: &Option<Value>| v.as_ref().map_or_else(|| "absent".to_owned(), ToString::to_string);
        write!(f, "{} {} -> {}", self.key, words(&self.from), words(&self.to))
    }
}

/// The difference of two versions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// Recipe keys.
    pub recipe: Vec<Change>,
    /// Engine, counts and class lists.
    pub manifest: Vec<Change>,
    /// Paths below the plans' folders that only the first has.
    pub files_removed: Vec<String>,
    /// … that only the second has.
    pub files_added: Vec<String>,
    /// … that both have with other bytes.
    pub files_changed: Vec<String>,
    /// … with equal bytes.
    pub files_equal: usize,
}

impl Diff {
    /// Compares two manifests.
    #[must_use]
    pub fn new(from: &Manifest, to: &Manifest) -> Self {
        let [old, new] = [from, to].map(files);
        let only = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| -> Vec<String> {
            a.keys().filter(|path| !b.contains_key(*path)).cloned().collect()
        };
        let both = || old.iter().filter_map(|(path, hash)| new.get(path).map(|other| (path, hash == other)));
        let part = |m: &Manifest| serde_json::json!({"engine": m.engine, "counts": m.counts, "targets": m.targets, "limit": m.identity.limit});
        let mut manifest = Vec::new();
        compare(String::new(), Some(&part(from)), Some(&part(to)), &mut manifest);
        Self {
            recipe: recipe_changes(&from.recipe, &to.recipe),
            manifest,
            files_removed: only(&old, &new),
            files_added: only(&new, &old),
            files_changed: both().filter(|(_, equal)| !equal).map(|(path, _)| path.clone()).collect(),
            files_equal: both().filter(|(_, equal)| *equal).count(),
        }
    }
}

/// Path below `data/<plan_id>/` → blake3.
fn files(manifest: &Manifest) -> BTreeMap<String, String> {
    let below = |path: &str| path.splitn(3, '/').nth(2).unwrap_or_default().to_owned();
    manifest.files.iter().map(|f| (below(&f.path), f.blake3.clone())).collect()
}

/// Keys of two recipes that differ.
#[must_use]
pub fn recipe_changes(from: &Recipe, to: &Recipe) -> Vec<Change> {
    let [from, to] = [from, to].map(|recipe| serde_json::to_value(recipe).unwrap_or_default());
    let mut changes = Vec::new();
    compare(String::new(), Some(&from), Some(&to), &mut changes);
    changes
}

fn compare(key: String, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<Change>) {
    if from == to {
        return;
    }
    let children = |v: Option<&Value>| -> Option<BTreeMap<String, Value>> {
        match v? {
            Value::Object(map) => Some(map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()),
            // Lists of sections are addressed by name, as in --set.
            Value::Array(items) => items
                .iter()
                .map(|v| Some((v.get("name").or_else(|| v.get("step"))?.as_str()?.to_owned(), v.clone())))
                .collect(),
            _ => None,
        }
    };
    let (Some(old), Some(new)) = (children(from), children(to)) else {
        changes.push(Change { key, from: from.cloned(), to: to.cloned() });
        return;
    };
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let before = changes.len();
    for name in names {
        let child = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        compare(child, old.get(name), new.get(name), changes);
    }
    if changes.len() == before {
        // The same sections in another order.
        changes.push(Change { key, from: from.cloned(), to: to.cloned() });
    }
}
