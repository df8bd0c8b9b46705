//! Table of a report's runs, and the warnings of these runs.

use wavemill_pages::{Cell, Section, Table, seconds};
use wavemill_schemas::run::RunResult;

use super::RunRecord;

/// Kind of the log entries that contain warnings.
const WARNING: &str = "warning";

pub(super) fn section(runs: &[RunRecord]) -> Section {
    let mut section = Section::new(if runs.len() == 1 { "Run" } else { "Runs" });
    section.add_table(Table::of(
        "",
        runs,
        &[
            ("run", &|run| run.name.as_str().into()),
            ("model", &|run| model_of(run).into()),
            ("parameters", &|run| in_result(run, |of| of.parameters)),
            ("initial weights", &|run| {
                in_result(run, |of| of.start.clone())
            }),
            ("feature", &|run| in_result(run, |of| of.feature.clone())),
            ("device", &|run| device_of(run).into()),
            ("epochs", &|run| {
                let logged = run.epochs().last().map(|entry| entry.epoch + 1);
                run.result.as_ref().map(|of| of.epochs).or(logged).into()
            }),
            ("steps", &|run| {
                let logged = run.epochs().last().map(|entry| entry.step);
                run.result.as_ref().map(|of| of.steps).or(logged).into()
            }),
            // Epochs on the page begin at 1.
            ("best epoch", &|run| {
                in_result(run, |of| of.best_epoch.map(|epoch| epoch + 1))
            }),
            ("time", &|run| Cell::Measure(seconds(time_s(run)))),
        ],
    ));

    for run in runs {
        if run.result.is_none() {
            section.add_warning(format!(
                "{}: result.json not found, because the run has not completed. Resume it with `wavemill train fit \
                 --resume {}`.",
                run.name,
                run.path.display()
            ));
        }
        for text in warnings(run).into_iter().chain(other_weights(run)) {
            section.add_warning(format!("{}: {text}", run.name));
        }
    }
    section
}

/// Returns warnings about files written by `eval` for other weights or another store version than the result. The run
/// may have continued after `eval`.
fn other_weights(run: &RunRecord) -> Vec<String> {
    let mut texts = Vec::new();
    for (file, about) in run.files_of_eval() {
        if let Some(step) = run.scored_step().filter(|step| *step != about.step) {
            texts.push(format!(
                "{file} was computed from the checkpoint of step {}, but the scores of the result from that of step \
                 {step}. To use the same weights for both, create it again with `wavemill train eval`.",
                about.step
            ));
        }

        let result = run.result.as_ref();
        if result.is_some_and(|result| result.manifest_hash != about.manifest) {
            texts.push(format!(
                "{file} was computed on another version of the store than the run was trained on, so its rows differ \
                 from those of the scores of the result."
            ));
        }
    }
    texts
}

fn in_result<T: Into<Cell>>(run: &RunRecord, value: impl Fn(&RunResult) -> T) -> Cell {
    run.result.as_ref().map(value).into()
}

fn model_of(run: &RunRecord) -> Option<String> {
    let model = run.config.get("model")?.get("name")?;
    model.as_str().map(str::to_owned)
}

/// Returns the device and the number of ranks of the run's last start.
fn device_of(run: &RunRecord) -> Option<String> {
    let mut starts = run.log.iter().rev();
    let start = starts.find(|entry| entry.kind == "start")?;
    let device = start.notes.get("device")?;
    match start.notes.get("world_size").map(String::as_str) {
        None | Some("1") => Some(device.clone()),
        Some(ranks) => Some(format!("{device}, {ranks} ranks")),
    }
}

/// Returns the total run time, without the pauses between two processes of the run.
fn time_s(run: &RunRecord) -> f64 {
    let mut time_s = 0.0;
    for lines in run.log.windows(2) {
        if lines[1].kind != "start" && lines[1].kind != "resumed" {
            time_s += (lines[1].unix_s - lines[0].unix_s).max(0.0);
        }
    }
    time_s
}

/// Returns the distinct warnings in the run's result, or in its log if there is no result yet.
fn warnings(run: &RunRecord) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let found: Vec<&String> = match &run.result {
        Some(result) => result.warnings.iter().collect(),
        None => {
            let lines = run.log.iter().filter(|entry| entry.kind == WARNING);
            lines.filter_map(|entry| entry.notes.get("text")).collect()
        }
    };
    for text in found {
        if !texts.contains(text) {
            texts.push(text.clone());
        }
    }
    texts
}
