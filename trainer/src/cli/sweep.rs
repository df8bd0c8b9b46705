//! `wavemill-train sweep`: trains many configurations and compares them on validation, without the test split.

mod trial;

use std::any::Any;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Error, Result, bail};
use clap::Args;
use tch::Device;
use tempfile::NamedTempFile;
use wavemill_schemas::canonical;
use wavemill_schemas::config::{Config, Data, Loss, Metric};
use wavemill_schemas::exit::NO_SPACE;
use wavemill_schemas::settings;
use wavemill_schemas::text::{error_line, shown};
use wavemill_schemas::version_name::VersionName;
use wavemill_scores::sweep::{Medians, Sweep, config_of, finished, values_of};
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::output::{report, stdout};

use super::exit;
use super::fit::{is_stopped, monitored};
use super::jobs::{self, JobPlan};
use super::like::LikeArgs;
use super::run_folder::{new_folder, path_of_rank_0};
use super::{MachineArgs, fit, interrupt};
use crate::dataset::{Dataset, Needs, StorePlace};
use crate::ffi;
use crate::learner::LearnError;
use crate::models::{ModelError, init, registry};
use crate::run::{self, Job, KeepGoing, RunError};
use crate::strategy::{Collective, Ranks};
use trial::{MedianJudge, Trial};

const EXAMPLES: &str = "\
Examples:
  wavemill-train sweep sweep.toml --store store
  wavemill-train sweep sweep.toml --store store --config base.toml --set train.epochs=10 --json
  wavemill-train sweep sweep.toml --store store --jobs 4             # four at once

sweep.toml:
  method = \"random\"                  # or grid: every combination of lists
  trials = 20
  median_stopping_after = 3          # epochs; stops trials that are worse than the median of earlier ones
  [parameters]
  \"optimizer.lr\" = { min = 1e-4, max = 1e-2, log = true }
  \"model.name\" = [\"cnn2d\", \"crnn\"]

Trials are compared by train.select on validation; the test split is not used. Evaluate the best
trial once with `wavemill-train eval`.
All trials are checked before the first one starts. If a trial fails later, its error is shown, the
others continue, and the exit code is 1. Run the same command again to reuse the completed trials
in the folder of runs and train the others.
--jobs N runs N trials in parallel, each in its own process; results do not depend on it for the
same --threads, which defaults to an equal share of the cores. GPUs are assigned in turn.";

/// Error for a sweep that was stopped by SIGINT or SIGTERM.
#[derive(Debug, thiserror::Error)]
#[error(
    "stopped in {trial}; run the same command to continue: completed ones are reused from {}",
    runs.display()
)]
pub(crate) struct SweepInterrupted {
    pub trial: String,
    pub runs: PathBuf,
}

/// Try many configurations, compared on validation
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SweepCommand {
    /// Description of the trials (TOML)
    file: PathBuf,
    /// A feature store written by `wavemill extract`: its folder, or its address such as s3://bucket/store
    #[arg(long, value_name = "DIR")]
    store: StorePlace,
    /// Version of the store, by number or tag [default: the latest]
    #[arg(long, value_name = "VERSION")]
    version: Option<VersionName>,
    #[command(flatten)]
    like: LikeArgs,
    /// Configuration shared by all trials (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a value of the shared configuration
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Folder in which to create each trial's folder
    #[arg(long, default_value = "runs", value_name = "DIR")]
    runs: PathBuf,
    /// Number of trials at once, each in its own process; GPUs are assigned in turn
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Run only this trial, from 0; used by --jobs
    #[arg(long, hide = true, value_name = "N")]
    trial: Option<usize>,
    /// Print a JSON line per trial on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

/// A trial before its training begins.
struct PlannedTrial {
    number: usize,
    set: Vec<String>,
    config: Config,
}

/// All trials of a sweep, and the damaged files that any of them skips.
struct SweepPlan {
    trials: Vec<PlannedTrial>,
    lost: Vec<String>,
}

/// Copies of the sweep's description and of the shared configuration, which the trials' processes read. The files of the
/// user may change meanwhile.
struct TrialFiles {
    sweep: NamedTempFile,
    config: NamedTempFile,
}

impl TrialFiles {
    fn new(sweep: &str, base: &Config) -> Result<Self> {
        let write = |text: &str| {
            let mut file = tempfile::Builder::new().suffix(".toml").tempfile()?;
            file.write_all(text.as_bytes())?;
            std::io::Result::Ok(file)
        };
        Ok(Self {
            sweep: write(sweep)?,
            config: write(&toml::to_string(base)?)?,
        })
    }
}

/// Outcome of a sweep in this process.
enum SweepEnd {
    Trials(Vec<Trial>),
    /// Only an exit code, because another process prints the results.
    Silent(u8),
}

/// Cache of the dataset that was opened last. Consecutive trials often read the same rows. Only one dataset is kept,
/// because a dataset keeps every file of the store's feature open.
struct DatasetCache {
    store: PathBuf,
    version: Option<VersionName>,
    machine: MachineArgs,
    last: Option<CachedDataset>,
}

struct CachedDataset {
    data: Data,
    needs: Needs,
    rows: Arc<Dataset>,
}

impl DatasetCache {
    fn new(command: &SweepCommand) -> Self {
        Self {
            store: command.store.to_path_buf(),
            version: command.version.clone(),
            machine: command.machine.clone(),
            last: None,
        }
    }

    /// Returns the dataset for `config`: the cached dataset if `config` reads the same rows, else a new one.
    fn open(&mut self, config: &Config) -> Result<Arc<Dataset>> {
        let needs = registry::find(&config.model.name)?.needs;
        // Take the cached dataset out of `last`, so that its files are closed before another dataset opens its own.
        if let Some(last) = self.last.take()
            && last.data == config.data
            && last.needs == needs
        {
            let rows = Arc::clone(&last.rows);
            self.last = Some(last);
            return Ok(rows);
        }

        let rows = self
            .machine
            .open(&self.store, self.version.as_ref(), config)?;
        // All trials read the version opened first, even if a tag is moved or a version is committed meanwhile.
        self.version = Some(VersionName::Number(rows.store().version()));
        self.last = Some(CachedDataset {
            data: config.data.clone(),
            needs,
            rows: Arc::clone(&rows),
        });
        Ok(rows)
    }
}

impl SweepCommand {
    /// Runs all trials, one after another or up to `--jobs` at once.
    ///
    /// # Errors
    /// An unknown key or model, before the first trial; [`SweepInterrupted`]; at the end, an error if any trial failed.
    pub(crate) fn run(&self) -> Result<u8> {
        interrupt::end_with_starter()?;
        if self.trial.is_some() {
            jobs::end_with_parent()?;
        }
        let source = self.file.display().to_string();
        let text = settings::read(&self.file)
            .map_err(|e| UsageError(format!("cannot read {source}: {e}")))?;
        let sweep = Sweep::parse(&text, &source)?;
        let layered = self.like.read(self.config.as_deref(), &self.sets)?;
        let base = layered.config;

        let ranks = Ranks::from_env()?.unwrap_or_else(Ranks::solo);
        let at_once = self.jobs > 1;
        if at_once && ranks.world_size > 1 {
            let words = "--jobs runs trials on this machine: it cannot be combined with ranks";
            bail!(UsageError(words.to_owned()));
        }

        // With several jobs, trials are child processes, which would inherit the blocked signals.
        if !at_once {
            ffi::keep_signals_away();
        }
        if ranks.rank == 0 && self.trial.is_none() {
            for note in &layered.replaced {
                wavemill_terminal::say!("note: {note}");
            }
        }

        let mut rows = DatasetCache::new(self);
        let plan = self.plan(&sweep, &base, &source, ranks.world_size, &mut rows)?;
        // `plan` has already checked the files' hashes.
        rows.machine.verify = false;
        let ended = if at_once {
            self.side_by_side(&plan.trials, rows, &sweep, &TrialFiles::new(&text, &base)?)?
        } else {
            self.in_turn(plan, rows, &sweep, &ranks)?
        };
        let trials = match ended {
            SweepEnd::Trials(trials) => trials,
            SweepEnd::Silent(code) => return Ok(code),
        };

        // The best trial is selected by validation only; its test scores are left to `eval`.
        let Some(best) = best_of(&trials, base.train.select) else {
            bail!("no trial has a score on validation")
        };
        report(&format!(
            "best: trial {} ({})\n",
            best.trial,
            best.set.join(" ")
        ));
        report(&format!(
            "compute its test scores with: wavemill-train eval {}\n",
            best.run.display()
        ));

        match trials.iter().filter(|trial| trial.error.is_some()).count() {
            0 => Ok(0),
            failed => bail!(
                "{failed} of {} trials failed: run the same command to retry them",
                trials.len()
            ),
        }
    }

    /// Builds and checks the configuration of every trial.
    fn plan(
        &self,
        sweep: &Sweep,
        base: &Config,
        source: &str,
        world_size: usize,
        rows: &mut DatasetCache,
    ) -> Result<SweepPlan> {
        let mut trials = Vec::new();
        let mut lost = BTreeSet::new();
        let mut scored: Option<Vec<String>> = None;
        for (number, set) in sweep.trials().into_iter().enumerate() {
            // In a trial's process, the parent has already checked the other trials.
            if self.trial.is_some_and(|trial| trial != number) {
                continue;
            }

            let config = config_of(base, &set, source)?;
            if let Some((key, remedy)) = incomparable(&config, base) {
                bail!(UsageError(format!(
                    "{source}: trial {number} ({}) has another {key}, but the score by which trials are compared must \
                     be the same for all: {remedy}",
                    set.join(" ")
                )));
            }
            let data = check_trial(&config, world_size, rows)
                .with_context(|| format!("trial {number} ({})", set.join(" ")))?;
            lost.extend(data.lost_paths());

            let own = scored_targets(&config, &data);
            if *scored.get_or_insert_with(|| own.clone()) != own {
                bail!(UsageError(format!(
                    "{source}: trial {number} ({}) is scored on {}, and earlier ones on others, but the score by which \
                     trials are compared must be the same for all: set train.select and train.select_target with --set",
                    set.join(" "),
                    own.join(", ")
                )));
            }
            trials.push(PlannedTrial {
                number,
                set,
                config,
            });
        }

        Ok(SweepPlan {
            trials,
            lost: lost.into_iter().collect(),
        })
    }

    /// Runs all trials in this process one after another, or only trial `--trial` if a parent process requests that.
    fn in_turn(
        &self,
        plan: SweepPlan,
        mut rows: DatasetCache,
        sweep: &Sweep,
        ranks: &Ranks,
    ) -> Result<SweepEnd> {
        let Some(first) = plan.trials.first() else {
            bail!("trial {} does not exist", self.trial.unwrap_or_default())
        };
        let device = self.machine.compute.device(ranks, None)?;
        let first_rows = rows.open(&first.config)?;
        // Each rank reads the file of the sweep itself.
        let hashes = plan.trials.iter().map(|trial| trial.config.hash());
        let configs = canonical::id(&hashes.collect::<Vec<_>>())?;
        let group = fit::join(ranks, &first_rows, &plan.lost, configs, device)?;
        // From here on, only the cache keeps the dataset and its files open.
        drop(first_rows);

        let trials = match self.trials(plan.trials, rows, sweep, group, device) {
            Ok(trials) => trials,
            // The interruption is reported by rank 0 or by the parent process.
            Err(error)
                if error.is::<SweepInterrupted>() && (group.rank() > 0 || self.trial.is_some()) =>
            {
                return Ok(SweepEnd::Silent(exit::code(&error)));
            }
            Err(error) => {
                group.fail(&error_line(error.as_ref()));
                return Err(error);
            }
        };
        group.finish()?;

        let speaks = group.rank() == 0 && self.trial.is_none();
        Ok(if speaks {
            SweepEnd::Trials(trials)
        } else {
            SweepEnd::Silent(0)
        })
    }

    /// Runs each trial in its own child process.
    fn side_by_side(
        &self,
        planned: &[PlannedTrial],
        rows: DatasetCache,
        sweep: &Sweep,
        files: &TrialFiles,
    ) -> Result<SweepEnd> {
        let version = rows.version.clone();
        // The child processes open the store's files themselves.
        drop(rows);

        let machine = self.machine.shared_by(usize::from(self.jobs))?;
        let keys: Vec<String> = planned.iter().map(|trial| trial.config.hash()).collect();
        let names: Vec<String> = planned
            .iter()
            .map(|trial| format!("trial {}", trial.number))
            .collect();
        let program = std::env::current_exe()?;
        let plan = JobPlan {
            jobs: usize::from(self.jobs),
            keys: &keys,
            names: &names,
            command: &|trial, slot| {
                let mut command = Command::new(&program);
                self.add_trial_args(&mut command, trial, version.as_ref(), files);
                machine.add_args(&mut command, slot);
                command
            },
        };

        let mut trials = Vec::new();
        let mut judge = MedianJudge::new(planned, sweep);
        let stopped = jobs::run(&plan, &mut judge, |number, outcome| {
            let trial = Trial::from_outcome(&planned[number], outcome)?;
            self.show(&trial)?;
            trials.push(trial);
            Ok(())
        })?;

        match stopped {
            Some(trial) => bail!(SweepInterrupted {
                trial: names[trial].clone(),
                runs: self.runs.clone()
            }),
            None => Ok(SweepEnd::Trials(trials)),
        }
    }

    /// Adds the arguments for training trial `trial` to `command`, but for those of the machine.
    fn add_trial_args(
        &self,
        command: &mut Command,
        trial: usize,
        version: Option<&VersionName>,
        files: &TrialFiles,
    ) {
        command
            .arg("sweep")
            .arg(files.sweep.path())
            .arg("--config")
            .arg(files.config.path())
            .arg("--store")
            .arg(&*self.store)
            .arg("--runs")
            .arg(&self.runs);

        // A trial's process prints its result for the parent as one JSON line on stdout, see `jobs.rs`.
        command.args(["--trial", &trial.to_string(), "--json"]);
        if let Some(version) = version {
            command.args(["--version", &version.to_string()]);
        }
    }

    /// Trains the trials `planned` one after another.
    fn trials(
        &self,
        planned: Vec<PlannedTrial>,
        mut rows: DatasetCache,
        sweep: &Sweep,
        group: &'static dyn Collective,
        device: Device,
    ) -> Result<Vec<Trial>> {
        let medians = Arc::new(Mutex::new(Medians::default()));
        let mut trials = Vec::new();
        for plan in planned {
            let select = plan.config.train.select;
            let selected = plan.config.train.selected();
            let mut epochs = plan.config.train.epochs;
            // In a trial's process, the parent decides when to stop early, because it has the values of all trials.
            let stopping = sweep.median_stopping_after.map(|after| match self.trial {
                Some(_) => Box::new(jobs::ask) as KeepGoing,
                None => judge(&medians, select, after),
            });
            // All trials' rows were checked before the first trial. If they cannot be opened now, only this one fails.
            let (run, ended) = match rows.open(&plan.config) {
                Ok(data) => {
                    epochs = run::epochs_total(&plan.config, &data);
                    self.trial(plan.config, &data, group, device, stopping)
                }
                Err(error) => (PathBuf::new(), Err(error)),
            };

            let mut values = Vec::new();
            let mut failure = None;
            match ended {
                Ok(all) => values = all,
                Err(error) if is_stopped(&error) => {
                    bail!(SweepInterrupted {
                        trial: format!("trial {}", plan.number),
                        runs: self.runs.clone()
                    })
                }
                Err(error) if goes_on(&error, group) => failure = Some(error_line(error.as_ref())),
                Err(error) => {
                    let name = format!("trial {} ({})", plan.number, plan.set.join(" "));
                    return Err(error.context(name));
                }
            }

            let trial = Trial {
                trial: plan.number,
                set: plan.set,
                run,
                best: select.best(&values),
                ended_early: failure.is_none() && (values.len() as u64) < epochs,
                values,
                error: failure,
            };

            // The median includes a failed trial's values: with `--jobs`, others are compared with it before it fails.
            let counted = if trial.error.is_some() {
                values_of(&trial.run, &selected).unwrap_or_default()
            } else {
                trial.values.clone()
            };
            medians
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(counted);

            if group.rank() == 0 {
                self.show(&trial)?;
            }
            trials.push(trial);
        }
        Ok(trials)
    }

    /// Returns the folder of a trial's run and its validation values. Reuses a finished run or trains a new one.
    fn trial(
        &self,
        config: Config,
        data: &Arc<Dataset>,
        group: &'static dyn Collective,
        device: Device,
        keep_going: Option<KeepGoing>,
    ) -> (PathBuf, Result<Vec<f64>>) {
        match self.done_before(&config, data, group, keep_going.is_some()) {
            Ok(Some(folder)) => {
                let values = values_of(&folder, &config.train.selected()).map_err(Error::from);
                return (folder, values);
            }
            Ok(None) => {}
            Err(error) => return (PathBuf::new(), Err(error)),
        }

        let folder = match new_folder(&self.runs, &config, group, &self.store, data) {
            Ok(folder) => folder,
            Err(error) => return (PathBuf::new(), Err(error)),
        };

        let job = Job {
            config,
            folder: folder.clone(),
            resume: false,
            device,
            readers: usize::from(self.machine.readers),
            prefetch_batches: usize::from(self.machine.prefetch_batches),
            test: false,
            profile_steps: 0,
            keep_going,
        };

        // With several ranks, a panic leaves the other ranks waiting within a step, so it must end all ranks.
        let values = if group.world_size() == 1 {
            let fitted = catch_unwind(AssertUnwindSafe(|| fit_values(&job, data, group)));
            fitted.unwrap_or_else(|panic: Box<dyn Any + Send>| {
                Err(Error::msg(exit::panic_message(panic.as_ref())))
            })
        } else {
            fit_values(&job, data, group)
        };
        (folder, values)
    }

    /// Returns the folder of a finished run with the same configuration and store, if any. Rank 0 searches and sends
    /// the path to the other ranks.
    fn done_before(
        &self,
        config: &Config,
        data: &Dataset,
        group: &dyn Collective,
        median_stopping: bool,
    ) -> Result<Option<PathBuf>> {
        let mut found = PathBuf::new();
        if group.rank() == 0
            && let Some(run) = finished(
                &self.runs,
                config,
                data.store().manifest_hash(),
                group.world_size(),
                median_stopping,
            )?
        {
            report(&format!("already completed: {}\n", run.path().display()));
            found = run.path().to_owned();
        }

        let found = path_of_rank_0(&found, group)?;
        Ok(Some(found).filter(|path| path != Path::new("")))
    }

    fn show(&self, trial: &Trial) -> Result<()> {
        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(trial)?)?;
            return Ok(());
        }

        let number = trial.trial;
        let best = trial
            .best
            .map_or("-".to_owned(), |best| format!("{best:.4}"));
        let set = trial.set.join(" ");
        let set = shown(&set);
        let run = trial.run.display();
        match &trial.error {
            Some(error) => writeln!(
                stdout(),
                "{number:>3}  {best:>8}  failed      {set}  {run}: {}",
                shown(error)
            )?,
            None => {
                let epochs = trial.values.len();
                writeln!(
                    stdout(),
                    "{number:>3}  {best:>8}  {epochs:>3} epochs  {set}  {run}"
                )?;
            }
        }
        Ok(())
    }
}

/// Returns the key by which a trial's score differs in meaning from that of `base`, with a remedy.
fn incomparable(config: &Config, base: &Config) -> Option<(&'static str, &'static str)> {
    let objective = |config: &Config| Loss {
        mixup: 0.0,
        ..config.loss.clone()
    };
    if config.train.selected() != base.train.selected() {
        Some(("train.select or train.select_target", "set it with --set"))
    } else if config.data.split != base.data.split {
        Some(("data.split", "use `fit --folds`, or set it with --set"))
    } else if base.train.select == Metric::Loss && objective(config) != objective(base) {
        Some(("loss", "use --set train.select=log_loss or another score"))
    } else {
        None
    }
}

/// Returns the names of the targets whose score is that of a trial: all for the loss, and otherwise one.
fn scored_targets(config: &Config, data: &Dataset) -> Vec<String> {
    let names = data.targets().iter().map(|target| target.name().to_owned());
    match (&config.train.select_target, config.train.select) {
        (Some(target), _) => vec![target.clone()],
        (None, Metric::Loss) => names.collect(),
        (None, _) => names.take(1).collect(),
    }
}

/// Checks the rows and initial weights of a trial, and returns the rows.
fn check_trial(
    config: &Config,
    world_size: usize,
    rows: &mut DatasetCache,
) -> Result<Arc<Dataset>> {
    let data = rows.open(config)?;
    run::check(config, &data, world_size)?;
    if let Some(weights) = &config.model.init {
        init::check_form(weights)?;
    }
    Ok(data)
}

fn fit_values(job: &Job, data: &Arc<Dataset>, group: &'static dyn Collective) -> Result<Vec<f64>> {
    Ok(monitored(job, data, group)?.values)
}

/// Reports whether a sweep continues after an error: not if the disk is full, or if the error may differ between ranks.
fn goes_on(error: &Error, group: &dyn Collective) -> bool {
    // Errors caused by a diverged loss or by the model occur on every rank, except errors of libtorch's settings.
    let is_on_all_ranks = match error.downcast_ref() {
        Some(RunError::Learn(LearnError::Model(error))) => !matches!(error, ModelError::Ffi(_)),
        Some(RunError::Learn(LearnError::Diverged { .. })) => true,
        _ => false,
    };
    exit::code(error) != NO_SPACE && (group.world_size() == 1 || is_on_all_ranks)
}

fn judge(medians: &Arc<Mutex<Medians>>, metric: Metric, after: u64) -> KeepGoing {
    let medians = Arc::clone(medians);
    // All ranks have equal values, so they reach the same decision without communication.
    Box::new(move |values| {
        !medians
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .should_end(values, metric, after)
    })
}

/// Returns the trial with the best value; of equal values, the first trial.
fn best_of(trials: &[Trial], metric: Metric) -> Option<&Trial> {
    let mut best: Option<(&Trial, f64)> = None;
    for trial in trials {
        // Replace the trial only by a better one, so that the first of equal trials is kept.
        if let Some(value) = trial.best
            && best.is_none_or(|(_, best)| metric.is_better(value, best))
        {
            best = Some((trial, value));
        }
    }
    best.map(|(trial, _)| trial)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::fixture::Fixture;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        machine: MachineArgs,
    }

    #[test]
    fn all_trials_read_the_version_of_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let plan_id = Fixture::default().write(folder.path()).plan_id;
        // A version without its folder counts as removed if it is not the latest.
        let data = folder.path().join("data").join(plan_id);
        std::fs::create_dir(data).expect("room");
        let Line { machine } = clap::Parser::parse_from(["sweep"]);
        let mut rows = DatasetCache {
            store: folder.path().to_owned(),
            version: None,
            machine,
            last: None,
        };
        let mut config = Config::default();
        let first = rows.open(&config).expect("rows").store().version();

        let versions = folder.path().join("_wavemill/versions");
        let manifest = versions.join(format!("{first:08}.json"));
        let next = versions.join(format!("{:08}.json", first + 1));
        std::fs::copy(manifest, next).expect("room");
        config.data.shuffle_window = 2;
        assert_eq!(rows.open(&config).expect("rows").store().version(), first);
    }

    #[test]
    fn rows_are_shared_by_trials_that_read_alike_and_closed_before_others_are_opened() {
        fn open(rows: &mut DatasetCache, words: &[&str]) -> Arc<Dataset> {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            let config = config_of(&Config::default(), &words, "sweep.toml");
            rows.open(&config.expect("a configuration")).expect("rows")
        }

        let folder = tempfile::tempdir().expect("a folder");
        Fixture::default().write(folder.path());
        let Line { machine } = clap::Parser::parse_from(["sweep"]);

        let mut rows = DatasetCache {
            store: folder.path().to_owned(),
            version: None,
            machine,
            last: None,
        };

        let first = Arc::downgrade(&open(&mut rows, &["optimizer.lr=0.1"]));
        assert!(Arc::ptr_eq(
            &open(&mut rows, &["optimizer.lr=0.2"]),
            &first.upgrade().expect("kept")
        ));

        let other = open(&mut rows, &["data.shuffle_window=2"]);
        assert!(first.upgrade().is_none(), "its files are still open");
        assert!(
            !Arc::ptr_eq(
                &open(
                    &mut rows,
                    &["data.shuffle_window=2", "model.name=\"mlp-1\""]
                ),
                &other
            ),
            "it needs other columns"
        );
    }
}
