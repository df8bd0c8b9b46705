//! Scores per class: with confidence intervals if `predictions.parquet` exists, otherwise from the result of the run.

use wavemill_pages::{Cell, Part, Section, Table, fraction};
use wavemill_scores::metrics::{
    ClassInterval, ClassIntervals, ClassReport, ClassScore, Interval, MetricsError, Noun,
    Predictions, Report, SetReport, class_intervals,
};

use super::RunRecord;
use super::run_record::PREDICTIONS;
use super::words;

/// Returns the columns that the tables of all targets have in common. `noun` is the word for a clip.
const fn head(noun: Noun) -> [&'static str; 6] {
    ["class", noun.many(), "rows", "precision", "recall", "F1"]
}

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

    let lacking = runs.iter().filter(|run| run.predictions.is_none());
    for run in lacking {
        section.add_text(format!(
            "{} With this file, the scores per class have confidence intervals.",
            run.lacks("--predictions", PREDICTIONS)
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
        let caption = format!("{}, {target} on {}", run.name, run.predicted_side());
        match with_intervals(predictions, run.seed()) {
            Ok((report, intervals)) => {
                let classes = intervals.as_ref().map(|of| of.classes.as_slice());
                let table = class_table(&caption, &report, classes.unwrap_or_default(), run.noun());
                section.parts.push(Part::Table(table));
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
    let caption = format!("{}, {target} on {}", run.name, evaluation.leaks.split);
    let table = match &evaluation.tracks().report {
        Report::Single(report) => class_table(&caption, report, &[], run.noun()),
        Report::Multi(report) => set_table(&caption, report, run.noun()),
    };
    section.parts.push(Part::Table(table));
}

/// Computes the scores per track and the confidence intervals of each class.
fn with_intervals(
    predictions: &Predictions,
    seed: u64,
) -> Result<(ClassReport, Option<ClassIntervals>), MetricsError> {
    let tracks = predictions.per_track_mean()?;
    let report = ClassReport::from_predictions(&tracks)?;
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
    let mut table = Table::new(caption, &head(noun));
    table.head.push("most confused with".to_owned());

    for (place, class) in report.classes.iter().enumerate() {
        let of = intervals.get(place);
        // F1 is undefined for a class that neither occurs among the labels nor was predicted.
        let occurs = class.support + class.predicted > 0;

        table.rows.push(vec![
            class.name.as_str().into(),
            class.tracks.into(),
            class.support.into(),
            cell(
                of.and_then(|of| of.precision),
                !class.never_predicted,
                class.precision,
            ),
            cell(of.and_then(|of| of.recall), class.support > 0, class.recall),
            cell(of.and_then(|of| of.f1), occurs, class.f1),
            most_taken_for(report, place, class),
        ]);
    }
    table
}

fn cell(interval: Option<Interval>, is_there: bool, value: f64) -> Cell {
    match interval {
        Some(interval) => words::between(&interval),
        None => words::score_if(is_there, value),
    }
}

/// Returns the wrong class that was predicted most often for rows of `class`. Ties go to the class with the lower id.
fn most_taken_for(report: &ClassReport, place: usize, class: &ClassScore) -> Cell {
    let mut most: Option<(u64, &ClassScore)> = None;
    for (other, (&n, guess)) in report.confusion[place]
        .iter()
        .zip(&report.classes)
        .enumerate()
    {
        if other != place && n > most.map_or(0, |(largest, _)| largest) {
            most = Some((n, guess));
        }
    }
    most.map_or(Cell::None, |(n, guess)| {
        Cell::Text(format!("{} ({})", guess.name, fraction(n, class.support)))
    })
}

fn set_table(caption: &str, report: &SetReport, noun: Noun) -> Table {
    let mut table = Table::new(caption, &head(noun));
    table
        .head
        .extend(["ROC-AUC", "average precision"].map(str::to_owned));

    for class in &report.classes {
        // Precision is undefined for a class that was never predicted.
        let is_predicted = !class.never_predicted;
        table.rows.push(vec![
            class.name.as_str().into(),
            class.tracks.into(),
            class.support.into(),
            words::score_if(is_predicted, class.precision),
            words::score_if(class.support > 0, class.recall),
            words::score_if(is_predicted, class.f1),
            class.roc_auc.map_or(Cell::None, words::score),
            class.average_precision.map_or(Cell::None, words::score),
        ]);
    }
    table
}
