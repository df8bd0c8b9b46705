//! `wavemill experiment run`: finds the data, extracts the stores, trains the models and collects the scores. Every
//! step is a command that a user could type, and each one continues from the state that an interrupted command left.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{DecimalBytes, HumanDuration};
use serde::{Deserialize, Serialize};
use wavemill_extract::run::Preview;
use wavemill_extract::settings::THREADS_MAX;
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::experiment::{BASE, ExperimentSource};
use wavemill_schemas::number::number;
use wavemill_schemas::run::{RunDir, RunFilesError, RunResult};
use wavemill_schemas::text::counted;
use wavemill_store::Store;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::files::write_text;
use wavemill_terminal::interrupt;
use wavemill_terminal::output::report;

use super::data::{CheckedArchives, DataPaths, FoundData};
use super::needs::{self, ModelInputs};
use super::outcome::{Outcome, StoreOutcome};
use super::pages;
use super::rows;
use super::sweep::{SWEEP_FILE, SweepWork};
use super::tables;
use super::trainer;
use super::work::{RunWork, Selection, StoreWork, Work};
use crate::cli::extract::ExtractCommand;
use crate::cli::train::flags;
use crate::cli::{RUN_AGAIN, WaitArgs, command_of};

const EXAMPLES: &str = "\
Examples:
  wavemill experiment run fma-large --data fma/ --out out/
  wavemill experiment run fma-large --data fma/ --out small/ \\
      --variant mfcc --limit 2000 --epochs 3
  wavemill experiment run fma-large --data wavemill-demo/data \\
      --audio wavemill-demo/data/fma_demo --any-data --out demo/ \\
      --train cnn2d --epochs 3

--out receives stores/, runs/, result.json, and index.html with pages/. To continue a killed or interrupted run, repeat \
the same command: finished stores and runs are reused.

Exit code 2 also if data is missing, differs from the published data or lacks the inputs of a training.";

/// File in the results folder that records the folder's state.
const FOLDER_FILE: &str = "experiment.json";
/// File in the results folder with the scores.
const RESULT_FILE: &str = "result.json";

/// Arguments of `experiment run`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// A shipped experiment's name, or a TOML file
    #[arg(value_name = "NAME|FILE")]
    experiment: String,
    #[command(flatten)]
    data: DataPaths,
    /// Folder for stores, runs, result.json and pages
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Variant, or several combined by +; may be repeated [default: base, the unchanged recipe]
    #[arg(long = "variant", value_name = "NAME")]
    variants: Vec<String>,
    /// Train only this model; may be repeated [default: all trainings of the experiment]
    #[arg(long = "train", value_name = "NAME")]
    trainings: Vec<String>,
    /// Do not compare archives with their published sha1
    #[arg(long)]
    any_data: bool,
    /// Extract only N clips of each store, chosen by hash
    #[arg(long, value_name = "N", value_parser = number::<u64>(1..))]
    limit: Option<u64>,
    /// Number of epochs of every training, instead of its own
    #[arg(long, value_name = "N", value_parser = number::<u64>(1..))]
    epochs: Option<u64>,
    /// Change a value of the recipe in every variant
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Change a value of every configuration of training
    #[arg(long = "train-set", value_name = "KEY=VALUE")]
    train_sets: Vec<String>,
    /// Number of threads; models depend on it in their last bits, so a folder keeps the number of its first run
    /// [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = number::<u16>(1..=THREADS_MAX as u16))]
    threads: Option<u16>,
    /// Device for training: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// Largest fraction of rejected clips, as in `wavemill extract`
    #[arg(long, value_name = "F", value_parser = number::<f64>(0.0..=1.0))]
    max_reject_fraction: Option<f64>,
    #[command(flatten)]
    wait: WaitArgs,
    /// Also run the experiment's sweep, on the honest store of `base`; trials are compared on validation
    #[arg(long)]
    sweep: bool,
    /// Show the planned work with an estimate; write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Contents of `experiment.json`: the state that later commands on the same folder need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct FolderState {
    /// Name of the experiment.
    experiment: String,
    /// Number of threads of every training run.
    threads: u16,
    /// Archives whose sha1 was compared with the published sha1.
    #[serde(default)]
    checked: CheckedArchives,
}

/// Runs the experiment that `args` describes.
///
/// # Errors
/// An error of one of the commands that the experiment runs.
pub(super) fn run(args: &RunArgs, out: &mut impl Write) -> Result<()> {
    let source = ExperimentSource::find(&args.experiment)?;
    let selection = args.selection();
    let mut work = Work::new(&source, &selection)?;
    let sweep = match args.sweep {
        true => Some(SweepWork::new(&source, &mut work, &selection)?),
        false => None,
    };
    let data = args.data(&work)?;

    if args.dry_run {
        let previews = previews(args, &work, &data)?;
        forecast(args, &work, sweep.as_ref(), &data, &previews, out)?;
        let models = match trainer::check() {
            Ok(()) => Some(ModelInputs::all()?),
            Err(error) => {
                report(&format!(
                    "the inputs of the models are not checked: {error}\n"
                ));
                None
            }
        };
        return needs::check(args, &work, &data, previews, models.as_deref());
    }

    trainer::check()?;
    let _lock = lock_folder(&args.out)?;
    let mut state = FolderState::open(&args.out, &source.experiment.name, args.threads)?;
    pages::check(&args.out, &work)?;
    if !args.any_data {
        let published = &source.experiment.data.published;
        for found in &data {
            found.check_published(published, &mut state.checked)?;
        }
        state.write(&args.out)?;
    }
    report("checking the inputs of the trainings\n");
    let previews = previews(args, &work, &data)?;
    let models = ModelInputs::all()?;
    needs::check(args, &work, &data, previews, Some(&models))?;

    let mut outcome = Outcome::new(&source.experiment, state.threads, args.any_data, &selection);
    for (number, store) in work.stores.iter().enumerate() {
        let of = work.stores.len();
        report(&format!("store {} of {of}: {}\n", number + 1, store.name));
        outcome.stores.push(make_store(args, store, &data[number])?);
    }

    let mut results = Vec::new();
    for (number, one) in work.runs.iter().enumerate() {
        let of = work.runs.len();
        report(&format!("training {} of {of}: {}\n", number + 1, one.name));
        let store = &work.stores[one.store].name;
        let manifest_hash = &outcome.stores[one.store].manifest_hash;
        results.push(train(args, one, store, manifest_hash, state.threads)?);
    }

    outcome.add(&source.experiment, &work, &results);

    if let Some(sweep) = &sweep {
        report("sweep\n");
        let store = args.store_path(&work.stores[sweep.store].name);
        outcome.sweep = sweep.run(&args.out, &store, state.threads, &args.device)?;
    }
    let path = args.out.join(RESULT_FILE);
    let json = serde_json::to_string_pretty(&outcome)? + "\n";
    write_text("--out", &path, &json)?;
    pages::make(&args.out, &work)?;
    let index = pages::write_index(&args.out, &source.experiment, &outcome)?;

    if args.json {
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
    } else {
        write!(out, "{}", tables::text(&outcome))?;
    }
    report(&format!(
        "result written to {}, page to {}\n",
        path.display(),
        index.display()
    ));
    Ok(())
}

impl RunArgs {
    fn selection(&self) -> Selection {
        let mut variants = self.variants.clone();
        if variants.is_empty() {
            variants.push(BASE.to_owned());
        }
        let epochs = self.epochs.map(|epochs| format!("train.epochs={epochs}"));
        Selection {
            variants,
            trainings: self.trainings.clone(),
            sets: self.sets.clone(),
            train_sets: self.train_sets.iter().cloned().chain(epochs).collect(),
            limit: self.limit,
        }
    }

    /// Finds the metadata and audio of each store.
    fn data(&self, work: &Work) -> Result<Vec<FoundData>> {
        let recipes = work.stores.iter().map(|store| &store.recipe);
        let found = recipes.map(|one| self.data.find(&one.data, one.recipe.catalog.dataset));
        Ok(found.collect::<Result<_, _>>()?)
    }

    fn store_path(&self, name: &str) -> PathBuf {
        self.out.join("stores").join(name)
    }

    /// Returns the `extract` command that creates a store.
    fn extract(&self, store: &StoreWork, data: &FoundData) -> Result<ExtractCommand> {
        let mut line = Command::new("extract");
        line.args(flags("--recipe", [&store.recipe.source]));
        line.args(flags("--set", &store.recipe.sets));
        line.args(flags("--metadata", &data.metadata));
        line.args(flags("--audio", [&data.audio]));
        line.args(flags("--store", [self.store_path(&store.name)]));
        line.args(flags("--wait", [self.wait.seconds.to_string()]));
        line.args(flags("--limit", self.limit.map(|n| n.to_string())));
        line.args(flags("--threads", self.threads.map(|n| n.to_string())));
        let fraction = self.max_reject_fraction.map(|share| share.to_string());
        line.args(flags("--max-reject-fraction", fraction));
        command_of(&line.get_args().collect::<Vec<_>>())
    }
}

/// Returns a preview of the extraction of each store.
fn previews(args: &RunArgs, work: &Work, data: &[FoundData]) -> Result<Vec<Preview>> {
    let mut previews = Vec::new();
    for (store, data) in work.stores.iter().zip(data) {
        let preview = args.extract(store, data)?.forecast();
        previews.push(preview.with_context(|| format!("store {}", store.name))?);
    }
    // The signal handling of the preview has ended with the preview, so that of the experiment is set again.
    interrupt::at_once(RUN_AGAIN)?;
    Ok(previews)
}

/// Prints the planned work to stdout.
fn forecast(
    args: &RunArgs,
    work: &Work,
    sweep: Option<&SweepWork>,
    data: &[FoundData],
    previews: &[Preview],
    out: &mut impl Write,
) -> Result<()> {
    for ((store, data), preview) in work.stores.iter().zip(data).zip(previews) {
        writeln!(out, "store {}", args.store_path(&store.name).display())?;
        if let Some(metadata) = &data.metadata {
            writeln!(out, "  metadata {}", metadata.display())?;
        }
        writeln!(out, "  audio {}", data.audio.display())?;
        writeln!(
            out,
            "  {}, about {} before compression, about {} on {}",
            counted(preview.clips_planned, "clip"),
            DecimalBytes(preview.feature_bytes),
            HumanDuration(Duration::from_secs_f64(preview.seconds)),
            counted(preview.threads, "thread")
        )?;
        writeln!(out, "  {}\n", preview.outcome)?;
    }

    if let Some(sweep) = sweep {
        writeln!(out, "sweep on {}\n", work.stores[sweep.store].name)?;
    }
    let trainings = counted(work.runs.len(), "training");
    writeln!(out, "{trainings}, duration unknown")?;
    for run in &work.runs {
        let epochs = run.config.config.train.epochs;
        writeln!(
            out,
            "  {} on {}, up to {}",
            run.name,
            work.stores[run.store].name,
            counted(epochs, "epoch")
        )?;
    }
    Ok(())
}

fn make_store(args: &RunArgs, store: &StoreWork, data: &FoundData) -> Result<StoreOutcome> {
    let path = args.store_path(&store.name);
    args.extract(store, data)?
        .run()
        .with_context(|| format!("store {} (other data need another --out)", store.name))?;
    // The signal handling of the extraction has ended with it, so that of the experiment is set again.
    interrupt::at_once(RUN_AGAIN)?;

    let latest = Store::at(&path).latest()?;
    let made = latest.with_context(|| format!("{}: contains no version", path.display()))?;
    Ok(StoreOutcome {
        name: store.name.clone(),
        sets: store.recipe.sets.clone(),
        plan_id: made.manifest.plan_id.clone(),
        manifest_hash: made.hash,
        clips: made.manifest.counts.clips_written,
        targets: made.manifest.targets,
    })
}

/// Returns the result of a run: reads it if the run is finished, otherwise trains with `wavemill train fit`. Also
/// creates the run's prediction and map files.
fn train(
    args: &RunArgs,
    run: &RunWork,
    store: &str,
    manifest_hash: &str,
    threads: u16,
) -> Result<RunResult> {
    let folder = args.out.join("runs").join(&run.name);
    let store_path = args.store_path(store);
    // `fit` writes `result.json` last, so a run with this file is finished.
    if let Some(finished) = read_result(&folder)?
        && finished.manifest_hash == manifest_hash
        && finished.config_hash == run.config.config.hash()
    {
        report("  already finished\n");
        rows::make(&folder, &store_path, threads, &args.device)?;
        return Ok(finished);
    }

    rows::forget(&folder)?;
    let mut command = trainer::command("fit");
    command.args(flags("--store", [&store_path]));
    command.args(flags("--like", &run.config.like));
    command.args(flags("--config", &run.config.file));
    command.args(flags("--set", &run.config.sets));
    command.args(flags("--resume-or-start", [&folder]));
    command.args(["--threads", &threads.to_string(), "--device", &args.device]);

    // The output of the trainer is not needed: the result is in the run's folder.
    trainer::run(command)?;
    let finished = read_result(&folder)?
        .with_context(|| format!("{}: no result after the training", folder.display()))?;
    // A run that was finished keeps its version of the store and its configuration.
    if finished.manifest_hash != manifest_hash || finished.config_hash != run.config.config.hash() {
        let message = format!(
            "{}: was trained on another version of its store, or with another configuration: use another --out, or \
             remove the run's folder",
            folder.display()
        );
        return Err(UsageError(message).into());
    }
    rows::make(&folder, &store_path, threads, &args.device)?;
    Ok(finished)
}

/// Reads the result of a run; returns `None` while the run is not finished.
fn read_result(folder: &Path) -> Result<Option<RunResult>> {
    let run = match RunDir::open(folder) {
        Err(RunFilesError::Missing { .. }) => return Ok(None),
        opened => opened?,
    };
    let damaged = || {
        format!(
            "{}: damaged: remove its folder to train the run again",
            run.result().display()
        )
    };
    match run.read_result() {
        Err(error @ RunFilesError::Json { .. }) => Err(error).with_context(damaged),
        read => Ok(read?),
    }
}

/// Creates the output folder and locks it until the returned file is closed: two commands on one folder would replace
/// each other's files.
///
/// # Errors
/// [`Kind::Busy`] if another command has locked the folder, [`UsageError`] if `folder` is a file, and an I/O error if it
/// cannot be created.
fn lock_folder(folder: &Path) -> Result<File> {
    let out = folder.display();
    let exists = folder
        .try_exists()
        .with_context(|| format!("cannot read {}", folder.display()))?;
    if exists && !folder.is_dir() {
        return Err(UsageError(format!("--out {out}: not a folder")).into());
    }

    let create = || fs::create_dir_all(folder).and_then(|()| File::open(folder));
    let opened = create().with_context(|| format!("--out {out}: cannot create it"))?;
    // Continue without a lock if the file system does not support locks.
    if let Err(TryLockError::WouldBlock) = opened.try_lock() {
        let message = format!(
            "--out {out}: another `wavemill experiment run` is writing it: repeat the command when that has ended, or use \
             another --out"
        );
        return Err(PlainError::new(Kind::Busy, message).into());
    }
    Ok(opened)
}

impl FolderState {
    /// Reads the state of `folder`, or writes a new state to it.
    ///
    /// # Errors
    /// [`UsageError`] if the folder belongs to another experiment, was begun with another number of threads, or has
    /// files of the user with the names of this command's; an I/O error if it cannot be written.
    fn open(folder: &Path, experiment: &str, threads: Option<u16>) -> Result<Self> {
        let path = folder.join(FOLDER_FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Self::begin(folder, experiment, threads);
            }
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let state: Self = serde_json::from_str(&text)
            .with_context(|| format!("{}: damaged: use another --out", path.display()))?;

        let out = folder.display();
        if state.experiment != experiment {
            let other = &state.experiment;
            return Err(UsageError(format!(
                "--out {out}: contains the experiment {other}: use another folder"
            ))
            .into());
        }
        if let Some(threads) = threads.filter(|threads| *threads != state.threads) {
            let begun = state.threads;
            return Err(UsageError(format!(
                "--threads {threads}: {out} was started with {begun}, and models depend on this number: omit --threads, or \
                 use another --out"
            ))
            .into());
        }
        Ok(state)
    }

    /// Writes the state of an experiment that begins.
    fn begin(folder: &Path, experiment: &str, threads: Option<u16>) -> Result<Self> {
        for name in [RESULT_FILE, SWEEP_FILE] {
            let file = folder.join(name);
            let exists = file.try_exists();
            if exists.with_context(|| format!("cannot read {}", file.display()))? {
                let out = folder.display();
                let message =
                    format!("--out {out}: its {name} is not of an experiment: use another folder");
                return Err(UsageError(message).into());
            }
        }

        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let own = processors.min(THREADS_MAX);
        let state = Self {
            experiment: experiment.to_owned(),
            threads: threads.unwrap_or(u16::try_from(own).unwrap_or(u16::MAX)),
            checked: CheckedArchives::new(),
        };
        state.write(folder)?;
        Ok(state)
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)? + "\n";
        write_text("--out", &folder.join(FOLDER_FILE), &json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(out: &Path, experiment: &str, threads: Option<u16>) -> String {
        let refused = FolderState::open(out, experiment, threads);
        refused.expect_err("a refusal").to_string()
    }

    #[test]
    fn a_folder_keeps_its_experiment_and_its_threads() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("out");
        let lock = lock_folder(&out).expect("a new folder");
        let busy = lock_folder(&out).expect_err("locked");
        assert_eq!(
            crate::cli::exit::code(&busy),
            Kind::Busy.exit_code(),
            "{busy}"
        );
        drop(lock);

        for threads in [Some(3), None] {
            let state = FolderState::open(&out, "fma-large", threads).expect("new or the same");
            assert_eq!(state.threads, 3, "{threads:?}");
        }

        let other = refusal(&out, "fma-small", None);
        assert!(
            other.contains("contains the experiment fma-large"),
            "{other}"
        );
        let threads = refusal(&out, "fma-large", Some(4));
        assert!(threads.contains("was started with 3"), "{threads}");

        fs::write(folder.path().join(SWEEP_FILE), "").expect("disk space");
        let own = refusal(folder.path(), "fma-large", None);
        assert!(own.contains("is not of an experiment"), "{own}");
    }
}
