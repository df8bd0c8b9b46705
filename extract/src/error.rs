//! Errors of a run. Errors of the individual stages pass through unchanged.

use std::io;
use std::path::PathBuf;
use wavemill_schemas::exit;
use wavemill_schemas::reject::Reject;

use parquet::errors::ParquetError;
use wavemill_catalog::CatalogError;
use wavemill_runtime::course::Phase;
use wavemill_source::SourceError;
use wavemill_store::StoreError;

use crate::features::FeatureError;
use crate::threads::ExtractError;

/// The error type of a run that ended without a version.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The audio cannot be listed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The metadata cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The file of sides cannot be used.
    #[error(transparent)]
    Sides(#[from] SidesError),
    /// The recipe's features cannot be computed.
    #[error(transparent)]
    Feature(#[from] FeatureError),
    /// The store cannot be used or written, or refuses the run.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Clips cannot be read, computed or written.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The disk has too little free space.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// There is nothing to extract.
    #[error("no rows are left after {step}: see the rows after each step with --dry-run")]
    NoRows {
        /// The step that dropped the last row, as a phrase.
        step: String,
    },
    /// Clips of the previous version no longer have a file.
    #[error(
        "{count} of the {of} clips of the previous version no longer have a file ({examples}), more than --max-shrink \
         {fraction_max} allows: is a folder missing or not mounted? If they were removed on purpose, give --max-shrink \
         {remedy}"
    )]
    Shrunk {
        /// Number of clips without a file.
        count: usize,
        /// Number of clips of that version that had a file.
        of: usize,
        /// The first of these clips, as a list.
        examples: String,
        /// The limit of `--max-shrink`.
        fraction_max: f64,
        /// The smallest limit that permits the run.
        remedy: f64,
    },
    /// The sums of rows and rejects do not match the inputs. This is a bug in wavemill.
    #[error("inconsistent counts: {what}; nothing was committed; please report this")]
    Accounting {
        /// The sum that does not match.
        what: String,
    },
    /// The run was stopped before anything was written.
    #[error("interrupted while {phase}; nothing was written")]
    Stopped {
        /// The phase in which it was stopped.
        phase: Phase,
    },
    /// Internal JSON cannot be serialized; this cannot happen.
    #[error("metadata")]
    Json(#[from] serde_json::Error),
}

impl RunError {
    /// Returns the exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) => error.exit_code(),
            Self::Feature(error) => error.exit_code(),
            Self::Catalog(error) => error.exit_code(),
            Self::Extract(error) => error.exit_code(),
            Self::Source(_) | Self::Sides(_) | Self::NoRows { .. } => exit::USAGE,
            Self::Shrunk { .. } => exit::OTHER_PLAN,
            Self::Space(_) => exit::NO_SPACE,
            Self::Stopped { .. } => exit::INTERRUPTED,
            Self::Accounting { .. } | Self::Json(_) => exit::FAILED,
        }
    }

    /// Returns the file system's error if the store cannot be written.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Store(error) | Self::Extract(ExtractError::Store(error)) => error.io(),
            _ => None,
        }
    }

    /// Reports whether the run ended because it was asked to stop.
    pub const fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Stopped { .. } | Self::Extract(ExtractError::Interrupted { .. })
        )
    }

    /// Returns the rejects of a run that had too many of them.
    pub fn rejects(&self) -> Option<&[Reject]> {
        match self {
            Self::Extract(ExtractError::TooManyRejects { rejects, .. }) => Some(rejects),
            _ => None,
        }
    }
}

/// Error type of reading a file of sides.
#[derive(Debug, thiserror::Error)]
pub enum SidesError {
    /// The file cannot be opened or read.
    #[error("--sides {path}: cannot read it")]
    Read {
        /// Path of the file as given.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file is not CSV.
    #[error("--sides {path}: not a CSV file")]
    Csv {
        /// Path of the file as given.
        path: PathBuf,
        /// The cause.
        source: csv::Error,
    },
    /// The file is damaged, or a column contains no text.
    #[error("--sides {path}: not a Parquet file of sides")]
    Parquet {
        /// Path of the file as given.
        path: PathBuf,
        /// The cause.
        source: ParquetError,
    },
    /// A column is missing.
    #[error(
        "--sides {path}: no column `{column}`: give the columns group and side, and rule if there are sides of both rules, \
         as in `wavemill sql 'SELECT * FROM sides'`"
    )]
    Column {
        /// Path of the file as given.
        path: PathBuf,
        /// Name of the column.
        column: &'static str,
    },
    /// A row cannot be used.
    #[error("--sides {path}, {place}: {problem}")]
    Row {
        /// Path of the file as given.
        path: PathBuf,
        /// Position of the row.
        place: Place,
        /// The problem and its remedy.
        problem: String,
    },
    /// The file has no rows.
    #[error("--sides {path}: no rows in it: give the table `sides` of a store")]
    Empty {
        /// Path of the file as given.
        path: PathBuf,
    },
    /// A column occurs twice.
    #[error("--sides {path}: several columns `{column}`: keep only one of them")]
    Repeated {
        /// Path of the file as given.
        path: PathBuf,
        /// Name of the column.
        column: &'static str,
    },
    /// The file is about other data.
    #[error(
        "--sides {path}: it names no track, artist or recording of this data: give the table `sides` of a store of the same \
         data"
    )]
    Foreign {
        /// Path of the file as given.
        path: PathBuf,
    },
    /// The canonical JSON could not be written; this cannot happen.
    #[error("sides")]
    Json(#[from] serde_json::Error),
}

/// Position of a row in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a CSV file, from 1.
    Line(u64),
    /// A row of a Parquet file, from 1.
    Row(u64),
}

/// The store's file system has too little free space for the shards.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: about {needed_bytes} bytes are needed and {free_bytes} are free: free some space, or choose a folder on another file system"
)]
pub struct SpaceError {
    /// Path of the store.
    pub path: PathBuf,
    /// Estimated number of bytes.
    pub needed_bytes: u64,
    /// Number of free bytes on its file system.
    pub free_bytes: u64,
}
