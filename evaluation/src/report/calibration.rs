//! Calibration: compares a model's confidence with its accuracy.

use wavemill_pages::{Cell, Chart, Line, Lines, Part, Plot, Section, Table};
use wavemill_scores::metrics::Calibration;

use super::RunRecord;
use super::run_record::PREDICTIONS;
use super::words;

pub(super) fn section(runs: &[RunRecord], targets: &[String]) -> Section {
    let mut section = Section::new("Calibration");
    for run in runs.iter().filter(|run| run.predictions.is_none()) {
        section.add_text(run.lacks("--predictions", PREDICTIONS));
    }

    let mut charts = Vec::new();
    let head = [
        "run",
        "target",
        "rows",
        "expected calibration error",
        "maximum calibration error",
        "overconfidence",
    ];
    let mut table = Table::new("", &head);
    for target in targets {
        let mut lines = Vec::new();
        for run in runs {
            // Calibration is not defined for targets with several labels per row, or without labelled rows.
            let predictions = run.predictions_of(target);
            let Some(Ok(calibration)) = predictions.map(Calibration::from_predictions) else {
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
    section.add_text(
        "Rows are grouped into 15 bins by confidence, the probability of the predicted class. The expected calibration \
         error is the mean difference between confidence and accuracy over all bins, weighted by their number of rows; \
         the maximum calibration error is the largest difference. Overconfidence above 0 means that confidence exceeds \
         accuracy.",
    );
    section
}

/// Returns the line through the confidence bins that contain rows.
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

/// Draws one calibration line per run, and the diagonal of a perfectly calibrated model.
fn chart_of(target: &str, mut lines: Vec<Line>) -> Chart {
    lines.push(Line {
        name: "perfect calibration".to_owned(),
        points: vec![(0.0, 0.0), (1.0, 1.0)],
        spread: Vec::new(),
    });
    Chart {
        title: format!("{target}: reliability diagram"),
        note: "Below the diagonal, the model is overconfident. Computed per row, before segments are combined."
            .to_owned(),
        plot: Plot::Lines(Lines {
            along: "confidence".to_owned(),
            measured: "accuracy".to_owned(),
            lines,
        }),
    }
}
