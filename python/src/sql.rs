//! Queries over a version of a store, and its tables for Python's DataFusion.
#![allow(unsafe_code)] // reads a capsule of another module

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::catalog::TableProvider;
use datafusion_ffi::proto::logical_extension_codec::FFI_LogicalExtensionCodec;
use datafusion_ffi::table_provider::FFI_TableProvider;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::{PyRecordBatchReader, PySchema};
use wavemill_schemas::manifest::Manifest;
use wavemill_schemas::version_name::VersionName;
use wavemill_sql::{Limits, Rows};
use wavemill_store::Store;

use crate::errors;

/// Starts a query. Returns its rows as a stream of Arrow data, which computes them while they are taken, their schema,
/// and the failure of that stream.
#[pyfunction]
pub(crate) fn query(
    py: Python<'_>,
    root: PathBuf,
    version: u64,
    sql: &str,
    memory_bytes: usize,
    threads: Option<usize>,
) -> PyResult<(PyRecordBatchReader, PySchema, PyQueryFailure)> {
    let limits = limits(memory_bytes, threads);
    let started = py.detach(|| {
        let (store, manifest) = open(&root, version)?;
        Ok(wavemill_sql::open(&store, &manifest, limits)?.rows(sql)?)
    });
    let rows = started.map_err(|error| errors::of_command(py, &error))?;
    let schema = without_nested_views(&rows.schema());
    let failure = Failure::default();
    let reader = QueryReader {
        rows,
        schema: Arc::clone(&schema),
        failure: Arc::clone(&failure),
    };
    Ok((
        PyRecordBatchReader::new(Box::new(reader)),
        PySchema::new(schema),
        PyQueryFailure(failure),
    ))
}

/// Returns the schema that readers get: pandas cannot make lists of texts and bytes that are views.
fn without_nested_views(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8View | DataType::BinaryView => Arc::clone(field),
        _ => without_views(field),
    });
    let fields: Fields = fields.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn without_views(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(without_views(item)),
        DataType::LargeList(item) => DataType::LargeList(without_views(item)),
        DataType::FixedSizeList(item, n) => DataType::FixedSizeList(without_views(item), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(without_views).collect()),
        other => other.clone(),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

fn limits(memory_bytes: usize, threads: Option<usize>) -> Limits {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    Limits {
        memory_bytes,
        threads: threads.unwrap_or(processors).max(1),
        allow_write: false,
    }
}

fn open(root: &Path, version: u64) -> anyhow::Result<(Store, Manifest)> {
    let store = Store::open(root)?;
    let number = store.resolve(Some(&VersionName::Number(version)))?;
    let (_, manifest) = store.readable(number)?;
    Ok((store, manifest))
}

/// A table of a version, for sessions of Python's DataFusion.
#[pyclass(frozen, name = "OpenTable", module = "wavemill._wavemill")]
pub(crate) struct PyOpenTable(Arc<dyn TableProvider>);

#[pymethods]
impl PyOpenTable {
    #[new]
    fn new(
        py: Python<'_>,
        root: PathBuf,
        version: u64,
        name: &str,
        memory_bytes: usize,
        threads: Option<usize>,
    ) -> PyResult<Self> {
        let limits = limits(memory_bytes, threads);
        let opened = py.detach(|| {
            let (store, manifest) = open(&root, version)?;
            let manifest = Arc::new(manifest);
            Ok(wavemill_sql::table_provider(
                &store, manifest, limits, name,
            )?)
        });
        opened
            .map(Self)
            .map_err(|error| errors::of_command(py, &error))
    }

    /// Returns the capsule from which a session makes the table. `codec` is the capsule that the session gives for its
    /// codec; it must come from the version of DataFusion with which this module was built.
    fn provider<'py>(
        &self,
        py: Python<'py>,
        codec: &Bound<'py, PyCapsule>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let codec = codec.pointer_checked(Some(c"datafusion_logical_extension_codec"))?;
        // SAFETY: a capsule of this name holds a codec, and the caller has compared the version of its layout.
        let codec = unsafe { codec.cast::<FFI_LogicalExtensionCodec>().as_ref() }.clone();
        let provider = Arc::clone(&self.0);
        let shared = FFI_TableProvider::new_with_ffi_codec(provider, true, None, codec);
        PyCapsule::new_with_value(py, shared, c"datafusion_table_provider")
    }
}

/// The error that ended a query while its rows were taken; `None` before.
type Failure = Arc<Mutex<Option<anyhow::Error>>>;

/// The error that ended a query while its rows were taken, of which Arrow's stream passes only the text on.
#[pyclass(frozen, name = "QueryFailure", module = "wavemill._wavemill")]
pub(crate) struct PyQueryFailure(Failure);

#[pymethods]
impl PyQueryFailure {
    /// Raises the error, if there is one that was not raised before.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let failure = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match failure {
            Some(error) => Err(errors::of_command(py, &error)),
            None => Ok(()),
        }
    }
}

/// The rows of a query as Arrow's reader.
struct QueryReader {
    rows: Rows,
    schema: SchemaRef,
    failure: Failure,
}

impl Iterator for QueryReader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let error = match self.rows.next()? {
            Ok(batch) => return Some(self.converted(batch)),
            Err(error) => error,
        };
        let text = error.to_string();
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        *failure = Some(error.into());
        Some(Err(ArrowError::ExternalError(text.into())))
    }
}

impl QueryReader {
    /// Converts the columns of a batch to the types of the reader's schema.
    fn converted(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        if *batch.schema_ref() == self.schema {
            return Ok(batch);
        }
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

impl RecordBatchReader for QueryReader {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
