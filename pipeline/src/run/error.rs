//! Why a run ended without a version. What a stage below says of itself passes through unchanged.

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

/// Why a run ended without a version.
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
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A metadata table cannot be written, or a shard's key not be made.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// Clips cannot be read, computed or written.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The disk is too small.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// Nothing to extract.
    #[error("no row is left after {step}: see the rows after every step with --dry-run")]
    NoRows {
        /// The step that dropped the last one, in words.
        step: String,
    },
    /// Clips of the version before have no file any more.
    #[error(
        "{count} of the {of} clips of the version before have no file any more ({examples}), more than --max-shrink \
         {fraction_max} of them: is a folder missing or not mounted? If they are gone on purpose, give --max-shrink \
         {remedy}"
    )]
    Shrunk {
        /// Number of clips without a file.
        count: usize,
        /// Clips of that version that had a file.
        of: usize,
        /// The first ones, in words.
        examples: String,
        /// The limit.
        fraction_max: f64,
        /// The least limit that permits it.
        remedy: f64,
    },
    /// Rows + rejects ≠ inputs: a fault of wavemill.
    #[error("accounting fails: {what}; nothing was committed; please report this")]
    Accounting {
        /// Which sum.
        what: String,
    },
    /// Asked to stop before anything was written.
    #[error("interrupted while {phase}; nothing was written")]
    Stopped {
        /// What was being done.
        phase: Phase,
    },
    /// JSON of our own; cannot happen.
    #[error("metadata")]
    Json(#[from] serde_json::Error),
}

impl RunError {
    /// Whether somebody asked it to stop.
    pub const fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Stopped { .. } | Self::Extract(ExtractError::Interrupted { .. })
        )
    }

    /// The rejects of a run that had too many of them.
    pub fn rejects(&self) -> Option<&[Reject]> {
        match self {
            Self::Extract(ExtractError::TooManyRejects { rejects, .. }) => Some(rejects),
            _ => None,
        }
    }
}
