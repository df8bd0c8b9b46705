//! Trains and evaluates a model on a store with a configuration. This module contains the overall flow; read it first.
//!
//! store → rows → epochs of batches → steps → validation → checkpoint. At the end, the best checkpoint is scored on the
//! test split, once. All ranks execute the same operations in the same order; only rank 0 writes files.

mod checks;
mod monitor;
mod records;
mod result;
mod training_list;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Device;
use wavemill_evaluation::TrainingList;
use wavemill_schemas::config::{Config, Metric, Train};
use wavemill_schemas::durable::settle_folder;
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::run::{Evaluation, RunDir, RunFilesError, RunResult};
use wavemill_schemas::text::{counted, error_line};
use wavemill_scores::metrics::{Predictions, TEMPERATURES};
use wavemill_scores::schedule::{RunPosition, Schedules, Validation};
use wavemill_terminal::interrupt::lock;

use crate::TrainError;
use crate::checkpoint::{self, BestEpoch, Checkpoints, Divergence, EpochSums, State};
use crate::dataset::{Dataset, Loader, LoaderPlan, Split, n_batches};
use crate::evaluate;
use crate::learner::{Learner, StepContext, StepSummary};
use crate::profile::{Part, Profile, ProfileTable};
use crate::strategy::Collective;

use checks::{same_files, same_store, warnings};
use records::Records;
use result::result_of;
use training_list::StartRun;

pub(crate) use checks::{check, require_rows, same_feature};
pub use monitor::{EpochSummary, Phase, RunMonitor};
pub(crate) use training_list::known_split;

/// Inputs of [`fit`]: the run's configuration, its folder and its resources.
pub struct Job {
    /// The run's configuration, which determines the numeric results.
    pub config: Config,
    /// The run's folder. Every rank reads checkpoints from it; only rank 0 writes to it.
    pub folder: PathBuf,
    /// True to resume from the run's last checkpoint.
    pub resume: bool,
    /// Device on which the model is computed: CPU or a GPU.
    pub device: Device,
    /// Number of threads that read rows from the store.
    pub readers: usize,
    /// Number of batches to prefetch for the device.
    pub prefetch_batches: usize,
    /// True to score the test split at the end. Trials of a sweep do not score it.
    pub test: bool,
    /// Number of steps whose parts are measured; 0 for no profile.
    pub profile_steps: u64,
    /// Callback that is passed the values of `train.select` after each epoch; returning false ends the run.
    pub keep_going: Option<KeepGoing>,
}

/// Reports whether a run should train for another epoch, given its values of `train.select` on validation so far.
pub type KeepGoing = Box<dyn Fn(&[f64]) -> bool + Send + Sync>;

/// Trains a model and evaluates its best checkpoint on the test split.
///
/// # Errors
/// [`TrainError`]; an error of kind [`Kind::Interrupted`] after `monitor.stop` was set, in which case a checkpoint has
/// been written.
pub fn fit(
    job: &Job,
    data: &Arc<Dataset>,
    ranks: &'static dyn Collective,
    monitor: &RunMonitor,
) -> Result<FitOutcome, TrainError> {
    let mut run = Run::begin(job, data, ranks, monitor)?;
    // A resumed run that had already ended is not evaluated on the test split again, and its folder is unchanged.
    if let Some(result) = run.ended_before()? {
        return Ok(FitOutcome {
            result,
            values: run.values,
            ended_before: true,
            profile: None,
        });
    }

    run.open_records()?;
    // The run was stopped after the last step that `train.steps` allows, before the epoch's validation.
    if run.is_over() && run.state.batch > 0 {
        run.end_epoch()?;
    }

    while !run.is_over() {
        run.train_epoch()?;
        run.end_epoch()?;
    }
    run.finish()
}

/// The outcome of a completed run.
#[derive(Debug)]
pub struct FitOutcome {
    /// Result of the run, the contents of `result.json`.
    pub result: RunResult,
    /// Values of the metric `train.select` on validation, one per epoch of this process.
    pub values: Vec<f64>,
    /// True if the run had already ended before this call, which then did nothing.
    pub ended_before: bool,
    /// The times of the parts of training, if they were measured.
    pub profile: Option<ProfileTable>,
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
    /// Number of global batches (batches over all ranks) in an epoch.
    batches: u64,
    /// Warnings to store in the log and in the result.
    warnings: Vec<String>,
    /// Training tracks of the run that provided the initial weights.
    inherited: Option<TrainingList>,
    values: Vec<f64>,
    /// Part of [`RunMonitor::wait_ns`] that earlier lines of the log contain.
    logged_wait_ns: u64,
    /// Writers of the log and event files; `None` on ranks other than 0.
    records: Option<Records>,
    /// Time at which this process began the epoch in progress.
    epoch_start: Instant,
    profile: Option<Arc<Profile>>,
    /// True if the checkpoint of the best epoch was gone when the run was resumed.
    best_is_gone: bool,
}

impl<'a> Run<'a> {
    fn begin(
        job: &'a Job,
        data: &'a Arc<Dataset>,
        ranks: &'static dyn Collective,
        monitor: &'a RunMonitor,
    ) -> Result<Self, TrainError> {
        let config = &job.config;
        check(config, data, ranks.world_size())?;

        let checkpoints = Checkpoints::open(job.folder.join("checkpoints"), config.train.keep)?;
        let mut learner = Learner::new(config, data, ranks, job.device)?;
        let profile = (job.profile_steps > 0).then(|| Profile::new(job.profile_steps, job.device));
        learner.measure(profile.clone());
        let schedules = Schedules::new(&config.schedule, config.optimizer.lr);
        let state = State::first(config, data, schedules.state().clone(), ranks.world_size());
        let rows = data.rows_of(Split::Training).len();

        let mut run = Self {
            job,
            config,
            data,
            ranks,
            monitor,
            learner,
            state,
            schedules,
            checkpoints,
            batches: n_batches(rows, config.data.batch_size, config.data.drop_last),
            warnings: Vec::new(),
            inherited: None,
            values: Vec::new(),
            logged_wait_ns: 0,
            records: None,
            epoch_start: Instant::now(),
            profile,
            best_is_gone: false,
        };
        if job.resume {
            run.load_last_checkpoint()?;
        } else {
            run.initialise_weights()?;
        }
        run.state.batch_norm_per_rank |=
            normalizes_per_rank(&run.learner, config, ranks.world_size());
        monitor.batches_total.store(run.batches, Ordering::Relaxed);
        monitor.first_step.store(run.state.step, Ordering::Relaxed);

        run.warnings = warnings(config, data, &run.learner, run.state.batch_norm_per_rank);
        run.forget_missing_best()?;
        run.inherit_training_list();
        Ok(run)
    }

    /// Restores the weights and the state of the run from its last checkpoint.
    fn load_last_checkpoint(&mut self) -> Result<(), TrainError> {
        let path = self.checkpoints.last()?;
        let last = checkpoint::read_state(&path)?;
        same_store(&last, self.data, &path)?;
        same_files(&last, self.data, &self.job.folder)?;
        let tensors = checkpoint::read_tensors(&path)?;
        self.learner.load(&tensors, &path, last.world_size)?;
        self.schedules.resume(last.schedules.clone());

        let batch_norm_per_rank = last.batch_norm_per_rank
            || normalizes_per_rank(&self.learner, self.config, last.world_size);
        // A sweep's decision does not hold for a run on its own.
        let continues = last.ended_by_sweep && self.job.keep_going.is_none();
        // Some of these fields describe this process instead of the process that wrote the checkpoint.
        self.state = State {
            batch_norm_per_rank,
            ended_by_sweep: last.ended_by_sweep && !continues,
            finished: last.finished && !continues,
            format_version: checkpoint::FORMAT_VERSION,
            world_size: self.state.world_size,
            threads: self.state.threads,
            lost: self.state.lost.take(),
            ..last
        };
        Ok(())
    }

    /// Loads the weights of `model.init`, or checks that all ranks have drawn equal weights.
    fn initialise_weights(&mut self) -> Result<(), TrainError> {
        match &self.config.model.init {
            Some(file) => self.state.origin = self.learner.start_from(file)?,
            None => self.learner.check_equal("first weights")?,
        }
        Ok(())
    }

    /// Lets a later epoch become the best one if the checkpoint of the best epoch is gone. A user may have removed it
    /// because it was damaged.
    fn forget_missing_best(&mut self) -> Result<(), TrainError> {
        let Some(best) = &self.state.best else {
            return Ok(());
        };
        if of_first(self.ranks, &self.checkpoints.has(best.step)?)? {
            return Ok(());
        }
        self.warnings.push(format!(
            "the checkpoint of the best epoch, {}, is gone: a later one takes its place",
            best.epoch + 1
        ));
        self.state.best = None;
        self.state.early_stop.forget_best();
        self.best_is_gone = true;
        Ok(())
    }

    /// Finds the training tracks of the run whose weights this run starts from, with the warnings that they cause.
    /// Resumed runs are compared as well, since their weights derive from `model.init` too.
    fn inherit_training_list(&mut self) {
        let Some(weights) = &self.config.model.init else {
            return;
        };
        let start = StartRun::find(weights, &self.job.folder, self.data);
        let warnings = self.state.start_warnings.get_or_insert(start.warnings);
        if self.ranks.rank() == 0 {
            for warning in warnings.iter() {
                self.monitor.warn(warning);
            }
        }
        self.warnings.extend_from_slice(warnings);
        self.inherited = start.list;
    }

    /// Opens the log and event files. Before this call, nothing is written to the run's folder.
    fn open_records(&mut self) -> Result<(), TrainError> {
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

    /// If the configuration has changed (more epochs, or `skip_damaged`), or the best checkpoint is gone, writes a
    /// checkpoint with the change immediately, so that it still applies if the run is killed before its next
    /// checkpoint. Then updates `config.toml`.
    fn keep_config(&mut self) -> Result<(), TrainError> {
        // No rank may write to the run's folder before all ranks have read the checkpoint.
        self.ranks.barrier()?;
        if self.state.config != *self.config || self.best_is_gone {
            self.state.finished = self.is_finished();
            self.state.config = self.config.clone();
            self.save()?;
        }

        self.records
            .as_ref()
            .map_or(Ok(()), |records| records.keep_config(self.config))
    }

    /// Reports whether the run has ended. It continues only if the new configuration has more epochs.
    fn is_finished(&self) -> bool {
        self.state.finished && self.config.train.epochs <= self.state.config.train.epochs
    }

    fn is_over(&self) -> bool {
        self.is_finished() || self.state.epoch >= self.config.train.epochs || self.has_all_steps()
    }

    /// Reports whether the run has done the steps that `train.steps` allows.
    fn has_all_steps(&self) -> bool {
        let most = self.config.train.steps;
        most.is_some_and(|steps| self.state.step >= steps)
    }

    /// Returns the stored result if the run had already ended with this step, and the configuration adds none; the same
    /// on all ranks.
    fn ended_before(&self) -> Result<Option<RunResult>, TrainError> {
        if !self.job.resume || !self.is_over() {
            return Ok(None);
        }

        // A damaged `result.json` is treated as missing: the result is computed and written again.
        let result = match RunDir::open(&self.job.folder)?.read_result::<RunResult>() {
            Err(RunFilesError::Json { .. }) => None,
            read => read?,
        };
        let found = result.filter(|result| {
            // A sweep's trial has a result without the test split, so `fit` still has to score the test split.
            let has_test = result.test_asked > 0 || !self.job.test;
            result.steps == self.state.step && has_test
        });

        // A process that was killed may have written the result without making its name durable.
        if found.is_some() {
            settle_folder(&self.job.folder).map_err(|source| RunFilesError::Io {
                path: self.job.folder.clone(),
                action: "sync",
                source,
            })?;
        }

        // No rank may write to the run's folder before all ranks have read the result. On a network's disk, a rank may
        // not see it yet.
        of_first(self.ranks, &found)
    }

    /// Trains on the remaining batches of the epoch in progress.
    fn train_epoch(&mut self) -> Result<(), TrainError> {
        let mut batches = Loader::start(
            self.data,
            plan(self.job, Split::Training, &self.state, self.ranks),
        )?;

        self.monitor
            .epoch
            .store(self.state.epoch, Ordering::Relaxed);
        self.monitor.phase.set(Split::Training);
        self.epoch_start = Instant::now();

        loop {
            let waiting = Instant::now();
            let measured = Profile::start(&self.profile, Part::Waiting);
            let Some(batch) = batches.next().transpose()? else {
                return Ok(());
            };
            drop(measured);
            self.monitor
                .wait_ns
                .fetch_add(waiting.elapsed().as_nanos() as u64, Ordering::Relaxed);

            let context = StepContext {
                epoch: self.state.epoch,
                step: self.state.step,
                lr: self.lr(),
            };

            // A step sums the stop requests of all ranks, so that all ranks stop after the same step.
            let stop = self.monitor.stop.load(Ordering::Relaxed);
            let stepped = self.learner.step(&batch, context, stop)?;
            self.advance(stepped, context)?;

            // Save before requesting the next batch, so that the saved state counts every batch taken from the loader.
            if stepped.stops > 0 {
                self.save()?;
                let message = format!(
                    "stopped at step {}; resume with: wavemill train fit --resume {}",
                    self.state.step,
                    self.job.folder.display()
                );
                return Err(PlainError::new(Kind::Interrupted, message).into());
            }
            if self.has_all_steps() {
                return Ok(());
            }

            let every = self.config.train.checkpoint_steps;
            if every > 0 && self.state.step.is_multiple_of(every) {
                self.save()?;
            }
        }
    }

    /// Runs validation, updates learning rate schedules and early stopping, and writes a checkpoint.
    fn end_epoch(&mut self) -> Result<(), TrainError> {
        // Average batch norm's buffers before validation, so that all ranks evaluate the same model.
        self.learner.average_buffers()?;
        let measured = Profile::start(&self.profile, Part::Validation);
        let predictions = self.predictions(Split::Validation)?;
        let validation =
            evaluate::validation(&predictions, self.config.train.select_target.as_deref())?;
        drop(measured);
        self.log_epoch(&validation)?;
        self.look_for_divergence()?;

        let verdict = self.state.early_stop.epoch_ended(&validation);
        let train = &self.config.train;
        // Layers that are still frozen may improve the model when they thaw.
        let thaw = self.config.optimizer.last_thaw(train.epochs);
        let stop = verdict.stop && self.state.epoch + 1 >= thaw + train.early_stop;
        let value = validation.selected(train);
        if train.temperature_scaling {
            self.state.temperatures = predictions.iter().map(Predictions::temperature).collect();
        }
        self.values.push(value);
        if verdict.better {
            self.state.best = Some(BestEpoch {
                value,
                epoch: self.state.epoch,
                step: self.state.step,
            });
        }

        self.report_epoch(&validation, verdict.better);
        self.schedules.epoch_ended(self.state.epoch, &validation);

        // The following values belong to the next epoch.
        self.state.epoch += 1;
        self.state.batch = 0;
        self.state.damaged_rows = self.state.damaged_rows.max(self.state.sums.damaged);
        self.state.sums = EpochSums::default();

        let enough = self
            .job
            .keep_going
            .as_ref()
            .is_some_and(|keep_going| !keep_going(&self.values));
        let ends = stop || self.is_over();
        self.state.ended_by_sweep = enough && !ends;
        self.state.finished = ends || enough;
        self.save()
    }

    /// Scores the best checkpoint on validation and, for the first and only time in the run, on test.
    fn finish(mut self) -> Result<FitOutcome, TrainError> {
        // Rank 0 must have written its last checkpoint before another rank looks for the best one.
        self.ranks.barrier()?;

        // The learner has the weights of the last epoch; replace them by those of the best epoch on validation.
        let best = self.checkpoints.best()?;
        self.learner
            .load_model(&checkpoint::read_tensors(&best)?, &best)?;
        // The temperatures of the last epoch are replaced as well.
        self.state.temperatures = checkpoint::read_state(&best)?.temperatures;
        self.learner
            .set_temperatures(self.state.temperatures.clone());

        let validation = self.score(Split::Validation)?;
        let test = if self.job.test {
            self.score(Split::Test)?
        } else {
            SplitScores::default()
        };
        let lost_rows: u64 = self.data.lost().iter().map(|file| file.rows).sum();
        self.warn_of_selection();
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
                "left out {} of damaged files",
                counted(damaged, "row")
            ));
        }

        let profile = self.profile.as_ref().map(|profile| profile.table());
        if let Some(records) = &mut self.records {
            if let Some(profile) = &profile {
                records.profile(self.state.epoch, self.state.step, profile)?;
            }
            if self.job.test {
                // The previous result contains the number of earlier evaluations on the test split.
                match records.folder.read_result() {
                    Ok(previous) => result.count_test(previous.as_ref()),
                    Err(error @ RunFilesError::Io { .. }) => return Err(error.into()),
                    Err(error) => result.warnings.push(format!(
                        "the number of evaluations on the test split begins again: {}",
                        error_line(&error)
                    )),
                }
            }
            records.result(&result)?;
        }

        Ok(FitOutcome {
            result,
            values: self.values,
            ended_before: false,
            profile,
        })
    }

    /// Warns if no epoch could be selected, and of temperatures at their limits.
    fn warn_of_selection(&mut self) {
        let train = &self.config.train;
        if self.state.best.is_none() && !self.best_is_gone {
            self.warnings.push(format!(
                "train.select = {:?} is undefined after every epoch: the weights are those of the last one",
                train.selected()
            ));
        }
        for (temperature, (target, _)) in self.state.temperatures.iter().zip(&self.state.classes) {
            let is_limit = |limit: f64| (temperature / limit - 1.0).abs() < 1e-6;
            if TEMPERATURES.into_iter().any(is_limit) {
                self.warnings.push(format!(
                    "the temperature of {target} is at its limit, {temperature:.2}: its probabilities say little about \
                     the validation labels, or agree with all of them"
                ));
            }
        }
    }

    fn score(&mut self, split: Split) -> Result<SplitScores, TrainError> {
        let predictions = self.predictions(split)?;
        // Every readable row has a prediction, so rows without a prediction are damaged.
        let rows = predictions.first().map_or(0, Predictions::len);
        Ok(SplitScores {
            evaluations: evaluate::scores(
                &predictions,
                &evaluate::leaks(self.data, split),
                self.config.seed,
            )?,
            damaged_rows: (self.data.rows_of(split).len() - rows) as u64,
        })
    }

    /// Passes a summary of the completed epoch to the readers of the monitor.
    fn report_epoch(&self, validation: &Validation, best: bool) {
        let sums = &self.state.sums;
        let summary = EpochSummary {
            event: "epoch",
            epoch: self.state.epoch + 1,
            epochs: self.config.train.epochs,
            steps: self.state.step,
            training_loss: sums.loss / sums.rows.max(1) as f64,
            validation_loss: validation.loss,
            accuracy: validation.value(Metric::Accuracy, None),
            macro_f1: validation.value(Metric::MacroF1, None),
            select: self.config.train.selected(),
            selected: validation.selected(&self.config.train),
            best,
            seconds: self.epoch_start.elapsed().as_secs_f64(),
        };

        lock(&self.monitor.ended).push(summary);
    }

    /// Warns once per run if the training loss has diverged. A loss of NaN or infinity ends the run immediately.
    fn look_for_divergence(&mut self) -> Result<(), TrainError> {
        if self.state.diverged.is_some() {
            return Ok(());
        }
        self.state.diverged = Divergence::detect(&self.state);
        let (Some(diverged), Some(records)) = (&self.state.diverged, &mut self.records) else {
            return Ok(());
        };

        // Only rank 0 has records, so only rank 0 prints the warning.
        let warning = diverged.to_string();
        self.monitor.warn(&warning);
        records.warning(self.state.epoch, self.state.step, &warning)
    }

    fn predictions(&mut self, split: Split) -> Result<Vec<Predictions>, TrainError> {
        let start = Instant::now();
        self.monitor.phase.set(split);

        self.learner.swap_average();
        let predicted = evaluate::predict(
            &self.learner,
            self.data,
            self.ranks,
            plan(self.job, split, &self.state, self.ranks),
            None,
        );
        self.learner.swap_average();

        self.monitor
            .evaluation_ns
            .fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        predicted
    }

    fn lr(&self) -> f64 {
        // The number of steps of the whole run, so that a resumed run has the learning rates of an uninterrupted one.
        let steps_total = steps_total(&self.config.train, self.batches);
        self.schedules.lr(RunPosition {
            step: self.state.step,
            steps_total,
            epoch: self.state.epoch,
        })
    }

    fn advance(&mut self, stepped: StepSummary, context: StepContext) -> Result<(), TrainError> {
        let state = &mut self.state;
        if state.step == 0 {
            // The loss of the untrained model, to which the losses of later epochs are compared.
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
            // `Relaxed`: the figures are independent, so a reader may see values of two different steps.
            .loss
            .store(stepped.loss.to_bits(), Ordering::Relaxed);

        match &mut self.records {
            Some(records) => {
                let figures = [("loss", stepped.loss), ("lr", context.lr)];
                records.figures("step", context.epoch, state.step, &figures)
            }
            None => Ok(()),
        }
    }

    fn log_epoch(&mut self, validation: &Validation) -> Result<(), TrainError> {
        let Some(records) = &mut self.records else {
            return Ok(());
        };
        let sums = &self.state.sums;
        let accuracy = sums.labelled.map(|rows| sums.correct / rows.max(1) as f64);

        let wait_ns = self.monitor.wait_ns.load(Ordering::Relaxed);
        // Time that training waited for batches since the previous epoch's log line.
        let waited_ns = wait_ns - std::mem::replace(&mut self.logged_wait_ns, wait_ns);
        let mut values = vec![
            ("training/loss", sums.loss / sums.rows.max(1) as f64),
            ("data_wait_s", waited_ns as f64 / 1e9),
        ];
        for (name, metric) in [
            ("validation/loss", Metric::Loss),
            ("validation/accuracy", Metric::Accuracy),
            ("validation/macro_f1", Metric::MacroF1),
        ] {
            values.push((name, validation.value(metric, None)));
        }

        let train = &self.config.train;
        let selected = format!("validation/{}", train.selected());
        if !values.iter().any(|(name, _)| *name == selected) {
            let value = validation.selected(train);
            values.push((&selected, value));
        }

        // Accuracy per row is not defined for a multi-label target.
        if !self.data.targets()[0].is_multi() {
            values.extend(accuracy.map(|accuracy| ("training/accuracy", accuracy)));
        }
        records.figures("epoch", self.state.epoch, self.state.step, &values)
    }

    /// Writes a checkpoint. Every rank provides its tensors; only rank 0 writes files.
    fn save(&mut self) -> Result<(), TrainError> {
        let _measured = Profile::start(&self.profile, Part::Checkpoint);
        self.state.schedules = self.schedules.state().clone();
        // Call `tensors` on all ranks, including those that write nothing, because it gathers every rank's buffers.
        let tensors = self.learner.tensors()?;
        if self.records.is_some() {
            self.checkpoints.save(&self.state, &tensors)?;
        }
        Ok(())
    }
}

/// Reports whether batch norm uses only the rows of each rank in training with `world_size` ranks.
fn normalizes_per_rank(learner: &Learner, config: &Config, world_size: usize) -> bool {
    world_size > 1 && learner.trains_batch_norm() && !config.model.sync_batch_norm
}

/// Scores of a split (validation or test), and the number of its rows that could not be read.
#[derive(Default)]
struct SplitScores {
    evaluations: Vec<Evaluation>,
    damaged_rows: u64,
}

/// Returns the maximum number of steps of a run with `batches` global batches per epoch.
pub(crate) fn steps_total(train: &Train, batches: u64) -> u64 {
    let planned = train.epochs.saturating_mul(batches);
    train.steps.map_or(planned, |steps| steps.min(planned))
}

/// Returns the number of epochs of a run that does not end early; `train.steps` may end the last one before its time.
pub(crate) fn epochs_total(config: &Config, data: &Dataset) -> u64 {
    let rows = data.rows_of(Split::Training).len();
    let batches = n_batches(rows, config.data.batch_size, config.data.drop_last);
    steps_total(&config.train, batches).div_ceil(batches.max(1))
}

fn plan(job: &Job, split: Split, state: &State, ranks: &dyn Collective) -> LoaderPlan {
    let config = &job.config;
    let training = split == Split::Training;

    // Validation and test read every row once, in manifest order, regardless of the settings for training batches.
    LoaderPlan {
        split,
        shuffle: training,
        seed: config.seed,
        epoch: state.epoch,
        batch_size: config.data.batch_size,
        drop_last: training && config.data.drop_last,
        mixup: training && config.loss.mixup > 0.0,
        rank: ranks.rank(),
        world_size: ranks.world_size(),
        // A run that resumes within an epoch continues with the next batch of that epoch.
        first_batch: if training { state.batch } else { 0 },
        readers: job.readers,
        prefetch_batches: job.prefetch_batches,
        pinned: job.device.is_cuda(),
        ..LoaderPlan::default()
    }
}

/// Returns rank 0's value of `own` on all ranks, so that all take the same decision. All ranks must call this.
fn of_first<T: Serialize + DeserializeOwned>(
    ranks: &dyn Collective,
    own: &T,
) -> Result<T, TrainError> {
    let failed = |error: serde_json::Error| PlainError::failed(error.to_string());
    let own = serde_json::to_vec(own).map_err(failed)?;
    let all = ranks.gather(&own)?;
    Ok(serde_json::from_slice(&all[0]).map_err(failed)?)
}
