//! Shows the progress of a run on stderr: as a bar on a terminal, as occasional lines in a log, or as JSON for
//! programs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Thread};
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde::Serialize;
use wavemill_extract::run::RunMonitor;
use wavemill_extract::threads::ExtractError;
use wavemill_runtime::course::Phase;

use super::interrupt::StoppedBySignals;
use super::output::{self, OutputArgs, Progress};

/// Time between two updates of a bar, and between two checks whether a line is due.
const TICK: Duration = Duration::from_millis(200);

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
    /// Units per second, averaged over the phase.
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
    words: String,
}

impl Snapshot {
    /// Returns the progress of a run that has been in its phase for `elapsed`.
    fn new(monitor: &RunMonitor, elapsed: Duration) -> Self {
        let phase = monitor.course.phase();
        let (done, total) = match phase {
            Phase::Clips => (
                monitor.counters.clips.load(Ordering::Relaxed),
                monitor.clips_total.load(Ordering::Relaxed),
            ),
            _ => (monitor.course.done(), monitor.course.total()),
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
            words: phase.to_string(),
        }
    }

    /// Formats the progress for people: `extracting: 120 of 1000 clips (12 %), 12.5/s, 3 rejects, 70 seconds left`.
    fn line(&self) -> String {
        let mut line = self.words.clone();
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
            // More can be done than was announced, for example if a file grows while it is read.
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
            // At the start the rate may be close to zero, and a `Duration` cannot represent every number of seconds.
            let left = Duration::from_secs_f64(eta_s.min(1e9));
            line += &format!(", {} left", HumanDuration(left));
        }
        line
    }
}

/// The schedule of progress lines.
#[derive(Debug)]
struct Ticker {
    every: Duration,
    next: Duration,
}

impl Ticker {
    const fn new(every: Duration) -> Self {
        Self { every, next: every }
    }

    /// Reports whether a line is due at `now`, the time since the start. Missed lines are not written later.
    fn is_due(&mut self, now: Duration) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + self.every;
        true
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
    let shown = OutputArgs::get().shown();
    // Read before the job begins: a wrong value of `WAVEMILL_PROGRESS_S` ends the command at once.
    let every = output::interval()?;
    let _stopped = StoppedBySignals::job(&monitor.course);

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let display = Builder::new()
            .spawn_scoped(scope, || {
                show(monitor, shown, every, || done.load(Ordering::Relaxed));
            })
            .map_err(|source| ExtractError::Threads { source })?;
        // This guard is dropped at the end of the block, before the scope waits for the display.
        let _ending = DisplayEnd {
            done: &done,
            display: display.thread().clone(),
        };
        job().map_err(Into::into)
    })
}

/// A guard that ends the display thread at once when it is dropped, also by a panic: the scope waits for that thread.
struct DisplayEnd<'a> {
    done: &'a AtomicBool,
    display: Thread,
}

impl Drop for DisplayEnd<'_> {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        self.display.unpark();
    }
}

/// Shows the progress of `monitor` in the form `shown` until `done` returns true; `every` is the time between two
/// lines.
pub fn show(monitor: &RunMonitor, shown: Progress, every: Duration, done: impl Fn() -> bool) {
    match shown {
        Progress::None => {}
        Progress::Bar | Progress::Auto => draw(monitor, done),
        Progress::Plain => {
            write_lines(monitor, every, done, |snapshot| {
                eprintln!("wavemill: {}", snapshot.line())
            });
        }
        Progress::Json => write_lines(monitor, every, done, |snapshot| {
            // A snapshot contains only numbers and names, so it can always be serialized.
            if let Ok(line) = serde_json::to_string(snapshot) {
                eprintln!("{line}");
            }
        }),
    }
}

/// The current phase of a run, and the time when it began.
struct PhaseClock {
    phase: Phase,
    start: Instant,
}

impl PhaseClock {
    fn new(monitor: &RunMonitor) -> Self {
        Self {
            phase: monitor.course.phase(),
            start: Instant::now(),
        }
    }

    /// Returns the progress of the run. Restarts the clock if a new phase has begun.
    fn look(&mut self, monitor: &RunMonitor) -> Snapshot {
        if monitor.course.phase() != self.phase {
            *self = Self::new(monitor);
        }
        Snapshot::new(monitor, self.start.elapsed())
    }
}

fn write_lines(
    monitor: &RunMonitor,
    every: Duration,
    done: impl Fn() -> bool,
    write: impl Fn(&Snapshot),
) {
    let start = Instant::now();
    let mut since = PhaseClock::new(monitor);
    let mut ticker = Ticker::new(every);
    while !done() {
        // The thread is parked and does not sleep: the end of the job wakes it, and the scope need not wait for the
        // rest of a tick.
        std::thread::park_timeout(TICK.min(every));
        let snapshot = since.look(monitor);
        if ticker.is_due(start.elapsed()) {
            write(&snapshot);
        }
    }
}

/// Draws a bar if the total is known, otherwise a spinner.
fn draw(monitor: &RunMonitor, done: impl Fn() -> bool) {
    let bar_style = style("{wide_bar:.green} {msg}");
    let spinner_style = style("{spinner:.green} {msg}");

    let bar = ProgressBar::new_spinner();
    let mut since = PhaseClock::new(monitor);
    while !done() {
        std::thread::park_timeout(TICK);
        let snapshot = since.look(monitor);
        // The style is set each time: the next phase may have a total although this one has none, or the other way
        // round.
        match snapshot.total {
            Some(total) => {
                bar.set_style(bar_style.clone());
                bar.set_length(total);
                bar.set_position(snapshot.done.min(total));
            }
            None => {
                bar.set_style(spinner_style.clone());
                bar.unset_length();
            }
        }
        bar.set_message(snapshot.line());
        bar.tick();
    }
    bar.finish_and_clear();
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: Phase, total: u64, done: u64) -> RunMonitor {
        let monitor = RunMonitor::default();
        monitor.course.enter(phase, total);
        monitor.course.add(done);
        monitor
    }

    #[test]
    fn missed_progress_lines_are_skipped() {
        let mut ticker = Ticker::new(Duration::from_secs(30));
        let due: Vec<u64> = (0..200)
            .filter(|second| ticker.is_due(Duration::from_secs(*second)))
            .collect();
        assert_eq!(due, [30, 60, 90, 120, 150, 180]);
        // As on a machine that was suspended.
        assert!(ticker.is_due(Duration::from_secs(1000)));
        assert!(!ticker.is_due(Duration::from_secs(1001)));
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
