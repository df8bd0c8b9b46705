//! The metadata tables of a version: what the catalog made, cut to the planned clips, and the rejects.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::compute::take_record_batch;
use wavemill_schemas::manifest::{FileEntry, Receipt};
use wavemill_schemas::reject::Reject;
use wavemill_schemas::tables::rejects_schema;

use crate::catalog::Catalog;
use crate::plan::ShardPlan;
use crate::run::RunError;
use crate::shards::{ShardError, write_table};
use crate::store::Store;

/// Writes every table of the catalog below the plan's folder, one file each, ordered by name.
///
/// # Errors
/// [`RunError::Shard`].
pub fn write(store: &Store, plan_id: &str, catalog: &Catalog, plan: &ShardPlan) -> Result<Vec<FileEntry>, RunError> {
    let mut files = Vec::with_capacity(catalog.tables.len() + 1);
    for (name, batch) in &catalog.tables {
        let planned = plan.planned.iter().map(|&row| row as u64);
        let batch = if name == "tracks" && plan.planned.len() < batch.num_rows() {
            take_record_batch(batch, &UInt64Array::from_iter_values(planned)).map_err(ShardError::Table)?
        } else {
            batch.clone()
        };
        files.push(write_one(store, plan_id, name, batch)?);
    }
    Ok(files)
}

/// Writes the `rejects` table: the catalog's by line, then the clips' in shard order, each clip once.
///
/// # Errors
/// [`RunError::Shard`].
pub fn write_rejects(
    store: &Store,
    plan_id: &str,
    catalog: &Catalog,
    receipts: &[Receipt],
) -> Result<FileEntry, RunError> {
    let rejects: Vec<&Reject> = catalog.rejects.iter().chain(clip_rejects(receipts)).collect();
    let text = |value: fn(&Reject) -> Option<&str>| -> ArrayRef {
        Arc::new(StringArray::from_iter(rejects.iter().map(|r| value(r))))
    };
    let number = |value: fn(&Reject) -> Option<i64>| -> ArrayRef {
        Arc::new(Int64Array::from_iter(rejects.iter().map(|r| value(r))))
    };
    let columns = vec![
        text(|r| r.clip_key.as_deref()),
        number(|r| r.track_id),
        text(|r| Some(r.stage.name())),
        text(|r| Some(r.reason.name())),
        text(|r| Some(&r.detail)),
        number(|r| r.byte_offset.map(|n| n as i64)),
        number(|r| r.line.map(|n| n as i64)),
        text(|r| r.column.as_deref()),
        Arc::new(Float32Array::from_iter(rejects.iter().map(|r| r.decoded_s))),
    ];
    let batch = RecordBatch::try_new(rejects_schema(), columns).map_err(ShardError::Table)?;
    write_one(store, plan_id, "rejects", batch)
}

/// Rejected clips of all shards, each once: under the rule `segment` a clip is a member of several.
pub fn clip_rejects(receipts: &[Receipt]) -> impl Iterator<Item = &Reject> {
    let mut seen = std::collections::BTreeSet::new();
    receipts.iter().flat_map(|r| &r.rejects).filter(move |reject| seen.insert(reject.clip_key.as_deref()))
}

fn write_one(store: &Store, plan_id: &str, name: &str, batch: RecordBatch) -> Result<FileEntry, RunError> {
    let relative = format!("data/{plan_id}/{name}/{name}.parquet");
    Ok(write_table::<ShardError>(store.root(), relative, name, batch.schema(), [Ok(batch)])?)
}
