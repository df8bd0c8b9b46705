//! Where a job is, how far, and whether it was asked to stop: what the job's own code says and others look at.
//!
//! It knows nothing of what the phases do, so that every module of a job can use it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What a job is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The audio's folder or zip; nothing is counted.
    #[default]
    Listing,
    /// Metadata files; counts bytes.
    Metadata,
    /// The recipe's SQL; counts steps.
    Cleaning,
    /// Files that are read and not decoded: to find duplicates, and changes. Counts clips.
    Hashing,
    /// Sides, shards, and what the store has already; nothing is counted.
    Planning,
    /// Another process that writes the store; nothing is counted.
    Waiting,
    /// Tables of the metadata on their way to the store; nothing is counted.
    Tables,
    /// Clips; they have counters of their own.
    Clips,
    /// The manifest.
    Commit,
    /// Files of a store that are compared with its manifest before they are read; counts bytes.
    Checking,
    /// Rows of a store on their way to files of other formats; counts rows.
    Exporting,
}

impl Phase {
    // In the order of the declaration: `Course::phase` finds a phase by its number.
    const ALL: [Self; 11] = [
        Self::Listing,
        Self::Metadata,
        Self::Cleaning,
        Self::Hashing,
        Self::Planning,
        Self::Waiting,
        Self::Tables,
        Self::Clips,
        Self::Commit,
        Self::Checking,
        Self::Exporting,
    ];

    /// One word, for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Metadata => "metadata",
            Self::Cleaning => "cleaning",
            Self::Hashing => "hashing",
            Self::Planning => "planning",
            Self::Waiting => "waiting",
            Self::Tables => "tables",
            Self::Clips => "clips",
            Self::Commit => "commit",
            Self::Checking => "checking",
            Self::Exporting => "exporting",
        }
    }

    /// What is counted in it, if anything.
    pub const fn unit(self) -> Option<&'static str> {
        match self {
            Self::Metadata | Self::Checking => Some("bytes"),
            Self::Cleaning => Some("steps"),
            Self::Hashing | Self::Clips => Some("clips"),
            Self::Exporting => Some("rows"),
            Self::Listing | Self::Planning | Self::Waiting | Self::Tables | Self::Commit => None,
        }
    }

    /// Whether what was done in it must be brought to an end in order. All others may be left at any moment: up to the
    /// plan nothing is written, and a table or an export that is not whole has another name.
    pub const fn ends_in_order(self) -> bool {
        matches!(self, Self::Clips | Self::Commit)
    }

    /// What an interruption in it left behind, in words.
    pub const fn left_behind(self) -> &'static str {
        match self {
            Self::Tables | Self::Clips | Self::Commit => "the same command goes on from there",
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
            Self::Waiting => "waiting for another wavemill that writes the store",
            Self::Tables => "writing tables",
            Self::Clips => "extracting",
            Self::Commit => "committing",
            Self::Checking => "comparing files with the manifest",
            Self::Exporting => "exporting",
        })
    }
}

/// The course of one job.
#[derive(Debug, Default)]
pub struct Course {
    /// Set it: the job ends as interrupted, where it is in [`Phase::Clips`] after the clips in flight.
    pub stop: AtomicBool,
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    times: Mutex<Times>,
}

/// How long phases took, by the wall clock. For people: nothing stored is made of it.
#[derive(Debug, Default)]
struct Times {
    /// When the present one began.
    since: Option<Instant>,
    seconds: BTreeMap<&'static str, f64>,
}

impl Times {
    /// The present phase ends here.
    fn end(&mut self, phase: Phase) {
        let now = Instant::now();
        if let Some(since) = self.since.replace(now) {
            *self.seconds.entry(phase.name()).or_default() += (now - since).as_secs_f64();
        }
    }
}

impl Course {
    /// The next phase begins, of which `total` are to be done; 0: not known.
    pub fn enter(&self, phase: Phase, total: u64) {
        // First, while the phase is still the one that ends. A look between the stores below may see the new count in
        // the old phase: then one line of progress is wrong, and nothing else.
        self.lock_times().end(self.phase());
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn lock_times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wall seconds by phase, from the first one that was entered until now.
    pub fn seconds(&self) -> BTreeMap<&'static str, f64> {
        let mut times = self.lock_times();
        // This begins the present phase anew, so that a second call counts no second twice.
        times.end(self.phase());
        times.seconds.clone()
    }

    /// So many more are done.
    pub fn add(&self, done: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
    }

    /// Where the job is.
    pub fn phase(&self) -> Phase {
        Phase::ALL
            .get(usize::from(self.phase.load(Ordering::Relaxed)))
            .copied()
            .unwrap_or_default()
    }

    /// Done so far in this phase, in its unit.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// To be done in this phase; 0: not known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether the job was asked to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A file of a job: its bytes count as done.
pub(crate) struct CountingReader<R> {
    input: R,
    course: Arc<Course>,
}

impl<R: Read> CountingReader<R> {
    /// Counts what is read of `input`.
    pub(crate) const fn new(input: R, course: Arc<Course>) -> Self {
        Self { input, course }
    }
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.course.add(got as u64);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_starts_at_nothing_and_is_found_again() {
        let course = Course::default();
        for phase in Phase::ALL {
            course.enter(phase, 10);
            assert_eq!(
                (course.phase(), course.done(), course.total()),
                (phase, 0, 10)
            );
            course.add(4);
            assert_eq!(course.done(), 4);
        }
        let seconds = course.seconds();
        assert!(Phase::ALL.iter().all(|phase| seconds[phase.name()] >= 0.0));
    }

    #[test]
    fn bytes_of_a_file_are_counted_as_they_are_read() {
        let course = Arc::new(Course::default());
        course.enter(Phase::Metadata, 5);
        let mut file = CountingReader::new(&b"12345"[..], Arc::clone(&course));
        file.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(course.done(), 3);
        file.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(course.done(), course.total());
    }
}
