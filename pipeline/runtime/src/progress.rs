//! Phase and progress of a job, and whether it was asked to stop. The job's own code updates them, and other threads
//! read them.
//!
//! This module does not know the contents of the phases, so that every module of a job can use it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use wavemill_schemas::named_enum;

named_enum! {
    /// Phase of a job.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    #[repr(u8)]
    pub enum Phase {
        /// Listing the audio folder or zip; this phase has no progress count.
        #[default]
        Listing = "listing",
        /// Reading metadata files; progress is counted in bytes.
        Metadata = "metadata",
        /// Running the recipe's SQL; progress is counted in cleaning steps.
        Cleaning = "cleaning",
        /// Reading files before the extraction, to find copies and changes; progress is counted in clips.
        Hashing = "hashing",
        /// Determining splits, shards, and the contents of the store; this phase has no progress count.
        Planning = "planning",
        /// Waiting for another process that writes the store; this phase has no progress count.
        Waiting = "waiting",
        /// Writing metadata tables to the store; this phase has no progress count.
        Tables = "tables",
        /// Extracting clips, whose progress is counted elsewhere, in the run's own counters.
        Clips = "clips",
        /// Writing the manifest.
        Commit = "commit",
        /// Comparing files of a store with its manifest before they are read; progress is counted in bytes.
        Checking = "checking",
        /// Writing rows of a store to files of other formats; progress is counted in rows.
        Exporting = "exporting",
    }
}

impl Phase {
    /// Returns the unit in which the phase counts its progress, or `None` if it does not.
    pub const fn unit(self) -> Option<&'static str> {
        match self {
            Self::Metadata | Self::Checking => Some("bytes"),
            Self::Cleaning => Some("steps"),
            Self::Hashing | Self::Clips => Some("clips"),
            Self::Exporting => Some("rows"),
            Self::Listing | Self::Planning | Self::Waiting | Self::Tables | Self::Commit => None,
        }
    }

    /// Reports whether a phase must finish its work in flight when the job is stopped. All other phases may stop at any
    /// moment: nothing is written before the plan is made, and an incomplete table or export has a temporary name.
    pub const fn ends_in_order(self) -> bool {
        matches!(self, Self::Clips | Self::Commit)
    }

    /// Describes the state of the store after an interruption in this phase.
    pub const fn left_behind(self) -> &'static str {
        match self {
            Self::Tables | Self::Clips | Self::Commit => "run the same command again to continue",
            _ => "nothing was written",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listing => "listing the audio",
            Self::Metadata => "reading metadata",
            Self::Cleaning => "cleaning the metadata",
            Self::Hashing => "comparing audio files",
            Self::Planning => "planning",
            Self::Waiting => "waiting for another wavemill that is writing the store",
            Self::Tables => "writing tables",
            Self::Clips => "extracting",
            Self::Commit => "committing",
            Self::Checking => "comparing files with the manifest",
            Self::Exporting => "exporting",
        })
    }
}

/// Phase and progress of one job.
#[derive(Debug, Default)]
pub struct Progress {
    /// Set this flag to stop the job. The job ends as interrupted; [`Phase::Clips`] first completes clips in flight.
    pub stop: AtomicBool,
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    times: Mutex<Times>,
}

/// Durations of the phases by the wall clock. They are for display: nothing stored depends on them.
#[derive(Debug, Default)]
struct Times {
    /// Start of the current phase.
    since: Option<Instant>,
    seconds: BTreeMap<&'static str, f64>,
}

impl Times {
    /// Ends the current phase.
    fn end(&mut self, phase: Phase) {
        let now = Instant::now();
        if let Some(since) = self.since.replace(now) {
            *self.seconds.entry(phase.name()).or_default() += (now - since).as_secs_f64();
        }
    }
}

impl Progress {
    /// Starts the next phase of the job with a total of `total` units of progress; 0 if the total is unknown.
    pub fn enter(&self, phase: Phase, total: u64) {
        // Update the times first, while the old phase is still set. A reader between the stores below may see the new
        // count with the old phase: one line of progress is then wrong, and nothing else.
        self.lock_times().end(self.phase());
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn lock_times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the wall-clock seconds of each phase, from the first one entered until now.
    pub fn seconds(&self) -> BTreeMap<&'static str, f64> {
        let mut times = self.lock_times();
        // The current phase is restarted, so that a second call does not count the same time again.
        times.end(self.phase());
        times.seconds.clone()
    }

    /// Adds to the number of units done in the current phase.
    pub fn add(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    /// Returns the current phase of the job.
    pub fn phase(&self) -> Phase {
        Phase::ALL
            .get(usize::from(self.phase.load(Ordering::Relaxed)))
            .copied()
            .unwrap_or_default()
    }

    /// Returns the number of units done in the current phase.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Returns the total number of units of the current phase; 0 if unknown.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Reports whether the job was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Reader of a job's file that counts its bytes as progress.
pub struct CountingReader<R> {
    input: R,
    progress: Arc<Progress>,
}

impl<R: Read> CountingReader<R> {
    /// Creates a reader that counts the bytes read from `input`.
    pub const fn new(input: R, progress: Arc<Progress>) -> Self {
        Self { input, progress }
    }
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.progress.add(got as u64);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_start_at_zero_and_are_reused() {
        let progress = Progress::default();
        for phase in Phase::ALL {
            progress.enter(phase, 10);
            assert_eq!(
                (progress.phase(), progress.done(), progress.total()),
                (phase, 0, 10)
            );

            progress.add(4);
            assert_eq!(progress.done(), 4);
        }

        let seconds = progress.seconds();
        assert!(Phase::ALL.iter().all(|phase| seconds[phase.name()] >= 0.0));
    }

    #[test]
    fn bytes_of_a_file_are_counted_as_they_are_read() {
        let progress = Arc::new(Progress::default());
        progress.enter(Phase::Metadata, 5);
        let mut file = CountingReader::new(&b"12345"[..], Arc::clone(&progress));
        file.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(progress.done(), 3);
        file.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(progress.done(), progress.total());
    }
}
