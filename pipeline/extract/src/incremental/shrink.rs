//! Guards against a missing folder, such as one on a disk that is not mounted: counts clips of the previous version
//! whose files are not found although the metadata still name them.
//!
//! Clips do not count if their row has left the metadata, if a filter drops them, or if their file was renamed.

use std::collections::HashSet;

use serde::Serialize;
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::recipe::Dataset;

use super::draft::{Draft, DraftInputs};
use super::known::KnownInputs;
use crate::error::ExtractError;
use crate::incremental::parent;

/// Maximum number of files named in a refusal.
const EXAMPLES: usize = 3;

/// Clips of the previous version whose files are not found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VanishedClips {
    /// Number of clips of the previous version whose files are missing.
    pub count: usize,
    /// Number of clips of the previous version that had a file.
    pub of: usize,
    /// The first clips whose files are missing, ordered by key.
    pub examples: Vec<String>,
}

impl VanishedClips {
    /// Returns the fraction (0 to 1) of the previous version's clips whose files are missing.
    fn fraction(&self) -> f64 {
        self.count as f64 / self.of.max(1) as f64
    }

    /// Refuses a run that would lose more than `fraction_max` of the clips of the previous version.
    ///
    /// # Errors
    /// [`Kind::OtherPlan`] if the run would lose more clips.
    pub(crate) fn require_at_most(&self, fraction_max: f64) -> Result<(), PlainError> {
        if self.fraction() <= fraction_max {
            return Ok(());
        }
        let more = if self.count > self.examples.len() {
            ", …"
        } else {
            ""
        };
        // The fraction is rounded up, so that the message names a value that permits the run.
        let remedy = (self.fraction() * 100.0).ceil() / 100.0;
        let message = format!(
            "{} of the {} clips of the previous version no longer have a file ({}{more}), more than --max-shrink \
             {fraction_max} allows: is a folder missing or not mounted? If they were removed on purpose, give --max-shrink \
             {remedy}",
            self.count,
            self.of,
            self.examples.join(", ")
        );
        Err(PlainError::new(Kind::OtherPlan, message))
    }
}

/// Returns the vanished clips of the draft's parent; `None` in a new store.
///
/// # Errors
/// [`ExtractError::Store`] if a table of the parent cannot be read.
pub(crate) fn vanished(
    inputs: &DraftInputs<'_, '_>,
    draft: &Draft<'_>,
    known: &KnownInputs,
) -> Result<Option<VanishedClips>, ExtractError> {
    let Some(parent) = &draft.parent else {
        return Ok(None);
    };
    let audio = inputs.input.source.index();
    let inputs_before = parent::inputs(inputs.store, &parent.manifest)?;
    let new_keys = inputs.input.cleaned.clip_keys();
    let new_keys = new_keys.filter(|clip_key| !inputs_before.contains_key(*clip_key));
    // Files that may have been renamed were read for the draft. With two copies, either name
    // is sufficient here.
    let moved: HashSet<&str> = new_keys
        .filter_map(|clip_key| known.get(clip_key))
        .map(|seen| seen.content.as_str())
        .collect();

    let absent = draft.catalog.absent.iter().map(String::as_str);
    // If the recipe does not require audio, rows without a file are kept and become rejects.
    let wanted: HashSet<&str> = absent.chain(inputs.input.cleaned.clip_keys()).collect();
    let rows_are_files = match inputs.job.recipe.catalog.dataset {
        Dataset::Folders | Dataset::Images => true,
        Dataset::Fma | Dataset::Table => false,
    };

    let mut vanished = VanishedClips::default();
    for (clip_key, input) in &inputs_before {
        if input.bytes.is_none() {
            continue;
        }
        vanished.of += 1;
        let is_wanted = rows_are_files || wanted.contains(clip_key.as_str());
        let is_moved = !input.content.is_empty() && moved.contains(input.content.as_str());
        if is_wanted && !is_moved && !audio.contains_key(clip_key) {
            vanished.examples.push(clip_key.clone());
        }
    }
    vanished.count = vanished.examples.len();
    vanished.examples.sort_unstable();
    vanished.examples.truncate(EXAMPLES);
    Ok(Some(vanished))
}
