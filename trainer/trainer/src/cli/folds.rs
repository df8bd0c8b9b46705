//! `fit --folds K` and `--seeds N`: runs of one configuration that differ in fold or seed, and their mean scores.
//!
//! Each run is a process of `fit --resume-or-start`, so a repeated command continues where the last one ended. No run
//! is the best one: the result is over all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use wavemill_schemas::config::Config;
use wavemill_schemas::run::{RunDir, RunResult, run_stem};
use wavemill_schemas::text::shown_lines;
use wavemill_schemas::version_name::VersionName;
use wavemill_scores::cross::{CrossResult, CrossRun};
use wavemill_scores::sweep::MedianRule;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::output::{report, stdout};

use super::fit::FitCommand;
use super::jobs::Outcome;
use super::run_list::{self, PlannedRun, RunList};
use super::{input, interrupt, run_folder};
use crate::dataset::Dataset;
use crate::part_file::PartFile;
use crate::run;
use crate::strategy::Ranks;

/// Returns the run with this fold and seed.
fn planned_run(mut config: Config, fold: Option<usize>, seed: u64) -> PlannedRun {
    config.seed = seed;
    let mut name = format!("seed {seed}");
    let mut set = vec![format!("seed={seed}")];
    if let (Some(fold), Some(split)) = (fold, &config.data.split) {
        name = format!("fold {fold}, {name}");
        set.push(format!("data.split={split}"));
    }
    PlannedRun {
        name,
        set,
        fold,
        config,
    }
}

impl FitCommand {
    /// Trains all folds and seeds, and prints the summary of their test scores.
    ///
    /// # Errors
    /// An error of the configuration or the store, before the first run; at the end, an error if a run was killed;
    /// [`TrainError::FatalTrial`](crate::TrainError::FatalTrial) if a run failed, after the others have written a
    /// checkpoint; and the error of [`run_list::interrupted`].
    pub(super) fn run_all(&self) -> Result<u8> {
        self.check_options()?;
        let Some(store) = &self.store else {
            return Err(UsageError("--store is required".to_owned()).into());
        };
        let base = self.config(None)?.config;
        let planned = self.planned(&base)?;

        // Open the store here, so that all runs read one version, and errors are reported before the first run.
        let version = self.version_of(store, &planned);
        let first = &planned[0].config;
        let data = self.machine.open(store, version.as_ref(), first)?;
        run::check(first, &data, 1)?;
        let table = self
            .folds
            .map(|folds| folds_table(&data, folds))
            .transpose()?;
        let version = data.store().version();
        drop(data);

        std::fs::create_dir_all(&self.runs)
            .with_context(|| format!("cannot create {}", self.runs.display()))?;
        let list = RunList {
            planned: &planned,
            base: &base,
            store,
            version: Some(VersionName::Number(version)),
            runs: &self.runs,
            machine: &self.machine,
            jobs: usize::from(self.jobs).min(planned.len()),
        };
        let runs = self.train(&list)?;

        // Write the folds after the runs: these have checked that the store is the one of earlier runs in the folder.
        if let (Some(folds), Some(table)) = (self.folds, table) {
            let path = self.runs.join(format!("folds-{folds}.parquet"));
            write(&path, &table)?;
            report(&format!("folds: {}\n", path.display()));
        }
        // Runs of one fold only differ in their seeds.
        let folds = self.folds.filter(|_| self.fold.is_none());
        self.show(&CrossResult::new(folds, runs), &base)?;
        Ok(0)
    }

    /// Writes the result to the folder of runs, and prints it.
    fn show(&self, result: &CrossResult, base: &Config) -> Result<()> {
        let json = serde_json::to_string(result)?;
        let stem = run_stem(&base.model.name, &base.hash());
        let folds = match (self.fold, self.folds) {
            (Some(fold), Some(folds)) => format!("{}-", fold_rule(fold, folds)),
            (None, Some(folds)) => format!("{folds}-folds-"),
            _ => String::new(),
        };
        let seeds = self.seeds.unwrap_or(1);
        let path = self.runs.join(format!("{stem}-{folds}{seeds}-seeds.json"));
        write(&path, json.as_bytes())?;

        if self.json {
            writeln!(stdout(), "{json}")?;
        } else {
            write!(stdout(), "{}", shown_lines(&result.to_string()))?;
        }
        report(&format!("result: {}\n", path.display()));
        Ok(())
    }

    /// Refuses options that are for a single run.
    fn check_options(&self) -> Result<()> {
        let other = if Ranks::from_env()?.is_some() || self.nproc.is_some_and(|nproc| nproc > 1) {
            "ranks: --jobs trains several runs at once on this machine"
        } else if matches!(self.resume_or_start, Some(Some(_))) {
            "the folder of one run: without --resume-or-start, the same command continues where it ended"
        } else if self.profile.is_some() {
            "--profile, which measures a single run"
        } else {
            return Ok(());
        };
        bail!(UsageError(format!(
            "--folds and --seeds train several runs and cannot be combined with {other}"
        )))
    }

    /// Returns the runs in the order of seeds, then of folds.
    ///
    /// # Errors
    /// [`UsageError`] if the last seed is too high, or if damaged files would change the folds.
    fn planned(&self, base: &Config) -> Result<Vec<PlannedRun>> {
        if self.folds.is_some() && base.data.skip_damaged {
            let message = "--folds and --skip-damaged: the folds would depend on the damaged files";
            return Err(UsageError(message.to_owned()).into());
        }
        let folds: Vec<Option<usize>> = match (self.fold, self.folds) {
            (None, Some(folds)) => (1..=folds).map(Some).collect(),
            (fold, _) => vec![fold],
        };

        let mut planned = Vec::new();
        for number in 0..self.seeds.unwrap_or(1) {
            // A configuration in TOML has no higher numbers.
            let seed = base.seed.saturating_add(number);
            if i64::try_from(seed).is_err() {
                let message = format!(
                    "the last seed would be above 2^63 - 1: use less than --seed {}",
                    base.seed
                );
                return Err(UsageError(message).into());
            }
            for &fold in &folds {
                planned.push(planned_run(self.config(fold)?.config, fold, seed));
            }
        }
        Ok(planned)
    }

    /// Returns the version of the store that all runs read: that of runs which an earlier command began, if there are
    /// any.
    fn version_of(&self, store: &Path, planned: &[PlannedRun]) -> Option<VersionName> {
        let recorded = planned.iter().find_map(|run| {
            let folder = RunDir::open(&run_folder::folder_of(&self.runs, &run.config)).ok()?;
            input::recorded_store(&folder)
        });
        run_folder::version_in(store, recorded.as_ref(), self.version.as_ref())
    }

    /// Trains the runs, up to `--jobs` at once, and returns their results.
    ///
    /// # Errors
    /// Those of [`Self::run_all`] after the beginning of the first run.
    fn train(&self, list: &RunList<'_>) -> Result<Vec<(CrossRun, RunResult)>> {
        let add_args = |index: usize, command: &mut Command| {
            for set in &list.planned[index].set {
                command.args(["--set", set]);
            }
            command.arg("--resume-or-start");
            // The standard input of a run is a pipe that closes when this process ends, however it ends.
            command.env(interrupt::END_WITH_STDIN, "1");
        };

        let mut ended = Vec::new();
        let mut failed = Vec::new();
        // No run is judged by the others.
        list.train(
            "fit",
            &add_args,
            &mut None::<MedianRule>,
            |index, outcome| {
                let run = &list.planned[index];
                match outcome {
                    Outcome::Line(line) => ended.push(self.ended_run(run, &line)?),
                    Outcome::Killed(signal) => {
                        failed.push(format!("{} was killed by signal {signal}", run.name));
                    }
                }
                Ok(())
            },
        )?;
        if !failed.is_empty() {
            bail!("{}: run the same command to continue", failed.join("; "));
        }
        Ok(ended)
    }

    /// Converts the output of a run's process.
    ///
    /// # Errors
    /// The output is not the result of this run.
    fn ended_run(&self, run: &PlannedRun, line: &str) -> Result<(CrossRun, RunResult)> {
        let result: RunResult = run_list::parsed(run, line)?;
        if result.config_hash != run.config.hash() {
            bail!("{} was trained with another configuration", run.name);
        }

        let folder = run_folder::folder_of(&self.runs, &run.config);
        report(&format!("{}: {}\n", run.name, folder.display()));
        let tracks = result.test.iter().map(|target| target.tracks());
        let ended = CrossRun {
            fold: run.fold,
            seed: run.config.seed,
            run: folder.display().to_string(),
            scores: tracks.map(|level| level.scores()).collect(),
        };
        Ok((ended, result))
    }
}

/// Returns the split rule whose test split is `fold` of `folds`.
pub(super) fn fold_rule(fold: usize, folds: usize) -> String {
    format!("fold-{fold}-of-{folds}")
}

/// Returns a Parquet file with the fold of each clip, for SQL and Python.
///
/// # Errors
/// A fold has no rows.
fn folds_table(data: &Dataset, n_folds: usize) -> Result<Vec<u8>> {
    let rows = data.rows();
    let of_rows = data.folds(n_folds);
    let n_filled = of_rows.iter().collect::<BTreeSet<_>>().len();
    if n_filled < n_folds {
        let message = format!(
            "--folds {n_folds}: the store has too few artists, so only {n_filled} folds have rows: use fewer folds"
        );
        return Err(UsageError(message).into());
    }

    let places = rows.clip_keys.iter().zip(&rows.track_ids).zip(of_rows);
    let clips: BTreeMap<&str, (i64, usize)> = places
        .map(|((clip, &track), fold)| (&**clip, (track, fold)))
        .collect();

    let tracks = clips.values().map(|(track, _)| *track);
    let folds = clips.values().map(|(_, fold)| *fold as i32);
    let columns: [(&str, ArrayRef); 3] = [
        (
            "clip_key",
            Arc::new(StringArray::from_iter_values(clips.keys())),
        ),
        ("track_id", Arc::new(Int64Array::from_iter_values(tracks))),
        ("fold", Arc::new(Int32Array::from_iter_values(folds))),
    ];
    let table = RecordBatch::try_from_iter(columns)?;
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), None)?;
    writer.write(&table)?;
    writer.close()?;
    Ok(bytes)
}

/// Writes a complete file, or none.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = PartFile::beside(path, ".folds-").and_then(|mut part| {
        part.write_all(bytes)?;
        part.finish(path)
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}
