//! Limits of a run: the settings, checked against the needs of the recipe.

use wavemill_kernels::stretch::STRETCHES_MAX;

use crate::error::ExtractError;
use crate::features::FeaturePlan;
use crate::settings::{MEMORY_LIMIT_BYTES_MIN, MemoryShares, Settings};

/// Maximum number of rows of a clip: segments of each of its variants. The validation of recipes has the same limits.
const ROWS_A_CLIP_MAX: usize = 100_000 * (1 + STRETCHES_MAX);

/// Returns how much memory workers' tables may take from the last quarter of the limit: an eighth of the limit. Tables
/// beyond that reduce the memory for clips.
const fn worker_room(settings: &Settings) -> u64 {
    settings.memory_limit_bytes / 8
}

/// Limits of a run, checked against the needs of its recipe.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Number of worker threads.
    pub threads: usize,
    /// Memory limit of the process in bytes, as set.
    pub memory_limit_bytes: u64,
    /// Memory limit in bytes for clips, from reading their file until their rows are on disk.
    pub in_flight_bytes: u64,
    /// Memory limit in bytes for encoding row groups.
    pub encode_bytes: u64,
    /// Size of the largest file buffer or scratch buffer that is kept from clip to clip.
    pub kept_bytes: usize,
    /// Limit for the total size of free PCM buffers.
    pub spare_pcm_bytes: u64,
    /// Number of planned clips.
    pub planned: u64,
    /// Maximum fraction of planned clips that may be rejected.
    pub reject_fraction: f64,
}

impl Limits {
    /// Returns the process's memory limit, and the share of this limit for clips.
    pub const fn shares(&self) -> MemoryShares {
        MemoryShares {
            limit_bytes: self.memory_limit_bytes,
            clips_bytes: self.in_flight_bytes,
        }
    }

    /// Creates the limits from the settings and the needs of the plan.
    ///
    /// # Errors
    /// An error of the kind `Usage` if one row group, one clip and the workers' tables do not fit.
    pub fn new(
        settings: &Settings,
        planned: u64,
        row_group_rows: usize,
        features: &FeaturePlan,
    ) -> Result<Self, ExtractError> {
        let threads = settings.threads.max(1);
        // A plan with few rows never fills a row group and needs memory for its own rows only.
        let rows = row_group_rows.min(
            usize::try_from(planned)
                .unwrap_or(usize::MAX)
                .saturating_mul(ROWS_A_CLIP_MAX),
        );
        let worker_bytes = features.worker_bytes() * threads as u64 + features.models_bytes();
        let limit_bytes = settings.memory_limit_bytes;
        let least_bytes = features
            .least_bytes(rows)
            .saturating_add(worker_bytes.saturating_sub(worker_room(settings)));
        // Clips get half of the limit.
        let needed_bytes = least_bytes.saturating_mul(2).max(MEMORY_LIMIT_BYTES_MIN);
        if limit_bytes < needed_bytes {
            return Err(ExtractError::usage(format!(
                "--memory-limit: {limit_bytes} bytes are not enough: this recipe needs {needed_bytes}, or a smaller \
                 shards.row_group_rows"
            )));
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
            planned,
            reject_fraction: settings.reject_fraction(planned),
        })
    }
}
