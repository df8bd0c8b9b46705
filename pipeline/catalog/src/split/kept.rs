//! The splits that tracks, artists and recordings have in a version, by which the next version keeps them.

use std::collections::HashMap;
use std::fmt;

use wavemill_schemas::split::Split;

use super::KeptRule;

/// A name under which a split is stored. Groups have no names themselves, because they split and merge when artists are
/// corrected and copies are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Atom<'a> {
    Track(&'a str),
    Artist(i64),
    Recording(blake3::Hash),
}

impl fmt::Display for Atom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Track(key) => write!(f, "track:{key}"),
            Self::Artist(id) => write!(f, "artist:{id}"),
            Self::Recording(hash) => write!(f, "recording:{}", hash.to_hex()),
        }
    }
}

/// Prefixes of the group names in the table `sides`.
pub const GROUP_KINDS: [&str; 3] = ["track:", "artist:", "recording:"];

/// Returns the name of a row in the table `sides`: `track:…`.
pub fn track_group(key: &str) -> String {
    Atom::Track(key).to_string()
}

/// Returns the name of an artist in the table `sides`: `artist:…`.
pub fn artist_group(id: i64) -> String {
    Atom::Artist(id).to_string()
}

/// Returns the name of a recording in the table `sides`: `recording:…`. `hash` is in lower-case hex.
pub fn recording_group(hash: &str) -> String {
    format!("recording:{hash}")
}

/// Splits of groups under one split rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSplits {
    /// Pairs of group name and split, sorted by group, without repeated groups.
    groups: Vec<(Box<str>, Split)>,
}

impl GroupSplits {
    /// Creates the list from pairs of group and split in any order. If a group has several splits, training takes
    /// precedence, then validation.
    pub fn new(mut groups: Vec<(Box<str>, Split)>) -> Self {
        groups.sort_unstable();
        groups.dedup_by(|later, first| later.0 == first.0);
        Self { groups }
    }

    /// Returns the split of a group, or `None` if no version assigned the group to a split.
    pub fn split(&self, group: &str) -> Option<Split> {
        let found = self
            .groups
            .binary_search_by(|(name, _)| name.as_ref().cmp(group));
        Some(self.groups[found.ok()?].1)
    }

    /// Iterates over pairs of group and split, in the order of the groups' names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Split)> {
        self.groups
            .iter()
            .map(|(name, split)| (name.as_ref(), *split))
    }

    /// Adds the groups of `earlier` that are missing here, so that no group's split is ever forgotten.
    #[must_use]
    pub fn with_earlier(mut self, earlier: &Self) -> Self {
        let mut gone = Vec::new();
        for (name, split) in &earlier.groups {
            if self.split(name).is_none() {
                gone.push((name.clone(), *split));
            }
        }
        self.groups.append(&mut gone);
        Self::new(self.groups)
    }
}

/// Splits of all groups in the previous version, under each rule in the order of [`KeptRule::ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSplits(pub [GroupSplits; 2]);

impl KeptSplits {
    /// Reports whether a clip with this key was ever assigned to training, validation or test.
    pub fn has_placed(&self, clip_key: &str) -> bool {
        self.by(KeptRule::Artist)
            .split(&track_group(clip_key))
            .is_some()
    }

    /// Copies the splits of renamed clips to their new keys. `renames` maps a clip's new key to its previous key.
    pub fn rename(&mut self, renames: &HashMap<String, String>) {
        for groups in &mut self.0 {
            let mut renamed = groups.groups.clone();
            for (now, before) in renames {
                if let Some(split) = groups.split(&track_group(before)) {
                    renamed.push((track_group(now).into(), split));
                }
            }
            *groups = GroupSplits::new(renamed);
        }
    }

    /// Returns the splits of groups under one rule.
    pub const fn by(&self, rule: KeptRule) -> &GroupSplits {
        &self.0[rule as usize]
    }
}
