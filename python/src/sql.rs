//! Queries over a version of a store.

use std::path::PathBuf;
use std::thread;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use pyo3::prelude::*;
use pyo3_arrow::PyRecordBatchReader;
use wavemill_schemas::version_name::VersionName;
use wavemill_sql::{Limits, Rows};
use wavemill_store::Store;

use crate::errors;

/// Starts a query and returns its rows as a stream of Arrow data, which computes them while they are taken.
#[pyfunction]
pub(crate) fn query(
    py: Python<'_>,
    root: PathBuf,
    version: u64,
    sql: &str,
    memory_bytes: usize,
    threads: Option<usize>,
) -> PyResult<PyRecordBatchReader> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let limits = Limits {
        memory_bytes,
        threads: threads.unwrap_or(processors).max(1),
        allow_write: false,
    };
    let started = py.detach(|| start(root, version, sql, limits));
    let rows = started.map_err(|error| errors::of_command(py, &error))?;
    Ok(PyRecordBatchReader::new(Box::new(QueryReader(rows))))
}

fn start(root: PathBuf, version: u64, sql: &str, limits: Limits) -> anyhow::Result<Rows> {
    let store = Store::open(&root)?;
    let number = store.resolve(Some(&VersionName::Number(version)))?;
    let (_, manifest) = store.readable(number)?;
    Ok(wavemill_sql::open(&root, &manifest, limits)?.rows(sql)?)
}

/// The rows of a query as Arrow's reader.
struct QueryReader(Rows);

impl Iterator for QueryReader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.0.next()?;
        Some(batch.map_err(|error| ArrowError::ExternalError(Box::new(error))))
    }
}

impl RecordBatchReader for QueryReader {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }
}
