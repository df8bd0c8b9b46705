//! Free space, asked before the work and not during it.

use std::path::Path;

use crate::features::FeaturePlan;
use crate::run::RunError;
use crate::shards::Todo;

/// zstd leaves at least this part of f16 log-mel (measured: 0.75); uncompressed stores need a little more than asked.
const COMPRESSED: f64 = 0.8;

/// Refuses a run whose shards cannot fit on the store's file system.
///
/// # Errors
/// [`RunError::Space`]. A file system that does not tell is taken to have room.
pub fn check(store: &Path, todo: &[Todo<'_>], audio_bytes: u64, features: &FeaturePlan) -> Result<(), RunError> {
    let clips: u64 = todo.iter().map(|t| t.shard.members.len() as u64).sum();
    let needed_bytes = (features.estimate(clips, audio_bytes) as f64 * COMPRESSED) as u64;
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
