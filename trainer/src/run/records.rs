//! What rank 0 writes down as a run goes.

use super::{Job, RunError};
use crate::checkpoint::State;
use crate::config::Config;
use crate::records::{EventWriter, Log, RecordError, RunDir};

/// Log, TensorBoard and configuration of a run's folder.
pub(super) struct Records {
    pub(super) folder: RunDir,
    log: Log,
    events: EventWriter,
}

impl Records {
    pub(super) fn open(job: &Job, state: &State, world_size: usize) -> Result<Self, RunError> {
        let folder = RunDir::open(&job.folder)?;
        let mut log = Log::open(&folder.log())?;
        let events = EventWriter::create(folder.path(), job.resume.then_some(state.step))?;
        if job.resume {
            log.resumed(state.epoch, state.step)?;
        }
        let notes = [("device", format!("{:?}", job.device)), ("world_size", world_size.to_string())];
        log.note("start", state.epoch, state.step, &notes)?;
        Ok(Self { folder, log, events })
    }

    /// `config.toml` says what is run, whatever it said before.
    pub(super) fn keep_config(&self, config: &Config) -> Result<(), RunError> {
        let path = self.folder.config();
        let text = toml::to_string(config).map_err(|source| RecordError::Config { path, source })?;
        if self.folder.read_config()? != text {
            self.folder.write_config(&text)?;
        }
        Ok(())
    }

    pub(super) fn step(&mut self, epoch: u64, step: u64, loss: f64, lr: f64) -> Result<(), RunError> {
        self.log.append("step", epoch, step, &[("loss", loss), ("lr", lr)])?;
        Ok(self.events.scalars(step, &[("step/loss", loss), ("step/lr", lr)])?)
    }

    pub(super) fn epoch(&mut self, epoch: u64, step: u64, values: &[(&str, f64)]) -> Result<(), RunError> {
        self.log.append("epoch", epoch, step, values)?;
        Ok(self.events.scalars(step, values)?)
    }
}
