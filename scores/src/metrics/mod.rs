//! Honest scores: of segments and of tracks, with intervals over artists, beside what the split leaks.
//!
//! Input are [`Predictions`] of all ranks, output is an [`Evaluation`] as `result.json` holds it, and as a table. Computes
//! no prediction and decides nothing: which figure stops a run is the configuration's, on validation.

mod bootstrap;
mod calibration;
mod classification;
mod leaks;
mod multilabel;
mod predictions;
mod table;
mod wire;

use serde::{Deserialize, Serialize};
use wavemill_schemas::canonical;

pub use bootstrap::{
    Bootstrap, ClassInterval, ClassIntervals, Difference, Draws, Interval, Paired, RESAMPLES, Unit,
    class_intervals, paired,
};
pub use calibration::{CALIBRATION_BINS, Calibration, CalibrationBin};
pub use classification::{ClassReport, ClassScore, Means, SUPPORTED_TRACKS_MIN};
pub use leaks::{ComparedWith, Leak, Leaks, Member};
pub use multilabel::{SetReport, SetScore};
pub use predictions::{Label, Predictions, Row, likeliest};
pub use table::paired_table;

use bootstrap::bootstrap;
use classification::log_loss;

/// Probability from which a label of several counts as predicted.
pub const THRESHOLD: f32 = 0.5;

/// Why scores cannot be computed, or not be compared.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A row that no score can use.
    #[error("{clip_key}, segment {segment}, target {target}: {reason}")]
    Row {
        /// Of its clip.
        clip_key: String,
        /// Within its clip.
        segment: i32,
        /// What was predicted.
        target: String,
        /// What is wrong.
        reason: String,
    },
    /// A rank's bytes are cut off, or of another program.
    #[error("another rank's predictions cannot be read: do all ranks run the same wavemill-train?")]
    Bytes,
    /// The same row from two ranks.
    #[error("row {index} ({clip_key}) was predicted by two ranks")]
    Duplicate {
        /// Its place in the split.
        index: u64,
        /// Its clip.
        clip_key: String,
    },
    /// Scores over different classes say different things.
    #[error("targets with different classes are not compared: {left} and {right}")]
    ClassSets {
        /// Target and classes of one.
        left: String,
        /// Of the other.
        right: String,
    },
    /// Rows of one track with several labels.
    #[error("target {target}: rows of track {track_id} are labelled in different ways")]
    MixedTrack {
        /// The track.
        track_id: i64,
        /// The target.
        target: String,
    },
    /// Nothing to compare with.
    #[error("target {target}: no row has a label")]
    NoLabels {
        /// The target.
        target: String,
    },
    /// One class a row where several labels were expected, or the reverse.
    #[error("target {target} has {found} a row")]
    Kind {
        /// The target.
        target: String,
        /// What it has.
        found: &'static str,
    },
    /// Two models that did not predict the same tracks.
    #[error("not the same tracks: {reason}")]
    Tracks {
        /// The difference.
        reason: String,
    },
}

impl Predictions {
    fn check_kind(&self, multi: bool) -> Result<(), MetricsError> {
        match (self.is_multi(), multi) {
            (true, false) => Err(MetricsError::Kind {
                target: self.target().to_owned(),
                found: "several labels",
            }),
            (false, true) => Err(MetricsError::Kind {
                target: self.target().to_owned(),
                found: "one class",
            }),
            _ => Ok(()),
        }
    }

    fn check_same_classes(&self, other: &Self) -> Result<(), MetricsError> {
        if self.classes() == other.classes() && self.is_multi() == other.is_multi() {
            return Ok(());
        }
        Err(MetricsError::ClassSets {
            left: self.target_and_classes(),
            right: other.target_and_classes(),
        })
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

/// Scores of either kind of target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "labels", rename_all = "lowercase")]
pub enum Report {
    /// One class a row.
    Single(ClassReport),
    /// Any number of labels a row.
    Multi(SetReport),
}

impl Report {
    /// Of `predictions`, by their kind.
    ///
    /// # Errors
    /// [`MetricsError::NoLabels`].
    pub fn of(predictions: &Predictions) -> Result<Self, MetricsError> {
        if predictions.is_multi() {
            SetReport::of(predictions).map(Self::Multi)
        } else {
            ClassReport::of(predictions).map(Self::Single)
        }
    }
}

/// Scores of rows as they are, or of rows put together to tracks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// The figures.
    pub report: Report,
    /// Mean −ln of the true class's probability, unweighted; `None` for labels in sets and for majorities, whose values
    /// are votes.
    pub log_loss: Option<f64>,
    /// Intervals; `None` where there is a single artist or track.
    pub bootstrap: Option<Bootstrap>,
}

impl Level {
    /// All of it, with draws from `seed`.
    ///
    /// # Errors
    /// [`MetricsError::NoLabels`].
    pub fn of(predictions: &Predictions, seed: u64) -> Result<Self, MetricsError> {
        Ok(Self {
            report: Report::of(predictions)?,
            log_loss: log_loss(predictions),
            bootstrap: bootstrap(predictions, seed)?,
        })
    }
}

/// What `result.json` says of one target on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Name of the target.
    pub target: String,
    /// Names of its classes, in id order.
    pub classes: Vec<String>,
    /// Eight hex digits that differ where the classes do: scores with different ones never share a column.
    pub class_set: String,
    /// Mean loss as training weighs it; `None` where it was not computed.
    pub loss: Option<f64>,
    /// Each row by itself.
    pub segments: Level,
    /// Rows of a track by the mean of their probabilities; `None` where each track has one row.
    pub tracks_mean: Option<Level>,
    /// Rows of a track by vote; `None` likewise.
    pub tracks_majority: Option<Level>,
    /// The split's rule, and what leaks through it, or what a run of another version knows of the side.
    pub leaks: Leaks,
}

impl Evaluation {
    /// All scores of `predictions` on the side that `leaks` is about, with draws from `seed`.
    ///
    /// # Errors
    /// [`MetricsError::NoLabels`], [`MetricsError::MixedTrack`].
    pub fn of(predictions: &Predictions, seed: u64, leaks: Leaks) -> Result<Self, MetricsError> {
        let mut tracks_mean = None;
        let mut tracks_majority = None;
        // Where each track is one row, its mean and its vote would repeat the scores of the rows.
        if predictions.has_segments() {
            tracks_mean = Some(Level::of(&predictions.per_track_mean()?, seed)?);
            // The values of a vote order the classes and are no probabilities, so their logarithm would mean nothing.
            let votes = Level::of(&predictions.per_track_majority()?, seed)?;
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
            segments: Level::of(predictions, seed)?,
            tracks_mean,
            tracks_majority,
            leaks,
        })
    }

    /// The level that speaks of tracks: by the mean, or the rows themselves where each is a track.
    pub fn tracks(&self) -> &Level {
        self.tracks_mean.as_ref().unwrap_or(&self.segments)
    }
}

/// Eight hex digits of the class names in order.
fn class_set(classes: &[String]) -> String {
    // Over the names in id order: equal names in another order are another set, because the columns of a matrix differ.
    let id = canonical::id(&classes).expect("a list of text is JSON");
    id[..8].to_owned()
}

#[cfg(test)]
mod tests {
    use super::predictions::tests::{names, single};
    use super::*;
    use wavemill_schemas::recipe::SplitRule;

    fn leaks() -> Leaks {
        Leaks::of(SplitRule::Artist, "test", [], [])
    }

    #[test]
    fn tracks_are_scored_apart_only_where_they_have_segments() {
        let whole = single(&[(1, Some(1), 0, &[0.9, 0.1]), (2, Some(2), 1, &[0.7, 0.3])]);
        let evaluation = Evaluation::of(&whole, 1, leaks()).unwrap();
        assert!(evaluation.tracks_mean.is_none() && evaluation.tracks_majority.is_none());
        assert_eq!(evaluation.tracks(), &evaluation.segments);
        let cut = single(&[
            (1, Some(1), 0, &[0.9, 0.1]),
            (1, Some(1), 0, &[0.4, 0.6]),
            (2, Some(2), 1, &[0.2, 0.8]),
        ]);
        let evaluation = Evaluation::of(&cut, 1, leaks()).unwrap();
        let accuracy = |level: &Level| match &level.report {
            Report::Single(report) => (report.rows, report.accuracy),
            Report::Multi(_) => panic!("one class a row"),
        };
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
        let evaluation = Evaluation::of(&single(&rows), 1, leaks()).unwrap();
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
        let set = |names: &[&str]| {
            class_set(
                &names
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
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
