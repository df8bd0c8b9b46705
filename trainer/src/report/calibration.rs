//! Calibration: compares a model's confidence with its accuracy.

use wavemill_pages::{Cell, Chart, Line, Lines, Part, Plot, Section, Table};
use wavemill_scores::metrics::Calibration;

use super::RunRecord;
use super::run_record::PREDICTIONS;
use super::words;

pub(super) fn section(runs: &[RunRecord], targets: &[String]) -> Section {
    let mut section = Section::new("Calibration");
    for run in runs.iter().filter(|run| run.predictions.is_none()) {
        let words = run.lacks("--predictions", PREDICTIONS);
        section.parts.push(Part::Text(words));
    }

    let mut charts = Vec::new();
    let head = [
        "run",
        "target",
        "rows",
        "mean error",
        "largest error",
        "overconfidence",
    ];
    let mut table = Table::new("", &head);
    for target in targets {
        let mut lines = Vec::new();
        for run in runs {
            // Calibration is undefined for several labels per row and for rows without labels.
            let predictions = run.predictions_of(target);
            let Some(Ok(calibration)) = predictions.map(Calibration::of) else {
                continue;
            };
            lines.push(line_of(run, &calibration));
            table.rows.push(row_of(run, target, &calibration));
        }
        if !lines.is_empty() {
            charts.push(chart_of(target, lines));
        }
    }
    if charts.is_empty() {
        return section;
    }

    section.parts.push(Part::Charts(charts));
    section.parts.push(Part::Table(table));
    section.parts.push(Part::Text(
        "Rows are put into 15 bins by the probability of their likeliest class. The mean error is the distance between \
         that probability and the share of rows that are right, over all bins by their rows. A model is too sure of \
         itself where its overconfidence is above 0."
            .to_owned(),
    ));
    section
}

/// Returns the line through all bins that contain rows.
fn line_of(run: &RunRecord, calibration: &Calibration) -> Line {
    let filled = calibration.bins.iter().filter(|bin| bin.rows > 0);
    Line {
        name: run.name.clone(),
        points: filled.map(|bin| (bin.confidence, bin.accuracy)).collect(),
        spread: Vec::new(),
    }
}

fn row_of(run: &RunRecord, target: &str, calibration: &Calibration) -> Vec<Cell> {
    vec![
        run.name.as_str().into(),
        target.into(),
        calibration.rows.into(),
        words::score(calibration.expected_error),
        words::score(calibration.largest_error),
        words::score(calibration.overconfidence),
    ]
}

/// Draws the lines of the runs together with the diagonal of a perfectly calibrated model.
fn chart_of(target: &str, mut lines: Vec<Line>) -> Chart {
    lines.push(Line {
        name: "as it should be".to_owned(),
        points: vec![(0.0, 0.0), (1.0, 1.0)],
        spread: Vec::new(),
    });
    Chart {
        title: format!("{target}: how often it is right, by how sure it is"),
        note: "Below the straight line a model is surer than it should be. Row by row, before segments become tracks."
            .to_owned(),
        plot: Plot::Lines(Lines {
            along: "probability of the likeliest class".to_owned(),
            measured: "share that is right".to_owned(),
            lines,
        }),
    }
}
