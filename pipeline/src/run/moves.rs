//! Which tracks of the version before are on another side now: what a person must know who trained on that version.

use std::collections::BTreeMap;

use serde::Serialize;

use super::draft::Draft;
use crate::catalog::SideMove;
use crate::catalog::side_column;
use crate::catalog::split::SIDES;
use crate::parent;
use crate::store::{Store, StoreError};

/// Moves that are listed one by one, beside those by which groups became one.
const EXAMPLES: usize = 20;

/// How the planned tracks and their sides differ from those of the version before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SideChanges {
    /// Tracks that it had not.
    pub new: u64,
    /// Tracks that only it had.
    pub gone: u64,
    /// Tracks that are on another side.
    pub moved: Vec<MoveCount>,
    /// The first of these, by key.
    pub examples: Vec<SideMove>,
    /// Every track that left its side because its group became one with a group of another side, by key. A track that
    /// the version before had not is here too, where its artist had a side.
    pub merged: Vec<SideMove>,
}

/// Tracks that went from one side to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MoveCount {
    /// In the version before.
    pub from: String,
    /// Now.
    pub to: String,
    /// How many.
    pub tracks: u64,
}

impl SideChanges {
    /// Compares a draft with its parent; `None` where there is nothing to compare: no parent, or sides of segments.
    ///
    /// # Errors
    /// [`StoreError::Needed`] where the parent's tracks cannot be read.
    fn of(store: &Store, draft: &Draft<'_>) -> Result<Option<Self>, StoreError> {
        // Under the rule `segment` a track has no side of its own.
        let has_sides = side_column(draft.plan.recipe.split.rule).is_some();
        let Some(parent) = draft.parent.as_ref().filter(|_| has_sides) else {
            return Ok(None);
        };
        let Some(mut before) = parent::sides_of_clips(store, parent)? else {
            return Ok(None);
        };

        let mut changes = Self {
            merged: draft.catalog.merges.clone(),
            ..Self::default()
        };
        let mut by_sides: BTreeMap<(String, String), u64> = BTreeMap::new();
        // In the order of their keys.
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
            *by_sides
                .entry((was.clone(), clip.split.clone()))
                .or_default() += 1;
            if changes.examples.len() < EXAMPLES {
                changes.examples.push(SideMove {
                    clip_key: clip.clip_key.clone(),
                    from: was,
                    to: clip.split.clone(),
                });
            }
        }

        changes.gone = before.len() as u64;
        for ((from, to), tracks) in by_sides {
            changes.moved.push(MoveCount { from, to, tracks });
        }
        Ok(Some(changes))
    }

    /// As [`SideChanges::of`]. Where that fails the draft gets a warning: a damaged version is made anew all the same.
    pub(super) fn or_warning(store: &Store, draft: &mut Draft<'_>) -> Option<Self> {
        match Self::of(store, draft) {
            Ok(changes) => changes,
            Err(error) => {
                let why = match &error {
                    // Its words would send for a copy, and this run needs none.
                    StoreError::Needed { path, .. } => {
                        format!(
                            "{} of the version before is lost or damaged",
                            path.display()
                        )
                    }
                    other => other.to_string(),
                };

                let warning = format!("which tracks changed sides cannot be told: {why}");
                draft.catalog.warnings.push(warning);
                None
            }
        }
    }

    /// Tracks that are on another side.
    pub fn n_moved(&self) -> u64 {
        self.moved.iter().map(|count| count.tracks).sum()
    }

    /// What makes scores of models that were trained on the version before too good, where there is such a thing.
    pub fn warning(&self) -> Option<String> {
        let [training, _, test] = SIDES;
        let to_test = self.n_between(training, test);
        let to_training = self.n_between(test, training);
        if to_test + to_training == 0 {
            return None;
        }
        Some(format!(
            "tracks that change sides between training and test: {} ({to_test} to test, {to_training} to training); a \
             model of an earlier version must not be tested on this one",
            to_test + to_training
        ))
    }

    fn n_between(&self, from: &str, to: &str) -> u64 {
        let mut counts = self.moved.iter();
        let count = counts.find(|count| count.from == from && count.to == to);
        count.map_or(0, |count| count.tracks)
    }
}
