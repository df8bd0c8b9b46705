//! Scores of segments and of tracks, with intervals over artists and a report of the split's leakage.
//!
//! The input are the [`Predictions`] of all ranks, the output is an [`Evaluation`] as stored in `result.json`, and as a
//! table. This module computes no predictions.

mod bootstrap;
mod calibration;
mod classification;
mod leaks;
mod multilabel;
mod predictions;
mod table;
mod temperature;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use wavemill_schemas::canonical;
use wavemill_schemas::config::Metric;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::run::{Evaluation, Leaks, Level, Report};

pub use bootstrap::{ClassInterval, ClassIntervals, Difference, Paired, class_intervals, paired};
pub use calibration::{CALIBRATION_BINS, Calibration, CalibrationBin};
pub use classification::class_report;
pub use leaks::{Member, compare_with_run, count_leaks};
pub use multilabel::set_report;
pub use predictions::{Label, Predictions, Row, likeliest};
pub use table::{evaluation_table, paired_table, run_table};
pub use temperature::TEMPERATURES;

use bootstrap::bootstrap;
use classification::log_loss;

/// Minimum probability at which a label counts as predicted in a multi-label target.
pub const THRESHOLD: f32 = 0.5;

impl Predictions {
    /// Returns loss, log loss and scores by metric, without those that are undefined.
    ///
    /// # Errors
    /// [`PlainError`] if no row has a label.
    pub fn scores(&self) -> Result<BTreeMap<Metric, f64>, PlainError> {
        let mut scores = score_rows(self)?.scores();
        scores.extend(self.loss().map(|loss| (Metric::Loss, loss)));
        scores.extend(log_loss(self).map(|loss| (Metric::LogLoss, loss)));
        Ok(scores)
    }

    /// Creates the error for predictions without a labelled row.
    fn no_labels(&self) -> PlainError {
        PlainError::failed(format!("target {}: no row has a label", self.target()))
    }

    /// Returns an error if the target has one class per row although several labels are expected, or the reverse.
    fn check_kind(&self, multi: bool) -> Result<(), PlainError> {
        if self.is_multi() == multi {
            return Ok(());
        }
        let target = self.target();
        let found = if multi { "one class" } else { "several labels" };
        Err(PlainError::failed(format!(
            "target {target} has {found} per row"
        )))
    }

    fn check_same_classes(&self, other: &Self) -> Result<(), PlainError> {
        if self.classes() == other.classes() && self.is_multi() == other.is_multi() {
            return Ok(());
        }
        Err(PlainError::failed(format!(
            "targets with different classes are not compared: {} and {}",
            self.target_and_classes(),
            other.target_and_classes()
        )))
    }

    fn target_and_classes(&self) -> String {
        let target = self.target();
        let classes = self.classes();
        format!(
            "{target} ({} classes: {})",
            classes.len(),
            classes.join(", ")
        )
    }
}

/// Computes the scores of `predictions`, according to the number of labels per row.
///
/// # Errors
/// [`PlainError`] if no row has a label.
pub fn score_rows(predictions: &Predictions) -> Result<Report, PlainError> {
    if predictions.is_multi() {
        set_report(predictions).map(Report::Multi)
    } else {
        class_report(predictions).map(Report::Single)
    }
}

/// Computes scores, log loss and bootstrap intervals. `seed` determines the resamples.
///
/// # Errors
/// [`PlainError`] if no row has a label, or if `stop` becomes true.
fn score_level(
    predictions: &Predictions,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Level, PlainError> {
    Ok(Level {
        report: score_rows(predictions)?,
        log_loss: log_loss(predictions),
        bootstrap: bootstrap(predictions, seed, stop)?,
    })
}

/// Computes all scores of `predictions` on the split that `leaks` describes. `seed` determines the bootstrap resamples.
///
/// # Errors
/// [`PlainError`] if no row has a label, or if the rows of a track have different labels.
pub fn score_split(
    predictions: &Predictions,
    seed: u64,
    leaks: Leaks,
) -> Result<Evaluation, PlainError> {
    score_split_unless_stopped(predictions, seed, leaks, &AtomicBool::new(false))
}

/// Computes all scores like [`score_split`], and ends early if another thread sets `stop`: resampling takes seconds for
/// many rows with hundreds of classes.
///
/// # Errors
/// [`PlainError`] if `stop` becomes true, and the errors of [`score_split`].
pub fn score_split_unless_stopped(
    predictions: &Predictions,
    seed: u64,
    leaks: Leaks,
    stop: &AtomicBool,
) -> Result<Evaluation, PlainError> {
    let mut tracks_mean = None;
    let mut tracks_majority = None;
    // If each track has one row, mean and vote of its rows would have the same scores as the rows.
    if predictions.has_segments() {
        tracks_mean = Some(score_level(&predictions.per_track_mean()?, seed, stop)?);
        // The values of a vote are not probabilities, so they have no log loss.
        let votes = score_level(&predictions.per_track_majority()?, seed, stop)?;
        tracks_majority = Some(Level {
            log_loss: None,
            ..votes
        });
    }

    Ok(Evaluation {
        target: predictions.target().to_owned(),
        classes: predictions.classes().to_vec(),
        class_set: class_set(predictions.classes()),
        loss: predictions.loss(),
        segments: score_level(predictions, seed, stop)?,
        tracks_mean,
        tracks_majority,
        leaks,
    })
}

/// Returns eight hex digits that identify the class names and their order.
fn class_set(classes: &[String]) -> String {
    // Hash the class names in id order: the same names in another order give other digits, because the columns of
    // matrices differ.
    let id = canonical::id(&classes).expect("a list of text is JSON");
    id[..8].to_owned()
}

#[cfg(test)]
mod tests {
    use super::predictions::tests::{names, single};
    use super::*;
    use wavemill_schemas::recipe::SplitRule;
    use wavemill_schemas::split::Split;

    fn leaks() -> Leaks {
        count_leaks(SplitRule::Artist, Split::Test, [], [])
    }

    #[test]
    fn tracks_are_scored_apart_only_where_they_have_segments() {
        fn accuracy(level: &Level) -> (u64, f64) {
            match &level.report {
                Report::Single(report) => (report.rows, report.accuracy),
                Report::Multi(_) => panic!("one class a row"),
            }
        }

        let whole = single(&[(1, Some(1), 0, &[0.9, 0.1]), (2, Some(2), 1, &[0.7, 0.3])]);
        let evaluation = score_split(&whole, 1, leaks()).unwrap();
        assert!(evaluation.tracks_mean.is_none() && evaluation.tracks_majority.is_none());
        assert_eq!(evaluation.tracks(), &evaluation.segments);

        let cut = single(&[
            (1, Some(1), 0, &[0.9, 0.1]),
            (1, Some(1), 0, &[0.4, 0.6]),
            (2, Some(2), 1, &[0.2, 0.8]),
        ]);
        let evaluation = score_split(&cut, 1, leaks()).unwrap();

        assert_eq!(accuracy(&evaluation.segments), (3, 2.0 / 3.0));
        assert_eq!(accuracy(evaluation.tracks()), (2, 1.0));
        assert_eq!(evaluation.tracks_majority.unwrap().log_loss, None);
    }

    #[test]
    fn an_evaluation_comes_back_from_json_bit_by_bit() {
        let rows: Vec<_> = (0..30)
            .map(|i| {
                (
                    i,
                    Some(i / 2),
                    (i % 3) as i32,
                    [&[0.5_f32, 0.2, 0.3][..], &[0.1, 0.7, 0.2]][i as usize % 2],
                )
            })
            .collect();

        let evaluation = score_split(&single(&rows), 1, leaks()).unwrap();
        let json = serde_json::to_string(&evaluation).unwrap();

        assert_eq!(
            serde_json::from_str::<Evaluation>(&json).unwrap(),
            evaluation
        );
        assert!(
            json.contains(r#""labels":"single""#) && json.contains(r#""rule":"artist""#),
            "{json}"
        );
    }

    #[test]
    fn class_sets_differ_by_names_number_and_order() {
        fn set(names: &[&str]) -> String {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            class_set(&names)
        }

        assert_eq!(set(&["a", "b"]).len(), 8);
        assert_eq!(set(&["a", "b"]), set(&["a", "b"]));
        assert!(
            set(&["a", "b"]) != set(&["b", "a"])
                && set(&["a", "b"]) != set(&["a,b"])
                && set(&["a"]) != set(&["a", "b"])
        );
        assert_ne!(class_set(&names(8)), class_set(&names(12)));
    }
}
