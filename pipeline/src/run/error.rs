//! Errors of a run. Errors of the individual stages pass through unchanged.

use wavemill_schemas::reject::Reject;

use super::space::SpaceError;
use crate::catalog::CatalogError;
use crate::course::Phase;
use crate::extract::ExtractError;
use crate::features::FeatureError;
use crate::parent::SidesError;
use crate::shards::ShardError;
use crate::source::SourceError;
use crate::store::StoreError;

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
    /// The store cannot be used, or refuses the run.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A metadata table cannot be written, or the key of a shard cannot be computed.
    #[error(transparent)]
    Shard(#[from] ShardError),
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
