//! Counters that threads update while they work, for progress and the report.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wavemill_runtime::clock::cpu_time;
use wavemill_schemas::text::counted;

/// CPU time of each stage in nanoseconds, summed over all threads.
#[derive(Debug, Default)]
pub struct StageTimes {
    /// Time for reading compressed bytes.
    pub read: AtomicU64,
    /// Time for decoding and resampling.
    pub decode: AtomicU64,
    /// Time for computing features, from the STFT to packed tensors.
    pub features: AtomicU64,
    /// Time for Parquet encoding and compression.
    pub encode: AtomicU64,
    /// Time for reading rows of an earlier version.
    pub take: AtomicU64,
}

/// Counters that are updated while the run is in progress.
#[derive(Debug, Default)]
pub struct Counters {
    /// Number of clips that have become rows or rejects.
    pub clips: AtomicU64,
    /// Number of clips that were rejected.
    pub rejects: AtomicU64,
    /// Number of clips that were decoded, or at least read.
    pub clips_read: AtomicU64,
    /// Number of rows that were copied from an earlier version, each counted once for every feature.
    pub rows_taken: AtomicU64,
    /// Number of compressed bytes read.
    pub bytes: AtomicU64,
    /// CPU times of the stages.
    pub times: StageTimes,
    /// Waiting and running times of workers.
    pub workers: WorkerTimes,
    /// Work and times of the lanes, the threads of a device.
    pub lanes: LaneTimes,
}

/// Waiting and running times, summed over all workers.
#[derive(Debug, Default)]
pub struct WorkerTimes {
    /// Wall-clock nanoseconds in which workers had no clip or row group, or waited for memory or a device.
    pub waiting: AtomicU64,
    /// Wall-clock nanoseconds from the start of each worker thread to its end.
    pub total: AtomicU64,
}

/// Work and times, summed over all lanes (threads of a device).
#[derive(Debug, Default)]
pub struct LaneTimes {
    /// Wall-clock nanoseconds that lanes spent on batches, including copies.
    pub busy: AtomicU64,
    /// Wall-clock nanoseconds from the time when lanes start to wait for the first batch to their end.
    pub total: AtomicU64,
    /// Number of batches that were computed.
    pub batches: AtomicU64,
    /// Number of clips in the computed batches.
    pub clips: AtomicU64,
    /// Number of these clips that could not be decoded into page-locked memory, so that the driver copied them once
    /// more.
    pub slow_clips: AtomicU64,
    /// Number of clips that were too large for a device, and were computed on the CPU.
    pub cpu_clips: AtomicU64,
    /// Reasons why lanes (threads of a device) ended early, one sentence each.
    failures: Mutex<Vec<String>>,
}

impl LaneTimes {
    /// Records the reason why a lane (a thread of a device) ended early.
    pub fn fail(&self, message: String) {
        self.lock_failures().push(message);
    }

    /// Returns warnings for the user, one sentence each: why lanes (threads of a device) ended early or were slow.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.lock_failures().clone();
        let cpu_clips = self.cpu_clips.load(Ordering::Relaxed);
        if cpu_clips > 0 {
            warnings.push(format!(
                "{} computed on the CPU, because the device has too little memory",
                counted(cpu_clips, "clip")
            ));
        }
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

/// Adds the calling thread's CPU time since `start` to `total`; returns the thread's current CPU time.
pub(super) fn add_time(total: &AtomicU64, start: Duration) -> Duration {
    let now = cpu_time();
    // The memory order is relaxed, here and for the other counters, because counters do not synchronize other data.
    total.fetch_add(
        now.saturating_sub(start).as_nanos() as u64,
        Ordering::Relaxed,
    );
    now
}

/// Adds the wall-clock time since `start` to `total`.
pub(super) fn add_wall(total: &AtomicU64, start: Instant) {
    total.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
}
