//! A clip that is allowed and does not fit into memory: what it needs, and what would be enough.

use super::ExtractError;
use crate::budget::Refusal;
use crate::settings::MemoryShares;

/// Why a clip ended the run.
#[derive(Debug, thiserror::Error)]
#[error(
    "{clip_key}: it needs {} MiB at once{}, and --memory-limit {} MiB leaves {} MiB for clips: give --memory-limit {}MiB \
     or more, or {}{}; the same command goes on from here",
    mib(*needed_bytes), self.parts(), mib(shares.limit_bytes), mib(shares.clips_bytes), mib(self.enough_bytes()),
    self.smaller_clip(), self.smaller_groups()
)]
pub struct ClipMemory {
    /// Which clip.
    pub clip_key: String,
    /// With what waits for it.
    pub needed_bytes: u64,
    /// Its file alone.
    pub file_bytes: u64,
    /// Rows that wait for it to fill their row group.
    pub waiting_bytes: u64,
    /// What there is.
    pub shares: MemoryShares,
}

impl ExtractError {
    /// A clip of `file_bytes` that is not let in.
    pub(super) fn refused(
        refusal: Refusal,
        clip_key: &str,
        file_bytes: u64,
        shares: MemoryShares,
    ) -> Self {
        match refusal {
            Refusal::Closed => Self::Elsewhere,
            Refusal::Full { needed, waiting } => Self::ClipMemory(ClipMemory {
                clip_key: clip_key.to_owned(),
                needed_bytes: needed,
                file_bytes,
                waiting_bytes: waiting,
                shares,
            }),
        }
    }
}

impl ClipMemory {
    /// A limit under which it fits: clips have half of it, less what workers' tables take.
    const fn enough_bytes(&self) -> u64 {
        let tables_bytes = self.shares.limit_bytes / 2 - self.shares.clips_bytes;
        (self.needed_bytes + tables_bytes) * 2
    }

    fn parts(&self) -> String {
        let file = mib(self.file_bytes);
        match mib(self.waiting_bytes) {
            0 => format!(" (its file alone {file})"),
            waiting => format!(" (its file alone {file}, rows that wait for it {waiting})"),
        }
    }

    /// What makes the clip smaller. A file is read whole, so a duration helps only where the file itself fits.
    const fn smaller_clip(&self) -> &'static str {
        if self.file_bytes > self.shares.clips_bytes {
            "take the file out of the archive (files are read whole: audio.max_duration_s and audio.duration_s do not help)"
        } else {
            "set a smaller audio.max_duration_s or audio.duration_s in the recipe"
        }
    }

    const fn smaller_groups(&self) -> &'static str {
        if self.waiting_bytes > 0 {
            ", or a smaller shards.row_group_rows"
        } else {
            ""
        }
    }
}

/// Whole mebibytes, rounded up.
const fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
