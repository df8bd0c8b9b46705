//! Calibration: compares a model's confidence with its accuracy.

use wavemill_pages::{Chart, Line, Lines, Part, Plot, Section, Table};
use wavemill_scores::metrics::Calibration;

use super::RunRecord;
use super::words;

pub(super) fn section(runs: &[RunRecord], targets: &[String]) -> Section {
    let mut section = Section::new("Calibration");
    let lacking = runs.iter().filter_map(RunRecord::lacks_predictions);
    section.parts.extend(lacking.map(Part::Text));

    let mut charts = Vec::new();
    let mut rows = Vec::new();
    for target in targets {
        let mut lines = Vec::new();
        for run in runs {
            // Calibration is not defined for targets with several labels per row, or without labelled rows.
            let predictions = run.predictions_of(target);
            let Some(Ok(calibration)) = predictions.map(Calibration::from_predictions) else {
                continue;
            };
            lines.push(line_of(run, &calibration));
            rows.push((&run.name, target, calibration));
        }
        if !lines.is_empty() {
            charts.push(chart_of(target, lines));
        }
    }
    if charts.is_empty() {
        return section;
    }

    section.add_charts(charts);
    section.add_table(Table::of(
        "",
        rows,
        &[
            ("run", &|(run, ..)| run.as_str().into()),
            ("target", &|(_, target, _)| target.as_str().into()),
            ("rows", &|(.., of)| of.rows.into()),
            ("expected calibration error", &|(.., of)| {
                words::score(of.expected_error)
            }),
            ("maximum calibration error", &|(.., of)| {
                words::score(of.largest_error)
            }),
            ("overconfidence", &|(.., of)| {
                words::score(of.overconfidence)
            }),
        ],
    ));
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
    let points = filled.map(|bin| (bin.confidence, bin.accuracy)).collect();
    Line::new(&run.name, points)
}

/// Draws one calibration line per run, and the diagonal of a perfectly calibrated model.
fn chart_of(target: &str, mut lines: Vec<Line>) -> Chart {
    let diagonal = vec![(0.0, 0.0), (1.0, 1.0)];
    lines.push(Line::new("perfect calibration", diagonal));
    Chart::new(
        format!("{target}: reliability diagram"),
        "Below the diagonal, the model is overconfident. Computed per row, before segments are combined.",
        Plot::Lines(Lines::new("confidence", "accuracy", lines)),
    )
}
