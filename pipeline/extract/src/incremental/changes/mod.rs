//! Differences between two states of a store's data: two versions, or the latest version and the planned result of a
//! run.

mod columns;
mod sentences;
mod state;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use wavemill_catalog::SplitMove;

pub use self::columns::{ColumnChange, column_changes};
pub use self::state::State;

pub use self::sentences::EXAMPLES;

use self::state::Track;

/// A clip with a new key: its file has the same content as the file of exactly one key that disappeared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Renamed {
    /// Key of the clip in the first state.
    pub from: String,
    /// Key of the clip in the second state.
    pub to: String,
}

/// A track whose label differs between two states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Relabelled {
    /// Key of the clip in the second state.
    pub clip_key: String,
    /// Name of the target.
    pub target: String,
    /// Label in the first state; `None` if the track had none.
    pub from: Option<String>,
    /// Label in the second state.
    pub to: Option<String>,
}

/// A class whose id differs between two states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassId {
    /// Name of the target.
    pub target: String,
    /// Name of the class.
    pub class: String,
    /// Id in the first state; `None` if the class had none.
    pub from: Option<usize>,
    /// Id in the second state.
    pub to: Option<usize>,
}

/// Number and list of changes of one kind, such as added tracks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed<T> {
    /// Total number of changes of this kind.
    pub count: usize,
    /// All changes of this kind, or the first ones, sorted by key.
    pub rows: Vec<T>,
}

impl<T> Listed<T> {
    fn new(rows: Vec<T>) -> Self {
        Self {
            count: rows.len(),
            rows,
        }
    }
}

/// Number of clips of one class in each of two states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Number of clips with rows in the first state, over all splits.
    pub before: u64,
    /// Number of clips with rows in the second state, over all splits.
    pub after: u64,
}

/// Differences between two states of the data. Keys are clip keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DataChanges {
    /// Tracks that exist only in the second state.
    pub added: Listed<String>,
    /// Tracks that exist only in the first state.
    pub removed: Listed<String>,
    /// Tracks that exist in both states under different keys.
    pub renamed: Listed<Renamed>,
    /// Tracks with another label of a target that exists in both states.
    pub relabelled: Listed<Relabelled>,
    /// Tracks that are in another split (training, validation or test).
    pub moved: Listed<SplitMove>,
    /// Tracks whose file has different bytes that decode to the same audio.
    pub retagged: Listed<String>,
    /// Tracks whose file has different bytes, and not known to decode to the same audio.
    pub replaced: Listed<String>,
    /// Classes that exist only in the second state.
    pub class_ids_added: Listed<ClassId>,
    /// Classes that have another id, or none, in the second state.
    pub class_ids_changed: Listed<ClassId>,
    /// Features that exist only in the second state.
    pub features_added: Vec<String>,
    /// Features that exist only in the first state.
    pub features_removed: Vec<String>,
    /// Features with different values.
    pub features_changed: Vec<String>,
    /// Numbers of clips by target and class, where they differ; only between versions.
    pub classes: BTreeMap<String, BTreeMap<String, ClassCount>>,
}

impl DataChanges {
    /// Computes the differences between two states of the data.
    pub fn between(from: &State, to: &State) -> Self {
        let renames = renames(from, to);
        let kept_as: HashMap<&str, &str> = renames
            .iter()
            .map(|renamed| (renamed.to.as_str(), renamed.from.as_str()))
            .collect();
        let gone: HashSet<&str> = renames
            .iter()
            .map(|renamed| renamed.from.as_str())
            .collect();

        let mut added = Vec::new();
        let mut relabelled = Vec::new();
        let mut moved = Vec::new();
        let mut retagged = Vec::new();
        let mut replaced = Vec::new();
        for (key, is) in &to.tracks {
            let key_before = kept_as.get(key.as_str()).copied().unwrap_or(key);
            let Some(was) = from.tracks.get(key_before) else {
                added.push(key.clone());
                continue;
            };
            relabelled.extend(labels_that_differ(key, was, is));
            if let (Some(from), Some(to)) = (&was.split, &is.split)
                && from != to
            {
                moved.push(SplitMove {
                    clip_key: key.clone(),
                    from: from.clone(),
                    to: to.clone(),
                });
            }
            match file_change(from, key_before, to, key) {
                Some(FileChange::Tags) => retagged.push(key.clone()),
                Some(FileChange::Audio) => replaced.push(key.clone()),
                None => {}
            }
        }

        let vanished = from.tracks.keys();
        let vanished = vanished.filter(|key| !to.tracks.contains_key(*key));
        let removed = vanished.filter(|key| !gone.contains(key.as_str()));
        let removed = removed.cloned().collect();

        let (class_ids_added, class_ids_changed) = class_ids_that_differ(from, to)
            .into_iter()
            .partition(|class| class.from.is_none());
        let mut changes = Self {
            added: Listed::new(added),
            removed: Listed::new(removed),
            renamed: Listed::new(renames),
            relabelled: Listed::new(relabelled),
            moved: Listed::new(moved),
            retagged: Listed::new(retagged),
            replaced: Listed::new(replaced),
            class_ids_added: Listed::new(class_ids_added),
            class_ids_changed: Listed::new(class_ids_changed),
            features_added: Vec::new(),
            features_removed: Vec::new(),
            features_changed: Vec::new(),
            classes: classes_that_differ(from, to),
        };
        changes.compare_features(from, to);
        changes
    }

    fn compare_features(&mut self, from: &State, to: &State) {
        for (name, id) in &to.features {
            match from.features.get(name) {
                None => self.features_added.push(name.clone()),
                Some(was) if was != id => self.features_changed.push(name.clone()),
                Some(_) => {}
            }
        }
        let removed = from.features.keys();
        let removed = removed.filter(|name| !to.features.contains_key(*name));
        self.features_removed = removed.cloned().collect();
    }

    /// Keeps at most `examples` listed changes of each kind. The numbers of changes stay the same.
    pub fn shorten(&mut self, examples: usize) {
        self.added.rows.truncate(examples);
        self.removed.rows.truncate(examples);
        self.renamed.rows.truncate(examples);
        self.relabelled.rows.truncate(examples);
        self.moved.rows.truncate(examples);
        self.retagged.rows.truncate(examples);
        self.replaced.rows.truncate(examples);
        self.class_ids_added.rows.truncate(examples);
        self.class_ids_changed.rows.truncate(examples);
    }
}

/// Returns renamed keys: each key that only `to` has, with the key that only `from` has for a file of equal content.
fn renames(from: &State, to: &State) -> Vec<Renamed> {
    let vanished = by_content(from, to);
    let appeared = by_content(to, from);
    let mut renames = Vec::new();
    for (content, keys) in appeared {
        // If either state has several files with equal content, a renamed file cannot be identified.
        if let ([now], Some([before])) = (&*keys, vanished.get(content).map(Vec::as_slice)) {
            renames.push(Renamed {
                from: (*before).to_owned(),
                to: (*now).to_owned(),
            });
        }
    }
    renames.sort_by(|a, b| a.to.cmp(&b.to));
    renames
}

/// Returns the tracks that `of` has and `other` does not have, by the content of their files.
fn by_content<'s>(of: &'s State, other: &State) -> BTreeMap<&'s str, Vec<&'s str>> {
    let mut by_content: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for key in of
        .tracks
        .keys()
        .filter(|key| !other.tracks.contains_key(*key))
    {
        if let Some(input) = of.inputs.get(key).filter(|input| !input.content.is_empty()) {
            by_content.entry(&input.content).or_default().push(key);
        }
    }
    by_content
}

fn labels_that_differ(key: &str, was: &Track, is: &Track) -> Vec<Relabelled> {
    let mut changes = Vec::new();
    for (target, to) in &is.labels {
        // A target that only one state has is a change of the recipe, not of a label.
        if let Some(from) = was.labels.get(target)
            && from != to
        {
            changes.push(Relabelled {
                clip_key: key.to_owned(),
                target: target.clone(),
                from: from.clone(),
                to: to.clone(),
            });
        }
    }
    changes
}

/// Kind of the difference between two files of a track.
enum FileChange {
    /// The file decodes to the same audio.
    Tags,
    /// The decoded audio differs, or one of the two files has not been read.
    Audio,
}

fn file_change(from: &State, key_before: &str, to: &State, key: &str) -> Option<FileChange> {
    let was = from.inputs.get(key_before)?;
    let is = to.inputs.get(key)?;
    if was.content.is_empty() || is.content.is_empty() {
        return (was.bytes != is.bytes).then_some(FileChange::Audio);
    }
    if was.content == is.content {
        return None;
    }
    let decodes_alike = !is.decode_key.is_empty() && was.decode_key == is.decode_key;
    Some(if decodes_alike {
        FileChange::Tags
    } else {
        FileChange::Audio
    })
}

/// Returns the classes whose ids differ, of targets that exist in both states, in the order of the ids.
fn class_ids_that_differ(from: &State, to: &State) -> Vec<ClassId> {
    let mut changes = Vec::new();
    for (target, is) in &to.classes {
        // A target that only one state has is a change of the recipe, not of class ids.
        let Some(was) = from.classes.get(target) else {
            continue;
        };
        let [ids_before, ids_now] = [was, is].map(|classes| ids_of(classes));
        let gone = was.iter().filter(|class| !ids_now.contains_key(*class));
        for class in is.iter().chain(gone) {
            let [before, now] = [&ids_before, &ids_now].map(|ids| ids.get(class).copied());
            if before != now {
                changes.push(ClassId {
                    target: target.clone(),
                    class: class.clone(),
                    from: before,
                    to: now,
                });
            }
        }
    }
    changes
}

fn ids_of(classes: &[String]) -> HashMap<&String, usize> {
    classes.iter().zip(0..).collect()
}

fn classes_that_differ(from: &State, to: &State) -> BTreeMap<String, BTreeMap<String, ClassCount>> {
    let mut targets: BTreeMap<String, BTreeMap<String, ClassCount>> = BTreeMap::new();
    for (target, class, clips) in from.class_counts() {
        let classes = targets.entry(target.to_owned()).or_default();
        classes.entry(class.to_owned()).or_default().before = clips;
    }
    for (target, class, clips) in to.class_counts() {
        let classes = targets.entry(target.to_owned()).or_default();
        classes.entry(class.to_owned()).or_default().after = clips;
    }
    for classes in targets.values_mut() {
        classes.retain(|_, count| count.before != count.after);
    }
    targets.retain(|_, classes| !classes.is_empty());
    targets
}
