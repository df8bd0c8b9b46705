//! Where each clip's rows lie in the parent's files.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use wavemill_schemas::manifest::FileEntry;

use super::table::{general, text};
use crate::shards::RowRun;
use crate::store::{Parent, Store, StoreError};

/// Rows of a clip in the parent, which are the same ones in each of its features.
#[derive(Clone, Debug)]
pub(crate) struct ClipRows {
    /// In the order of the files.
    pub runs: Vec<RowRun>,
    /// Seconds decoded, before padding.
    pub duration_s: f32,
}

/// Rows by `clip_key`. What a damaged file tells is not believed: whoever takes rows compares their files with their
/// blake3 first.
pub(crate) type RowIndex = HashMap<String, ClipRows>;

/// The parent's files of a feature, in plan order: one a shard.
pub(crate) fn files_of<'p>(parent: &'p Parent, feature: &'p str) -> Vec<&'p FileEntry> {
    parent.manifest.files_of(feature).collect()
}

/// Reads which rows are in the parent's files of one feature. Files that cannot be read come second.
///
/// # Errors
/// [`StoreError::Outside`].
pub(crate) fn row_index<'p>(
    store: &Store,
    files: &[&'p FileEntry],
) -> Result<(RowIndex, Vec<&'p FileEntry>), StoreError> {
    let mut index = RowIndex::new();
    let mut unreadable = Vec::new();
    for (shard, entry) in files.iter().enumerate() {
        let path = store.locate(&entry.path)?;
        match read_keys(&path) {
            Ok(keys) => add(&mut index, shard, entry, &keys),
            // Its clips are computed, as new ones are.
            Err(_) => unreadable.push(*entry),
        }
    }
    Ok((index, unreadable))
}

/// Adds a run for each row group in which a clip has rows.
fn add(index: &mut RowIndex, shard: usize, entry: &FileEntry, keys: &[(String, f32)]) {
    let mut rows = keys.iter();
    for (group, &n_rows) in entry.row_groups.iter().enumerate() {
        let mut previous: Option<&str> = None;
        for (row, (clip_key, duration_s)) in rows.by_ref().take(n_rows as usize).enumerate() {
            let clip = match index.get_mut(clip_key) {
                Some(clip) => clip,
                None => index.entry(clip_key.clone()).or_insert(ClipRows {
                    runs: Vec::new(),
                    duration_s: *duration_s,
                }),
            };
            // The segments of a clip lie side by side.
            match clip.runs.last_mut() {
                Some(run) if previous == Some(clip_key) => run.n += 1,
                _ => clip.runs.push(RowRun {
                    shard,
                    group,
                    first: row,
                    n: 1,
                }),
            }
            previous = Some(clip_key);
        }
    }
}

/// `clip_key` and `duration_s` of every row.
fn read_keys(path: &Path) -> Result<Vec<(String, f32)>, ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let names = ["clip_key", "duration_s"];
    let mask = ProjectionMask::columns(reader.parquet_schema(), names);

    let mut keys = Vec::new();
    for batch in reader.with_projection(mask).build()? {
        let batch: RecordBatch = batch?;
        let clip_keys = text(&batch, "clip_key")?;
        let durations = batch.column_by_name("duration_s");
        let Some(durations) = durations.filter(|column| *column.data_type() == DataType::Float32)
        else {
            return Err(general("it has no column duration_s"));
        };

        let durations = durations.as_primitive::<Float32Type>().values();
        for (clip_key, &duration_s) in clip_keys.iter().flatten().zip(durations) {
            keys.push((clip_key.to_owned(), duration_s));
        }
    }
    Ok(keys)
}
