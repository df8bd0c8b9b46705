//! The error type of this crate. Errors of the stages pass through unchanged; a clip that cannot be processed is a reject
//! and not an error.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use wavemill_catalog::CatalogError;
use wavemill_kernels::KernelError;
use wavemill_kernels::resample::ResampleError;
use wavemill_runtime::progress::Phase;
use wavemill_schemas::exit::{self, Classified, Kind, PlainError};
use wavemill_schemas::reject::Reject;
use wavemill_source::SourceError;
use wavemill_store::StoreError;
use wavemill_store::shards::FinishedShards;

/// The error type of a run that ended without a version, and of its steps.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages describe the fields
pub enum ExtractError {
    /// The audio folder or zip cannot be listed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The metadata cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The store cannot be used or written, or refuses the run.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file changed after part of the store had been computed from it.
    #[error(
        "{clip_key}: changed during the extraction; nothing was committed; run the same command again to continue"
    )]
    Changed { clip_key: String },
    /// Another thread of the run has failed and has reported its error.
    #[error("another thread of the run failed")]
    Elsewhere,
    /// More clips were rejected than `--max-reject-fraction` allows, which is an option of `extract` and `plan`. `list` is
    /// the file that lists them.
    #[error(
        "{} of {planned} clips rejected, more than --max-reject-fraction {fraction} allows; nothing was committed. \
         To accept them, repeat `extract` or `plan` with a larger one: finished shards are kept. Reasons: {}{}. Last reject: {}",
        rejects.len(), reasons(rejects), listed(list.as_deref()), describe_reject(rejects.last())
    )]
    TooManyRejects {
        planned: u64,
        fraction: f64,
        rejects: Vec<Reject>,
        list: Option<PathBuf>,
    },
    /// Any other reason why the run ended.
    #[error(transparent)]
    Other(#[from] PlainError),
}

impl Classified for ExtractError {
    fn kind(&self) -> Kind {
        match self {
            Self::Source(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Other(error) => error.kind(),
            Self::Changed { .. } | Self::Elsewhere | Self::TooManyRejects { .. } => Kind::Failed,
        }
    }
}

impl ExtractError {
    /// Returns the list of rejects if the run ended because it had too many rejects.
    pub fn rejects(&self) -> Option<&[Reject]> {
        match self {
            Self::TooManyRejects { rejects, .. } => Some(rejects),
            _ => None,
        }
    }

    /// Creates an error of the kind [`Kind::Usage`].
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        PlainError::usage(message).into()
    }

    /// Creates the error of a run that was stopped before anything was written.
    pub(crate) fn stopped_while(phase: Phase) -> Self {
        let message = format!("interrupted while {phase}; nothing was written");
        PlainError::new(Kind::Interrupted, message).into()
    }

    /// Creates the error of a run that was stopped when the files in `finished` were complete.
    pub(crate) fn stopped_after(finished: &FinishedShards) -> Self {
        let message = format!(
            "interrupted: {} of {} feature files are complete; run the same command again to continue",
            finished.n_done(),
            finished.n_total()
        );
        PlainError::new(Kind::Interrupted, message).into()
    }

    /// Creates the error for a thread that cannot be started.
    pub fn no_thread(source: io::Error) -> Self {
        let error = PlainError::failed("cannot start a worker: use fewer --threads");
        error.caused_by(source).into()
    }

    /// Creates the error for a clip whose file cannot be read because of the machine, also after retries.
    pub(crate) fn not_read(clip_key: &str, source: io::Error) -> Self {
        // A missing permission has its own remedy.
        let remedy = match exit::is_denied(&source) {
            true => "",
            false => "; run the same command again to continue",
        };
        let error = PlainError::failed(format!("{clip_key}: cannot read{remedy}"));
        error.caused_by(source).into()
    }

    /// Creates the error for a panic of `what`, which is not a clip's: a bug in wavemill.
    pub(crate) fn panicked(what: &str, message: &str) -> Self {
        let message =
            format!("{what} panicked ({message}); nothing was committed; please report this");
        PlainError::failed(message).into()
    }

    /// Creates the error for a sum that does not match: a bug in wavemill.
    pub(crate) fn inconsistent(what: &str) -> Self {
        let message =
            format!("inconsistent counts: {what}; nothing was committed; please report this");
        PlainError::failed(message).into()
    }
}

impl From<KernelError> for ExtractError {
    fn from(error: KernelError) -> Self {
        let plain = PlainError::failed("features: cannot plan");
        plain.caused_by(error).into()
    }
}

impl From<ResampleError> for ExtractError {
    fn from(error: ResampleError) -> Self {
        let plain = PlainError::failed("audio.sample_rate_hz");
        plain.caused_by(error).into()
    }
}

impl From<serde_json::Error> for ExtractError {
    /// JSON for internal use can always be serialized.
    fn from(error: serde_json::Error) -> Self {
        PlainError::failed("metadata").caused_by(error).into()
    }
}

/// Formats the counts of reasons, such as `3 empty, 1 damaged`.
fn reasons(rejects: &[Reject]) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for reject in rejects {
        *counts.entry(reject.reason.name()).or_default() += 1;
    }

    let parts: Vec<String> = counts
        .iter()
        .map(|(reason, n)| format!("{n} {reason}"))
        .collect();
    parts.join(", ")
}

fn listed(list: Option<&Path>) -> String {
    match list {
        Some(path) => format!(", listed in {}", path.display()),
        None => String::new(),
    }
}

fn describe_reject(reject: Option<&Reject>) -> String {
    let Some(reject) = reject else {
        return String::new();
    };
    let clip_key = reject.clip_key.as_deref().unwrap_or_default();
    format!("{clip_key}: {}: {}", reject.reason.name(), reject.detail)
}
