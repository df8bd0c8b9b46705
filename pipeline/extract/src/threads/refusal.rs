//! The error for an allowed clip that does not fit into memory: how much it needs, and which limit would be enough.

use wavemill_runtime::budget::Refusal;
use wavemill_schemas::exit::PlainError;
use wavemill_source::Media;

use crate::error::ExtractError;
use crate::settings::MemoryShares;

/// The memory of a clip that does not fit, which ends the run.
struct ClipMemory {
    /// Kind of clip: audio or picture.
    media: Media,
    /// Memory in bytes needed for the clip and for the rows that wait for it.
    needed_bytes: u64,
    /// Size of the clip's file in bytes.
    file_bytes: u64,
    /// Memory in bytes of rows that wait for the clip to fill their row group.
    waiting_bytes: u64,
    /// Memory limit of the process, and the share of this limit for clips.
    shares: MemoryShares,
}

impl ExtractError {
    /// Creates the error for a clip of `file_bytes` that was not admitted.
    pub(super) fn refused(
        refusal: Refusal,
        clip_key: &str,
        file_bytes: u64,
        media: Media,
        shares: MemoryShares,
    ) -> Self {
        match refusal {
            Refusal::Closed => Self::Elsewhere,
            Refusal::Full { needed, waiting } => {
                let memory = ClipMemory {
                    media,
                    needed_bytes: needed,
                    file_bytes,
                    waiting_bytes: waiting,
                    shares,
                };
                PlainError::failed(memory.message(clip_key)).into()
            }
        }
    }
}

impl ClipMemory {
    fn message(&self, clip_key: &str) -> String {
        format!(
            "{clip_key}: needs {} MiB at once{}, but --memory-limit {} MiB leaves {} MiB for clips: give --memory-limit \
             {}MiB or more {}, or {}{}; run the same command again to continue",
            mib(self.needed_bytes),
            self.parts(),
            mib(self.shares.limit_bytes),
            mib(self.shares.clips_bytes),
            mib(self.enough_bytes()),
            self.purpose(),
            self.smaller_clip(),
            self.smaller_groups()
        )
    }

    /// Returns a memory limit under which the clip fits: clips get half of the limit, minus excess memory of workers'
    /// tables.
    const fn enough_bytes(&self) -> u64 {
        let tables_bytes = self.shares.limit_bytes / 2 - self.shares.clips_bytes;
        (self.needed_bytes + tables_bytes) * 2
    }

    /// Returns what fits under [`Self::enough_bytes`]. The needs of a clip are not known before its file is read, and
    /// those of later clips only when their turn comes.
    const fn purpose(&self) -> &'static str {
        let clip_bytes = self.needed_bytes - self.waiting_bytes;
        if clip_bytes <= self.file_bytes {
            "to read this file (decoding it takes further memory)"
        } else {
            "for this clip"
        }
    }

    fn parts(&self) -> String {
        let file = mib(self.file_bytes);
        match mib(self.waiting_bytes) {
            0 => format!(" (the file alone {file})"),
            waiting => format!(" (the file alone {file}, rows waiting for it {waiting})"),
        }
    }

    /// Returns advice that makes the clip smaller or rejects it. Files are read whole, so a smaller duration or tensor
    /// does not help if the file itself does not fit.
    const fn smaller_clip(&self) -> &'static str {
        let is_file_too_large = self.file_bytes > self.shares.clips_bytes;
        match (self.media, is_file_too_large) {
            (Media::Audio, true) => {
                "set a smaller audio.max_file_bytes in the recipe, which rejects such files (files are read completely: \
                 audio.max_duration_s and audio.duration_s do not help)"
            }
            (Media::Audio, false) => {
                "set a smaller audio.max_duration_s, audio.duration_s or audio.max_file_bytes in the recipe"
            }
            (Media::Pictures, true) => {
                "set a smaller image.max_file_bytes in the recipe, which rejects such files (files are read completely: \
                 crop, width and height do not help)"
            }
            (Media::Pictures, false) => {
                "set a smaller image.max_pixels in the recipe, which rejects such pictures (they are decoded \
                 completely: crop does not help), or a smaller width and height"
            }
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

/// Returns the number of mebibytes in `bytes`, rounded up.
const fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn said(media: Media, file_bytes: u64) -> String {
        let refusal = Refusal::Full {
            needed: 274 * MIB,
            waiting: 0,
        };
        let shares = MemoryShares {
            limit_bytes: 256 * MIB,
            clips_bytes: 128 * MIB,
        };
        ExtractError::refused(refusal, "g/one", file_bytes, media, shares).to_string()
    }

    #[test]
    fn memory_advice_fits_the_kind_of_media() {
        let audio = said(Media::Audio, 28 * MIB);
        assert_eq!(
            audio,
            "g/one: needs 274 MiB at once (the file alone 28), but --memory-limit 256 MiB leaves 128 MiB for clips: \
             give --memory-limit 548MiB or more for this clip, or set a smaller audio.max_duration_s, \
             audio.duration_s or audio.max_file_bytes in the recipe; run the same command again to continue"
        );
        assert!(said(Media::Audio, 200 * MIB).contains("audio.duration_s do not help)"));
        assert!(said(Media::Audio, 274 * MIB).contains("548MiB or more to read this file"));

        for file_bytes in [28 * MIB, 200 * MIB] {
            let picture = said(Media::Pictures, file_bytes);
            assert!(
                picture.contains("give --memory-limit 548MiB or more"),
                "{picture}"
            );
            assert!(!picture.contains("audio."), "{picture}");
        }
        assert!(
            said(Media::Pictures, 28 * MIB)
                .contains("or set a smaller image.max_pixels in the recipe")
        );
        assert!(
            said(Media::Pictures, 200 * MIB)
                .contains("or set a smaller image.max_file_bytes in the recipe")
        );
    }
}
