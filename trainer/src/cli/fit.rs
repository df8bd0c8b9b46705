//! `wavemill-train fit`: one training run, on one process or many.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use tch::Device;
use wavemill_schemas::config::{Config, LayeredConfig};
use wavemill_schemas::text::{shown, shown_lines};
use wavemill_schemas::version_name::VersionName;

use super::like::LikeArgs;
use super::output::{self, OutputArgs, report};
use super::role::{Role, role};
use super::run_folder::{self, Changes, RunStart};
use super::{MachineArgs, interrupt, progress, shared};
use crate::dataset::Dataset;
use crate::models::init;
use crate::run::{self, FitOutcome, Job, RunError, RunMonitor};
use crate::strategy::{self, Collective, Fingerprint, Ranks};

const EXAMPLES: &str = "\
Examples:
  wavemill-train fit --store store --model cnn2d
  wavemill-train fit --store store --like gtzan-segments      # as that recipe's document trained
  wavemill-train fit --store store --config my.toml --set optimizer.lr=3e-4 --set augment.enabled=true
  wavemill-train fit --store store --model crnn --target genre --target subgenre --split official
  wavemill-train fit --store store --model cnn2d --nproc 2 --threads 1
  torchrun --nproc-per-node 2 --no-python wavemill-train fit --store store --model cnn2d
  wavemill-train fit --resume runs/cnn2d-1f2e3d4c-1
  wavemill-train fit --resume-or-start runs/night --store store --model cnn2d

The configuration, of each key that has a value: wavemill-train fit --print-config
Without --like and --config the values are document 000's (recipe fma-large), without its
augmentation.
Keys without one, such as data.frames and model.init, are in docs/trainer.md.
A run stopped by Ctrl-C or SIGTERM writes a checkpoint first and says how to go on.";

/// Train a model on a store, then evaluate it once on the test split
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct FitCommand {
    /// A feature store of `wavemill extract`
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Its version, by number or tag [default: the latest]
    #[arg(long, value_name = "VERSION")]
    version: Option<VersionName>,
    #[command(flatten)]
    like: LikeArgs,
    /// A configuration (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change a value of the configuration
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// As --set model.name=…; `wavemill-train models` lists them
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// As --set data.feature=…
    #[arg(long, value_name = "NAME")]
    feature: Option<String>,
    /// As --set data.targets=[…]; may be given several times; `genres_all` is multi-label
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// As --set data.split=…: official, stratified or artist
    #[arg(long, value_name = "RULE")]
    split: Option<String>,
    /// As --set train.epochs=…
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// As --set data.batch_size=…: rows of a batch over all ranks
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// As --set seed=…
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// As --set model.init=…: weights to start from
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// As --set model.freeze=true: train the head alone
    #[arg(long)]
    freeze: bool,
    /// As --set data.skip_damaged=true
    #[arg(long)]
    skip_damaged: bool,
    /// Folder in which the run's own is made
    #[arg(long, default_value = "runs", value_name = "DIR")]
    runs: PathBuf,
    /// Go on with a run where its last checkpoint is; its configuration counts, --epochs N makes it longer
    #[arg(long, value_name = "RUN", conflicts_with_all = ["like", "config", "sets", "model", "feature", "targets", "split", "batch_size", "seed", "init", "freeze"])]
    resume: Option<PathBuf>,
    /// Go on with RUN where it has a checkpoint, and begin it there otherwise: the same command again and again does the
    /// whole of a job that is killed and started anew. The configuration must be the run's, but for more epochs
    /// [default RUN: RUNS/MODEL-CONFIGURATION-1]
    #[arg(long, value_name = "RUN", conflicts_with = "resume")]
    #[allow(clippy::option_option)]
    resume_or_start: Option<Option<PathBuf>>,
    /// Start N processes on this machine, each a rank
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    nproc: Option<u16>,
    /// Print the configuration that would be used, without keys that have no value, and stop
    #[arg(long)]
    print_config: bool,
    /// The result as JSON on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

impl FitCommand {
    /// Trains.
    ///
    /// # Errors
    /// UsageError, store, or whatever stopped the run.
    pub(crate) fn run(&self) -> Result<u8> {
        if let Some(listing) = self.like.listing() {
            print!("{listing}");
            return Ok(0);
        }

        if self.print_config {
            print!("{}", self.like.printed(&self.config()?.config)?);
            return Ok(0);
        }

        interrupt::end_with_starter()?;
        let ranks = match role(self.nproc)? {
            Role::Rank(ranks) => ranks,
            Role::Launcher(code) => return Ok(code),
        };

        let begun = self.begun(ranks.world_size)?;
        let (store, version) = begun.store(self.store.as_deref(), self.version.as_ref())?;
        let data = self.machine.open(&store, version.as_ref(), &begun.config)?;
        // Before ranks wait for each other: what is wrong with the rows is told at once.
        run::check(&begun.config, &data, ranks.world_size)?;
        if begun.from.is_none() {
            self.look_at_what_begins(&data, &ranks)?;
        }

        let device = self.machine.device(&ranks, begun.threads)?;
        let group = join(&ranks, &data, &data.lost_paths(), &begun.config, device)?;
        let ended = self.fit(begun, &store, &data, group, device);
        // Other ranks wait for this one: they are told how it ended.
        match &ended {
            Ok(_) => group.finish()?,
            // Of no effect where all ranks were asked to stop, and have parted.
            Err(error) => group.fail(&super::exit::words(error)),
        }

        match ended {
            // Rank 0 says it.
            Err(error) if group.rank() > 0 && is_stopped(&error) => Ok(super::exit::code(&error)),
            ended => ended,
        }
    }

    /// What is told, and looked at, of a run that begins: one that goes on has its weights.
    fn look_at_what_begins(&self, data: &Dataset, ranks: &Ranks) -> Result<()> {
        let layered = self.config()?;
        if ranks.rank == 0 {
            for note in self.like.notes(&layered, self.config.as_deref(), data) {
                eprintln!("note: {}", shown(&note));
            }
        }

        match &layered.config.model.init {
            Some(file) => Ok(init::check_form(file)?),
            None => Ok(()),
        }
    }

    /// What the run begins with. No rank writes before all have looked.
    fn begun(&self, world_size: usize) -> Result<RunStart> {
        if let Some(run) = &self.resume {
            let changes = Changes {
                epochs: self.epochs,
                skip_damaged: self.skip_damaged,
            };
            return run_folder::resumed(run, changes, world_size);
        }

        let config = self.config()?.config;
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
        // Nobody has written by now: where ranks see the folder differently, all end here.
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
            keep_going: None,
        };
        if group.rank() == 0 {
            for warning in data.warnings() {
                eprintln!("warning: {warning}");
            }
        }

        let FitOutcome {
            result,
            ended_before,
            ..
        } = monitored(&job, data, group)?;

        if group.rank() == 0 {
            if self.json {
                println!("{}", serde_json::to_string(&result)?);
            } else {
                print!("{}", shown_lines(&result.to_string()));
            }
            if ended_before {
                report(
                    "the run had come to its end before: nothing is left to do, and its result is as it was",
                );
            }
            report(&format!("the run is in {}", job.folder.display()));
        }
        Ok(0)
    }

    /// What `--like` names, then the file, then the flags, then `--set`.
    fn config(&self) -> Result<LayeredConfig> {
        let targets = toml::Value::from(self.targets.clone()).to_string();
        let flags = [
            ("model.name", self.model.as_deref().map(toml_text)),
            ("data.feature", self.feature.as_deref().map(toml_text)),
            ("data.split", self.split.as_deref().map(toml_text)),
            ("train.epochs", self.epochs.map(|n| n.to_string())),
            ("data.batch_size", self.batch_size.map(|n| n.to_string())),
            ("seed", self.seed.map(|n| n.to_string())),
            (
                "model.init",
                self.init
                    .as_ref()
                    .map(|path| toml_text(&path.to_string_lossy())),
            ),
            ("model.freeze", self.freeze.then(|| "true".to_owned())),
            (
                "data.skip_damaged",
                self.skip_damaged.then(|| "true".to_owned()),
            ),
            (
                "data.targets",
                (!self.targets.is_empty()).then_some(targets),
            ),
        ];

        let mut sets = Vec::new();
        for (key, value) in flags {
            sets.extend(value.map(|value| format!("{key}={value}")));
        }
        // Behind the flags: later ones win.
        sets.extend(self.sets.iter().cloned());
        self.like.read(self.config.as_deref(), &sets)
    }
}

fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Whether a signal ended it, in order.
pub(crate) fn is_stopped(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(RunError::Stopped { .. }))
}

/// Runs with signals caught and progress drawn. The first signal asks for an orderly end, a second one ends at once.
///
/// Ranks that are asked to stop leave together: one that went before would be missed while rank 0 writes.
///
/// # Errors
/// As [`run::fit`].
pub(crate) fn monitored(
    job: &Job,
    data: &Arc<Dataset>,
    group: &'static dyn Collective,
) -> Result<FitOutcome> {
    shared::check(&job.folder, group, shared::PATIENCE)?;
    let monitor = interrupt::monitor();
    let shown = OutputArgs::get().shown();
    let every = output::interval()?;
    let done = AtomicBool::new(false);
    let start = Instant::now();

    std::thread::scope(|scope| {
        if group.rank() == 0 {
            scope.spawn(|| progress::show(&monitor, &job.config, shown, every, &done));
        }
        let guard = DoneOnDrop(&done);
        let fitted = run::fit(job, data, group, &monitor);
        drop(guard);

        if matches!(fitted, Err(RunError::Stopped { .. })) {
            group.finish()?;
        }
        if group.rank() == 0 && OutputArgs::get().verbose && fitted.is_ok() {
            say_details(&monitor, job, start.elapsed().as_secs_f64());
        }
        Ok(fitted?)
    })
}

/// Where the time went, and the run's files.
fn say_details(monitor: &RunMonitor, job: &Job, seconds: f64) {
    let waited = monitor.wait_ns.load(Ordering::Relaxed) as f64 / 1e9;
    let evaluated = monitor.evaluation_ns.load(Ordering::Relaxed) as f64 / 1e9;
    let trained = (seconds - evaluated).max(0.0);
    eprintln!(
        "wall seconds: training {trained:.1}, of these waiting for rows {waited:.1}; validation and test {evaluated:.1}"
    );

    // A folder that cannot be read is told of nowhere: the run is over, and well.
    let mut files: Vec<_> = std::fs::read_dir(&job.folder)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    for file in &files {
        eprintln!("  {}", file.path().display());
    }
}

/// Ends the thread that draws, whatever ends the run: a panic would wait for it for ever.
struct DoneOnDrop<'a>(&'a AtomicBool);

impl Drop for DoneOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// All ranks of the job, which agree on what they do; `lost`: the files that this one passes over.
///
/// # Errors
/// A rank is missing, or works on something else, or on another kind of device.
pub(crate) fn join(
    ranks: &Ranks,
    data: &Dataset,
    lost: &[String],
    config: &Config,
    device: Device,
) -> Result<&'static dyn Collective> {
    let fingerprint = Fingerprint {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        manifest_hash: data.store().manifest_hash().to_owned(),
        config_hash: config.hash(),
        feature_id: data.feature().feature_id.clone(),
        lost_files: if lost.is_empty() {
            "none".to_owned()
        } else {
            lost.join(", ")
        },
    };

    Ok(strategy::join(
        ranks,
        &fingerprint,
        device,
        strategy::exit_on_loss(ranks),
    )?)
}
