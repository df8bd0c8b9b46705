//! Scores per class: with confidence intervals if `predictions.parquet` exists, otherwise from the result of the run.

use wavemill_pages::{Cell, Section, Table, fraction};
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::run::{ClassReport, Interval, Noun, Report, SetReport};
use wavemill_scores::metrics::{
    ClassInterval, ClassIntervals, Predictions, class_intervals, class_report,
};

use super::RunRecord;
use super::words;

pub(super) fn section(runs: &[RunRecord], targets: &[String]) -> Section {
    let mut section = Section::new("Scores per class");
    for target in targets {
        for run in runs {
            add_run(&mut section, run, target);
        }
    }
    if section.parts.is_empty() {
        return section;
    }

    for message in runs.iter().filter_map(RunRecord::lacks_predictions) {
        section.add_text(format!(
            "{message} With this file, the scores per class have confidence intervals."
        ));
    }
    section.add_text(
        "A dash means that a score is undefined: the precision of a class that was never predicted, or the recall of a \
         class without rows. It counts as 0 in means.",
    );
    section
}

fn add_run(section: &mut Section, run: &RunRecord, target: &str) {
    // Intervals per class are not computed for targets with several labels per row.
    let single = run.predictions_of(target).filter(|of| !of.is_multi());
    if let Some(predictions) = single {
        let caption = run.caption(target);
        match with_intervals(predictions, run.seed()) {
            Ok((report, intervals)) => {
                let classes = intervals.as_ref().map(|of| of.classes.as_slice());
                let table = class_table(&caption, &report, classes.unwrap_or_default(), run.noun());
                section.add_table(table);
                if let Some(intervals) = &intervals {
                    section.add_text(words::draws(&intervals.draws, run.noun()));
                }
            }
            Err(error) => {
                section.add_text(format!(
                    "{caption}: the scores cannot be computed: {error}."
                ));
            }
        }
        return;
    }

    let Some(evaluation) = run.evaluation(target) else {
        return;
    };
    let caption = run.caption_of(evaluation);
    let table = match &evaluation.tracks().report {
        Report::Single(report) => class_table(&caption, report, &[], run.noun()),
        Report::Multi(report) => set_table(&caption, report, run.noun()),
    };
    section.add_table(table);
}

/// Computes the scores per track and the confidence intervals of each class.
fn with_intervals(
    predictions: &Predictions,
    seed: u64,
) -> Result<(ClassReport, Option<ClassIntervals>), PlainError> {
    let tracks = predictions.per_track_mean()?;
    let report = class_report(&tracks)?;
    let intervals = class_intervals(&tracks, seed)?;
    Ok((report, intervals))
}

/// Builds the table for a target with one class per row. `intervals` contains one entry per class or is empty.
fn class_table(
    caption: &str,
    report: &ClassReport,
    intervals: &[ClassInterval],
    noun: Noun,
) -> Table {
    // A class, its place, and its confidence intervals.
    let classes = report.classes.iter().enumerate();
    let classes = classes.map(|(place, class)| (class, place, intervals.get(place)));
    Table::of(
        caption,
        classes,
        &[
            ("class", &|(class, ..)| class.name.as_str().into()),
            (noun.many(), &|(class, ..)| class.tracks.into()),
            ("rows", &|(class, ..)| class.support.into()),
            ("precision", &|(class, _, of)| {
                let interval = of.and_then(|of| of.precision);
                cell(interval, !class.never_predicted, class.precision)
            }),
            ("recall", &|(class, _, of)| {
                let interval = of.and_then(|of| of.recall);
                cell(interval, class.support > 0, class.recall)
            }),
            ("F1", &|(class, _, of)| {
                // F1 is undefined for a class that neither occurs among the labels nor was predicted.
                let occurs = class.support + class.predicted > 0;
                cell(of.and_then(|of| of.f1), occurs, class.f1)
            }),
            ("most confused with", &|(class, place, _)| {
                let most = report.most_confused_with(*place);
                most.map(|(other, n)| format!("{} ({})", other.name, fraction(n, class.support)))
                    .into()
            }),
        ],
    )
}

fn cell(interval: Option<Interval>, is_there: bool, value: f64) -> Cell {
    match interval {
        Some(interval) => words::between(&interval),
        None => words::score_if(is_there, value),
    }
}

fn set_table(caption: &str, report: &SetReport, noun: Noun) -> Table {
    Table::of(
        caption,
        &report.classes,
        &[
            ("class", &|class| class.name.as_str().into()),
            (noun.many(), &|class| class.tracks.into()),
            ("rows", &|class| class.support.into()),
            // Precision is undefined for a class that was never predicted.
            ("precision", &|class| {
                words::score_if(!class.never_predicted, class.precision)
            }),
            ("recall", &|class| {
                words::score_if(class.support > 0, class.recall)
            }),
            ("F1", &|class| {
                words::score_if(!class.never_predicted, class.f1)
            }),
            ("ROC-AUC", &|class| class.roc_auc.map(words::score).into()),
            ("average precision", &|class| {
                class.average_precision.map(words::score).into()
            }),
        ],
    )
}
