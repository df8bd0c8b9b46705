//! Finds recordings that are in several splits, from the hashes of the files that a version was made from.

use std::collections::HashSet;

use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::split::NO_SPLIT;
use wavemill_schemas::text::counted;
use wavemill_store::shards::FinishedShards;
use wavemill_store::{Store, StoreError};

use crate::incremental::parent;

/// Maximum number of recordings that a warning names.
const EXAMPLES: usize = 3;

/// Returns a warning if clips in different splits of a version have equal audio. The segment rules put each clip
/// into several splits, which the recipe's own warning reports.
///
/// # Errors
/// [`StoreError::Needed`] if the version's table of tracks cannot be read.
pub(crate) fn in_several_splits(
    store: &Store,
    manifest: &Manifest,
    finished: &FinishedShards,
) -> Result<Option<String>, StoreError> {
    let Some(splits) = parent::splits_of_clips(store, manifest)? else {
        return Ok(None);
    };
    let rejects = finished.of_feature(0).flat_map(|receipt| &receipt.rejects);
    let rejected: HashSet<_> = rejects.map(|reject| reject.clip_key.as_ref()).collect();

    let mut clips = Vec::new();
    for (clip_key, seen) in &finished.inputs {
        let has_rows = !seen.decode_key.is_empty() && !rejected.contains(&Some(clip_key));
        let split = splits.get(clip_key).filter(|split| *split != NO_SPLIT);
        if let Some(split) = split.filter(|_| has_rows) {
            clips.push((&seen.decode_key, split, clip_key));
        }
    }
    clips.sort_unstable();

    let mut found = Vec::new();
    for copies in clips.chunk_by(|a, b| a.0 == b.0) {
        // The copies are ordered by split.
        if let [(_, split, one), .., (_, last_split, other)] = copies
            && split != last_split
        {
            found.push(format!("{one} ({split}) and {other} ({last_split})"));
        }
    }
    let n = found.len();
    found.truncate(EXAMPLES);
    let remedy = "split.group_duplicates = true puts copies into one split under the rules artist and stratified";
    let found = found.join("; ");
    let recordings = counted(n, "recording");
    Ok((n > 0).then(|| format!("{recordings} in several splits, such as {found}: {remedy}")))
}
