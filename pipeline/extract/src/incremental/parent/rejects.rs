//! Clips of the parent that were rejected because of the contents of their files.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int64Type};
use parquet::errors::ParquetError;
use serde_json::{Value, json};
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::reject::{Reason, Reject, Stage};
use wavemill_store::Store;

use super::table::{general, read_table, text};

const COLUMNS: [&str; 7] = [
    "clip_key",
    "stage",
    "reason",
    "detail",
    "byte_offset",
    "line",
    "decoded_s",
];

/// Reads the rejects of a version that depend only on the clip's file, by `clip_key`. Rejects of the stage `features`
/// depend on all features of a plan, and a panic may not happen again. If the table is damaged, the result is empty and
/// such clips are decoded again.
pub fn rejects(store: &Store, manifest: &Manifest) -> HashMap<String, Reject> {
    read_table(store, manifest, "rejects", &COLUMNS, of_rows).unwrap_or_default()
}

fn of_rows(rows: &RecordBatch) -> Result<HashMap<String, Reject>, ParquetError> {
    let clip_keys = text(rows, "clip_key")?;
    let stages = text(rows, "stage")?;
    let reasons = text(rows, "reason")?;
    let details = text(rows, "detail")?;

    let offsets = rows.column_by_name("byte_offset");
    let lines = rows.column_by_name("line");
    let seconds = rows.column_by_name("decoded_s");
    let (Some(offsets), Some(lines), Some(seconds)) = (
        offsets.and_then(|column| column.as_primitive_opt::<Int64Type>()),
        lines.and_then(|column| column.as_primitive_opt::<Int64Type>()),
        seconds.and_then(|column| column.as_primitive_opt::<Float32Type>()),
    ) else {
        return Err(general("it has unexpected columns"));
    };

    let mut rejects = HashMap::new();
    for row in 0..rows.num_rows() {
        // This row of the table is the reject of a metadata record, not of a clip.
        if clip_keys.is_null(row) || lines.is_valid(row) {
            continue;
        }
        let (Some(stage), Some(reason)) = (
            named::<Stage>(stages.value(row)),
            named::<Reason>(reasons.value(row)),
        ) else {
            continue;
        };
        let is_of_file = matches!(stage, Stage::Read | Stage::Decode);
        if !is_of_file || reason == Reason::WorkerPanic {
            continue;
        }

        let mut reject = Reject::new(stage, reason, details.value(row));
        reject.byte_offset = offsets.is_valid(row).then(|| offsets.value(row) as u64);
        reject.decoded_s = seconds.is_valid(row).then(|| seconds.value(row));
        rejects.insert(clip_keys.value(row).to_owned(), reject);
    }
    Ok(rejects)
}

/// Returns the stage or reason that has this name in the table `rejects`.
fn named<T: serde::de::DeserializeOwned>(name: &str) -> Option<T> {
    let name: Value = json!(name);
    serde_json::from_value(name).ok()
}
