//! Counters that threads update while they work, for progress and the report.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wavemill_runtime::clock::cpu_time;

/// CPU nanoseconds by stage, over all threads.
#[derive(Debug, Default)]
pub struct StageTimes {
    /// Reading compressed bytes.
    pub read: AtomicU64,
    /// Decoding and resampling.
    pub decode: AtomicU64,
    /// STFT to packed tensors.
    pub features: AtomicU64,
    /// Parquet encoding and compression.
    pub encode: AtomicU64,
    /// Reading rows of an earlier version.
    pub take: AtomicU64,
}

/// Counters that are updated while the run is in progress.
#[derive(Debug, Default)]
pub struct Counters {
    /// Clips that have become rows or rejects.
    pub clips: AtomicU64,
    /// Rejects among them.
    pub rejects: AtomicU64,
    /// Clips among them that were decoded, or at least read.
    pub clips_read: AtomicU64,
    /// Rows that were copied from an earlier version, each counted once for every feature.
    pub rows_taken: AtomicU64,
    /// Compressed bytes read.
    pub bytes: AtomicU64,
    /// CPU times of the stages.
    pub times: StageTimes,
    /// Times that workers waited.
    pub workers: WorkerTimes,
    /// Work and times of a device's lanes.
    pub lanes: LaneTimes,
}

/// Times that workers waited, summed over all workers.
#[derive(Debug, Default)]
pub struct WorkerTimes {
    /// Wall-clock nanoseconds without a clip or a row group, or waiting for memory or a device with one.
    pub waiting: AtomicU64,
    /// Wall-clock nanoseconds from the start of each worker to its end.
    pub total: AtomicU64,
}

/// Work and times of lanes, summed over all lanes.
#[derive(Debug, Default)]
pub struct LaneTimes {
    /// Wall-clock nanoseconds spent on batches, including copies.
    pub busy: AtomicU64,
    /// Wall-clock nanoseconds from waiting for the first batch to the end.
    pub total: AtomicU64,
    /// Number of computed batches.
    pub batches: AtomicU64,
    /// Number of clips in these batches.
    pub clips: AtomicU64,
    /// Number of these clips that could not be decoded into page-locked memory, so that the driver copied them once
    /// more.
    pub slow_clips: AtomicU64,
    /// Reasons why lanes ended early, one sentence each.
    failures: Mutex<Vec<String>>,
}

impl LaneTimes {
    /// Records why a lane ended early.
    pub fn fail(&self, words: String) {
        self.lock_failures().push(words);
    }

    /// Returns warnings for the user, one sentence each: why lanes ended early, and what slowed them down.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.lock_failures().clone();
        let slow_clips = self.slow_clips.load(Ordering::Relaxed);
        if slow_clips > 0 {
            warnings.push(format!(
                "the system gave no page-locked memory for {slow_clips} clips; \
                 their copies to the device were slower"
            ));
        }
        warnings
    }

    fn lock_failures(&self) -> MutexGuard<'_, Vec<String>> {
        // A panic cannot leave the list in an invalid state: sentences are only appended.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the calling thread's CPU time since `start`; returns its current CPU time.
pub(super) fn add_time(total: &AtomicU64, start: Duration) -> Duration {
    let now = cpu_time();
    // Relaxed, here and for the other counters, because they do not synchronize access to other data.
    total.fetch_add(
        now.saturating_sub(start).as_nanos() as u64,
        Ordering::Relaxed,
    );
    now
}

/// Adds the wall-clock time since `start`.
pub(super) fn add_wall(total: &AtomicU64, start: Instant) {
    total.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
}
