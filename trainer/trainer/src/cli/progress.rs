//! Shows the progress of a training run on stderr, and a line at the end of each epoch. Also shows the progress of
//! computing a t-SNE map, which has steps but no epochs.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::HumanDuration;
use serde::Serialize;
use wavemill_schemas::config::Config;
use wavemill_terminal::display::{self, Display};
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::interrupt::lock;

use crate::run::{EpochSummary, RunMonitor, steps_total};

/// Progress of a run at one moment, as shown in one line.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Snapshot {
    event: &'static str,
    /// Phase of the run: `training`, `validation` or `test`.
    phase: &'static str,
    /// Epoch in progress, from 1; below, the number of epochs.
    epoch: u64,
    epochs: u64,
    /// Completed steps of the epoch in progress; below, the number of steps in an epoch.
    batch: u64,
    batches: u64,
    /// Completed steps of the run, including those of earlier processes; below, the maximum number of steps.
    step: u64,
    steps: u64,
    /// Training loss of the last step.
    loss: f64,
    /// Rows per second over all ranks, averaged since this process began to train.
    rows_per_s: f64,
    /// Fraction of the time, from 0 to 1, in which training waited for rows.
    data_wait: f64,
    /// Upper bound on the remaining seconds at this process's rate: a run may end early. `None` before the first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_s: Option<f64>,
    /// Seconds since this process began to train.
    elapsed_s: f64,
}

impl Snapshot {
    /// Reads the progress of a run from `monitor`. This process has trained the run for `elapsed`.
    fn new(monitor: &RunMonitor, config: &Config, elapsed: Duration) -> Self {
        let batch = monitor.batches.load(Ordering::Relaxed);
        let batches = monitor.batches_total.load(Ordering::Relaxed);
        let done = monitor.steps.load(Ordering::Relaxed);
        let step = monitor.first_step.load(Ordering::Relaxed) + done;
        let steps = steps_total(&config.train, batches);

        let elapsed_s = elapsed.as_secs_f64();
        // The first progress line may be shown immediately; the minimum avoids a division by 0.
        let seconds = elapsed_s.max(0.001);
        // Steps of earlier processes count as completed, but the rate contains only the steps of this process.
        let left = steps.saturating_sub(step) as f64;

        Self {
            event: "progress",
            phase: monitor.phase.split().name(),
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
}

impl display::Snapshot for Snapshot {
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

    fn done(&self) -> u64 {
        self.batch
    }

    fn total(&self) -> Option<u64> {
        Some(self.batches.max(1))
    }
}

impl display::Snapshot for EpochSummary {
    fn line(&self) -> String {
        // The line has loss, accuracy and macro F1 of the first target anyway.
        let shown = ["loss", "accuracy", "macro_f1"];
        let selected = if shown.contains(&&*self.select) {
            String::new()
        } else {
            format!(", {} {:.4}", self.select, self.selected)
        };
        let best = if self.best { ", best so far" } else { "" };

        let EpochSummary {
            epoch,
            epochs,
            training_loss,
            validation_loss,
            accuracy,
            macro_f1,
            seconds,
            ..
        } = self;
        format!(
            "epoch {epoch} of {epochs} ended: training loss {training_loss:.4}; validation loss {validation_loss:.4}, \
         accuracy {accuracy:.4}, macro F1 {macro_f1:.4}{selected}{best}; {seconds:.0} s"
        )
    }
}

/// Removes and returns the summaries of epochs that ended since the last call.
fn ended(monitor: &RunMonitor) -> Vec<EpochSummary> {
    std::mem::take(&mut *lock(&monitor.ended))
}

/// Shows the epochs that ended since the last call, and the progress of the run, which began at `start`.
pub(crate) fn update(display: &mut Display, monitor: &RunMonitor, config: &Config, start: Instant) {
    for epoch in ended(monitor) {
        display.show_event(&epoch);
    }
    display.update(&Snapshot::new(monitor, config, start.elapsed()));
}

/// Shows the progress of computing a t-SNE map, in the form that the command line requests.
#[derive(Debug)]
pub(crate) struct MapProgress {
    steps: usize,
    start: Instant,
    display: Display,
}

/// JSON form of the progress of a t-SNE map.
#[derive(Serialize)]
struct MapSnapshot {
    event: &'static str,
    phase: &'static str,
    step: usize,
    steps: usize,
    elapsed_s: f64,
}

impl display::Snapshot for MapSnapshot {
    fn line(&self) -> String {
        format!("map: {} of {} steps", self.step, self.steps)
    }

    fn done(&self) -> u64 {
        self.step as u64
    }

    fn total(&self) -> Option<u64> {
        Some(self.steps as u64)
    }
}

impl MapProgress {
    /// Creates the display for a t-SNE map that takes `steps` steps.
    pub(crate) fn new(steps: usize) -> Result<Self, UsageError> {
        Ok(Self {
            steps,
            start: Instant::now(),
            display: Display::new()?,
        })
    }

    /// Shows that `step` steps of the t-SNE map are done; 0 while the neighbours of rows are being searched.
    pub(crate) fn update(&mut self, step: usize) {
        self.display.update(&MapSnapshot {
            event: "progress",
            phase: "map",
            step,
            steps: self.steps,
            elapsed_s: self.start.elapsed().as_secs_f64(),
        });
        if step == self.steps {
            self.display.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use wavemill_terminal::display::Snapshot as _;

    use super::*;

    #[test]
    fn time_left_after_a_resume_is_that_of_the_steps_left_at_this_process_s_rate() {
        let mut config = Config::default();
        config.train.epochs = 10;
        let monitor = RunMonitor::default();

        // 10 epochs of 100 steps: 900 steps were completed by earlier processes, and 20 by this process in 10 s.
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

        // `train.steps` limits the run to fewer steps than its epochs have.
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
        let mut ended = EpochSummary {
            event: "epoch",
            epoch: 2,
            epochs: 40,
            steps: 96,
            training_loss: 1.25,
            validation_loss: 1.5,
            accuracy: 0.75,
            macro_f1: 0.5,
            select: "loss".to_owned(),
            selected: 1.5,
            best: true,
            seconds: 12.4,
        };

        assert_eq!(
            ended.line(),
            "epoch 2 of 40 ended: training loss 1.2500; validation loss 1.5000, accuracy 0.7500, macro F1 0.5000, best \
             so far; 12 s"
        );

        ended.select = "genre/roc_auc_macro".to_owned();
        ended.selected = 0.625;
        assert!(
            ended
                .line()
                .contains("macro F1 0.5000, genre/roc_auc_macro 0.6250, best so far"),
            "{}",
            ended.line()
        );
    }
}
