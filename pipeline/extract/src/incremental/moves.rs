//! Finds tracks whose split changed since the previous version. Models trained on that version must not be tested on
//! such tracks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wavemill_catalog::{SplitMove, split_column};
use wavemill_schemas::split::Split;
use wavemill_store::{Store, StoreError};

use super::draft::Draft;
use crate::incremental::parent;

/// Maximum number of moved tracks that are listed individually, in addition to those moved by merged groups.
const EXAMPLES: usize = 20;

/// Changes of planned tracks and of their splits since the previous version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitChanges {
    /// Number of planned tracks that are not in the previous version.
    pub new: u64,
    /// Number of tracks that are only in the previous version.
    pub gone: u64,
    /// Numbers of tracks that moved, by previous and current split.
    pub moved: Vec<MoveCount>,
    /// The first tracks whose split changed, ordered by key.
    pub examples: Vec<SplitMove>,
    /// All tracks that left their split because their group was merged with a group of another split, ordered by key.
    /// This includes tracks that are not in the previous version but whose artist had a split.
    pub merged: Vec<SplitMove>,
}

/// Number of tracks that moved from one split to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveCount {
    /// Split in the previous version.
    pub from: String,
    /// Current split.
    pub to: String,
    /// Number of tracks that moved between these splits.
    pub tracks: u64,
}

impl SplitChanges {
    /// Compares a draft with its parent; `None` if there is no parent, or segments instead of tracks are assigned to
    /// splits.
    ///
    /// # Errors
    /// [`StoreError::Needed`] if the parent's tracks cannot be read.
    fn compare(store: &Store, draft: &Draft<'_>) -> Result<Option<Self>, StoreError> {
        // Under the rule `segment`, tracks have no split; their segments do.
        let has_splits = split_column(draft.plan.recipe.split.rule).is_some();
        let Some(parent) = draft.parent.as_ref().filter(|_| has_splits) else {
            return Ok(None);
        };
        let Some(mut before) = parent::splits_of_clips(store, &parent.manifest)? else {
            return Ok(None);
        };

        let mut changes = Self {
            merged: draft.catalog.merges.clone(),
            ..Self::default()
        };
        let mut by_splits: BTreeMap<(String, String), u64> = BTreeMap::new();
        // Planned rows are ordered by key.
        for &row in &draft.plan.shard_plan.planned {
            let clip = &draft.catalog.clips[row];
            let key_before = draft.renames.get(&clip.clip_key);
            let key_before = key_before.unwrap_or(&clip.clip_key);
            let Some(was) = before.remove(key_before) else {
                changes.new += 1;
                continue;
            };
            if was == clip.split {
                continue;
            }
            *by_splits
                .entry((was.clone(), clip.split.clone()))
                .or_default() += 1;
            if changes.examples.len() < EXAMPLES {
                changes.examples.push(SplitMove {
                    clip_key: clip.clip_key.clone(),
                    from: was,
                    to: clip.split.clone(),
                });
            }
        }

        changes.gone = before.len() as u64;
        for ((from, to), tracks) in by_splits {
            changes.moved.push(MoveCount { from, to, tracks });
        }
        Ok(Some(changes))
    }

    /// Like [`SplitChanges::compare`], but a failure becomes a warning of the draft, so that a damaged version can be
    /// created again.
    pub(crate) fn or_warning(store: &Store, draft: &mut Draft<'_>) -> Option<Self> {
        match Self::compare(store, draft) {
            Ok(changes) => changes,
            Err(error) => {
                let why = match &error {
                    // The error's own message asks for a copy of the file, which this run does not need.
                    StoreError::Needed { path, .. } => {
                        format!(
                            "{} of the version before is lost or damaged",
                            path.display()
                        )
                    }
                    other => other.to_string(),
                };

                let warning = format!("which tracks changed splits cannot be told: {why}");
                draft.catalog.warnings.push(warning);
                None
            }
        }
    }

    /// Returns the number of tracks whose split changed.
    pub fn n_moved(&self) -> u64 {
        self.moved.iter().map(|count| count.tracks).sum()
    }

    /// Returns a warning if tracks moved between training and test, which makes test scores of models trained on the
    /// previous version too good.
    pub fn warning(&self) -> Option<String> {
        let to_test = self.n_between(Split::Training, Split::Test);
        let to_training = self.n_between(Split::Test, Split::Training);
        if to_test + to_training == 0 {
            return None;
        }
        Some(format!(
            "tracks that change splits between training and test: {} ({to_test} to test, {to_training} to training); a \
             model of an earlier version must not be tested on this one",
            to_test + to_training
        ))
    }

    fn n_between(&self, from: Split, to: Split) -> u64 {
        let mut counts = self.moved.iter();
        let count = counts.find(|count| count.from == from.name() && count.to == to.name());
        count.map_or(0, |count| count.tracks)
    }
}
