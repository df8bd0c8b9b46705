//! Shows the progress of a training run on stderr: a bar on a terminal, periodic lines in a log, or JSON for programs,
//! and a line at the end of each epoch. Also shows the progress of a map, which has only steps.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use serde::Serialize;
use wavemill_schemas::config::Config;

use super::exit::UsageError;
use super::output::{OutputArgs, Progress, interval};
use crate::run::{EpochSummary, RunMonitor};

/// Interval at which the bar is redrawn and a line's due time is checked.
const TICK: Duration = Duration::from_millis(200);

/// Progress of a run, as shown in a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Snapshot {
    event: &'static str,
    /// `training`, `validation` or `test`.
    phase: &'static str,
    /// Epoch in progress, from 1, and number of epochs.
    epoch: u64,
    epochs: u64,
    /// Completed steps of this epoch, and number of steps in it.
    batch: u64,
    batches: u64,
    /// Completed steps of the run, including those of earlier processes, and the maximum number of steps.
    step: u64,
    steps: u64,
    /// Loss of the last step.
    loss: f64,
    /// Rows per second over all ranks, in this process's time.
    rows_per_s: f64,
    /// Fraction of the time that the device waited for rows, 0 to 1.
    data_wait: f64,
    /// Upper bound on the remaining seconds, at this process's rate: a run may end early. `None` before the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_s: Option<f64>,
    /// Seconds since this process began to train.
    elapsed_s: f64,
}

impl Snapshot {
    /// Captures the progress of a run that this process has trained for `elapsed`.
    fn new(monitor: &RunMonitor, config: &Config, elapsed: Duration) -> Self {
        let batch = monitor.batches.load(Ordering::Relaxed);
        let batches = monitor.batches_total.load(Ordering::Relaxed);
        let done = monitor.steps.load(Ordering::Relaxed);
        let step = monitor.first_step.load(Ordering::Relaxed) + done;
        // The same count of steps as in `Run::lr`.
        let planned = config.train.epochs * batches;
        let steps = config
            .train
            .steps
            .map_or(planned, |steps| steps.min(planned));

        let elapsed_s = elapsed.as_secs_f64();
        // The first line may come immediately; avoid a division by 0.
        let seconds = elapsed_s.max(0.001);
        // Steps of earlier processes count as done, but only this process's steps determine the rate.
        let left = steps.saturating_sub(step) as f64;

        Self {
            event: "progress",
            phase: monitor.phase.name(),
            epoch: monitor.epoch.load(Ordering::Relaxed) + 1,
            epochs: config.train.epochs,
            batch,
            batches,
            step,
            steps,
            loss: f64::from_bits(monitor.loss.load(Ordering::Relaxed)),
            rows_per_s: monitor.rows.load(Ordering::Relaxed) as f64 / seconds,
            data_wait: monitor.wait_ns.load(Ordering::Relaxed) as f64 / 1e9 / seconds,
            eta_s: (done > 0).then(|| left * elapsed_s / done as f64),
            elapsed_s,
        }
    }

    /// Formats the progress for people.
    fn line(&self) -> String {
        let mut line = format!(
            "epoch {} of {}, {}: {} of {} steps",
            self.epoch, self.epochs, self.phase, self.batch, self.batches
        );
        line += &format!(
            ", training loss {:.4}, {:.0} rows/s, data wait {:.0} %",
            self.loss,
            self.rows_per_s,
            self.data_wait * 100.0
        );
        if let Some(eta_s) = self.eta_s {
            line += &format!(
                ", at most {} left",
                HumanDuration(Duration::from_secs_f64(eta_s.min(1e9)))
            );
        }
        line
    }
}

/// Formats the summary of an epoch for people.
fn epoch_line(ended: &EpochSummary) -> String {
    let best = if ended.best { ", best so far" } else { "" };
    let EpochSummary {
        epoch,
        epochs,
        training_loss,
        validation_loss,
        accuracy,
        macro_f1,
        seconds,
        ..
    } = ended;
    format!(
        "epoch {epoch} of {epochs} ended: training loss {training_loss:.4}; validation loss {validation_loss:.4}, \
         accuracy {accuracy:.4}, macro F1 {macro_f1:.4}{best}; {seconds:.0} s"
    )
}

/// Determines when the next line is due.
#[derive(Debug)]
struct Ticker {
    every: Duration,
    next: Duration,
}

impl Ticker {
    const fn new(every: Duration) -> Self {
        Self { every, next: every }
    }

    /// Reports whether a line is due at `now`, the time since the start. Missed lines are not made up for.
    fn is_due(&mut self, now: Duration) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + self.every;
        true
    }
}

/// Takes the summaries of epochs that ended since the last call.
fn ended(monitor: &RunMonitor) -> Vec<EpochSummary> {
    std::mem::take(&mut *monitor.ended.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Shows the progress of `monitor` in the form `shown` until `done` is set. Lines are printed at intervals of `every`.
pub(crate) fn show(
    monitor: &RunMonitor,
    config: &Config,
    shown: Progress,
    every: Duration,
    done: &AtomicBool,
) {
    match shown {
        Progress::None => {}
        Progress::Bar | Progress::Auto => draw(monitor, config, done),
        Progress::Plain => write_lines(
            monitor,
            config,
            every,
            done,
            |snapshot| eprintln!("wavemill-train: {}", snapshot.line()),
            |ended| eprintln!("wavemill-train: {}", epoch_line(ended)),
        ),
        Progress::Json => write_lines(monitor, config, every, done, json_line, json_line),
    }
}

/// Prints a JSON line to stderr. NaN is written as null.
fn json_line(line: &impl Serialize) {
    if let Ok(line) = serde_json::to_string(line) {
        eprintln!("{line}");
    }
}

fn write_lines(
    monitor: &RunMonitor,
    config: &Config,
    every: Duration,
    done: &AtomicBool,
    write: impl Fn(&Snapshot),
    write_epoch: impl Fn(&EpochSummary),
) {
    let start = Instant::now();
    let mut ticker = Ticker::new(every);
    loop {
        // Read `done` first, so that epochs that ended before it was set still get their line.
        let is_done = done.load(Ordering::Relaxed);
        for epoch in ended(monitor) {
            write_epoch(&epoch);
        }
        if is_done {
            return;
        }

        if ticker.is_due(start.elapsed()) {
            write(&Snapshot::new(monitor, config, start.elapsed()));
        }
        std::thread::park_timeout(TICK.min(every));
    }
}

fn draw(monitor: &RunMonitor, config: &Config, done: &AtomicBool) {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar:.green} {msg}") {
        bar.set_style(style);
    }

    let start = Instant::now();
    loop {
        let is_done = done.load(Ordering::Relaxed);
        for epoch in ended(monitor) {
            bar.println(epoch_line(&epoch));
        }
        if is_done {
            break;
        }

        let snapshot = Snapshot::new(monitor, config, start.elapsed());
        bar.set_length(snapshot.batches.max(1));
        bar.set_position(snapshot.batch);
        bar.set_message(snapshot.line());
        std::thread::park_timeout(TICK);
    }

    bar.finish_and_clear();
}

/// Shows the progress of a map in the form that the command line requests.
#[derive(Debug)]
pub(crate) struct MapProgress {
    steps: usize,
    shown: Progress,
    start: Instant,
    ticker: Ticker,
    bar: Option<ProgressBar>,
}

/// JSON form of the progress.
#[derive(Serialize)]
struct MapSnapshot {
    event: &'static str,
    phase: &'static str,
    step: usize,
    steps: usize,
    elapsed_s: f64,
}

impl MapProgress {
    /// Creates the progress of a map with `steps` steps.
    ///
    /// # Errors
    /// The errors of [`interval`].
    pub(crate) fn new(steps: usize) -> Result<Self, UsageError> {
        Ok(Self {
            steps,
            shown: OutputArgs::get().shown(),
            start: Instant::now(),
            ticker: Ticker::new(interval()?),
            bar: None,
        })
    }

    /// Updates the progress: `step` steps are done, 0 while the neighbours are being searched.
    pub(crate) fn update(&mut self, step: usize) {
        let shown = self.shown;
        match shown {
            Progress::None => {}
            Progress::Bar | Progress::Auto => self.draw(step),
            Progress::Plain if self.is_due() => {
                eprintln!("wavemill-train: map: {step} of {} steps", self.steps);
            }
            Progress::Json if self.is_due() => json_line(&MapSnapshot {
                event: "progress",
                phase: "map",
                step,
                steps: self.steps,
                elapsed_s: self.start.elapsed().as_secs_f64(),
            }),
            Progress::Plain | Progress::Json => {}
        }
    }

    fn is_due(&mut self) -> bool {
        self.ticker.is_due(self.start.elapsed())
    }

    fn draw(&mut self, step: usize) {
        let steps = self.steps as u64;
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(steps);
            if let Ok(style) = ProgressStyle::with_template("{wide_bar:.green} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_position(step as u64);
        bar.set_message(format!("map: {step} of {steps} steps"));
        if step == self.steps {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_progress_lines_are_skipped() {
        let mut ticker = Ticker::new(Duration::from_secs(30));
        let due: Vec<u64> = (0..100)
            .filter(|second| ticker.is_due(Duration::from_secs(*second)))
            .collect();
        assert_eq!(due, [30, 60, 90]);
        assert!(
            ticker.is_due(Duration::from_secs(1000)) && !ticker.is_due(Duration::from_secs(1001))
        );
    }

    #[test]
    fn time_left_after_a_resume_is_that_of_the_steps_left_at_this_process_s_rate() {
        let mut config = Config::default();
        config.train.epochs = 10;
        let monitor = RunMonitor::default();

        // 10 epochs of 100 steps: 900 steps were done before, and 20 by this process in 10 s.
        for (number, value) in [
            (&monitor.batches_total, 100),
            (&monitor.batches, 20),
            (&monitor.first_step, 900),
        ] {
            number.store(value, Ordering::Relaxed);
        }
        monitor.steps.store(20, Ordering::Relaxed);
        monitor.epoch.store(9, Ordering::Relaxed);
        monitor.rows.store(320, Ordering::Relaxed);
        monitor.loss.store(0.5_f64.to_bits(), Ordering::Relaxed);
        monitor.wait_ns.store(1_000_000_000, Ordering::Relaxed);

        let snapshot = Snapshot::new(&monitor, &config, Duration::from_secs(10));
        assert_eq!(
            (snapshot.step, snapshot.steps, snapshot.eta_s),
            (920, 1000, Some(40.0))
        );
        assert_eq!(
            snapshot.line(),
            "epoch 10 of 10, training: 20 of 100 steps, training loss 0.5000, 32 rows/s, data wait 10 %, \
             at most 40 seconds left"
        );

        // With `train.steps`, the run ends earlier.
        config.train.steps = Some(930);
        assert_eq!(
            Snapshot::new(&monitor, &config, Duration::from_secs(10)).eta_s,
            Some(5.0)
        );
    }

    #[test]
    fn no_estimate_before_the_first_step() {
        assert_eq!(
            Snapshot::new(&RunMonitor::default(), &Config::default(), Duration::ZERO).eta_s,
            None
        );
    }

    #[test]
    fn an_epoch_s_line_has_loss_score_and_time() {
        let ended = EpochSummary {
            event: "epoch",
            epoch: 2,
            epochs: 40,
            steps: 96,
            training_loss: 1.25,
            validation_loss: 1.5,
            accuracy: 0.75,
            macro_f1: 0.5,
            best: true,
            seconds: 12.4,
        };

        assert_eq!(
            epoch_line(&ended),
            "epoch 2 of 40 ended: training loss 1.2500; validation loss 1.5000, accuracy 0.7500, macro F1 0.5000, best \
             so far; 12 s"
        );
    }
}
