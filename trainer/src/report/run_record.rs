//! What a run's folder says, as far as a page shows it.

use std::path::{Path, PathBuf};

use wavemill_scores::metrics::{Evaluation, Predictions};
use wavemill_scores::records::{Entry, RunDir, read_log};
use wavemill_scores::result::RunResult;

use super::ReportError;
use super::rows::{MapRows, PredictionRows, RowsMetadata};

/// What `eval --predictions` writes for a page.
pub(super) const PREDICTIONS: &str = "predictions.parquet";
/// What `eval --map` writes for a page.
pub(super) const MAP: &str = "map.parquet";

/// Where a run's rows came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunStore {
    /// The store's folder, which may be gone by now.
    pub root: PathBuf,
    /// The version that it was trained on.
    pub version: u64,
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct RunRecord {
    /// What the page calls it.
    pub name: String,
    /// Its folder, as it was given.
    pub path: PathBuf,
    /// As it was run.
    pub config: toml::Table,
    /// Its log; empty where it has none.
    pub log: Vec<Entry>,
    /// Its scores; none while it is not complete.
    pub result: Option<RunResult>,
    /// What it said of each row, where that was written.
    pub predictions: Option<PredictionRows>,
    /// Where its vectors lie, where that was written.
    pub map: Option<MapRows>,
    /// Where its rows came from, if it says so.
    pub store: Option<RunStore>,
}

impl RunRecord {
    /// The run in the folder `path`.
    ///
    /// # Errors
    /// [`ReportError`]: no run there, or a file of it is damaged.
    pub(crate) fn read(path: &Path, store: Option<RunStore>) -> Result<Self, ReportError> {
        let folder = RunDir::open(path)?;
        let text = folder.read_config()?;
        let config = toml::from_str(&text).map_err(|error| ReportError::Config {
            path: folder.config(),
            problem: error.message().to_owned(),
        })?;

        // A run that was killed at its start has none yet.
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
            predictions: PredictionRows::read(&path.join(PREDICTIONS))?,
            map: MapRows::read(&path.join(MAP))?,
            store,
        })
    }

    /// The scores that count: on test, or on validation where test was not asked, as by a trial of a sweep.
    pub(super) fn evaluations(&self) -> &[Evaluation] {
        match &self.result {
            None => &[],
            Some(result) if result.test.is_empty() => &result.validation,
            Some(result) => &result.test,
        }
    }

    /// Of one target.
    pub(super) fn evaluation(&self, target: &str) -> Option<&Evaluation> {
        let mut all = self.evaluations().iter();
        all.find(|evaluation| evaluation.target == target)
    }

    /// What it said of each row for one target.
    pub(super) fn predictions_of(&self, target: &str) -> Option<&Predictions> {
        let rows = self.predictions.as_ref()?;
        rows.targets.iter().find(|of| of.target() == target)
    }

    /// The side of the split that its predictions are about.
    pub(super) fn predicted_side(&self) -> &str {
        let rows = self.predictions.as_ref();
        rows.map_or("test", |rows| rows.about.side.as_str())
    }

    /// Of the draws of intervals; that of the run, as `fit` and `eval` use it.
    pub(super) fn seed(&self) -> u64 {
        let seed = self.config.get("seed").and_then(toml::Value::as_integer);
        seed.and_then(|seed| u64::try_from(seed).ok()).unwrap_or(0)
    }

    /// The ends of its epochs, in order.
    pub(super) fn epochs(&self) -> impl Iterator<Item = &Entry> {
        self.log.iter().filter(|entry| entry.kind == "epoch")
    }

    /// What its files of `eval` say of themselves, by name.
    pub(super) fn files_of_eval(&self) -> Vec<(&'static str, &RowsMetadata)> {
        let predictions = self.predictions.as_ref();
        let map = self.map.as_ref();
        let mut files = Vec::new();
        files.extend(predictions.map(|rows| (PREDICTIONS, &rows.about)));
        files.extend(map.map(|rows| (MAP, &rows.about)));
        files
    }

    /// The step whose weights the result is about, if the log has it.
    pub(super) fn scored_step(&self) -> Option<u64> {
        let best = self.result.as_ref()?.best_epoch?;
        let mut epochs = self.epochs();
        epochs
            .find(|entry| entry.epoch == best)
            .map(|entry| entry.step)
    }

    /// What writes a file that the page lacks, in words.
    pub(super) fn lacks(&self, flag: &str, file: &str) -> String {
        let folder = self.path.display();
        format!(
            "{}: there is no {file}. `wavemill-train eval {folder} {flag} {}` writes it.",
            self.name,
            self.path.join(file).display()
        )
    }
}

/// The name of a folder, also of one that is given as `.`.
pub(super) fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = whole.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
