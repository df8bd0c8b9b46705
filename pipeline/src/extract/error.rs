//! Why clips could not all become shards. A clip's own fault is a reject, and none of these.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use wavemill_kernels::KernelError;
use wavemill_schemas::reject::Reject;

use super::refusal::ClipMemory;
use crate::features::FeatureError;
use crate::shards::ShardError;
use crate::store::StoreError;

/// Why clips could not all become shards.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The recipe's features cannot be computed.
    #[error(transparent)]
    Feature(#[from] FeatureError),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A shard cannot be written.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The machine failed to give a clip's bytes.
    #[error("{clip_key}: cannot read; the same command goes on from here")]
    Read {
        /// Which clip.
        clip_key: String,
        /// The answer, after retries.
        source: io::Error,
    },
    /// A file of which one part of the store was made, and that is another one now.
    #[error(
        "{clip_key}: changed while it was extracted, and nothing was committed; the same command goes on from here"
    )]
    Changed {
        /// Which clip.
        clip_key: String,
    },
    /// No thread can be started.
    #[error("cannot start a worker: use fewer --threads")]
    Threads {
        /// The system's answer.
        source: io::Error,
    },
    /// The limit holds less than one row group and one clip.
    #[error(
        "--memory-limit: {limit_bytes} bytes are too few; this recipe needs {needed_bytes} (or smaller shards.row_group_rows)"
    )]
    Memory {
        /// As given.
        limit_bytes: u64,
        /// The least that works.
        needed_bytes: u64,
    },
    /// A clip that is allowed and does not fit.
    #[error(transparent)]
    ClipMemory(#[from] ClipMemory),
    /// Another thread has failed, and told so.
    #[error("the run has failed elsewhere")]
    Elsewhere,
    /// Over `--max-reject-fraction`.
    #[error(
        "{} of {planned} clips rejected, more than --max-reject-fraction {fraction} allows; nothing was committed. They \
         are {}{}. The last: {}",
        rejects.len(), reasons(rejects), listed(list.as_deref()), in_words(rejects.last())
    )]
    TooManyRejects {
        /// In the plan.
        planned: u64,
        /// The limit.
        fraction: f64,
        /// So far, in the order in which they came.
        rejects: Vec<Reject>,
        /// The file that lists them.
        list: Option<PathBuf>,
    },
    /// Asked to stop.
    #[error(
        "interrupted: {done} of {total} shards are complete; the same command goes on from there"
    )]
    Interrupted {
        /// Complete shards.
        done: usize,
        /// Of the plan.
        total: usize,
    },
    /// No device is left that works.
    #[error(
        "no device is left that works; the same command goes on from here, and so does one with other --devices"
    )]
    Device {
        /// Of the last one.
        source: KernelError,
    },
    /// Encoding, or a device's lane, panicked: a fault of wavemill.
    #[error("{what} panicked ({words}); nothing was committed; please report this")]
    Panic {
        /// What was being done.
        what: String,
        /// Of the panic.
        words: String,
    },
}

/// `3 empty, 1 damaged`.
fn reasons(rejects: &[Reject]) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for reject in rejects {
        *counts.entry(reject.reason.name()).or_default() += 1;
    }

    let words: Vec<String> = counts
        .iter()
        .map(|(reason, n)| format!("{n} {reason}"))
        .collect();
    words.join(", ")
}

fn listed(list: Option<&Path>) -> String {
    match list {
        Some(path) => format!(", listed in {}", path.display()),
        None => String::new(),
    }
}

fn in_words(reject: Option<&Reject>) -> String {
    let Some(reject) = reject else {
        return String::new();
    };
    let clip_key = reject.clip_key.as_deref().unwrap_or_default();
    format!("{clip_key}: {}: {}", reject.reason.name(), reject.detail)
}
