//! Scores of the runs beside each other, with intervals, and what the split leaks.

use wavemill_pages::{Cell, Part, Section, Table};
use wavemill_scores::metrics::{Evaluation, Level, Report};

use super::RunRecord;
use super::words;

/// A figure as a row of a table: its name, and its value for a run.
type Figure = (&'static str, fn(&Level) -> Cell);

/// Of targets with one class a row.
const SINGLE: [Figure; 8] = [
    ("accuracy", |level| of_single(level, "accuracy")),
    ("balanced accuracy", |level| {
        of_single(level, "balanced_accuracy")
    }),
    ("macro F1", |level| of_single(level, "macro_f1")),
    ("macro precision", |level| {
        of_single(level, "macro_precision")
    }),
    ("macro recall", |level| of_single(level, "macro_recall")),
    ("weighted F1", |level| of_single(level, "weighted_f1")),
    ("top 3", |level| of_single(level, "top_3")),
    ("log loss", |level| number(level.log_loss)),
];

/// Of targets with several labels a row.
const MULTI: [Figure; 7] = [
    ("macro ROC-AUC", |level| of_multi(level, "roc_auc_macro")),
    ("micro ROC-AUC", |level| of_multi(level, "roc_auc_micro")),
    ("macro average precision", |level| {
        of_multi(level, "average_precision_macro")
    }),
    ("micro average precision", |level| {
        of_multi(level, "average_precision_micro")
    }),
    ("macro F1", |level| of_multi(level, "f1_macro")),
    ("micro F1", |level| of_multi(level, "f1_micro")),
    ("exact match", |level| of_multi(level, "exact_match")),
];

pub(super) fn section(runs: &[RunRecord], targets: &[String]) -> Section {
    let mut section = Section::new("Scores");
    for target in targets {
        let scored: Vec<(&RunRecord, &Evaluation)> = runs
            .iter()
            .filter_map(|run| Some((run, run.evaluation(target)?)))
            .collect();
        add_target(&mut section, &scored);
    }
    section
}

/// The scores of the runs that have any of one target.
fn add_target(section: &mut Section, scored: &[(&RunRecord, &Evaluation)]) {
    let Some((_, first)) = scored.first() else {
        return;
    };

    for (run, evaluation) in scored {
        let words = format!(
            "{}: {} on {}. {}",
            run.name,
            evaluation.target,
            evaluation.leaks.split,
            evaluation.leaks.sentence()
        );
        section.parts.push(Part::Text(words));
    }
    if scored.iter().any(|(_, of)| of.class_set != first.class_set) {
        section.parts.push(Part::Warning(format!(
            "{}: the runs have different classes, so their scores say different things.",
            first.target
        )));
    }

    let tracks: Vec<(&RunRecord, &Level)> = scored
        .iter()
        .map(|(run, evaluation)| (*run, evaluation.tracks()))
        .collect();
    let caption = format!("{}, track by track", first.target);
    section.parts.push(Part::Table(table(&caption, &tracks)));
    if let Some(bootstrap) = tracks.iter().find_map(|(_, of)| of.bootstrap.as_ref()) {
        let words = words::draws(&bootstrap.draws);
        section.parts.push(Part::Text(words));
    }

    // Where each track is one row, the rows have the same scores.
    let segments: Vec<(&RunRecord, &Level)> = scored
        .iter()
        .filter(|(_, evaluation)| evaluation.tracks_mean.is_some())
        .map(|(run, evaluation)| (*run, &evaluation.segments))
        .collect();
    if !segments.is_empty() {
        let caption = format!("{}, segment by segment", first.target);
        let table = table(&caption, &segments);
        section.parts.push(Part::Details(caption, table));
    }
}

/// Figures down, runs across.
fn table(caption: &str, levels: &[(&RunRecord, &Level)]) -> Table {
    let is_multi = levels
        .iter()
        .any(|(_, level)| matches!(level.report, Report::Multi(_)));
    let figures: &[Figure] = if is_multi { &MULTI } else { &SINGLE };

    let mut table = Table::new(caption, &["figure"]);
    table
        .head
        .extend(levels.iter().map(|(run, _)| run.name.clone()));
    for (name, value) in figures {
        let mut cells = vec![Cell::from(*name)];
        cells.extend(levels.iter().map(|(_, level)| value(level)));
        table.rows.push(cells);
    }
    table
        .rows
        .push(counts("tracks", levels, |report| match report {
            Report::Single(report) => report.tracks,
            Report::Multi(report) => report.tracks,
        }));
    table
        .rows
        .push(counts("rows", levels, |report| match report {
            Report::Single(report) => report.rows,
            Report::Multi(report) => report.rows,
        }));
    table
}

fn counts(
    name: &str,
    levels: &[(&RunRecord, &Level)],
    count: impl Fn(&Report) -> u64,
) -> Vec<Cell> {
    let mut cells = vec![Cell::from(name)];
    for (_, level) in levels {
        cells.push(count(&level.report).into());
    }
    cells
}

fn of_single(level: &Level, name: &str) -> Cell {
    let Report::Single(report) = &level.report else {
        return Cell::None;
    };
    let value = match name {
        "accuracy" => Some(report.accuracy),
        "balanced_accuracy" => Some(report.balanced_accuracy),
        "macro_f1" => Some(report.macro_mean.f1),
        "macro_precision" => Some(report.macro_mean.precision),
        "macro_recall" => Some(report.macro_mean.recall),
        "weighted_f1" => Some(report.weighted_mean.f1),
        "top_3" => report.top_3,
        _ => None,
    };
    with_interval(level, name, value)
}

fn of_multi(level: &Level, name: &str) -> Cell {
    let Report::Multi(report) = &level.report else {
        return Cell::None;
    };
    let value = match name {
        "roc_auc_macro" => report.roc_auc_macro,
        "roc_auc_micro" => report.roc_auc_micro,
        "average_precision_macro" => report.average_precision_macro,
        "average_precision_micro" => report.average_precision_micro,
        "f1_macro" => Some(report.f1_macro),
        "f1_micro" => Some(report.f1_micro),
        "exact_match" => Some(report.exact_match),
        _ => None,
    };
    with_interval(level, name, value)
}

fn with_interval(level: &Level, name: &str, value: Option<f64>) -> Cell {
    match value {
        None => Cell::None,
        Some(value) => words::figure(value, level.bootstrap.as_ref(), name),
    }
}

fn number(value: Option<f64>) -> Cell {
    value.map_or(Cell::None, words::score)
}
