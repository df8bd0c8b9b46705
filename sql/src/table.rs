//! A table of the store. It consists of exactly the Parquet files that the manifest lists for it.
//!
//! DataFusion's own folder listing would include any file in the folder, but a version consists of exactly the files in
//! its manifest. Files, sizes, row counts and the `split` of feature files therefore come from the manifest, and only
//! the schema comes from a file's footer.

use std::error::Error;
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
use parquet::file::metadata::ParquetMetaDataReader;
use wavemill_runtime::panics::caught;
use wavemill_schemas::exit::machine_fault;
use wavemill_schemas::manifest::FileEntry;
use wavemill_store::{RemoteError, Store};

use super::SqlError;
use super::damage::{
    OpenedFiles, READER_FAILED, RecordingReaders, UncheckedFooters, brief, not_read, remote_footer,
};
use super::tensor::TensorType;

/// Assumed size in bytes of a text or list value.
const TEXT_BYTES: usize = 64;

/// The files of one table, all with the same schema.
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
    /// Opens the table that consists of `entries` (at least one), which are files of `store`.
    ///
    /// `url` is the URL under which the session's object store for `store` is registered. Feature tables get the
    /// additional column `split`. Files that a query reads are recorded in `opened`.
    ///
    /// # Errors
    /// [`SqlError::Damaged`] if a file is missing, has another length than in the manifest, or has no readable footer;
    /// [`SqlError::Failed`] if the machine fails to read it.
    pub(super) fn open(
        store: &Store,
        url: ObjectStoreUrl,
        entries: &[FileEntry],
        opened: &OpenedFiles,
    ) -> Result<Self, SqlError> {
        // Check all files before opening one, so that a truncated file is reported here and not in the middle of a
        // result.
        match store.mirror() {
            Some(mirror) => {
                let tables = entries.iter().filter(|entry| entry.table.is_some());
                // If tables cannot be copied, their ranges are read like those of features.
                if let Err(error @ RemoteError::Damaged { .. }) =
                    mirror.fetch(&tables.collect::<Vec<_>>())
                {
                    return Err(not_read(error));
                }
            }
            None => {
                for entry in entries {
                    check_length(store.root(), entry)?;
                }
            }
        }
        let Some(first) = entries.first() else {
            return Err(SqlError::Manifest {
                path: store.place().to_owned(),
                detail: "a table without files".to_owned(),
            });
        };

        opened.expect(entries);
        // All files of a table have the same schema, so one footer is enough.
        let footers = UncheckedFooters::new(store, entries);
        footers.check(&first.path)?;
        let path = store.place().join(&first.path);
        let file_schema = match remote_footer(store, first)? {
            Some(footer) => schema_of(&path, || {
                let mut reader = ParquetMetaDataReader::new();
                reader.try_parse_sized(&footer, first.bytes)?;
                ArrowReaderMetadata::try_new(Arc::new(reader.finish()?), ArrowReaderOptions::new())
            })?,
            None => {
                let file = File::open(&path).map_err(|error| not_opened(&path, &error))?;
                schema_of(&path, || {
                    ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
                })?
            }
        };
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

    /// Returns the options of a scan. If it reads tensors, rows are filtered before their tensors are decoded.
    fn parquet_options(&self, projection: Option<&Vec<usize>>) -> TableParquetOptions {
        let tensors = self
            .projected(projection)
            .any(|field| TensorType::from_field(field).is_some());
        // A page contains few tensors, so with row selections the reader can skip most unneeded pages. With a bitmap,
        // which the reader could choose otherwise, it would also decode the rows in between.
        let mut options = TableParquetOptions::default();
        options.global.pushdown_filters = tensors;
        options.global.force_filter_selections = tensors;
        options
    }

    /// Returns exact row counts and the estimated size of a scan's columns. With them a join holds its smaller input in
    /// memory, which must never be the input with the tensors.
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
        // The planner passes the same predicates to the scan, which uses them to skip files, row groups and rows.
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
        // Cache the footers, so that the next query over the table does not read them again.
        let readers = CachedParquetFileReaderFactory::new(
            runtime.object_store(&self.url)?,
            runtime.cache_manager.get_file_metadata_cache(),
        );

        let source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(self.parquet_options(projection))
            .with_parquet_file_reader_factory(Arc::new(RecordingReaders {
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

/// Returns the estimated number of bytes per row of a column.
fn column_bytes(field: &FieldRef) -> usize {
    if let Some(tensor) = TensorType::from_field(field) {
        return tensor.usual_row_bytes();
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
    // Compare the length only: verifying the hash would require reading the whole file before the first row. See
    // `damage`.
    let path = store.join(&entry.path);
    let found = std::fs::metadata(&path).map(|file| file.len());
    match found {
        Ok(bytes) if bytes == entry.bytes => Ok(()),
        Ok(bytes) => {
            let detail = format!("{bytes} bytes long, but {} in the manifest", entry.bytes);
            Err(SqlError::Damaged { path, detail })
        }
        Err(error) => Err(not_opened(&path, &error)),
    }
}

/// Returns the schema in the footer of the file at `path`, which `load` reads.
fn schema_of(
    path: &Path,
    load: impl FnOnce() -> parquet::errors::Result<ArrowReaderMetadata>,
) -> Result<SchemaRef, SqlError> {
    // The reader of footers panics on some damaged footers.
    let footer = caught(load)
        .map_err(|panic| damaged(path, &format!("{READER_FAILED}: {}", panic.message)))?
        .map_err(|error| not_opened(path, &error))?;
    Ok(Arc::clone(footer.schema()))
}

/// Returns the error for a file that is missing, cannot be read or has no valid footer.
fn not_opened(path: &Path, error: &(dyn Error + 'static)) -> SqlError {
    match machine_fault(error) {
        Some(fault) => SqlError::unread(path, &fault),
        None => damaged(path, &error.to_string()),
    }
}

fn damaged(path: &Path, detail: &str) -> SqlError {
    SqlError::Damaged {
        path: path.to_owned(),
        detail: brief(detail),
    }
}
