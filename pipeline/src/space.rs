//! Free space, asked before the work and not during it.

use std::collections::BTreeSet;
use std::path::Path;

use wavemill_schemas::recipe::Compression;

use crate::catalog::ClipRow;
use crate::features::FeaturePlan;
use crate::run::RunError;
use crate::shards::Todo;
use crate::source::AudioIndex;

/// zstd leaves at least this part of f16 log-mel (measured: 0.75).
const ZSTD_LEAVES: f64 = 0.7;

/// A refusal needs a lower bound: no clip of unknown length is shorter than 16-bit stereo at 48 kHz would be.
const MOST_BYTES_PER_S: f64 = 192_000.0;

/// Refuses a run whose shards cannot fit on the store's file system.
///
/// # Errors
/// [`RunError::Space`]. A file system that does not tell is taken to have room.
pub fn check(
    store: &Path,
    todo: &[Todo<'_>],
    (clips, audio): (&[ClipRow], &AudioIndex),
    features: &FeaturePlan,
    compression: Compression,
) -> Result<(), RunError> {
    // Under the rule `segment` a clip is a member of several shards, with part of its rows in each.
    let members: BTreeSet<usize> = todo.iter().flat_map(|t| &t.shard.members).copied().collect();
    let bytes = members.iter().filter_map(|&row| audio.get(&clips[row].clip_key)).map(|id| id.bytes).sum();
    let leaves = if compression == Compression::Zstd { ZSTD_LEAVES } else { 1.0 };
    let raw_bytes = features.estimate(members.len() as u64, bytes, MOST_BYTES_PER_S);
    let needed_bytes = (raw_bytes as f64 * leaves) as u64;
    match free_bytes(store) {
        Some(free_bytes) if free_bytes < needed_bytes => {
            Err(RunError::Space { path: store.to_owned(), needed_bytes, free_bytes })
        }
        _ => Ok(()),
    }
}

/// Bytes that a user may still write where `path` is, or will be.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|p| p.exists()).filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}
