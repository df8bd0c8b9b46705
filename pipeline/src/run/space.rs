//! Free space, asked before the work and not during it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wavemill_schemas::recipe::Compression;

use super::plan::Plan;
use super::reuse::Pass;
use crate::catalog::ClipRow;
use crate::features::ClipTotals;
use crate::source::AudioIndex;

/// zstd leaves at least this part of f16 log-mel (measured: 0.75).
const ZSTD_LEAVES: f64 = 0.7;

/// A refusal needs a lower bound: no clip of unknown length is shorter than 16-bit stereo at 48 kHz would be.
const MOST_BYTES_PER_S: f64 = 192_000.0;

/// The store's file system has less room than the shards will take.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: about {needed_bytes} bytes are needed and {free_bytes} are free: make room, or choose a folder on another file system"
)]
pub struct SpaceError {
    /// The store.
    pub path: PathBuf,
    /// Estimate.
    pub needed_bytes: u64,
    /// On its file system.
    pub free_bytes: u64,
}

/// The least bytes that the files of a pass take on disk.
pub(super) fn least_bytes(
    pass: &Pass<'_>,
    clips: &[ClipRow],
    audio: &AudioIndex,
    plan: &Plan<'_>,
) -> u64 {
    let features = plan.features.only(&pass.features);
    // Sets, because under the rules by segment a clip is a member of several shards, with part of its rows in each.
    let mut members: BTreeSet<usize> = BTreeSet::new();
    let mut stretched: BTreeSet<usize> = BTreeSet::new();
    for task in &pass.todo {
        members.extend(&task.shard.members);
        if features.is_stretched(&task.shard.split) {
            stretched.extend(&task.shard.members);
        }
    }
    let audio_bytes = members
        .iter()
        .filter_map(|&row| audio.get(&clips[row].clip_key))
        .map(|id| id.bytes)
        .sum();
    let totals = ClipTotals {
        all: members.len() as u64,
        stretched: stretched.len() as u64,
        file_bytes: audio_bytes,
    };
    let raw_bytes = features.estimate(totals, MOST_BYTES_PER_S);

    match plan.recipe.shards.compression {
        Compression::Zstd => (raw_bytes as f64 * ZSTD_LEAVES) as u64,
        Compression::Lz4 | Compression::None => raw_bytes,
    }
}

/// Refuses a run whose shards cannot fit on the store's file system.
///
/// # Errors
/// [`SpaceError`]. A file system that does not tell is taken to have room.
pub(super) fn check(store: &Path, needed_bytes: u64) -> Result<(), SpaceError> {
    let Some(free_bytes) = free_bytes(store) else {
        return Ok(());
    };

    if free_bytes < needed_bytes {
        return Err(SpaceError {
            path: store.to_owned(),
            needed_bytes,
            free_bytes,
        });
    }
    Ok(())
}

/// Bytes that a user may still write where `path` is, or will be.
pub fn free_bytes(path: &Path) -> Option<u64> {
    // The store may not be there yet. The nearest folder above it tells of the file system that will hold it.
    let there = path
        .ancestors()
        .find(|p| p.exists())
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let stat = rustix::fs::statvfs(there).ok()?;
    // Not `f_bfree`, which counts blocks that only root may take (statvfs(3)).
    Some(stat.f_bavail * stat.f_frsize)
}
