//! Table of the runs' scores, with confidence intervals and with overlaps between training and scored tracks.

use wavemill_pages::{Cell, Section, Table};
use wavemill_schemas::config::Metric;
use wavemill_schemas::run::{Evaluation, Level, Noun, Report};

use super::RunRecord;
use super::words;

/// Scores of targets with one class per row: name on the page, metric, and name of the interval.
const SINGLE: [(&str, Metric, &str); 8] = [
    ("accuracy", Metric::Accuracy, "accuracy"),
    (
        "balanced accuracy",
        Metric::BalancedAccuracy,
        "balanced_accuracy",
    ),
    ("macro F1", Metric::MacroF1, "macro_f1"),
    ("macro precision", Metric::MacroPrecision, ""),
    ("macro recall", Metric::MacroRecall, ""),
    ("weighted F1", Metric::WeightedF1, ""),
    ("top 3", Metric::Top3, ""),
    ("log loss", Metric::LogLoss, ""),
];

/// Scores of targets with several labels per row: name on the page, metric, and name of the interval.
const MULTI: [(&str, Metric, &str); 7] = [
    ("macro ROC-AUC", Metric::RocAucMacro, "roc_auc_macro"),
    ("micro ROC-AUC", Metric::RocAucMicro, ""),
    ("macro average precision", Metric::AveragePrecisionMacro, ""),
    ("micro average precision", Metric::AveragePrecisionMicro, ""),
    ("macro F1", Metric::MacroF1, "f1_macro"),
    ("micro F1", Metric::MicroF1, "f1_micro"),
    ("exact match", Metric::Accuracy, "exact_match"),
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

/// Adds the scores for one target of all runs that have any.
fn add_target(section: &mut Section, scored: &[(&RunRecord, &Evaluation)]) {
    let Some((_, first)) = scored.first() else {
        return;
    };

    for (run, evaluation) in scored {
        section.add_text(format!(
            "{}: {} on {}. {}",
            run.name,
            evaluation.target,
            evaluation.leaks.split,
            evaluation.leaks.sentence()
        ));
    }
    if scored.iter().any(|(_, of)| of.class_set != first.class_set) {
        section.add_warning(format!(
            "{}: the runs have different classes, so their scores are not comparable.",
            first.target
        ));
    }

    let tracks: Vec<(&RunRecord, &Level)> = scored
        .iter()
        .map(|(run, evaluation)| (*run, evaluation.tracks()))
        .collect();
    let noun = first.leaks.noun;
    let caption = format!("{}, per {}", first.target, noun.one());
    section.add_table(table(&caption, &tracks, noun));
    match tracks.iter().find_map(|(_, of)| of.bootstrap.as_ref()) {
        Some(bootstrap) => section.add_text(words::draws(&bootstrap.draws, noun)),
        None => section.add_text(
            noun.in_text("There are no intervals: a single artist or track cannot be resampled."),
        ),
    }

    // If each track has a single row, the scores per segment equal those per track and are omitted.
    let segments: Vec<(&RunRecord, &Level)> = scored
        .iter()
        .filter(|(_, evaluation)| evaluation.tracks_mean.is_some())
        .map(|(run, evaluation)| (*run, &evaluation.segments))
        .collect();
    if !segments.is_empty() {
        let caption = format!("{}, per segment", first.target);
        let table = table(&caption, &segments, noun);
        section.add_details(caption, table);
    }
}

/// Builds a table with one row per kind of score and one column per run.
fn table(caption: &str, levels: &[(&RunRecord, &Level)], noun: Noun) -> Table {
    let is_multi = levels
        .iter()
        .any(|(_, level)| matches!(level.report, Report::Multi(_)));
    let metrics: &[(&str, Metric, &str)] = if is_multi { &MULTI } else { &SINGLE };

    let mut table = Table::new(caption, &["metric"]);
    for (run, _) in levels {
        table.head.push(run.name.clone());
    }
    for &(name, metric, interval) in metrics {
        let mut cells = vec![Cell::from(name)];
        for (_, level) in levels {
            // A run with the other kind of labels has none of these scores.
            let is_same_kind = matches!(level.report, Report::Multi(_)) == is_multi;
            cells.push(if is_same_kind {
                cell(level, metric, interval)
            } else {
                Cell::None
            });
        }
        table.rows.push(cells);
    }

    let mut tracks = vec![Cell::from(noun.many())];
    let mut rows = vec![Cell::from("rows")];
    for (_, level) in levels {
        let (n_tracks, n_rows) = match &level.report {
            Report::Single(report) => (report.tracks, report.rows),
            Report::Multi(report) => (report.tracks, report.rows),
        };
        tracks.push(n_tracks.into());
        rows.push(n_rows.into());
    }
    table.rows.push(tracks);
    table.rows.push(rows);
    table
}

/// Formats a score, with its confidence interval if there is one.
fn cell(level: &Level, metric: Metric, interval: &str) -> Cell {
    let intervals = level.bootstrap.as_ref().map(|draws| &draws.intervals);
    let interval = intervals.and_then(|intervals| intervals.get(interval));
    match (level.scores().get(&metric), interval) {
        (None, _) => Cell::None,
        (Some(_), Some(interval)) => words::between(interval),
        (Some(value), None) => words::score(*value),
    }
}
