//! The sides that tracks, artists and recordings have in a version, by which the next version keeps them.

use std::collections::HashMap;
use std::fmt;

use super::KeptRule;

/// A name under which a side is stored. Groups have no names themselves, because they split and merge when artists are
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

/// Sides of groups under one split rule; each side is an index into [`SIDES`](wavemill_schemas::sides::SIDES).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSides {
    /// Pairs of group name and side, sorted by group, without repeated groups.
    groups: Vec<(Box<str>, usize)>,
}

impl GroupSides {
    /// Creates the list from pairs of group and side in any order. If a group has several sides, training takes
    /// precedence, then validation.
    pub fn new(mut groups: Vec<(Box<str>, usize)>) -> Self {
        groups.sort_unstable();
        groups.dedup_by(|later, first| later.0 == first.0);
        Self { groups }
    }

    /// Returns the side of a group, or `None` if no version assigned the group to a side.
    pub fn side(&self, group: &str) -> Option<usize> {
        let found = self
            .groups
            .binary_search_by(|(name, _)| name.as_ref().cmp(group));
        Some(self.groups[found.ok()?].1)
    }

    /// Iterates over pairs of group and side, in the order of the groups' names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        self.groups
            .iter()
            .map(|(name, side)| (name.as_ref(), *side))
    }

    /// Adds the groups of `earlier` that are missing here, so that no group's side is ever forgotten.
    #[must_use]
    pub fn with_earlier(mut self, earlier: &Self) -> Self {
        let mut gone = Vec::new();
        for (name, side) in &earlier.groups {
            if self.side(name).is_none() {
                gone.push((name.clone(), *side));
            }
        }
        self.groups.append(&mut gone);
        Self::new(self.groups)
    }
}

/// Sides of all groups in the previous version, under both rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptSides {
    /// Sides of groups under [`KeptRule::Artist`].
    pub artist: GroupSides,
    /// Sides of groups under [`KeptRule::Stratified`].
    pub stratified: GroupSides,
}

impl KeptSides {
    /// Reports whether a clip with this key was ever assigned to training, validation or test.
    pub fn has_placed(&self, clip_key: &str) -> bool {
        self.artist.side(&track_group(clip_key)).is_some()
    }

    /// Copies the sides of renamed clips to their new keys. `renames` maps a clip's new key to its previous key.
    pub fn rename(&mut self, renames: &HashMap<String, String>) {
        for groups in [&mut self.artist, &mut self.stratified] {
            let mut renamed = groups.groups.clone();
            for (now, before) in renames {
                if let Some(side) = groups.side(&track_group(before)) {
                    renamed.push((track_group(now).into(), side));
                }
            }
            *groups = GroupSides::new(renamed);
        }
    }

    /// Returns the sides of groups under one rule.
    pub const fn by(&self, rule: KeptRule) -> &GroupSides {
        match rule {
            KeptRule::Artist => &self.artist,
            KeptRule::Stratified => &self.stratified,
        }
    }
}
