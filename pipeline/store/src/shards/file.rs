//! Writes a Parquet file durably: write to a temporary name, fsync, rename, fsync of the folder.

use std::fs::File;
use std::io::{self, BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use fail::fail_point;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::compute_leaves;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use wavemill_schemas::durable::TemporaryPath;
use wavemill_schemas::manifest::{FileEntry, FooterEntry};

use super::checksums::{ChecksummedChunk, ChecksummedColumn};
use super::encode::EncodedFeature;
use crate::{StoreError, durable};

/// Size of the write buffer, large enough to write a row group with few system calls.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// Number of rows in a row group of a metadata table: eight times DataFusion's default batch size.
const TABLE_ROW_GROUP_ROWS: usize = 65_536;

/// A Parquet file under its temporary name. Dropping it unfinished removes the file.
pub(super) struct ParquetFile {
    writer: SerializedFileWriter<BufWriter<HashingFile>>,
    /// Path relative to the store's root.
    relative: String,
    path: PathBuf,
    temporary: TemporaryPath,
    /// Number of rows of each row group that is in the file.
    row_groups: Vec<u64>,
}

impl ParquetFile {
    /// Creates a file below `root` under a temporary name.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file cannot be created; [`StoreError::rows`] for a wrong schema.
    pub(super) fn create(
        root: &Path,
        relative: String,
        schema: &SchemaRef,
        properties: WriterProperties,
    ) -> Result<Self, StoreError> {
        let path = root.join(&relative);
        durable::make_folder(path.parent().unwrap_or(root))?;
        let temporary = durable::temporary_beside(&path);
        let created = File::create(&*temporary);
        let hashing = HashingFile {
            file: created.map_err(StoreError::io_at(&temporary, "create"))?,
            hasher: blake3::Hasher::new(),
            bytes: 0,
            footer: None,
        };

        let buffered = BufWriter::with_capacity(WRITE_BUFFER_BYTES, hashing);
        // Arrow's writer adds the Arrow schema to the file. Row groups arrive encoded, so only the raw writer is kept.
        let (writer, _) = ArrowWriter::try_new(buffered, Arc::clone(schema), Some(properties))
            .and_then(ArrowWriter::into_serialized_writer)
            .map_err(|source| failed(&path, 0, source))?;
        Ok(Self {
            writer,
            relative,
            path,
            temporary,
            row_groups: Vec::new(),
        })
    }

    /// Appends the next row group of a shard to a feature's file.
    ///
    /// # Errors
    /// [`StoreError::rows`] if the row group cannot be written.
    pub(super) fn append_feature(
        &mut self,
        rows: u64,
        feature: EncodedFeature,
    ) -> Result<(), StoreError> {
        fail_point!("shard-append", |_| Err(self.failed(
            ParquetError::External(Box::new(io::Error::from(io::ErrorKind::StorageFull)))
        )));
        let appended = self.append(rows, feature.chunks);
        appended.map_err(|source| self.failed(source))
    }

    fn append(&mut self, rows: u64, chunks: Vec<ChecksummedChunk>) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for chunk in chunks {
            chunk.append_to(&mut group)?;
        }
        group.close()?;
        self.row_groups.push(rows);
        Ok(())
    }

    /// Creates the error for a failure in the file's next row group.
    fn failed(&self, source: ParquetError) -> StoreError {
        failed(&self.path, self.row_groups.len(), source)
    }

    /// Completes the file, syncs it and renames it to its final path. The returned entry lacks the name of its feature
    /// or table.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::rows`] if the file cannot be written.
    pub(super) fn finish(self) -> Result<FileEntry, StoreError> {
        let Self {
            writer,
            relative,
            path,
            temporary,
            row_groups,
        } = self;
        let writer =
            with_footer(writer).map_err(|source| failed(&path, row_groups.len(), source))?;
        let hashing = writer
            .into_inner()
            .map_err(IntoInnerError::into_error)
            .map_err(StoreError::io_at(&temporary, "write"))?;
        let synced = hashing.file.sync_all();
        synced.map_err(StoreError::io_at(&temporary, "sync"))?;

        // A file with its final name is complete: its bytes are synced before the rename, and the folder after it.
        fail_point!("shard-before-rename");
        durable::rename(&temporary, &path)?;
        Ok(FileEntry {
            table: None,
            feature: None,
            split: None,
            path: relative,
            rows: row_groups.iter().sum(),
            bytes: hashing.bytes,
            blake3: hashing.hasher.finalize().to_hex().to_string(),
            row_groups,
            footer: hashing.footer.map(|(offset, hasher)| FooterEntry {
                offset,
                blake3: hasher.finalize().to_hex().to_string(),
            }),
        })
    }
}

/// Writes a metadata table as one Parquet file, batch by batch.
///
/// # Errors
/// [`StoreError`], and errors of `batches`.
pub fn write_table<E: From<StoreError>>(
    root: &Path,
    relative: String,
    table: &str,
    schema: SchemaRef,
    batches: impl IntoIterator<Item = Result<RecordBatch, E>>,
) -> Result<FileEntry, E> {
    let zstd = ZstdLevel::try_new(3).expect("3 is a zstd level");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(zstd))
        .set_max_row_group_row_count(Some(TABLE_ROW_GROUP_ROWS))
        .build();

    let mut table_file = TableFile {
        file: ParquetFile::create(root, relative, &schema, properties)?,
        schema,
        columns: Vec::new(),
        rows_in_group: 0,
    };
    for batch in batches {
        let appended = table_file.append(&batch?);
        appended.map_err(|source| table_file.file.failed(source))?;
    }
    let ended = table_file.end_group();
    ended.map_err(|source| table_file.file.failed(source))?;

    Ok(FileEntry {
        table: Some(table.to_owned()),
        ..table_file.file.finish()?
    })
}

/// A metadata table that is being written to a file.
struct TableFile {
    file: ParquetFile,
    schema: SchemaRef,
    /// Column writers of the row group that is being filled.
    columns: Vec<ChecksummedColumn>,
    rows_in_group: usize,
}

impl TableFile {
    /// Appends rows to the file, and ends each row group that is full.
    fn append(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let mut start = 0;
        while start < batch.num_rows() {
            let room = TABLE_ROW_GROUP_ROWS - self.rows_in_group;
            let rows = room.min(batch.num_rows() - start);
            self.fill(&batch.slice(start, rows))?;
            start += rows;
            if self.rows_in_group == TABLE_ROW_GROUP_ROWS {
                self.end_group()?;
            }
        }
        Ok(())
    }

    /// Encodes rows into the current row group.
    fn fill(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        if self.columns.is_empty() {
            let ParquetFile {
                writer, row_groups, ..
            } = &self.file;
            let number = row_groups.len();
            self.columns = ChecksummedColumn::from_row_group(writer, &self.schema, number)?;
        }

        let mut columns = self.columns.iter_mut();
        for (field, array) in self.schema.fields().iter().zip(rows.columns()) {
            // A nested column has several leaves.
            for leaf in compute_leaves(field, array)? {
                let column = columns
                    .next()
                    .expect("a row group has a column for each leaf");
                column.write(&leaf)?;
            }
        }
        self.rows_in_group += rows.num_rows();
        Ok(())
    }

    /// Writes the row group that is being filled, if it has rows.
    fn end_group(&mut self) -> Result<(), ParquetError> {
        if self.rows_in_group == 0 {
            return Ok(());
        }
        let chunks: Result<Vec<_>, _> = self
            .columns
            .drain(..)
            .map(ChecksummedColumn::close)
            .collect();
        self.file.append(self.rows_in_group as u64, chunks?)?;
        self.rows_in_group = 0;
        Ok(())
    }
}

/// Completes a file whose row groups are all written.
fn with_footer(
    mut writer: SerializedFileWriter<BufWriter<HashingFile>>,
) -> Result<BufWriter<HashingFile>, ParquetError> {
    // All buffers are emptied, so that all further bytes belong to the page index and the footer.
    writer.flush()?;
    writer.inner_mut().get_mut().begin_footer();
    writer.into_inner()
}

fn failed(path: &Path, row_group: usize, source: ParquetError) -> StoreError {
    let path = path.display();
    StoreError::rows(format!("{path}: cannot write row group {row_group}"))(source)
}

/// A file that computes its length and blake3 while it is written, so that nothing is read back to hash it. The buffer
/// is before it: blake3 is fastest over large parts.
struct HashingFile {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
    /// Offset and hash of the bytes after the pages.
    footer: Option<(u64, blake3::Hasher)>,
}

impl HashingFile {
    /// Starts the hash of the footer: all bytes from here on are of the page index and the footer.
    fn begin_footer(&mut self) {
        self.footer = Some((self.bytes, blake3::Hasher::new()));
    }
}

impl Write for HashingFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buffer)?;
        // A writer may accept only a part of the bytes.
        self.hasher.update(&buffer[..n]);
        if let Some((_, hasher)) = &mut self.footer {
            hasher.update(&buffer[..n]);
        }
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
