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
use datafusion::common::{Result, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::Type;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use wavemill_runtime::panics::caught;
use wavemill_schemas::exit::machine_fault;
use wavemill_schemas::manifest::FileEntry;
use wavemill_store::{RemoteError, Store};

use super::SqlError;
use super::damage::{OpenedFiles, READER_FAILED, RecordingReaders, brief, not_read, remote_footer};
use super::session::TEXT_BATCH_ROWS_MAX;
use super::tensor::TensorType;

/// Assumed size in bytes of a text or list value.
const TEXT_BYTES: usize = 64;
/// Size in bytes of the texts of a column in a batch up to which it does not matter how often one is repeated.
const REPEATED_BYTES_MIN: usize = 64 << 20;

/// The files of one table, all with the same schema.
#[derive(Debug)]
pub(super) struct StoreTable {
    url: ObjectStoreUrl,
    schema: TableSchema,
    files: Vec<PartitionedFile>,
    rows: usize,
    /// Bytes of a value of each column of the first file, if few values fill many rows.
    repeated: Vec<usize>,
    opened: OpenedFiles,
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
            return Err(damaged(store.place(), "a table without files"));
        };

        opened.expect(entries);
        // All files of a table have the same schema, so one footer is enough.
        opened.check_footer(&first.path)?;
        let path = store.place().join(&first.path);
        let footer = match remote_footer(store, first)? {
            Some(footer) => read_footer(&path, || {
                let mut reader = ParquetMetaDataReader::new();
                reader.try_parse_sized(&footer, first.bytes)?;
                ArrowReaderMetadata::try_new(Arc::new(reader.finish()?), ArrowReaderOptions::new())
            })?,
            None => {
                let file = File::open(&path).map_err(|error| not_opened(&path, &error))?;
                read_footer(&path, || {
                    ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
                })?
            }
        };
        let split = first
            .feature
            .is_some()
            .then(|| Arc::new(Field::new("split", DataType::Utf8, false)));
        let schema = TableSchema::builder(Arc::clone(footer.schema()))
            .with_table_partition_cols(split.into_iter().collect::<Vec<_>>())
            .build();

        let rows = entries.iter().map(|entry| entry.rows as usize).sum();
        let files = entries.iter().map(partitioned_file).collect();
        Ok(Self {
            url,
            schema,
            files,
            rows,
            repeated: repeated_bytes(footer.metadata()),
            opened: opened.clone(),
        })
    }

    fn projected(&self, projection: Option<&Vec<usize>>) -> impl Iterator<Item = &FieldRef> {
        let fields = self.schema.table_schema().fields();
        (0..fields.len())
            .filter(move |i| projection.is_none_or(|columns| columns.contains(i)))
            .map(|i| &fields[i])
    }

    /// Returns at least the number of bytes of the repeated texts in a row of a scan.
    pub(super) fn repeated_bytes(&self, projection: Option<&Vec<usize>>) -> usize {
        let columns = self.repeated.iter().enumerate();
        let columns = columns.filter(|(i, _)| projection.is_none_or(|read| read.contains(i)));
        columns.map(|(_, bytes)| bytes).sum()
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
        Some(_) => file.with_partition_values(vec![entry.split_name().into()]),
        None => file,
    }
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

/// Returns the footer of the file at `path`, which `load` reads.
fn read_footer(
    path: &Path,
    load: impl FnOnce() -> parquet::errors::Result<ArrowReaderMetadata>,
) -> Result<ArrowReaderMetadata, SqlError> {
    // The reader of footers panics on some damaged footers.
    caught(load)
        .map_err(|panic| damaged(path, &format!("{READER_FAILED}: {}", panic.message)))?
        .map_err(|error| not_opened(path, &error))
}

/// Returns at least the number of bytes of a value of each column of a file, or 0 unless a few texts, which the file
/// contains once, fill so many rows that a batch would take too much memory.
fn repeated_bytes(footer: &ParquetMetaData) -> Vec<usize> {
    let columns = footer.file_metadata().schema_descr();
    let mut repeated = vec![0; columns.root_schema().get_fields().len()];
    for group in footer.row_groups() {
        let n_rows = usize::try_from(group.num_rows()).unwrap_or(0);
        // A batch can have the rows of several small row groups.
        let n_groups = (TEXT_BATCH_ROWS_MAX / n_rows.max(1)).max(1);
        for (leaf, chunk) in group.columns().iter().enumerate() {
            let size = usize::try_from(chunk.uncompressed_size()).unwrap_or(0);
            let texts = match chunk.unencoded_byte_array_data_bytes() {
                Some(bytes) => usize::try_from(bytes).unwrap_or(0),
                None if chunk.column_type() == Type::BYTE_ARRAY => size.saturating_mul(n_rows),
                None => 0,
            };
            let is_repeated = chunk.dictionary_page_offset().is_some() && texts / 2 > size;
            if is_repeated && texts.saturating_mul(n_groups) > REPEATED_BYTES_MIN {
                let bytes = &mut repeated[columns.get_column_root_idx(leaf)];
                *bytes = size.max(*bytes);
            }
        }
    }
    repeated
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
