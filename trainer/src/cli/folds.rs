//! `fit --folds K` and `--seeds N`: runs of one configuration that differ in fold or seed, and their mean scores.
//!
//! Each run is a process of `fit --resume-or-start`, so a repeated command continues where the last one ended. No run is
//! the best one: the result is over all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use wavemill_schemas::config::Config;
use wavemill_schemas::text::shown_lines;
use wavemill_scores::cross::{CrossResult, EndedRun};
use wavemill_scores::records::run_stem;
use wavemill_scores::result::RunResult;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::output::report;

use super::fit::FitCommand;
use super::jobs::{self, JobPlan, Judge, Outcome};
use super::run_folder;
use super::sweep::SweepInterrupted;
use crate::dataset::Dataset;
use crate::part_file::PartFile;
use crate::run;
use crate::strategy::Ranks;

/// A run before its training begins.
struct PlannedRun {
    fold: Option<usize>,
    seed: u64,
    config: Config,
}

impl PlannedRun {
    fn name(&self) -> String {
        match self.fold {
            Some(fold) => format!("fold {fold}, seed {}", self.seed),
            None => format!("seed {}", self.seed),
        }
    }
}

/// Lets every run train until its own end.
struct NoJudge;

impl Judge for NoJudge {
    fn asked(&mut self, _run: usize, _values: Vec<f64>) {}
    fn ended(&mut self, _run: usize, _outcome: &Outcome) {}
    fn goes_on(&self, _run: usize) -> Option<bool> {
        Some(true)
    }
}

impl FitCommand {
    /// Trains all folds and seeds, and prints the summary of their test scores.
    ///
    /// # Errors
    /// An error of the configuration or the store, before the first run; the error of a run; [`SweepInterrupted`].
    pub(super) fn run_all(&self) -> Result<u8> {
        self.check_many()?;
        let Some(store) = &self.store else {
            return Err(UsageError("--store is required".to_owned()).into());
        };

        let base = self.config()?.config;
        let planned = self.planned(&base)?;

        // Open the store here, so that all runs read one version, and errors are reported before the first run.
        let first = &planned[0].config;
        let data = self.machine.open(store, self.version.as_ref(), first)?;
        run::check(first, &data, 1)?;
        let table = self
            .folds
            .map(|folds| folds_table(&data, folds))
            .transpose()?;
        let version = data.store().version();
        drop(data);

        std::fs::create_dir_all(&self.runs)
            .with_context(|| format!("cannot create {}", self.runs.display()))?;
        if let (Some(folds), Some(table)) = (self.folds, table) {
            let path = self.runs.join(format!("folds-{folds}.parquet"));
            write(&path, &table)?;
            report(&format!("folds: {}\n", path.display()));
        }

        let runs = self.results(planned, version)?;
        let result = CrossResult::new(self.folds, &runs);
        let json = serde_json::to_string(&result)?;
        let stem = run_stem(&base.model.name, &base.hash());
        let parts = self
            .folds
            .map_or(String::new(), |folds| format!("{folds}-folds-"));
        let path = self.runs.join(format!(
            "{stem}-{parts}{}-seeds.json",
            self.seeds.unwrap_or(1)
        ));
        write(&path, json.as_bytes())?;

        if self.json {
            println!("{json}");
        } else {
            print!("{}", shown_lines(&result.to_string()));
        }
        report(&format!("result: {}\n", path.display()));
        Ok(0)
    }

    /// Refuses options that cannot be combined with several runs.
    fn check_many(&self) -> Result<()> {
        let sets_split =
            self.folds.is_some() && self.sets.iter().any(|set| set.starts_with("data.split"));
        let other = if Ranks::from_env()?.is_some() || self.nproc.is_some_and(|nproc| nproc > 1) {
            "ranks: --jobs trains several runs at once on this machine"
        } else if matches!(self.resume_or_start, Some(Some(_))) {
            "the folder of one run: without --resume-or-start, the same command continues where it ended"
        } else if sets_split {
            "--set data.split: folds are the split"
        } else {
            return Ok(());
        };
        Err(UsageError(format!(
            "--folds and --seeds train several runs and cannot be combined with {other}"
        ))
        .into())
    }

    /// Returns the runs in the order of seeds, then of folds.
    fn planned(&self, base: &Config) -> Result<Vec<PlannedRun>> {
        let folds: Vec<Option<usize>> = match self.folds {
            Some(folds) => (1..=folds).map(Some).collect(),
            None => vec![None],
        };
        let mut planned = Vec::new();
        for number in 0..self.seeds.unwrap_or(1) {
            for &fold in &folds {
                let mut config = base.clone();
                config.seed = base
                    .seed
                    .checked_add(number)
                    .context("the last seed would be above 2^64 - 1: use a lower --seed")?;
                if let (Some(fold), Some(folds)) = (fold, self.folds) {
                    config.data.split = Some(fold_rule(fold, folds));
                }
                planned.push(PlannedRun {
                    fold,
                    seed: config.seed,
                    config,
                });
            }
        }
        Ok(planned)
    }

    /// Trains the runs, up to `--jobs` at once, and returns their results.
    fn results(&self, planned: Vec<PlannedRun>, version: u64) -> Result<Vec<EndedRun>> {
        let machine = self.machine.shared_by(usize::from(self.jobs))?;
        let keys: Vec<String> = planned.iter().map(|run| run.config.hash()).collect();
        let program = std::env::current_exe()?;
        let plan = JobPlan {
            jobs: usize::from(self.jobs),
            keys: &keys,
            command: &|number, slot| {
                let mut command = Command::new(&program);
                // The last of repeated options applies, so a run's own options follow those of this command.
                command.args(std::env::args_os().skip(1));
                let run = &planned[number];
                if let Some(fold) = run.fold {
                    command.args(["--fold", &fold.to_string()]);
                }
                command.args(["--seeds", "1", "--seed", &run.seed.to_string()]);
                command.args(["--set", &format!("seed={}", run.seed)]);
                command.args([
                    "--version",
                    &version.to_string(),
                    "--resume-or-start",
                    "--json",
                ]);
                machine.add_args(&mut command, slot);
                command
            },
        };

        let mut results = Vec::new();
        let stopped = jobs::run(&plan, &mut NoJudge, |number, outcome| {
            let run = &planned[number];
            let line = match outcome {
                Outcome::Line(line) => line,
                Outcome::Killed(signal) => bail!(
                    "the run of {} was killed by signal {signal}: run the same command to continue",
                    run.name()
                ),
            };
            let result: RunResult = serde_json::from_str(&line).with_context(|| {
                format!(
                    "the run of {} printed something other than its result",
                    run.name()
                )
            })?;
            let folder = run_folder::folder_of(&self.runs, &run.config);
            report(&format!("{}: {}\n", run.name(), folder.display()));
            results.push(EndedRun {
                fold: run.fold,
                seed: run.seed,
                run: folder.display().to_string(),
                result,
            });
            Ok(())
        })?;
        match stopped {
            Some(trial) => bail!(SweepInterrupted {
                trial,
                runs: self.runs.clone()
            }),
            None => Ok(results),
        }
    }
}

/// Returns the split rule whose test side is `fold` of `folds`.
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
        let words = format!(
            "--folds {n_folds}: the store has too few artists, so only {n_filled} folds have rows: use fewer folds"
        );
        return Err(UsageError(words).into());
    }

    let of_rows = rows.clip_keys.iter().zip(&rows.track_ids).zip(of_rows);
    let clips: BTreeMap<&str, (i64, usize)> = of_rows
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
