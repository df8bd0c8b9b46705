//! The flow: a store and a configuration become a trained, evaluated model. Read this first.
//!
//! store → rows → epochs of batches → steps → validation → checkpoint; at the end the best checkpoint meets the test
//! split, once. What runs on several ranks runs on all of them in the same order; rank 0 alone writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tch::Device;

use crate::checkpoint::{self, Best, CheckpointError, Checkpoints, EpochSums, FORMAT_VERSION, State};
use crate::config::Config;
use crate::dataset::{Dataset, DatasetError, Loader, LoaderPlan, Side};
use crate::evaluate::{self, EvaluateError};
use crate::learner::{Clock, LearnError, Learner, Stepped};
use crate::metrics::Predictions;
use crate::records::{EventWriter, Log, RecordError, RunDir};
use crate::result::RunResult;
use crate::schedule::{EarlyStop, Place, Schedules, Validation};
use crate::strategy::Collective;

/// Why a run ends early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A step.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An evaluation.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// The run's folder.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A split that training needs has no rows.
    #[error("no rows in split {split} under rule {rule}: choose another with --split, or extract more clips")]
    NoRows {
        /// Which side.
        split: &'static str,
        /// The rule.
        rule: String,
    },
    /// A checkpoint of another store or feature.
    #[error("{path} was trained on another {what} ({theirs}); this store has {ours}: give the store that it was trained on")]
    OtherStore {
        /// The run.
        path: PathBuf,
        /// `manifest` or `feature`.
        what: &'static str,
        /// Of the checkpoint.
        theirs: String,
        /// Of the store.
        ours: String,
    },
    /// SIGINT or SIGTERM: a checkpoint was written.
    #[error("stopped at step {step}; go on with: wavemill-train fit --resume {path}")]
    Stopped {
        /// Optimiser steps done.
        step: u64,
        /// The run's folder.
        path: PathBuf,
    },
}

/// What a run is made of, besides its configuration: where it lies and what it may use.
#[derive(Debug)]
pub struct Job {
    /// What decides the numbers.
    pub config: Config,
    /// The run's folder; every rank reads checkpoints there, rank 0 writes.
    pub folder: PathBuf,
    /// Whether to go on from its last checkpoint.
    pub resume: bool,
    /// CPU or a GPU.
    pub device: Device,
    /// Reader threads.
    pub readers: usize,
    /// Batches read ahead.
    pub prefetch_batches: usize,
}

/// What others may look at while a run goes on, and the one thing that they may ask of it.
#[derive(Debug, Default)]
pub struct Watch {
    /// Set to end the run after the step in progress.
    pub stop: AtomicBool,
    /// Epoch in progress, from 0.
    pub epoch: AtomicU64,
    /// Global batches done of it, and all of them.
    pub batches: AtomicU64,
    /// Global batches of an epoch.
    pub batches_total: AtomicU64,
    /// Rows done in all, by all ranks.
    pub rows: AtomicU64,
    /// The last step's loss, as f64 bits.
    pub loss: AtomicU64,
    /// Nanoseconds spent waiting for data.
    pub wait_ns: AtomicU64,
}

/// Trains, and evaluates the best checkpoint on the test split.
///
/// # Errors
/// [`RunError`]; [`RunError::Stopped`] after `watch.stop`, with a checkpoint written.
pub fn fit(job: &Job, data: &Dataset, ranks: &'static dyn Collective, watch: &Watch) -> Result<RunResult, RunError> {
    let mut run = Run::begin(job, data, ranks, watch)?;
    while !run.is_over() {
        run.train_epoch()?;
        run.end_epoch()?;
    }
    run.finish()
}

struct Run<'a> {
    job: &'a Job,
    config: &'a Config,
    data: &'a Dataset,
    ranks: &'static dyn Collective,
    watch: &'a Watch,
    learner: Learner<'a>,
    state: State,
    checkpoints: Checkpoints,
    /// Rank 0's.
    records: Option<RunDir>,
}

impl<'a> Run<'a> {
    fn begin(
        job: &'a Job,
        data: &'a Dataset,
        ranks: &'static dyn Collective,
        watch: &'a Watch,
    ) -> Result<Self, RunError> {
        let config = &job.config;
        for split in [Split::Training, Split::Validation, Split::Test] {
            if data.rows_of(split).is_empty() {
                return Err(RunError::NoRows { split: split.name(), rule: data.split_rule().to_owned() });
            }
        }
        let checkpoints = Checkpoints::open(job.folder.join("checkpoints"), config.train.keep)?;
        let mut learner = Learner::new(config, data, ranks, job.device)?;
        let mut state = first_state(config, data, ranks.world_size());
        if job.resume {
            let path = checkpoints.last()?;
            state = checkpoint::read_state(&path)?;
            learner.load(&checkpoint::read_tensors(&path)?, &path, state.world_size)?;
            state.world_size = ranks.world_size();
        }
        let mut records = if ranks.rank() == 0 { Some(RunDir::open(&job.folder)?) } else { None };
        if let Some(records) = &mut records {
            records.log(&json!({"kind": if job.resume { "resumed" } else { "started" }, "step": state.step,
                "epoch": state.epoch, "world_size": ranks.world_size(), "device": format!("{:?}", job.device)}))?;
        }
        let batches = data.batches(config.data.batch_size, config.data.drop_last);
        watch.batches_total.store(batches, Ordering::Relaxed);
        Ok(Self { job, config, data, ranks, watch, learner, state, checkpoints, records })
    }

    fn is_over(&self) -> bool {
        self.state.finished
            || self.state.epoch >= self.config.train.epochs
            || self.state.early_stop.is_due()
            || self.config.train.steps.is_some_and(|steps| self.state.step >= steps)
    }

    /// Steps over what is left of the epoch.
    fn train_epoch(&mut self) -> Result<(), RunError> {
        let mut batches = Loader::start(self.data, &self.plan(Split::Training))?;
        self.watch.epoch.store(self.state.epoch, Ordering::Relaxed);
        loop {
            let waiting = Instant::now();
            let Some(batch) = batches.next().transpose()? else { break };
            self.watch.wait_ns.fetch_add(waiting.elapsed().as_nanos() as u64, Ordering::Relaxed);
            let clock = Clock { epoch: self.state.epoch, step: self.state.step, lr: self.lr() };
            let stepped = self.learner.step(&batch, clock, self.watch.stop.load(Ordering::Relaxed))?;
            batches.give_back(batch);
            self.advance(stepped, clock)?;
            if stepped.stops > 0 {
                self.save()?;
                return Err(RunError::Stopped { step: self.state.step, path: self.job.folder.clone() });
            }
            if self.config.train.steps.is_some_and(|steps| self.state.step >= steps) {
                break;
            }
            let every = self.config.train.checkpoint_steps;
            if every > 0 && self.state.step.is_multiple_of(every) {
                self.save()?;
            }
        }
        Ok(())
    }

    /// Validation, schedules, early stop, checkpoint.
    fn end_epoch(&mut self) -> Result<(), RunError> {
        self.learner.average_buffers()?;
        let evaluated = self.evaluate(Split::Validation)?;
        let select = evaluated.value(self.config.train.select);
        self.log_epoch(&evaluated)?;
        self.state.schedules.epoch_ended(&evaluated.validation());
        if self.state.early_stop.observe(select) {
            self.state.best = Some(Best { value: select, epoch: self.state.epoch, step: self.state.step });
        }
        self.state.epoch += 1;
        self.state.batch = 0;
        self.state.sums = EpochSums::default();
        self.state.finished = self.is_over();
        self.save()
    }

    /// The best checkpoint's figures on validation and, for the first and only time, on test.
    fn finish(mut self) -> Result<RunResult, RunError> {
        let best = self.checkpoints.best()?;
        self.learner.load(&checkpoint::read_tensors(&best)?, &best, 0)?;
        let validation = self.evaluate(Split::Validation)?;
        let test = self.evaluate(Split::Test)?;
        let result = result::of_run(self.config, self.data, &self.learner, &self.state, validation, test);
        if let Some(records) = &mut self.records {
            records.write_result(&result)?;
        }
        Ok(result)
    }

    fn evaluate(&self, split: Split) -> Result<Evaluated, RunError> {
        Ok(evaluate::split(&self.learner, self.data, self.ranks, &self.plan(split))?)
    }

    fn plan(&self, split: Split) -> LoaderPlan {
        let training = split == Split::Training;
        LoaderPlan {
            split,
            seed: self.config.seed,
            epoch: self.state.epoch,
            shuffle: training,
            batch_size: self.config.data.batch_size,
            drop_last: training && self.config.data.drop_last,
            first_batch: if training { self.state.batch } else { 0 },
            mixup: training && self.config.loss.mixup > 0.0,
            rank: self.ranks.rank(),
            world_size: self.ranks.world_size(),
            pinned: self.job.device.is_cuda(),
            readers: self.job.readers,
            prefetch_batches: self.job.prefetch_batches,
        }
    }

    fn lr(&self) -> f64 {
        let total = self.config.train.epochs * self.watch.batches_total.load(Ordering::Relaxed);
        self.config.optimizer.lr * self.state.schedules.factor(self.state.epoch, self.state.step, total)
    }

    fn advance(&mut self, stepped: Stepped, clock: Clock) -> Result<(), RunError> {
        let state = &mut self.state;
        state.step += 1;
        state.batch += 1;
        state.sums.loss += stepped.loss * stepped.rows as f64;
        state.sums.rows += stepped.rows;
        state.sums.correct += stepped.correct;
        self.watch.batches.store(state.batch, Ordering::Relaxed);
        self.watch.rows.fetch_add(stepped.rows, Ordering::Relaxed);
        self.watch.loss.store(stepped.loss.to_bits(), Ordering::Relaxed);
        if let Some(records) = &mut self.records {
            records.scalars(state.step, &[("train/loss", stepped.loss), ("train/lr", clock.lr)])?;
        }
        Ok(())
    }

    fn log_epoch(&mut self, validation: &Evaluated) -> Result<(), RunError> {
        let Some(records) = &mut self.records else { return Ok(()) };
        let sums = &self.state.sums;
        let rows = sums.rows.max(1) as f64;
        let of = validation.validation();
        records.log(&json!({"kind": "epoch", "epoch": self.state.epoch, "step": self.state.step,
            "training": {"loss": sums.loss / rows, "accuracy": sums.correct / rows},
            "validation": {"loss": of.loss, "accuracy": of.accuracy, "macro_f1": of.macro_f1}}))?;
        records.scalars(
            self.state.step,
            &[
                ("epoch/train_loss", sums.loss / rows),
                ("epoch/train_accuracy", sums.correct / rows),
                ("epoch/validation_loss", of.loss),
                ("epoch/validation_accuracy", of.accuracy),
                ("epoch/validation_macro_f1", of.macro_f1),
            ],
        )?;
        Ok(())
    }

    /// A checkpoint; every rank brings its part, rank 0 writes.
    fn save(&mut self) -> Result<(), RunError> {
        let tensors = self.learner.tensors()?;
        if self.records.is_some() {
            self.checkpoints.save(&self.state, &tensors)?;
        }
        Ok(())
    }
}

fn first_state(config: &Config, data: &Dataset, world_size: usize) -> State {
    let dims = data.dims();
    State {
        format_version: FORMAT_VERSION,
        config: config.clone(),
        manifest_hash: data.manifest_hash().to_owned(),
        feature_id: data.feature_id().to_owned(),
        classes: data.targets().iter().map(|t| (t.name.clone(), t.classes.clone())).collect(),
        shape: [dims.bands, dims.frames],
        world_size,
        epoch: 0,
        batch: 0,
        step: 0,
        sums: EpochSums::default(),
        schedules: Schedules::new(&config.schedule),
        early_stop: EarlyStop::new(config.train.early_stop, config.train.select != Metric::Loss),
        best: None,
        finished: false,
    }
}
