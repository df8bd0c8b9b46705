//! `wavemill-train eval`: a run's checkpoint on a split, by itself or beside another run's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use tch::Device;
use wavemill_schemas::text::{shown, shown_lines};
use wavemill_schemas::version_name::VersionName;
use wavemill_scores::map::{self, MapSettings, ROWS_MAX, ROWS_MIN, STEPS};
use wavemill_scores::metrics::{Leaks, Predictions, paired, paired_table};
use wavemill_scores::records::RunDir;

use super::exit::{self, UsageError};
use super::output::report;
use super::progress::MapProgress;
use super::role::{Role, role};
use super::{MachineArgs, fit, input, interrupt};
use crate::checkpoint::{self, Checkpoints, State};
use crate::dataset::{Dataset, LoaderPlan, Side};
use crate::evaluate::{self, RowFileMetadata, RowFilePaths, RowFiles};
use crate::learner::Learner;
use crate::run;
use crate::strategy::Collective;

const EXAMPLES: &str = "\
Examples:
  wavemill-train eval runs/cnn2d-1f2e3d4c-1                         # best checkpoint on the test split
  wavemill-train eval runs/cnn2d-1f2e3d4c-1 --side validation --json
  wavemill-train eval runs/cnn2d-1f2e3d4c-1 --version 4             # tells what of it the run trained on
  wavemill-train eval runs/crnn-5a6b7c8d-1 --against runs/cnn2d-1f2e3d4c-1
  wavemill-train eval runs/crnn-5a6b7c8d-1 --predictions test.parquet --embeddings vectors.parquet
  wavemill-train eval runs/crnn-5a6b7c8d-1 --map map.parquet        # a place in the plane for each row

--predictions has a row for each row that was evaluated: clip_key, segment, variant, offset_s,
track_id, artist_id, split, and for each target T: T_true_id, T_true, T_predicted_id, T_predicted,
T_probabilities and T_logits (lists in class order; classes are in the metadata). --embeddings has
the vector that the heads see instead, in the column embedding. --map has the place of that vector
on a t-SNE map, in the columns x and y, beside true and predicted classes.

`fit` has asked the test split once already (result.json). Choose between models by --side validation; a test split
that is asked again and again becomes a second validation split.";

/// Score a run's checkpoint on a split
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EvalCommand {
    /// The folder that `fit` wrote
    run: PathBuf,
    /// The store [default: the one that it was trained on]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Its version, by number or tag [default: the latest; of a recorded store, the one that was trained on]
    #[arg(long, value_name = "VERSION")]
    version: Option<VersionName>,
    /// Which rows
    #[arg(long, value_enum, default_value = "test")]
    side: SideArg,
    /// The best on validation, or the last one
    #[arg(long, value_enum, default_value = "best")]
    checkpoint: CheckpointArg,
    /// Another run, whose predictions of the same tracks are compared with this one's (paired bootstrap)
    #[arg(long, value_name = "RUN")]
    against: Option<PathBuf>,
    /// Write what was predicted for each row (Parquet)
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// Write the vector of each row that the heads see (Parquet)
    #[arg(long, value_name = "FILE")]
    embeddings: Option<PathBuf>,
    /// Write where each row lies on a t-SNE map of these vectors (Parquet); of more than 10,000 rows, some drawn by chance
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// Neighbours that a row of the map has, about; lowered where there are too few rows
    #[arg(long, value_name = "N", default_value_t = 30, requires = "map", value_parser = clap::value_parser!(u16).range(2..=1000))]
    perplexity: u16,
    /// Start N processes on this machine, each a rank
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    nproc: Option<u16>,
    /// The scores as JSON on stdout
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: MachineArgs,
}

/// A side of the split.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SideArg {
    Training,
    Validation,
    Test,
}

impl SideArg {
    const fn side(self) -> Side {
        match self {
            Self::Training => Side::Training,
            Self::Validation => Side::Validation,
            Self::Test => Side::Test,
        }
    }
}

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckpointArg {
    /// The best on validation.
    Best,
    /// The last.
    Last,
}

impl CheckpointArg {
    /// Its folder.
    ///
    /// # Errors
    /// Not a run, or none there yet.
    pub(crate) fn find(self, run: &Path) -> Result<PathBuf> {
        let checkpoints = Checkpoints::open(RunDir::open(run)?.checkpoints(), 1)?;
        let checkpoint = match self {
            Self::Best => checkpoints.best()?,
            Self::Last => checkpoints.last()?,
        };
        Ok(checkpoint)
    }
}

/// A run's checkpoint, and the rows that it is asked about.
struct OpenedRun {
    data: Arc<Dataset>,
    state: State,
    /// Of the checkpoint.
    path: PathBuf,
    /// What the run knows of the side, where the rows are of another version than it was trained on.
    known: Option<Leaks>,
}

/// The same, with the model ready to answer.
struct LoadedRun {
    data: Arc<Dataset>,
    state: State,
    known: Option<Leaks>,
    learner: Learner,
}

impl EvalCommand {
    /// Evaluates and prints.
    ///
    /// # Errors
    /// Not a run, another store, no labelled row.
    pub(crate) fn run(&self) -> Result<u8> {
        self.check_files()?;

        interrupt::end_with_starter()?;
        let ranks = match role(self.nproc)? {
            Role::Rank(ranks) => ranks,
            Role::Launcher(code) => return Ok(code),
        };

        let opened = self.open(&self.run, "this run", ranks.rank == 0)?;
        let device = self.machine.device(&ranks, None)?;
        let lost = opened.data.lost_paths();
        let group = fit::join(&ranks, &opened.data, &lost, &opened.state.config, device)?;

        let evaluated = load(opened, group, device).and_then(|own| self.evaluate(&own, group));
        // Other ranks wait for this one: they are told how it ended.
        match &evaluated {
            Ok(()) => group.finish()?,
            Err(error) => group.fail(&exit::words(error)),
        }
        evaluated.map(|()| 0)
    }

    /// Two files of one name would be one of them.
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
                    let words = format!("{flag} and {other} are one file: name two");
                    return Err(UsageError(words));
                }
            }
        }
        Ok(())
    }

    fn evaluate(&self, run: &LoadedRun, group: &'static dyn Collective) -> Result<()> {
        let LoadedRun { data, state, .. } = run;
        let own = self.predict(run, group, true)?;

        // All ranks have all predictions: one of them speaks.
        let speaks = group.rank() == 0;
        if speaks {
            let leaks = match &run.known {
                Some(known) => known.clone(),
                None => evaluate::leaks(data, self.side.side()),
            };
            let scores = evaluate::scores(&own, &leaks, state.config.seed)?;
            for warning in data.lacking(self.side.side()) {
                eprintln!("warning: {warning}");
            }
            if self.json {
                println!("{}", serde_json::to_string(&scores)?);
            } else {
                for evaluation in &scores {
                    println!("{}", shown_lines(&evaluation.to_string()));
                }
            }
        }

        let Some(other) = &self.against else {
            return Ok(());
        };
        let name = format!("run {}", folder_name(other));
        let opened = self.open(other, &name, speaks)?;
        let other_run = load(opened, group, run.learner.device())?;
        let theirs = self.predict(&other_run, group, false)?;
        if speaks {
            for (own, theirs) in own.iter().zip(&theirs) {
                self.compare(own, theirs, state.config.seed, other)?;
            }
        }
        Ok(())
    }

    fn compare(
        &self,
        own: &Predictions,
        theirs: &Predictions,
        seed: u64,
        other: &Path,
    ) -> Result<()> {
        // By tracks, since two runs may cut clips into other segments.
        let compared = paired(&own.per_track_mean()?, &theirs.per_track_mean()?, seed)?;
        let Some(compared) = compared else {
            bail!("a single artist or track: nothing to draw from")
        };

        if self.json {
            println!("{}", serde_json::to_string(&compared)?);
        } else {
            let names = [folder_name(&self.run), folder_name(other)];
            println!("{}", paired_table(&compared, [&names[0], &names[1]]));
        }
        Ok(())
    }

    /// A run's checkpoint and the rows that it is asked about; `name`: a word for the run. If this process speaks, it
    /// says what the run knows of them.
    fn open(&self, run: &Path, name: &str, speaks: bool) -> Result<OpenedRun> {
        let path = self.checkpoint.find(run)?;
        let state = checkpoint::read_state(&path)?;
        let folder = RunDir::open(run)?;

        let (store, version) = match (&self.store, input::of(&folder)) {
            // A store that is named has versions of its own: the recorded number would be another state there.
            (Some(store), _) => (store.clone(), self.version.clone()),
            (None, Some((store, version))) => {
                let recorded = VersionName::Number(version);
                (store, Some(self.version.clone().unwrap_or(recorded)))
            }
            (None, None) => bail!("--store: {} does not say where its store is", run.display()),
        };

        let side = self.side.side();
        let data = self
            .machine
            .open_for(&store, version.as_ref(), &state, &path)?;
        run::require_rows(&data, side)?;

        // On its own version the sides say what the run knows, and classes are its own.
        let mut known = None;
        if data.store().manifest_hash() != state.manifest_hash {
            let found = run::known_side(&folder, name, &data, side);
            if speaks {
                let classes = data.unknown_classes(side);
                for warning in found.warning.iter().chain(&classes) {
                    eprintln!("warning: {}", shown(warning));
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

    /// What a checkpoint says of every row of the side; `asked`: the files that were asked for are written.
    fn predict(
        &self,
        run: &LoadedRun,
        group: &'static dyn Collective,
        asked: bool,
    ) -> Result<Vec<Predictions>> {
        let LoadedRun {
            data,
            state,
            known,
            learner,
        } = run;
        // The defaults are the manifest's order and no mixing, which the rows of the files rely on.
        let plan = LoaderPlan {
            side: self.side.side(),
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
            return Ok(evaluate::predict(learner, data, group, plan)?);
        }

        let name = folder_name(&self.run);
        let about = RowFileMetadata::new(
            name,
            state.step,
            &state.config.model.name,
            self.side.side(),
            data,
            known.as_ref(),
        );
        let side = self.side.side();
        let mut files = RowFiles::create(&paths, &about, data, side, group.rank())?;
        let predictions = evaluate::predict_into(learner, data, group, plan, Some(&mut files))?;

        if self.map.is_some() && group.rank() == 0 {
            self.report_map(data.rows_of(side).len());
        }
        let mut progress = MapProgress::new(STEPS)?;
        files.finish(data, &mut |step| progress.told(step))?;
        Ok(predictions)
    }

    /// What of the map of `rows` rows is not as it was asked for.
    fn report_map(&self, rows: usize) {
        let on_map = rows.min(ROWS_MAX);
        if on_map < rows {
            report(&format!(
                "the map has {on_map} of {rows} rows, drawn by chance"
            ));
        }

        let perplexity = map::perplexity_for(on_map, f64::from(self.perplexity));
        if rows < ROWS_MIN {
            report(&format!(
                "{rows} rows are too few for a map: their places on it say nothing"
            ));
        } else if perplexity < f64::from(self.perplexity) {
            report(&format!(
                "perplexity {perplexity:.1} instead of {}, since the map has {on_map} rows",
                self.perplexity
            ));
        }
    }
}

/// The model with the weights of its checkpoint.
fn load(opened: OpenedRun, group: &'static dyn Collective, device: Device) -> Result<LoadedRun> {
    let OpenedRun {
        data,
        state,
        path,
        known,
    } = opened;
    let learner = Learner::new(&state.config, &data, group, device)?;
    learner.load_model(&checkpoint::read_tensors(&path)?, &path)?;
    Ok(LoadedRun {
        data,
        state,
        known,
        learner,
    })
}

/// Where a file will be, however its folder is spelt.
fn place(file: &Path) -> PathBuf {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    match (folder.canonicalize(), file.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        // That it cannot be written is told where it is written.
        _ => file.to_owned(),
    }
}

fn folder_name(run: &Path) -> String {
    run.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
