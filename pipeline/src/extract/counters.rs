//! What threads count while they work: for progress, and for the report.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

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

/// Live counters, for progress.
#[derive(Debug, Default)]
pub struct Counters {
    /// Clips with an outcome.
    pub clips: AtomicU64,
    /// Rejects among them.
    pub rejects: AtomicU64,
    /// Clips among them that were decoded, or at least read.
    pub clips_read: AtomicU64,
    /// Rows that were taken over from an earlier version, each counted once for every feature.
    pub rows_taken: AtomicU64,
    /// Compressed bytes read.
    pub bytes: AtomicU64,
    /// Where CPU time went.
    pub times: StageTimes,
    /// How much of their time workers had nothing to do.
    pub workers: WorkerTimes,
    /// What a device's lanes did.
    pub lanes: LaneTimes,
}

/// How long workers waited, over all of them.
#[derive(Debug, Default)]
pub struct WorkerTimes {
    /// Wall nanoseconds without a clip or a row group, or with one that memory or a device had no place for yet.
    pub waiting: AtomicU64,
    /// Wall nanoseconds from a worker's start to its end.
    pub total: AtomicU64,
}

/// What lanes did, over all of them.
#[derive(Debug, Default)]
pub struct LaneTimes {
    /// Wall nanoseconds in batches, copies included.
    pub busy: AtomicU64,
    /// Wall nanoseconds from the first batch's wait to the end.
    pub total: AtomicU64,
    /// Batches computed.
    pub batches: AtomicU64,
    /// Clips in them.
    pub clips: AtomicU64,
    /// Clips among them that could not be decoded into page-locked memory, so that the driver copied them once more.
    pub slow_clips: AtomicU64,
    /// Why lanes ended early.
    failures: Mutex<Vec<String>>,
}

impl LaneTimes {
    /// A lane ended early.
    pub fn fail(&self, words: String) {
        self.lock_failures().push(words);
    }

    /// What a person should know of the lanes, a sentence each: why some ended early, and what made them slow.
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
        // A panic cannot leave the list half changed: sentences are only added.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// CPU time of the calling thread.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// Adds the calling thread's CPU time since `start`; returns the time now.
pub(super) fn add_time(total: &AtomicU64, start: Duration) -> Duration {
    let now = cpu_time();
    // Relaxed, here and at the other counters: nothing else is read by what they say.
    total.fetch_add(
        now.saturating_sub(start).as_nanos() as u64,
        Ordering::Relaxed,
    );
    now
}

/// Adds the wall time since `start`.
pub(super) fn add_wall(total: &AtomicU64, start: Instant) {
    total.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
}
