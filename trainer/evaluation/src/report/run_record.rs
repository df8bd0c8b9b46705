//! Reads those contents of a run's folder that a report shows.

use std::path::{Path, PathBuf};

use wavemill_loader::Store;
use wavemill_schemas::run::{Evaluation, Noun, RunDir, RunResult};
use wavemill_schemas::split::Split;
use wavemill_schemas::version_name::VersionName;
use wavemill_scores::metrics::Predictions;
use wavemill_scores::records::{Entry, read_log};

use super::rows::{MapRows, PredictionRows, RowsMetadata};
use crate::{Evaluated, EvaluationError};

/// Name of the file in a run's folder in which a report expects the output of `eval --predictions`.
const PREDICTIONS: &str = "predictions.parquet";
/// Name of the file in a run's folder in which a report expects the output of `eval --map`.
pub(super) const MAP: &str = "map.parquet";

/// The store that a run was trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunStore {
    /// Path of the store's folder, which may no longer exist.
    pub root: PathBuf,
    /// Version number of the store.
    pub version: u64,
}

/// The data of a training run that a page shows.
#[derive(Clone, Debug)]
pub struct RunRecord {
    /// Name of the run on the page.
    pub name: String,
    /// Path of the run's folder as given by the user.
    pub path: PathBuf,
    /// Configuration of the run.
    pub(super) config: toml::Table,
    /// Entries of the run's log; empty if there is no log.
    pub(super) log: Vec<Entry>,
    /// Result of the run; `None` until the run is complete.
    pub(super) result: Option<RunResult>,
    /// Scores of a model that was trained elsewhere; empty for a run, whose result contains its scores.
    pub(super) scores: Vec<Evaluation>,
    /// Predictions for each row, if `predictions.parquet` exists.
    pub predictions: Option<PredictionRows>,
    /// Positions of the rows' vectors on a map, if `map.parquet` exists.
    pub map: Option<MapRows>,
    /// The store that the run was trained on, if its location is recorded.
    pub(super) store: Option<RunStore>,
}

impl RunRecord {
    /// Reads the configuration, log, result and files of `eval` in the run's folder `path`.
    ///
    /// # Errors
    /// [`EvaluationError`] if the folder contains no run, or if a file in it is damaged.
    pub fn read(path: &Path, store: Option<RunStore>) -> Result<Self, EvaluationError> {
        let folder = RunDir::open(path)?;
        let text = folder.read_config()?;
        let config = toml::from_str(&text).map_err(|error| {
            let remedy = "restore it from a copy of the run";
            super::damaged(&folder.config(), error.message(), remedy)
        })?;

        // A run that was killed at its start may have no log.
        let log = if folder.log().try_exists().unwrap_or(true) {
            read_log(&folder.log())?
        } else {
            Vec::new()
        };
        Ok(Self {
            name: name_of(path),
            path: path.to_owned(),
            config,
            log,
            result: folder.read_result()?,
            scores: Vec::new(),
            predictions: PredictionRows::read(&path.join(PREDICTIONS))?,
            map: MapRows::read(&path.join(MAP))?,
            store,
        })
    }

    /// Creates the record of a model that was trained elsewhere: it has predictions and scores, but no configuration
    /// and no log.
    pub(super) fn from_evaluated(evaluated: &Evaluated) -> Self {
        let seed = i64::try_from(evaluated.seed).unwrap_or(i64::MAX);
        let about = RowsMetadata::new(evaluated.split, &evaluated.manifest_hash);
        Self {
            name: evaluated.name.clone(),
            path: PathBuf::new(),
            config: toml::Table::from_iter([("seed".to_owned(), seed.into())]),
            log: Vec::new(),
            result: None,
            scores: vec![evaluated.evaluation.clone()],
            predictions: Some(PredictionRows {
                about,
                targets: vec![evaluated.predictions.clone()],
            }),
            map: None,
            store: Some(RunStore {
                root: evaluated.store.clone(),
                version: evaluated.version,
            }),
        }
    }

    /// Opens the version of the run's store whose manifest has the hash `manifest`, or returns why it cannot be read.
    pub(super) fn open_store(&self, manifest: &str) -> Result<Store, &'static str> {
        let store = self.store.as_ref();
        let store = store.ok_or("the run does not record the location of its store")?;
        let version = VersionName::Number(store.version);
        let opened = Store::open(&store.root, Some(&version))
            .map_err(|_| "the store that the run was trained on cannot be read")?;
        let is_same = opened.manifest_hash() == manifest;
        is_same.then_some(opened).ok_or(
            "the predictions are for another version of the store than the run was trained on",
        )
    }

    /// Returns the run's scores for all targets: on test, or on validation if the run was not evaluated on test, as in
    /// a sweep.
    pub(super) fn evaluations(&self) -> &[Evaluation] {
        match &self.result {
            None => &self.scores,
            Some(result) if result.test.is_empty() => &result.validation,
            Some(result) => &result.test,
        }
    }

    /// Returns the run's scores for one target.
    pub(super) fn evaluation(&self, target: &str) -> Option<&Evaluation> {
        let mut all = self.evaluations().iter();
        all.find(|evaluation| evaluation.target == target)
    }

    /// Returns the word for a clip of the data set.
    pub(super) fn noun(&self) -> Noun {
        let first = self.evaluations().first();
        first.map_or(Noun::default(), |evaluation| evaluation.leaks.noun)
    }

    /// Returns the predictions of all rows for one target.
    pub(super) fn predictions_of(&self, target: &str) -> Option<&Predictions> {
        let rows = self.predictions.as_ref()?;
        rows.targets.iter().find(|of| of.target() == target)
    }

    /// Returns the split that the predictions belong to.
    pub fn predicted_split(&self) -> Split {
        let rows = self.predictions.as_ref();
        rows.map_or(Split::Test, |rows| rows.about.side)
    }

    /// Returns the run's seed, with which confidence intervals are drawn, as in `fit` and `eval`.
    pub fn seed(&self) -> u64 {
        let seed = self.config.get("seed").and_then(toml::Value::as_integer);
        seed.and_then(|seed| u64::try_from(seed).ok()).unwrap_or(0)
    }

    /// Returns the log entries written at the end of each epoch, in order.
    pub(super) fn epochs(&self) -> impl Iterator<Item = &Entry> {
        self.log.iter().filter(|entry| entry.kind == "epoch")
    }

    /// Returns the name and metadata of each existing file written by `eval`.
    pub(super) fn files_of_eval(&self) -> Vec<(&'static str, &RowsMetadata)> {
        let predictions = self.predictions.as_ref();
        let map = self.map.as_ref();
        let mut files = Vec::new();
        files.extend(predictions.map(|rows| (PREDICTIONS, &rows.about)));
        files.extend(map.map(|rows| (MAP, &rows.about)));
        files
    }

    /// Returns the training step of the weights that the result was computed with, if the log contains it.
    pub(super) fn scored_step(&self) -> Option<u64> {
        let best = self.result.as_ref()?.best_epoch?;
        let mut epochs = self.epochs();
        epochs
            .find(|entry| entry.epoch == best)
            .map(|entry| entry.step)
    }

    /// Returns a sentence about the missing predictions of the run, if it has none.
    pub(super) fn lacks_predictions(&self) -> Option<String> {
        let is_missing = self.predictions.is_none();
        is_missing.then(|| self.lacks("--predictions", PREDICTIONS))
    }

    /// Returns the caption of something that shows scores of the run.
    pub(super) fn caption_of(&self, evaluation: &Evaluation) -> String {
        let split = evaluation.leaks.split;
        format!("{}, {} on {split}", self.name, evaluation.target)
    }

    /// Returns the caption of something that is computed from the run's predictions for `target`.
    pub(super) fn caption(&self, target: &str) -> String {
        format!("{}, {target} on {}", self.name, self.predicted_split())
    }

    /// Returns a sentence that names a missing file and the command that writes it.
    pub(super) fn lacks(&self, flag: &str, file: &str) -> String {
        let folder = self.path.display();
        format!(
            "{}: {file} not found. Create it with `wavemill train eval {folder} {flag} {}`.",
            self.name,
            self.path.join(file).display()
        )
    }
}

/// Returns the name of the folder at `path`, even if `path` is `.`.
pub(super) fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = whole.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
