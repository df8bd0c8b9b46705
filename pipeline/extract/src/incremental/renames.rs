//! Finds inputs that were renamed, for example with their folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use wavemill_store::Parent;

use super::draft::DraftInputs;
use super::known::KnownInputs;
use crate::error::ExtractError;
use crate::incremental::parent;

/// The key of a clip in the parent, by its current key.
pub(crate) type Renames = HashMap<String, String>;

/// Finds clips with a new key whose file has the contents of the file of exactly one vanished key. Only files whose
/// size matches are read.
///
/// # Errors
/// [`ExtractError`] if the store or a file cannot be read, or if the run was stopped.
pub(crate) fn find(
    inputs: &DraftInputs<'_, '_>,
    parent: &Parent,
    known: &mut KnownInputs,
) -> Result<Renames, ExtractError> {
    let source = &*inputs.input.source;
    let audio = source.index();
    let was = parent::inputs(inputs.store, &parent.manifest)?;

    let mut vanished: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut sizes = BTreeSet::new();
    for (clip_key, input) in &was {
        if !audio.contains_key(clip_key) && !input.content.is_empty() {
            vanished.entry(&input.content).or_default().push(clip_key);
            sizes.extend(input.bytes);
        }
    }
    if vanished.is_empty() {
        return Ok(Renames::new());
    }

    let mut candidates = Vec::new();
    for clip_key in inputs.input.cleaned.clip_keys() {
        let bytes = audio.get(clip_key).map(|id| id.bytes);
        if !was.contains_key(clip_key) && bytes.is_some_and(|bytes| sizes.contains(&bytes)) {
            candidates.push(clip_key);
        }
    }
    known.read(
        candidates.iter().copied(),
        source,
        inputs.settings,
        inputs.progress,
    )?;

    let mut appeared: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for clip_key in candidates {
        if let Some(seen) = known.get(clip_key) {
            appeared.entry(&seen.content).or_default().push(clip_key);
        }
    }

    // If there are several copies before or after, the renamed file cannot be identified.
    let mut renames = Renames::new();
    for (content, clip_keys) in appeared {
        if let ([now], Some([before])) = (&*clip_keys, vanished.get(content).map(Vec::as_slice)) {
            renames.insert((*now).to_owned(), (*before).to_owned());
        }
    }
    Ok(renames)
}
