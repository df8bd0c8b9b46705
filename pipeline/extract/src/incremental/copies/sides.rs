//! Finds recordings that are on several sides of the split, from the hashes of the files that a version was made from.

use std::collections::HashSet;

use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::sides::NO_SIDE;
use wavemill_store::shards::FinishedShards;
use wavemill_store::{Store, StoreError};

use crate::incremental::parent;

/// Maximum number of recordings that a warning names.
const EXAMPLES: usize = 3;

/// Returns a warning if clips on different sides of a version have equal audio. The segment rules put each clip on several
/// sides, which the recipe's own warning reports.
///
/// # Errors
/// [`StoreError::Needed`] if the version's table of tracks cannot be read.
pub(crate) fn on_several_sides(
    store: &Store,
    manifest: &Manifest,
    finished: &FinishedShards,
) -> Result<Option<String>, StoreError> {
    let Some(sides) = parent::sides_of_clips(store, manifest)? else {
        return Ok(None);
    };
    let rejects = finished.of_feature(0).flat_map(|receipt| &receipt.rejects);
    let rejected: HashSet<_> = rejects.map(|reject| reject.clip_key.as_ref()).collect();

    let mut clips = Vec::new();
    for (clip_key, seen) in &finished.inputs {
        let has_rows = !seen.decode_key.is_empty() && !rejected.contains(&Some(clip_key));
        let side = sides.get(clip_key).filter(|side| *side != NO_SIDE);
        if let Some(side) = side.filter(|_| has_rows) {
            clips.push((&seen.decode_key, side, clip_key));
        }
    }
    clips.sort_unstable();

    let mut found = Vec::new();
    for copies in clips.chunk_by(|a, b| a.0 == b.0) {
        // The copies are ordered by side.
        if let [(_, side, one), .., (_, last_side, other)] = copies
            && side != last_side
        {
            found.push(format!("{one} ({side}) and {other} ({last_side})"));
        }
    }
    let n = found.len();
    found.truncate(EXAMPLES);
    let remedy = "split.group_duplicates = true puts copies on one side under the rules artist and stratified";
    let found = found.join("; ");
    Ok((n > 0).then(|| format!("{n} recordings are on several sides, such as {found}: {remedy}")))
}
