//! Writes the metadata tables of a version: the tables of the catalog, restricted to the planned clips, and the
//! rejects.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Array, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder, UInt64Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use wavemill_catalog as catalog;
use wavemill_catalog::{Catalog, ExtraTable, FilesOfKind};
use wavemill_schemas::input::InputSeen;
use wavemill_schemas::manifest::{FileEntry, TargetEntry};
use wavemill_schemas::recipe::Dataset;
use wavemill_schemas::reject::Reject;
use wavemill_schemas::tables::{audio_files_schema, classes_schema, inputs_schema, rejects_schema};
use wavemill_store::plan::ShardPlan;
use wavemill_store::shards::write_table;
use wavemill_store::{Store, StoreError};

use crate::error::ExtractError;
use crate::job::Job;

/// Returns the large tables of FMA, which are streamed to the store and never held in memory.
///
/// # Errors
/// [`ExtractError::Catalog`] if the metadata cannot be read.
pub(super) fn further(job: &Job) -> Result<Vec<ExtraTable>, ExtractError> {
    match (&job.metadata.main, job.recipe.catalog.dataset) {
        (Some(metadata), Dataset::Fma) => Ok(catalog::extra_tables(metadata)?),
        _ => Ok(Vec::new()),
    }
}

/// Returns how many tables a run writes: the catalog's tables, the additional tables of the data set, `rejects`,
/// `inputs`, `classes` and `audio_files`.
pub(super) fn count(job: &Job, catalog: &Catalog) -> Result<usize, ExtractError> {
    Ok(catalog.tables.len() + further(job)?.len() + 4)
}

/// Writes every table of the catalog to a file below the plan's folder, ordered by name, and then streams the
/// additional tables of the data set. Returns the files, and rejects for records of the additional tables that cannot
/// be parsed, which may be at most `reject_fraction` of a table.
///
/// # Errors
/// [`ExtractError::Store`], [`ExtractError::Catalog`], and the error of `require_not_stopped`, which is called before each
/// table or batch.
pub(super) fn write(
    store: &Store,
    plan_id: &str,
    tables: BTreeMap<String, RecordBatch>,
    shard_plan: &ShardPlan,
    further: Vec<ExtraTable>,
    reject_fraction: f64,
    require_not_stopped: &dyn Fn() -> Result<(), ExtractError>,
) -> Result<(Vec<FileEntry>, Vec<Reject>), ExtractError> {
    let mut files = Vec::with_capacity(tables.len() + 1);
    for (name, batch) in tables {
        // `--limit` only applies to the table `tracks`: the others describe the whole data set.
        let batch = if name == "tracks" {
            planned_rows(batch, shard_plan)?
        } else {
            batch
        };
        require_not_stopped()?;
        files.push(write_one(store, plan_id, &name, batch)?);
    }

    let mut rejects = Vec::new();
    for mut table in further {
        let name = table.name().to_owned();
        let schema = table.schema();
        let path = table_path(plan_id, &name);
        let batches = table
            .by_ref()
            .map(|batch| require_not_stopped().and_then(|()| Ok(batch?)));
        files.push(write_table(store.root(), path, &name, schema, batches)?);
        // The rejects of a table are only known when the whole table has been read.
        table.refuse_rejects(reject_fraction)?;
        rejects.extend(table.rejects());
    }
    Ok((files, rejects))
}

/// Selects the rows of planned clips: all rows, or those within `--limit`.
fn planned_rows(batch: RecordBatch, shard_plan: &ShardPlan) -> Result<RecordBatch, StoreError> {
    if shard_plan.planned.len() >= batch.num_rows() {
        return Ok(batch);
    }
    let rows = shard_plan.planned.iter().map(|&row| row as u64);
    take_record_batch(&batch, &UInt64Array::from_iter_values(rows))
        .map_err(StoreError::rows("metadata table"))
}

/// Writes the `rejects` table, in the given order.
///
/// # Errors
/// [`ExtractError::Store`] if the table cannot be written.
pub(super) fn write_rejects<'a>(
    store: &Store,
    plan_id: &str,
    rejects: impl Iterator<Item = &'a Reject>,
) -> Result<FileEntry, ExtractError> {
    let rejects: Vec<&Reject> = rejects.collect();

    // The columns are in the order of `rejects_schema`, against which `try_new` checks them.
    let columns = vec![
        texts(&rejects, |r| r.clip_key.as_deref()),
        numbers(&rejects, |r| r.track_id),
        texts(&rejects, |r| Some(r.stage.name())),
        texts(&rejects, |r| Some(r.reason.name())),
        texts(&rejects, |r| Some(&r.detail)),
        numbers(&rejects, |r| r.byte_offset.map(|n| n as i64)),
        numbers(&rejects, |r| r.line.map(|n| n as i64)),
        texts(&rejects, |r| r.column.as_deref()),
        Arc::new(Float32Array::from_iter(rejects.iter().map(|r| r.decoded_s))),
    ];

    write_columns(store, plan_id, "rejects", rejects_schema(), columns)
}

/// Writes the `inputs` table: sizes and hashes of the planned clips' files, by `clip_key`.
///
/// # Errors
/// [`ExtractError::Store`] if the table cannot be written.
pub(super) fn write_inputs(
    store: &Store,
    plan_id: &str,
    inputs: &BTreeMap<String, InputSeen>,
) -> Result<FileEntry, ExtractError> {
    let bytes = inputs.values().map(|seen| Some(seen.id?.bytes as i64));
    let contents = inputs.values().map(|seen| some_text(&seen.content));
    let decode_keys = inputs.values().map(|seen| some_text(&seen.decode_key));

    // The columns are in the order of `inputs_schema`, against which `try_new` checks them.
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(inputs.keys())),
        Arc::new(Int64Array::from_iter(bytes)),
        Arc::new(StringArray::from_iter(contents)),
        Arc::new(StringArray::from_iter(decode_keys)),
    ];

    write_columns(store, plan_id, "inputs", inputs_schema(), columns)
}

/// Writes the `classes` table: the classes of every target.
///
/// # Errors
/// [`ExtractError::Store`] if the table cannot be written.
pub(super) fn write_classes(
    store: &Store,
    plan_id: &str,
    targets: &[TargetEntry],
) -> Result<FileEntry, ExtractError> {
    let mut names = Vec::new();
    let mut ids = Vec::new();
    let mut classes = Vec::new();
    for target in targets {
        for (id, class) in target.classes.iter().enumerate() {
            names.push(&target.name);
            ids.push(id as i32);
            classes.push(class);
        }
    }

    // The columns are in the order of `classes_schema`, against which `try_new` checks them.
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(names)),
        Arc::new(Int32Array::from(ids)),
        Arc::new(StringArray::from_iter_values(classes)),
    ];
    write_columns(store, plan_id, "classes", classes_schema(), columns)
}

/// Writes the `audio_files` table: the number of files of each kind below the audio root, and how they were used.
///
/// # Errors
/// [`ExtractError::Store`] if the table cannot be written.
pub(super) fn write_audio_files(
    store: &Store,
    plan_id: &str,
    found: &[FilesOfKind],
) -> Result<FileEntry, ExtractError> {
    let item = Field::new("item", DataType::Utf8, false);
    let mut examples = ListBuilder::new(StringBuilder::new()).with_field(item.clone());
    let mut near_rows = ListBuilder::new(StringBuilder::new()).with_field(item);
    for kind in found {
        examples.append_value(kind.examples.iter().map(Some));
        let rows = kind.near_rows.as_ref();
        near_rows.append_option(rows.map(|rows| rows.iter().map(Some)));
    }

    // The columns are in the order of `audio_files_schema`, against which `try_new` checks them.
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(
            found.iter().map(|kind| kind.fate.name()),
        )),
        Arc::new(StringArray::from_iter_values(
            found.iter().map(|kind| &kind.extension),
        )),
        Arc::new(Int64Array::from_iter_values(
            found.iter().map(|kind| kind.files as i64),
        )),
        Arc::new(Int64Array::from_iter_values(
            found.iter().map(|kind| kind.bytes as i64),
        )),
        Arc::new(examples.finish()),
        Arc::new(near_rows.finish()),
    ];

    write_columns(store, plan_id, "audio_files", audio_files_schema(), columns)
}

/// Returns `None`, which is stored as null, for an empty string.
fn some_text(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn texts(rejects: &[&Reject], value: fn(&Reject) -> Option<&str>) -> ArrayRef {
    let values = rejects.iter().map(|reject| value(reject));
    Arc::new(StringArray::from_iter(values))
}

fn numbers(rejects: &[&Reject], value: fn(&Reject) -> Option<i64>) -> ArrayRef {
    let values = rejects.iter().map(|reject| value(reject));
    Arc::new(Int64Array::from_iter(values))
}

fn write_columns(
    store: &Store,
    plan_id: &str,
    name: &str,
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
) -> Result<FileEntry, ExtractError> {
    let batch = RecordBatch::try_new(schema, columns);
    let batch = batch.map_err(StoreError::rows("metadata table"))?;
    write_one(store, plan_id, name, batch)
}

fn write_one(
    store: &Store,
    plan_id: &str,
    name: &str,
    batch: RecordBatch,
) -> Result<FileEntry, ExtractError> {
    let path = table_path(plan_id, name);
    let schema = batch.schema();
    let batches = [Ok::<_, StoreError>(batch)];
    Ok(write_table(store.root(), path, name, schema, batches)?)
}

/// Returns the path of a table relative to the store's root.
fn table_path(plan_id: &str, name: &str) -> String {
    format!("data/{plan_id}/{name}/{name}.parquet")
}
