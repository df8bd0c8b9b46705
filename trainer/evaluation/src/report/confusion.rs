//! Confusion matrices of a report's runs.

use wavemill_pages::{Chart, Matrix, Plot, Section, Table, fraction};
use wavemill_schemas::run::{ClassReport, Evaluation, Report};

use super::RunRecord;

/// Maximum number of classes of a matrix. A matrix of 1,000 classes has a million cells, and a page with it 17 MB.
const MATRIX_CLASSES_MAX: usize = 200;
/// Maximum number of pairs of classes in the table that replaces a larger matrix.
const PAIRS_MAX: usize = 100;

pub(super) fn section(runs: &[RunRecord], targets: &[String]) -> Section {
    let mut section = Section::new("Confusion matrix");
    let mut charts = Vec::new();
    for target in targets {
        for run in runs {
            // A target with several labels per row has no confusion matrix.
            let Some(evaluation) = run.evaluation(target) else {
                continue;
            };
            let Report::Single(report) = &evaluation.tracks().report else {
                continue;
            };
            if evaluation.classes.len() > MATRIX_CLASSES_MAX {
                section.add_table(pairs(run, evaluation, report));
            } else {
                charts.push(matrix(run, evaluation, report));
            }
        }
    }
    if charts.is_empty() {
        return section;
    }

    let noun = runs.first().map(RunRecord::noun).unwrap_or_default();
    section.add_text(noun.in_text(
        "Rows are true classes, and columns are predicted classes. A cell contains the number of tracks and their share \
         of the row; the share on the diagonal is the recall of the class.",
    ));
    section.add_charts(charts);
    section
}

/// Removes the matrices of targets with many classes from scores that are embedded in a page.
pub(super) fn without_large_matrices(mut evaluations: Vec<Evaluation>) -> Vec<Evaluation> {
    for evaluation in &mut evaluations {
        if evaluation.classes.len() <= MATRIX_CLASSES_MAX {
            continue;
        }
        let levels = [&mut evaluation.tracks_mean, &mut evaluation.tracks_majority];
        let levels = levels.into_iter().flatten();
        for level in levels.chain([&mut evaluation.segments]) {
            if let Report::Single(report) = &mut level.report {
                report.confusion.clear();
            }
        }
    }
    evaluations
}

/// Builds a table of the classes that are most often confused, in descending order of their number of clips.
fn pairs(run: &RunRecord, evaluation: &Evaluation, report: &ClassReport) -> Table {
    let mut pairs = Vec::new();
    for (truth, row) in report.confusion.iter().enumerate() {
        let wrong = row
            .iter()
            .enumerate()
            .filter(|(guess, n)| *guess != truth && **n > 0);
        pairs.extend(wrong.map(|(guess, &n)| (n, truth, guess)));
    }
    // The sort is stable: pairs with equal counts stay in the order of the classes.
    pairs.sort_by_key(|(n, ..)| std::cmp::Reverse(*n));

    pairs.truncate(PAIRS_MAX);

    let n_classes = evaluation.classes.len();
    let name = |class: usize| evaluation.classes[class].as_str().into();
    Table::of(
        &format!(
            "{}, most frequent confusions of {n_classes} classes",
            run.caption_of(evaluation)
        ),
        pairs,
        &[
            ("true class", &|(_, truth, _)| name(*truth)),
            ("predicted class", &|(.., guess)| name(*guess)),
            (run.noun().many(), &|(n, ..)| (*n).into()),
            ("share of the true class", &|(n, truth, _)| {
                fraction(*n, report.classes[*truth].support).into()
            }),
        ],
    )
}

fn matrix(run: &RunRecord, evaluation: &Evaluation, report: &ClassReport) -> Chart {
    let matrix = Matrix {
        down: "true class".to_owned(),
        across: "predicted class".to_owned(),
        names: evaluation.classes.clone(),
        counts: report.confusion.clone(),
    };
    Chart::new(run.caption_of(evaluation), "", Plot::Matrix(matrix))
}
