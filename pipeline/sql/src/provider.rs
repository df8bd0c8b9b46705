//! A table for the sessions of other programs, such as that of DataFusion's Python package.
//!
//! A scan is a query of a session of this crate, with its columns, filters and limit: on own threads, with own memory
//! limit, and with failures explained. The other session takes its batches.

use std::iter;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Column, DataFusionError, Result, Statistics};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::stream;
use wavemill_schemas::manifest::Manifest;
use wavemill_store::Store;

use super::output::tensors::TensorStream;
use super::{Limits, Rows, SqlError, session};

/// Returns a table of the version of `store` that `manifest` describes, as named in SQL. Tensors of equal
/// shape are `arrow.fixed_shape_tensor`, as in [`Rows`]. Each scan has the limits `limits`.
///
/// # Errors
/// [`SqlError::Usage`] if there is no such table, or [`SqlError::Damaged`] if the table's file is damaged.
pub fn table_provider(
    store: &Store,
    manifest: Arc<Manifest>,
    limits: Limits,
    table: &str,
) -> Result<Arc<dyn TableProvider>, SqlError> {
    let opened = session::open(store, &manifest, limits)?;
    let stored = opened.columns(table)?;
    let tensors = TensorStream::new(&stored);
    Ok(Arc::new(SharedTable {
        store: store.clone(),
        rows: opened.rows_of(table),
        manifest,
        limits,
        name: table.to_owned(),
        stored,
        schema: Arc::clone(tensors.schema()),
    }))
}

#[derive(Debug)]
struct SharedTable {
    store: Store,
    manifest: Arc<Manifest>,
    limits: Limits,
    name: String,
    /// The columns as stored: tensors are bytes.
    stored: SchemaRef,
    schema: SchemaRef,
    rows: Option<u64>,
}

impl SharedTable {
    /// Reports whether the column has the same type in the store.
    fn is_as_stored(&self, column: &Column) -> bool {
        let name = column.name();
        match (
            self.stored.field_with_name(name),
            self.schema.field_with_name(name),
        ) {
            (Ok(stored), Ok(shown)) => stored.data_type() == shown.data_type(),
            _ => false,
        }
    }
}

#[async_trait]
impl TableProvider for SharedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        let rows = Precision::Exact(self.rows? as usize);
        Some(Statistics::new_unknown(&self.schema).with_num_rows(rows))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let supported = filters.iter().map(|filter| {
            // The store's session would apply it to the bytes of a tensor.
            if filter
                .column_refs()
                .iter()
                .all(|column| self.is_as_stored(column))
            {
                TableProviderFilterPushDown::Exact
            } else {
                TableProviderFilterPushDown::Unsupported
            }
        });
        Ok(supported.collect())
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let scan = Scan {
            store: self.store.clone(),
            manifest: Arc::clone(&self.manifest),
            limits: self.limits,
            table: self.name.clone(),
            schema: Arc::clone(&schema),
            filters: filters.to_vec(),
            limit,
        };
        let plan =
            StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, [], false, None)?;
        Ok(Arc::new(plan))
    }
}

/// A query for columns of a table.
#[derive(Debug)]
struct Scan {
    store: Store,
    manifest: Arc<Manifest>,
    limits: Limits,
    table: String,
    schema: SchemaRef,
    filters: Vec<Expr>,
    limit: Option<usize>,
}

impl Scan {
    fn start(&self) -> Result<Rows, SqlError> {
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| field.name().clone());
        session::open(&self.store, &self.manifest, self.limits)?.scan(
            &self.table,
            columns.collect(),
            self.filters.clone(),
            self.limit,
        )
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        // Taking a batch waits for the query's own threads, which do not depend on the thread that waits.
        let batches: Box<dyn Iterator<Item = _> + Send> = match self.start() {
            Ok(rows) => Box::new(rows.map(|batch| batch.map_err(DataFusionError::from))),
            Err(error) => Box::new(iter::once(Err(error.into()))),
        };
        let schema = Arc::clone(&self.schema);
        Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(batches)))
    }
}
