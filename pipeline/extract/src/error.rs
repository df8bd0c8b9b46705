//! Errors of a run. Errors of the individual stages pass through unchanged.

use std::io;
use std::path::PathBuf;
use wavemill_schemas::exit;
use wavemill_schemas::reject::Reject;

use parquet::errors::ParquetError;
use wavemill_catalog::CatalogError;
use wavemill_runtime::progress::Phase;
use wavemill_source::SourceError;
use wavemill_store::StoreError;

use crate::features::FeatureError;
use crate::threads::ExtractError;

/// The error type of a run that ended without a version.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The audio folder or zip cannot be listed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The metadata cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The file of sides (`--sides`) cannot be used.
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
    /// No rows are left to extract.
    #[error("no rows are left after {step}: see the rows after each step with --dry-run")]
    NoRows {
        /// Phrase that names the cleaning step which dropped the last row.
        step: String,
    },
    /// Too many clips of the previous version no longer have a file.
    #[error(
        "{count} of the {of} clips of the previous version no longer have a file ({examples}), more than --max-shrink \
         {fraction_max} allows: is a folder missing or not mounted? If they were removed on purpose, give --max-shrink \
         {remedy}"
    )]
    Shrunk {
        /// Number of clips whose files are missing.
        count: usize,
        /// Number of clips of the previous version that had a file.
        of: usize,
        /// The first clips whose files are missing, as a list.
        examples: String,
        /// Value of `--max-shrink`.
        fraction_max: f64,
        /// Smallest value of `--max-shrink` that permits the run.
        remedy: f64,
    },
    /// Shards of a stored plan are not finished.
    #[error(
        "{} of {shards} shards of the plan are missing ({}): write one with `wavemill work --part {}/{shards}`",
        missing.len(), format_places(missing), missing.first().copied().unwrap_or(1)
    )]
    Unfinished {
        /// Numbers of the missing shards in the plan, from 1.
        missing: Vec<usize>,
        /// Number of shards of the plan.
        shards: usize,
    },
    /// The sums of rows and rejects do not match the number of inputs. This is a bug in wavemill.
    #[error("inconsistent counts: {what}; nothing was committed; please report this")]
    Accounting {
        /// Description of the sum that does not match.
        what: String,
    },
    /// The run was stopped before anything was written.
    #[error("interrupted while {phase}; nothing was written")]
    Stopped {
        /// Phase in which the run was stopped.
        phase: Phase,
    },
    /// JSON for internal use cannot be serialized; this cannot happen.
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
            Self::Source(error) => error.exit_code(),
            Self::Sides(_) | Self::NoRows { .. } => exit::USAGE,
            Self::Shrunk { .. } => exit::OTHER_PLAN,
            Self::Space(_) => exit::NO_SPACE,
            Self::Unfinished { .. } => exit::UNFINISHED,
            Self::Stopped { .. } => exit::INTERRUPTED,
            Self::Accounting { .. } | Self::Json(_) => exit::FAILED,
        }
    }

    /// Reports whether the run ended because the user asked it to stop.
    pub const fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Stopped { .. } | Self::Extract(ExtractError::Interrupted { .. })
        )
    }

    /// Returns the list of rejects if the run ended because it had too many rejects.
    pub fn rejects(&self) -> Option<&[Reject]> {
        match self {
            Self::Extract(ExtractError::TooManyRejects { rejects, .. }) => Some(rejects),
            _ => None,
        }
    }
}

/// Number of ranges of missing shards that a message names.
const RANGES_SHOWN: usize = 10;

/// Formats ascending numbers as ranges: `1-3, 7`.
fn format_places(places: &[usize]) -> String {
    let ranges: Vec<&[usize]> = places.chunk_by(|a, b| a + 1 == *b).collect();
    let mut shown = Vec::new();
    for range in ranges.iter().take(RANGES_SHOWN) {
        shown.push(match range {
            [first, .., last] => format!("{first}-{last}"),
            one => one.iter().map(ToString::to_string).collect(),
        });
    }
    let more = if ranges.len() > RANGES_SHOWN {
        ", …"
    } else {
        ""
    };
    shown.join(", ") + more
}

/// Error type for reading a file of sides (`--sides`).
#[derive(Debug, thiserror::Error)]
pub enum SidesError {
    /// The file of sides cannot be opened or read.
    #[error("--sides {path}: cannot read it")]
    Read {
        /// Path of the file that assigns clips to splits (`--sides`), as given.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The file of sides is not valid CSV.
    #[error("--sides {path}: not a CSV file")]
    Csv {
        /// Path of the file that assigns clips to splits (`--sides`), as given.
        path: PathBuf,
        /// Cause of the error.
        source: csv::Error,
    },
    /// The file of sides is damaged, or one of its columns contains no text.
    #[error("--sides {path}: not a Parquet file of sides")]
    Parquet {
        /// Path of the file that assigns clips to splits (`--sides`), as given.
        path: PathBuf,
        /// Cause of the error.
        source: ParquetError,
    },
    /// A column is missing from the file of sides.
    #[error(
        "--sides {path}: no column `{column}`: give the columns group and side, and rule if there are sides of both rules, \
         as in `wavemill sql 'SELECT * FROM sides'`"
    )]
    Column {
        /// Path of the file that assigns clips to splits (`--sides`), as given.
        path: PathBuf,
        /// Name of the missing column.
        column: &'static str,
    },
    /// A row of the file of sides cannot be used.
    #[error("--sides {path}, {place}: {problem}")]
    Row {
        /// Path of the file that assigns clips to splits (`--sides`), as given.
        path: PathBuf,
        /// Position of the unusable row in the file.
        place: Place,
        /// Description of the problem and of its remedy.
        problem: String,
    },
    /// The file of sides has no rows.
    #[error("--sides {path}: no rows in it: give the table `sides` of a store")]
    Empty {
        /// Path of the file that assigns clips to splits (`--sides`), as given.
        path: PathBuf,
    },
    /// A column occurs twice in the file of sides.
    #[error("--sides {path}: several columns `{column}`: keep only one of them")]
    Repeated {
        /// Path of the file that assigns clips to splits (`--sides`), as given.
        path: PathBuf,
        /// Name of the repeated column.
        column: &'static str,
    },
    /// The file of sides names no track, artist or recording of the run's data.
    #[error(
        "--sides {path}: it names no track, artist or recording of this data: give the table `sides` of a store of the same \
         data"
    )]
    Foreign {
        /// Path of the file that assigns clips to splits (`--sides`), as given.
        path: PathBuf,
    },
    /// The canonical JSON could not be written; this cannot happen.
    #[error("sides")]
    Json(#[from] serde_json::Error),
}

/// Position of a row in a file of sides.
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
    /// Estimated number of bytes that the shards need.
    pub needed_bytes: u64,
    /// Number of free bytes on the store's file system.
    pub free_bytes: u64,
}
