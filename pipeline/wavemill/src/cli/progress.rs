//! Snapshots of a run's progress, which are shown during the run.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, HumanDuration};
use serde::Serialize;
use wavemill_extract::error::ExtractError;
use wavemill_extract::run::RunMonitor;
use wavemill_runtime::progress::Phase;
use wavemill_terminal::display::{self, Display};

use super::interrupt;

/// The progress of a run at one moment, as one line reports it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    event: &'static str,
    phase: &'static str,
    /// Unit of the counts: `bytes`, `steps`, `clips`, `rows`; absent if the phase has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    /// Number of units completed in this phase by this process.
    done: u64,
    /// Number of units to complete in this phase; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    /// Completed units per second, averaged over the phase.
    per_s: f64,
    /// Seconds left in the phase at that rate; absent if nothing is done yet, or the total is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_s: Option<f64>,
    /// Number of clips rejected so far by this process.
    rejects: u64,
    /// Bytes of compressed audio read so far.
    audio_bytes: u64,
    /// Seconds since the phase began.
    elapsed_s: f64,
    #[serde(skip)]
    message: String,
}

impl Snapshot {
    /// Returns the progress of a run that has been in its phase for `elapsed`.
    fn new(monitor: &RunMonitor, elapsed: Duration) -> Self {
        let phase = monitor.progress.phase();
        let (done, total) = match phase {
            Phase::Clips => (
                monitor.counters.clips.load(Ordering::Relaxed),
                monitor.clips_total.load(Ordering::Relaxed),
            ),
            _ => (monitor.progress.done(), monitor.progress.total()),
        };

        let elapsed_s = elapsed.as_secs_f64();
        // At the start of a phase no time has passed, so a minimum avoids a division by zero.
        let per_s = done as f64 / elapsed_s.max(0.001);
        let left = total.saturating_sub(done);
        Self {
            event: "progress",
            phase: phase.name(),
            unit: phase.unit(),
            done,
            total: (total > 0).then_some(total),
            per_s,
            eta_s: (total > 0 && done > 0).then(|| left as f64 / per_s),
            rejects: monitor.counters.rejects.load(Ordering::Relaxed),
            audio_bytes: monitor.counters.bytes.load(Ordering::Relaxed),
            elapsed_s,
            message: phase.to_string(),
        }
    }
}

impl display::Snapshot for Snapshot {
    /// Returns text such as `extracting: 120 of 1000 clips (12 %), 12.5/s, 3 rejects, 70 seconds left`.
    fn line(&self) -> String {
        let mut line = self.message.clone();
        match (self.unit, self.total) {
            (None, _) => return line,
            (Some("bytes"), Some(total)) => {
                line += &format!(": {} of {}", DecimalBytes(self.done), DecimalBytes(total));
            }
            (Some("bytes"), None) => line += &format!(": {}", DecimalBytes(self.done)),
            (Some(unit), Some(total)) => line += &format!(": {} of {total} {unit}", self.done),
            (Some(unit), None) => line += &format!(": {} {unit}", self.done),
        }

        if let Some(total) = self.total {
            // More units can be completed than were announced, for example if a file grows while it is read.
            let percent = self.done.min(total) as f64 / total as f64 * 100.0;
            line += &format!(" ({} %)", percent as u64);
        }
        if self.unit == Some("clips") {
            line += &format!(", {:.1}/s", self.per_s);
        }
        if self.phase == Phase::Clips.name() {
            let audio = DecimalBytes((self.audio_bytes as f64 / self.elapsed_s.max(0.001)) as u64);
            line += &format!(", {audio}/s, {} rejects", self.rejects);
        }
        if let Some(eta_s) = self.eta_s {
            // At the start, the rate may be close to 0, so the seconds left may be too many for a `Duration`.
            let left = Duration::from_secs_f64(eta_s.min(1e9));
            line += &format!(", {} left", HumanDuration(left));
        }
        line
    }

    fn done(&self) -> u64 {
        self.done
    }

    fn total(&self) -> Option<u64> {
        self.total
    }
}

/// Runs a job and shows its progress. The first SIGINT or SIGTERM lets the job end in order, a second one ends it at
/// once.
///
/// # Errors
/// The errors of `job`, a wrong value of `WAVEMILL_PROGRESS_S`, or a thread that cannot be started.
pub fn accompanied<T, E: Into<anyhow::Error>>(
    monitor: &RunMonitor,
    job: impl FnOnce() -> Result<T, E>,
) -> anyhow::Result<T> {
    // The display is created before the job begins, so that a wrong `WAVEMILL_PROGRESS_S` ends the command at once.
    let display = Display::new()?;
    let _stopped = interrupt::stops(&monitor.progress);
    let mut clock = PhaseClock::new(monitor);
    display
        .accompany(|display| display.update(&clock.look(monitor)), job)
        .map_err(ExtractError::no_thread)?
        .map_err(Into::into)
}

/// The current phase of a run, and the time when it began.
pub struct PhaseClock {
    phase: Phase,
    start: Instant,
}

impl PhaseClock {
    /// Creates the clock of a run that is about to begin.
    pub fn new(monitor: &RunMonitor) -> Self {
        Self {
            phase: monitor.progress.phase(),
            start: Instant::now(),
        }
    }

    /// Returns the progress of the run. Restarts the clock if a new phase has begun.
    pub fn look(&mut self, monitor: &RunMonitor) -> Snapshot {
        if monitor.progress.phase() != self.phase {
            *self = Self::new(monitor);
        }
        Snapshot::new(monitor, self.start.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use wavemill_terminal::display::Snapshot as _;

    use super::*;

    fn at(phase: Phase, total: u64, done: u64) -> RunMonitor {
        let monitor = RunMonitor::default();
        monitor.progress.enter(phase, total);
        monitor.progress.add(done);
        monitor
    }

    #[test]
    fn metadata_progress_starts_at_zero_with_a_total() {
        let snapshot = Snapshot::new(
            &at(Phase::Metadata, 200_000_000, 50_000_000),
            Duration::from_secs(2),
        );
        assert_eq!(
            snapshot.line(),
            "reading metadata: 50.00 MB of 200.00 MB (25 %), 6 seconds left"
        );

        let begun = Snapshot::new(&at(Phase::Metadata, 200, 0), Duration::from_secs(0));
        assert_eq!((begun.done, begun.total, begun.eta_s), (0, Some(200), None));

        assert_eq!(
            Snapshot::new(&at(Phase::Planning, 0, 0), Duration::ZERO).line(),
            "planning"
        );
    }

    #[test]
    fn time_left_is_that_of_the_clips_left_to_this_run_at_its_own_rate() {
        // 1,000 clips are planned and 900 were done before a kill: 100 are left to this run, and 20 of them took 10 s.
        let monitor = at(Phase::Clips, 0, 0);
        monitor.clips_total.store(100, Ordering::Relaxed);
        monitor.counters.clips.store(20, Ordering::Relaxed);
        monitor.counters.rejects.store(2, Ordering::Relaxed);
        monitor.counters.bytes.store(5_000_000, Ordering::Relaxed);

        let snapshot = Snapshot::new(&monitor, Duration::from_secs(10));
        assert_eq!(
            snapshot.line(),
            "extracting: 20 of 100 clips (20 %), 2.0/s, 500.00 kB/s, 2 rejects, 40 seconds left"
        );

        let json = serde_json::to_value(&snapshot).unwrap();
        let wanted = serde_json::json!({"event": "progress", "phase": "clips", "unit": "clips", "done": 20, "total": 100,
            "per_s": 2.0, "eta_s": 40.0, "rejects": 2, "audio_bytes": 5_000_000, "elapsed_s": 10.0});
        assert_eq!(json, wanted);
    }
}
