//! Bounds of one run: the settings, checked against what the recipe needs.

use wavemill_kernels::stretch::STRETCHES_MAX;

use super::ExtractError;
use crate::features::FeaturePlan;
use crate::settings::{MEMORY_LIMIT_BYTES_MIN, MemoryShares, Settings};

/// Rows that a clip can give: segments of each of its variants. The recipe's rules know the same.
const ROWS_A_CLIP_MAX: usize = 100_000 * (1 + STRETCHES_MAX);

/// Workers' tables fit into the last quarter up to an eighth of the limit; what is more is taken from the clips.
const fn worker_room(settings: &Settings) -> u64 {
    settings.memory_limit_bytes / 8
}

/// Bounds of one run, checked against its recipe.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Worker threads.
    pub threads: usize,
    /// As given.
    pub memory_limit_bytes: u64,
    /// Between read and disk.
    pub in_flight_bytes: u64,
    /// For row groups being encoded.
    pub encode_bytes: u64,
    /// The largest buffer for a file, or of a worker's scratch, that is kept from clip to clip.
    pub kept_bytes: usize,
    /// What empty PCM buffers may take together.
    pub spare_pcm_bytes: u64,
    /// Rows a row group, at most.
    pub row_group_rows: usize,
    /// Planned clips.
    pub planned: u64,
    /// The part of them that may be rejected.
    pub reject_fraction: f64,
}

impl Limits {
    /// What there is for clips.
    pub(crate) const fn shares(&self) -> MemoryShares {
        MemoryShares {
            limit_bytes: self.memory_limit_bytes,
            clips_bytes: self.in_flight_bytes,
        }
    }

    /// Takes the bounds from the settings, and from what the plan needs.
    ///
    /// # Errors
    /// [`ExtractError::Memory`] where one row group, one clip and the workers' tables do not fit.
    pub(crate) fn new(
        settings: &Settings,
        planned: u64,
        row_group_rows: usize,
        features: &FeaturePlan,
    ) -> Result<Self, ExtractError> {
        let threads = settings.threads.max(1);
        // What a recipe with few rows never fills needs no room.
        let rows = row_group_rows.min(
            usize::try_from(planned)
                .unwrap_or(usize::MAX)
                .saturating_mul(ROWS_A_CLIP_MAX),
        );
        let worker_bytes = features.worker_bytes() * threads as u64;
        let limit_bytes = settings.memory_limit_bytes;
        let least_bytes = features
            .least_bytes(rows)
            .saturating_add(worker_bytes.saturating_sub(worker_room(settings)));
        // Clips have half of the limit.
        let needed_bytes = least_bytes.saturating_mul(2).max(MEMORY_LIMIT_BYTES_MIN);
        if limit_bytes < needed_bytes {
            return Err(ExtractError::Memory {
                limit_bytes,
                needed_bytes,
            });
        }

        Ok(Self {
            threads,
            memory_limit_bytes: limit_bytes,
            in_flight_bytes: settings
                .in_flight_bytes()
                .saturating_sub(worker_bytes.saturating_sub(worker_room(settings))),
            encode_bytes: settings.encode_bytes(),
            kept_bytes: settings.kept_bytes(),
            spare_pcm_bytes: settings.spare_pcm_bytes(),
            row_group_rows,
            planned,
            reject_fraction: settings.reject_fraction(planned),
        })
    }
}
