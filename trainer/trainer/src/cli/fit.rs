//! `wavemill train fit`: one training run, on one or more processes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use tch::Device;
use wavemill_schemas::config::LayeredConfig;
use wavemill_schemas::exit::{Classified, Kind};
use wavemill_schemas::number::number;
use wavemill_schemas::text::{error_line, shown, shown_lines};
use wavemill_schemas::version_name::VersionName;
use wavemill_scores::metrics::run_table;
use wavemill_terminal::display::Display;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::output::{OutputArgs, report, stdout, warn};

use super::folds::fold_rule;
use super::like::LikeArgs;
use super::role::{Role, role};
use super::run_folder::{self, Changes, RunStart};
use super::{MachineArgs, exit, interrupt, progress, shared};
use crate::dataset::{Dataset, StorePlace};
use crate::models::init;
use crate::run::{self, FitOutcome, Job, RunMonitor};
use crate::strategy::{self, Collective, Fingerprint, Ranks};

const EXAMPLES: &str = "\
Examples:
  wavemill train fit --store store --model cnn2d
  wavemill train fit --store store --like gtzan-segments
  wavemill train fit --store store --config my.toml \\
      --set optimizer.lr=3e-4 --set augment.enabled=true
  wavemill train fit --store store --model crnn --split official \\
      --target genre --target subgenre
  wavemill train fit --store store --model cnn2d --folds 5 --seeds 3 --jobs 2
  wavemill train fit --store store --model cnn2d --nproc 2 --threads 1
  torchrun --nproc-per-node 2 --no-python \\
      wavemill train fit --store store --model cnn2d
  wavemill train fit --resume runs/cnn2d-1f2e3d4c-1
  wavemill train fit --resume-or-start runs/night --store store --model cnn2d
  wavemill train fit --print-config      # all keys that have a value

Without --like and --config, the values are those of --like fma-large, without its augmentation. Keys without a default, \
such as data.frames and model.init, are described in docs/trainer.md. When stopped by Ctrl-C or SIGTERM, a run writes a \
checkpoint and prints the command to resume it.";

/// Train a model on a store, then evaluate it once on the test split
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct FitCommand {
    /// A feature store written by `wavemill extract`: its folder, or its address such as s3://bucket/store
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<StorePlace>,
    /// Version of the store, by number or tag [default: the latest]
    #[arg(long, value_name = "VERSION")]
    pub(super) version: Option<VersionName>,
    #[command(flatten)]
    like: LikeArgs,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a value of the configuration
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) sets: Vec<String>,
    /// Same as --set model.name=…; `wavemill train models` lists the names
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Same as --set data.feature=…
    #[arg(long, value_name = "NAME")]
    feature: Option<String>,
    /// Same as --set data.targets=[…]; may be given several times; `genres_all` is multi-label
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// Same as --set data.split=…: official, stratified or artist
    #[arg(long, value_name = "RULE")]
    split: Option<String>,
    /// Train K runs, each with another fold of the artists as its test split, and print mean, standard deviation and
    /// interval of their test scores
    #[arg(long, value_name = "K", conflicts_with = "split", value_parser = number::<usize>(3..=1000))]
    pub(super) folds: Option<usize>,
    /// Train only the run of this fold, from 1
    #[arg(long, value_name = "I", requires = "folds", value_parser = number::<usize>(0..), hide_short_help = true)]
    pub(super) fold: Option<usize>,
    /// Train N runs (with --folds, N times K) with the seeds from `seed` on, and print mean, standard deviation and
    /// interval of their test scores
    #[arg(long, value_name = "N", value_parser = number::<u64>(1..=1000))]
    pub(super) seeds: Option<u64>,
    /// Number of runs of --folds and --seeds at once, each in its own process; GPUs are assigned in turn
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = number::<u16>(1..=256))]
    pub(super) jobs: u16,
    /// Same as --set train.epochs=…
    #[arg(long, value_name = "N", value_parser = number::<u64>(1..))]
    epochs: Option<u64>,
    /// Same as --set data.batch_size=…: rows per batch over all ranks
    #[arg(long, value_name = "N", value_parser = number::<usize>(1..))]
    batch_size: Option<usize>,
    /// Same as --set seed=…
    #[arg(long, value_name = "N", value_parser = number::<u64>(0..))]
    seed: Option<u64>,
    /// Same as --set model.init=…: weights to start from
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    init: Option<PathBuf>,
    /// Same as --set model.freeze=true: train only the head
    #[arg(long, hide_short_help = true)]
    freeze: bool,
    /// Same as --set data.skip_damaged=true
    #[arg(long, hide_short_help = true)]
    skip_damaged: bool,
    /// Folder in which to create the run's folder
    #[arg(long, default_value = "runs", value_name = "DIR")]
    pub(super) runs: PathBuf,
    /// Resume a run from its last checkpoint, with its own configuration; --epochs N extends it
    #[arg(long, value_name = "RUN", conflicts_with_all = ["like", "config", "sets", "model", "feature", "targets", "split", "folds", "seeds", "batch_size", "seed", "init", "freeze"])]
    resume: Option<PathBuf>,
    /// Resume RUN if it has a checkpoint, else start it there, so that repeating the same command completes a job that
    /// is killed and restarted. The configuration must be the run's, except for more epochs [default RUN:
    /// RUNS/MODEL-CONFIGURATION-1]
    #[arg(long, value_name = "RUN", conflicts_with = "resume")]
    #[allow(clippy::option_option)]
    pub(super) resume_or_start: Option<Option<PathBuf>>,
    /// Start N processes on this machine, each as a rank
    #[arg(long, value_name = "N", value_parser = number::<u16>(1..=256))]
    pub(super) nproc: Option<u16>,
    /// Measure the parts of the first N steps (waiting for data, copying, forward, backward, sums over ranks,
    /// optimizer), and all validations and checkpoints, and print a table at the end
    #[arg(long, value_name = "STEPS", value_parser = number::<u64>(1..), hide_short_help = true)]
    pub(super) profile: Option<u64>,
    /// Print the configuration that would be used, without keys that have no value, and exit
    #[arg(long)]
    print_config: bool,
    /// Print the result as JSON on stdout
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) machine: MachineArgs,
}

impl FitCommand {
    /// Trains the model, or prints the requested listing or configuration.
    ///
    /// # Errors
    /// `UsageError` for wrong options, an error of the store, or the error that ended the run.
    pub(crate) fn run(&self) -> Result<u8> {
        if let Some(listing) = self.like.listing() {
            write!(stdout(), "{listing}")?;
            return Ok(0);
        }

        if self.print_config {
            let config = self.begun(1)?.config;
            write!(stdout(), "{}", self.like.printed(&config)?)?;
            return Ok(0);
        }

        interrupt::end_with_starter()?;
        if let (Some(fold), Some(folds)) = (self.fold, self.folds)
            && !(1..=folds).contains(&fold)
        {
            bail!(UsageError(format!(
                "--fold {fold}: must be 1 to {folds} (--folds)"
            )));
        }
        if self.trains_several() {
            return self.run_all();
        }
        if self.jobs > 1 {
            let message = "--jobs: needs --folds without --fold, or --seeds";
            bail!(UsageError(message.to_owned()));
        }
        let ranks = match role(self.nproc)? {
            Role::Rank(ranks) => ranks,
            Role::Launcher(code) => return Ok(code),
        };

        let begun = self.begun(ranks.world_size)?;
        let (store, version) = begun.store(self.store.as_deref(), self.version.as_ref())?;
        let data = self.machine.open(&store, version.as_ref(), &begun.config)?;
        // Check the rows before this rank waits for the others, so that errors are reported immediately.
        run::check(&begun.config, &data, ranks.world_size)?;
        if begun.from.is_none() {
            self.look_at_what_begins(&data, &ranks)?;
        }

        let device = self.machine.compute.device(&ranks, begun.threads)?;
        let group = join(
            &ranks,
            &data,
            &data.lost_paths(),
            begun.config.hash(),
            device,
        )?;
        let ended = self.fit(begun, &store, &data, group, device);
        // After a closed output, the run is complete, and its result is in its folder.
        leave(group, &ended, super::exit::is_closed_output)?;

        match ended {
            // Only rank 0 prints the message about the stopped run.
            Err(error) if group.rank() > 0 && is_stopped(&error) => Ok(exit::code(&error)),
            ended => ended,
        }
    }

    /// True if the command trains several runs: all folds, or several seeds.
    fn trains_several(&self) -> bool {
        (self.folds.is_some() && self.fold.is_none()) || self.seeds.is_some_and(|seeds| seeds > 1)
    }

    /// Prints notes and checks the initial weights of a new run. A resumed run already has its weights.
    fn look_at_what_begins(&self, data: &Dataset, ranks: &Ranks) -> Result<()> {
        let layered = self.config(self.fold)?;
        if ranks.rank == 0 {
            for note in self.like.notes(&layered, self.config.as_deref(), data) {
                wavemill_terminal::say!("note: {}", shown(&note));
            }
        }

        match &layered.config.model.init {
            Some(file) => Ok(init::check_form(file)?),
            None => Ok(()),
        }
    }

    /// Determines how the run starts. No rank may write to its folder before every rank has called this function.
    fn begun(&self, world_size: usize) -> Result<RunStart> {
        if let Some(run) = &self.resume {
            let changes = Changes {
                epochs: self.epochs,
                skip_damaged: self.skip_damaged,
            };
            return run_folder::resumed(run, changes, world_size);
        }

        let config = self.config(self.fold)?.config;
        match &self.resume_or_start {
            None => Ok(RunStart::new(config, None)),
            Some(named) => {
                let folder = named
                    .clone()
                    .unwrap_or_else(|| run_folder::folder_of(&self.runs, &config));
                run_folder::resumed_or_started(&folder, config, world_size)
            }
        }
    }

    fn fit(
        &self,
        begun: RunStart,
        store: &Path,
        data: &Arc<Dataset>,
        group: &'static dyn Collective,
        device: Device,
    ) -> Result<u8> {
        // No rank has written to the folder yet: if ranks see different checkpoints in it, all of them exit here.
        run_folder::agree(begun.from, group)?;

        let config = begun.config;
        let folder = match begun.folder {
            Some(folder) => folder,
            None => run_folder::new_folder(&self.runs, &config, group, store, data)?,
        };

        if self.resume_or_start.is_some() && begun.from.is_none() {
            run_folder::begin_in(&folder, &config, group, store, data)?;
        }

        let job = Job {
            config,
            folder,
            resume: begun.from.is_some(),
            device,
            readers: usize::from(self.machine.readers),
            prefetch_batches: usize::from(self.machine.prefetch_batches),
            test: true,
            profile_steps: self.profile.unwrap_or(0),
            keep_going: None,
        };
        if group.rank() == 0 {
            for warning in data.warnings() {
                warn(&warning);
            }
        }

        let outcome = monitored(&job, data, group)?;
        if group.rank() == 0 {
            if self.json {
                writeln!(stdout(), "{}", serde_json::to_string(&outcome.result)?)?;
            } else {
                write!(stdout(), "{}", shown_lines(&run_table(&outcome.result)))?;
            }
            if let Some(profile) = &outcome.profile {
                report(&profile.to_string());
            }
            if outcome.ended_before {
                report("the run is already complete: nothing to do, and its result is unchanged\n");
            }
            report(&format!("run folder: {}\n", job.folder.display()));
        }
        Ok(0)
    }

    /// Builds the configuration from `--like`, `--config`, the flags and `--set`. Later sources override earlier ones.
    ///
    /// # Errors
    /// [`UsageError`] if `--set` sets another split than that of the fold, and errors of the configuration.
    pub(super) fn config(&self, fold: Option<usize>) -> Result<LayeredConfig> {
        let fold_split = fold
            .zip(self.folds)
            .map(|(fold, folds)| fold_rule(fold, folds));
        let split = fold_split.as_ref().or(self.split.as_ref());
        let init = self.init.as_ref().map(|path| path.to_string_lossy());
        let mut flags = vec![
            ("model.name", self.model.as_deref().map(toml_text)),
            ("data.feature", self.feature.as_deref().map(toml_text)),
            ("data.split", split.map(|split| toml_text(split))),
            ("train.epochs", self.epochs.map(|n| n.to_string())),
            ("data.batch_size", self.batch_size.map(|n| n.to_string())),
            ("seed", self.seed.map(|n| n.to_string())),
            ("model.init", init.map(|path| toml_text(&path))),
            ("model.freeze", self.freeze.then(|| true.to_string())),
        ];
        if self.skip_damaged {
            flags.push(("data.skip_damaged", Some(true.to_string())));
        }
        if !self.targets.is_empty() {
            let targets = toml::Value::from(self.targets.clone());
            flags.push(("data.targets", Some(targets.to_string())));
        }

        let mut sets = Vec::new();
        for (key, value) in flags {
            sets.extend(value.map(|value| format!("{key}={value}")));
        }
        // `--set` follows the other flags, because later values override earlier ones.
        sets.extend(self.sets.iter().cloned());
        let layered = self.like.read(self.config.as_deref(), &sets)?;
        if fold_split.is_some() && layered.config.data.split != fold_split {
            let message = "--set data.split: with --folds, the folds are the split";
            bail!(UsageError(message.to_owned()));
        }
        Ok(layered)
    }
}

fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Reports whether a run, or a list of runs, ended because a signal requested a stop.
pub(crate) fn is_stopped(error: &anyhow::Error) -> bool {
    exit::code(error) == Kind::Interrupted.exit_code()
}

/// Trains with signal handling and progress output. The first signal requests a stop after the step, the second exits.
///
/// Ranks that stop on request leave the group together: rank 0 may still be writing, and an early leaver seems lost.
pub(crate) fn monitored(
    job: &Job,
    data: &Arc<Dataset>,
    group: &'static dyn Collective,
) -> Result<FitOutcome> {
    shared::check(&job.folder, group, shared::PATIENCE)?;
    let monitor = interrupt::monitor()?;
    let start = Instant::now();
    let fitted = Display::new()?.hidden_if(group.rank() > 0).accompany(
        |display| progress::update(display, &monitor, &job.config, start),
        || run::fit(job, data, group, &monitor),
    )?;

    if matches!(&fitted, Err(error) if error.kind() == Kind::Interrupted) {
        group.finish()?;
    }
    if group.rank() == 0 && OutputArgs::get().verbose && fitted.is_ok() {
        say_details(&monitor, job, start.elapsed().as_secs_f64());
    }
    Ok(fitted?)
}

/// Prints the time spent in each phase and the run's files.
fn say_details(monitor: &RunMonitor, job: &Job, seconds: f64) {
    let waited = monitor.wait_ns.load(Ordering::Relaxed) as f64 / 1e9;
    let evaluated = monitor.evaluation_ns.load(Ordering::Relaxed) as f64 / 1e9;
    let trained = (seconds - evaluated).max(0.0);
    wavemill_terminal::say!(
        "wall seconds: training {trained:.1}, of which waiting for rows {waited:.1}; validation and test \
         {evaluated:.1}"
    );
    let read = wavemill_loader::traffic();
    if read.bytes > 0 {
        wavemill_terminal::say!("{read}");
    }

    // Errors of listing the folder are ignored, since the run has succeeded.
    let mut files: Vec<_> = std::fs::read_dir(&job.folder)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    for file in &files {
        wavemill_terminal::say!("  {}", file.path().display());
    }
}

/// Reports to the other ranks, which wait for it, whether this rank ended well. Errors for which `is_success` is true
/// count as success. No effect if all ranks were asked to stop: all of them have left the group before.
///
/// # Errors
/// A rank is lost.
pub(crate) fn leave<T>(
    group: &dyn Collective,
    ended: &Result<T>,
    is_success: impl Fn(&anyhow::Error) -> bool,
) -> Result<()> {
    match ended {
        Err(error) if !is_success(error) => group.fail(&error_line(error.as_ref())),
        _ => group.finish()?,
    }
    Ok(())
}

/// Joins the job's ranks and checks that all have the same task. `lost` lists the damaged files that this rank skips, and
/// `config_hash` covers all configurations that it will use.
///
/// # Errors
/// A rank is missing, has another store, configuration or program version, or uses another kind of device.
pub(crate) fn join(
    ranks: &Ranks,
    data: &Dataset,
    lost: &[String],
    config_hash: String,
    device: Device,
) -> Result<&'static dyn Collective> {
    let fingerprint = Fingerprint {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        manifest_hash: data.store().manifest_hash().to_owned(),
        config_hash,
        feature_id: data.feature().feature_id.clone(),
        lost_files: if lost.is_empty() {
            "none".to_owned()
        } else {
            lost.join(", ")
        },
    };

    if let Some(warning) = ranks.open_port_warning() {
        warn(&warning);
    }
    let say = |line: &str| wavemill_terminal::say!("wavemill train: {line}");
    let on_loss = strategy::exit_on_loss(ranks, say);
    Ok(strategy::join(ranks, &fingerprint, device, on_loss, say)?)
}
