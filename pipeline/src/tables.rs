//! The metadata tables of a version: what the catalog made, cut to the planned clips, and the rejects.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::compute::take_record_batch;
use wavemill_schemas::manifest::{FileEntry, Receipt};
use wavemill_schemas::reject::Reject;
use wavemill_schemas::tables::rejects_schema;

use crate::catalog::ExtraTable;
use crate::plan::ShardPlan;
use crate::run::RunError;
use crate::shards::{ShardError, write_table};
use crate::store::Store;

/// Writes every table of the catalog below the plan's folder, one file each, ordered by name; then the data set's
/// further tables, streaming. Returns the files, and what of the further tables could not be parsed.
///
/// # Errors
/// [`RunError::Shard`], [`RunError::Catalog`], and that of `stop_here`, which is asked before each piece of a table.
pub fn write(
    store: &Store,
    plan_id: &str,
    tables: BTreeMap<String, RecordBatch>,
    plan: &ShardPlan,
    further: Vec<ExtraTable>,
    stop_here: &dyn Fn() -> Result<(), RunError>,
) -> Result<(Vec<FileEntry>, Vec<Reject>), RunError> {
    let mut files = Vec::with_capacity(tables.len() + 1);
    for (name, batch) in tables {
        let planned = plan.planned.iter().map(|&row| row as u64);
        let batch = if name == "tracks" && plan.planned.len() < batch.num_rows() {
            take_record_batch(&batch, &UInt64Array::from_iter_values(planned)).map_err(ShardError::Table)?
        } else {
            batch
        };
        stop_here()?;
        files.push(write_one(store, plan_id, &name, batch)?);
    }
    let mut rejects = Vec::new();
    for mut table in further {
        let (name, schema) = (table.name().to_owned(), table.schema());
        let relative = relative(plan_id, &name);
        let batches = table.by_ref().map(|batch| stop_here().and_then(|()| Ok(batch?)));
        files.push(write_table(store.root(), relative, &name, schema, batches)?);
        rejects.extend(table.rejects());
    }
    Ok((files, rejects))
}

/// Writes the `rejects` table, in the given order.
///
/// # Errors
/// [`RunError::Shard`].
pub fn write_rejects<'a>(
    store: &Store,
    plan_id: &str,
    rejects: impl Iterator<Item = &'a Reject>,
) -> Result<FileEntry, RunError> {
    let rejects: Vec<&Reject> = rejects.collect();
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
    Ok(write_table::<ShardError>(store.root(), relative(plan_id, name), name, batch.schema(), [Ok(batch)])?)
}

fn relative(plan_id: &str, name: &str) -> String {
    format!("data/{plan_id}/{name}/{name}.parquet")
}
