//! Errors of an extraction. A clip that cannot be processed is a reject and not an error.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use wavemill_kernels::KernelError;
use wavemill_schemas::exit;
use wavemill_schemas::reject::Reject;
use wavemill_store::StoreError;

use super::refusal::ClipMemory;
use crate::features::FeatureError;

/// The error type of an extraction that did not write all shards.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The recipe's features cannot be computed.
    #[error(transparent)]
    Feature(#[from] FeatureError),
    /// The store cannot be used or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file of a clip cannot be read because of the machine.
    #[error("{clip_key}: cannot read{}", continue_remedy(source))]
    Read {
        /// Key of the clip.
        clip_key: String,
        /// Error of the operating system, after retries.
        source: io::Error,
    },
    /// A file changed after part of the store had been computed from it.
    #[error(
        "{clip_key}: changed during the extraction; nothing was committed; run the same command again to continue"
    )]
    Changed {
        /// Key of the clip.
        clip_key: String,
    },
    /// No thread can be started.
    #[error("cannot start a worker: use fewer --threads")]
    Threads {
        /// Error of the operating system.
        source: io::Error,
    },
    /// The memory limit is too small for one row group and one clip.
    #[error(
        "--memory-limit: {limit_bytes} bytes are not enough: this recipe needs {needed_bytes}, or a smaller shards.row_group_rows"
    )]
    Memory {
        /// Memory limit that was set, in bytes.
        limit_bytes: u64,
        /// Smallest memory limit that is sufficient, in bytes.
        needed_bytes: u64,
    },
    /// A clip that the recipe allows does not fit into memory.
    #[error(transparent)]
    ClipMemory(#[from] ClipMemory),
    /// Another thread of the run has failed and has reported its error.
    #[error("another thread of the run failed")]
    Elsewhere,
    /// More clips were rejected than `--max-reject-fraction` allows, which is an option of `extract` and `plan`.
    #[error(
        "{} of {planned} clips rejected, more than --max-reject-fraction {fraction} allows; nothing was committed. \
         To accept them, repeat `extract` or `plan` with a larger one: finished shards are kept. Reasons: {}{}. Last reject: {}",
        rejects.len(), reasons(rejects), listed(list.as_deref()), describe_reject(rejects.last())
    )]
    TooManyRejects {
        /// Number of planned clips.
        planned: u64,
        /// Maximum fraction of planned clips that may be rejected.
        fraction: f64,
        /// Rejects so far, in order of arrival.
        rejects: Vec<Reject>,
        /// The file that lists the rejects.
        list: Option<PathBuf>,
    },
    /// The run was asked to stop.
    #[error(
        "interrupted: {done} of {total} feature files are complete; run the same command again to continue"
    )]
    Interrupted {
        /// Number of finished feature files.
        done: usize,
        /// Number of feature files in the plan.
        total: usize,
    },
    /// All devices have failed.
    #[error(
        "all devices have failed; run the same command again to continue, optionally with other --devices"
    )]
    Device {
        /// The error of the last device.
        source: KernelError,
    },
    /// The encoding of rows, or a thread of the device, panicked. This is a bug in wavemill.
    #[error("{what} panicked ({message}); nothing was committed; please report this")]
    Panic {
        /// The operation that panicked.
        what: String,
        /// Message of the panic.
        message: String,
    },
}

impl ExtractError {
    /// Returns the exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) => error.exit_code(),
            Self::Feature(error) => error.exit_code(),
            Self::Memory { .. } => exit::USAGE,
            Self::Interrupted { .. } => exit::INTERRUPTED,
            _ => exit::FAILED,
        }
    }
}

/// Returns the remedy for a clip that cannot be read. A missing permission has its own ([`exit::DENIED_REMEDY`]).
fn continue_remedy(error: &io::Error) -> &'static str {
    match exit::is_denied(error) {
        true => "",
        false => "; run the same command again to continue",
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
