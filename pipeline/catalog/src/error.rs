//! Errors that stop the catalog: unreadable metadata, a failing cleaning step, or two rows for one clip.

use std::error::Error;
use std::fmt::Display;

use datafusion::error::DataFusionError;
use wavemill_schemas::exit;
use wavemill_source::SourceError;

/// The error type of the catalog. A bad row is a reject instead of an error.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A metadata file, folder or zip cannot be opened.
    #[error("metadata")]
    Source(#[from] SourceError),
    /// The metadata or a cleaning step of the recipe cannot be used, or the recipe does not fit the metadata.
    #[error("{0}")]
    Unusable(String),
    /// The header of a CSV file is not valid.
    #[error("metadata file {file}: {problem}")]
    Header {
        /// Name of the CSV file.
        file: String,
        /// Description of the problem with the header.
        problem: String,
    },
    /// The operating system fails to read a file.
    #[error("metadata file {file}")]
    Read {
        /// Name of the file that cannot be read.
        file: String,
        /// Cause of the failure.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The bytes of a CSV or Parquet file cannot be decoded.
    #[error(
        "metadata file {file} is damaged, truncated, or not in the format of its file extension ({problem}): copy it again \
         from its source, or rewrite it"
    )]
    Damaged {
        /// Name of the damaged file.
        file: String,
        /// Message of the CSV or Parquet reader.
        problem: String,
    },
    /// None of the metadata rows has a file below the audio root.
    #[error(
        "none of the {rows} rows has a file below the audio root: expected, for example, {example}{hint}"
    )]
    NoAudio {
        /// Number of rows before the cleaning step `audio`.
        rows: usize,
        /// Key of one of the missing files, as an example.
        example: String,
        /// End of the message, which names the existing file that the key probably means; empty if no file is similar.
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
    Arrow(#[from] arrow::error::ArrowError),
}

impl CatalogError {
    /// Returns the exit code of the command. A metadata file that begins like another file type counts as wrong usage.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stopped => exit::INTERRUPTED,
            Self::Source(error) => error.exit_code(),
            Self::Unusable(_)
            | Self::Header { .. }
            | Self::Damaged { .. }
            | Self::NoAudio { .. } => exit::USAGE,
            Self::Read { .. } | Self::Engine(_) | Self::Arrow(_) => exit::FAILED,
        }
    }

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
