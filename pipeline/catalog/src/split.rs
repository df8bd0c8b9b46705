//! Assigns rows to training, validation and test by pure functions of keys, classes, artists and the splits of the
//! previous version. The order of the rows has no effect.
//!
//! Rows are ordered by `canonical::hash("split", seed, key)`, so that a split is the same on every machine.

mod drawn;
mod kept;
mod linked;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use wavemill_schemas::canonical;
use wavemill_schemas::named_enum;
use wavemill_schemas::split::Split;

pub use self::drawn::{by_artist, stratified};
use self::kept::Atom;
pub use self::kept::{
    GROUP_KINDS, GroupSplits, KeptSplits, artist_group, recording_group, track_group,
};
use self::linked::LinkedRows;

/// The values of one row that a split rule needs.
#[derive(Clone, Debug)]
pub struct SplitRow<'a> {
    /// Key of the row's clip, which is unique.
    pub key: &'a str,
    /// Class of the row. Rows without a class are treated as a class of their own.
    pub class: Option<i32>,
    /// Id of the row's artist; `None` makes the row a group of one.
    pub artist: Option<i64>,
    /// Hash of the row's recording; both rules keep equal recordings together. `None` makes the row a group of one.
    pub recording: Option<blake3::Hash>,
    /// Number of the row's group of near copies; both rules keep a group together.
    pub near_group: Option<usize>,
}

/// Seed and fractions of the split in a recipe.
#[derive(Clone, Copy, Debug)]
pub struct SplitSettings {
    /// Seed of the hashes by which rows are ordered.
    pub seed: u64,
    /// Fractions of rows for training, validation and test; they add up to 1.
    pub fractions: [f64; 3],
}

named_enum! {
    /// A split rule that keeps groups in the split (such as training) that they had in the previous version.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum KeptRule {
        /// Rule `artist`: see [`by_artist`].
        Artist = "artist",
        /// Rule `stratified`: see [`stratified`].
        Stratified = "stratified",
    }
}

impl KeptRule {
    /// Assigns every row to a split. Without `kept`, all splits are drawn. Groups that `kept` contains stay in their
    /// split, and the other groups are assigned to the split where their classes are needed most.
    pub fn place(
        self,
        rows: &[SplitRow<'_>],
        settings: SplitSettings,
        kept: Option<&GroupSplits>,
    ) -> Placement {
        let splits = match (self, kept) {
            (_, Some(kept)) => return self.place_beside(rows, settings, kept),
            (Self::Artist, None) => by_artist(rows, settings),
            (Self::Stratified, None) => stratified(rows, settings),
        };
        Placement {
            splits,
            merges: Vec::new(),
        }
    }

    /// Returns the split of every group to which `rows` belong, given the `splits` of the rows.
    pub fn group_splits(self, rows: &[SplitRow<'_>], splits: &[Split]) -> GroupSplits {
        let mut groups = Vec::with_capacity(rows.len() + rows.len() / 4);
        for (row, &split) in rows.iter().zip(splits) {
            for atom in self.atoms(row).into_iter().flatten() {
                groups.push((atom.to_string().into(), split));
            }
        }
        GroupSplits::new(groups)
    }

    /// Returns the names under which a row's split is stored. The row's own name is first, because a row that has left
    /// its artist keeps its split.
    fn atoms<'r>(self, row: &SplitRow<'r>) -> [Option<Atom<'r>>; 3] {
        let artist = match self {
            Self::Artist => row.artist.map(Atom::Artist),
            Self::Stratified => None,
        };
        [
            Some(Atom::Track(row.key)),
            artist,
            row.recording.map(Atom::Recording),
        ]
    }

    /// Returns the groups of rows that this rule keeps in one split.
    fn groups(self, rows: &[SplitRow<'_>]) -> Vec<Vec<usize>> {
        let mut linked = LinkedRows::new(rows);
        if self == Self::Artist {
            linked.link_by(|row| row.artist);
        }
        linked.link_copies();
        linked.groups()
    }

    /// Returns the name by which a group is ordered: the smallest name of its artists under rule `artist`, the smallest
    /// key of its rows under rule `stratified`.
    fn group_name(self, rows: &[SplitRow<'_>], group: &[usize]) -> String {
        let names = group.iter().map(|&index| match self {
            Self::Artist => artist_name(&rows[index]),
            Self::Stratified => rows[index].key.to_owned(),
        });
        names.min().unwrap_or_default()
    }

    fn place_beside(
        self,
        rows: &[SplitRow<'_>],
        settings: SplitSettings,
        kept: &GroupSplits,
    ) -> Placement {
        let mut splits = vec![Split::Training; rows.len()];
        let mut merges = Vec::new();
        let mut need = Need::new(rows, settings);

        // Groups that already have a split are assigned first, so that new groups fill the remaining need.
        let hash = canonical::hashes("split", settings.seed);
        let mut new_groups = Vec::new();
        for group in self.groups(rows) {
            let Some(split) = self.kept_split(rows, &group, kept) else {
                let name = self.group_name(rows, &group);
                new_groups.push((hash(&name), name, group));
                continue;
            };
            need.fill(rows, &group, split);
            for index in group {
                splits[index] = split;
                let was = self.own_split(&rows[index], kept);
                if let Some(was) = was.filter(|was| *was != split) {
                    merges.push(Merge { row: index, was });
                }
            }
        }

        // Groups with equal hashes are ordered by name, so that the order of the rows has no effect.
        new_groups.sort_unstable();
        for (.., group) in new_groups {
            let split = need.neediest(rows, &group);
            need.fill(rows, &group, split);
            for index in group {
                splits[index] = split;
            }
        }

        merges.sort_unstable_by_key(|merge| rows[merge.row].key);
        Placement { splits, merges }
    }

    /// Returns the split of a group whose parts may have been separate groups before. A track that was used for
    /// training must never be used for testing, so training takes precedence, then validation. `None` if no part was
    /// placed before.
    fn kept_split(
        self,
        rows: &[SplitRow<'_>],
        group: &[usize],
        kept: &GroupSplits,
    ) -> Option<Split> {
        let mut least = None;
        for &index in group {
            for atom in self.atoms(&rows[index]).into_iter().flatten() {
                let split = kept.split(&atom.to_string());
                // Splits are ordered by precedence.
                least = [least, split].into_iter().flatten().min();
            }
        }
        least
    }

    /// Returns the split that the row's own key had, or else the split of its artist or recording.
    fn own_split(self, row: &SplitRow<'_>, kept: &GroupSplits) -> Option<Split> {
        let mut atoms = self.atoms(row).into_iter().flatten();
        atoms.find_map(|atom| kept.split(&atom.to_string()))
    }
}

/// The result of a split rule: the split of each row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The split of every row, in order.
    pub splits: Vec<Split>,
    /// Rows that left the split that they had in the previous version, ordered by key.
    pub merges: Vec<Merge>,
}

/// A row that left its previous split because a part of its group was in another split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Index of the row among the assigned rows.
    pub row: usize,
    /// Split of the row in the previous version.
    pub was: Split,
}

/// Number of rows that training, validation and test still need, by class.
struct Need {
    by_class: BTreeMap<Option<i32>, [f64; 3]>,
}

impl Need {
    /// Computes the number of rows that each split needs before any row is assigned.
    fn new(rows: &[SplitRow<'_>], settings: SplitSettings) -> Self {
        let mut by_class: BTreeMap<_, [f64; 3]> = BTreeMap::new();
        for row in rows {
            let need = by_class.entry(row.class).or_default();
            for (need, fraction) in need.iter_mut().zip(settings.fractions) {
                *need += fraction;
            }
        }
        Self { by_class }
    }

    /// Returns the split that needs a group's classes most. If splits need them equally, returns the earlier split.
    fn neediest(&self, rows: &[SplitRow<'_>], group: &[usize]) -> Split {
        // Floating-point sums depend on the order of summation. The rows of a group are ordered by key.
        let mut wanted = [0.0; 3];
        for &index in group {
            let need = &self.by_class[&rows[index].class];
            for (wanted, need) in wanted.iter_mut().zip(need) {
                *wanted += need;
            }
        }

        let mut neediest = Split::Training;
        for later in [Split::Validation, Split::Test] {
            if wanted[later as usize] > wanted[neediest as usize] {
                neediest = later;
            }
        }
        neediest
    }

    /// Subtracts the rows of an assigned group from the need of its split.
    fn fill(&mut self, rows: &[SplitRow<'_>], group: &[usize], split: Split) {
        for &index in group {
            if let Some(need) = self.by_class.get_mut(&rows[index].class) {
                need[split as usize] -= 1.0;
            }
        }
    }
}

/// Returns the name by which an artist is ordered. The prefix `clip` keeps the names of rows without an artist distinct
/// from the numeric ids of artists.
fn artist_name(row: &SplitRow<'_>) -> String {
    match row.artist {
        Some(id) => id.to_string(),
        None => format!("clip {}", row.key),
    }
}
