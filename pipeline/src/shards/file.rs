//! One Parquet file: temporary name, write, fsync, rename, fsync folder.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use fail::fail_point;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use wavemill_schemas::manifest::FileEntry;

use super::ShardError;
use super::encode::{EncodedFeature, Format};
use crate::store::durable;

/// Large enough that a row group goes to the kernel in few calls.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// Rows a row group of a metadata table: DataFusion's own default batch times eight.
const TABLE_ROW_GROUP_ROWS: usize = 65_536;

/// A file under its temporary name; dropped unfinished, it is removed.
pub(super) struct ShardFile {
    writer: Option<SerializedFileWriter<HashingWriter>>,
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
        // Arrow's writer puts the Arrow schema into the file. Row groups come encoded, so the writer below is enough.
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
            .expect("a file is not appended to after its end");
        append_chunks(writer, feature).map_err(|source| self.place.failed(number, source))?;
        self.row_groups.push(rows);
        Ok(())
    }

    /// Ends the file, makes it durable and gives it its name.
    ///
    /// # Errors
    /// [`ShardError::Io`], [`ShardError::Write`].
    pub(super) fn finish(mut self, split: &str, feature: &str) -> Result<FileEntry, ShardError> {
        let number = self.row_groups.len();
        let writer = self.writer.take().expect("a file ends once");
        let hashing = writer
            .into_inner()
            .map_err(|source| self.place.failed(number, source))?;

        let (bytes, blake3) = self.place.finish(hashing)?;
        Ok(FileEntry {
            table: None,
            feature: Some(feature.to_owned()),
            split: Some(split.to_owned()),
            path: self.place.relative.clone(),
            rows: self.row_groups.iter().sum(),
            bytes,
            blake3,
            row_groups: std::mem::take(&mut self.row_groups),
        })
    }
}

fn append_chunks(
    writer: &mut SerializedFileWriter<HashingWriter>,
    feature: EncodedFeature,
) -> Result<(), ParquetError> {
    fail_point!("shard-append", |_| Err(ParquetError::External(Box::new(
        io::Error::from(io::ErrorKind::StorageFull)
    ))));

    let mut group = writer.next_row_group()?;
    for chunk in feature.chunks {
        chunk.append_to_row_group(&mut group)?;
    }
    group.close()?;
    Ok(())
}

/// Writes a metadata table as one Parquet file, streaming.
///
/// # Errors
/// [`ShardError`]; what `batches` fails with is passed on.
pub(crate) fn write_table<E: From<ShardError>>(
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

    let mut writer = ArrowWriter::try_new(place.open()?, schema, Some(properties))
        .map_err(|source| place.failed(0, source))?;
    for batch in batches {
        writer
            .write(&batch?)
            .map_err(|source| place.failed(0, source))?;
    }
    // Ends the last row group, so that it is in the list.
    writer.flush().map_err(|source| place.failed(0, source))?;

    // The writer cuts row groups by itself.
    let row_groups = writer.flushed_row_groups().iter();
    let row_groups: Vec<u64> = row_groups.map(|group| group.num_rows() as u64).collect();
    let hashing = writer
        .into_inner()
        .map_err(|source| place.failed(0, source))?;
    let (bytes, blake3) = place.finish(hashing)?;
    Ok(FileEntry {
        table: Some(table.to_owned()),
        feature: None,
        split: None,
        path: place.relative.clone(),
        rows: row_groups.iter().sum(),
        bytes,
        blake3,
        row_groups,
    })
}

/// Where a file is going: its name, and its name until then.
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

    fn open(&self) -> Result<HashingWriter, ShardError> {
        // What a killed run left under this name is overwritten.
        let file = File::create(&self.temporary)
            .map_err(|source| io_error(&self.temporary, "create", source))?;
        let inner = BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
        Ok(HashingWriter {
            inner,
            hasher: blake3::Hasher::new(),
            bytes: 0,
        })
    }

    fn failed(&self, row_group: usize, source: ParquetError) -> ShardError {
        ShardError::Write {
            path: self.path.clone(),
            row_group,
            source,
        }
    }

    fn finish(&self, hashing: HashingWriter) -> Result<(u64, String), ShardError> {
        let HashingWriter {
            inner,
            hasher,
            bytes,
        } = hashing;

        let file = inner
            .into_inner()
            .map_err(|e| io_error(&self.temporary, "write", e.into_error()))?;
        file.sync_all()
            .map_err(|source| io_error(&self.temporary, "sync", source))?;

        // Under its own name a file is whole: the bytes are on the disk before, and the name after the folder's sync.
        fail_point!("shard-before-rename");
        fs::rename(&self.temporary, &self.path)
            .map_err(|source| io_error(&self.path, "rename", source))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        durable::sync_folder(folder)
            .map_err(|source| io_error(folder, "sync the folder", source))?;
        Ok((bytes, hasher.finalize().to_hex().to_string()))
    }
}

impl Drop for FileTarget {
    fn drop(&mut self) {
        // Gone already when the file was finished; a leftover is also cleared at the next start.
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

/// A buffered file that knows its length and blake3, so that nothing is read back to hash it.
struct HashingWriter {
    inner: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for HashingWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        // A writer may take less than it is given.
        self.hasher.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
