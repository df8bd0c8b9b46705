//! Errors that stop the catalog: unreadable metadata, a failing cleaning step, or two rows for one clip.

use std::error::Error;
use std::fmt::Display;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use wavemill_schemas::exit::{Classified, Kind};
use wavemill_source::SourceError;

/// The error type of the catalog, and of SQL texts. A bad row is a reject instead of an error.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum CatalogError {
    /// A metadata file, folder or zip cannot be opened.
    #[error("metadata")]
    Source(#[from] SourceError),
    /// The metadata, a cleaning step of the recipe or another SQL text cannot be used, or the recipe does not fit the
    /// metadata.
    #[error("{0}")]
    Unusable(String),
    /// The header of a CSV file is not valid.
    #[error("metadata file {file}: {problem}")]
    Header { file: String, problem: String },
    /// The operating system fails to read a file.
    #[error("metadata file {file}")]
    Read {
        file: String,
        source: Box<dyn Error + Send + Sync>,
    },
    /// The bytes of a CSV or Parquet file cannot be decoded.
    #[error(
        "metadata file {file} is damaged, truncated, or not in the format of its file extension ({problem}): copy it again \
         from its source, or rewrite it"
    )]
    Damaged { file: String, problem: String },
    /// None of the metadata rows has a file below the audio root. `example` is the key of a missing file, and `hint`
    /// names the existing file that this key probably means, if there is one.
    #[error(
        "none of the {rows} rows has a file below the audio root: expected, for example, {example}{hint}"
    )]
    NoAudio {
        rows: usize,
        example: String,
        hint: String,
    },
    /// A query of the catalog itself, or the engine, failed, for example because the engine ran out of memory.
    #[error("catalog query")]
    Engine(#[from] DataFusionError),
    /// The job was asked to stop.
    #[error("interrupted; nothing was written")]
    Stopped,
    /// An arrow kernel failed.
    #[error("catalog columns")]
    Arrow(#[from] ArrowError),
}

impl Classified for CatalogError {
    fn kind(&self) -> Kind {
        match self {
            Self::Stopped => Kind::Interrupted,
            Self::Source(error) => error.kind(),
            // A metadata file that begins like another file type counts as wrong usage.
            Self::Unusable(_)
            | Self::Header { .. }
            | Self::Damaged { .. }
            | Self::NoAudio { .. } => Kind::Usage,
            Self::Read { .. } | Self::Engine(_) | Self::Arrow(_) => Kind::Failed,
        }
    }
}

impl CatalogError {
    /// Creates the error for a CSV file whose header is not valid.
    pub(crate) fn header(file: &str, problem: impl Into<String>) -> Self {
        Self::Header {
            file: file.to_owned(),
            problem: problem.into(),
        }
    }

    /// Creates the error for a file without a header line that starts with `track_id`.
    pub(crate) fn no_track_id(file: &str, n_lines: usize) -> Self {
        let problem = format!(
            "no header line starts with `track_id` (FMA's files have one among the first {n_lines}): --metadata takes \
             FMA's folder, its zip, or tracks.csv"
        );
        Self::header(file, problem)
    }

    /// Creates the error for rows that cannot be matched to files after the last step.
    pub(crate) fn clip_key(problem: impl Display) -> Self {
        Self::Unusable(format!(
            "the cleaned rows have {problem}: a cleaning step must set a unique text `clip_key` for each row"
        ))
    }
}
