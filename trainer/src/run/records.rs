//! Writes the log, TensorBoard events and configuration of a run, on rank 0.

use std::io;

use wavemill_schemas::config::Config;
use wavemill_scores::records::{EventWriter, Log, RecordError, ResumePoint, RunDir};

use super::{Job, RunError};
use crate::checkpoint::State;

/// Writers for the log, TensorBoard events and configuration in a run's folder.
pub(super) struct Records {
    pub(super) folder: RunDir,
    log: Log,
    events: EventWriter,
}

impl Records {
    pub(super) fn open(job: &Job, state: &State, world_size: usize) -> Result<Self, RunError> {
        let folder = RunDir::open(&job.folder)?;
        // Open the log first, because it takes the lock: another process writing this run must not lose events below.
        let mut log = Log::open(&folder.log())?;
        // A run that was killed before its first checkpoint starts over in the same folder.
        let goes_on = !log.is_empty()?;

        let resumed = ResumePoint {
            step: state.step,
            epoch_ended: state.batch == 0,
        };
        let events = EventWriter::create(folder.path(), goes_on.then_some(resumed))?;
        if goes_on {
            log.resumed(state.epoch, state.step)?;
        }

        let notes = [
            ("device", format!("{:?}", job.device)),
            ("world_size", world_size.to_string()),
        ];
        log.note("start", state.epoch, state.step, &notes)?;
        Ok(Self {
            folder,
            log,
            events,
        })
    }

    /// Updates `config.toml` to the configuration of this run.
    pub(super) fn keep_config(&self, config: &Config) -> Result<(), RunError> {
        let text = toml::to_string(config).map_err(|error| RecordError::Io {
            path: self.folder.config(),
            action: "write",
            source: io::Error::other(error),
        })?;
        if self.folder.read_config()? != text {
            self.folder.write_config(&text)?;
        }
        Ok(())
    }

    /// Logs a warning for readers of the results.
    pub(super) fn warning(&mut self, epoch: u64, step: u64, text: &str) -> Result<(), RunError> {
        Ok(self
            .log
            .note("warning", epoch, step, &[("text", text.to_owned())])?)
    }

    pub(super) fn step(
        &mut self,
        epoch: u64,
        step: u64,
        loss: f64,
        lr: f64,
    ) -> Result<(), RunError> {
        self.log
            .append("step", epoch, step, &[("loss", loss), ("lr", lr)])?;
        Ok(self
            .events
            .scalars(step, &[("step/loss", loss), ("step/lr", lr)])?)
    }

    pub(super) fn epoch(
        &mut self,
        epoch: u64,
        step: u64,
        values: &[(&str, f64)],
    ) -> Result<(), RunError> {
        self.log.append("epoch", epoch, step, values)?;
        Ok(self.events.scalars(step, values)?)
    }
}
