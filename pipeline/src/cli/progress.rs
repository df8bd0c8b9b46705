//! What a run is doing, on stderr: a bar on a terminal, a line now and then in a log, JSON for programs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Thread};
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::interrupt::StoppedBySignals;
use super::output::{self, OutputArgs, Progress};
use crate::course::Phase;
use crate::extract::ExtractError;
use crate::run::RunMonitor;

/// How often a bar is drawn, and a line's time looked at.
const TICK: Duration = Duration::from_millis(200);

/// How far a run is: what a line says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    event: &'static str,
    phase: &'static str,
    /// What is counted: `bytes`, `steps`, `clips`, `rows`; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    /// Done in this phase, by this process.
    done: u64,
    /// To be done in this phase; absent where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    /// Done a second, over the whole phase.
    per_s: f64,
    /// Seconds left of the phase at that rate; absent where nothing is done yet, or the total is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_s: Option<f64>,
    /// Clips rejected so far, by this process.
    rejects: u64,
    /// Compressed audio read so far.
    audio_bytes: u64,
    /// Since the phase began.
    elapsed_s: f64,
    #[serde(skip)]
    words: String,
}

impl Snapshot {
    /// The state of a run that has been in its phase for `elapsed`.
    fn of(monitor: &RunMonitor, elapsed: Duration) -> Self {
        let phase = monitor.course.phase();
        let (done, total) = match phase {
            Phase::Clips => (
                monitor.counters.clips.load(Ordering::Relaxed),
                monitor.clips_total.load(Ordering::Relaxed),
            ),
            _ => (monitor.course.done(), monitor.course.total()),
        };

        let elapsed_s = elapsed.as_secs_f64();
        // At the start of a phase no time has passed.
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

    /// For people: `extracting: 120 of 1000 clips (12 %), 12.5/s, 3 rejects, 70 seconds left`.
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
            // More can be done than was announced, as when a file grows while it is read.
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
            // At the start the rate may be next to nothing, and a Duration does not hold every number of seconds.
            let left = Duration::from_secs_f64(eta_s.min(1e9));
            line += &format!(", {} left", HumanDuration(left));
        }
        line
    }
}

/// When the next line is due.
#[derive(Debug)]
struct Ticker {
    every: Duration,
    next: Duration,
}

impl Ticker {
    const fn new(every: Duration) -> Self {
        Self { every, next: every }
    }

    /// Whether a line is due at `now`, time since the start. Lines that were missed are not made up for.
    fn is_due(&mut self, now: Duration) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + self.every;
        true
    }
}

/// Does a job with its progress shown. The first SIGINT or SIGTERM lets it end in order, a second one ends it at once.
///
/// # Errors
/// `job`'s, and where no thread can be started.
pub fn accompanied<T, E: Into<anyhow::Error>>(
    monitor: &RunMonitor,
    job: impl FnOnce() -> Result<T, E>,
) -> anyhow::Result<T> {
    let shown = OutputArgs::get().shown();
    // Before the job begins: a wrong value of the variable ends the command at once.
    let every = output::interval()?;
    let _stopped = StoppedBySignals::job(&monitor.course);

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let display = Builder::new()
            .spawn_scoped(scope, || {
                show(monitor, shown, every, || done.load(Ordering::Relaxed));
            })
            .map_err(|source| ExtractError::Threads { source })?;
        // Dropped at the end of this block, before the scope waits for the display.
        let _ending = DisplayEnd {
            done: &done,
            display: display.thread().clone(),
        };
        job().map_err(Into::into)
    })
}

/// Dropped, also by a panic, it ends the thread that shows a run's progress, and at once: the scope waits for it.
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

/// Shows `monitor` until `done` says so, as `shown` says; lines come `every` so often.
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
            // Numbers and names alone: it cannot fail.
            if let Ok(line) = serde_json::to_string(snapshot) {
                eprintln!("{line}");
            }
        }),
    }
}

/// The phase that a run is in, and since when.
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

    /// The state of the run. A phase that another one has followed is forgotten.
    fn look(&mut self, monitor: &RunMonitor) -> Snapshot {
        if monitor.course.phase() != self.phase {
            *self = Self::new(monitor);
        }
        Snapshot::of(monitor, self.start.elapsed())
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
        // Parked and not asleep: the end of the job wakes this thread, and nobody waits for the rest of a tick.
        std::thread::park_timeout(TICK.min(every));
        let snapshot = since.look(monitor);
        if ticker.is_due(start.elapsed()) {
            write(&snapshot);
        }
    }
}

/// A bar where the total is known, and a spinner elsewhere.
fn draw(monitor: &RunMonitor, done: impl Fn() -> bool) {
    let bar_style = style("{wide_bar:.green} {msg}");
    let spinner_style = style("{spinner:.green} {msg}");

    let bar = ProgressBar::new_spinner();
    let mut since = PhaseClock::new(monitor);
    while !done() {
        std::thread::park_timeout(TICK);
        let snapshot = since.look(monitor);
        // Anew at each look: the next phase may have a total where this one has none, or the other way round.
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
    fn a_line_is_due_every_interval_and_missed_ones_are_not_made_up_for() {
        let mut ticker = Ticker::new(Duration::from_secs(30));
        let due: Vec<u64> = (0..200)
            .filter(|second| ticker.is_due(Duration::from_secs(*second)))
            .collect();
        assert_eq!(due, [30, 60, 90, 120, 150, 180]);
        // A machine that slept.
        assert!(ticker.is_due(Duration::from_secs(1000)));
        assert!(!ticker.is_due(Duration::from_secs(1001)));
    }

    #[test]
    fn reading_metadata_starts_at_nothing_and_has_a_total() {
        let snapshot = Snapshot::of(
            &at(Phase::Metadata, 200_000_000, 50_000_000),
            Duration::from_secs(2),
        );
        assert_eq!(
            snapshot.line(),
            "reading metadata: 50.00 MB of 200.00 MB (25 %), 6 seconds left"
        );
        let begun = Snapshot::of(&at(Phase::Metadata, 200, 0), Duration::from_secs(0));
        assert_eq!((begun.done, begun.total, begun.eta_s), (0, Some(200), None));
        assert_eq!(
            Snapshot::of(&at(Phase::Planning, 0, 0), Duration::ZERO).line(),
            "planning"
        );
    }

    #[test]
    fn time_left_is_that_of_the_clips_left_to_this_run_at_its_own_rate() {
        // 1,000 clips planned, 900 done before a kill: 100 are left to this run, and 20 of them took it 10 s.
        let monitor = at(Phase::Clips, 0, 0);
        monitor.clips_total.store(100, Ordering::Relaxed);
        monitor.counters.clips.store(20, Ordering::Relaxed);
        monitor.counters.rejects.store(2, Ordering::Relaxed);
        monitor.counters.bytes.store(5_000_000, Ordering::Relaxed);
        let snapshot = Snapshot::of(&monitor, Duration::from_secs(10));
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
