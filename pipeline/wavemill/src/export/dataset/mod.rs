//! The format `huggingface`: a folder of Parquet files that `datasets.load_dataset` opens, with one split per split of
//! the store.
//!
//! If `datasets` opens a store directly, it merges splits or rejects the type of the tensors. In the export, each split
//! is a split whose files are listed in the README, tensors are nested lists, and the metadata of each file contains
//! the types as `datasets` would write them.

mod columns;
mod readme;
mod tensors;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use wavemill_schemas::manifest::FileEntry;

use self::columns::{Column, Kind};
use super::Job;
use super::content::{Content, ExportedSplit};
use super::error::ExportError;
use super::keys::Classes;
use super::output::{OutFile, write_new};
use super::reader::{Reader, Tensors};

/// Key of the Parquet metadata from which `datasets` reads its types.
const METADATA_KEY: &str = "huggingface";

/// Approximate size of a row group in bytes. A row group is held in memory until it is written, and `datasets` reads
/// one at a time.
const GROUP_BYTES: usize = 16 << 20;

/// Writes all exported splits and the README below `folder`; returns notes for users of the files.
///
/// # Errors
/// [`ExportError`] if rows cannot be read or a file cannot be written.
pub(super) fn write(
    job: &Job<'_>,
    content: &Content<'_>,
    reader: &Reader<'_>,
    folder: &Path,
) -> Result<Vec<String>, ExportError> {
    let data = folder.join("data");
    fs::create_dir(&data).map_err(ExportError::io_at(&data, "create the folder"))?;

    let columns = columns::all_columns(content);
    let shards = Shards::new(content, reader, &columns, data);
    let mut bytes = Vec::new();
    for split in &content.splits {
        bytes.push(shards.split(split)?);
    }

    let readme = readme::text(job, content, &columns, &bytes);
    write_new(&folder.join("README.md"), readme.as_bytes())?;

    let exported = content.splits.iter();
    let renamed = exported.filter(|split| split.stored != split.name);
    Ok(renamed
        .map(|split| format!("split {} is split {}", split.stored, split.name))
        .collect())
}

/// Writes the Parquet files of the dataset, one for each file of the store.
struct Shards<'a> {
    content: &'a Content<'a>,
    reader: &'a Reader<'a>,
    columns: &'a [Column<'a>],
    schema: SchemaRef,
    properties: WriterProperties,
    folder: PathBuf,
}

impl<'a> Shards<'a> {
    fn new(
        content: &'a Content<'a>,
        reader: &'a Reader<'a>,
        columns: &'a [Column<'a>],
        folder: PathBuf,
    ) -> Self {
        let info = columns::info(columns);
        let fields: Vec<_> = columns.iter().map(Column::field).collect();

        // The types are stored twice, as pyarrow does: in the schema, and in the file's metadata for other readers.
        let metadata = [(METADATA_KEY.to_owned(), info.clone())];
        let schema = Schema::new_with_metadata(fields, metadata.into());

        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(
                ZstdLevel::try_new(1).expect("1 is a zstd level"),
            ))
            .set_max_row_group_bytes(Some(GROUP_BYTES))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_key_value_metadata(Some(vec![KeyValue::new(METADATA_KEY.to_owned(), info)]))
            .build();

        Self {
            content,
            reader,
            columns,
            schema: Arc::new(schema),
            properties,
            folder,
        }
    }

    /// Writes the files of a split and returns their total size in bytes.
    fn split(&self, split: &ExportedSplit) -> Result<u64, ExportError> {
        let n_files = self.content.files(split).count();
        let mut bytes = 0;
        for (number, file) in self.content.files(split).enumerate() {
            let name = format!("{}-{number:05}-of-{n_files:05}.parquet", split.name);
            let path = self.folder.join(name);
            self.shard(file, &path)?;
            let metadata = fs::metadata(&path).map_err(ExportError::io_at(&path, "access"))?;
            bytes += metadata.len();
        }
        Ok(bytes)
    }

    fn shard(&self, file: &FileEntry, path: &Path) -> Result<(), ExportError> {
        let out = OutFile::create(path)?;
        let properties = Some(self.properties.clone());
        let mut writer = ArrowWriter::try_new(out, Arc::clone(&self.schema), properties)
            .map_err(ExportError::io_at(path, "write it"))?;

        let mut wanted: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        let of_tensors = wavemill_store::tensors::columns(self.content.feature);
        // The first tensor column is included already; the second one has the shapes, if rows differ in shape.
        wanted.extend(of_tensors.iter().skip(1).map(String::as_str));

        self.reader.file(file, &wanted, |batch| {
            let batch = self.converted(batch)?;
            writer
                .write(&batch)
                .map_err(ExportError::io_at(path, "write it"))?;
            self.reader.done(batch.num_rows());
            Ok(())
        })?;
        writer
            .into_inner()
            .map_err(ExportError::io_at(path, "write it"))?
            .finish()
    }

    /// Converts rows of the store to rows of the dataset.
    fn converted(&self, batch: &RecordBatch) -> Result<RecordBatch, ExportError> {
        let arrays = self.columns.iter().map(|column| self.array(column, batch));
        RecordBatch::try_new(Arc::clone(&self.schema), arrays.collect::<Result<_, _>>()?)
            .map_err(|error| ExportError::rows(error.to_string()))
    }

    fn array(&self, column: &Column<'_>, batch: &RecordBatch) -> Result<ArrayRef, ExportError> {
        match &column.kind {
            Kind::Tensor { .. } => {
                let rows = Tensors::from_batch(batch, self.content)?;
                tensors::column(&rows, batch.num_rows(), self.content.tensor.dtype)
            }
            Kind::Classes(target) => {
                let classes = Classes::from_batch(batch, target)?;
                // Every class id is checked, because `datasets` rejects ids without a class name.
                for row in 0..batch.num_rows() {
                    classes.id(row)?;
                }
                converted(batch, column, &DataType::Int64)
            }
            Kind::Value(_) | Kind::List(_) => converted(batch, column, &column.data_type()),
        }
    }
}

fn converted(
    batch: &RecordBatch,
    column: &Column<'_>,
    to: &DataType,
) -> Result<ArrayRef, ExportError> {
    let name = column.name;
    let array = batch
        .column_by_name(name)
        .ok_or_else(|| ExportError::rows(format!("it has no column {name}")))?;
    cast(array, to).map_err(|error| ExportError::rows(format!("column {name}: {error}")))
}
