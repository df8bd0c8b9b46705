//! The thread that speaks to the server.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;
use serde_json::Value;

use super::client::RemoteRun;
use super::memory::Memory;
use super::tracker::{EpochQueue, Shared, not_sent, unix_ms};
use super::{Ending, TrackingError, limits};
use crate::ffi;

/// Files of a run's folder that go to the server, where they are there. The page is there if somebody made it.
const FILES: [&str; 4] = ["config.toml", "recipe.toml", "result.json", "report.html"];
/// A longer file is left out: pages are shorter.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// What the thread knows.
pub(super) struct Worker {
    shared: Arc<Shared>,
    /// `None` before the server has the run.
    memory: Option<Memory>,
    /// `None` before this process has found or made it there.
    run: Option<RemoteRun>,
    unsent: EpochQueue,
    pictures: BTreeMap<String, Vec<u8>>,
    /// Whether it was said that the server does not take what it should.
    has_warned: bool,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, memory: Option<Memory>) -> Self {
        Self {
            shared,
            memory,
            run: None,
            unsent: EpochQueue::default(),
            pictures: BTreeMap::new(),
            has_warned: false,
        }
    }

    /// Sends what waits whenever it is woken, until the run has ended.
    pub(super) fn work(mut self, wakes: &Receiver<()>) {
        // A signal would end a system call of a request.
        ffi::keep_signals_away();

        for () in wakes {
            match self.take() {
                None => {
                    let sent = self.send(Instant::now() + self.shared.server.patience.request);
                    self.warn_of(sent);
                }
                Some((ending, until)) => {
                    self.end(ending, until);
                    return;
                }
            }
        }
    }

    /// Takes over what waits. If the run has ended: how, and until when it waits for the server.
    fn take(&mut self) -> Option<(Ending, Instant)> {
        let mut waiting = self.shared.waiting();
        self.unsent.append(std::mem::take(&mut waiting.figures));
        self.pictures.append(&mut waiting.pictures);
        waiting.ending
    }

    /// All that the server has not yet, but for files.
    fn send(&mut self, until: Instant) -> Result<(), TrackingError> {
        let run = self.open(until)?;
        self.send_parameters(&run, until)?;
        self.send_figures(&run, until)
    }

    /// The run at the server: that of the folder, else a new one.
    fn open(&mut self, until: Instant) -> Result<RemoteRun, TrackingError> {
        if let Some(run) = &self.run {
            return Ok(run.clone());
        }

        let shared = Arc::clone(&self.shared);
        let mut found = None;
        if let Some(memory) = &self.memory {
            match shared.server.go_on(&memory.run_id, until) {
                // Removed there for good.
                Err(error) if error.is_missing() => {}
                other => found = Some(other?),
            }
        }
        let run = match found {
            Some(run) => run,
            None => self.create(until)?,
        };

        // There is one run in the life of this.
        let _ = shared.run.set(run.clone());
        self.run = Some(run.clone());
        Ok(run)
    }

    fn create(&mut self, until: Instant) -> Result<RemoteRun, TrackingError> {
        let shared = Arc::clone(&self.shared);
        let described = &shared.described;
        let run = shared
            .server
            .create_run(&described.name, &described.tags, unix_ms(), until)?;
        // One of that name was there before, and was removed: all epochs are sent anew.
        if self.memory.is_some() {
            self.unsent = not_sent(&shared.folder, None)?;
        }
        self.remember(Memory {
            server: shared.server.address().to_owned(),
            experiment: shared.server.experiment().to_owned(),
            run_id: run.id.clone(),
            ..Memory::default()
        })?;
        Ok(run)
    }

    /// MLflow lets no parameter change: those that a run began with stay.
    fn send_parameters(&mut self, run: &RemoteRun, until: Instant) -> Result<(), TrackingError> {
        let Some(memory) = self.memory.clone().filter(|memory| !memory.has_parameters) else {
            return Ok(());
        };
        for batch in limits::parameter_batches(&self.shared.described.parameters) {
            let server = &self.shared.server;
            let logged = server.log_batch(&run.id, "params", batch, until);
            pass_over_for_good(logged)?;
        }
        self.remember(Memory {
            has_parameters: true,
            ..memory
        })
    }

    /// Epoch by epoch, many in a request.
    fn send_figures(&mut self, run: &RemoteRun, until: Instant) -> Result<(), TrackingError> {
        while !self.unsent.epochs.is_empty() {
            let (batch, n_epochs) = self.next_batch();
            let last_step = self.unsent.epochs[n_epochs - 1].step;
            let server = &self.shared.server;
            let logged = server.log_batch(&run.id, "metrics", batch, until);
            pass_over_for_good(logged)?;

            self.unsent.epochs.drain(..n_epochs);
            if let Some(memory) = self.memory.clone() {
                self.remember(Memory {
                    logged_step: memory.logged_step.max(Some(last_step)),
                    ..memory
                })?;
            }
        }
        Ok(())
    }

    /// Figures of as many epochs as one request takes, one epoch at least.
    fn next_batch(&self) -> (Vec<Value>, usize) {
        let mut batch = Vec::new();
        let mut n_epochs = 0;
        for figures in &self.unsent.epochs {
            let metrics = limits::metrics(figures);
            if n_epochs > 0 && batch.len() + metrics.len() > limits::METRICS_MAX {
                break;
            }
            batch.extend(metrics);
            n_epochs += 1;
        }
        (batch, n_epochs)
    }

    /// The last words. What fails here is told of; the run's own files are whole by now.
    fn end(mut self, ending: Ending, until: Instant) {
        let patience = self.shared.server.patience;
        let before_status = until - patience.status;
        let mut sent = self.send(before_status);
        if sent.is_err() {
            std::thread::sleep(patience.retry);
            sent = self.send(before_status);
        }
        let ended = match (sent, self.run.clone()) {
            (Err(error), None) => Err(error),
            (sent, None) => sent,
            (sent, Some(run)) => {
                let put = self.put_files(&run, before_status);
                let ended = self.put_status(&run, ending, until);
                sent.and(put).and(ended)
            }
        };

        let left_out = self.unsent.left_out;
        if left_out > 0 {
            eprintln!(
                "warning: MLflow lacks the {left_out} oldest epochs that it did not take in time"
            );
        }
        if let Err(error) = ended {
            eprintln!(
                "warning: {}; what MLflow lacks of this run, `wavemill-train fit --resume {}` sends",
                words(&error),
                self.shared.folder.path().display()
            );
        }
    }

    fn put_files(&self, run: &RemoteRun, until: Instant) -> Result<(), TrackingError> {
        let server = &self.shared.server;
        for (name, png) in &self.pictures {
            server.put_file(run, name, png, until)?;
        }
        for name in FILES {
            let path = self.shared.folder.path().join(name);
            let is_fit = fs::metadata(&path)
                .is_ok_and(|file| file.is_file() && file.len() <= FILE_BYTES_MAX);
            if !is_fit {
                continue;
            }
            // A file that was removed since it was listed is treated as if it had never existed.
            if let Ok(bytes) = fs::read(&path) {
                server.put_file(run, name, &bytes, until)?;
            }
        }
        Ok(())
    }

    fn put_status(
        &self,
        run: &RemoteRun,
        ending: Ending,
        until: Instant,
    ) -> Result<(), TrackingError> {
        let server = &self.shared.server;
        let first = server.end(&run.id, ending, unix_ms(), until);
        if first.is_ok() {
            return first;
        }
        std::thread::sleep(server.patience.retry);
        server.end(&run.id, ending, unix_ms(), until)
    }

    fn remember(&mut self, memory: Memory) -> Result<(), TrackingError> {
        memory.write(&self.shared.folder)?;
        self.memory = Some(memory);
        Ok(())
    }

    /// Once a run: a server that is away would say it each epoch.
    fn warn_of(&mut self, sent: Result<(), TrackingError>) {
        let Err(error) = sent else {
            return;
        };
        if !self.has_warned {
            self.has_warned = true;
            eprintln!(
                "warning: {}; training goes on, and at each epoch's end it is tried again",
                words(&error)
            );
        }
    }
}

/// What the server will never take is told of and left out: else all that comes after would wait for it.
fn pass_over_for_good(logged: Result<(), TrackingError>) -> Result<(), TrackingError> {
    match logged {
        Err(error) if error.is_for_good() => {
            eprintln!("warning: {error}; this is left out there");
            Ok(())
        }
        logged => logged,
    }
}

/// An error with its causes, on one line.
fn words(error: &TrackingError) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
