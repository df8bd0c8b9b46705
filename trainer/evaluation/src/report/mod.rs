//! Builds an HTML page about training runs: learning curves, scores, the confusion matrix and wrong predictions.
//!
//! [`page`] builds the page of runs with one function per section, [`sweep_page`] that of a folder of runs, and
//! [`evaluation_page`] that of predictions of models that were trained elsewhere.
//! The data comes from the runs' folders: configuration, log, result, and the files written by `eval`
//! (`predictions.parquet`, `map.parquet`) if they exist. A section whose file is missing names the command that writes
//! it. Titles come from the store. This module writes no files, trains no model and needs no GPU.

mod calibration;
mod classes;
mod comparison;
mod configuration;
mod confusion;
mod curves;
mod gallery;
mod map;
mod mistakes;
mod overview;
mod predictions;
mod rows;
mod run_record;
mod scores;
mod titles;
mod trials;
mod words;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::io;
use std::path::Path;

use serde_json::json;
use wavemill_pages::{Fact, Page, count};
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::run::{Report, RunResult};

use crate::Evaluated;

pub use self::rows::{
    METADATA_KEY, MapMetadata, MapRows, MapTarget, PredictionRows, ROWS_FORMAT, RowsMetadata,
};
pub use self::run_record::{RunRecord, RunStore};
pub use self::trials::SweepRecord;

/// Maximum number of runs whose accuracy is shown at the top of the page.
const FACTS_MAX: usize = 4;

/// Builds the page about `runs`, which must not be empty. The first run is compared with each of the others.
pub fn page(runs: &[RunRecord]) -> Page {
    let targets = targets(runs);
    let sections = vec![
        overview::section(runs),
        curves::section(runs),
        scores::section(runs, &targets),
        comparison::section(runs, &targets),
        confusion::section(runs, &targets),
        classes::section(runs, &targets),
        calibration::section(runs, &targets),
        map::section(runs),
        mistakes::section(runs, &targets),
        configuration::section(runs),
    ];

    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    Page {
        facts: facts(runs),
        about: json!({
            "page": "training",
            "runs": names,
            "results": runs.iter().map(embedded_result).collect::<Vec<_>>(),
        }),
        ..Page::new(names.join(", "), lead(runs), sections)
    }
}

/// Builds the page about the trials of a sweep.
pub fn sweep_page(sweep: &SweepRecord) -> Page {
    let sections = vec![
        trials::section(sweep),
        curves::section(&sweep.best),
        configuration::section(&sweep.best),
    ];

    let lead = if sweep.is_repeated() {
        "Runs of one configuration with several folds or seeds.".to_owned()
    } else {
        format!(
            "Trials of a wavemill sweep. Learning curves and configurations are shown for the best {}.",
            sweep.best.len()
        )
    };
    Page {
        facts: sweep.facts(),
        about: sweep.about(),
        ..Page::new(&sweep.name, lead, sections)
    }
}

/// Builds the page about predictions of models that were trained elsewhere; `evaluations` must not be empty. The first
/// predictions are compared with each of the others for the same target.
pub fn evaluation_page(evaluations: &[&Evaluated]) -> Page {
    let mut runs = Vec::new();
    for evaluated in evaluations {
        runs.push(RunRecord::from_evaluated(evaluated));
    }
    let targets = targets(&runs);
    let mut sections = vec![
        predictions::section(evaluations),
        scores::section(&runs, &targets),
        confusion::section(&runs, &targets),
        classes::section(&runs, &targets),
        calibration::section(&runs, &targets),
        mistakes::section(&runs, &targets),
    ];
    let first = &evaluations[0].evaluation.target;
    if runs[1..].iter().any(|run| run.evaluation(first).is_some()) {
        sections.insert(2, comparison::section(&runs, &targets));
    }

    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let results = evaluations.iter().map(|of| of.evaluation.clone()).collect();
    let lead = "Scores of predictions for the rows of a wavemill store.";
    Page {
        facts: facts(&runs),
        about: json!({
            "page": "evaluation",
            "predictions": names,
            "results": confusion::without_large_matrices(results),
        }),
        ..Page::new(names.join(", "), lead, sections)
    }
}

/// Returns a run's result for programs that read the page.
fn embedded_result(run: &RunRecord) -> Option<RunResult> {
    let mut result = run.result.clone()?;
    result.validation = confusion::without_large_matrices(result.validation);
    result.test = confusion::without_large_matrices(result.test);
    Some(result)
}

/// Returns the names of all targets for which any run has scores or predictions, in order of appearance.
fn targets(runs: &[RunRecord]) -> Vec<String> {
    let mut targets: Vec<String> = Vec::new();
    for run in runs {
        let scored = run.evaluations().iter().map(|of| of.target.as_str());
        let predictions = run.predictions.iter().flat_map(|rows| &rows.targets);
        let predicted = predictions.map(|of| of.target());
        for name in scored.chain(predicted) {
            if !targets.iter().any(|known| known == name) {
                targets.push(name.to_owned());
            }
        }
    }
    targets
}

fn lead(runs: &[RunRecord]) -> String {
    let [run] = runs else {
        return format!(
            "Comparison of {} wavemill training runs. The first one is the baseline.",
            runs.len()
        );
    };
    match &run.result {
        None => "A wavemill training run that has not completed.".to_owned(),
        Some(result) => format!(
            "A wavemill training run: model {}, feature {}.",
            result.model, result.feature
        ),
    }
}

/// Returns the figures shown at the top of the page.
fn facts(runs: &[RunRecord]) -> Vec<Fact> {
    let mut facts = Vec::new();
    for run in runs.iter().take(FACTS_MAX) {
        facts.extend(accuracy_of(run, runs.len() > 1));
    }
    let [run] = runs else {
        return facts;
    };
    let Some(result) = &run.result else {
        return facts;
    };

    let best_epoch = result.best_epoch;
    let weights = best_epoch.map(|epoch| format!("weights of epoch {}", epoch + 1));
    facts.extend([
        Fact::new("epochs", count(result.epochs), weights.unwrap_or_default()),
        Fact::new("parameters", count(result.parameters), &result.model),
        Fact::new(
            "training rows",
            count(result.training_rows),
            &result.feature,
        ),
    ]);
    facts
}

/// Returns the run's accuracy on its first target, or macro F1 if rows have several labels for that target.
fn accuracy_of(run: &RunRecord, is_named: bool) -> Option<Fact> {
    let evaluation = run.evaluations().first()?;
    let level = evaluation.tracks();

    let (name, figure, value) = match &level.report {
        Report::Single(report) => ("accuracy", "accuracy", report.accuracy),
        Report::Multi(report) => ("macro F1", "f1_macro", report.f1_macro),
    };
    let name = format!(
        "{name}, {} on {}",
        evaluation.target, evaluation.leaks.split
    );
    let name = if is_named {
        format!("{}: {name}", run.name)
    } else {
        name
    };

    // The confidence interval is shown next to the score, because it is wide with few tracks.
    let intervals = level.bootstrap.as_ref().map(|draws| &draws.intervals);
    let interval = intervals.and_then(|intervals| intervals.get(figure));
    let interval = interval.filter(|interval| interval.low < interval.high);
    let note = interval.map_or(String::new(), |interval| {
        format!("95 % CI: {:.3} to {:.3}", interval.low, interval.high)
    });

    Some(Fact::new(name, format!("{value:.3}"), note))
}

/// Returns a function for `map_err` that adds the path of a file of a run to an error of the operating system.
fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> PlainError {
    let message = format!("cannot read {}", path.display());
    move |error| PlainError::failed(message).caused_by(error)
}

/// Creates the error for a file of a run whose contents are damaged.
fn damaged(path: &Path, problem: impl Display, remedy: &str) -> PlainError {
    let path = path.display();
    PlainError::new(
        Kind::Damaged,
        format!("{path} is damaged ({problem}): {remedy}"),
    )
}
