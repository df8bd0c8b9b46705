//! Shows the progress of a job on stderr: as a bar on a terminal, as occasional lines in a log, or as JSON for
//! programs.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::exit::UsageError;
use crate::output::{OutputArgs, ProgressFormat, interval};
use crate::program;

/// Interval at which the progress bar is updated, and at which the display checks whether a log line is due.
const TICK: Duration = Duration::from_millis(200);

/// The progress of a job at one moment, or an event of the job. The JSON form is the serialized value.
pub trait Snapshot: Serialize {
    /// Formats the progress or the event as one line of text for people.
    fn line(&self) -> String;

    /// Returns the number of completed units of work.
    fn done(&self) -> u64 {
        0
    }

    /// Returns the total number of units of work, or `None` if it is unknown.
    fn total(&self) -> Option<u64> {
        None
    }
}

/// Schedule that determines when the next progress line is due.
#[derive(Debug)]
pub struct Ticker {
    every: Duration,
    next: Duration,
}

impl Ticker {
    /// Creates a schedule with one progress line after each interval of length `every`.
    pub const fn new(every: Duration) -> Self {
        Self { every, next: every }
    }

    /// Reports whether a progress line is due at `now`, the time since the start. Missed lines are never written.
    pub fn is_due(&mut self, now: Duration) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + self.every;
        true
    }
}

/// The progress of a job on stderr, in the form that the command line requests.
#[derive(Debug)]
pub struct Display {
    shown: ProgressFormat,
    start: Instant,
    ticker: Ticker,
    bar: Option<ProgressBar>,
}

impl Display {
    /// Creates a display that does not show any progress yet.
    ///
    /// # Errors
    /// [`UsageError`] if `WAVEMILL_PROGRESS_S` is not a number of seconds above 0.
    pub fn new() -> Result<Self, UsageError> {
        Ok(Self {
            shown: OutputArgs::get().shown(),
            start: Instant::now(),
            ticker: Ticker::new(interval()?),
            bar: None,
        })
    }

    /// Returns the display, which shows no progress from now on if `is_hidden`.
    pub fn hidden_if(mut self, is_hidden: bool) -> Self {
        if is_hidden {
            self.shown = ProgressFormat::None;
        }
        self
    }

    /// Shows the progress: redraws the bar, or writes a line to the log if one is due.
    pub fn update(&mut self, snapshot: &impl Snapshot) {
        if self.shown == ProgressFormat::Bar {
            self.draw(snapshot);
        } else if self.ticker.is_due(self.start.elapsed()) {
            self.write(snapshot);
        }
    }

    /// Shows an event of the job immediately.
    pub fn show_event(&mut self, event: &impl Snapshot) {
        if self.shown == ProgressFormat::Bar {
            self.bar().println(event.line());
        } else {
            self.write(event);
        }
    }

    /// Removes the progress bar from the terminal.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Runs a job and calls `watch` several times per second to update the display, and once more after the job.
    ///
    /// # Errors
    /// The thread of the display cannot be started.
    pub fn accompany<T>(
        mut self,
        mut watch: impl FnMut(&mut Self) + Send,
        job: impl FnOnce() -> T,
    ) -> io::Result<T> {
        if self.shown == ProgressFormat::None {
            return Ok(job());
        }

        let (running, ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            // Dropped at the end of this block, also by a panic, before the scope waits for the thread of the display.
            let _running = running;
            Builder::new().spawn_scoped(scope, move || {
                let tick = TICK.min(self.ticker.every);
                let mut is_running = true;
                while is_running {
                    // The end of the job is noticed at once. It is looked for before the update, so that events from
                    // before it are still shown.
                    is_running = ended.recv_timeout(tick) == Err(RecvTimeoutError::Timeout);
                    watch(&mut self);
                }
                self.finish();
            })?;
            Ok(job())
        })
    }

    fn write(&self, snapshot: &impl Snapshot) {
        match self.shown {
            ProgressFormat::Plain => crate::say!("{}: {}", program(), snapshot.line()),
            ProgressFormat::Json => {
                // Snapshots contain only numbers and names, so they can always be serialized. NaN becomes null.
                if let Ok(line) = serde_json::to_string(snapshot) {
                    crate::say!("{line}");
                }
            }
            ProgressFormat::Auto | ProgressFormat::Bar | ProgressFormat::None => {}
        }
    }

    fn bar(&mut self) -> &ProgressBar {
        self.bar.get_or_insert_with(ProgressBar::new_spinner)
    }

    /// Draws a bar if the total is known, otherwise a spinner.
    fn draw(&mut self, snapshot: &impl Snapshot) {
        let bar = self.bar();
        // The bar's style is set on every update, because the total may be known in one phase of the job and unknown in
        // the next phase.
        match snapshot.total() {
            Some(total) => {
                bar.set_style(style("{wide_bar:.green} {msg}"));
                bar.set_length(total);
                bar.set_position(snapshot.done().min(total));
            }
            None => {
                bar.set_style(style("{spinner:.green} {msg}"));
                bar.unset_length();
            }
        }
        bar.set_message(snapshot.line());
        bar.tick();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn missed_progress_lines_are_skipped() {
        let mut ticker = Ticker::new(Duration::from_secs(30));
        let due: Vec<u64> = (0..200)
            .filter(|second| ticker.is_due(Duration::from_secs(*second)))
            .collect();
        assert_eq!(due, [30, 60, 90, 120, 150, 180]);
        // The time jumps, as on a machine that was suspended.
        assert!(ticker.is_due(Duration::from_secs(1000)));
        assert!(!ticker.is_due(Duration::from_secs(1001)));
    }

    #[test]
    fn display_is_updated_after_the_job() {
        let has_ended = AtomicBool::new(false);
        let mut saw_end = false;
        let display = Display::new().expect("no interval is set");
        display
            .accompany(
                |_| saw_end = has_ended.load(Ordering::Relaxed),
                || has_ended.store(true, Ordering::Relaxed),
            )
            .expect("a thread");
        assert!(saw_end);
    }
}
