//! Positions of each clip's rows in the parent's files.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use arrow::array::{AsArray, Float32Array, RecordBatch};
use arrow::datatypes::Float32Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use wavemill_schemas::manifest::FileEntry;
use wavemill_store::shards::RowRun;
use wavemill_store::{Store, StoreError};

use super::table::{general, guarded, text};

/// Positions of a clip's rows in the parent's files. They are equal in all features of the parent.
#[derive(Clone, Debug)]
pub(crate) struct ClipRows {
    /// Runs of consecutive rows of the clip, in the order of the files.
    pub runs: Vec<RowRun>,
    /// Decoded duration of the clip before padding, in seconds.
    pub duration_s: f32,
}

/// Positions of the rows of each clip, by `clip_key`.
pub(crate) type RowIndex = HashMap<String, ClipRows>;

/// Reads the positions of all rows in the parent's files of one feature. `files` are those whose content matches the
/// manifest, each with its shard number. Files that nevertheless cannot be read are returned second: an edited manifest
/// can name any file.
///
/// # Errors
/// [`StoreError::Damaged`] if a link in a file's path leads out of the store.
pub(crate) fn row_index<'p>(
    store: &Store,
    files: &[(usize, &'p FileEntry)],
) -> Result<(RowIndex, Vec<&'p FileEntry>), StoreError> {
    let mut index = RowIndex::new();
    let mut unreadable = Vec::new();
    for &(shard, entry) in files {
        let path = store.locate(&entry.path)?;
        match guarded(|| read_keys(&path)) {
            Ok(keys) => add(&mut index, shard, entry, &keys),
            // The clips of an unreadable file are computed like new clips.
            Err(_) => unreadable.push(entry),
        }
    }
    Ok((index, unreadable))
}

/// Adds a run for each row group in which a variant of a clip has rows.
fn add(index: &mut RowIndex, shard: usize, entry: &FileEntry, keys: &[RowKey]) {
    let mut rows = keys.iter();
    for (group, &n_rows) in entry.row_groups.iter().enumerate() {
        let mut previous: Option<&RowKey> = None;
        for (row, key) in rows.by_ref().take(n_rows as usize).enumerate() {
            let clip = match index.get_mut(&key.clip_key) {
                Some(clip) => clip,
                None => index.entry(key.clip_key.clone()).or_insert(ClipRows {
                    runs: Vec::new(),
                    duration_s: key.duration_s,
                }),
            };

            // The segments of a variant are adjacent.
            let goes_on = previous.is_some_and(|previous| {
                previous.clip_key == key.clip_key && previous.variant == key.variant
            });

            match clip.runs.last_mut() {
                Some(run) if goes_on => run.n += 1,
                _ => clip.runs.push(RowRun {
                    variant: key.variant,
                    shard,
                    group,
                    first: row,
                    n: 1,
                }),
            }

            previous = Some(key);
        }
    }
}

/// The columns that identify a row.
struct RowKey {
    clip_key: String,
    variant: f32,
    duration_s: f32,
}

fn read_keys(path: &Path) -> Result<Vec<RowKey>, ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let names = ["clip_key", "variant", "duration_s"];
    let mask = ProjectionMask::columns(reader.parquet_schema(), names);

    let mut keys = Vec::new();
    for batch in reader.with_projection(mask).build()? {
        let batch: RecordBatch = batch?;
        let clip_keys = text(&batch, "clip_key")?;
        let variants = numbers(&batch, "variant")?;
        let durations = numbers(&batch, "duration_s")?;
        let facts = variants.values().iter().zip(durations.values());
        for (clip_key, (&variant, &duration_s)) in clip_keys.iter().flatten().zip(facts) {
            keys.push(RowKey {
                clip_key: clip_key.to_owned(),
                variant,
                duration_s,
            });
        }
    }
    Ok(keys)
}

fn numbers<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Float32Array, ParquetError> {
    let column = batch.column_by_name(name);
    let numbers = column.and_then(|column| column.as_primitive_opt::<Float32Type>());
    numbers.ok_or_else(|| general(&format!("it has no column {name}")))
}
