//! Shows the progress of a job on stderr: as a bar on a terminal, as occasional lines in a log, or as JSON for programs.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Thread};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::exit::UsageError;
use crate::output::{OutputArgs, Progress, interval};
use crate::program;

/// Time between two updates of a bar, and between two checks whether a line is due.
const TICK: Duration = Duration::from_millis(200);

/// The progress of a job at one moment, or an event of the job. The JSON form is the serialized value.
pub trait Snapshot: Serialize {
    /// Formats the progress for people.
    fn line(&self) -> String;

    /// Returns the number of completed units.
    fn done(&self) -> u64 {
        0
    }

    /// Returns the number of all units, or `None` if it is unknown.
    fn total(&self) -> Option<u64> {
        None
    }
}

/// The schedule of progress lines.
#[derive(Debug)]
pub struct Ticker {
    every: Duration,
    next: Duration,
}

impl Ticker {
    /// Creates a schedule with a line every `every`.
    pub const fn new(every: Duration) -> Self {
        Self { every, next: every }
    }

    /// Reports whether a line is due at `now`, the time since the start. Missed lines are not written later.
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
    shown: Progress,
    start: Instant,
    ticker: Ticker,
    bar: Option<ProgressBar>,
}

impl Display {
    /// Creates a display that shows nothing yet.
    ///
    /// # Errors
    /// The errors of [`interval`].
    pub fn new() -> Result<Self, UsageError> {
        Ok(Self {
            shown: OutputArgs::get().shown(),
            start: Instant::now(),
            ticker: Ticker::new(interval()?),
            bar: None,
        })
    }

    /// Makes the display show nothing if `is_hidden`.
    pub fn hidden_if(mut self, is_hidden: bool) -> Self {
        if is_hidden {
            self.shown = Progress::None;
        }
        self
    }

    /// Shows the progress: draws the bar, or writes a line if one is due.
    pub fn update(&mut self, snapshot: &impl Snapshot) {
        if self.shown == Progress::Bar {
            self.draw(snapshot);
        } else if self.ticker.is_due(self.start.elapsed()) {
            self.write(snapshot);
        }
    }

    /// Shows an event at once.
    pub fn show_event(&mut self, event: &impl Snapshot) {
        if self.shown == Progress::Bar {
            self.bar().println(event.line());
        } else {
            self.write(event);
        }
    }

    /// Removes the bar.
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
        if self.shown == Progress::None {
            return Ok(job());
        }

        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let display = Builder::new().spawn_scoped(scope, || {
                let mut is_done = false;
                while !is_done {
                    // The thread is parked and does not sleep: the end of the job wakes it, and the scope need not
                    // wait for the rest of a tick.
                    std::thread::park_timeout(TICK.min(self.ticker.every));
                    // Read first, so that events from before the end are still shown.
                    is_done = done.load(Ordering::Relaxed);
                    watch(&mut self);
                }
                self.finish();
            })?;
            // This guard is dropped at the end of the block, before the scope waits for the display.
            let _ending = DisplayEnd {
                done: &done,
                display: display.thread().clone(),
            };
            Ok(job())
        })
    }

    fn write(&self, snapshot: &impl Snapshot) {
        match self.shown {
            Progress::Plain => eprintln!("{}: {}", program(), snapshot.line()),
            Progress::Json => {
                // Snapshots contain only numbers and names, so they can always be serialized. NaN becomes null.
                if let Ok(line) = serde_json::to_string(snapshot) {
                    eprintln!("{line}");
                }
            }
            Progress::Auto | Progress::Bar | Progress::None => {}
        }
    }

    fn bar(&mut self) -> &ProgressBar {
        self.bar.get_or_insert_with(ProgressBar::new_spinner)
    }

    /// Draws a bar if the total is known, otherwise a spinner.
    fn draw(&mut self, snapshot: &impl Snapshot) {
        let bar = self.bar();
        // The style is set each time: the next phase may have a total although this one has none, or the other way
        // round.
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

#[cfg(test)]
mod tests {
    use super::*;

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
