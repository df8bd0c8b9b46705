//! A table of the store: the Parquet files that the manifest lists for it, and no other.
//!
//! DataFusion's own listing of a folder would see whatever lies there; a version is exactly its manifest. So files,
//! sizes, row counts and the `split` of feature files come from the manifest, and only the schema from a file's footer.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use wavemill_schemas::manifest::FileEntry;

use super::SqlError;
use super::damage::{NotingReaders, OpenedFiles, READER_FAILED, UncheckedFooters, brief};
use super::tensor::{RAGGED_ROW_BYTES, TensorType};
use crate::panics::caught;

/// Taken for the length of a text or list.
const TEXT_BYTES: usize = 64;

/// Files of one table, all with one schema.
#[derive(Debug)]
pub(super) struct StoreTable {
    url: ObjectStoreUrl,
    schema: TableSchema,
    files: Vec<PartitionedFile>,
    rows: usize,
    opened: OpenedFiles,
    footers: UncheckedFooters,
}

impl StoreTable {
    /// Opens the table that `entries` (at least one) make up, below the folder `store`.
    ///
    /// `url` is where the session's object store for `store` is registered. A feature's rows get the column `split`. Files
    /// that a query reads are noted in `opened`.
    ///
    /// # Errors
    /// [`SqlError::Damaged`]: a file is missing, not as long as the manifest says, or has no readable footer.
    pub(super) fn open(
        store: &Path,
        url: ObjectStoreUrl,
        entries: &[FileEntry],
        opened: &OpenedFiles,
    ) -> Result<Self, SqlError> {
        // All of them before any is opened: a file that was cut is named here, and not in the middle of an answer.
        for entry in entries {
            check_length(store, entry)?;
        }
        let Some(first) = entries.first() else {
            return Err(SqlError::Manifest {
                path: store.to_owned(),
                detail: "a table without files".to_owned(),
            });
        };

        // All files of a table have one schema, so one footer is enough.
        let footers = UncheckedFooters::new(store, entries);
        footers.check(&first.path)?;
        let file_schema = footer_schema(&store.join(&first.path))?;
        let split = first
            .feature
            .is_some()
            .then(|| Arc::new(Field::new("split", DataType::Utf8, false)));
        let schema = TableSchema::builder(file_schema)
            .with_table_partition_cols(split.into_iter().collect::<Vec<_>>())
            .build();

        let rows = entries.iter().map(|entry| entry.rows as usize).sum();
        let files = entries.iter().map(partitioned_file).collect();
        Ok(Self {
            url,
            schema,
            files,
            rows,
            opened: opened.clone(),
            footers,
        })
    }

    fn projected(&self, projection: Option<&Vec<usize>>) -> impl Iterator<Item = &FieldRef> {
        let fields = self.schema.table_schema().fields();
        (0..fields.len())
            .filter(move |i| projection.is_none_or(|columns| columns.contains(i)))
            .map(|i| &fields[i])
    }

    /// Options for a scan: where tensors are read, rows are filtered before their tensors are decoded.
    fn parquet_options(&self, projection: Option<&Vec<usize>>) -> TableParquetOptions {
        let tensors = self
            .projected(projection)
            .any(|field| TensorType::of(field).is_some());
        // A page holds few tensors, so a reader that knows which rows are wanted can pass over most of the others.
        // With a bitmap, which the reader may choose by itself, it would decode the rows between as well.
        let mut options = TableParquetOptions::default();
        options.global.pushdown_filters = tensors;
        options.global.force_filter_selections = tensors;
        options
    }

    /// Exact row counts, and about how many bytes the columns of a scan are: joins hold the smaller side in memory by
    /// them, which must never be the side with the tensors.
    fn statistics(&self, projection: Option<&Vec<usize>>) -> Statistics {
        let row_bytes: usize = self.projected(projection).map(column_bytes).sum();
        Statistics::new_unknown(self.schema.table_schema())
            .with_num_rows(Precision::Exact(self.rows))
            .with_total_byte_size(Precision::Inexact(self.rows * row_bytes))
    }
}

#[async_trait]
impl TableProvider for StoreTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // The planner hands the same predicates to the scan, which skips files, row groups and rows by them.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let runtime = state.runtime_env();
        // Footers are kept, so that the next query over the table does not read them again.
        let readers = CachedParquetFileReaderFactory::new(
            runtime.object_store(&self.url)?,
            runtime.cache_manager.get_file_metadata_cache(),
        );

        let source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(self.parquet_options(projection))
            .with_parquet_file_reader_factory(Arc::new(NotingReaders {
                readers,
                opened: self.opened.clone(),
                footers: self.footers.clone(),
            }));

        let groups =
            FileGroup::new(self.files.clone()).split_files(state.config().target_partitions());

        let scan = FileScanConfigBuilder::new(self.url.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(self.statistics(projection))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}

/// About how many bytes a row has in a column.
fn column_bytes(field: &FieldRef) -> usize {
    if let Some(tensor) = TensorType::of(field) {
        return tensor.row_bytes().unwrap_or(RAGGED_ROW_BYTES);
    }
    field.data_type().primitive_width().unwrap_or(TEXT_BYTES)
}

fn partitioned_file(entry: &FileEntry) -> PartitionedFile {
    let file = PartitionedFile::new(entry.path.as_str(), entry.bytes);
    match &entry.feature {
        Some(_) => {
            file.with_partition_values(vec![ScalarValue::Utf8(Some(split_of(entry).to_owned()))])
        }
        None => file,
    }
}

fn split_of(entry: &FileEntry) -> &str {
    entry.split.as_deref().unwrap_or("none")
}

fn check_length(store: &Path, entry: &FileEntry) -> Result<(), SqlError> {
    // Length only: a hash would take reading the whole file before the first row. See `damage` for the rest.
    let path = store.join(&entry.path);
    let found = std::fs::metadata(&path).map(|file| file.len());
    match found {
        Ok(bytes) if bytes == entry.bytes => Ok(()),
        Ok(bytes) => {
            let detail = format!("{bytes} bytes long, the manifest says {}", entry.bytes);
            Err(SqlError::Damaged { path, detail })
        }
        Err(error) => Err(SqlError::Damaged {
            path,
            detail: error.to_string(),
        }),
    }
}

fn footer_schema(path: &Path) -> Result<SchemaRef, SqlError> {
    let file = File::open(path).map_err(|error| damaged(path, &error.to_string()))?;
    // The reader of footers panics on some that are damaged.
    let footer = caught(|| ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()))
        .map_err(|panic| damaged(path, &format!("{READER_FAILED}: {}", panic.message)))?
        .map_err(|error| damaged(path, &error.to_string()))?;
    Ok(Arc::clone(footer.schema()))
}

fn damaged(path: &Path, detail: &str) -> SqlError {
    SqlError::Damaged {
        path: path.to_owned(),
        detail: brief(detail),
    }
}
