//! Checks free disk space before a run starts its work. The space is not checked again during the work.

use std::collections::BTreeSet;
use std::path::Path;

use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::recipe::Compression;
use wavemill_source::AudioIndex;

use crate::features::ClipTotals;
use crate::incremental::plan::Plan;
use crate::incremental::reuse::Pass;

/// Lower bound for the compressed size of f16 log-mel, as a fraction of the uncompressed size (measured: 0.75).
const ZSTD_RATIO: f64 = 0.7;

/// Bytes per second of 16-bit stereo at 48 kHz, which no lossy codec exceeds. A refusal needs a lower bound of the
/// needed space, so clips of unknown length are assumed to have the highest rate of their format.
const LOSSY_BYTES_PER_S: f64 = 192_000.0;

/// Bytes per second of eight channels of 32 bits at 384 kHz, the highest rate in use without loss.
const LOSSLESS_BYTES_PER_S: f64 = 12_288_000.0;

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
    let mut audio_bytes = 0;
    let mut audio_s = 0.0;
    for &row in &members {
        let key = &clips[row].clip_key;
        if let Some(id) = audio.get(key) {
            audio_bytes += id.bytes;
            audio_s += id.bytes as f64 / most_bytes_per_s(key);
        }
    }
    let totals = ClipTotals {
        all: members.len() as u64,
        stretched: stretched.len() as u64,
        file_bytes: audio_bytes,
    };
    // Without audio, any rate gives zero seconds.
    let bytes_per_s = if audio_s > 0.0 {
        audio_bytes as f64 / audio_s
    } else {
        1.0
    };
    let raw_bytes = features.estimate(totals, bytes_per_s);

    match plan.recipe.shards.compression {
        Compression::Zstd => (raw_bytes as f64 * ZSTD_RATIO) as u64,
        Compression::Lz4 | Compression::None => raw_bytes,
    }
}

/// Returns the highest rate of the format that the extension of a clip's file states.
fn most_bytes_per_s(clip_key: &str) -> f64 {
    let extension = clip_key
        .rsplit_once('.')
        .map(|(_, extension)| extension.to_ascii_lowercase());
    match extension.as_deref() {
        Some("mp3" | "ogg" | "opus" | "aac") => LOSSY_BYTES_PER_S,
        _ => LOSSLESS_BYTES_PER_S,
    }
}

/// Refuses a run whose shards cannot fit on the store's file system.
///
/// # Errors
/// [`Kind::NoSpace`] if the space is too small. If the free space is unknown, it is assumed to be sufficient.
pub fn require_space(store: &Path, needed_bytes: u64) -> Result<(), PlainError> {
    let Some(free_bytes) = free_bytes(store) else {
        return Ok(());
    };

    if free_bytes < needed_bytes {
        let message = format!(
            "{}: about {needed_bytes} bytes are needed and {free_bytes} are free: free some space, or choose a folder on \
             another file system",
            store.display()
        );
        return Err(PlainError::new(Kind::NoSpace, message));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uncompressed_audio_may_have_a_high_rate() {
        // 32-bit stereo at 384 kHz, and 24 bits of 7.1 channels at 192 kHz.
        for most in [8.0 * 384_000.0, 8.0 * 3.0 * 192_000.0] {
            assert!(most_bytes_per_s("album/1.WAV") >= most);
            assert!(most_bytes_per_s("without an extension") >= most);
        }
        // An upper bound for MP3 that is not so high that the check is useless.
        assert_eq!(most_bytes_per_s("000/000002.mp3"), LOSSY_BYTES_PER_S);
    }
}
