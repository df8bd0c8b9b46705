//! Checks free disk space before a run starts its work. The space is not checked again during the work.

use std::collections::BTreeSet;
use std::path::Path;

use wavemill_catalog::ClipRow;
use wavemill_schemas::recipe::Compression;
use wavemill_source::AudioIndex;

use crate::error::SpaceError;
use crate::features::ClipTotals;
use crate::incremental::plan::Plan;
use crate::incremental::reuse::Pass;

/// Lower bound for the compressed size of f16 log-mel, as a fraction of the uncompressed size (measured: 0.75).
const ZSTD_RATIO: f64 = 0.7;

/// Bytes per second of 16-bit stereo at 48 kHz. A refusal needs a lower bound of the needed space, so clips of unknown
/// length are assumed to have this rate.
const MOST_BYTES_PER_S: f64 = 192_000.0;

/// Returns a lower bound for the disk space of a pass's files, in bytes.
pub(super) fn least_bytes(
    pass: &Pass<'_>,
    clips: &[ClipRow],
    audio: &AudioIndex,
    plan: &Plan<'_>,
) -> u64 {
    let features = plan.features.only(&pass.features);
    // Sets, because under the rules by segment a clip is a member of several shards, each with part of its rows.
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
        Compression::Zstd => (raw_bytes as f64 * ZSTD_RATIO) as u64,
        Compression::Lz4 | Compression::None => raw_bytes,
    }
}

/// Refuses a run whose shards cannot fit on the store's file system.
///
/// # Errors
/// [`SpaceError`] if the space is too small. If the free space is unknown, it is assumed to be sufficient.
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

/// Returns the number of bytes that an unprivileged user can still write at `path`, which need not exist yet.
pub fn free_bytes(path: &Path) -> Option<u64> {
    // The store may not exist yet. The nearest existing parent folder is on the file system that will contain it.
    let there = path
        .ancestors()
        .find(|p| p.exists())
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let stat = rustix::fs::statvfs(there).ok()?;
    // `f_bavail` is used, not `f_bfree`, which counts blocks that only root may take (statvfs(3)).
    Some(stat.f_bavail * stat.f_frsize)
}
