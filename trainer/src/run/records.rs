//! What rank 0 writes down as a run goes.

use super::{Job, RunError};
use crate::checkpoint::State;
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
        // More epochs, or damage passed over: the folder says what is run. Not before the log is ours.
        let config =
            toml::to_string(&job.config).map_err(|source| RecordError::Config { path: folder.config(), source })?;
        if job.resume && folder.read_config()? != config {
            folder.write_config(&config)?;
        }
        let events = EventWriter::create(folder.path(), job.resume.then_some(state.step))?;
        if job.resume {
            log.resumed(state.epoch, state.step)?;
        }
        let notes = [("device", format!("{:?}", job.device)), ("world_size", world_size.to_string())];
        log.note("start", state.epoch, state.step, &notes)?;
        Ok(Self { folder, log, events })
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
