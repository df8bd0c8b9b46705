//! The guard against a folder that is not there, such as one on a disk that is not mounted: clips of the version before
//! whose rows still ask for a file that is not found.
//!
//! A clip whose row has left the metadata, that a filter drops, that `--limit` leaves out, or that was renamed is none of
//! them.

use std::collections::HashSet;

use serde::Serialize;
use wavemill_schemas::recipe::Dataset;

use super::RunError;
use super::draft::{Draft, DraftInputs};
use crate::parent;

/// Files that a refusal names, at most.
const EXAMPLES: usize = 3;

/// Clips of the version before whose files are not found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VanishedClips {
    /// How many there are.
    pub count: usize,
    /// How many clips of that version had a file.
    pub of: usize,
    /// The first of them by key.
    pub examples: Vec<String>,
}

impl VanishedClips {
    /// Their part of the version's clips, 0 to 1.
    fn fraction(&self) -> f64 {
        self.count as f64 / self.of.max(1) as f64
    }

    /// Refuses a run that would lose more than `fraction_max` of the clips of the version before.
    ///
    /// # Errors
    /// [`RunError::Shrunk`].
    pub(super) fn require_at_most(&self, fraction_max: f64) -> Result<(), RunError> {
        if self.fraction() <= fraction_max {
            return Ok(());
        }
        let more = if self.count > self.examples.len() {
            ", …"
        } else {
            ""
        };
        Err(RunError::Shrunk {
            count: self.count,
            of: self.of,
            examples: self.examples.join(", ") + more,
            fraction_max,
            // Rounded up, so that it permits just this.
            remedy: (self.fraction() * 100.0).ceil() / 100.0,
        })
    }
}

/// Finds the vanished clips of the draft's parent; `None` in a new store.
///
/// # Errors
/// [`RunError::Store`].
pub(super) fn vanished(
    inputs: &DraftInputs<'_, '_>,
    draft: &Draft<'_>,
) -> Result<Option<VanishedClips>, RunError> {
    let Some(parent) = &draft.parent else {
        return Ok(None);
    };
    let audio = inputs.input.source.index();
    let renamed: HashSet<&str> = draft.renames.values().map(String::as_str).collect();
    let absent = draft.catalog.absent.iter().map(String::as_str);
    // Without `require_audio` rows without a file are kept.
    let wanted: HashSet<&str> = absent.chain(inputs.input.cleaned.clip_keys()).collect();
    let rows_are_files = match inputs.job.recipe.catalog.dataset {
        Dataset::Folders | Dataset::Images => true,
        Dataset::Fma | Dataset::Table => false,
    };

    let mut vanished = VanishedClips::default();
    for (clip_key, input) in parent::inputs(inputs.store, &parent.manifest)? {
        if input.bytes.is_none() {
            continue;
        }
        vanished.of += 1;
        let is_wanted = rows_are_files || wanted.contains(clip_key.as_str());
        let is_found = audio.contains_key(&clip_key) || renamed.contains(clip_key.as_str());
        if is_wanted && !is_found {
            vanished.examples.push(clip_key);
        }
    }
    vanished.count = vanished.examples.len();
    vanished.examples.sort_unstable();
    vanished.examples.truncate(EXAMPLES);
    Ok(Some(vanished))
}
