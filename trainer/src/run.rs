//! The flow: a store and a configuration become a trained, evaluated model. Read this first.
//!
//! store → rows → epochs of batches → steps → validation → checkpoint; at the end the best checkpoint meets the test
//! split, once. What runs on several ranks runs on all of them in the same order; rank 0 alone writes.

mod checks;
mod error;
mod monitor;
mod records;
mod result;
mod training_list;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tch::Device;
use wavemill_schemas::config::Config;
use wavemill_schemas::text::shown;
use wavemill_scores::metrics::{Evaluation, Predictions};
use wavemill_scores::records::RunDir;
use wavemill_scores::result::RunResult;
use wavemill_scores::schedule::{RunPosition, Schedules, Validation};

use crate::checkpoint::{self, BestEpoch, Checkpoints, Divergence, EpochSums, State};
use crate::dataset::{Dataset, Loader, LoaderPlan, Side, n_batches};
use crate::evaluate;
use crate::learner::{LearnError, Learner, StepContext, StepSummary};
use crate::strategy::Collective;
use crate::tracking::Tracker;

use checks::{same_files, same_store, warnings};
use records::Records;
use result::result_of;
use training_list::{StartRun, TrainingList};

pub(crate) use checks::{check, require_rows, same_feature};
pub use error::RunError;
pub use monitor::{EpochSummary, Phase, RunMonitor};
pub use training_list::TrainingListError;
pub(crate) use training_list::known_side;

/// What a run is made of, besides its configuration: where it lies and what it may use.
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
    /// Whether the test split is asked at the end; trials of a sweep leave it alone.
    pub test: bool,
    /// Rank 0's, where the run is at an MLflow server, which is told how it ends.
    pub tracker: Option<Tracker>,
    /// Told the selecting metric's values after each epoch; false ends the run.
    pub keep_going: Option<KeepGoing>,
}

/// Whether a run is worth another epoch, given its values on validation so far.
pub type KeepGoing = Box<dyn Fn(&[f64]) -> bool + Send + Sync>;

/// Trains, and evaluates the best checkpoint on the test split.
///
/// # Errors
/// [`RunError`]; [`RunError::Stopped`] after `monitor.stop`, with a checkpoint written.
pub fn fit(
    job: &Job,
    data: &Arc<Dataset>,
    ranks: &'static dyn Collective,
    monitor: &RunMonitor,
) -> Result<FitOutcome, RunError> {
    let fitted = train(job, data, ranks, monitor);
    if let Some(tracker) = &job.tracker {
        records::tell_end(tracker, &fitted);
    }
    fitted
}

/// From the first step, or the last checkpoint, to the scores.
fn train(
    job: &Job,
    data: &Arc<Dataset>,
    ranks: &'static dyn Collective,
    monitor: &RunMonitor,
) -> Result<FitOutcome, RunError> {
    let mut run = Run::begin(job, data, ranks, monitor)?;
    // Resumed at its end: the test split is not asked again, and the folder is left as it is.
    if let Some(result) = run.ended_before()? {
        return Ok(FitOutcome {
            result,
            values: run.values,
            ended_before: true,
        });
    }

    run.open_records()?;
    // Stopped in the last step that train.steps allows: the end of its epoch is still to come.
    if run.is_over() && run.state.batch > 0 {
        run.end_epoch()?;
    }

    while !run.is_over() {
        run.train_epoch()?;
        run.end_epoch()?;
    }
    run.finish()
}

/// How a run came to its end.
#[derive(Debug)]
pub struct FitOutcome {
    /// What `result.json` says.
    pub result: RunResult,
    /// The selecting metric on validation after each epoch of this process.
    pub values: Vec<f64>,
    /// Whether it had come to its end before, so that nothing was done.
    pub ended_before: bool,
}

struct Run<'a> {
    job: &'a Job,
    config: &'a Config,
    data: &'a Arc<Dataset>,
    ranks: &'static dyn Collective,
    monitor: &'a RunMonitor,
    learner: Learner,
    state: State,
    schedules: Schedules,
    checkpoints: Checkpoints,
    /// Global batches of an epoch.
    batches: u64,
    /// What a reader of the figures should know.
    warnings: Vec<String>,
    /// The tracks of the run whose weights this one began with.
    inherited: Option<TrainingList>,
    values: Vec<f64>,
    /// Of [`RunMonitor::wait_ns`], what the log has.
    logged_wait_ns: u64,
    /// Rank 0's.
    records: Option<Records<'a>>,
    /// When this process began the epoch.
    epoch_start: Instant,
}

impl<'a> Run<'a> {
    fn begin(
        job: &'a Job,
        data: &'a Arc<Dataset>,
        ranks: &'static dyn Collective,
        monitor: &'a RunMonitor,
    ) -> Result<Self, RunError> {
        let config = &job.config;
        check(config, data, ranks.world_size())?;

        let checkpoints = Checkpoints::open(job.folder.join("checkpoints"), config.train.keep)?;
        let mut learner = Learner::new(config, data, ranks, job.device)?;
        let mut schedules = Schedules::new(&config.schedule, config.optimizer.lr);
        let mut state = State::first(config, data, schedules.state().clone(), ranks.world_size());

        if job.resume {
            let last = go_on(&mut learner, job, data, &checkpoints.last()?)?;
            schedules.resume(last.schedules.clone());
            // What belongs to this process, and not to the one that wrote the checkpoint.
            state = State {
                format_version: checkpoint::FORMAT_VERSION,
                world_size: state.world_size,
                threads: state.threads,
                lost: state.lost,
                ..last
            };
        } else if let Some(file) = &config.model.init {
            state.origin = learner.start_from(file)?;
        }

        let rows = data.rows_of(Side::Training).len();
        let batches = n_batches(rows, config.data.batch_size, config.data.drop_last);
        monitor.batches_total.store(batches, Ordering::Relaxed);
        monitor.first_step.store(state.step, Ordering::Relaxed);

        let mut warnings = warnings(config, data, &learner, ranks.world_size());
        // Removed by somebody, since it was damaged.
        if let Some(lost) = state.best.take_if(|best| !checkpoints.has(best.step)) {
            let epoch = lost.epoch + 1;
            warnings.push(format!(
                "the checkpoint of the best epoch, {epoch}, is gone: a later one takes its place"
            ));
        }

        // Also of a run that goes on: its weights began there.
        let mut inherited = None;
        if let Some(weights) = &config.model.init {
            let start = StartRun::of(weights, &job.folder, data);
            if ranks.rank() == 0 {
                for warning in &start.warnings {
                    eprintln!("warning: {}", shown(warning));
                }
            }
            warnings.extend(start.warnings);
            inherited = start.list;
        }

        Ok(Self {
            job,
            config,
            data,
            ranks,
            monitor,
            learner,
            state,
            schedules,
            checkpoints,
            batches,
            warnings,
            inherited,
            values: Vec::new(),
            logged_wait_ns: 0,
            records: None,
            epoch_start: Instant::now(),
        })
    }

    /// From here on the run's folder is written.
    fn open_records(&mut self) -> Result<(), RunError> {
        if self.ranks.rank() == 0 {
            let mut records = Records::open(self.job, &self.state, self.ranks.world_size())?;
            let inherited = self.inherited.take();
            training_list::keep(&records.folder, self.job.resume, self.data, inherited)?;
            for warning in &self.warnings {
                records.warning(self.state.epoch, self.state.step, warning)?;
            }
            self.records = Some(records);
        }

        if self.job.resume {
            self.keep_config()
        } else {
            Ok(())
        }
    }

    /// More epochs, or damage passed over, are in a checkpoint at once: a run that is killed before its next one goes on
    /// with them. Then the folder says what is run.
    fn keep_config(&mut self) -> Result<(), RunError> {
        // No rank writes before all have read.
        self.ranks.barrier().map_err(LearnError::from)?;
        if self.state.config != *self.config {
            // A run that came to its end goes on only where more is asked for.
            self.state.finished &= self.config.train.epochs <= self.state.config.train.epochs;
            self.state.config = self.config.clone();
            self.save()?;
        }

        self.records
            .as_ref()
            .map_or(Ok(()), |records| records.keep_config(self.config))
    }

    fn is_over(&self) -> bool {
        self.state.finished
            || self.state.epoch >= self.config.train.epochs
            || self
                .config
                .train
                .steps
                .is_some_and(|steps| self.state.step >= steps)
    }

    /// The result of a run that had come to this very end before; every rank finds the same.
    fn ended_before(&self) -> Result<Option<RunResult>, RunError> {
        if !self.job.resume || !self.is_over() {
            return Ok(None);
        }

        // One that cannot be read is written anew.
        let result = RunDir::open(&self.job.folder)?
            .read_result::<RunResult>()
            .unwrap_or_default();
        let found = result.filter(|result| {
            let is_this_end =
                result.steps == self.state.step && result.config_hash == self.config.hash();
            // A trial of a sweep ends without the test split; a run that asks it has more to do.
            let has_test = result.test_asked > 0 || !self.job.test;
            is_this_end && has_test
        });

        // No rank writes before all have looked.
        self.ranks.barrier().map_err(LearnError::from)?;
        Ok(found)
    }

    /// Steps over what is left of the epoch.
    fn train_epoch(&mut self) -> Result<(), RunError> {
        let mut batches = Loader::start(
            self.data,
            plan(self.job, Side::Training, &self.state, self.ranks),
        )?;

        self.monitor
            .epoch
            .store(self.state.epoch, Ordering::Relaxed);
        self.monitor.phase.set(Side::Training);
        self.epoch_start = Instant::now();

        loop {
            let waiting = Instant::now();
            let Some(batch) = batches.next().transpose()? else {
                return Ok(());
            };
            self.monitor
                .wait_ns
                .fetch_add(waiting.elapsed().as_nanos() as u64, Ordering::Relaxed);

            let context = StepContext {
                epoch: self.state.epoch,
                step: self.state.step,
                lr: self.lr(),
            };

            // Every rank hears in the step's sums whether one was asked to stop, so that all stop at the same one.
            let stop = self.monitor.stop.load(Ordering::Relaxed);
            let stepped = self.learner.step(&batch, context, stop)?;
            self.advance(stepped, context)?;

            // Before the next batch is asked for: the batch in progress is in the state.
            if stepped.stops > 0 {
                self.save()?;
                return Err(RunError::Stopped {
                    step: self.state.step,
                    path: self.job.folder.clone(),
                });
            }
            if self
                .config
                .train
                .steps
                .is_some_and(|steps| self.state.step >= steps)
            {
                return Ok(());
            }

            let every = self.config.train.checkpoint_steps;
            if every > 0 && self.state.step.is_multiple_of(every) {
                self.save()?;
            }
        }
    }

    /// Validation, schedules, early stop, checkpoint.
    fn end_epoch(&mut self) -> Result<(), RunError> {
        // Before validation, so that all ranks evaluate one model.
        self.learner.average_buffers()?;
        let predictions = self.predictions(Side::Validation)?;
        let validation = evaluate::validation(&predictions)?;
        self.log_epoch(&validation, &predictions)?;
        self.look_for_divergence()?;

        let verdict = self.state.early_stop.epoch_ended(&validation);
        let value = validation.value(self.config.train.select);
        self.values.push(value);
        if verdict.better {
            self.state.best = Some(BestEpoch {
                value,
                epoch: self.state.epoch,
                step: self.state.step,
            });
        }

        self.tell_epoch(&validation, verdict.better);
        self.schedules.epoch_ended(self.state.epoch, &validation);

        // From here on the state is that of the next epoch.
        self.state.epoch += 1;
        self.state.batch = 0;
        self.state.damaged_rows = self.state.damaged_rows.max(self.state.sums.damaged);
        self.state.sums = EpochSums::default();

        let enough = self
            .job
            .keep_going
            .as_ref()
            .is_some_and(|keep_going| !keep_going(&self.values));
        self.state.finished = verdict.stop || enough || self.is_over();
        self.save()
    }

    /// The best checkpoint's figures on validation and, for the first and only time, on test.
    fn finish(mut self) -> Result<FitOutcome, RunError> {
        // The checkpoint of rank 0 is complete before another rank looks for it.
        self.ranks.barrier().map_err(LearnError::from)?;

        // The learner still has the weights of the last epoch. What is scored are those that validation has chosen.
        let best = self.checkpoints.best()?;
        self.learner
            .load_model(&checkpoint::read_tensors(&best)?, &best)?;

        let validation = self.score(Side::Validation)?;
        let test = if self.job.test {
            self.score(Side::Test)?
        } else {
            SideScores::default()
        };
        let lost_rows: u64 = self.data.lost().iter().map(|file| file.rows).sum();
        let damaged =
            lost_rows + self.state.damaged_rows + validation.damaged_rows + test.damaged_rows;

        let mut result = result_of(
            &self.learner,
            self.data,
            &self.state,
            validation.evaluations,
            test.evaluations,
        );
        result.damaged_rows = damaged;
        result.warnings = self.warnings;
        result
            .warnings
            .extend(self.state.diverged.as_ref().map(ToString::to_string));
        if damaged > 0 {
            result.warnings.push(format!(
                "{damaged} rows were left out because their files are damaged"
            ));
        }

        if let Some(records) = &mut self.records {
            if self.job.test {
                // The result that was there says how often the test split was asked before.
                result.count_test(records.folder.read_result().unwrap_or_default().as_ref());
            }
            records.folder.write_result(&result)?;
        }

        Ok(FitOutcome {
            result,
            values: self.values,
            ended_before: false,
        })
    }

    fn score(&self, side: Side) -> Result<SideScores, RunError> {
        let predictions = self.predictions(side)?;
        // Every row that could be read has a prediction, so those that lack one are damaged.
        let rows = predictions.first().map_or(0, Predictions::len);
        Ok(SideScores {
            evaluations: evaluate::scores(
                &predictions,
                &evaluate::leaks(self.data, side),
                self.config.seed,
            )?,
            damaged_rows: (self.data.rows_of(side).len() - rows) as u64,
        })
    }

    /// For those who watch.
    fn tell_epoch(&self, validation: &Validation, best: bool) {
        let sums = &self.state.sums;
        let summary = EpochSummary {
            event: "epoch",
            epoch: self.state.epoch + 1,
            epochs: self.config.train.epochs,
            steps: self.state.step,
            training_loss: sums.loss / sums.rows.max(1) as f64,
            validation_loss: validation.loss,
            accuracy: validation.accuracy,
            macro_f1: validation.macro_f1,
            best,
            seconds: self.epoch_start.elapsed().as_secs_f64(),
        };

        self.monitor
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(summary);
    }

    /// Says once a run that the loss has grown out of all proportion. NaN and infinity end a run at their step.
    fn look_for_divergence(&mut self) -> Result<(), RunError> {
        if self.state.diverged.is_some() {
            return Ok(());
        }
        self.state.diverged = Divergence::of(&self.state);
        let (Some(diverged), Some(records)) = (&self.state.diverged, &mut self.records) else {
            return Ok(());
        };

        // Rank 0 says it.
        eprintln!("warning: {diverged}");
        records.warning(self.state.epoch, self.state.step, &diverged.to_string())
    }

    fn predictions(&self, side: Side) -> Result<Vec<Predictions>, RunError> {
        let start = Instant::now();
        self.monitor.phase.set(side);

        let predicted = evaluate::predict(
            &self.learner,
            self.data,
            self.ranks,
            plan(self.job, side, &self.state, self.ranks),
        );

        self.monitor
            .evaluation_ns
            .fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(predicted?)
    }

    fn lr(&self) -> f64 {
        // Of the whole run and not of what is left, so that a resumed run has the rates of one that never stopped.
        let planned = self.config.train.epochs * self.batches;
        let steps_total = self
            .config
            .train
            .steps
            .map_or(planned, |steps| steps.min(planned));
        self.schedules.lr(RunPosition {
            step: self.state.step,
            steps_total,
            epoch: self.state.epoch,
        })
    }

    fn advance(&mut self, stepped: StepSummary, context: StepContext) -> Result<(), RunError> {
        let state = &mut self.state;
        if state.step == 0 {
            // That of a model which knows nothing: a later loss is measured by it.
            state.first_loss = Some(stepped.loss);
        }

        state.step += 1;
        state.batch += 1;
        state.sums.loss += stepped.loss * stepped.rows as f64;
        state.sums.rows += stepped.rows;
        state.sums.labelled = state.sums.labelled.map(|rows| rows + stepped.labelled);
        state.sums.correct += stepped.correct;
        state.sums.damaged += stepped.damaged;

        self.monitor.batches.store(state.batch, Ordering::Relaxed);
        self.monitor.steps.fetch_add(1, Ordering::Relaxed);
        self.monitor.rows.fetch_add(stepped.rows, Ordering::Relaxed);
        self.monitor
            // `Relaxed`: each figure stands by itself, and whoever watches may see one of this step beside one of the last.
            .loss
            .store(stepped.loss.to_bits(), Ordering::Relaxed);

        match &mut self.records {
            Some(records) => records.step(context.epoch, state.step, stepped.loss, context.lr),
            None => Ok(()),
        }
    }

    fn log_epoch(
        &mut self,
        validation: &Validation,
        predictions: &[Predictions],
    ) -> Result<(), RunError> {
        let Some(records) = &mut self.records else {
            return Ok(());
        };
        let sums = &self.state.sums;
        let accuracy = sums.labelled.map(|rows| sums.correct / rows.max(1) as f64);

        let wait_ns = self.monitor.wait_ns.load(Ordering::Relaxed);
        // Since the line of the epoch before.
        let waited_ns = wait_ns - std::mem::replace(&mut self.logged_wait_ns, wait_ns);
        let mut values = vec![
            ("training/loss", sums.loss / sums.rows.max(1) as f64),
            ("validation/loss", validation.loss),
            ("validation/accuracy", validation.accuracy),
            ("validation/macro_f1", validation.macro_f1),
            ("data_wait_s", waited_ns as f64 / 1e9),
        ];

        // Of several labels a row nothing is right or wrong as a whole.
        if !self.data.targets()[0].is_multi() {
            values.extend(accuracy.map(|accuracy| ("training/accuracy", accuracy)));
        }
        records.epoch(self.state.epoch, self.state.step, &values)?;
        records.confusion(self.state.step, predictions)
    }

    /// A checkpoint; every rank brings its part, rank 0 writes.
    fn save(&mut self) -> Result<(), RunError> {
        self.state.schedules = self.schedules.state().clone();
        // Also on ranks that write nothing: `tensors` gathers the buffers of all of them.
        let tensors = self.learner.tensors()?;
        if self.records.is_some() {
            self.checkpoints.save(&self.state, &tensors)?;
        }
        Ok(())
    }
}

/// A side's scores, and its rows that could not be read.
#[derive(Default)]
struct SideScores {
    evaluations: Vec<Evaluation>,
    damaged_rows: u64,
}

fn plan(job: &Job, side: Side, state: &State, ranks: &dyn Collective) -> LoaderPlan {
    let config = &job.config;
    let training = side == Side::Training;

    // Evaluation reads every row once in the manifest's order, whatever the configuration says of training batches.
    LoaderPlan {
        side,
        shuffle: training,
        seed: config.seed,
        epoch: state.epoch,
        batch_size: config.data.batch_size,
        drop_last: training && config.data.drop_last,
        mixup: training && config.loss.mixup > 0.0,
        rank: ranks.rank(),
        world_size: ranks.world_size(),
        // Resumed within an epoch, training goes on at its next batch.
        first_batch: if training { state.batch } else { 0 },
        readers: job.readers,
        prefetch_batches: job.prefetch_batches,
        pinned: job.device.is_cuda(),
    }
}

/// The state of the checkpoint at `path`, whose tensors the learner takes.
fn go_on(learner: &mut Learner, job: &Job, data: &Dataset, path: &Path) -> Result<State, RunError> {
    let state = checkpoint::read_state(path)?;
    same_store(&state, data, path)?;
    same_files(&state, data, &job.folder)?;
    learner.load(&checkpoint::read_tensors(path)?, path, state.world_size)?;
    Ok(state)
}
