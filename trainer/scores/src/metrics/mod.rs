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

use serde::{Deserialize, Serialize};
use wavemill_schemas::canonical;
use wavemill_schemas::config::Metric;
use wavemill_schemas::exit::PlainError;

pub use bootstrap::{
    Bootstrap, ClassInterval, ClassIntervals, Difference, Draws, Interval, Paired, RESAMPLES,
    UNITS_PER_CLASS_MIN, Unit, class_intervals, paired,
};
pub use calibration::{CALIBRATION_BINS, Calibration, CalibrationBin};
pub use classification::{ClassReport, ClassScore, Means, SUPPORTED_TRACKS_MIN};
pub use leaks::{ComparedWith, Leak, Leaks, Member, Noun};
pub use multilabel::{SetReport, SetScore};
pub use predictions::{Label, Predictions, Row, likeliest};
pub use table::paired_table;
pub use temperature::TEMPERATURES;

use crate::ScoresError;

use bootstrap::bootstrap;
use classification::log_loss;

/// Minimum probability at which a label counts as predicted in a multi-label target.
pub const THRESHOLD: f32 = 0.5;

impl Predictions {
    /// Returns loss, log loss and scores by metric, without those that are undefined.
    ///
    /// # Errors
    /// [`ScoresError::Other`] if no row has a label.
    pub fn scores(&self) -> Result<BTreeMap<Metric, f64>, ScoresError> {
        let mut scores = Report::from_predictions(self)?.scores();
        scores.extend(self.loss().map(|loss| (Metric::Loss, loss)));
        scores.extend(log_loss(self).map(|loss| (Metric::LogLoss, loss)));
        Ok(scores)
    }

    /// Creates the error for predictions without a labelled row.
    fn no_labels(&self) -> ScoresError {
        PlainError::failed(format!("target {}: no row has a label", self.target())).into()
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

/// Scores of a target, with one or with several labels per row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "labels", rename_all = "lowercase")]
pub enum Report {
    /// Scores of a target with one class per row.
    Single(ClassReport),
    /// Scores of a target with any number of labels per row.
    Multi(SetReport),
}

impl Report {
    /// Computes the scores of `predictions`, according to the number of labels per row.
    ///
    /// # Errors
    /// [`ScoresError::Other`] if no row has a label.
    pub fn from_predictions(predictions: &Predictions) -> Result<Self, ScoresError> {
        if predictions.is_multi() {
            SetReport::from_predictions(predictions).map(Self::Multi)
        } else {
            ClassReport::from_predictions(predictions).map(Self::Single)
        }
    }

    /// Returns all defined scores by metric, without losses.
    fn scores(&self) -> BTreeMap<Metric, f64> {
        let metrics = Metric::ALL.into_iter();
        metrics
            .filter_map(|metric| Some((metric, self.value(metric)?)))
            .collect()
    }

    /// Returns the value of `metric`; `None` if it is undefined here, or is a loss.
    fn value(&self, metric: Metric) -> Option<f64> {
        match self {
            Self::Single(report) => match metric {
                Metric::Accuracy => Some(report.accuracy),
                Metric::BalancedAccuracy => Some(report.balanced_accuracy),
                Metric::Top3 => report.top_3,
                Metric::MacroF1 => Some(report.macro_mean.f1),
                Metric::MacroPrecision => Some(report.macro_mean.precision),
                Metric::MacroRecall => Some(report.macro_mean.recall),
                Metric::MacroF1Supported => report.macro_f1_supported,
                Metric::WeightedF1 => Some(report.weighted_mean.f1),
                _ => None,
            },

            Self::Multi(report) => match metric {
                Metric::Accuracy => Some(report.exact_match),
                Metric::MacroF1 => Some(report.f1_macro),
                Metric::MicroF1 => Some(report.f1_micro),
                Metric::RocAucMacro => report.roc_auc_macro,
                Metric::RocAucMicro => report.roc_auc_micro,
                Metric::AveragePrecisionMacro => report.average_precision_macro,
                Metric::AveragePrecisionMicro => report.average_precision_micro,
                _ => None,
            },
        }
    }
}

/// Scores of individual rows, or of rows aggregated by track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// The scores of the rows.
    pub report: Report,
    /// Log loss: mean −ln of the true class's probability, unweighted. `None` with several labels per row, and for
    /// majorities, whose values are votes.
    pub log_loss: Option<f64>,
    /// Bootstrap intervals; `None` if there is only a single artist or track.
    pub bootstrap: Option<Bootstrap>,
}

impl Level {
    /// Returns log loss and scores by metric, without those that are undefined.
    pub fn scores(&self) -> BTreeMap<Metric, f64> {
        let mut scores = self.report.scores();
        scores.extend(self.log_loss.map(|loss| (Metric::LogLoss, loss)));
        scores
    }

    /// Computes scores, log loss and bootstrap intervals. `seed` determines the resamples.
    ///
    /// # Errors
    /// [`ScoresError::Other`] if no row has a label, or if `stop` becomes true.
    fn from_predictions(
        predictions: &Predictions,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Self, ScoresError> {
        Ok(Self {
            report: Report::from_predictions(predictions)?,
            log_loss: log_loss(predictions),
            bootstrap: bootstrap(predictions, seed, stop)?,
        })
    }
}

/// The scores of one target on one split in `result.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The name of the target.
    pub target: String,
    /// Names of the target's classes, in id order.
    pub classes: Vec<String>,
    /// Eight hex digits that identify the classes. Scores over different classes are never shown in one column.
    pub class_set: String,
    /// Mean loss weighted as in training; `None` if it was not computed.
    pub loss: Option<f64>,
    /// Scores of individual rows.
    pub segments: Level,
    /// Scores of tracks, from the mean of the probabilities of a track's rows; `None` if each track has one row.
    pub tracks_mean: Option<Level>,
    /// Scores of tracks, from a vote of a track's rows; `None` if each track has one row.
    pub tracks_majority: Option<Level>,
    /// The split's rule and its leakage, or the overlap of the split with the training tracks of a run on another
    /// version.
    pub leaks: Leaks,
}

impl Evaluation {
    /// Computes all scores of `predictions` on the split that `leaks` describes. `seed` determines the bootstrap
    /// resamples.
    ///
    /// # Errors
    /// [`ScoresError::Other`] if no row has a label, or if the rows of a track have different labels.
    pub fn from_predictions(
        predictions: &Predictions,
        seed: u64,
        leaks: Leaks,
    ) -> Result<Self, ScoresError> {
        Self::unless_stopped(predictions, seed, leaks, &AtomicBool::new(false))
    }

    /// Computes all scores like [`Self::from_predictions`], and ends early if another thread sets `stop`: resampling
    /// takes seconds for many rows with hundreds of classes.
    ///
    /// # Errors
    /// [`ScoresError::Other`] if `stop` becomes true, and the errors of [`Self::from_predictions`].
    pub fn unless_stopped(
        predictions: &Predictions,
        seed: u64,
        leaks: Leaks,
        stop: &AtomicBool,
    ) -> Result<Self, ScoresError> {
        let mut tracks_mean = None;
        let mut tracks_majority = None;
        // If each track has one row, mean and vote of its rows would have the same scores as the rows.
        if predictions.has_segments() {
            tracks_mean = Some(Level::from_predictions(
                &predictions.per_track_mean()?,
                seed,
                stop,
            )?);
            // The values of a vote are not probabilities, so they have no log loss.
            let votes = Level::from_predictions(&predictions.per_track_majority()?, seed, stop)?;
            tracks_majority = Some(Level {
                log_loss: None,
                ..votes
            });
        }

        Ok(Self {
            target: predictions.target().to_owned(),
            classes: predictions.classes().to_vec(),
            class_set: class_set(predictions.classes()),
            loss: predictions.loss(),
            segments: Level::from_predictions(predictions, seed, stop)?,
            tracks_mean,
            tracks_majority,
            leaks,
        })
    }

    /// Returns the scores of tracks by the mean of their rows' probabilities. If each track has one row, returns the
    /// scores of the rows.
    pub fn tracks(&self) -> &Level {
        self.tracks_mean.as_ref().unwrap_or(&self.segments)
    }
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
        Leaks::new(SplitRule::Artist, Split::Test, [], [])
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
        let evaluation = Evaluation::from_predictions(&whole, 1, leaks()).unwrap();
        assert!(evaluation.tracks_mean.is_none() && evaluation.tracks_majority.is_none());
        assert_eq!(evaluation.tracks(), &evaluation.segments);

        let cut = single(&[
            (1, Some(1), 0, &[0.9, 0.1]),
            (1, Some(1), 0, &[0.4, 0.6]),
            (2, Some(2), 1, &[0.2, 0.8]),
        ]);
        let evaluation = Evaluation::from_predictions(&cut, 1, leaks()).unwrap();

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

        let evaluation = Evaluation::from_predictions(&single(&rows), 1, leaks()).unwrap();
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
