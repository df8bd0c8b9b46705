//! What a model said of each row of a split, as Parquet files for other programs: predictions and vectors.
//!
//! Rows are written as they are answered, in the manifest's order, whatever the number of ranks. A file has its name only
//! once it is whole.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use tch::{Device, Kind, TchError, Tensor};
use tempfile::NamedTempFile;

use super::EvaluateError;
use crate::dataset::{Batch, Dataset};
use crate::learner::Answers;
use crate::strategy::Collective;

mod columns;
mod part;

use columns::Layout;
use part::Part;

pub use columns::About;

/// Bytes of values in a row group, about: what is held in memory before it is written.
const ROW_GROUP_BYTES: usize = 16 << 20;
/// Readable and writable as the user's umask has it.
const MODE: u32 = 0o666;
/// Key of the JSON in a file's metadata.
pub const METADATA_KEY: &str = "wavemill";

/// Why a file of rows cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RowsFileError {
    /// The disk's word.
    #[error("cannot write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Parquet's writer.
    #[error("cannot write {path}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Its words, or the disk's.
        source: ParquetError,
    },
    /// Columns that are no table.
    #[error("cannot make rows of what the model said")]
    Arrow(#[from] ArrowError),
    /// Another rank's rows cannot be read.
    #[error("another rank's rows cannot be read: do all ranks run the same wavemill-train?")]
    Bytes,
}

/// Where rows go to.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Labels, classes, probabilities and logits of each row.
    pub predictions: Option<PathBuf>,
    /// The vector that the heads see of each row.
    pub embeddings: Option<PathBuf>,
}

/// The files of one evaluation. Rank 0 writes; the others bring their rows.
#[derive(Debug)]
pub struct RowFiles {
    has_vectors: bool,
    predictions: Option<RowsFile>,
    embeddings: Option<RowsFile>,
}

/// A file that is being written under another name.
#[derive(Debug)]
struct RowsFile {
    path: PathBuf,
    layout: Layout,
    writer: ArrowWriter<NamedTempFile>,
}

impl RowFiles {
    /// Begins the files at `paths`; on another rank than 0 there are none, and rows are still asked for.
    ///
    /// # Errors
    /// [`RowsFileError`]: a folder that is not there, or not to be written to.
    pub fn create(paths: &Paths, about: &About, data: &Dataset, rank: usize) -> Result<Self, RowsFileError> {
        let begin = |path: &Option<PathBuf>, layout: fn(&Dataset, &About) -> Layout| {
            let path = path.as_deref().filter(|_| rank == 0);
            path.map(|path| RowsFile::create(path, layout(data, about), about)).transpose()
        };
        Ok(Self {
            has_vectors: paths.embeddings.is_some(),
            predictions: begin(&paths.predictions, Layout::predictions)?,
            embeddings: begin(&paths.embeddings, Layout::embeddings)?,
        })
    }

    /// A batch's rows of all ranks, in their order. All ranks call it for each batch, with `answers` where they have rows.
    ///
    /// # Errors
    /// [`EvaluateError`].
    pub fn append(
        &mut self,
        data: &Dataset,
        ranks: &dyn Collective,
        batch: &Batch,
        answers: Option<&Answers>,
    ) -> Result<(), EvaluateError> {
        let own = Part::of(batch, answers, self.has_vectors)?;
        let parts = if ranks.world_size() == 1 {
            vec![own]
        } else {
            let gathered = ranks.gather(&own.to_bytes())?;
            // Only rank 0 has a use for them.
            let gathered = if ranks.rank() == 0 { gathered } else { Vec::new() };
            gathered.iter().map(|bytes| Part::from_bytes(bytes)).collect::<Result<_, _>>()?
        };
        for file in [&mut self.predictions, &mut self.embeddings].into_iter().flatten() {
            for part in parts.iter().filter(|part| !part.rows.is_empty()) {
                let rows = file.layout.batch(data, part)?;
                file.append(&rows)?;
            }
        }
        Ok(())
    }

    /// Gives the whole files their names.
    ///
    /// # Errors
    /// [`RowsFileError`].
    pub fn finish(self) -> Result<(), RowsFileError> {
        [self.predictions, self.embeddings].into_iter().flatten().try_for_each(RowsFile::finish)
    }
}

impl RowsFile {
    fn create(path: &Path, layout: Layout, about: &About) -> Result<Self, RowsFileError> {
        let fail = |source| RowsFileError::Io { path: path.to_owned(), source };
        if path.is_dir() {
            return Err(fail(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        // In the folder of the file, since a rename does not leave a disk.
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".rows-").suffix(".part").permissions(Permissions::from_mode(MODE));
        let temporary = builder.tempfile_in(folder).map_err(fail)?;

        let level = ZstdLevel::try_new(1).unwrap_or_default();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_key_value_metadata(Some(vec![KeyValue::new(METADATA_KEY.to_owned(), about.json())]))
            .build();
        let writer = ArrowWriter::try_new(temporary, layout.schema(), Some(properties))
            .map_err(|source| RowsFileError::Parquet { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), layout, writer })
    }

    fn append(&mut self, rows: &RecordBatch) -> Result<(), RowsFileError> {
        self.writer.write(rows).map_err(|source| RowsFileError::Parquet { path: self.path.clone(), source })
    }

    fn finish(self) -> Result<(), RowsFileError> {
        let Self { path, writer, .. } = self;
        let temporary = writer.into_inner().map_err(|source| RowsFileError::Parquet { path: path.clone(), source })?;
        let io = |source| RowsFileError::Io { path: path.clone(), source };
        temporary.as_file().sync_all().map_err(io)?;
        let _: File = temporary.persist(&path).map_err(|error| io(error.error))?;
        Ok(())
    }
}

/// The values of a tensor `[n, …]` as f32, row by row.
fn values(tensor: &Tensor, rows: i64) -> Result<Vec<f32>, TchError> {
    let own = tensor.f_narrow(0, 0, rows)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
    Vec::<f32>::try_from(own.f_contiguous()?.f_view(-1)?)
}

#[cfg(test)]
mod tests;
