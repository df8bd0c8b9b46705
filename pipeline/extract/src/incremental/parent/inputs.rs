//! State of the input files in the parent version.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use wavemill_schemas::input::InputSeen;
use wavemill_schemas::manifest::Manifest;
use wavemill_store::plan::ClipShards;
use wavemill_store::{Store, StoreError, is_lost};

use super::table::{read_table, text, text_at};

/// An input file of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentInput {
    /// Size of the file in bytes; `None` if there was no file.
    pub bytes: Option<u64>,
    /// blake3 of the whole file in lower-case hex; empty if the file could not be read.
    pub content: String,
    /// Hash of everything that decoding read from the file; empty if the hash is unknown or nothing was read.
    pub decode_key: String,
}

impl From<InputSeen> for ParentInput {
    fn from(seen: InputSeen) -> Self {
        Self {
            bytes: seen.id.map(|id| id.bytes),
            content: seen.content,
            decode_key: seen.decode_key,
        }
    }
}

/// Reads the inputs of a version by `clip_key`. If the table of inputs is lost or damaged, the inputs are read from the
/// records of the version's plan.
///
/// # Errors
/// [`StoreError::Damaged`] if the store has neither; [`StoreError::Io`] or [`StoreError::Remote`] if the table may be
/// intact but cannot be read; errors of reading the records.
pub fn inputs(
    store: &Store,
    manifest: &Manifest,
) -> Result<HashMap<String, ParentInput>, StoreError> {
    stored_inputs(store, manifest).or_else(|error| {
        Ok(inputs_from_records(recorded_inputs(
            store, manifest, error,
        )?))
    })
}

fn inputs_from_records(seen: BTreeMap<String, InputSeen>) -> HashMap<String, ParentInput> {
    let inputs = seen.into_iter();
    inputs
        .map(|(clip_key, seen)| (clip_key, seen.into()))
        .collect()
}

/// Reads the inputs of a version from the records of its plan, because reading their table gave `error`. Without
/// inputs, nobody would notice clips that vanished or were renamed.
fn recorded_inputs(
    store: &Store,
    manifest: &Manifest,
    error: StoreError,
) -> Result<BTreeMap<String, InputSeen>, StoreError> {
    let is_unsound = matches!(
        error,
        StoreError::Needed { .. } | StoreError::Damaged { .. }
    );
    if !is_unsound && !is_lost(&error) {
        return Err(error);
    }

    let seen = store.seen(&manifest.plan_id)?;
    if !seen.is_empty() {
        return Ok(seen);
    }
    Err(match error {
        StoreError::Needed { path, .. } => {
            let problem = "lost or damaged, and the store has no other records of the version's inputs, without which \
                           clips that vanished or were renamed are not noticed: restore the file from a copy of the \
                           store, or extract into a new --store";
            StoreError::damaged(path, problem)
        }
        other => other,
    })
}

/// Reads the keys of the clips that are inputs of a version, as [`inputs`] does.
pub(crate) fn input_keys(store: &Store, manifest: &Manifest) -> Result<Vec<String>, StoreError> {
    let stored = read_table(store, manifest, "inputs", &["clip_key"], |rows| {
        let keys = text(rows, "clip_key")?;
        Ok(keys.iter().flatten().map(str::to_owned).collect())
    });
    stored.or_else(|error| {
        let recorded = recorded_inputs(store, manifest, error)?;
        Ok(recorded.into_keys().collect())
    })
}

/// Reads the inputs of the version's `shards`, as [`inputs`] does.
pub(crate) fn inputs_of_shards(
    store: &Store,
    manifest: &Manifest,
    shards: &ClipShards,
) -> Result<HashMap<String, ParentInput>, StoreError> {
    match seen_of_shards(store, manifest, shards)? {
        Some(seen) => Ok(inputs_from_records(seen)),
        None => inputs(store, manifest),
    }
}

/// Reads the state of the inputs of the version's `shards` as recorded by the version's plan, by `clip_key`; `None` if
/// a record is lost.
///
/// # Errors
/// [`StoreError::Io`] or [`StoreError::Damaged`] if a record cannot be read.
pub(crate) fn seen_of_shards(
    store: &Store,
    manifest: &Manifest,
    shards: &ClipShards,
) -> Result<Option<BTreeMap<String, InputSeen>>, StoreError> {
    store.pull_seen(&manifest.plan_id, shards.labels())?;
    let mut by_label = BTreeMap::new();
    for label in shards.labels() {
        let seen = store.seen_of_shard(&manifest.plan_id, &label)?;
        if !seen.is_empty() {
            by_label.insert(label, seen);
        }
    }

    let first = manifest.features.first();
    let mut files = first
        .into_iter()
        .flat_map(|first| manifest.files_of(&first.name));
    let is_lost = |label: &String| !by_label.contains_key(label);
    if files.any(|file| shards.label_of(file).as_ref().is_some_and(is_lost)) {
        return Ok(None);
    }
    Ok(Some(by_label.into_values().flatten().collect()))
}

fn stored_inputs(
    store: &Store,
    manifest: &Manifest,
) -> Result<HashMap<String, ParentInput>, StoreError> {
    let columns = ["clip_key", "bytes", "content_blake3", "decode_key"];
    read_table(store, manifest, "inputs", &columns, |rows| {
        let clip_keys = text(rows, "clip_key")?;
        let contents = text(rows, "content_blake3")?;
        let decode_keys = text(rows, "decode_key")?;
        let bytes = rows.column_by_name("bytes");
        let bytes = bytes.and_then(|column| column.as_primitive_opt::<Int64Type>());

        let mut inputs = HashMap::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let bytes = bytes.filter(|bytes| bytes.is_valid(row));
            let input = ParentInput {
                bytes: bytes.map(|bytes| bytes.value(row) as u64),
                content: text_at(&contents, row).to_owned(),
                decode_key: text_at(&decode_keys, row).to_owned(),
            };
            inputs.insert(text_at(&clip_keys, row).to_owned(), input);
        }
        Ok(inputs)
    })
}
