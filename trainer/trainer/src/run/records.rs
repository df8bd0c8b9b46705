//! Writes a run's log, TensorBoard events and configuration to the run's folder, on rank 0.

use std::io;

use wavemill_schemas::config::Config;
use wavemill_schemas::run::{RunDir, RunFilesError, RunResult};
use wavemill_scores::records::{EventWriter, Log};

use super::Job;
use crate::TrainError;
use crate::checkpoint::State;
use crate::profile::ProfileTable;

/// Writers for the log, TensorBoard events and configuration in a run's folder.
pub(super) struct Records {
    pub(super) folder: RunDir,
    log: Log,
    events: EventWriter,
}

impl Records {
    pub(super) fn open(job: &Job, state: &State, world_size: usize) -> Result<Self, TrainError> {
        let folder = RunDir::open(&job.folder)?;
        // Open the log first, because it takes the lock, so that events of another writer of this run are not lost.
        let mut log = Log::open(&folder.log())?;
        // An existing log is continued, also if the run was killed before its first checkpoint and starts over.
        let goes_on = !log.is_empty()?;

        let resumed = match goes_on {
            true => Some(log.resumed(state.epoch, state.step)?),
            false => None,
        };
        let events = EventWriter::create(folder.path(), resumed.as_deref())?;

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

    /// Writes `config` to the run's `config.toml` if the file differs.
    pub(super) fn keep_config(&self, config: &Config) -> Result<(), TrainError> {
        let text = toml::to_string(config).map_err(|error| RunFilesError::Io {
            path: self.folder.config(),
            action: "write",
            source: io::Error::other(error),
        })?;
        if self.folder.read_config()? != text {
            self.folder.write_config(&text)?;
        }
        Ok(())
    }

    /// Writes a warning to the log, for readers of the run's scores.
    pub(super) fn warning(&mut self, epoch: u64, step: u64, text: &str) -> Result<(), TrainError> {
        Ok(self
            .log
            .note("warning", epoch, step, &[("text", text.to_owned())])?)
    }

    /// Writes the measured times to the log, for the report.
    pub(super) fn profile(
        &mut self,
        epoch: u64,
        step: u64,
        profile: &ProfileTable,
    ) -> Result<(), TrainError> {
        let mut values = profile.seconds.clone();
        values.push(("steps", profile.steps as f64));
        self.log.append("profile", epoch, step, &values)?;
        Ok(())
    }

    /// Writes the run's result. The log is made durable first: a finished run has the values of all its epochs.
    pub(super) fn result(&self, result: &RunResult) -> Result<(), TrainError> {
        self.log.sync()?;
        Ok(self.folder.write_result(result)?)
    }

    /// Writes the figures of a step or an epoch to the log and, for TensorBoard, to the events.
    pub(super) fn figures(
        &mut self,
        kind: &str,
        epoch: u64,
        step: u64,
        values: &[(&str, f64)],
    ) -> Result<(), TrainError> {
        let entry = self.log.append(kind, epoch, step, values)?;
        Ok(self.events.write(&[entry])?)
    }
}
