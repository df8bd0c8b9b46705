//! One Parquet file: temporary name, write, fsync, rename, fsync folder.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
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
use wavemill_schemas::manifest::{FileEntry, FooterEntry};

use super::ShardError;
use super::checksums::ChecksummedColumn;
use super::encode::{EncodedFeature, Format};
use crate::durable;

/// Size of the write buffer, large enough to write a row group with few system calls.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// Rows in a row group of a metadata table: eight times DataFusion's default batch size.
const TABLE_ROW_GROUP_ROWS: usize = 65_536;

/// A shard file under its temporary name. Dropping it unfinished removes the file.
pub(super) struct ShardFile {
    writer: Option<SerializedFileWriter<BufWriter<HashingFile>>>,
    place: FileTarget,
    row_groups: Vec<u64>,
}

impl ShardFile {
    /// Opens the file of one feature and shard below `root`.
    ///
    /// # Errors
    /// [`ShardError::Io`], [`ShardError::Write`].
    pub(super) fn create(
        root: &Path,
        relative: String,
        format: &Format,
    ) -> Result<Self, ShardError> {
        let place = FileTarget::create(root, relative)?;
        let hashing = place.open()?;
        let properties = Some(format.properties.clone());
        // Arrow's writer adds the Arrow schema to the file. Row groups arrive encoded, so only the writer below it is kept.
        let writer = ArrowWriter::try_new(hashing, Arc::clone(&format.schema), properties)
            .and_then(ArrowWriter::into_serialized_writer)
            .map_err(|source| place.failed(0, source))?;
        Ok(Self {
            writer: Some(writer.0),
            place,
            row_groups: Vec::new(),
        })
    }

    /// Appends the next row group.
    ///
    /// # Errors
    /// [`ShardError::Write`].
    pub(super) fn append(&mut self, rows: u64, feature: EncodedFeature) -> Result<(), ShardError> {
        let number = self.row_groups.len();
        let writer = self
            .writer
            .as_mut()
            .expect("a finished file is not appended to");
        append_chunks(writer, feature).map_err(|source| self.place.failed(number, source))?;
        self.row_groups.push(rows);
        Ok(())
    }

    /// Completes the file, syncs it and renames it to its final path.
    ///
    /// # Errors
    /// [`ShardError::Io`], [`ShardError::Write`].
    pub(super) fn finish(mut self, split: &str, feature: &str) -> Result<FileEntry, ShardError> {
        let number = self.row_groups.len();
        let writer = self.writer.take().expect("a file is finished only once");
        let hashing = with_footer(writer).map_err(|source| self.place.failed(number, source))?;
        let content = self.place.finish(hashing)?;
        Ok(FileEntry {
            table: None,
            feature: Some(feature.to_owned()),
            split: Some(split.to_owned()),
            path: self.place.relative.clone(),
            rows: self.row_groups.iter().sum(),
            bytes: content.bytes,
            blake3: content.blake3,
            row_groups: std::mem::take(&mut self.row_groups),
            footer: content.footer,
        })
    }
}

fn append_chunks(
    writer: &mut SerializedFileWriter<BufWriter<HashingFile>>,
    feature: EncodedFeature,
) -> Result<(), ParquetError> {
    fail_point!("shard-append", |_| Err(ParquetError::External(Box::new(
        io::Error::from(io::ErrorKind::StorageFull)
    ))));

    let mut group = writer.next_row_group()?;
    for chunk in feature.chunks {
        chunk.append_to(&mut group)?;
    }
    group.close()?;
    Ok(())
}

/// Writes a metadata table as one Parquet file, batch by batch.
///
/// # Errors
/// [`ShardError`], and errors of `batches`.
pub fn write_table<E: From<ShardError>>(
    root: &Path,
    relative: String,
    table: &str,
    schema: SchemaRef,
    batches: impl IntoIterator<Item = Result<RecordBatch, E>>,
) -> Result<FileEntry, E> {
    let place = FileTarget::create(root, relative)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(
            ZstdLevel::try_new(3).expect("3 is a zstd level"),
        ))
        .set_max_row_group_row_count(Some(TABLE_ROW_GROUP_ROWS))
        .build();

    let writer = ArrowWriter::try_new(place.open()?, Arc::clone(&schema), Some(properties));
    let (writer, _) = writer
        .and_then(ArrowWriter::into_serialized_writer)
        .map_err(|source| place.failed(0, source))?;
    let mut file = TableFile::new(writer, schema);
    for batch in batches {
        file.append(&batch?)
            .map_err(|source| place.failed(file.row_groups.len(), source))?;
    }
    file.end_group()
        .map_err(|source| place.failed(file.row_groups.len(), source))?;

    let row_groups = file.row_groups;
    let hashing =
        with_footer(file.writer).map_err(|source| place.failed(row_groups.len(), source))?;
    let content = place.finish(hashing)?;
    Ok(FileEntry {
        table: Some(table.to_owned()),
        feature: None,
        split: None,
        path: place.relative.clone(),
        rows: row_groups.iter().sum(),
        bytes: content.bytes,
        blake3: content.blake3,
        row_groups,
        footer: content.footer,
    })
}

/// A metadata table on its way into its file.
struct TableFile {
    writer: SerializedFileWriter<BufWriter<HashingFile>>,
    schema: SchemaRef,
    /// Columns of the row group that is being filled.
    columns: Vec<ChecksummedColumn>,
    rows_in_group: usize,
    /// Rows of each row group that is in the file.
    row_groups: Vec<u64>,
}

impl TableFile {
    fn new(writer: SerializedFileWriter<BufWriter<HashingFile>>, schema: SchemaRef) -> Self {
        Self {
            writer,
            schema,
            columns: Vec::new(),
            rows_in_group: 0,
            row_groups: Vec::new(),
        }
    }

    /// Appends rows, and ends each row group that is full.
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

    /// Encodes rows of one row group.
    fn fill(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        if self.columns.is_empty() {
            let number = self.row_groups.len();
            self.columns = ChecksummedColumn::from_row_group(&self.writer, &self.schema, number)?;
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
        let mut group = self.writer.next_row_group()?;
        for column in self.columns.drain(..) {
            column.close()?.append_to(&mut group)?;
        }
        group.close()?;
        self.row_groups.push(self.rows_in_group as u64);
        self.rows_in_group = 0;
        Ok(())
    }
}

/// Ends a file whose row groups are all written.
fn with_footer(
    mut writer: SerializedFileWriter<BufWriter<HashingFile>>,
) -> Result<BufWriter<HashingFile>, ParquetError> {
    // Empties all buffers, so that all further bytes belong to the page index and the footer.
    writer.flush()?;
    writer.inner_mut().get_mut().begin_footer();
    writer.into_inner()
}

/// The final path of a file and its temporary path.
struct FileTarget {
    relative: String,
    path: PathBuf,
    temporary: PathBuf,
}

impl FileTarget {
    fn create(root: &Path, relative: String) -> Result<Self, ShardError> {
        let path = root.join(&relative);
        let folder = path.parent().unwrap_or(root);
        durable::make_folder(folder)
            .map_err(|source| io_error(folder, "create the folder", source))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Readers skip names that start with a dot.
        let temporary = folder.join(format!(".{name}.tmp"));
        Ok(Self {
            relative,
            path,
            temporary,
        })
    }

    fn open(&self) -> Result<BufWriter<HashingFile>, ShardError> {
        // Overwrites the file that a killed run may have left under this name.
        let file = File::create(&self.temporary)
            .map_err(|source| io_error(&self.temporary, "create", source))?;
        let hashing = HashingFile::new(file);
        Ok(BufWriter::with_capacity(WRITE_BUFFER_BYTES, hashing))
    }

    fn failed(&self, row_group: usize, source: ParquetError) -> ShardError {
        ShardError::Write {
            path: self.path.clone(),
            row_group,
            source,
        }
    }

    fn finish(&self, writer: BufWriter<HashingFile>) -> Result<FileContent, ShardError> {
        let hashing = writer
            .into_inner()
            .map_err(|e| io_error(&self.temporary, "write", e.into_error()))?;
        hashing
            .file
            .sync_all()
            .map_err(|source| io_error(&self.temporary, "sync", source))?;

        // A file with its final name is complete: its bytes are synced before the rename, and the folder after it.
        fail_point!("shard-before-rename");
        fs::rename(&self.temporary, &self.path)
            .map_err(|source| io_error(&self.path, "rename", source))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        durable::sync_folder(folder)
            .map_err(|source| io_error(folder, "sync the folder", source))?;
        Ok(hashing.content())
    }
}

impl Drop for FileTarget {
    fn drop(&mut self) {
        // Does nothing if the file was finished. A leftover file is also removed at the next start.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> ShardError {
    ShardError::Io {
        path: path.to_owned(),
        action,
        source,
    }
}

/// The size and hashes of a file, as its manifest entry contains them.
struct FileContent {
    bytes: u64,
    blake3: String,
    footer: Option<FooterEntry>,
}

/// A file that knows its length and blake3, so that nothing is read back to hash it. The buffer is before it: blake3 is
/// fastest over large pieces.
struct HashingFile {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
    /// Offset and hash of what follows the pages.
    footer: Option<(u64, blake3::Hasher)>,
}

impl HashingFile {
    fn new(file: File) -> Self {
        Self {
            file,
            hasher: blake3::Hasher::new(),
            bytes: 0,
            footer: None,
        }
    }

    /// All bytes from here on are of the page index and the footer.
    fn begin_footer(&mut self) {
        self.footer = Some((self.bytes, blake3::Hasher::new()));
    }

    fn content(&self) -> FileContent {
        let hex = |hasher: &blake3::Hasher| hasher.finalize().to_hex().to_string();
        let footer = self.footer.as_ref();
        FileContent {
            bytes: self.bytes,
            blake3: hex(&self.hasher),
            footer: footer.map(|(offset, hasher)| FooterEntry {
                offset: *offset,
                blake3: hex(hasher),
            }),
        }
    }
}

impl Write for HashingFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buffer)?;
        // A writer may take less than it is given.
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
