//! Reads rows of a version's files in batches, after comparing the files with the manifest.

use std::borrow::Cow;
use std::fs::File;
use std::path::PathBuf;

use arrow::array::{AsArray, ListArray, RecordBatch};
use arrow::datatypes::Int32Type;
use fail::fail_point;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use wavemill_runtime::progress::{Phase, Progress};
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::manifest::{FeatureEntry, FileEntry};
use wavemill_schemas::tables::shape_column;
use wavemill_sql::tensor::TensorColumn;
use wavemill_store::Store;

use super::content::{Content, ExportedSplit};
use super::error::ExportError;

/// Approximate size of the tensors in a batch, in bytes. Batches are small because writing nested lists takes more than
/// twenty bytes per value of two bytes.
const BATCH_BYTES: usize = 4 << 20;

/// Maximum number of rows per batch.
const BATCH_ROWS_MAX: usize = 8_192;

/// Reads the files of a store for an export.
pub(super) struct Reader<'a> {
    pub store: &'a Store,
    pub content: &'a Content<'a>,
    pub progress: &'a Progress,
}

impl Reader<'_> {
    /// Compares the length and blake3 of every file with the manifest. Files of earlier versions of wavemill are
    /// included, although their pages have no checksums.
    ///
    /// # Errors
    /// [`ExportError::damaged`] if a file differs from the manifest; [`Kind::Interrupted`] after a stop request.
    pub(super) fn check(&self) -> Result<(), ExportError> {
        let splits = self.content.splits.iter();
        let files: Vec<&FileEntry> = splits.flat_map(|split| self.content.files(split)).collect();
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        self.progress.enter(Phase::Checking, bytes);

        for file in files {
            self.go_on()?;
            if self.store.sound_file(file)?.is_none() {
                return Err(ExportError::damaged(&self.store.root().join(&file.path)));
            }
            self.progress.add(file.bytes);
        }
        Ok(())
    }

    /// Adds a number of written rows to the progress of the export.
    pub(super) fn done(&self, rows: usize) {
        self.progress.add(rows as u64);
    }

    /// Calls `visit` with batches of the given columns, for all rows of a split.
    ///
    /// # Errors
    /// [`ExportError::read_at`] for an unreadable file; [`Kind::Interrupted`] after a stop; an error of `visit`.
    pub(super) fn split(
        &self,
        split: &ExportedSplit,
        columns: &[impl AsRef<str>],
        mut visit: impl FnMut(&RecordBatch) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        self.content
            .files(split)
            .try_for_each(|file| self.file(file, columns, &mut visit))
    }

    /// Calls `visit` with batches of the given columns, for all rows of a file.
    pub(super) fn file(
        &self,
        file: &FileEntry,
        columns: &[impl AsRef<str>],
        mut visit: impl FnMut(&RecordBatch) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let path = self.store.file(file)?;
        let failed = ExportError::read_at(&path);
        let opened = open(&path).map_err(&failed)?;
        let mut roots = Vec::with_capacity(columns.len());
        for column in columns {
            let root = opened.schema().index_of(column.as_ref());
            roots.push(root.map_err(|error| failed(error.into()))?);
        }

        let mask = ProjectionMask::roots(opened.parquet_schema(), roots);
        let batches = opened
            .with_projection(mask)
            .with_batch_size(self.batch_rows(file))
            .build()
            .map_err(&failed)?;
        let mut rows = 0;
        for batch in batches {
            fail_point!("export-batch", |_| Err(ExportError::io_at(&path, "write")(
                std::io::Error::from(std::io::ErrorKind::StorageFull)
            )));
            self.go_on()?;
            let batch = batch.map_err(|error| failed(error.into()))?;
            rows += batch.num_rows() as u64;
            visit(&batch)?;
        }

        // The number of rows must match the manifest's number, which was already written in the headers of outputs.
        if rows != file.rows {
            let problem = format!("{rows} rows, but {} in the manifest", file.rows);
            return Err(failed(ParquetError::General(problem)));
        }
        Ok(())
    }

    /// Returns the number of rows of `file` that are read at a time.
    fn batch_rows(&self, file: &FileEntry) -> usize {
        // Rows of different lengths may be longer than usual. Compression hardly changes their size.
        let mean_bytes = (file.bytes / file.rows.max(1)) as usize;
        let row_bytes = self.content.tensor.usual_row_bytes().max(mean_bytes);
        (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS_MAX)
    }

    /// Checks that the user has not stopped the export.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] if the user has stopped the export.
    pub(super) fn go_on(&self) -> Result<(), ExportError> {
        if self.progress.is_stopped() {
            let phase = self.progress.phase();
            let message = format!("interrupted while {phase}; nothing was written");
            return Err(PlainError::new(Kind::Interrupted, message).into());
        }
        Ok(())
    }
}

fn open(path: &PathBuf) -> Result<ParquetRecordBatchReaderBuilder<File>, ParquetError> {
    ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)
}

/// The tensors of the rows of a batch.
pub(super) struct Tensors<'b> {
    content: &'b Content<'b>,
    values: TensorColumn<'b>,
    shapes: Option<&'b ListArray>,
}

impl<'b> Tensors<'b> {
    /// Reads the tensors of a batch that contains its [`columns`](wavemill_store::tensors::columns).
    ///
    /// # Errors
    /// [`ExportError::rows`] if a tensor column is missing or has another type.
    pub(super) fn from_batch(
        batch: &'b RecordBatch,
        content: &'b Content<'_>,
    ) -> Result<Self, ExportError> {
        let feature = content.feature;
        let values = batch
            .column_by_name(&feature.name)
            .and_then(TensorColumn::new)
            .ok_or_else(|| no_tensors(feature))?;

        let mut shapes = None;
        if content.is_ragged() {
            let column = batch.column_by_name(&shape_column(&feature.name));
            shapes = column.and_then(|column| column.as_list_opt::<i32>());
            shapes.ok_or_else(|| no_tensors(feature))?;
        }
        Ok(Self {
            content,
            values,
            shapes,
        })
    }

    /// Returns the shape of a row, after checking that it matches the number of values.
    ///
    /// # Errors
    /// [`ExportError::rows`] if the shape does not match the number of values.
    pub(super) fn shape(&self, row: usize) -> Result<Vec<usize>, ExportError> {
        let n_values = self.values.n_values(row, &self.content.tensor);
        let shape = match self.shapes {
            Some(shapes) => stored_shape(shapes, row),
            None => self.content.tensor.shape.iter().copied().collect(),
        };
        shape
            .filter(|shape| product(shape) == Some(n_values))
            .ok_or_else(|| no_tensors(self.content.feature))
    }

    /// Returns the values of a row as stored: little-endian and row-major.
    pub(super) fn bytes(&self, row: usize) -> Cow<'_, [u8]> {
        self.values.bytes(row)
    }

    /// Appends the values of a row to `values`.
    pub(super) fn read(&self, row: usize, values: &mut Vec<f32>) {
        self.values.read(row, &self.content.tensor, values);
    }
}

fn product(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |product, dim| product.checked_mul(*dim))
}

fn stored_shape(shapes: &ListArray, row: usize) -> Option<Vec<usize>> {
    let shape = shapes.value(row);
    let dims = shape.as_primitive_opt::<Int32Type>()?.values();
    dims.iter().map(|&dim| usize::try_from(dim).ok()).collect()
}

fn no_tensors(feature: &FeatureEntry) -> ExportError {
    ExportError::rows(format!(
        "rows of {} do not contain {}",
        feature.name,
        feature.tensor_type()
    ))
}
