//! `wavemill-train sweep`: many runs, compared on validation; the best one meets the test split.

mod trial;

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Error, Result, bail};
use clap::Args;
use tch::Device;
use wavemill_schemas::settings;
use wavemill_schemas::text::shown;

use super::exit::{self, Usage};
use super::fit::{is_stopped, watched};
use super::jobs::{self, Plan};
use super::like::LikeArgs;
use super::output::{OutputArgs, Progress, report};
use super::place::new_folder;
use super::{MachineArgs, Shared, fit, interrupt};
use crate::config::{Config, Data, Metric};
use crate::dataset::{Dataset, Needs};
use crate::learner::LearnError;
use crate::models::{init, registry};
use crate::run::{self, Job, KeepGoing, RunError};
use crate::strategy::{Collective, Ranks};
use crate::sweep::{Medians, Sweep, config_of, finished, values_of};
use trial::{Trial, Verdicts};

const EXAMPLES: &str = "\
Examples:
  wavemill-train sweep sweep.toml --store store
  wavemill-train sweep sweep.toml --store store --config base.toml --set train.epochs=10 --json
  wavemill-train sweep sweep.toml --store store --jobs 4             # four at once

sweep.toml:
  method = \"random\"                  # or grid: every combination of lists
  trials = 20
  median_stopping_after = 3          # epochs; a trial worse than the median of those before it ends
  [parameters]
  \"optimizer.lr\" = { min = 1e-4, max = 1e-2, log = true }
  \"model.name\" = [\"cnn2d\", \"crnn\"]

Trials are compared by train.select on validation; none sees the test split. Evaluate the best one with
`wavemill-train eval`, once.
All trials are checked before the first one starts. One that fails later is shown with its error,
the others go on, and the exit code is 1. The same command again takes what is finished from the
folder of runs and trains the rest.
--jobs N runs N trials at once, each in a process of its own, and changes none of their results for
the same --threads; where that is not given, each has its share of the cores. GPUs are dealt out in
turn.";

/// SIGINT or SIGTERM.
#[derive(Debug, thiserror::Error)]
#[error(
    "stopped in trial {trial}; go on with the same command: finished trials are taken from {}, this one begins anew",
    runs.display()
)]
pub struct Stopped {
    trial: usize,
    runs: PathBuf,
}

/// Try many configurations, compared on validation
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SweepCommand {
    /// What to try (TOML)
    file: PathBuf,
    /// A feature store of `wavemill extract`
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Its version [default: the latest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    like: LikeArgs,
    /// What all trials share (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change a value of what they share
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Folder in which each trial makes its own
    #[arg(long, default_value = "runs", value_name = "DIR")]
    runs: PathBuf,
    /// Trials at once, each in a process of its own; GPUs are dealt out in turn
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Only this one, from 0: what --jobs starts
    #[arg(long, hide = true, value_name = "N")]
    trial: Option<usize>,
    /// A JSON line a trial on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

/// A trial before it begins.
struct Planned {
    number: usize,
    set: Vec<String>,
    config: Config,
}

/// The rows that were opened last. Trials that read alike follow each other, and each way of reading holds every file of
/// the store's feature open: only one of them is there at a time.
struct LastRows {
    store: PathBuf,
    version: Option<u64>,
    machine: MachineArgs,
    last: Option<(Data, Needs, Arc<Dataset>)>,
}

impl LastRows {
    fn of(command: &SweepCommand) -> Self {
        let SweepCommand { store, version, machine, .. } = command;
        Self { store: store.clone(), version: *version, machine: machine.clone(), last: None }
    }

    /// The rows of `config`: the last ones where it reads the same.
    fn open(&mut self, config: &Config) -> Result<Arc<Dataset>> {
        let needs = registry::find(&config.model.name)?.needs;
        // Out of `last`: the files are closed before others are opened.
        let same = self.last.take().filter(|(data, theirs, _)| *data == config.data && *theirs == needs);
        let (data, needs, rows) = match same {
            Some(same) => same,
            None => (config.data.clone(), needs, self.machine.open(&self.store, self.version, config)?),
        };
        self.last = Some((data, needs, Arc::clone(&rows)));
        Ok(rows)
    }
}

impl SweepCommand {
    /// Runs all trials, one after another or `--jobs` at once.
    ///
    /// # Errors
    /// A key or a model that is not there, before the first trial; [`Stopped`]; at the end, that trials failed.
    pub fn run(&self) -> Result<u8> {
        let place = self.file.display().to_string();
        let text = settings::read(&self.file).map_err(|e| Usage(format!("cannot read {place}: {e}")))?;
        let sweep = Sweep::parse(&text, &place)?;
        let layered = self.like.read(self.config.as_deref(), &self.sets)?;
        let base = layered.config;
        let ranks = Ranks::from_env()?.unwrap_or_else(Ranks::solo);
        let at_once = self.jobs > 1;
        if at_once && ranks.world_size > 1 {
            return Err(Usage("--jobs runs trials on this machine: it does not go with ranks".to_owned()).into());
        }
        // Trials at once are processes, which would inherit it.
        if !at_once {
            interrupt::keep_away();
        }
        if ranks.rank == 0 && self.trial.is_none() {
            layered.replaced.iter().for_each(|note| eprintln!("note: {note}"));
        }

        let mut rows = LastRows::of(self);
        let (planned, lost) = self.planned(&sweep, &base, &place, ranks.world_size, &mut rows)?;
        // Checked by now.
        rows.machine.verify = false;
        let ended = if at_once {
            self.side_by_side(planned, rows, &sweep)?
        } else {
            self.in_turn(planned, &lost, &base, rows, &sweep, &ranks)?
        };
        let trials = match ended {
            Ok(trials) => trials,
            Err(code) => return Ok(code),
        };

        let Some(best) = best_of(&trials, base.train.select) else { bail!("no trial came to a value on validation") };
        report(&format!("best: trial {} ({})", best.trial, best.set.join(" ")));
        report(&format!("its test scores: wavemill-train eval {}", best.run.display()));
        match trials.iter().filter(|trial| trial.error.is_some()).count() {
            0 => Ok(0),
            failed => bail!("{failed} of {} trials failed: the same command tries them again", trials.len()),
        }
    }

    /// Every trial's configuration and rows, checked; and the files that some of them pass over.
    fn planned(
        &self,
        sweep: &Sweep,
        base: &Config,
        place: &str,
        world_size: usize,
        rows: &mut LastRows,
    ) -> Result<(Vec<Planned>, Vec<String>)> {
        let (mut planned, mut lost) = (Vec::new(), BTreeSet::new());
        for (number, set) in sweep.trials().into_iter().enumerate() {
            // The others were checked by the process that started this one.
            if self.trial.is_some_and(|trial| trial != number) {
                continue;
            }
            let config = config_of(base, &set, place)?;
            let mut check = || {
                let data = rows.open(&config)?;
                lost.extend(data.lost_paths());
                run::check(&config, &data, world_size)?;
                Ok::<_, Error>(config.model.init.as_deref().map_or(Ok(()), init::check_form)?)
            };
            check().with_context(|| format!("trial {number} ({})", set.join(" ")))?;
            planned.push(Planned { number, set, config });
        }
        Ok((planned, lost.into_iter().collect()))
    }

    /// All trials in this process, or the one that it was started for. An exit code alone where another process says what
    /// there is to say.
    fn in_turn(
        &self,
        planned: Vec<Planned>,
        lost: &[String],
        base: &Config,
        mut rows: LastRows,
        sweep: &Sweep,
        ranks: &Ranks,
    ) -> Result<Result<Vec<Trial>, u8>> {
        let Some(first) = planned.first() else { bail!("no trial {}", self.trial.unwrap_or_default()) };
        if self.trial.is_some() {
            jobs::end_with_parent()?;
        }
        let device = self.machine.device(ranks, None)?;
        let group = fit::join(ranks, &*rows.open(&first.config)?, lost, base, device)?;
        let trials = match self.trials(planned, rows, sweep, group, device) {
            // Rank 0 says it, or the process that started this one.
            Err(error) if error.is::<Stopped>() && (group.rank() > 0 || self.trial.is_some()) => {
                return Ok(Err(exit::code(&error)));
            }
            Err(error) => {
                group.fail(&exit::words(&error));
                return Err(error);
            }
            Ok(trials) => trials,
        };
        group.finish()?;
        Ok(if group.rank() == 0 && self.trial.is_none() { Ok(trials) } else { Err(0) })
    }

    /// Trials in processes of their own.
    fn side_by_side(&self, planned: Vec<Planned>, rows: LastRows, sweep: &Sweep) -> Result<Result<Vec<Trial>, u8>> {
        // Their files are opened by the trials.
        drop(rows);
        let machine = self.machine.shared_by(usize::from(self.jobs))?;
        let keys: Vec<String> = planned.iter().map(|planned| planned.config.hash()).collect();
        let program = std::env::current_exe()?;
        let command = |trial: usize, place: usize| {
            let mut command = Command::new(&program);
            self.words_for(&mut command, trial, &machine, place);
            command
        };

        let mut trials = Vec::new();
        let plan = Plan { jobs: usize::from(self.jobs), keys: &keys, command: &command };
        let mut judge = Verdicts::new(&planned, sweep);
        let stopped = jobs::run(&plan, &mut judge, |number, outcome| {
            let trial = Trial::of(&planned[number], outcome)?;
            self.show(&trial)?;
            trials.push(trial);
            Ok(())
        })?;
        match stopped {
            Some(trial) => bail!(Stopped { trial, runs: self.runs.clone() }),
            None => Ok(Ok(trials)),
        }
    }

    /// The words with which this program trains one trial, at a place among those that run.
    fn words_for(&self, command: &mut Command, trial: usize, machine: &Shared, place: usize) {
        command.arg("sweep").arg(&self.file).arg("--store").arg(&self.store).arg("--runs").arg(&self.runs);
        command.args(["--trial", &trial.to_string(), "--json"]);
        if let Some(version) = self.version {
            command.args(["--version", &version.to_string()]);
        }
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        if let Some(like) = self.like.name() {
            command.args(["--like", like]);
        }
        for set in &self.sets {
            command.args(["--set", set]);
        }
        // Their lines are passed on with the trial's number before them, which leaves no JSON.
        let progress = match OutputArgs::get().shown() {
            Progress::Json | Progress::None => "none",
            _ => "plain",
        };
        command.args(["--progress", progress]);
        machine.words_for(command, place);
    }

    fn trials(
        &self,
        planned: Vec<Planned>,
        mut rows: LastRows,
        sweep: &Sweep,
        group: &'static dyn Collective,
        device: Device,
    ) -> Result<Vec<Trial>> {
        let medians = Arc::new(Mutex::new(Medians::default()));
        let mut trials = Vec::new();
        for Planned { number, set, config } in planned {
            let select = config.train.select;
            let stopping = sweep.median_stopping_after.map(|after| match self.trial {
                Some(_) => Box::new(jobs::ask) as KeepGoing,
                None => judge(&medians, select, after),
            });
            let epochs = config.train.epochs;
            let (run, ended) = match rows.open(&config) {
                Ok(data) => self.trial(config, &data, group, device, stopping),
                Err(error) => (PathBuf::new(), Err(error)),
            };
            let (values, error) = match ended {
                Ok(values) => (values, None),
                Err(error) if is_stopped(&error) => {
                    bail!(Stopped { trial: number, runs: self.runs.clone() })
                }
                Err(error) if goes_on(&error, group) => (Vec::new(), Some(exit::words(&error))),
                Err(error) => return Err(error.context(format!("trial {number} ({})", set.join(" ")))),
            };
            let best = select.best(&values);
            let ended_early = error.is_none() && (values.len() as u64) < epochs;
            let trial = Trial { trial: number, set, run, values, best, ended_early, error };
            // One that failed counts as far as it came: side by side it is compared with before it fails.
            let counted = if trial.error.is_some() {
                values_of(&trial.run, select).unwrap_or_default()
            } else {
                trial.values.clone()
            };
            medians.lock().unwrap_or_else(PoisonError::into_inner).add(counted);
            if group.rank() == 0 {
                self.show(&trial)?;
            }
            trials.push(trial);
        }
        Ok(trials)
    }

    /// A trial's folder, and its values on validation: of a run that is finished, or of a new one.
    fn trial(
        &self,
        config: Config,
        data: &Arc<Dataset>,
        group: &'static dyn Collective,
        device: Device,
        keep_going: Option<KeepGoing>,
    ) -> (PathBuf, Result<Vec<f64>>) {
        let select = config.train.select;
        match self.done_before(&config, data, group) {
            Ok(Some(folder)) => {
                let values = values_of(&folder, select).map_err(Error::from);
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
            keep_going,
        };
        let fit = || watched(&job, data, group).map(|fitted| fitted.values);
        // With ranks, one that panics leaves the others in the middle of a step: then all end.
        let values = if group.world_size() == 1 { catch_unwind(AssertUnwindSafe(fit)) } else { Ok(fit()) };
        (folder, values.unwrap_or_else(|panic: Box<dyn Any + Send>| Err(Error::msg(exit::panic_words(panic.as_ref())))))
    }

    /// The finished run of this very configuration and store, if there is one: rank 0 looks and tells the others.
    fn done_before(&self, config: &Config, data: &Dataset, group: &dyn Collective) -> Result<Option<PathBuf>> {
        let mut name = Vec::new();
        if group.rank() == 0
            && let Some(run) = finished(&self.runs, config, data.store().manifest_hash(), group.world_size())
        {
            report(&format!("finished before: {}", run.path().display()));
            name = run.path().to_string_lossy().into_owned().into_bytes();
        }
        let names = group.gather(&name)?;
        let name = String::from_utf8(names[0].clone())?;
        Ok(Some(PathBuf::from(name)).filter(|path| path != Path::new("")))
    }

    fn show(&self, trial: &Trial) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(trial)?);
        } else {
            let best = trial.best.map_or("-".to_owned(), |b| format!("{b:.4}"));
            if let Some(error) = &trial.error {
                println!(
                    "{:>3}  {best:>8}  failed      {}  {}: {}",
                    trial.trial,
                    shown(&trial.set.join(" ")),
                    trial.run.display(),
                    shown(error)
                );
                return Ok(());
            }
            println!(
                "{:>3}  {best:>8}  {:>3} epochs  {}  {}",
                trial.trial,
                trial.values.len(),
                shown(&trial.set.join(" ")),
                trial.run.display()
            );
        }
        Ok(())
    }
}

/// Whether other trials are worth a try: not where the disk is full, nor where ranks differ in what happened to them.
fn goes_on(error: &Error, group: &dyn Collective) -> bool {
    let on_all_ranks = |error: &LearnError| matches!(error, LearnError::Diverged { .. } | LearnError::Model(_));
    let by_all = matches!(error.downcast_ref(), Some(RunError::Learn(error)) if on_all_ranks(error));
    exit::code(error) != 5 && (group.world_size() == 1 || by_all)
}

fn judge(medians: &Arc<Mutex<Medians>>, metric: Metric, after: u64) -> KeepGoing {
    let medians = Arc::clone(medians);
    Box::new(move |values| !medians.lock().unwrap_or_else(PoisonError::into_inner).should_end(values, metric, after))
}

fn best_of(trials: &[Trial], metric: Metric) -> Option<&Trial> {
    let better = |a: &Trial, b: &Trial| match (a.best, b.best) {
        (Some(a), Some(b)) => metric.is_better(a, b),
        (a, _) => a.is_some(),
    };
    trials.iter().filter(|t| t.best.is_some()).reduce(|a, b| if better(b, a) { b } else { a })
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
    fn rows_are_shared_by_trials_that_read_alike_and_closed_before_others_are_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        Fixture::default().write(folder.path());
        let Line { machine } = clap::Parser::parse_from(["sweep"]);
        let mut rows = LastRows { store: folder.path().to_owned(), version: None, machine, last: None };
        let mut open = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            rows.open(&config_of(&Config::default(), &words, "sweep.toml").expect("a configuration")).expect("rows")
        };
        let first = Arc::downgrade(&open(&["optimizer.lr=0.1"]));
        assert!(Arc::ptr_eq(&open(&["optimizer.lr=0.2"]), &first.upgrade().expect("kept")));
        let other = open(&["data.shuffle_window=2"]);
        assert!(first.upgrade().is_none(), "its files are still open");
        assert!(
            !Arc::ptr_eq(&open(&["data.shuffle_window=2", "model.name=\"mlp-1\""]), &other),
            "it needs other columns"
        );
    }
}
