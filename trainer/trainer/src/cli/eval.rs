//! `wavemill train eval`: scores a run's checkpoint on a split, optionally in comparison with another run.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use tch::Device;
use wavemill_schemas::number::number;
use wavemill_schemas::run::{Leaks, Noun, RunDir};
use wavemill_schemas::text::shown_lines;
use wavemill_schemas::version_name::VersionName;
use wavemill_scores::map::{self, MapSettings, ROWS_MAX, ROWS_MIN, STEPS};
use wavemill_scores::metrics::{Predictions, evaluation_table, paired, paired_table};
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::output::{report, stdout, warn};

use super::progress::MapProgress;
use super::role::{Role, role};
use super::{MachineArgs, fit, input, interrupt};
use crate::checkpoint::{self, Checkpoints, State};
use crate::dataset::{Dataset, LoaderPlan, Split, StorePlace};
use crate::evaluate::{self, RowFileMetadata, RowFilePaths, RowFiles};
use crate::learner::Learner;
use crate::run;
use crate::strategy::Collective;

const EXAMPLES: &str = "\
Examples:
  wavemill train eval runs/cnn2d-1f2e3d4c-1
  wavemill train eval runs/cnn2d-1f2e3d4c-1 --side validation --json
  wavemill train eval runs/cnn2d-1f2e3d4c-1 --version 4
  wavemill train eval runs/crnn-5a6b7c8d-1 --against runs/cnn2d-1f2e3d4c-1
  wavemill train eval runs/crnn-*-1 runs/cnn2d-*-1 --ensemble
  wavemill train eval runs/crnn-5a6b7c8d-1 --predictions test.parquet \\
      --embeddings vectors.parquet --map map.parquet

On another version than that of the run, the scores state which tracks the run was trained on.

--predictions writes a row for each evaluated row: keys, split, true and predicted class, probabilities and logits. \
--embeddings writes the vector that is the input of the heads instead, in the column embedding. --map writes the position \
of that vector on a t-SNE map, in the columns x and y, with true and predicted classes.

`fit` has already evaluated the test split once (result.json). Compare models with --side validation: a test split that \
is evaluated repeatedly becomes a second validation split.";

/// Score a run's checkpoint, or an ensemble of several runs, on a split
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalCommand {
    /// Folder written by `fit`
    run: PathBuf,
    /// More folders, for --ensemble
    #[arg(value_name = "RUN", requires = "ensemble")]
    more: Vec<PathBuf>,
    /// Score the mean of the runs' probabilities for each row
    #[arg(long, requires = "more", conflicts_with_all = ["predictions", "embeddings", "map"])]
    ensemble: bool,
    /// The store's folder or address [default: the one that the run was trained on]
    #[arg(long, value_name = "DIR")]
    store: Option<StorePlace>,
    /// Version of the store, by number or tag [default: the run's version; with --store, the latest]
    #[arg(long, value_name = "VERSION")]
    version: Option<VersionName>,
    /// Split to evaluate
    #[arg(long, default_value = "test", value_parser = PossibleValuesParser::new(Split::ALL.map(Split::name)).try_map(|name| Split::named(&name).ok_or("no split")))]
    side: Split,
    /// The best checkpoint on validation (best), or the last one (last)
    #[arg(long, value_enum, default_value = "best", hide_possible_values = true)]
    checkpoint: CheckpointArg,
    /// Another run, to compare on the same tracks (paired bootstrap)
    #[arg(long, value_name = "RUN")]
    against: Option<PathBuf>,
    /// Write the predictions for each row (Parquet)
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// Write each row's vector, the input of the heads (Parquet)
    #[arg(long, value_name = "FILE")]
    embeddings: Option<PathBuf>,
    /// Write each row's position on a t-SNE map of these vectors (Parquet); of more than 10,000 rows, a random sample
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Approximate number of neighbours of a row on the map; lowered if there are too few rows
    #[arg(long, value_name = "N", default_value_t = 30, requires = "map", value_parser = number::<u16>(2..=1000), hide_short_help = true)]
    perplexity: u16,
    /// Start N processes on this machine, each as a rank
    #[arg(long, value_name = "N", value_parser = number::<u16>(1..=256))]
    nproc: Option<u16>,
    /// Print the scores as JSON on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Selects the best or the last checkpoint of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckpointArg {
    /// The best checkpoint on validation.
    Best,
    /// The last checkpoint.
    Last,
}

impl CheckpointArg {
    /// Returns the path of the selected checkpoint's folder.
    ///
    /// # Errors
    /// `run` is not the folder of a run, or the run has no checkpoint yet.
    pub(crate) fn find(self, run: &Path) -> Result<PathBuf> {
        let checkpoints = Checkpoints::open(RunDir::open(run)?.checkpoints(), 1)?;
        let checkpoint = match self {
            Self::Best => checkpoints.best()?,
            Self::Last => checkpoints.last()?,
        };
        Ok(checkpoint)
    }
}

/// A run's checkpoint, opened together with the rows on which it is evaluated.
struct OpenedRun {
    data: Arc<Dataset>,
    state: State,
    /// Path of the checkpoint's folder.
    path: PathBuf,
    /// Overlap of the rows with the run's training tracks; `None` on the store version that the run was trained on.
    known: Option<Leaks>,
}

impl EvalCommand {
    /// Evaluates the run's checkpoint and prints the scores.
    ///
    /// # Errors
    /// The folder is not a run's, the store lacks the run's feature, or no row of the split has a label.
    pub(crate) fn run(&self) -> Result<u8> {
        self.check_files()?;

        interrupt::end_with_starter()?;
        let ranks = match role(self.nproc)? {
            Role::Rank(ranks) => ranks,
            Role::Launcher(code) => return Ok(code),
        };

        let opened = self.open(&self.run, "this run", ranks.rank == 0)?;
        let device = self.machine.compute.device(&ranks, None)?;
        let lost = opened.data.lost_paths();
        let group = fit::join(
            &ranks,
            &opened.data,
            &lost,
            opened.state.config.hash(),
            device,
        )?;

        let evaluated = opened
            .load(group, device)
            .and_then(|learner| self.evaluate(&opened, &learner, group));
        // Nothing follows the scores, unless another run is compared.
        fit::leave(group, &evaluated, |error| {
            self.against.is_none() && super::exit::is_closed_output(error)
        })?;
        evaluated.map(|()| 0)
    }

    /// Checks that no two output files are the same file.
    fn check_files(&self) -> Result<(), UsageError> {
        let files = [
            ("--predictions", &self.predictions),
            ("--embeddings", &self.embeddings),
            ("--map", &self.map),
        ];
        for (index, (flag, file)) in files.iter().enumerate() {
            for (other, same) in &files[index + 1..] {
                if let (Some(file), Some(same)) = (file, same)
                    && place(file) == place(same)
                {
                    let message =
                        format!("{flag} and {other} are the same file: use two different files");
                    return Err(UsageError(message));
                }
            }
        }
        Ok(())
    }

    fn evaluate(
        &self,
        run: &OpenedRun,
        learner: &Learner,
        group: &'static dyn Collective,
    ) -> Result<()> {
        let OpenedRun { data, state, .. } = run;
        let speaks = group.rank() == 0;
        let mut own = self.predict(run, learner, group, true)?;
        if !self.more.is_empty() {
            own = self.ensemble(run, &own, group, learner.device())?;
        }

        // Every rank has the predictions of all rows, so rank 0 computes and prints the scores without the others.
        if speaks {
            let leaks = match &run.known {
                Some(known) => known.clone(),
                None => evaluate::leaks(data, self.side),
            };
            let scores = evaluate::scores(&own, &leaks, state.config.seed)?;
            for warning in data.lacking(self.side) {
                warn(&warning);
            }
            if self.json {
                writeln!(stdout(), "{}", serde_json::to_string(&scores)?)?;
            } else {
                for evaluation in &scores {
                    writeln!(stdout(), "{}", shown_lines(&evaluation_table(evaluation)))?;
                }
            }
        }

        let Some(other) = &self.against else {
            return Ok(());
        };
        let opened = self.open_other(other, speaks)?;
        let other_learner = opened.load(group, learner.device())?;
        let theirs = self.predict(&opened, &other_learner, group, false)?;
        if speaks {
            let noun = Noun::of(data.store().manifest().recipe.catalog.dataset);
            for (own, theirs) in own.iter().zip(&theirs) {
                self.compare(own, theirs, state.config.seed, other, noun)?;
            }
        }
        Ok(())
    }

    /// Opens another run on the evaluated rows.
    fn open_other(&self, run: &Path, speaks: bool) -> Result<OpenedRun> {
        self.open(run, &format!("run {}", folder_name(run)), speaks)
    }

    /// Returns the mean predictions of all runs, given the first run and its predictions.
    ///
    /// # Errors
    /// [`UsageError`] if a run has other rows or targets than the first, before any of the others predicts.
    fn ensemble(
        &self,
        first: &OpenedRun,
        own: &[Predictions],
        group: &'static dyn Collective,
        device: Device,
    ) -> Result<Vec<Predictions>> {
        let mut opened = Vec::new();
        for run in &self.more {
            let other = self.open_other(run, group.rank() == 0)?;
            // With equal rows for training, the leaks of the first run are those of all.
            if let Some(what) = first.difference(&other) {
                bail!(UsageError(format!(
                    "{} and {} have different {what}: an ensemble needs runs with the same",
                    self.run.display(),
                    run.display()
                )));
            }
            opened.push(other);
        }

        let mut others: Vec<Vec<Predictions>> = vec![Vec::new(); own.len()];
        for run in &opened {
            let learner = run.load(group, device)?;
            let theirs = self.predict(run, &learner, group, false)?;
            for (all, target) in others.iter_mut().zip(theirs) {
                all.push(target);
            }
        }
        let targets = own.iter().zip(&others);
        let means = targets.map(|(own, others)| own.ensemble(others));
        Ok(means.collect::<Result<_, _>>()?)
    }

    fn compare(
        &self,
        own: &Predictions,
        theirs: &Predictions,
        seed: u64,
        other: &Path,
        noun: Noun,
    ) -> Result<()> {
        // Compare per track instead of per row, because two runs may divide clips into different segments.
        let compared = paired(&own.per_track_mean()?, &theirs.per_track_mean()?, seed)?;
        let Some(compared) = compared else {
            let one = noun.one();
            bail!("cannot compute intervals: a single artist or {one} cannot be resampled")
        };

        if self.json {
            writeln!(stdout(), "{}", serde_json::to_string(&compared)?)?;
        } else {
            let own = if self.ensemble {
                "ensemble".to_owned()
            } else {
                folder_name(&self.run)
            };
            let names = [own, folder_name(other)];
            let table = paired_table(&compared, [&names[0], &names[1]], noun);
            writeln!(stdout(), "{table}")?;
        }
        Ok(())
    }

    /// Opens a run's checkpoint and the rows to evaluate. `name` denotes the run in warnings, which are printed if
    /// `speaks` is true.
    fn open(&self, run: &Path, name: &str, speaks: bool) -> Result<OpenedRun> {
        let path = self.checkpoint.find(run)?;
        let state = checkpoint::read_state(&path)?;
        let folder = RunDir::open(run)?;

        let (store, version) = match (&self.store, input::recorded_store(&folder)) {
            // The recorded version number belongs to the recorded store and is not valid for the store in `--store`.
            (Some(store), _) => (store.to_path_buf(), self.version.clone()),
            (None, Some((store, version))) => {
                let recorded = VersionName::Number(version);
                (store, Some(self.version.clone().unwrap_or(recorded)))
            }
            (None, None) => bail!(
                "--store is required: {} does not record the location of its store (input.json is missing or damaged)",
                run.display()
            ),
        };

        let split = self.side;
        let data = self
            .machine
            .open_for(&store, version.as_ref(), &state, &path)?;
        run::require_rows(&data, split)?;

        // No comparison for the version that the run was trained on: its own training split shows the overlaps.
        let mut known = None;
        if data.store().manifest_hash() != state.manifest_hash {
            let found = run::known_split(&folder, name, &data, split);
            if speaks {
                let classes = data.unknown_classes(split);
                for warning in found.warning.iter().chain(&classes) {
                    warn(warning);
                }
            }
            known = Some(found.leaks);
        }
        Ok(OpenedRun {
            data,
            state,
            path,
            known,
        })
    }

    /// Predicts every row of the evaluated split. Writes the requested output files if `asked` is true.
    fn predict(
        &self,
        run: &OpenedRun,
        learner: &Learner,
        group: &'static dyn Collective,
        asked: bool,
    ) -> Result<Vec<Predictions>> {
        let OpenedRun {
            data, state, known, ..
        } = run;
        // The defaults read rows in the manifest's order without mix-up; the rows of the output files rely on both.
        let plan = LoaderPlan {
            split: self.side,
            batch_size: state.config.data.batch_size,
            rank: group.rank(),
            world_size: group.world_size(),
            readers: usize::from(self.machine.readers),
            prefetch_batches: usize::from(self.machine.prefetch_batches),
            ..LoaderPlan::default()
        };

        let settings = MapSettings {
            perplexity: f64::from(self.perplexity),
            seed: state.config.seed,
            threads: usize::try_from(tch::get_num_threads()).unwrap_or(1),
        };
        let paths = RowFilePaths {
            predictions: self.predictions.clone(),
            embeddings: self.embeddings.clone(),
            map: self.map.clone().map(|path| (path, settings)),
        };
        if !asked || paths.is_empty() {
            return Ok(evaluate::predict(learner, data, group, plan, None)?);
        }

        let name = folder_name(&self.run);
        let about = RowFileMetadata::new(
            name,
            state.step,
            &state.config.model.name,
            self.side,
            data,
            known.as_ref(),
        );
        let split = self.side;
        let mut files = RowFiles::create(&paths, &about, data, split, group.rank())?;
        let predictions = evaluate::predict(learner, data, group, plan, Some(&mut files))?;

        if self.map.is_some() && group.rank() == 0 {
            self.report_map(data.rows_of(split).len());
        }
        let mut progress = MapProgress::new(STEPS)?;
        files.finish(data, &mut |step| progress.update(step))?;
        Ok(predictions)
    }

    /// Prints notes if the map of `rows` rows shows fewer rows, or uses a lower perplexity, than requested.
    fn report_map(&self, rows: usize) {
        let on_map = rows.min(ROWS_MAX);
        if on_map < rows {
            report(&format!(
                "the map shows a random sample of {on_map} of {rows} rows\n"
            ));
        }

        let perplexity = map::perplexity_for(on_map, f64::from(self.perplexity));
        if rows < ROWS_MIN {
            report(&format!(
                "{rows} rows are too few for a map: their positions are meaningless\n"
            ));
        } else if perplexity < f64::from(self.perplexity) {
            report(&format!(
                "perplexity {perplexity:.1} instead of {}, because the map has only {on_map} rows\n",
                self.perplexity
            ));
        }
    }
}

impl OpenedRun {
    /// Returns the first thing in which the runs differ, of those that make their predictions comparable row by row.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        let split = |run: &Self| run.data.split_name().to_owned();
        if self.state.manifest_hash != other.state.manifest_hash {
            Some("versions of the store in training")
        } else if split(self) != split(other) {
            Some("splits (data.split)")
        } else if self.state.classes != other.state.classes {
            Some("targets or classes")
        } else {
            None
        }
    }

    /// Creates the model and loads its weights from the checkpoint.
    fn load(&self, group: &'static dyn Collective, device: Device) -> Result<Learner> {
        let mut learner = Learner::new(&self.state.config, &self.data, group, device)?;
        learner.load_model(&checkpoint::read_tensors(&self.path)?, &self.path)?;
        learner.set_temperatures(self.state.temperatures.clone());
        Ok(learner)
    }
}

/// Returns the path of an output file with its folder in canonical form, to detect two spellings of one path.
fn place(file: &Path) -> PathBuf {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    match (folder.canonicalize(), file.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        // The folder cannot be resolved; the error is reported when the file is written.
        _ => file.to_owned(),
    }
}

fn folder_name(run: &Path) -> String {
    run.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
