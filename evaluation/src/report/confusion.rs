//! Confusion matrices of a report's runs.

use wavemill_pages::{Chart, Matrix, Part, Plot, Section};
use wavemill_scores::metrics::{Evaluation, Report};

use super::RunRecord;

pub(super) fn section(runs: &[RunRecord], targets: &[String]) -> Section {
    let mut section = Section::new("Confusion matrix");
    let mut charts = Vec::new();
    for target in targets {
        for run in runs {
            let evaluation = run.evaluation(target);
            charts.extend(evaluation.and_then(|evaluation| matrix(run, evaluation)));
        }
    }
    if charts.is_empty() {
        return section;
    }

    section.parts.push(Part::Text(
        "Rows are true classes, and columns are predicted classes. A cell contains the number of tracks and their \
         share of the row; the share on the diagonal is the recall of the class."
            .to_owned(),
    ));
    section.parts.push(Part::Charts(charts));
    section
}

/// Returns `None` for a target with several labels per row, which has no confusion matrix.
fn matrix(run: &RunRecord, evaluation: &Evaluation) -> Option<Chart> {
    let Report::Single(report) = &evaluation.tracks().report else {
        return None;
    };
    Some(Chart {
        title: format!(
            "{}, {} on {}",
            run.name, evaluation.target, evaluation.leaks.split
        ),
        note: String::new(),
        plot: Plot::Matrix(Matrix {
            down: "true class".to_owned(),
            across: "predicted class".to_owned(),
            names: evaluation.classes.clone(),
            counts: report.confusion.clone(),
        }),
    })
}
