//! The trials of a sweep: the configuration values in which they differ, and their scores on validation.
//!
//! A sweep writes only a folder of runs, so this module reads each run in that folder.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wavemill_pages::{Cell, Fact, Section, Table, count};
use wavemill_schemas::config::{Metric, Train};
use wavemill_schemas::run::{RunDir, RunFilesError};
use wavemill_scores::sweep::values_of;

use super::configuration::{Values, differing_keys, values};
use super::run_record::name_of;
use super::{RunRecord, words};
use crate::EvaluationError;

/// Maximum number of trials whose learning curves are shown. More lines are hard to distinguish.
const CURVES_MAX: usize = 8;

/// The runs in a folder, sorted from best to worst.
#[derive(Clone, Debug)]
pub struct SweepRecord {
    /// Name of the folder, shown on the page.
    pub name: String,
    /// The settings of the first trial, by whose `train.select` the trials are compared on validation.
    train: Train,
    trials: Vec<Trial>,
    /// The best trials, whose learning curves are shown.
    pub(super) best: Vec<RunRecord>,
}

/// A trial's values that are compared with those of other trials.
#[derive(Clone, Debug)]
struct Trial {
    name: String,
    path: PathBuf,
    config: Values,
    /// Best score on validation. `None` if no epoch has ended, or if the run chose its best epoch by another metric.
    score: Option<f64>,
    epochs: u64,
    end: End,
}

/// The end of a trial, as far as its run tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The run has no result: it was stopped or killed, or is still running.
    None,
    /// The run ended before its last epoch, by median stopping or by `train.early_stop`.
    Early,
    Complete,
}

impl SweepRecord {
    /// Reads the runs in the folder `path`. Returns `None` if the folder contains no runs.
    ///
    /// # Errors
    /// [`EvaluationError`] if a file of a run is damaged.
    pub fn read(path: &Path) -> Result<Option<Self>, EvaluationError> {
        let mut folders = Vec::new();
        // A folder that cannot be listed is treated as a folder without runs.
        for entry in fs::read_dir(path).into_iter().flatten() {
            let entry = entry.map_err(super::cannot_read(path))?;
            if !entry.path().is_dir() {
                continue;
            }
            match RunDir::open(&entry.path()) {
                Ok(_) => folders.push(entry.path()),
                Err(RunFilesError::Missing { .. }) => {}
                // A folder of somebody else, such as `lost+found`.
                Err(RunFilesError::Io { source, .. })
                    if source.kind() == ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Sort the runs by name, because the order of a directory listing is unspecified.
        folders.sort();
        let Some(first) = folders.first() else {
            return Ok(None);
        };

        let train = train_of(&RunRecord::read(first, None)?);
        let mut trials = Vec::new();
        for folder in &folders {
            trials.push(Trial::read(folder, &train)?);
        }
        drop_repeated(&mut trials);
        // The sort is stable: trials with equal scores stay in the order of their names.
        trials.sort_by(|a, b| a.compare(b, train.select));

        let mut best = Vec::new();
        for trial in trials.iter().take(CURVES_MAX) {
            best.push(RunRecord::read(&trial.path, None)?);
        }
        Ok(Some(Self {
            name: name_of(path),
            train,
            trials,
            best,
        }))
    }

    /// Returns the names of the runs, from best to worst.
    pub fn names(&self) -> Vec<&str> {
        self.trials
            .iter()
            .map(|trial| trial.name.as_str())
            .collect()
    }

    /// Returns the figures shown at the top of the page.
    pub(super) fn facts(&self) -> Vec<Fact> {
        let ended = self.trials.iter().filter(|trial| trial.end != End::None);
        let mut facts = vec![Fact::new(
            "trials",
            count(self.trials.len() as u64),
            format!("{} ended", count(ended.count() as u64)),
        )];

        // Trials without a score come last.
        let scores: Vec<f64> = self.trials.iter().map_while(|trial| trial.score).collect();
        let Some(best) = scores.first() else {
            return facts;
        };

        let (word, value, note) = if self.is_repeated() {
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            ("mean", mean, format!("of {} runs", scores.len()))
        } else {
            ("best", *best, self.trials[0].name.clone())
        };
        let name = format!("{word} {} on validation", self.score_words());
        facts.push(Fact::new(name, format!("{value:.3}"), note));
        facts
    }

    /// True if the runs are repetitions of one configuration, of which none is the best.
    pub(super) fn is_repeated(&self) -> bool {
        let keys = self.keys();
        !keys.is_empty()
            && keys
                .iter()
                .all(|key| ["seed", "data.split"].contains(&key.as_str()))
    }

    /// Returns the trials' scores as JSON, to be embedded in the page.
    pub(super) fn about(&self) -> Value {
        let mut trials = Vec::new();
        for trial in &self.trials {
            trials.push(json!({
                "run": trial.name,
                "best": trial.score,
                "epochs": trial.epochs,
                "has_ended": trial.end != End::None,
                "ended_early": trial.end == End::Early,
            }));
        }
        json!({ "page": "sweep", "select": self.train.selected(), "trials": trials })
    }

    /// Returns the words for the score by which the trials are compared.
    fn score_words(&self) -> String {
        self.train.selected().replace('_', " ").replace("f1", "F1")
    }

    /// Returns the configuration keys in which the trials differ.
    fn keys(&self) -> BTreeSet<&String> {
        let configs: Vec<_> = self.trials.iter().map(|trial| &trial.config).collect();
        differing_keys(&configs)
    }
}

impl Trial {
    fn read(path: &Path, train: &Train) -> Result<Self, EvaluationError> {
        let run = RunRecord::read(path, None)?;
        // A run that was killed at its start may have no log.
        let is_comparable = train_of(&run).selected() == train.selected() && !run.log.is_empty();
        let scores = if is_comparable {
            values_of(path, &train.selected())?
        } else {
            Vec::new()
        };

        let epochs = run.epochs().count() as u64;
        let config = values(&run.config);
        let planned = config
            .get("train.epochs")
            .and_then(|epochs| epochs.parse().ok());
        let is_early = planned.is_some_and(|planned: u64| epochs < planned);

        Ok(Self {
            end: match run.result {
                None => End::None,
                // A number of steps may end a run within an epoch.
                Some(_) if is_early && !config.contains_key("train.steps") => End::Early,
                Some(_) => End::Complete,
            },
            epochs,
            config,
            score: train.select.best(&scores),
            name: run.name,
            path: run.path,
        })
    }

    /// Orders trials from best to worst score, followed by trials without a score.
    fn compare(&self, other: &Self, metric: Metric) -> Ordering {
        match (self.score, other.score) {
            (Some(a), Some(b)) if metric.is_better(a, b) => Ordering::Less,
            (Some(a), Some(b)) if metric.is_better(b, a) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            _ => Ordering::Equal,
        }
    }
}

/// Drops runs that a later run of the same configuration replaced: a sweep that was killed and repeated starts the
/// trial again that was running. Completed trials stay, also if a sweep contains a configuration more than once.
fn drop_repeated(trials: &mut Vec<Trial>) {
    let mut kept: Vec<Trial> = Vec::with_capacity(trials.len());
    for trial in trials.drain(..) {
        let same = kept.iter_mut().find(|other| other.config == trial.config);
        match same {
            Some(other) if other.end == End::None => *other = trial,
            Some(_) if trial.end == End::None => {}
            _ => kept.push(trial),
        }
    }
    *trials = kept;
}

/// Returns the settings by which a run chose its best epoch, from its section `train`; the other settings are defaults.
fn train_of(run: &RunRecord) -> Train {
    let mut selection = toml::Table::new();
    for key in ["select", "select_target"] {
        let value = run.config.get("train").and_then(|train| train.get(key));
        selection.extend(value.map(|value| (key.to_owned(), value.clone())));
    }
    selection.try_into().unwrap_or_default()
}

pub(super) fn section(sweep: &SweepRecord) -> Section {
    let mut section = Section::new("Trials");
    let keys = sweep.keys();
    let advice = if sweep.is_repeated() {
        "The runs differ only in seed or split: take the mean of their scores, as `fit --folds` and `--seeds` do, and \
         none of them as the best."
    } else {
        "The best of many scores is biased upwards: evaluate the chosen trial once on the test split."
    };
    section.add_text(format!(
        "Each run in the folder is a trial. Its score is best {} on validation over all epochs. {advice}",
        sweep.score_words()
    ));
    let without = sweep.trials.iter().filter(|trial| trial.score.is_none());
    let n_without = without.count() as u64;
    if n_without > 0 {
        section.add_warning(format!(
            "{} of {} trials have no score: they completed no epoch, the score is undefined for them, or they selected \
             their best epoch by a metric other than {} (train.select).",
            count(n_without),
            count(sweep.trials.len() as u64),
            sweep.score_words()
        ));
    }

    if keys.is_empty() {
        section.add_text("The configurations of the trials are identical.");
    }
    section.add_table(table(sweep, &keys));
    section
}

fn table(sweep: &SweepRecord, keys: &BTreeSet<&String>) -> Table {
    let mut table = Table::new("Trials, best first", &["trial", &sweep.score_words()]);
    table.head.extend(keys.iter().map(|&key| key.clone()));
    table.head.extend(["epochs".to_owned(), "ended".to_owned()]);

    for trial in &sweep.trials {
        let mut cells = vec![
            Cell::from(trial.name.as_str()),
            trial.score.map_or(Cell::None, words::score),
        ];
        for key in keys {
            cells.push(trial.config.get(*key).cloned().into());
        }
        cells.push(trial.epochs.into());
        let end = match trial.end {
            End::None => "no",
            End::Early => "early",
            End::Complete => "yes",
        };
        cells.push(end.into());
        table.rows.push(cells);
    }
    table
}
