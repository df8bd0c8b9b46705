//! `wavemill train sweep`: trains many configurations and compares them on validation, without the test split.

mod trial;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Error, Result, bail};
use clap::Args;
use tch::Device;
use wavemill_schemas::canonical;
use wavemill_schemas::config::{Config, Data, Loss, Metric};
use wavemill_schemas::exit::Kind;
use wavemill_schemas::number::number;
use wavemill_schemas::run::Sweep;
use wavemill_schemas::settings;
use wavemill_schemas::text::{counted, error_line, shown};
use wavemill_schemas::version_name::VersionName;
use wavemill_scores::sweep::{MedianRule, config_of, finished, values_of};
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::interrupt::lock;
use wavemill_terminal::output::{report, stdout};

use super::exit;
use super::fit::{is_stopped, monitored};
use super::like::LikeArgs;
use super::run_folder::{new_folder, path_of_rank_0};
use super::run_list::{PlannedRun, RunList, interrupted, toml_file};
use super::{MachineArgs, fit, interrupt, jobs};
use crate::TrainError;
use crate::dataset::{Dataset, Needs, StorePlace};
use crate::ffi;
use crate::models::{ModelError, init, registry};
use crate::run::{self, Job, KeepGoing};
use crate::strategy::{Collective, Ranks};
use trial::Trial;

const EXAMPLES: &str = "\
Examples:
  wavemill train sweep sweep.toml --store store
  wavemill train sweep sweep.toml --store store --jobs 4
  wavemill train sweep sweep.toml --store store --config base.toml \\
      --set train.epochs=10 --json

sweep.toml:
  method = \"random\"            # or grid: every combination of lists
  trials = 20
  median_stopping_after = 3    # epochs; ends trials worse than the median
  [parameters]
  \"optimizer.lr\" = { min = 1e-4, max = 1e-2, log = true }
  \"model.name\" = [\"cnn2d\", \"crnn\"]

Trials are compared by train.select on validation; the test split is not used. Evaluate the best trial once with \
`wavemill train eval`.

All trials are checked before the first one starts. If a trial fails later, its error is shown, the others continue, and \
the exit code is 1. Run the same command again to reuse the completed trials in the folder of runs and train the others.

With --jobs N, results are the same for the same --threads, which defaults to an equal share of the cores.";

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
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = number::<u16>(1..=256))]
    jobs: u16,
    /// Run only this trial, from 0; used by --jobs
    #[arg(long, hide = true, value_name = "N", value_parser = number::<usize>(0..))]
    trial: Option<usize>,
    /// Print a JSON line per trial on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

/// All trials of a sweep, and the damaged files that any of them skips.
struct SweepPlan {
    trials: Vec<PlannedRun>,
    lost: Vec<String>,
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
    /// An unknown key or model, before the first trial; the error of [`interrupted`]; at the end, an error if any trial failed.
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
            let message = "--jobs runs trials on this machine: it cannot be combined with ranks";
            bail!(UsageError(message.to_owned()));
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
        if at_once {
            self.side_by_side(&plan.trials, rows, &sweep, &text, &base)
        } else {
            self.in_turn(plan, rows, &sweep, &ranks)
        }
    }

    /// Returns the median rule for the trials of a sweep, if it has one.
    fn rule(sweep: &Sweep, planned: &[PlannedRun]) -> Option<MedianRule> {
        let after = sweep.median_stopping_after?;
        let metric = planned.first()?.config.train.select;
        Some(MedianRule::new(planned.len(), metric, after))
    }

    /// Prints which trial is the best one.
    ///
    /// # Errors
    /// No trial has a score, or a trial failed.
    fn conclude(trials: &[Trial], select: Metric) -> Result<u8> {
        // The best trial is selected by validation only; its test scores are left to `eval`.
        let Some(best) = best_of(trials, select) else {
            bail!("no trial has a score on validation")
        };
        report(&format!(
            "best: trial {} ({})\n",
            best.trial,
            best.set.join(" ")
        ));
        report(&format!(
            "compute its test scores with: wavemill train eval {}\n",
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
            trials.push(PlannedRun {
                name: format!("trial {number}"),
                set,
                fold: None,
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
    ) -> Result<u8> {
        let Some(first) = plan.trials.first() else {
            bail!("trial {} does not exist", self.trial.unwrap_or_default())
        };
        let select = first.config.train.select;
        let device = self.machine.compute.device(ranks, None)?;
        let first_rows = rows.open(&first.config)?;
        // Each rank reads the file of the sweep itself.
        let hashes = plan.trials.iter().map(|trial| trial.config.hash());
        let configs = canonical::id(&hashes.collect::<Vec<_>>())?;
        let group = fit::join(ranks, &first_rows, &plan.lost, configs, device)?;
        // From here on, only the cache keeps the dataset and its files open.
        drop(first_rows);

        let rule = Self::rule(sweep, &plan.trials);
        let mut in_turn = InTurn {
            command: self,
            rows,
            rule: rule.map(|rule| Arc::new(Mutex::new(rule))),
            group,
            device,
        };
        let speaks = group.rank() == 0 && self.trial.is_none();
        let trials = match in_turn.trials(&plan.trials) {
            Ok(trials) => trials,
            // The interruption is reported by rank 0 or by the parent process.
            Err(error) if is_stopped(&error) && !speaks => {
                return Ok(exit::code(&error));
            }
            Err(error) => {
                group.fail(&error_line(error.as_ref()));
                return Err(error);
            }
        };
        group.finish()?;

        if speaks {
            Self::conclude(&trials, select)
        } else {
            Ok(0)
        }
    }

    /// Runs each trial in its own child process.
    fn side_by_side(
        &self,
        planned: &[PlannedRun],
        rows: DatasetCache,
        sweep: &Sweep,
        text: &str,
        base: &Config,
    ) -> Result<u8> {
        let list = RunList {
            planned,
            base,
            store: &self.store,
            version: rows.version.clone(),
            runs: &self.runs,
            machine: &self.machine,
            jobs: usize::from(self.jobs),
        };
        // The child processes open the store's files themselves.
        drop(rows);

        let file = toml_file(text)?;
        let add_args = |index: usize, command: &mut Command| {
            command
                .arg(file.path())
                .arg("--trial")
                .arg(index.to_string());
        };
        let mut trials = Vec::new();
        let mut rule = Self::rule(sweep, planned);
        list.train("sweep", &add_args, &mut rule, |number, outcome| {
            let trial = Trial::from_outcome(number, &planned[number], outcome)?;
            self.show(&trial)?;
            trials.push(trial);
            Ok(())
        })?;
        Self::conclude(&trials, base.train.select)
    }

    fn show(&self, trial: &Trial) -> Result<()> {
        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(trial)?)?;
            return Ok(());
        }

        let best = trial
            .best
            .map_or("-".to_owned(), |best| format!("{best:.4}"));
        let (outcome, reason) = match &trial.error {
            Some(error) => ("failed    ".to_owned(), format!(": {}", shown(error))),
            None => {
                let epochs = counted(trial.values.len(), "epoch");
                (format!("{epochs:>10}"), String::new())
            }
        };
        writeln!(
            stdout(),
            "{:>3}  {best:>8}  {outcome}  {}  {}{reason}",
            trial.trial,
            shown(&trial.set.join(" ")),
            trial.run.display()
        )?;
        Ok(())
    }
}

/// The trials of a sweep that this process trains one after another.
struct InTurn<'a> {
    command: &'a SweepCommand,
    rows: DatasetCache,
    rule: Option<Arc<Mutex<MedianRule>>>,
    group: &'static dyn Collective,
    device: Device,
}

impl InTurn<'_> {
    fn trials(&mut self, planned: &[PlannedRun]) -> Result<Vec<Trial>> {
        let mut trials = Vec::new();
        for (index, plan) in planned.iter().enumerate() {
            let trial = self.trial(index, plan)?;
            if let Some(rule) = &self.rule {
                lock(rule).ended(index, trial.values.clone());
            }
            if self.group.rank() == 0 {
                self.command.show(&trial)?;
            }
            trials.push(trial);
        }
        Ok(trials)
    }

    /// Trains a trial. Its result contains an error after which the sweep continues.
    ///
    /// # Errors
    /// The error of [`interrupted`], or an error that ends the sweep.
    fn trial(&mut self, index: usize, plan: &PlannedRun) -> Result<Trial> {
        let mut run = PathBuf::new();
        let (values, epochs, error) = match self.train(index, &plan.config, &mut run) {
            Ok((values, epochs)) => (values, epochs, None),
            Err(error) if is_stopped(&error) => {
                bail!(interrupted(&plan.name, &self.command.runs))
            }
            Err(error) if goes_on(&error, self.group) => {
                (Vec::new(), 0, Some(error_line(error.as_ref())))
            }
            Err(error) => {
                let name = format!("{} ({})", plan.name, plan.set.join(" "));
                return Err(error.context(name));
            }
        };

        Ok(Trial {
            // A trial's process trains only this trial.
            trial: self.command.trial.unwrap_or(index),
            set: plan.set.clone(),
            run,
            best: plan.config.train.select.best(&values),
            ended_early: (values.len() as u64) < epochs,
            values,
            error,
        })
    }

    /// Returns the validation values of a trial, and its number of epochs unless it ends early. Reuses a finished run or
    /// trains a new one, and sets `run` to its folder as soon as that is known.
    fn train(
        &mut self,
        index: usize,
        config: &Config,
        run: &mut PathBuf,
    ) -> Result<(Vec<f64>, u64)> {
        let group = self.group;
        // All trials' rows were checked before the first trial. If they cannot be opened now, only this one fails.
        let data = self.rows.open(config)?;
        let epochs = run::epochs_total(config, &data);
        let keep_going = self.keep_going(index);
        if let Some(folder) = self.done_before(config, &data, keep_going.is_some())? {
            *run = folder;
            return Ok((values_of(run, &config.train.selected())?, epochs));
        }

        let command = self.command;
        *run = new_folder(&command.runs, config, group, &command.store, &data)?;
        let job = Job {
            config: config.clone(),
            folder: run.clone(),
            resume: false,
            device: self.device,
            readers: usize::from(command.machine.readers),
            prefetch_batches: usize::from(command.machine.prefetch_batches),
            test: false,
            profile_steps: 0,
            keep_going,
        };

        // With several ranks, a panic leaves the other ranks waiting within a step, so it must end all ranks.
        let fitted = if group.world_size() == 1 {
            exit::caught(|| monitored(&job, &data, group))
        } else {
            monitored(&job, &data, group)
        };
        Ok((fitted?.values, epochs))
    }

    /// Returns the decision after each epoch of a trial, if the sweep ends trials early.
    fn keep_going(&self, index: usize) -> Option<KeepGoing> {
        let rule = Arc::clone(self.rule.as_ref()?);
        // In a trial's process, the parent decides, because it has the values of all trials.
        if self.command.trial.is_some() {
            return Some(Box::new(jobs::ask));
        }
        // All ranks have equal values, so they reach the same decision without communication.
        Some(Box::new(move |values| {
            let mut rule = lock(&rule);
            rule.heard(index, values.to_vec());
            rule.should_end(index) != Some(true)
        }))
    }

    /// Returns the folder of a finished run with the same configuration and store, if any. Rank 0 searches and sends
    /// the path to the other ranks.
    fn done_before(
        &self,
        config: &Config,
        data: &Dataset,
        median_stopping: bool,
    ) -> Result<Option<PathBuf>> {
        let mut found = PathBuf::new();
        if self.group.rank() == 0
            && let Some(run) = finished(
                &self.command.runs,
                config,
                data.store().manifest_hash(),
                self.group.world_size(),
                median_stopping,
            )?
        {
            report(&format!("already completed: {}\n", run.path().display()));
            found = run.path().to_owned();
        }

        let found = path_of_rank_0(&found, self.group)?;
        Ok(Some(found).filter(|path| path != Path::new("")))
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

/// Reports whether a sweep continues after an error: not if the disk is full, or if the error may differ between ranks.
fn goes_on(error: &Error, group: &dyn Collective) -> bool {
    // Errors caused by a diverged loss or by the model occur on every rank, except errors of libtorch's settings.
    let is_on_all_ranks = match error.downcast_ref() {
        Some(TrainError::Model(error)) => !matches!(error, ModelError::Ffi(_)),
        Some(TrainError::Diverged { .. }) => true,
        _ => false,
    };
    exit::code(error) != Kind::NoSpace.exit_code() && (group.world_size() == 1 || is_on_all_ranks)
}

/// Returns the trial with the best value; of equal values, the first trial.
fn best_of(trials: &[Trial], metric: Metric) -> Option<&Trial> {
    let scored = trials.iter().filter_map(|trial| Some((trial, trial.best?)));
    let best = scored.reduce(|best, other| match metric.is_better(other.1, best.1) {
        true => other,
        false => best,
    });
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
